"""What a package of TensorRT is, and what it has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from bedside.errors import BackendError

__all__ = ["OLDEST", "Library", "line_of"]

OLDEST: Final = (10, 3)
"""The first TensorRT that is supported, of JetPack 6.1; TensorRT for RTX counts its own versions, from 1.4."""
_CAPABILITY: Final = re.compile(r"SM(\d+)(\d)")
_LONGEST: Final = 300
"""Letters of what TensorRT says that a message holds."""


@dataclass(frozen=True, slots=True)
class Library:
    """One of NVIDIA's two packages."""

    backend: str
    """Its name among `bedside.backends.BACKENDS`."""
    extra: str
    """The extra of bedside that brings it, or what it needs beside."""
    api: Any
    """The module."""
    rtx: bool
    """Whether it is TensorRT for RTX. That builds for GPUs that are not here, tunes on the device when an engine first
    runs, and has neither DLA nor a timing cache nor engines for other versions of itself."""

    @property
    def version(self) -> str:
        """Version of the package, e.g. ``10.3.0``."""
        return str(self.api.__version__)

    def check(self) -> None:
        """Refuse a version that this code is not for.

        Raises:
            BackendError: ``engine-unsupported``.
        """
        numbers = tuple(int(part) for part in re.findall(r"\d+", self.version)[:2])
        if not self.rtx and numbers < OLDEST:
            oldest = ".".join(map(str, OLDEST))
            raise BackendError(
                "engine-unsupported",
                f"TensorRT {self.version} is too old: {oldest} is needed, which JetPack has from 6.1; update it",
            )

    def capabilities(self) -> dict[str, Any]:
        """Compute capability, e.g. ``8.6`` -> the package's value for it; empty where only this GPU is built for."""
        if not self.rtx:
            return {}
        found = ((_CAPABILITY.fullmatch(name), name) for name in dir(self.api.ComputeCapability))
        named = {f"{match[1]}.{match[2]}": name for match, name in found if match}
        order = sorted(named, key=lambda text: tuple(map(int, text.split("."))))
        return {text: getattr(self.api.ComputeCapability, named[text]) for text in order}


def line_of(text: object) -> str:
    """What TensorRT or CUDA says, on one line of bounded length."""
    words = " ".join(str(text).split())
    return "".join(letter for letter in words if letter.isprintable())[:_LONGEST]
