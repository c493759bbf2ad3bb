"""One side of a comparison of many: how it is started, what it took, and what a person has to install and write for it.

    measure_warm(contenders, questions, warm_ups, rounds)   all alternate, question by question
    measure_cold(contenders, question, starts)              from starting a process to its first answer

A side that dies is left out from there on, with what it did before; the others go on.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
from processes import PAUSE_S, ask, peak_mib, start, stop

__all__ = ["ALONE", "WHOLE", "Contender", "count_lines", "measure_cold", "measure_warm", "summarise"]

WHOLE: Final = "file to result"
ALONE: Final = "the network alone"
"""Scopes of what is timed: only those alike can be compared."""
LEAST: Final = 5
"""Fewest runs of the network that a side of that scope is asked for at a time."""
_BEGIN: Final = re.compile(r"\s*# user(?: of (\w+))?$")
_END: Final = re.compile(r"\s*# end user$")


@dataclass
class Contender:
    """One side."""

    name: str
    command: list[str]
    """Python, the side's file, and its arguments."""
    environment: Mapping[str, str]
    needs: tuple[str, ...]
    """Distributions that a person has to install, with extras."""
    mode: str = ""
    """Which of the file's lines are written for it, beside those that always are."""
    scope: str = WHOLE
    """`WHOLE` or `ALONE`."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """What it may differ by from the reference."""
    labels: Path | None = None
    """What it writes on CT, each time anew."""
    seconds: list[float] = field(default_factory=list)
    """Of each warm answer."""
    answers: list[dict[str, Any]] = field(default_factory=list)
    """Its answers of the first round."""
    p99_s: float | None = None
    """Where the side tells that itself, of many runs."""
    cold_s: list[float] = field(default_factory=list)
    """From starting a process to its first answer."""
    peak_mib: float = 0.0
    died: str = ""
    """What it died of; empty if it lives."""

    @property
    def runs_alone(self) -> bool:
        """Whether it times many runs of the network at a time."""
        return self.scope == ALONE

    def describe(self) -> dict[str, Any]:
        """What it took, and what has to be written for it."""
        return {
            "scope": self.scope,
            "warm": summarise(self.seconds) | ({} if self.p99_s is None else {"p99_ms": self.p99_s * 1e3}),
            "warm_s": self.seconds,
            "cold_start_median_s": statistics.median(self.cold_s) if self.cold_s else None,
            "cold_start_first_s": self.cold_s[0] if self.cold_s else None,
            "cold_start_s": self.cold_s,
            "peak_memory_mib": self.peak_mib,
            "needs": list(self.needs),
            "lines": None if self.runs_alone else count_lines(Path(self.command[1]), self.mode),
            "died": self.died,
        }


def summarise(seconds: Sequence[float]) -> dict[str, Any]:
    """Percentiles in ms; of fewer than a hundred the 99th lies between the two slowest."""
    if not seconds:
        return {"n": 0}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else [*seconds] * 99
    return {
        "n": len(seconds),
        "median_ms": cuts[49] * 1e3,
        "p90_ms": cuts[89] * 1e3,
        "p99_ms": cuts[98] * 1e3,
        "max_ms": max(seconds) * 1e3,
    }


def count_lines(path: Path, mode: str = "") -> int:
    """Lines of a side's file that a person has to write: those between the comments "user" and "end user".

    Blank lines, comments and docstrings do not count. A part that begins with "user of MODE" counts for that mode
    alone.
    """
    return sum(1 for line in _user_lines(path, mode) if line and not line.startswith(("#", '"""')))


def _user_lines(path: Path, mode: str) -> Iterator[str]:
    inside = False
    for line in path.read_text().splitlines():
        if begin := _BEGIN.match(line):
            inside = begin[1] in (None, mode)
        elif _END.match(line):
            inside = False
        elif inside:
            yield line.strip()


def measure_warm(
    contenders: Sequence[Contender], questions: Sequence[Path], warm_ups: Sequence[Path], rounds: int
) -> None:
    """Alternate all over the questions.

    Args:
        contenders: Those that die are left out from there on.
        questions: Of each round. A side that times the network alone is asked once a round, for so many runs.
        warm_ups: What each is asked before, which is not counted.
        rounds: How often.
    """
    pairs = [(each, start(each.command, each.environment)) for each in contenders]
    try:
        for each, process in pairs:
            for warm_up in () if each.runs_alone else warm_ups:
                _ask(each, process, warm_up)
        for index in range(rounds * len(questions)):
            turn = index % len(pairs)
            for each, process in pairs[turn:] + pairs[:turn]:
                _take_turn(each, process, questions, index)
        for each, process in pairs:
            _finish(each, process, rounds * len(questions))
    finally:
        for _, process in pairs:
            stop(process)


def _take_turn(
    each: Contender, process: subprocess.Popen[str], questions: Sequence[Path], index: int
) -> None:
    question: str | Path = questions[index % len(questions)]
    if each.runs_alone:
        if index % len(questions):
            return
        question = str(max(len(questions), LEAST))
    time.sleep(PAUSE_S)
    answer = _ask(each, process, question)
    if answer is not None:
        each.seconds.append(answer["seconds"])
        if index < len(questions):
            each.answers.append(answer)


def _finish(each: Contender, process: subprocess.Popen[str], runs: int) -> None:
    if each.runs_alone:
        last = _ask(each, process, f"{max(runs, LEAST)} p99")
        if last is not None:
            each.p99_s, each.peak_mib = last["seconds"], last["peak_mib"]
    elif not each.died:
        each.peak_mib = peak_mib(process)


def measure_cold(contenders: Sequence[Contender], question: Path, starts: int) -> None:
    """From starting a process to its first answer, alternating; not of sides that time the network alone."""
    for _ in range(starts):
        for each in contenders:
            if each.died or each.runs_alone:
                continue
            begin = time.perf_counter()
            process = start(each.command, each.environment)
            try:
                if _ask(each, process, question) is not None:
                    each.cold_s.append(time.perf_counter() - begin)
            finally:
                stop(process)


def _ask(each: Contender, process: subprocess.Popen[str], question: str | Path) -> dict[str, Any] | None:
    """Its answer; None if it is dead."""
    if each.died:
        return None
    try:
        return ask(process, question)
    except (BrokenPipeError, click.ClickException):
        process.wait()
        each.died = f"it ended with {process.returncode} after {len(each.seconds)} answers"
        click.echo(f"{each.name}: {each.died}", err=True)
        return None
