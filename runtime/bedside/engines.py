"""The engine that a job asked for: opened, guarded as asked, and warm."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from bedside.backends import BACKENDS, Backend, Tuning, open_backend
from bedside.bundle import Bundle
from bedside.errors import BackendError, BedsideError, MissingExtraError
from bedside.guard import Guard, GuardedBackend
from bedside.isolation import IsolatedBackend, Limits
from bedside.warmup import usual_shape, warm_up

__all__ = ["AUTO", "FALLBACK", "Auto", "Changing", "EngineRequest", "hold", "open_engine"]

AUTO: Final = "auto"
"""Name of the backend that is whatever was measured to be best."""
FALLBACK: Final = ("onnxruntime", "fp32")
"""Backend and precision of the reference, which stands behind all others."""
OPEN_S: Final = 600.0
"""Least time that a watched engine has to open: some compile for minutes on a small device."""


@dataclass(frozen=True, slots=True)
class Auto:
    """How ``auto`` finds its engine."""

    cache: Path | None = None
    """Folder of plans and built engines; None for the user's cache folder. A backend that is named keeps what it builds
    there too, and finds what ``bedside build`` left; with None it keeps nothing."""
    in_background: bool = False
    """Where there is no plan: answer on the reference at once, tune meanwhile in a process of its own, and go over to
    what turns out to be the best. Its processes count towards a memory budget while they run. False stays with the
    reference."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """Which engine, and how."""

    backend: str = "onnxruntime"
    """One of `bedside.backends.BACKENDS`; or ``auto``, for what a tuned plan names, else the reference."""
    precision: str | None = None
    """One of `bedside.backends.PRECISIONS`; None for fp32, or with ``auto`` for what was measured to be best."""
    threads: int | None = None
    """Threads inside one inference; None leaves it to the engine."""
    guard: Guard = field(default_factory=Guard)
    """What happens where it crashes or hangs."""
    tuning: Tuning | None = None
    """How it is set up beyond that; None for one picture at a time, as fast as it goes."""
    auto: Auto = field(default_factory=Auto)
    """How ``auto`` goes about it."""


@runtime_checkable
class Changing(Protocol):
    """An engine that may become another one between two runs, e.g. `bedside.tuning.SwitchingBackend`."""

    def hold(self) -> AbstractContextManager[None]:
        """Keep it as it is inside the ``with`` block."""


def hold(backend: Backend) -> AbstractContextManager[None]:
    """Keep an engine from becoming another one inside the ``with`` block: a scan has many runs and one result."""
    return backend.hold() if isinstance(backend, Changing) else nullcontext()


def open_engine(bundle: Bundle, request: EngineRequest) -> Backend:
    """Open the engine that a job asks for, and run it once where the bundle fixes the size of its pictures.

    Raises:
        MissingExtraError: The engine is not installed, or the one behind it.
        BackendError: ``engine-unsupported``, ``engine-failed``; ``engine-crashed`` or ``engine-hung`` where it is
            watched.
        BundleError: ``bundle-precision`` if the bundle has no model of that precision.
    """
    if request.backend == AUTO:
        return _open_auto(bundle, request)
    name, precision = request.backend, request.precision or FALLBACK[1]
    if name not in BACKENDS:
        raise BackendError(
            "engine-unsupported", f"no backend {name!r}; choose from: {', '.join((*BACKENDS, AUTO))}"
        )
    _require_fallback(request)
    if request.auto.cache is not None:
        tuning = request.tuning or Tuning()
        request = replace(request, tuning=replace(tuning, cache=tuning.cache or request.auto.cache))
    return _guard(bundle, request, (name, precision), partial(_open, bundle, request, name, precision))


def _open_auto(bundle: Bundle, request: EngineRequest) -> Backend:
    from bedside.tuning import (  # noqa: PLC0415 - not loaded where an engine is named: it would be felt at the start
        BackgroundTuning,
        Plans,
        SwitchingBackend,
        open_tuned,
    )

    if request.precision is not None:
        raise BackendError(
            "engine-unsupported",
            "auto chooses the precision as well; leave out the precision, or name a backend",
        )

    def open_planned(
        name: str, bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning | None
    ) -> Backend:
        return _open(bundle, replace(request, threads=threads, tuning=tuning), name, precision)

    def open_best() -> Backend:
        engine = open_tuned(
            bundle, threads=request.threads, tuning=request.tuning, plans=plans, open_engine=open_planned
        )
        return _guard(bundle, request, (engine.info.backend, engine.info.precision), lambda: engine)

    _require_fallback(request)
    plans = Plans(request.auto.cache)
    engine = open_best()
    if not request.auto.in_background or engine.info.chosen != "default":
        return engine
    tuning = BackgroundTuning(
        bundle, plans, threads=request.threads, tuning=request.tuning, open_best=open_best
    )
    return SwitchingBackend(engine, tuning)


def _require_fallback(request: EngineRequest) -> None:
    """Raise if the reference is to stand behind the engine, and is not installed."""
    leaf = BACKENDS[FALLBACK[0]]
    if request.guard.fallback and find_spec(leaf.package) is None:
        raise MissingExtraError.of(leaf.package, leaf.extra, "the engine to fall back on")


def _guard(
    bundle: Bundle, request: EngineRequest, what: tuple[str, str], first: Callable[[], Backend]
) -> Backend:
    """The engine that ``first`` opens, with the reference behind it if that was asked for, and it is not that."""
    if not request.guard.fallback or what == FALLBACK:
        return first()
    return GuardedBackend(first, partial(_open, bundle, request, *FALLBACK))


def _open(bundle: Bundle, request: EngineRequest, name: str, precision: str) -> Backend:
    seconds = request.guard.watchdog_s
    if seconds is not None:
        return IsolatedBackend(
            name,
            bundle,
            precision=precision,
            threads=request.threads,
            tuning=request.tuning,
            limits=Limits(open_s=max(seconds, OPEN_S), run_s=seconds),
        )
    backend = open_backend(name, bundle, precision=precision, threads=request.threads, tuning=request.tuning)
    spec = bundle.manifest.input
    try:
        warm_up(backend, spec, usual_shape(spec))
    except BedsideError:
        backend.close()
        raise
    return backend
