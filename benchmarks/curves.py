"""Curves of growth: each point is a process of its own.

draw_curve("threads", commands, ask, rounds=5)      time and memory over anything
grow_slices(series, Subject(...), work)             over the number of slices of one chest
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from processes import PAUSE_S, ask, peak_mib, probe, start, stop
from series import Series

__all__ = [
    "COUNTS",
    "ENGINE",
    "Subject",
    "draw_curve",
    "grow_slices",
    "python_side",
    "show_curve",
    "show_slices",
]

COUNTS: Final = (50, 100, 250, 500, 1000)
"""Slices."""
ENGINE: Final = "onnxruntime fp32"
"""The reference engine."""
WARM_UP: Final = 12
"""Slices that each process has seen before it is measured."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured."""

    bundle: str
    """Folder, zip file or name."""
    engine: str
    """Backend and precision."""
    threads: int
    """Inside one inference."""

    @property
    def arguments(self) -> tuple[str, ...]:
        """As the sides take them."""
        backend, _, precision = self.engine.partition(" ")
        return self.bundle, backend, precision or "fp32", str(self.threads)

    def describe(self) -> dict[str, str]:
        """For the report."""
        return {"bundle": Path(self.bundle).name, "engine": self.engine}


def python_side(name: str, *arguments: object) -> list[str]:
    """The command of a side of ours."""
    return [sys.executable, str(Path(__file__).parent / "sides" / name), *map(str, arguments)]


def draw_curve(
    axis: str,
    commands: Mapping[Any, Sequence[str]],
    question: Callable[[Any], str | Path],
    *,
    rounds: int,
    warm_up: Callable[[Any], str | Path] | None = None,
) -> dict[str, Any]:
    """Measure one curve, its points taking turns.

    Args:
        axis: What grows.
        commands: Value of that -> the side to start.
        question: Value -> what its side is asked.
        rounds: How often; a side that answers several ``runs`` counts them all.
        warm_up: Value -> what it is asked before; None for the same.

    Returns:
        ``points``, and ``why_not`` where the first can't run or a side died.
    """
    if reason := probe(list(next(iter(commands.values())))):
        return {"points": [], "why_not": reason}
    processes: dict[Any, subprocess.Popen[str]] = {}
    seconds: dict[Any, list[float]] = {value: [] for value in commands}
    answers: dict[Any, list[dict[str, Any]]] = {value: [] for value in commands}
    peaks: dict[Any, float] = {}
    why_not = ""
    try:
        for value, command in commands.items():
            processes[value] = start(command)
            ask(processes[value], (warm_up or question)(value))
        for number in range(rounds):
            for value in list(commands)[:: 1 if number % 2 else -1]:
                time.sleep(PAUSE_S)
                answer = ask(processes[value], question(value))
                seconds[value] += answer.get("runs") or [answer["seconds"]]
                answers[value].append(answer)
                peaks[value] = peak_mib(processes[value])
    except click.ClickException as error:
        why_not = error.message
    finally:
        for process in processes.values():
            stop(process)
    points = [
        {
            axis: value,
            "median_ms": statistics.median(seconds[value]) * 1e3,
            "fastest_ms": min(seconds[value]) * 1e3,
            "slowest_ms": max(seconds[value]) * 1e3,
            "seconds": seconds[value],
            "stages_ms": _stages(answers[value]),
            "peak_memory_mib": peaks[value],
        }
        for value in commands
        if seconds[value]
    ]
    return {"points": points, "why_not": why_not}


def _stages(answers: list[dict[str, Any]]) -> dict[str, float]:
    """Median of each stage, where the sides tell them."""
    told = [answer["stages_ms"] for answer in answers if answer.get("stages_ms")]
    return {name: statistics.median(each[name] for each in told) for name in told[0]} if told else {}


