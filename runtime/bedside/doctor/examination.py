"""All that is looked at, and whether the base job can run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bedside.bundle import Bundle, built_in
from bedside.device import Device, DeviceState, describe_device, read_state
from bedside.device.tree import ROOT, Tree
from bedside.doctor.check import Check, private
from bedside.doctor.codecs import check_codecs
from bedside.doctor.engines import Engine, check_engines
from bedside.doctor.graphics import check_graphics
from bedside.doctor.storage import check_storage
from bedside.doctor.system import check_device, check_extras, check_python
from bedside.doctor.trials import LIMIT_S
from bedside.errors import BundleError
from bedside.provenance import NOTICE
from bedside.version import __version__

__all__ = ["AREAS", "SCHEMA", "Examination", "examine"]

SCHEMA: Final = "bedside.doctor/1"
"""Version of the JSON; its schema is ``schemas/doctor-1.schema.json``."""
_DEFAULT: Final = "onnxruntime"
"""The backend that runs where none is asked for."""
AREAS: Final = ("system", "device", "engines", "bundles", "codecs", "extras", "storage")
"""What a check may belong to, in the order that they are told in."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found."""

    checks: tuple[Check, ...]
    """Every line, by the order of `AREAS`."""
    engines: tuple[Engine, ...]
    """The backends, in more detail than their lines."""
    device: Device
    """What it runs on."""
    state: DeviceState
    """How that fares."""

    @property
    def able(self) -> bool:
        """Whether the base job can run: an engine ran a network, and a built-in bundle is whole."""
        bundles = any(check.area == "bundles" and check.status == "ok" for check in self.checks)
        return bundles and any(engine.works for engine in self.engines)

    @property
    def verdict(self) -> str:
        """One line that sums it up, and says what to do next."""
        working = [engine.backend for engine in self.engines if engine.works]
        if not working:
            fix = next((engine.fix for engine in self.engines if engine.fix), "")
            return f"bedside can't run here: no engine works{f'; try: {fix}' if fix else ''}"
        if not self.able:
            return "bedside can't run here: no built-in bundle is whole"
        option = "" if _DEFAULT in working else f" --backend {working[0]}"
        return (
            f"bedside can run here, on {' and '.join(working)}. Try it: "
            f"bedside sample chest.dcm && bedside score chest.dcm{option}"
        )

    def to_json(self) -> dict[str, Any]:
        """As an object of `SCHEMA`, ready for `json.dumps`."""
        device, state = self.device, self.state
        return {
            "schema": SCHEMA,
            "bedside": __version__,
            "able": self.able,
            "verdict": self.verdict,
            "checks": [asdict(check) for check in self.checks],
            "engines": [
                {
                    "backend": engine.backend,
                    "status": engine.status,
                    "version": engine.version,
                    "device": engine.device,
                    "precisions": list(engine.precisions),
                    "refused": dict(engine.refused),
                    "offers": list(engine.offers),
                }
                for engine in self.engines
            ],
            "device": {
                "name": device.name,
                "processor": device.processor,
                "architecture": device.architecture,
                "flags": list(device.flags),
                "logical_cores": device.logical_cores,
                "physical_cores": device.physical_cores,
                "cpu_limit": device.cpu_limit,
                "memory_bytes": device.memory_bytes,
                "memory_limit_bytes": device.memory_limit_bytes,
                "gpus": [asdict(gpu) for gpu in device.gpus],
                "jetson": None
                if device.jetson is None
                else {**asdict(device.jetson), "jetpack": device.jetson.jetpack},
                "fingerprint": device.fingerprint,
            },
            "state": {
                "power_mode": state.power_mode,
                "clocks_mhz": {
                    name: {"now": clock.mhz, "max": clock.max_mhz} for name, clock in state.clocks.items()
                },
                "temperatures_c": dict(state.temperatures_c),
                "throttled": state.throttled,
                "load": state.load,
            },
            "notice": NOTICE,
        }


def examine(
    *,
    cache: Path | None = None,
    root: Path = ROOT,
    limit_s: float = LIMIT_S,
    report: Callable[[str], None] | None = None,
) -> Examination:
    """Look at all of it. Takes seconds: engines are opened, and codecs decode.

    Args:
        cache: The cache folder; None for the default one.
        root: Where the device's files are; another than ``/`` for tests.
        limit_s: Most that one engine may take, seconds.
        report: Told the area that is looked at next.
    """
    tree = Tree(root)
    report = report or (lambda _: None)
    report("device")
    device, state = describe_device(root=root), read_state(root=root)
    report("bundles")
    bundles = _check_bundles()
    whole = tuple(check.name for check in bundles if check.status == "ok")
    report("engines")
    engines = check_engines(device, whole, limit_s=limit_s)
    report("codecs")
    codecs = check_codecs()
    checks = [
        *check_python(),
        *check_device(device, state, tree),
        *check_graphics(device, tree),
        *(engine.check for engine in engines),
        *bundles,
        *codecs,
        *check_extras(),
        *check_storage(cache),
    ]
    return Examination(tuple(checks), tuple(engines), device, state)


def _check_bundles() -> list[Check]:
    fix = "pip install --force-reinstall --no-deps bedside"
    checks = []
    for name in built_in():
        try:
            manifest = Bundle.open(name).manifest
        except BundleError as error:
            checks.append(Check("bundles", name, "broken", private(error), fix))
            continue
        held = ", ".join(manifest.models)
        text = f"{manifest.version}, {len(manifest.files)} files whose hashes are right; holds {held}"
        checks.append(Check("bundles", name, "ok", text))
    return checks or [Check("bundles", "built-in", "missing", "no bundle ships with this installation", fix)]
