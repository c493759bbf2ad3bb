"""A run of ``bedside bench``, as it is kept: what was measured, of what, on what, and whether it is to be believed.

    Run          all of it; `read_run` has it back from its JSON, `Run.to_json` writes that
    Conditions   the machine, before, meanwhile and after

`bedside.bench.figures` has its parts. The dataclasses have the names of the JSON, ``bedside.bench/1``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bedside.backends.base import EngineInfo
from bedside.bench.figures import Energy, Parity, Sample, Scenario, Search, Settings, Start
from bedside.device import Device
from bedside.errors import InputError
from bedside.files import open_input
from bedside.provenance import NOTICE, BundleRef
from bedside.records import build, parse

__all__ = ["RULES", "SCHEMA", "Conditions", "Run", "State", "read_run"]

SCHEMA: Final = "bedside.bench/1"
"""Version of the JSON; its schema is ``schemas/bench-1.schema.json``."""
RULES: Final = "by MLPerf's rules, not a submission: no result of MLPerf, and not verified by MLCommons"
"""What may be said of the scenarios: the name is a trademark, and a result of that name has to be submitted."""
DIGITS: Final = 4
"""Decimals of every number: of milliseconds, a tenth of a microsecond. What is under 0.1 keeps as many significant
digits: a difference of 4e-06 from the golden outputs is not none."""
SMALL: Final = 0.1
"""Under it, `DIGITS` counts significant digits."""
MAX_BYTES: Final = 1 << 28
"""Largest file that is read back: 256 MiB, some million queries."""


@dataclass(frozen=True, slots=True)
class State:
    """A reading of the machine. What it does not tell is None or empty."""

    power_mode: str | None
    """E.g. ``MAXN`` (Jetson), or governor and platform profile."""
    clocks_mhz: dict[str, float]
    """Clock -> MHz."""
    max_clocks_mhz: dict[str, float]
    """Clock -> the most that it can be, MHz."""
    temperatures_c: dict[str, float]
    """Zone -> degrees Celsius."""
    load: float | None
    """Mean of processes that ran or waited, over the last minute."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What it was measured on."""

    device: Device
    """Processor, instructions, limits, GPUs and their driver."""
    system: str
    """Kernel and C library."""
    versions: dict[str, str]
    """Distribution -> version, of what took part."""
    before: State
    """Before the first study."""
    after: State | None
    """None where it did not come to that."""
    hottest_c: float | None
    """Highest temperature of all."""
    throttled: bool | None
    """Whether heat or current held clocks down; None where the machine does not tell."""
    throttled_by: tuple[str, ...]
    """By what."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run of ``bedside bench``."""

    schema: str
    """`SCHEMA`."""
    made: str
    """When it began, UTC, ISO 8601."""
    bundle: BundleRef
    """What answered."""
    task: str
    """Of the bundle."""
    engine: EngineInfo
    """What ran: engine, version, precision, device and threads."""
    watched: bool
    """Whether the engine ran in a process of its own (``--watchdog``)."""
    settings: Settings
    """How much was measured."""
    conditions: Conditions
    """What it was measured on."""
    parity: Parity | None
    """None where the golden inputs could not be run."""
    samples: tuple[Sample, ...]
    """What was measured on."""
    phantom: bool
    """Whether the input is the computed phantom."""
    left_out: dict[str, int]
    """Code of an error -> how many inputs were left out for it."""
    overlapping: bool
    """Whether stages overlap in time (CT), so that their sum is over the whole."""
    peak_memory_mib: float | None
    """Most that the studies' process held; None where that is not told, or the engine has a process of its own."""
    starts: tuple[Start, ...]
    """First results."""
    scenarios: tuple[Scenario, ...]
    """Runs of the scenarios, those of a search among them."""
    search: Search | None
    """Of the server scenario; None where it did not run to its end."""
    energy: Energy
    """Joules a study, or why not."""
    complete: bool
    """Whether all that was to be measured was."""
    valid: bool
    """Whether the numbers may be used; False has its `reasons`."""
    reasons: tuple[str, ...]
    """Why it is not complete or not valid."""
    notes: tuple[str, ...] = ()
    """What to know of it besides."""
    rules: str = RULES
    """What may be said of the scenarios."""
    notice: str = NOTICE
    """What it is not for."""

    def scenario(self, name: str) -> Scenario | None:
        """The first run of a scenario; None if there is none."""
        return next((each for each in self.scenarios if each.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """It as an object of `SCHEMA`, ready for `json.dumps`; numbers are rounded."""
        record: dict[str, Any] = _rounded(asdict(self))
        return record


def read_run(path: str | Path) -> Run:
    """A run out of its JSON file.

    Raises:
        InputError: The file can't be read; ``not-results`` if it holds no run of this version.
    """
    with open_input(path) as stream:
        data = stream.read(MAX_BYTES + 1)
    try:
        run = build(Run, parse(data))
        _check(run, len(data))
    except ValueError as error:
        raise InputError(
            "not-results",
            f"the file holds no run of bedside bench ({str(error)[:200]}); give JSON of schema {SCHEMA}",
        ) from error
    return run


def _check(run: Run, size: int) -> None:
    """Refuse another schema, columns of different lengths, and samples that are not there."""
    if size > MAX_BYTES:
        raise ValueError(f"over {MAX_BYTES >> 20} MiB")
    if run.schema != SCHEMA:
        raise ValueError(f"its schema is {run.schema[:40]!r}")
    for scenario in run.scenarios:
        queries = scenario.queries
        columns = (queries.at_ms, queries.latency_ms, queries.service_ms, *queries.stages_ms.values())
        if any(len(column) != len(queries.samples) for column in columns):
            raise ValueError(f"the queries of {scenario.name} are not of one number")
        if any(not 0 <= sample < len(run.samples) for sample in queries.samples):
            raise ValueError(f"the queries of {scenario.name} name samples that are not there")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS) if abs(value) >= SMALL else float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(each) for each in value]
    return value
