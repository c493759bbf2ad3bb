"""How time and memory of bedside grow with the number of slices of a CT."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from processes import ask, start, stop
from series import Series

__all__ = ["grow", "show_growth"]

COUNTS: Final = (50, 100, 250, 500, 1000)
"""Slices."""
ENGINE: Final = ("onnxruntime", "fp32")
"""The reference engine."""
WARM_UP: Final = 12
"""Slices that each process has seen before it is measured."""


def grow(series: Series, bundle: str, side: Path, *, threads: int, work: Path) -> dict[str, Any]:
    """Segment the same chest in more and more slices, each time in a process of its own.

    Args:
        series: What is segmented.
        bundle: Folder, zip file or name.
        side: The script that segments.
        threads: Inside one inference.
        work: A folder for the series; it is emptied of them again.
    """
    points = []
    warm_up = series.copy_middle(WARM_UP, work / "growth-warm-up")
    for count in COUNTS:
        folder = series.reslice(count, work / "growth")
        labels = work / "growth.nii.gz"
        process = start([sys.executable, str(side), bundle, *ENGINE, str(threads), str(labels)])
        try:
            ask(process, warm_up)
            answer = ask(process, folder)
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
    return {"bundle": Path(bundle).name, "engine": " ".join(ENGINE), "points": points, **_fit(points)}


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


def show_growth(growth: dict[str, Any]) -> None:
    """Print the table."""
    click.echo(f"\nthe same chest in more slices: {growth['bundle']}, {growth['engine']}")
    click.echo(f"{'slices':>8}{'time':>10}{'a slice':>12}{'processor time':>16}{'peak memory (PSS)':>20}")
    for point in growth["points"]:
        click.echo(
            f"{point['slices']:>8}{point['seconds']:>8.1f} s{point['ms_per_slice']:>9.1f} ms"
            f"{point['cpu_seconds']:>14.1f} s{point['peak_memory_mib']:>16.0f} MiB"
        )
    click.echo(
        f"time: {growth['fit_fixed_seconds']:.2f} s and {growth['fit_ms_per_slice']:.2f} ms a slice, off by at most "
        f"{growth['fit_worst_percent']:.0f} %; memory: {growth['memory_growth_mib']:+.0f} MiB from "
        f"{growth['points'][0]['slices']} to {growth['points'][-1]['slices']} slices"
    )
