"""Score X-rays side by side: torchxrayvision in PyTorch eager against bedside, from file to score.

Same images, same DenseNet-121 weights, same machine, same number of threads, in one run. Each side is a process
of its own, and the sides alternate image by image, so that whatever else the machine does falls on all of
them alike. Medians and ratios are what counts.

    python benchmarks/train.py densenet --data ../shared/data --out densenet.pt
    python benchmarks/cxr.py --weights densenet.pt --json cxr.json

Without ``--weights`` they are random: speed and fp32 are the same, and what lower precision costs means nothing.
Our engines at lower precision count only where they stay inside the bundle's tolerance on these very images; others
are told with what they differ by. ``--isa`` caps the instruction sets of all sides alike, as on a machine without AMX.

``ratios`` are of the images as they are. Beside them stand the warm ratios of the same images enlarged to `DETECTOR`
pixels, since a collection's pictures are often reduced (those in ../shared to 768) and an X-ray machine's are
not. Cold starts are on an image as it is; peak memory is of the whole run, enlarged images included.

Needs the extras ``export``, ``cpu`` and ``openvino``.
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
from installed import installed_mib
from machine import describe_machine, summarise_state, watch_machine
from networks import claim, describe_weights, read_parity, show_parity, summarise_weights
from pictures import COUNT, DETECTOR, choose_images, draw_phantoms, enlarge, link
from processes import ISAS, PAUSE_S, ask, cap_isa, peak_mib, probe, start, stop

from bedside.bundle import Bundle
from bedside.errors import BundleError

SIDES: Final = Path(__file__).parent / "sides"
COLLECTION: Final = Path(__file__).parents[2] / "shared" / "data" / "cxr" / "images"
"""Real X-rays beside the checkout."""
AS_THEY_ARE: Final = "as they are"
AT_DETECTOR: Final = f"enlarged to {DETECTOR} pixels"
SIZES: Final = (AS_THEY_ARE, AT_DETECTOR)
REFERENCE: Final = "torchxrayvision"
ENGINES: Final = (
    ("onnxruntime", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "fp16"),
    ("openvino", "int8"),
    ("openvino", "int8-bf16"),
    ("openvino", "int8-fp16"),
)
"""What is tried of ours; the first is the reference engine, for which no more than its own speed is claimed."""
CALIBRATION: Final = 64
"""Pictures that the int8 network is calibrated on, and as many that engines are compared on before they are timed: none
of those that are scored."""
FEWEST: Final = 32
"""Least of each, as `bedside_export.precision.material.FEWEST`: with fewer there is no int8 network."""
PACKAGES: Final = ("torch", "torchxrayvision", "onnxruntime", "openvino", "numpy", "pydicom", "bedside")
"""What is compared, and what it stands on."""
INSTALLED: Final = {"reference": "torchxrayvision", "ours": "bedside[cpu]"}
"""Side -> distribution whose installed files are added up with all that it needs."""


@dataclass
class Run:
    """What one side took over one size of the images."""

    seconds: list[float] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)
    stages_ms: list[dict[str, float]] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median time from file to score, seconds."""
        return statistics.median(self.seconds)

    def summary(self) -> dict[str, Any]:
        """Median, 90th and 99th percentile in ms, and median of each stage."""
        cuts = statistics.quantiles(self.seconds, n=100, method="inclusive")
        stages = {k: statistics.median(s[k] for s in self.stages_ms) for k in self.stages_ms[0]}
        return {
            "median_ms": cuts[49] * 1e3,
            "p90_ms": cuts[89] * 1e3,
            "p99_ms": cuts[98] * 1e3,
            "stages_ms": stages,
        }


@dataclass
class Side:
    """One contender: how to start it, and what was measured of it."""

    name: str
    command: list[str]
    environment: dict[str, str]
    limits: tuple[float, ...] = ()
    """What its scores may differ by from the reference's, each."""
    warm: dict[str, Run] = field(default_factory=dict)
    cold_seconds: list[float] = field(default_factory=list)
    peak_mib: float = 0.0

    def start(self) -> subprocess.Popen[str]:
        """A fresh process."""
        return start(self.command, self.environment)

    def differences(self, reference: Side) -> list[float]:
        """Largest difference of each score from the reference's, over all sizes."""
        pairs = [
            (ours, theirs)
            for size, run in self.warm.items()
            for ours, theirs in zip(run.scores, reference.warm[size].scores, strict=True)
        ]
        return [
            max(abs(ours[score] - theirs[score]) for ours, theirs in pairs)
            for score in range(len(pairs[0][0]))
        ]

    def counts(self, reference: Side) -> bool:
        """Whether its speed counts: its scores are inside its tolerance."""
        return all(gap <= limit for gap, limit in zip(self.differences(reference), self.limits, strict=False))


