"""What a plan holds for: this bundle, these engines, this device, this set-up, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Final

from bedside.backends import BACKENDS, Tuning
from bedside.bundle import Bundle
from bedside.device import describe_device
from bedside.verification import installed
from bedside.version import __version__

__all__ = ["PlanKey", "canonical", "installed_engines", "key_for"]

DISTRIBUTIONS: Final = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-lean"),
    "tensorrt_rtx": ("tensorrt-rtx", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13"),
}
"""Package -> distributions that bring it, as the package index and JetPack name them. What is not here is looked up
among all that is installed, which takes a tenth of a second."""
UNKNOWN: Final = "unknown"
"""Version of an engine that came without metadata; opening it tells its version, which the plan holds too."""


@dataclass(frozen=True, slots=True)
class PlanKey:
    """What a plan holds for. Where anything differs, the plan is not used."""

    bundle: str
    """Digest of the bundle."""
    bedside: str
    """Version of bedside, whose leaves set the engines up."""
    engines: dict[str, str]
    """Package of each installed engine -> its version."""
    device: str
    """`bedside.device.Device.fingerprint`: name, driver and architecture."""
    threads: int | None
    """Threads that were asked for; None where it was left open."""
    hint: str
    """`bedside.backends.Tuning.hint`."""
    batch: int
    """`bedside.backends.Tuning.batch`."""
    tile: tuple[int, ...] | None
    """`bedside.backends.Tuning.tile`."""
    pinned: bool | None
    """`bedside.backends.Tuning.pinned`."""
    workspace_bytes: int | None
    """`bedside.backends.Tuning.workspace_bytes`."""
    dla: int | None
    """`bedside.backends.Tuning.dla`."""

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(canonical(asdict(self))).hexdigest()

    def differences(self, now: PlanKey) -> Iterator[str]:
        """What has changed from this key to ``now``, for people, the gravest first."""
        if self.bundle != now.bundle:
            yield "it is for another bundle"
        if self.device != now.device:
            yield f"it is for another device or driver ({self.device})"
        for package in sorted(self.engines.keys() | now.engines.keys()):
            then, version = self.engines.get(package), now.engines.get(package)
            if then is None:
                yield f"{package} {version} was not installed then"
            elif version is None:
                yield f"{package} {then} is no longer installed"
            elif then != version:
                yield f"{package} was {then} and is {version} now"
        if self.bedside != now.bedside:
            yield f"bedside was {self.bedside} and is {now.bedside} now"
        for name in ("threads", "hint", "batch", "tile", "pinned", "workspace_bytes", "dla"):
            then, asked = getattr(self, name), getattr(now, name)
            if then != asked:
                yield f"it is for {name.partition('_')[0]} {_tell(then)}, not {_tell(asked)}"


def key_for(
    bundle: Bundle, *, threads: int | None = None, tuning: Tuning | None = None, device: str | None = None
) -> PlanKey:
    """The key of the plan that serves a request here and now.

    Args:
        bundle: The bundle.
        threads: Threads that are asked for; None leaves it open.
        tuning: How the engine is to be set up; None for the default.
        device: The device's fingerprint; None looks at this one.
    """
    tuning = tuning or Tuning()
    return PlanKey(
        bundle=bundle.digest,
        bedside=__version__,
        engines=installed_engines(),
        device=describe_device(gpus=False).fingerprint if device is None else device,
        threads=threads,
        hint=tuning.hint,
        batch=tuning.batch,
        tile=tuning.tile,
        pinned=tuning.pinned,
        workspace_bytes=tuning.workspace_bytes,
        dla=tuning.dla,
    )


def installed_engines() -> dict[str, str]:
    """Package of each installed engine -> its version, without importing any."""
    packages = dict.fromkeys(BACKENDS[name].package for name in installed())
    return {package: _version(package) for package in packages}


def canonical(value: object) -> bytes:
    """The one way to write a value as JSON."""
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def _version(package: str) -> str:
    found = {name: version for name in DISTRIBUTIONS.get(package, ()) if (version := _look_up(name))}
    if not found:
        found = {
            name: metadata.version(name) for name in set(metadata.packages_distributions().get(package, ()))
        }
    if len(found) == 1:
        return next(iter(found.values()))
    return " + ".join(f"{name} {found[name]}" for name in sorted(found)) or UNKNOWN


def _look_up(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _tell(value: object) -> str:
    return "as the engine chooses" if value is None else str(value)
