"""Segment a CT side by side: a plain PyTorch loop against bedside, from a folder of DICOM to volumes.

Same series, same U-Net (``l3-unet2d``) with the same weights, same machine, same number of threads, in one run. Each
side is a process of its own, and the sides take turns, so that whatever else the machine does falls on all of them
alike. Medians and ratios are what counts.

    python benchmarks/ct.py --json ct.json                     40 slices from the middle of the series
    python benchmarks/ct.py --all --growth --json ct.json      all slices, and from 50 to 1,000 of them

The network's cost does not depend on its weights, which are random but for batch norms and a last layer that are
fitted to the phantom. Its labels mean nothing, and serve to show that the sides compute the same; what bf16 costs a
trained network in Dice and volume stands in the parity report of that network's bundle. Processes are warm:
starting one and loading the network are not counted, reading every header is. ``end_to_end_fp32`` is of the faster
one of our engines. Beside each inference stands what share it reaches of the processor's peak, which is measured in
the same run as the speed of a large matrix product of the same precision. Our stages overlap, so that they add up to
more than the total, and slow each other down where they share cores.

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
from growth import grow, show_growth
from labels import dice, read_any
from machine import describe_machine
from processes import PAUSE_S, ask, peak_mib, start, stop
from series import draw_phantom, find_series

from bedside.bundle import Bundle
from bedside.errors import BundleError
from bedside.segmenter import BUILT_IN_CT

SIDES: Final = Path(__file__).parent / "sides"
COLLECTION: Final = Path(__file__).parents[2] / "shared" / "data" / "ct" / "ricord-series"
"""A real chest CT beside the checkout."""
PACKAGES: Final = ("onnxruntime", "openvino", "numpy", "pydicom", "imagecodecs", "bedside")
"""What our sides run on; those of the reference's are told by its own Python."""
REFERENCE: Final = "pytorch fp32"
FP32: Final = ("onnxruntime fp32", "openvino fp32")
BF16: Final = "openvino bf16"
TARGETS: Final = {"end_to_end_fp32": 2.0, "end_to_end_bf16": 10.0}
"""What is to be reached: issue 3, part 10."""
STAGES: Final = ("open", "plan", "read", "preprocess", "inference", "measure", "write", "interpret")
"""open: headers and probes; plan: the engine's warm-up on a scan's tile; inference: with the blending of tiles."""
WARM_UP: Final = 3
"""Slices that each side has seen before it is measured."""


@dataclass
class Side:
    """One contender: how to start it, and what it told of each round."""

    name: str
    command: list[str]
    labels: Path
    """What it writes, each time anew."""
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
    pairs = [(side, start(side.command)) for side in sides]
    peak = start([sides[0].command[0], str(SIDES / "ct_peak_side.py"), str(threads)])
    peaks = {side.precision: 0.0 for side in sides}
    try:
        for _, process in pairs:
            ask(process, warm_up)
        for number in range(rounds):
            turn = number % len(pairs)
            for side, process in pairs[turn:] + pairs[:turn]:
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
    sides: list[Side], peaks: dict[str, float], slices: int, flop: int, names: list[str]
) -> dict[str, Any]:
    """The ratios (the reference's time over ours) and all that they come from."""
    by = {side.name: side for side in sides}
    reference = by[REFERENCE]
    end_to_end = {name: reference.median("seconds") / side.median("seconds") for name, side in by.items()}
    inference = {name: reference.stage("inference") / side.stage("inference") for name, side in by.items()}
    for ratios in (end_to_end, inference):
        del ratios[REFERENCE]
    labels = read_any(reference.labels)
    return {
        "ratios": {
            "end_to_end_fp32": max(end_to_end[name] for name in FP32),
            "end_to_end_bf16": end_to_end.get(BF16),
        },
        "targets": TARGETS,
        "ratios_end_to_end": end_to_end,
        "ratios_inference": inference,
        "gflop_per_slice": flop / 1e9,
        "peak_gflops": peaks,
        "sides": {
            side.name: {
                **describe_side(side, slices, flop, peaks),
                **describe_labels(side, labels, reference, names),
            }
            for side in sides
        },
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
        "inference_share_of_peak": reached / peaks[side.precision],
        "peak_memory_mib": side.peak_mib,
    }


def describe_labels(
    side: Side, labels: npt.NDArray[Any], reference: Side, names: list[str]
) -> dict[str, Any]:
    """Volumes of one side, and how far they and its labels are from the reference's."""
    volumes, expected = (each.answers[-1]["volumes_ml"] for each in (side, reference))
    overlap = dice(labels, read_any(side.labels), len(names))
    return {
        "volumes_ml": dict(zip(names, volumes, strict=True)),
        "dice": dict(zip(names, overlap, strict=True)),
        "volume_difference_ml": {
            name: ours - theirs for name, ours, theirs in zip(names, volumes, expected, strict=True)
        },
    }


