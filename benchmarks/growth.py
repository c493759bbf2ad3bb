"""How time and memory of bedside grow, on phantoms, which are the same everywhere.

    python benchmarks/growth.py batch --json batch.json       1 to 64 pictures in one run of the network
    python benchmarks/growth.py threads --json threads.json   1 thread to all cores, an X-ray and a CT
    python benchmarks/growth.py slices --json slices.json     50 to 1,000 slices of one chest
    python benchmarks/growth.py size --json size.json         an X-ray of 0.5 to 12 megapixels

Each point is a process of its own, warm before it is timed, so that its peak memory is that point's. The points of a
curve take turns, so that whatever else the machine does falls on all of them alike. ``--engine`` can be given several
times: each is a curve. An engine that does not run here is told with the reason; Ctrl-C leaves the finished curves.

Needs the extra of each engine that is measured. Not for clinical use.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
from curves import Subject, draw_curve, grow_slices, python_side, show_curve, show_slices
from machine import describe_machine, summarise_state, watch_machine
from pictures import draw_sizes
from series import draw_phantom, find_series

from bedside.bundle import Bundle
from bedside.errors import BundleError

BATCHES: Final = (1, 2, 4, 8, 16, 32, 64)
MEGAPIXELS: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 12.0)
"""A portable detector sends 5 to 10; see `pictures.DETECTOR`."""
COUNTS: Final = (50, 100, 250, 500, 1000)
THREAD_SLICES: Final = 12
"""Of the CT whose time is measured over threads."""
PACKAGES: Final = ("onnxruntime", "openvino", "numpy", "pillow", "pydicom", "bedside")
CXR, CT = "cxr-severity-lite", "ct-opacity-lite"

ENGINE = click.option(
    "--engine",
    "engines",
    multiple=True,
    default=("onnxruntime fp32", "openvino fp32"),
    show_default=True,
    help="Backend and precision, in quotes; can be given several times.",
)
THREADS = click.option(
    "--threads", default=os.cpu_count() or 1, show_default=True, help="Threads of each engine."
)
ROUNDS = click.option(
    "--rounds", default=5, type=click.IntRange(min=1), show_default=True, help="Times that each is measured."
)
JSON = click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here."
)


@click.group()
def main() -> None:
    """Measure how time and memory grow."""


@main.command()
@click.option("--bundle", default=CXR, show_default=True, help="Folder, zip file or name.")
@ENGINE
@click.option(
    "--batch",
    "batches",
    multiple=True,
    type=click.IntRange(1, 1024),
    default=BATCHES,
    show_default=True,
    help="Pictures in one run; can be given several times.",
)
@click.option(
    "--hint",
    type=click.Choice(["latency", "throughput"]),
    default="throughput",
    show_default=True,
    help="What the engine is set up for.",
)
@THREADS
@ROUNDS
@JSON
def batch(
    *, bundle: str, engines: tuple[str, ...], batches: tuple[int, ...], hint: str, **options: Any
) -> None:
    """The network alone, over the number of pictures in one run."""
    check_bundle(bundle)

    def curves() -> Iterator[dict[str, Any]]:
        for engine in engines:
            subject = Subject(bundle, engine, options["threads"])
            commands = {
                size: python_side("batch_side.py", *subject.arguments, size, hint) for size in sorted(batches)
            }
            curve = draw_curve(
                "pictures", commands, lambda _: "2", rounds=options["rounds"], warm_up=lambda _: "1"
            )
            for point in curve["points"]:
                point["ms_per_picture"] = point["median_ms"] / point["pictures"]
            yield {**subject.describe(), "hint": hint, **curve}

    finish("batch", "pictures", curves, options)


@main.command()
@ENGINE
@click.option("--cxr", default=CXR, show_default=True, help="Bundle for X-rays.")
@click.option("--ct", default=CT, show_default=True, help="Bundle for CT.")
@click.option(
    "--threads",
    "counts",
    multiple=True,
    type=click.IntRange(min=1),
    help="Threads inside one inference; can be given several times.  [default: 1, 2, 4 and so on, to all cores]",
)
@ROUNDS
@JSON
def threads(*, engines: tuple[str, ...], cxr: str, ct: str, counts: tuple[int, ...], **options: Any) -> None:
    """From file to result, over the threads of the engine."""
    check_bundle(cxr)
    check_bundle(ct)
    cores = os.cpu_count() or 1
    wanted = sorted(set(counts or [*(1 << k for k in range(cores.bit_length())), cores]))
    wanted = wanted if counts else [count for count in wanted if count <= cores]
    options["threads"] = max(wanted)

    def curves() -> Iterator[dict[str, Any]]:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            (picture,) = draw_sizes([1.44], work)
            series = find_series(draw_phantom(work / "phantom"))
            questions = {
                cxr: ("bedside_side.py", picture, "an X-ray of 1200x1200"),
                ct: (
                    "ct_bedside_side.py",
                    series.copy_middle(THREAD_SLICES, work / "slices"),
                    f"{THREAD_SLICES} slices of 512x512",
                ),
            }
            for bundle, (side, question, what) in questions.items():
                for engine in engines:
                    commands = {
                        count: python_side(
                            side, *Subject(bundle, engine, count).arguments, work / f"labels-{count}.nii.gz"
                        )
                        for count in wanted
                    }
                    curve = draw_curve(
                        "threads", commands, partial(_same, question), rounds=options["rounds"]
                    )
                    fastest_of_one = curve["points"][0]["median_ms"] if curve["points"] else None
                    for point in curve["points"]:
                        point["speed_up"] = fastest_of_one / point["median_ms"]
                    yield {**Subject(bundle, engine, 0).describe(), "what": what, **curve}

    finish("threads", "threads", curves, options)


@main.command()
@click.option("--bundle", default=CT, show_default=True, help="Folder, zip file or name.")
@ENGINE
@click.option(
    "--slices",
    "counts",
    multiple=True,
    type=click.IntRange(min=3),
    default=COUNTS,
    show_default=True,
    help="Slices of the chest; can be given several times.",
)
@click.option(
    "--series",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with one CT series.  [default: the phantom's]",
)
@THREADS
@JSON
def slices(
    *, bundle: str, engines: tuple[str, ...], counts: tuple[int, ...], series: Path | None, **options: Any
) -> None:
    """From a folder of DICOM to volumes, over the number of slices of the same chest."""
    check_bundle(bundle)

    def curves() -> Iterator[dict[str, Any]]:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            found = find_series(series or draw_phantom(work / "phantom"))
            for engine in engines:
                subject = Subject(bundle, engine, options["threads"])
                yield grow_slices(found, subject, work, counts=sorted(counts))

    finish("slices", "slices", curves, options)


@main.command()
@click.option("--bundle", default=CXR, show_default=True, help="Folder, zip file or name.")
@ENGINE
@click.option(
    "--megapixels",
    multiple=True,
    type=click.FloatRange(0.1, 100),
    default=MEGAPIXELS,
    show_default=True,
    help="Of the X-ray; can be given several times.",
)
@THREADS
@ROUNDS
@JSON
def size(*, bundle: str, engines: tuple[str, ...], megapixels: tuple[float, ...], **options: Any) -> None:
    """From an X-ray's DICOM file to its scores, over the size of the picture."""
    check_bundle(bundle)

    def curves() -> Iterator[dict[str, Any]]:
        with tempfile.TemporaryDirectory() as folder:
            asked = dict(zip(sorted(megapixels), draw_sizes(sorted(megapixels), Path(folder)), strict=True))
            for engine in engines:
                subject = Subject(bundle, engine, options["threads"])
                command = python_side("bedside_side.py", *subject.arguments)
                curve = draw_curve(
                    "megapixels", dict.fromkeys(asked, command), asked.__getitem__, rounds=options["rounds"]
                )
                yield {**subject.describe(), **curve}

    finish("size", "megapixels", curves, options)


