"""First results: of a process that has just started, of an engine that has kept nothing, of a machine left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from bedside.bench.figures import Idle, Start
from bedside.bench.study import Answer, Order
from bedside.bench.subject import ProcessSubject, Subject
from bedside.bench.traffic import Clock
from bedside.results import prepare_folder

__all__ = ["COLD_CACHE", "COLD_PROCESS", "Firsts", "start_cold", "start_uncached", "wait_idle"]

COLD_PROCESS: Final = "cold process"
COLD_CACHE: Final = "cold engine cache"
WARM_CACHE: Final = "cold process, warm engine cache"


class Firsts:
    """Collects first results of one kind."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._totals: list[float] = []
        self._parts: dict[str, list[float]] = {}

    def add(self, total_ms: float, parts_ms: dict[str, float]) -> None:
        """Take one."""
        self._totals.append(total_ms)
        for part, spent in parts_ms.items():
            self._parts.setdefault(part, []).append(spent)

    def start(self, skipped: str = "") -> Start:
        """What is told of it."""
        parts = {part: tuple(spent) for part, spent in self._parts.items()}
        return Start(self._kind, tuple(self._totals), parts, skipped)


def start_cold(order: Order, path: Path, firsts: Firsts) -> None:
    """Start a fresh process, and have it do one study.

    What the system keeps of files in memory stays there: to empty that takes root, and would slow all else.

    Raises:
        BedsideError: What it could not do.
    """
    with ProcessSubject(order) as subject:
        answer = subject.run(subject.add(path))
        parts = {
            "interpreter": (subject.begun_ns - subject.started_ns) / 1e6,
            "open": (subject.opened_ns - subject.begun_ns) / 1e6,
            **answer.stages_ms,
        }
        firsts.add((answer.done_ns - subject.started_ns) / 1e6, parts)


def start_uncached(
    order: Order, path: Path, folder: Path, times: int, step: Callable[[], None]
) -> tuple[Start, Start | None]:
    """Start processes whose engine has an empty folder to keep what it compiles, then with what it kept.

    Args:
        order: What is measured.
        path: A sample.
        folder: For those folders; exists.
        times: How often each.
        step: Called before each start; what it raises ends it.

    Returns:
        Both; the second is None where the engine keeps nothing, and the first is skipped then.
    """
    cold, warm = Firsts(COLD_CACHE), Firsts(WARM_CACHE)
    if order.backend == "auto":
        return cold.start("auto has its plan in that cache; name a backend"), None
    for number in range(times):
        cache = prepare_folder(folder / f"cache-{number}")
        cached = replace(order, cache=str(cache))
        step()
        start_cold(cached, path, cold)
        if not any(each.is_file() for each in cache.rglob("*")):
            return Firsts(COLD_CACHE).start("this engine keeps nothing of what it compiles"), None
        step()
        start_cold(cached, path, warm)
    return cold.start(), warm.start()


def wait_idle(subject: Subject, sample: int, idle: Idle, clock: Clock, firsts: Firsts) -> None:
    """Leave the machine alone before each study: its clocks fall, and its caches go cold.

    Raises:
        BedsideError: What a study could not do.
    """
    for _ in range(idle.times):
        clock.pause(idle.seconds)
        begin = clock.now_ns()
        answer: Answer = subject.run(sample)
        firsts.add((answer.done_ns - begin) / 1e6, answer.stages_ms)