def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    machine, sides = report["machine"], report["sides"]
    click.echo(f"{machine['processor']}, {machine['cores']} cores, {' '.join(machine['flags'])}")
    click.echo(f"load average before: {report['load_average']:.1f}; a quiet machine's is near 0")
    for title, versions in (("ours", machine["versions"]), ("reference", machine["reference_versions"])):
        click.echo(f"{title}: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    click.echo(
        f"\n{report['slices']} of {report['series_slices']} slices, ms a slice, median of {report['rounds']}"
    )
    click.echo(f"{'side':<18}{'total':>9}" + "".join(f"{stage:>11}" for stage in STAGES))
    for name, side in sides.items():
        times = (side["stages_ms"].get(stage) for stage in STAGES)
        cells = (f"{'-':>11}" if ms is None else f"{ms / report['slices']:>11.2f}" for ms in times)
        click.echo(f"{name:<18}{side['ms_per_slice']:>9.1f}" + "".join(cells))
    click.echo(
        f"\nthe network takes {report['gflop_per_slice']:.1f} GFLOP a slice; the processor's peak is measured"
    )
    click.echo(
        f"{'side':<18}{'GFLOP/s':>9}{'of peak':>9}{'share':>8}{'processor time':>16}{'peak memory':>13}"
    )
    for name, side in sides.items():
        peak = report["peak_gflops"][name.split()[1]]
        click.echo(
            f"{name:<18}{side['inference_gflops']:>9.0f}{peak:>9.0f}{side['inference_share_of_peak']:>8.0%}"
            f"{side['cpu_seconds']:>14.1f} s{side['peak_memory_mib']:>9.0f} MiB"
        )
    click.echo("\nagainst the reference's labels: Dice (difference of volume); at export, on the phantom")
    for name, side in sides.items():
        if name != REFERENCE:
            status = report["parity_at_export"].get(name, "not tried")
            click.echo(f"{name}: " + ", ".join(_agreement(side)) + f"; {status}")
    click.echo(
        "\nratios, end to end: " + ", ".join(f"{k} {v:.2f}" for k, v in report["ratios_end_to_end"].items())
    )
    click.echo(
        "ratios, inference: " + ", ".join(f"{k} {v:.2f}" for k, v in report["ratios_inference"].items())
    )
    for name, ratio in report["ratios"].items():
        if ratio is None:
            click.echo(f"{name}: left out, {report['skipped'][BF16]}")
        else:
            verdict = "reached" if ratio >= TARGETS[name] else "missed"
            click.echo(f"{name}: {ratio:.2f} (target {TARGETS[name]:g}: {verdict})")


def _agreement(side: dict[str, Any]) -> list[str]:
    return [
        f"{tissue} {'absent' if value is None else f'{value:.5f}'} ({side['volume_difference_ml'][tissue]:+.3f} mL)"
        for tissue, value in side["dice"].items()
    ]


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
    "--checkpoint",
    default="random:0",
    show_default=True,
    metavar="FILE|random:SEED",
    help="Weights of the U-Net.",
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
    checkpoint: str,
    torch_python: str,
    keep: Path | None,
    growth: bool,
    bundle: str,
    json_path: Path | None,
) -> None:
    """Compare a plain PyTorch loop with bedside, from a folder of DICOM to volumes."""
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
    }
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        source = series or (COLLECTION if COLLECTION.is_dir() else draw_phantom(work / "phantom"))
        found = find_series(source)
        report |= {"series_slices": len(found.files), "plane": found.plane}
        if rounds:
            count = len(found.files) if whole else min(slices, len(found.files))
            made = keep or work / "network"
            made.mkdir(parents=True, exist_ok=True)
            command = [
                torch_python,
                str(SIDES / "ct_network.py"),
                checkpoint,
                str(made),
                *map(str, found.plane),
            ]
            network = json.loads(
                subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            )
            report["machine"]["reference_versions"] = network["versions"]
            sides, skipped = list_sides(report["machine"], made, work, torch_python)
            folders = found.copy_middle(count, work / "series"), found.copy_middle(WARM_UP, work / "warm-up")
            peaks = measure(sides, *folders, rounds, threads)
            bundle_of_sides = Bundle.open(made / "bundle")
            names = [tissue.name for tissue in bundle_of_sides.manifest.tissues]
            report |= {"slices": count, "rounds": rounds, "skipped": skipped}
            report["parity_at_export"] = read_parity(bundle_of_sides)
            report |= compare(sides, peaks, count, network["flop_per_slice"], names)
            show(report)
            save(report, json_path)
        if growth:
            report["growth"] = grow(found, bundle, SIDES / "ct_bedside_side.py", threads=threads, work=work)
            show_growth(report["growth"])
            save(report, json_path)


def read_parity(bundle: Bundle) -> dict[str, str]:
    """What export said of each engine on the phantom, with these weights."""
    engines = json.loads(bundle.read(bundle.manifest.parity))["engines"]
    return {f"{each['backend']} {each['precision']}": each["status"] for each in engines}


def save(report: dict[str, Any], path: Path | None) -> None:
    """Write the figures so far, if they are wanted."""
    if path:
        path.write_text(json.dumps(report, indent=2) + "\n")


def list_sides(
    machine: dict[str, Any], made: Path, work: Path, torch_python: str
) -> tuple[list[Side], dict[str, str]]:
    """The contenders, and why others are left out."""
    threads = str(machine["threads"])
    labels = work / "reference.npz"
    reference = [
        torch_python,
        str(SIDES / "ct_reference_side.py"),
        str(made / "weights.pt"),
        threads,
        str(labels),
    ]
    sides = [Side(REFERENCE, reference, labels)]
    skipped: dict[str, str] = {}
    for name in (*FP32, BF16):
        if name == BF16 and "amx_bf16" not in machine["flags"]:
            skipped[name] = "this processor has no AMX (amx_bf16 in /proc/cpuinfo)"
            continue
        labels = work / f"{name.replace(' ', '-')}.nii.gz"
        ours = [sys.executable, str(SIDES / "ct_bedside_side.py"), str(made / "bundle")]
        sides.append(Side(name, [*ours, *name.split(), threads, str(labels)], labels))
    return sides, skipped


if __name__ == "__main__":
    main()
