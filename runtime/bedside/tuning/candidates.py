"""Every engine and precision that could run a bundle here. Listing imports no engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, TypeVar

from bedside.backends import BACKENDS, PRECISIONS
from bedside.backends.base import check_threads
from bedside.bundle import Bundle
from bedside.errors import BackendError, BundleError, MissingExtraError
from bedside.verification import installed

__all__ = ["BY_EXACTNESS", "Candidate", "Choice", "list_candidates"]

BY_EXACTNESS: Final = ("fp32", "fp16", "bf16", "int8", "int8-fp16", "int8-bf16")
"""`bedside.backends.PRECISIONS`, the most exact arithmetic first: fp16 keeps 11 bits of a number and bf16 keeps 8, and
what is not quantised in an int8 network runs in float32, fp16 or bf16."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run a bundle."""

    backend: str
    """One of `bedside.backends.BACKENDS`."""
    precision: str
    """One of `bedside.backends.PRECISIONS`."""
    threads: int | None = None
    """Threads inside one inference; None leaves it to the engine."""

    def __str__(self) -> str:
        threads = "" if self.threads is None else f", {self.threads} thread{'s' * (self.threads > 1)}"
        return f"{self.backend} {self.precision}{threads}"

    @property
    def slug(self) -> str:
        """The same as a folder's name."""
        return f"{self.backend}-{self.precision}-{self.threads or 'auto'}"


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be tried."""

    backends: tuple[str, ...] = ()
    """Names of backends; empty for all that are installed."""
    precisions: tuple[str, ...] = ()
    """Of `bedside.backends.PRECISIONS`; empty for all that the bundle holds and states a tolerance for."""
    threads: tuple[int, ...] = ()
    """Thread counts; empty leaves it to each engine."""

    def __post_init__(self) -> None:
        """Check the names and ranges."""
        for kind, given, known in (
            ("backend", self.backends, tuple(BACKENDS)),
            ("precision", self.precisions, PRECISIONS),
        ):
            for name in given:
                if name not in known:
                    raise BackendError(
                        "engine-unsupported", f"no {kind} {name!r}; choose from: {', '.join(known)}"
                    )
        for count in self.threads:
            check_threads(count)


def list_candidates(bundle: Bundle, choice: Choice) -> tuple[Candidate, ...]:
    """What could run the bundle here, the most exact precision first.

    Whether this device has what a candidate needs shows when it is tried: only its engine knows.

    Raises:
        MissingExtraError: A backend that was asked for is not installed, or none is.
        BundleError: ``bundle-precision`` if the bundle has none of the precisions that were asked for.
    """
    here = installed()
    for name in choice.backends:
        if name not in here:
            leaf = BACKENDS[name]
            raise MissingExtraError.of(leaf.package, leaf.extra, f"the backend {name!r}")
    backends = _unique(choice.backends) or here
    if not backends:
        raise MissingExtraError.of("onnxruntime", "cpu", "tuning")
    wanted = choice.precisions or BY_EXACTNESS
    precisions = [each for each in BY_EXACTNESS if each in wanted and _has(bundle, each)]
    if not precisions:
        _require(bundle, wanted[0])
    threads: Sequence[int | None] = _unique(choice.threads) or (None,)
    return tuple(
        Candidate(backend, precision, count)
        for precision, backend, count in product(precisions, backends, threads)
    )


def _unique(names: tuple[_T, ...]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(names))


def _has(bundle: Bundle, precision: str) -> bool:
    try:
        _require(bundle, precision)
    except BundleError:
        return False
    return True


def _require(bundle: Bundle, precision: str) -> None:
    """Raise if the bundle has no file, or states no tolerance, for a precision."""
    bundle.model(precision)
    bundle.manifest.tolerance(precision)
