"""Segment a CT side by side: a plain PyTorch loop against bedside, from a folder of DICOM to volumes.

Same series, same U-Net (``l3-unet2d``) with the same weights, same machine, same number of threads, in one run. Each
side is a process of its own, and the sides take turns, so that whatever else the machine does falls on all of them
alike. Medians and ratios are what counts.

    python benchmarks/train.py unet --data ../shared/data --out unet.pt
    python benchmarks/ct.py --weights unet.pt --json ct.json       40 slices from the middle of the series
    python benchmarks/ct.py --all --growth --json ct.json          all slices, and from 50 to 1,000 of them

The network's cost does not depend on its weights. Without ``--weights`` they are random but for batch norms and a last
layer that are fitted to the phantom: its labels mean nothing, and what lower precision costs it as little.

Processes are warm: starting one and loading the network are not counted, reading every header is. Each ratio is of the
fastest of our engines of that kind whose labels and volumes are, on this very series, within the bundle's tolerance of
the reference's; the others' are told beside. ``--isa`` caps the instruction sets of all sides alike, as on a machine
without AMX. Beside each inference stands what share it reaches of the processor's peak, which is measured in the same
run as the speed of a large matrix product of the same precision (of floating point alone). Our stages overlap, so that
they add up to more than the total, and slow each other down where they share cores.

Needs the extras ``export``, ``cpu``, ``openvino`` and ``codecs``, and for the reference a decoder that pydicom knows:
``pip install pylibjpeg pylibjpeg-libjpeg``. Not for clinical use.
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
import numpy.typing as npt
from ct_table import REFERENCE, STAGES, show
from curves import ENGINE, Subject, grow_slices, show_slices
from labels import dice, read_any
from machine import describe_machine, watch_machine
from networks import claim, describe_weights, read_parity, show_parity
from processes import ISAS, PAUSE_S, ask, cap_isa, peak_mib, probe, start, stop
from series import Series, draw_phantom, find_series

from bedside.bundle import Bundle
from bedside.errors import BundleError
from bedside.segmenter import BUILT_IN_CT

SIDES: Final = Path(__file__).parent / "sides"
COLLECTION: Final = Path(__file__).parents[2] / "shared" / "data" / "ct" / "ricord-series"
"""A real chest CT beside the checkout."""
PACKAGES: Final = ("onnxruntime", "openvino", "numpy", "pydicom", "imagecodecs", "bedside")
"""What our sides run on; those of the reference's are told by its own Python."""
FP32: Final = ("onnxruntime fp32", "openvino fp32")
KINDS: Final = {
    "fp32": FP32,
    "half": ("openvino bf16", "openvino fp16"),
    "int8": ("openvino int8", "openvino int8-bf16", "openvino int8-fp16"),
}
"""Kind of arithmetic -> our engines of that kind."""
CALIBRATION: Final = 48
"""Slices of the scan that the int8 network is calibrated on, and as many to compare on: every second one of the same
series, and none that is segmented unless all are."""
WARM_UP: Final = 3
"""Slices that each side has seen before it is measured."""


@dataclass
class Side:
    """One contender: how to start it, and what it told of each round."""

    name: str
    command: list[str]
    labels: Path
    """What it writes, each time anew."""
    environment: dict[str, str]
    limits: dict[str, float] = field(default_factory=dict)
    """What it may differ by from the reference, as the bundle states it: see `bedside.contract.CT_LIMITS`."""
    answers: list[dict[str, Any]] = field(default_factory=list)
    peak_mib: float = 0.0

    @property
    def precision(self) -> str:
        """Of its arithmetic."""
        return self.name.split()[1]

    def median(self, key: str) -> float:
        """Median over the rounds of one figure."""
        return float(statistics.median(answer[key] for answer in self.answers))

    def stage(self, name: str) -> float:
        """Median over the rounds of a stage, ms; 0 where the side has none of that name."""
        return float(statistics.median(answer["stages_ms"].get(name, 0.0) for answer in self.answers))


def measure(sides: list[Side], folder: Path, warm_up: Path, rounds: int, threads: int) -> dict[str, float]:
    """Alternate the sides over the series; returns the processor's peak, precision -> gigaflops a second."""
    pairs = [(side, start(side.command, side.environment)) for side in sides]
    command = [sides[0].command[0], str(SIDES / "ct_peak_side.py"), str(threads)]
    peak = start(command, sides[0].environment)
    peaks = {side.precision: 0.0 for side in sides if not side.precision.startswith("int8")}
    try:
        for _, process in pairs:
            ask(process, warm_up)
        for number in range(rounds):
            turn = number % len(pairs)
            for side, process in pairs[turn:] + pairs[:turn]:
                if side.precision in peaks:
                    reached = ask(peak, side.precision)["gflops"]
                    peaks[side.precision] = max(peaks[side.precision], reached)
                time.sleep(PAUSE_S)
                side.answers.append(ask(process, folder))
                side.peak_mib = peak_mib(process)
                click.echo(f"round {number + 1}: {side.name} {side.answers[-1]['seconds']:.1f} s", err=True)
    finally:
        for process in (peak, *(process for _, process in pairs)):
            stop(process)
    return peaks