def measure_warm(sides: list[Side], sizes: dict[str, list[Path]], rounds: int) -> None:
    """Alternate the sides over the images of each size; three images warm each up and are not counted."""
    pairs = [(side, side.start()) for side in sides]
    try:
        for size, images in sizes.items():
            runs = [(side.warm.setdefault(size, Run()), process) for side, process in pairs]
            for _run, process in runs:
                for image in images[:3]:
                    ask(process, image)
            for index in range(rounds * len(images)):
                turn = index % len(runs)
                for run, process in runs[turn:] + runs[:turn]:
                    time.sleep(PAUSE_S)
                    answer = ask(process, images[index % len(images)])
                    run.seconds.append(answer["seconds"])
                    run.stages_ms.append(answer["stages_ms"])
                    if index < len(images):
                        run.scores.append(answer["scores"])
        for side, process in pairs:
            side.peak_mib = peak_mib(process)
    finally:
        for _side, process in pairs:
            stop(process)


def measure_cold(sides: list[Side], image: Path, starts: int) -> None:
    """From starting a process to its first score, alternating."""
    for _ in range(starts):
        for side in sides:
            begin = time.perf_counter()
            process = side.start()
            ask(process, image)
            side.cold_seconds.append(time.perf_counter() - begin)
            stop(process)


def prepare(folder: Path, source: str, pictures: list[Path]) -> tuple[Path, Path]:
    """Write one set of DenseNet-121 weights as a bundle, and as a state dict of torchxrayvision's own module.

    The bundle has fp16 and int8 networks, if there are ``pictures`` enough: every second one calibrates, the others
    are compared on. What is in the folder already is taken.

    Args:
        folder: To write to.
        source: ``random:SEED``, or a file of torchxrayvision's state dict.
        pictures: Not those that are scored.
    """
    import torch

    from bedside_export.models import ALL, load_classifier

    bundle, weights = folder / "bundle", folder / "weights.pt"
    export = str(Path(sys.executable).parent / "bedside-export")
    halves = pictures[::2], pictures[1::2]
    whole = min(map(len, halves)) >= FEWEST
    plain = folder / "plain" if whole else bundle
    kind = None if source.startswith("random:") else ALL
    make = [export, "cxr-severity", "--weights", source, "--head", "v1", "--out", str(plain), "--force"]
    make += ["--name", "cxr-severity-benchmark"]
    make += [] if kind is None else ["--weights-kind", kind, "--licence", "LicenseRef-research-only"]
    commands = [] if plain.is_dir() or bundle.is_dir() else [make]
    if whole and not bundle.is_dir():
        options = ["--precision", "fp16,int8", "--keep-failing"]
        options += (
            ["--no-search"] if kind is None else []
        )  # of random weights it would take long and tell nothing
        for half, name in zip(halves, ("calibration", "validation"), strict=True):
            options += [f"--{name}", str(link(half, folder / name))]
        commands.append([export, "quantize", str(plain), *options, "--out", str(bundle)])
    for command in commands:
        subprocess.run(command, check=True, stdout=sys.stderr)
    classifier = load_classifier(source, kind=kind)
    parts = {"features": classifier.features, "classifier": classifier.logits}
    torch.save(
        {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()},
        weights,
    )
    return bundle, weights


def compare(sides: list[Side]) -> dict[str, Any]:
    """The ratios (the reference's figure over ours) and all that they come from."""
    by = {side.name: side for side in sides}
    reference, ours = by[REFERENCE], by["onnxruntime fp32"]
    installed = {side: installed_mib([needed]) for side, needed in INSTALLED.items()}

    def warm(size: str) -> dict[str, float]:
        return {
            f"warm_{name.replace(' ', '_')}": reference.warm[size].median / side.warm[size].median
            for name, side in by.items()
            if side is not reference and side.counts(reference)
        }

    return {
        "ratios": {
            **warm(AS_THEY_ARE),
            "cold_start": statistics.median(reference.cold_seconds) / statistics.median(ours.cold_seconds),
            "peak_memory": reference.peak_mib / ours.peak_mib,
            "installed_size": installed["reference"] / installed["ours"],
        },
        "ratios_at_detector_size": warm(AT_DETECTOR),
        "sides": {side.name: describe_side(side, reference) for side in sides},
        "installed_mib": installed,
    }


def describe_side(side: Side, reference: Side) -> dict[str, Any]:
    """All that was measured of one side."""
    return {
        "warm": {size: run.summary() for size, run in side.warm.items()},
        "cold_start_median_s": statistics.median(side.cold_seconds),
        "peak_memory_mib": side.peak_mib,
        "max_score_difference": max(side.differences(reference)),
        "inside_tolerance": side.counts(reference),
        "warm_ratio": {size: reference.warm[size].median / run.median for size, run in side.warm.items()},
    }