def show_curve(curve: dict[str, Any]) -> None:
    """Print a curve's table."""
    click.echo(f"\n{curve['bundle']}, {curve['engine']}" + (f", {curve['what']}" if "what" in curve else ""))
    if curve["why_not"]:
        click.echo(f"left out, {curve['why_not']}")
    for number, point in enumerate(curve["points"]):
        axis = next(iter(point))
        if not number:
            extra = [key for key in ("ms_per_picture", "speed_up") if key in point]
            click.echo(
                f"{axis:>12}{'median':>13}{'fastest':>13}{'peak memory':>15}"
                + "".join(f"{e:>16}" for e in extra)
            )
        click.echo(
            f"{point[axis]:>12g}{point['median_ms']:>10.1f} ms{point['fastest_ms']:>10.1f} ms"
            f"{point['peak_memory_mib']:>11.0f} MiB" + "".join(f"{point[key]:>16.2f}" for key in extra)
        )


def grow_slices(
    series: Series, subject: Subject, work: Path, *, counts: Sequence[int] = COUNTS
) -> dict[str, Any]:
    """Segment the same chest in more and more slices, each time in a process of its own.

    Args:
        series: What is segmented.
        subject: By what.
        work: A folder for the series; it is emptied of them again.
        counts: Slices, rising.
    """
    points: list[dict[str, Any]] = []
    warm_up = work / "growth-warm-up"
    if not warm_up.is_dir():
        series.copy_middle(WARM_UP, warm_up)
    command = python_side("ct_bedside_side.py", *subject.arguments, work / "growth.nii.gz")
    told: dict[str, Any] = {**subject.describe(), "why_not": probe(command)}
    for count in () if told["why_not"] else counts:
        folder = series.reslice(count, work / "growth")
        process = start(command)
        try:
            ask(process, warm_up)
            answer = ask(process, folder)
        except click.ClickException as error:
            told["why_not"] = error.message
            break
        finally:
            stop(process)
            shutil.rmtree(folder)
        points.append(
            {
                "slices": count,
                "seconds": answer["seconds"],
                "cpu_seconds": answer["cpu_seconds"],
                "ms_per_slice": answer["seconds"] * 1e3 / count,
                "stages_ms": answer["stages_ms"],
                "peak_memory_mib": answer["held_peak_mib"],
                "volumes_ml": answer["volumes_ml"],
            }
        )
        click.echo(f"{count} slices: {answer['seconds']:.1f} s", err=True)
    return {**told, "points": points, **(_fit(points) if len(points) > 1 else {})}


def _fit(points: list[dict[str, Any]]) -> dict[str, float]:
    """A line through the times, and how the largest scan compares with the smallest."""
    counts = np.array([point["slices"] for point in points], np.float64)
    seconds = np.array([point["seconds"] for point in points])
    # weights that make errors relative: a line has to fit the short scans too
    slope, fixed = np.polyfit(counts, seconds, 1, w=1 / seconds)
    off = np.abs(fixed + slope * counts - seconds) / seconds
    return {
        "fit_ms_per_slice": float(slope) * 1e3,
        "fit_fixed_seconds": float(fixed),
        "fit_worst_percent": float(off.max()) * 100,
        "memory_growth_mib": points[-1]["peak_memory_mib"] - points[0]["peak_memory_mib"],
    }


def show_slices(growth: dict[str, Any]) -> None:
    """Print the table."""
    click.echo(f"\nthe same chest in more slices: {growth['bundle']}, {growth['engine']}")
    if growth["why_not"]:
        click.echo(f"left out, {growth['why_not']}")
    for number, point in enumerate(growth["points"]):
        if not number:
            click.echo(
                f"{'slices':>8}{'time':>10}{'a slice':>12}{'processor time':>16}{'peak memory (PSS)':>20}"
            )
        click.echo(
            f"{point['slices']:>8}{point['seconds']:>8.1f} s{point['ms_per_slice']:>9.1f} ms"
            f"{point['cpu_seconds']:>14.1f} s{point['peak_memory_mib']:>16.0f} MiB"
        )
    if "fit_fixed_seconds" in growth:
        click.echo(
            f"time: {growth['fit_fixed_seconds']:.2f} s and {growth['fit_ms_per_slice']:.2f} ms a slice, off by at "
            f"most {growth['fit_worst_percent']:.0f} %; memory: {growth['memory_growth_mib']:+.0f} MiB from "
            f"{growth['points'][0]['slices']} to {growth['points'][-1]['slices']} slices"
        )