def compare(
    sides: list[Side], peaks: dict[str, float], slices: int, flop: int, bundle: Bundle
) -> dict[str, Any]:
    """The ratios (the reference's time over ours) and all that they come from."""
    by = {side.name: side for side in sides}
    reference = by[REFERENCE]
    end_to_end = {name: reference.median("seconds") / side.median("seconds") for name, side in by.items()}
    inference = {name: reference.stage("inference") / side.stage("inference") for name, side in by.items()}
    for ratios in (end_to_end, inference):
        del ratios[REFERENCE]
    labels = read_any(reference.labels)
    described = {
        side.name: {
            **describe_side(side, slices, flop, peaks),
            **describe_labels(side, labels, reference, bundle),
        }
        for side in sides
    }
    counting = {name: ratio for name, ratio in end_to_end.items() if described[name]["inside_tolerance"]}
    return {
        "ratios": {
            kind: max((counting[name] for name in names if name in counting), default=None)
            for kind, names in KINDS.items()
        },
        "ratios_end_to_end": end_to_end,
        "ratios_inference": inference,
        "gflop_per_slice": flop / 1e9,
        "peak_gflops": peaks,
        "sides": described,
    }


def describe_side(side: Side, slices: int, flop: int, peaks: dict[str, float]) -> dict[str, Any]:
    """What one side took."""
    reached = flop * slices / (side.stage("inference") * 1e-3) / 1e9
    return {
        "seconds": side.median("seconds"),
        "seconds_of_rounds": [answer["seconds"] for answer in side.answers],
        "cpu_seconds": side.median("cpu_seconds"),
        "stages_ms": {stage: side.stage(stage) for stage in STAGES if stage in side.answers[0]["stages_ms"]},
        "ms_per_slice": side.median("seconds") * 1e3 / slices,
        "inference_gflops": reached,
        "inference_share_of_peak": reached / peaks[side.precision] if side.precision in peaks else None,
        "peak_memory_mib": side.peak_mib,
    }


def describe_labels(side: Side, labels: npt.NDArray[Any], reference: Side, bundle: Bundle) -> dict[str, Any]:
    """Volumes of one side, how far they and its labels are from the reference's, and whether that is allowed."""
    tissues = bundle.manifest.tissues
    names = [tissue.name for tissue in tissues]
    volumes, expected = (each.answers[-1]["volumes_ml"] for each in (side, reference))
    overlap = dice(labels, read_any(side.labels), len(names))
    ours, theirs = (
        sum(ml for ml, tissue in zip(each, tissues, strict=True) if tissue.opacity)
        for each in (volumes, expected)
    )
    percent = 100 * abs(ours - theirs) / theirs if theirs else 0.0
    loss = max(1 - each for each in overlap if each is not None)
    return {
        "volumes_ml": dict(zip(names, volumes, strict=True)),
        "dice": dict(zip(names, overlap, strict=True)),
        "volume_difference_ml": {
            name: ours - theirs for name, ours, theirs in zip(names, volumes, expected, strict=True)
        },
        "opacity_volume_percent": percent,
        "inside_tolerance": not side.limits
        or (loss <= side.limits["dice_loss"] and percent <= side.limits["volume_percent"]),
    }


