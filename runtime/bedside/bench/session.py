"""The measurement, read top to bottom: look at the samples, try parity, then time, and say what it is worth."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from bedside.bench.conditions import (
    describe_conditions,
    doubt_conditions,
    doubt_parity,
    note_conditions,
    note_state,
)
from bedside.bench.energy import Recorder
from bedside.bench.figures import Idle, Parity, Sample, Settings
from bedside.bench.generators import Generators
from bedside.bench.measurement import Listener, Measurement
from bedside.bench.meters import Meter, find_meters
from bedside.bench.record import SCHEMA, Run
from bedside.bench.samples import choose_samples, make_phantom
from bedside.bench.study import Order
from bedside.bench.subject import ProcessSubject, Subject
from bedside.bundle import Bundle
from bedside.device import Watch, describe_device
from bedside.errors import BedsideError, InputError, OutputError
from bedside.memory import MIB
from bedside.provenance import BundleRef
from bedside.results import prepare_folder

__all__ = ["LONG", "Outcome", "Request", "measure", "settings_for"]

LONG: Final = Idle(60.0, 2)
"""Added by ``--long``: a minute without a study, as between two patients."""
NOT_OF_A_SAMPLE: Final = ("engine-", "bundle-", "cache-")
"""Beginnings of the codes of what is no fault of a sample."""
FORCING: Final = re.compile(r"[;,](?: or)? use force \(--force\).*")
"""What a refusal offers to those who score, which is nothing to measure on."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is measured, and how."""

    backend: str = "onnxruntime"
    """One of `bedside.backends.BACKENDS`, or ``auto``."""
    precision: str | None = None
    """One of `bedside.backends.PRECISIONS`; None for fp32, or with ``auto`` for what is best."""
    threads: int | None = None
    """Threads inside one inference; None leaves it to the engine."""
    watchdog_s: float | None = None
    """Seconds after which an engine in a process of its own counts as hung; None has it where the study is."""
    cache: Path | None = None
    """Folder of plans and built engines."""
    inputs: tuple[Path, ...] = ()
    """X-rays or folders of them, or scans; none for the phantom."""
    settings: Settings | None = None
    """How much; None for `settings_for` the task."""
    generator: str = "auto"
    """One of `bedside.bench.generators.CHOICES`."""
    scratch: Path | None = None
    """Folder that results are written to, and taken away from again; None for the system's."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    run: Run
    """All that was measured, also where it was not all."""
    error: BaseException | None = None
    """What ended it early; None where nothing did."""


@dataclass(slots=True)
class _Looked:
    """What was found of the samples."""

    numbers: list[int] = field(default_factory=list)
    """Those that have an answer, by the subject's numbers."""
    samples: list[Sample] = field(default_factory=list)
    """What they are."""
    paths: list[Path] = field(default_factory=list)
    """Where they are."""
    times_ms: list[float] = field(default_factory=list)
    """What their studies took, warming up."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Code of an error -> how many have none for it."""


def settings_for(task: str, *, quick: bool = False) -> Settings:
    """How much is measured of a task, short of MLPerf's length: about a minute and a half, or with ``quick`` seconds.

    A CT takes some hundred times as long as an X-ray, so that far fewer are timed, and no server is searched.
    """
    if task == "ct-opacity":
        few = Settings(duration_s=0.0, queries=5, starts=2, idles=(Idle(1.0, 1), Idle(10.0, 1)), server=False)
        return few if not quick else replace(few, queries=1, starts=1, idles=(), idle_power_s=0.5)
    whole = Settings()
    if not quick:
        return whole
    return replace(
        whole, duration_s=0.5, queries=10, starts=1, idles=(Idle(1.0, 1),), search_steps=2, idle_power_s=0.5
    )


