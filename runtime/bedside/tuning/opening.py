"""``backend="auto"``: the engine that a tuned plan names, else fp32 ONNX Runtime.

An engine of another device, driver, version or bundle is never loaded: its plan is not used, and the result says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from bedside.backends import Backend, EngineInfo, Tuning, open_backend
from bedside.backends.base import Arrays
from bedside.bundle import Bundle
from bedside.errors import BackendError, MissingExtraError, OutputError
from bedside.fitness import Telling
from bedside.radiograph import Finding
from bedside.tuning.candidates import Candidate
from bedside.tuning.key import key_for
from bedside.tuning.plan import Planned
from bedside.tuning.plans import Plans

__all__ = ["DEFAULT", "ChosenBackend", "OpenEngine", "open_tuned"]

DEFAULT: Final = Candidate("onnxruntime", "fp32")
"""What runs where no plan says another: the reference."""


class OpenEngine(Protocol):
    """As `bedside.backends.open_backend`."""

    def __call__(
        self, name: str, bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning | None
    ) -> Backend:
        """Load a bundle's model into an engine."""


class ChosenBackend:
    """An engine that says why it runs; see `bedside.backends.base.Backend`.

    Args:
        backend: The engine; closed with this.
        chosen: One of `bedside.backends.base.CHOICES`.
        findings: What a result must tell of the choice: a plan that was not used, an engine that another stands in for.
    """

    def __init__(self, backend: Backend, chosen: str, findings: tuple[Finding, ...] = ()) -> None:
        self._backend = backend
        self._chosen = chosen
        self._findings = findings

    @property
    def info(self) -> EngineInfo:
        """What runs here, and why."""
        return replace(self._backend.info, chosen=self._chosen)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What a result must tell of the choice, with what the engine itself tells."""
        told = self._backend.findings if isinstance(self._backend, Telling) else ()
        return (*self._findings, *told)

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> Arrays:
        """Run the network once; see `bedside.backends.base.Backend.run`."""
        return self._backend.run(inputs)

    def close(self) -> None:
        """Free the engine."""
        self._backend.close()


def open_tuned(
    bundle: Bundle,
    *,
    threads: int | None = None,
    tuning: Tuning | None = None,
    plans: Plans | None = None,
    open_engine: OpenEngine = open_backend,
) -> ChosenBackend:
    """Open what a tuned plan names for this bundle, device and set-up, else the default.

    Args:
        bundle: The opened bundle.
        threads: Threads inside one inference. None takes what was measured to be best.
        tuning: How the engine is set up; the cache is that of the plan.
        plans: Where plans are kept; None for the default cache folder.
        open_engine: Opens an engine.

    Raises:
        MissingExtraError: There is no plan, and ONNX Runtime is not installed.
        BackendError: Nothing that qualified can be opened, and neither can the default.
        BundleError: The bundle has changed since it was opened.
    """
    plans = plans or Plans()
    tuning = tuning or Tuning()
    found = plans.find(key_for(bundle, threads=threads, tuning=tuning))
    failures: list[str] = []
    for planned in found.plan.ranking if found.plan else ():
        try:
            engine = _open(bundle, planned, replace(tuning, cache=plans.built(planned)), open_engine)
        except (BackendError, MissingExtraError, OutputError) as error:
            failures.append(f"{planned.candidate} can't be opened ({error.message}) [{error.code}]")
            continue
        return ChosenBackend(engine, "fallback" if failures else "plan", _tell(failures, planned.candidate))
    engine = open_engine(DEFAULT.backend, bundle, precision=DEFAULT.precision, threads=threads, tuning=tuning)
    if failures:
        return ChosenBackend(engine, "fallback", _tell(failures, DEFAULT))
    again = "again" if threads is None else f"with --threads {threads}"
    unused = (
        Finding(
            "plan-unused",
            f"the tuned plan is not used: {'; '.join(each.reasons)}; run bedside tune {again}",
        )
        for each in found.rejected[:1]
    )
    return ChosenBackend(engine, "default", tuple(unused))


def _open(bundle: Bundle, planned: Planned, tuning: Tuning, open_engine: OpenEngine) -> Backend:
    """The engine of a plan.

    Raises:
        BackendError: ``engine-foreign`` if it is of another version than the plan's.
        BedsideError: As `bedside.backends.open_backend`.
    """
    engine = open_engine(
        planned.backend, bundle, precision=planned.precision, threads=planned.threads, tuning=tuning
    )
    version = engine.info.version
    if version != planned.version:
        engine.close()
        raise BackendError(
            "engine-foreign",
            f"{planned.backend} is {version}, and {planned.version} was tuned; run bedside tune again",
        )
    return engine


def _tell(failures: list[str], instead: Candidate) -> tuple[Finding, ...]:
    if not failures:
        return ()
    return (Finding("engine-fallback", f"{'; '.join(failures)}; {instead} runs instead"),)