@click.command()
@click.option(
    "--series",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with one CT series.  [default: ../shared/data/ct/ricord-series, else the phantom's]",
)
@click.option(
    "--slices",
    default=40,
    type=click.IntRange(min=WARM_UP),
    show_default=True,
    help="Neighbouring slices, from the middle of the series.",
)
@click.option("--all", "whole", is_flag=True, help="All slices of the series.")
@click.option(
    "--rounds",
    default=3,
    type=click.IntRange(min=0),
    show_default=True,
    help="Times that each side segments them; 0 for growth alone.",
)
@click.option("--threads", default=os.cpu_count() or 1, show_default=True, help="Threads of each side.")
@click.option(
    "--isa",
    type=click.Choice(ISAS),
    help="Cap the instruction sets of oneDNN, on which PyTorch and OpenVINO stand.",
)
@click.option(
    "--weights",
    default="random:0",
    show_default=True,
    metavar="FILE|random:SEED",
    help="Weights of the U-Net, as train.py writes them.",
)
@click.option(
    "--torch-python",
    default=sys.executable,
    metavar="FILE",
    help="The Python of the reference side, with the extra export.  [default: this one]",
)
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the weights and the bundle made of them; what is there already is taken.",
)
@click.option(
    "--make-only", is_flag=True, help="Make the network that --keep is to hold, and measure nothing."
)
@click.option("--growth", is_flag=True, help="Also measure time and memory from 50 to 1,000 slices.")
@click.option(
    "--bundle", default=BUILT_IN_CT, show_default=True, help="For --growth: folder, zip file or name."
)
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here."
)
def main(  # noqa: PLR0913 - click hands over each option
    *,
    series: Path | None,
    slices: int,
    whole: bool,
    rounds: int,
    threads: int,
    isa: str | None,
    weights: str,
    torch_python: str,
    keep: Path | None,
    make_only: bool,
    growth: bool,
    bundle: str,
    json_path: Path | None,
) -> None:
    """Compare a plain PyTorch loop with bedside, from a folder of DICOM to volumes."""
    if make_only and keep is None:
        raise click.UsageError("--make-only makes a network for --keep; give that too")
    if not rounds and not growth:
        raise click.UsageError("there is nothing to measure; give --rounds or --growth")
    if growth:
        try:
            Bundle.open(bundle)
        except BundleError as error:
            raise click.UsageError(f"--bundle {bundle}: {error.message}") from error
    report: dict[str, Any] = {
        "machine": describe_machine(threads, PACKAGES),
        "load_average": os.getloadavg()[0],
        "isa": isa,
        "weights": describe_weights(weights),
    }
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        source = series or (COLLECTION if COLLECTION.is_dir() else draw_phantom(work / "phantom"))
        found = find_series(source)
        report |= {"series_slices": len(found.files), "plane": found.plane}
        if rounds:
            count = len(found.files) if whole else min(slices, len(found.files))
            made = keep or work / "network"
            claim(made, report["weights"])
            network = make_network(found.without_middle(count), weights, made, torch_python, work)
            report["machine"]["reference_versions"] = network["versions"]
            bundle_of_sides = Bundle.open(made / "bundle")
            if make_only:
                show_parity(read_parity(bundle_of_sides))
                return
            commands = {
                REFERENCE: [torch_python, str(SIDES / "ct_reference_side.py"), str(made / "weights.pt")],
                "": [sys.executable, str(SIDES / "ct_bedside_side.py"), str(made / "bundle")],
            }
            sides, skipped = list_sides(bundle_of_sides, commands, work, cap_isa(isa), threads)
            folders = found.copy_middle(count, work / "series"), found.copy_middle(WARM_UP, work / "warm-up")
            with watch_machine(report["machine"]):
                peaks = measure(sides, *folders, rounds, threads)
            report |= {"slices": count, "rounds": rounds, "skipped": skipped}
            report["parity_at_export"] = read_parity(bundle_of_sides)
            report |= compare(sides, peaks, count, network["flop_per_slice"], bundle_of_sides)
            show(report)
            save(report, json_path)
        if growth:
            report["growth"] = grow_slices(found, Subject(bundle, ENGINE, threads), work)
            show_slices(report["growth"])
            save(report, json_path)


def make_network(others: Series, weights: str, made: Path, torch_python: str, work: Path) -> dict[str, Any]:
    """Write the network as PyTorch's weights and as our bundle, unless they are there.

    Args:
        others: Slices that are not compared: every second one calibrates, the others are what engines are tried on.
        weights: As ``--weights``.
        made: Folder to write to.
        torch_python: As ``--torch-python``.
        work: Folder for the slices.

    Returns:
        What `sides/ct_network.py` tells of it.
    """
    folders = (
        half.reslice(CALIBRATION, work / name)
        for half, name in zip(others.halves(), ("calibration", "validation"), strict=True)
    )
    command = [torch_python, str(SIDES / "ct_network.py"), weights, str(made), *map(str, others.plane)]
    done = subprocess.run([*command, *map(str, folders)], check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def save(report: dict[str, Any], path: Path | None) -> None:
    """Write the figures so far, if they are wanted."""
    if path:
        path.write_text(json.dumps(report, indent=2) + "\n")


def list_sides(
    bundle: Bundle, commands: dict[str, list[str]], work: Path, environment: dict[str, str], threads: int
) -> tuple[list[Side], dict[str, str]]:
    """The contenders, and why others are left out.

    Args:
        bundle: Of our sides.
        commands: How to start the reference's side, and under an empty name any of ours.
        work: Folder for what they write.
        environment: That they run in.
        threads: Of each.
    """
    labels = work / "reference.npz"
    sides = [Side(REFERENCE, [*commands[REFERENCE], str(threads), str(labels)], labels, environment)]
    skipped: dict[str, str] = {}
    for name in (name for names in KINDS.values() for name in names):
        backend, precision = name.split()
        labels = work / f"{backend}-{precision}.nii.gz"
        command = [*commands[""], backend, precision, str(threads), str(labels)]
        try:
            limits = bundle.manifest.tolerance(precision)
        except BundleError as error:
            skipped[name] = error.message
            continue
        if reason := probe(command, environment):
            skipped[name] = reason
        else:
            sides.append(Side(name, command, labels, environment, limits))
    return sides, skipped


if __name__ == "__main__":
    main()