def measure(
    bundle: Bundle,
    request: Request,
    listener: Listener | None = None,
    *,
    open_subject: Callable[[Order], Subject] = ProcessSubject,
    meters: tuple[list[Meter], tuple[str, ...]] | None = None,
) -> Outcome:
    """Measure a bundle on an engine, on this machine.

    Args:
        bundle: The opened bundle.
        request: What, and how.
        listener: Told how far it is; what it raises ends the measurement.
        open_subject: Starts what is measured; for tests.
        meters: As of `bedside.bench.meters.find_meters`; None for those of this machine.

    Returns:
        The run, also where a study, the engine or Ctrl-C ended it: then with what was finished by then, and the error.

    Raises:
        BedsideError: Nothing could be measured: the engine does not open, no input has an answer, the golden vectors
            are broken, or the scratch folder can't be written.
    """
    made = datetime.now(timezone.utc).isoformat(timespec="seconds")
    listener = listener or Listener()
    task = bundle.manifest.task
    settings = request.settings or settings_for(task)
    watch = Watch(gpus=True)
    before = note_state(watch.look())
    with ExitStack() as stack:
        scratch = stack.enter_context(_scratch(request.scratch))
        listener.report("looking at the input", 0, 1)
        paths = choose_samples(request.inputs, task) if request.inputs else make_phantom(task, scratch)
        generators = Generators(request.generator, scratch, listener.check)
        order = _order(bundle, request, scratch)
        subject = stack.enter_context(open_subject(order))
        looked = _look(subject, paths, listener)
        span = stack.enter_context(watch.over(long=True))
        found, lacking = find_meters() if meters is None else meters
        recorder = stack.enter_context(Recorder(found if settings.idle_power_s > 0 else []))
        measurement = Measurement(
            subject, settings, listener, generators, recorder, order=order, path=looked.paths[0]
        )
        parity, error = None, None
        try:
            listener.report("golden inputs", 0, 1)
            parity = subject.verify()
            measurement.run(looked.numbers, min(looked.times_ms), scratch)
        except (BedsideError, KeyboardInterrupt) as problem:
            error = problem
        seen = span.end()
        conditions = describe_conditions(describe_device(), before, note_state(watch.look()), seen)
        watched = request.watchdog_s is not None
        peak = None if error is not None or watched else subject.peak_bytes()
        reasons = (*_tell(error), *doubt_conditions(conditions), *doubt_parity(parity))
        run = Run(
            schema=SCHEMA,
            made=made,
            bundle=BundleRef(bundle.manifest.name, bundle.manifest.version, bundle.digest),
            task=task,
            engine=subject.engine,
            watched=watched,
            settings=settings,
            conditions=conditions,
            parity=parity,
            samples=tuple(looked.samples),
            phantom=not request.inputs,
            left_out=dict(looked.left_out),
            overlapping=task == "ct-opacity",
            peak_memory_mib=None if peak is None else peak / MIB,
            starts=tuple(measurement.starts),
            scenarios=tuple(measurement.scenarios),
            search=measurement.search,
            energy=measurement.energy(lacking),
            complete=error is None,
            valid=_is_valid(error, parity, throttled=bool(conditions.throttled)),
            reasons=reasons,
            notes=(*note_conditions(conditions), *measurement.notes, *_note(looked.samples)),
        )
    return Outcome(run, error)


@contextmanager
def _scratch(parent: Path | None) -> Iterator[Path]:
    """A folder for what is written, taken away again."""
    folder = prepare_folder(Path(tempfile.gettempdir()) if parent is None else parent)
    with tempfile.TemporaryDirectory(prefix="bedside-bench-", dir=folder, ignore_cleanup_errors=True) as name:
        yield Path(name)


def _order(bundle: Bundle, request: Request, scratch: Path) -> Order:
    return Order(
        location=str(Path(bundle.location).absolute()),
        digest=bundle.digest,
        backend=request.backend,
        precision=request.precision,
        threads=request.threads,
        watchdog_s=request.watchdog_s,
        cache=None if request.cache is None else str(request.cache.absolute()),
        scratch=str(scratch),
    )


def _look(subject: Subject, paths: list[Path], listener: Listener) -> _Looked:
    """Read each sample and do its study once, so that all is warm, and leave out those that have no answer."""
    looked = _Looked()
    first: BedsideError | None = None
    for done, path in enumerate(paths):
        listener.report("looking at the input", done, len(paths))
        number = subject.add(path)
        try:
            sample = subject.look(number)
            answer = subject.run(number)
        except BedsideError as problem:
            if isinstance(problem, OutputError) or problem.code.startswith(NOT_OF_A_SAMPLE):
                raise
            first = first or problem
            looked.left_out[problem.code] += 1
            continue
        looked.numbers.append(number)
        looked.samples.append(sample)
        looked.paths.append(path)
        looked.times_ms.append(answer.service_ms)
    if first is not None and not looked.numbers:
        why = FORCING.sub("; give another", first.message)
        raise InputError(
            first.code if len(paths) == 1 else "not-an-image",
            f"no input can be measured on: {why}"
            if len(paths) == 1
            else f"none of {len(paths)} inputs can be measured on, the first since: {why}",
        )
    return looked


def _tell(error: BaseException | None) -> tuple[str, ...]:
    if error is None:
        return ()
    if isinstance(error, BedsideError):
        return (f"it ended early: {error.message} [{error.code}]",)
    return ("it was interrupted",)


def _is_valid(error: BaseException | None, parity: Parity | None, *, throttled: bool) -> bool:
    """An interruption leaves what was finished as good as it was."""
    return not isinstance(error, BedsideError) and not throttled and parity is not None and parity.passed


def _note(samples: list[Sample]) -> tuple[str, ...]:
    return ("one input alone, which the caches come to know",) if len(samples) == 1 else ()
