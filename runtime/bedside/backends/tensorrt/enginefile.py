"""A plan in a file that says what it is for, and is believed only where all of it fits.

The file: 16 bytes that name the format; the lengths of the header and of what it holds (8 bytes each, big-endian); the
SHA-256 of all that and of the header; the header (JSON); what it holds. The header has the SHA-256 of that. So a byte
that differs, anywhere, is found before TensorRT sees any.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final

from bedside.backends.tensorrt.inspection import Inspection
from bedside.backends.tensorrt.recipe import Profile, Recipe
from bedside.errors import BackendError
from bedside.records import build, parse

__all__ = ["MAX_HEADER", "PREFIX", "SCHEMA", "Header", "Site", "Wanted", "pack", "read_header", "unpack"]

SCHEMA: Final = "bedside.engine/1"
"""The one format that this version reads and writes."""
MAX_HEADER: Final = 4 << 20
"""Most bytes of a header: it lists some hundred layers."""
_MAGIC: Final = b"bedside engine 1"
_LENGTHS: Final = struct.Struct(">QQ")
PREFIX: Final = len(_MAGIC) + _LENGTHS.size + hashlib.sha256().digest_size
"""Bytes before the header."""
_AGAIN: Final = "build it again here"


@dataclass(frozen=True, slots=True)
class Site:
    """Where an engine is to run."""

    device: str
    """Name of the GPU."""
    capability: str
    """Its compute capability, e.g. ``8.7``."""
    driver: str
    """Version of its driver, or of the Jetson Linux that holds it."""


@dataclass(frozen=True, slots=True)
class Header:
    """What an engine's file says of it."""

    schema: str
    """`SCHEMA`."""
    bundle: str
    """Digest of the bundle."""
    name: str
    """Name of the bundle."""
    bundle_version: str
    """Version of the bundle."""
    backend: str
    """Backend whose package built it."""
    version: str
    """Version of that package."""
    recipe: Recipe
    """What was built."""
    site: Site | None
    """The one GPU that it is for; None where it is for any of the recipe's compute capabilities."""
    gpu_fallback: bool
    """Whether the GPU runs what the DLA can't: true with a DLA."""
    inspection: Inspection
    """Layers and bindings."""
    bytes: int
    """Size of the plan."""
    sha256: str
    """Its SHA-256."""

    def misfits(self, wanted: Wanted) -> Iterator[str]:
        """Why this engine is not the one that is wanted, the gravest first."""
        if self.bundle != wanted.bundle:
            yield "it is of another bundle"
        if self.backend != wanted.backend:
            yield f"it is for {self.backend}, not {wanted.backend}"
        if not self._runs_on(wanted.version):
            yield f"it is for version {self.version}, and {wanted.version} is here"
        if self.site is not None and self.site != wanted.site:
            was, here = self.site, wanted.site
            yield (
                f"it is for the GPU {was.device} ({was.capability}) with driver {was.driver}, and "
                f"{here.device} ({here.capability}) with {here.driver} is here"
            )
        elif self.site is None and wanted.site.capability not in self.recipe.capabilities:
            yield (
                f"it is for compute capability {', '.join(self.recipe.capabilities)}, and "
                f"{wanted.site.capability} is here"
            )
        if self.recipe.precision != wanted.precision:
            yield f"it is {self.recipe.precision}, not {wanted.precision}"
        if self.recipe.dla != wanted.dla:
            yield f"it is for {_core(self.recipe.dla)}, not {_core(wanted.dla)}"
        tuned = self.recipe.profiles[0] if self.recipe.profiles else None
        if tuned is None or tuned.usual[1:] != wanted.profile.usual[1:] or not tuned.covers(wanted.profile):
            yield "it is for other batches or tiles"
        bound, most = self.recipe.workspace_bytes, wanted.workspace_bytes
        if most is not None and (bound is None or bound > most):
            yield "it may take more workspace"

    def _runs_on(self, version: str) -> bool:
        if not self.recipe.version_compatible:
            return self.version == version
        built, here = _numbers(self.version), _numbers(version)
        return bool(built) and built[:1] == here[:1] and here >= built


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which engine is wanted."""

    bundle: str
    """Digest of the bundle."""
    backend: str
    """Name of the backend."""
    version: str
    """Version of its package that is here."""
    site: Site
    """The GPU that is here."""
    precision: str
    """One of `bedside.backends.tensorrt.recipe.PRECISIONS`."""
    profile: Profile
    """What it must take."""
    dla: int | None
    """Core of the DLA; None for the GPU."""
    workspace_bytes: int | None
    """Most scratch memory that it may take; None leaves it open."""


def pack(header: Header, plan: bytes) -> bytes:
    """The file of an engine, whose header states the size and SHA-256 of ``plan``."""
    text = json.dumps(asdict(header), sort_keys=True, separators=(",", ":")).encode()
    start = _MAGIC + _LENGTHS.pack(len(text), len(plan))
    return start + hashlib.sha256(start + text).digest() + text + plan


def read_header(start: bytes) -> Header:
    """The header out of the first bytes of a file, `PREFIX` and the header's length or more.

    Raises:
        BackendError: ``engine-foreign`` if it is not whole, altered, or of another format.
    """
    if len(start) < PREFIX or not start.startswith(_MAGIC):
        raise _foreign("it is no engine of bedside, or of another version of it")
    after = len(_MAGIC) + _LENGTHS.size
    length, _ = _LENGTHS.unpack(start[len(_MAGIC) : after])
    if length > MAX_HEADER or len(start) < PREFIX + length:
        raise _foreign("it ends early or is altered")
    text = start[PREFIX : PREFIX + length]
    if hashlib.sha256(start[:after] + text).digest() != start[after:PREFIX]:
        raise _foreign("its header is altered")
    try:
        header = build(Header, parse(text))
    except ValueError as error:
        raise _foreign(f"its header is of another version ({error})") from error
    if header.schema != SCHEMA:
        raise _foreign("it is of another version of bedside")
    return header


def unpack(data: bytes, wanted: Wanted | None) -> tuple[Header, memoryview]:
    """Check the file of an engine, all of it, and take the plan out.

    Args:
        data: The file.
        wanted: Which engine it has to be; None only to look at it.

    Returns:
        The header and the plan, which aliases ``data``.

    Raises:
        BackendError: ``engine-foreign`` if a byte is missing or altered, or it is another engine.
    """
    header = read_header(data)
    if wanted is not None and (misfit := next(header.misfits(wanted), None)):
        raise _foreign(misfit)
    length, size = _LENGTHS.unpack(data[len(_MAGIC) : len(_MAGIC) + _LENGTHS.size])
    plan = memoryview(data)[PREFIX + length :]
    if not len(plan) == size == header.bytes or hashlib.sha256(plan).hexdigest() != header.sha256:
        raise _foreign("it ends early or is altered")
    return header, plan


def _foreign(reason: str) -> BackendError:
    return BackendError("engine-foreign", f"the built engine can't be used: {reason}; {_AGAIN}")


def _core(dla: int | None) -> str:
    return "the GPU" if dla is None else f"DLA core {dla}"


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()