def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    machine = report["machine"]
    click.echo(f"{machine['processor']}, {machine['cores']} cores, {' '.join(machine['flags'])}")
    click.echo(summarise_state(machine))
    click.echo(summarise_weights(report["weights"]))
    if report["isa"]:
        click.echo(f"oneDNN of all sides capped to {report['isa']}")
    click.echo(", ".join(f"{name} {version}" for name, version in machine["versions"].items()))
    for size in SIZES:
        click.echo(f"\n{report['images']} images, {size}")
        click.echo(f"{'side':<20}{'median':>12}{'p99':>12}")
        for name, side in report["sides"].items():
            warm = side["warm"][size]
            click.echo(f"{name:<20}{warm['median_ms']:>9.1f} ms{warm['p99_ms']:>9.1f} ms")
    click.echo(f"\n{'side':<20}{'cold start':>12}{'peak memory':>13}{'score diff.':>13}")
    for name, side in report["sides"].items():
        click.echo(
            f"{name:<20}{side['cold_start_median_s']:>10.2f} s{side['peak_memory_mib']:>9.0f} MiB"
            f"{side['max_score_difference']:>13.5f}{'' if side['inside_tolerance'] else '  OUT OF TOLERANCE'}"
        )
    for name, reason in report["left_out"].items():
        click.echo(f"{name}: left out, {reason}")
    show_parity(report["parity_at_export"])
    size = report["installed_mib"]
    click.echo(f"\ninstalled: reference {size['reference']:.0f} MiB, ours {size['ours']:.0f} MiB")
    for title, ratios in (("ratios", "ratios"), ("warm ratios, enlarged images", "ratios_at_detector_size")):
        click.echo(f"{title}: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in report[ratios].items()))


def list_sides(
    bundle: Path, weights: Path, threads: str, environment: dict[str, str]
) -> tuple[list[Side], dict[str, str]]:
    """The contenders, and why others are left out."""
    reference = [sys.executable, str(SIDES / "torchxrayvision_side.py"), str(weights), threads]
    sides, left_out = [Side(REFERENCE, reference, environment)], {}
    manifest = Bundle.open(bundle).manifest
    for backend, precision in ENGINES:
        command = [sys.executable, str(SIDES / "bedside_side.py"), str(bundle), backend, precision, threads]
        try:
            tolerance = manifest.tolerance(precision)
        except BundleError as error:
            left_out[f"{backend} {precision}"] = error.message
            continue
        if reason := probe(command, environment):
            left_out[f"{backend} {precision}"] = reason
            continue
        limits = tuple(tolerance[score.name] for score in manifest.scores)
        sides.append(Side(f"{backend} {precision}", command, environment, limits))
    return sides, left_out


@click.command()
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of grey JPEG or PNG.  [default: ../shared/data/cxr/images, else the phantom's X-rays]",
)
@click.option(
    "--count",
    default=COUNT,
    type=click.IntRange(min=1),
    show_default=True,
    help="Images, evenly spread over the folder.",
)
@click.option(
    "--rounds",
    default=3,
    type=click.IntRange(min=2),
    show_default=True,
    help="Times that each image is scored by each side.",
)
@click.option(
    "--starts", default=5, type=click.IntRange(min=1), show_default=True, help="Cold starts of each side."
)
@click.option("--threads", default=os.cpu_count() or 1, show_default=True, help="Threads of each side.")
@click.option(
    "--isa",
    type=click.Choice(ISAS),
    help="Cap the instruction sets of oneDNN, on which PyTorch and OpenVINO stand.",
)
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the weights and the bundle made of them; what is there already is taken.",
)
@click.option(
    "--make-only", is_flag=True, help="Make the network that --keep is to hold, and measure nothing."
)
@click.option(
    "--weights",
    "origin",
    default="random:0",
    show_default=True,
    metavar="FILE|random:SEED",
    help="Weights of the DenseNet-121, as train.py writes them.",
)
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here."
)
def main(  # noqa: PLR0913 - click hands over each option
    *,
    images: Path | None,
    count: int,
    rounds: int,
    starts: int,
    threads: int,
    isa: str | None,
    origin: str,
    keep: Path | None,
    make_only: bool,
    json_path: Path | None,
) -> None:
    """Compare torchxrayvision in PyTorch eager with bedside, from file to score."""
    if make_only and keep is None:
        raise click.UsageError("--make-only makes a network for --keep; give that too")
    machine, told = describe_machine(threads, PACKAGES), describe_weights(origin)
    with tempfile.TemporaryDirectory() as folder:
        source = images or (COLLECTION if COLLECTION.is_dir() else draw_phantoms(Path(folder) / "phantoms"))
        chosen = choose_images(source, count)
        others = [path for path in choose_images(source, count + 2 * CALIBRATION) if path not in chosen]
        made = keep or Path(folder) / "network"
        claim(made, told)
        bundle, weights = prepare(made, origin, others if source == COLLECTION or images else [])
        if make_only:
            show_parity(read_parity(Bundle.open(bundle)))
            return
        sides, left_out = list_sides(bundle, weights, str(threads), cap_isa(isa))
        sizes = {AS_THEY_ARE: chosen, AT_DETECTOR: enlarge(chosen, Path(folder) / "detector")}
        with watch_machine(machine):
            measure_warm(sides, sizes, rounds)
            measure_cold(sides, chosen[0], starts)
        parity = read_parity(Bundle.open(bundle))
    report = {**compare(sides), "machine": machine, "isa": isa, "left_out": left_out}
    report |= {"weights": told, "parity_at_export": parity}
    report |= {"images": len(chosen), "rounds": rounds, "starts": starts}
    show(report)
    if json_path:
        json_path.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
