"""What a benchmark measures, without a process and without time: a clock that jumps ahead, and studies that move it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from bedside.backends.base import EngineInfo
from bedside.bench.conditions import describe_conditions, note_state
from bedside.bench.figures import (
    STAGES,
    Difference,
    Energy,
    Generator,
    Parity,
    Queries,
    Sample,
    Scenario,
    Settings,
    Start,
)
from bedside.bench.record import SCHEMA, Run
from bedside.bench.scenarios import sum_up
from bedside.bench.study import Answer, Order
from bedside.bench.traffic import Clock
from bedside.device import Device, DeviceState, Machine
from bedside.errors import BedsideError
from bedside.provenance import BundleRef
from made_devices import write_files

ENGINE = EngineInfo("onnxruntime", "1.31.1", "fp32", "CPU", 2)
PASSED = Parity(True, 3, (Difference("extent", 0.001, 0.01), Difference("opacity", 0.002, 0.01)))
FAILED = Parity(False, 3, (Difference("extent", 0.5, 0.01), Difference("opacity", None, 0.01)))
DEVICE = Device("A processor", "x86_64", "6.1.2", ("avx2",), 4, 2)
FEW = Settings(duration_s=0.0, queries=5, starts=0, idles=(), server=False, idle_power_s=0.0)
"""Nothing that starts a process or waits."""
NO_METERS: tuple[list[Any], tuple[str, ...]] = ([], ("no meter",))

ZONES = "sys/class/powercap"
RAPL_RANGE = 262_143_328_850


class MadeClock(Clock):
    """A clock that goes on only while somebody waits or works."""

    def __init__(self) -> None:
        super().__init__()
        self.at_ns = 10**12

    def now_ns(self) -> int:
        """As far as it has come."""
        return self.at_ns

    def wait_until(self, at_ns: int) -> None:
        """Jump there."""
        self.at_ns = max(self.at_ns, at_ns)


class MadeSubject:
    """A `bedside.bench.subject.Subject` whose studies take what ``times_ms`` says, in turn.

    Args:
        times_ms: Of its studies.
        clock: Moved by them.
        fail: Called with the number of each study from 0; may raise.
        parity: Of the golden inputs.
    """

    def __init__(
        self,
        times_ms: Sequence[float] = (10.0,),
        clock: MadeClock | None = None,
        *,
        fail: Callable[[int], None] = lambda _: None,
        parity: Parity | BedsideError = PASSED,
        refused: dict[str, BedsideError] | None = None,
    ) -> None:
        self._times = times_ms
        self._clock = clock or MadeClock()
        self._fail = fail
        self._parity = parity
        self._refused = refused or {}
        self.engine = ENGINE
        self.paths: list[Path] = []
        self.studies: list[int] = []
        self.closed = False

    def __call__(self, order: Order) -> MadeSubject:
        """As what opens it."""
        return self

    def add(self, path: Path) -> int:
        """Keep the path."""
        self.paths.append(path)
        return len(self.paths) - 1

    def look(self, sample: int) -> Sample:
        """Refuse what is to be refused."""
        error = self._refused.get(self.paths[sample].name)
        if error is not None:
            raise error
        return Sample((100 + sample, 80), 8000, 1)

    def verify(self) -> Parity:
        """What was given."""
        if isinstance(self._parity, BedsideError):
            raise self._parity
        return self._parity

    def run(self, sample: int) -> Answer:
        """Take its time."""
        number = len(self.studies)
        self._fail(number)
        self.studies.append(sample)
        spent = self._times[number % len(self._times)]
        self._clock.at_ns += round(spent * 1e6)
        return Answer(self._clock.at_ns, spent, dict.fromkeys(STAGES, spent / len(STAGES)))

    def peak_bytes(self) -> int | None:
        """A hundred MiB."""
        return 100 << 20

    def close(self) -> None:
        """Remember that."""
        self.closed = True

    def __enter__(self) -> MadeSubject:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def make_scenario(latencies_ms: Sequence[float], name: str = "single-stream", **changes: Any) -> Scenario:
    """A run of these latencies, one after the other; the network takes half of each."""
    values = tuple(latencies_ms)
    halves = tuple(value / 2 for value in values)
    queries = Queries(
        samples=(0,) * len(values),
        at_ms=tuple(sum(values[:number]) for number in range(len(values))),
        latency_ms=values,
        service_ms=values,
        stages_ms={"decode": halves, "inference": halves},
    )
    scenario = Scenario(
        name=name,
        generator=Generator("bedside", "0"),
        seconds=sum(values) / 1e3,
        queries=queries,
        latency=sum_up(values),
        per_second=1e3 * len(values) / sum(values),
        complete=True,
        full_length=False,
    )
    return replace(scenario, **changes)


def make_run(latencies_ms: Sequence[float] = (10.0, 11.0, 12.0), **changes: Any) -> Run:
    """A whole, valid run of a single stream."""
    state = note_state(DeviceState())
    run = Run(
        schema=SCHEMA,
        made="2026-01-01T00:00:00+00:00",
        bundle=BundleRef("tiny", "1.0.0", "0" * 64),
        task="cxr-severity",
        engine=ENGINE,
        watched=False,
        settings=Settings(),
        conditions=describe_conditions(DEVICE, state, state, Machine("A processor", throttled=False)),
        parity=PASSED,
        samples=(Sample((96, 80), 8000, 1),),
        phantom=False,
        left_out={},
        overlapping=False,
        peak_memory_mib=100.0,
        starts=(Start("cold process", (800.0, 810.0, 790.0), {"open": (300.0, 310.0, 290.0)}),),
        scenarios=(make_scenario(latencies_ms),),
        search=None,
        energy=Energy(measured=False, reason="not measurable here"),
        complete=True,
        valid=True,
        reasons=(),
    )
    return replace(run, **changes)


def make_rapl(root: Path) -> Path:
    """Two packages with cores and memory, the platform around them, and the mmio zone that counts one again."""
    files: dict[str, str] = {}
    for zone, name in {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:1": "package-1",
        "intel-rapl:2": "psys",
        "intel-rapl-mmio:0": "package-0",
    }.items():
        files |= {
            f"{ZONES}/{zone}/name": f"{name}\n",
            f"{ZONES}/{zone}/energy_uj": "1000000\n",
            f"{ZONES}/{zone}/max_energy_range_uj": f"{RAPL_RANGE}\n",
        }
    return write_files(root, files)


def spend(root: Path, zone: str, energy_uj: int) -> None:
    """Let a zone's counter stand there."""
    write_files(root, {f"{ZONES}/{zone}/energy_uj": f"{energy_uj}\n"})