def _same(question: Path, _: int) -> Path:
    """The question, whatever the point."""
    return question


def check_bundle(source: str) -> None:
    """Refuse what is no bundle.

    Raises:
        click.UsageError: It can't be opened.
    """
    try:
        Bundle.open(source)
    except BundleError as error:
        raise click.UsageError(f"the bundle {source}: {error.message}") from error


def finish(
    of: str, axis: str, curves: Callable[[], Iterator[dict[str, Any]]], options: dict[str, Any]
) -> None:
    """Measure curve by curve, print each, and write all; Ctrl-C leaves the finished ones."""
    machine = describe_machine(options["threads"], PACKAGES)
    drawn: list[dict[str, Any]] = []
    report: dict[str, Any] = {
        "benchmark": "growth",
        "of": of,
        "axis": axis,
        "rounds": options.get("rounds", 1),
        "machine": machine,
        "complete": False,
        "curves": drawn,
    }
    try:
        with watch_machine(machine):
            for curve in curves():
                drawn.append(curve)
                (show_slices if of == "slices" else show_curve)(curve)
        report["complete"] = True
        click.echo(summarise_state(machine))
    except KeyboardInterrupt:
        click.echo("stopped; the curves so far are kept", err=True)
    if options["json_path"]:
        options["json_path"].write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
