"""How steady the latency is: from file to score, hot and after the machine was left alone, watched and not.

Each side is a process of its own: an engine in it, or (isolated) in a process that it watches. Hot is one picture
after the other. Then a side is left alone for some seconds before each picture, as a machine at a bedside is: its
clocks fall, its caches go cold. What a watched engine costs is measured apart, on runs of the network alone, side by
side.

    python benchmarks/steady.py --json steady.json

Needs the extra of each engine that is measured.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
from machine import describe_machine, summarise_state, watch_machine
from processes import PAUSE_S, ask, probe, start, stop

SIDE: Final = Path(__file__).parent / "sides" / "steady_side.py"
COLLECTION: Final = Path(__file__).parents[2] / "shared" / "data" / "cxr" / "images"
"""Real X-rays beside the checkout."""
PLACES: Final = ("in process", "isolated")
ENGINES: Final = ("onnxruntime fp32", "openvino fp32", "openvino fp16")
IDLES: Final = {1: 20, 10: 6}
"""Seconds of being left alone -> how often: a few minutes for each side in all."""
LONG: Final = {60: 5}
"""Added by ``--long``."""
N_IMAGES: Final = 5
"""Pictures that take turns."""
N_RUNS: Final = 5
"""Runs of the network in one turn, of which the first is not counted."""
PACKAGES: Final = ("onnxruntime", "openvino", "numpy", "pillow", "pydicom", "bedside")


@dataclass
class Side:
    """One engine in one place, and what was measured of it."""

    engine: str
    place: str
    command: list[str]
    latencies: dict[str, list[float]] = field(default_factory=dict)
    """Hot, or after how many seconds -> seconds from file to score."""
    runs: list[float] = field(default_factory=list)
    """Seconds of each run of the network alone."""
    firsts: list[tuple[float, float, float]] = field(default_factory=list)
    """Seconds of opening, of the first score and of the second, of fresh processes."""

    @property
    def name(self) -> str:
        """For the tables."""
        return f"{self.engine}, {self.place}"

    def summary(self) -> dict[str, Any]:
        """All of it, in ms."""
        hot = statistics.median(self.latencies["hot"])
        opened, first, second = (statistics.median(times) for times in zip(*self.firsts, strict=True))
        return {
            "latency": {
                when: {**describe(seconds), "times_hot": statistics.median(seconds) / hot}
                for when, seconds in self.latencies.items()
            },
            "run": describe(self.runs),
            "open_ms": opened * 1e3,
            "first_score_ms": first * 1e3,
            "second_score_ms": second * 1e3,
        }


def describe(seconds: list[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum in ms, of how many."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {
        "median_ms": cuts[49] * 1e3,
        "p99_ms": cuts[98] * 1e3,
        "max_ms": max(seconds) * 1e3,
        "n": len(seconds),
    }


def list_sides(bundle: str, engines: tuple[str, ...], threads: int) -> tuple[list[Side], dict[str, str]]:
    """The sides, and why other engines are left out."""
    sides, left_out = [], {}
    for engine in engines:
        backend, _, precision = engine.partition(" ")
        command = [sys.executable, str(SIDE), bundle, backend, precision or "fp32", str(threads)]
        if reason := probe([*command, PLACES[0]]):
            left_out[engine] = reason
        else:
            sides += [Side(engine, place, [*command, place]) for place in PLACES]
    return sides, left_out


def measure_latency(sides: list[Side], images: list[Path], hot: int, idles: dict[int, int]) -> None:
    """One side after the other, so that each is left alone while it is to be."""
    for side in sides:
        process = start(side.command)
        try:
            for image in images:
                ask(process, image)
            side.latencies["hot"] = [ask(process, images[k % len(images)])["seconds"] for k in range(hot)]
            for idle, times in idles.items():
                side.latencies[f"{idle} s"] = [
                    ask_after(idle, process, images[k % len(images)]) for k in range(times)
                ]
        finally:
            stop(process)


def ask_after(idle: float, process: subprocess.Popen[str], image: Path) -> float:
    """Leave a side alone for ``idle`` seconds; the seconds of its next score."""
    time.sleep(idle)
    seconds: float = ask(process, image)["seconds"]
    return seconds


def measure_runs(sides: list[Side], turns: int) -> None:
    """Alternate both places of each engine over runs of the network alone."""
    for engine in dict.fromkeys(side.engine for side in sides):
        pairs = [(side, start(side.command)) for side in sides if side.engine == engine]
        try:
            for turn in range(turns):
                for side, process in pairs if turn % 2 else pairs[::-1]:
                    time.sleep(PAUSE_S)
                    side.runs += ask(process, str(N_RUNS))["runs"][1:]
        finally:
            for _, process in pairs:
                stop(process)


def measure_firsts(sides: list[Side], image: Path, starts: int) -> None:
    """The first and the second score of fresh processes, whose engine is open."""
    for _ in range(starts):
        for side in sides:
            process = start(side.command)
            first, second = (ask(process, image) for _ in range(2))
            side.firsts.append((first["opened_s"], first["seconds"], second["seconds"]))
            stop(process)


def compare(sides: list[Side]) -> dict[str, Any]:
    """What isolation costs each engine a run: medians, their difference and ratio."""
    by = {(side.engine, side.place): statistics.median(side.runs) for side in sides}
    return {
        engine: {
            "in_process_ms": by[engine, PLACES[0]] * 1e3,
            "isolated_ms": by[engine, PLACES[1]] * 1e3,
            "costs_ms": (by[engine, PLACES[1]] - by[engine, PLACES[0]]) * 1e3,
            "ratio": by[engine, PLACES[1]] / by[engine, PLACES[0]],
        }
        for engine in dict.fromkeys(side.engine for side in sides)
    }


def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    machine = report["machine"]
    click.echo(f"{machine['processor']}, {machine['cores']} cores, {' '.join(machine['flags'])}")
    click.echo(summarise_state(machine))
    click.echo(", ".join(f"{name} {version}" for name, version in machine["versions"].items()))
    click.echo(
        f"\n{'file to score, ms':<32}{'left alone':>11}{'median':>9}{'p99':>9}{'max':>9}{'n':>5}{'x hot':>7}"
    )
    for name, side in report["sides"].items():
        for when, found in side["latency"].items():
            click.echo(
                f"{name:<32}{when:>11}{found['median_ms']:>9.1f}{found['p99_ms']:>9.1f}{found['max_ms']:>9.1f}"
                f"{found['n']:>5}{found['times_hot']:>7.2f}"
            )
    click.echo(f"\n{'ms':<32}{'to open':>11}{'1st score':>11}{'2nd score':>11}")
    for name, side in report["sides"].items():
        click.echo(
            f"{name:<32}{side['open_ms']:>11.0f}{side['first_score_ms']:>11.1f}{side['second_score_ms']:>11.1f}"
        )
    click.echo(
        f"\n{'a run of the network, ms':<32}{'in process':>11}{'isolated':>11}{'costs':>9}{'ratio':>8}"
    )
    for engine, cost in report["isolation"].items():
        click.echo(
            f"{engine:<32}{cost['in_process_ms']:>11.2f}{cost['isolated_ms']:>11.2f}{cost['costs_ms']:>9.2f}"
            f"{cost['ratio']:>8.3f}"
        )
    for name, reason in report["left_out"].items():
        click.echo(f"{name}: left out, {reason}")


def choose_images(folder: Path | None, drawn: Path) -> list[Path]:
    """Some pictures of a folder, else of the collection beside the checkout, else a phantom's."""
    folder = folder or (COLLECTION if COLLECTION.is_dir() else None)
    if folder is None:
        from bedside.sample import write_sample

        write_sample(drawn)
        return [drawn]
    paths = sorted(path for path in folder.iterdir() if path.suffix in {".jpg", ".jpeg", ".png", ".dcm"})
    if not paths:
        raise click.UsageError(f"no picture in {folder}; give another folder")
    return [paths[k * len(paths) // N_IMAGES] for k in range(min(N_IMAGES, len(paths)))]


@click.command()
@click.option("--bundle", default="cxr-severity-lite", show_default=True, help="A bundle for X-rays.")
@click.option(
    "--engine",
    "engines",
    multiple=True,
    default=ENGINES,
    show_default=True,
    help="Backend and precision, in quotes; can be given several times.",
)
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of pictures.  [default: ../shared/data/cxr/images, else a phantom's]",
)
@click.option(
    "--hot", default=200, type=click.IntRange(min=2), show_default=True, help="Hot scores of each side."
)
@click.option(
    "--turns", default=60, type=click.IntRange(min=2), show_default=True, help="Turns of runs of each side."
)
@click.option(
    "--starts", default=5, type=click.IntRange(min=1), show_default=True, help="Fresh starts of each side."
)
@click.option("--long", "is_long", is_flag=True, help="Also leave each side alone for minutes.")
@click.option(
    "--short", "is_short", is_flag=True, help="Leave no side alone for over a second, and that twice."
)
@click.option("--threads", default=os.cpu_count() or 1, show_default=True, help="Threads of each engine.")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here."
)
def main(  # noqa: PLR0913 - click hands over each option
    *,
    bundle: str,
    engines: tuple[str, ...],
    images: Path | None,
    hot: int,
    turns: int,
    starts: int,
    is_long: bool,
    is_short: bool,
    threads: int,
    json_path: Path | None,
) -> None:
    """Measure how steady the time from file to score is, and what a watched engine costs."""
    machine = describe_machine(threads, PACKAGES)
    idles = {1: 2} if is_short else {**IDLES, **(LONG if is_long else {})}
    with tempfile.TemporaryDirectory() as folder, watch_machine(machine):
        chosen = choose_images(images, Path(folder) / "phantom.dcm")
        sides, left_out = list_sides(bundle, engines, threads)
        if not sides:
            raise click.UsageError(f"nothing to measure: {'; '.join(left_out.values())}")
        measure_firsts(sides, chosen[0], starts)
        measure_runs(sides, turns)
        measure_latency(sides, chosen, hot, idles)
    report = {
        "sides": {side.name: side.summary() for side in sides},
        "isolation": compare(sides),
        "left_out": left_out,
        "machine": machine,
        "images": len(chosen),
        "starts": starts,
    }
    show(report)
    if json_path:
        json_path.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
