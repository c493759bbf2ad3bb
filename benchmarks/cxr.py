"""Score X-rays side by side: torchxrayvision in PyTorch eager against bedside, from file to score.

Same images, same DenseNet-121 weights, same machine, same number of threads, in one run. Each side is a process
of its own, and the sides alternate image by image, so that whatever else the machine does falls on all of
them alike. Medians and ratios are what counts.

    python benchmarks/cxr.py --json cxr.json

Needs the extras ``export``, ``cpu`` and ``openvino``.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
from packaging.requirements import Requirement
from PIL import Image

SIDES: Final = Path(__file__).parent / "sides"
COLLECTION: Final = Path(__file__).parents[2] / "shared" / "data" / "cxr" / "images"
"""Real X-rays beside the checkout."""
REFERENCE: Final = "torchxrayvision"
PAUSE_S: Final = 0.03
"""Between two runs, so that one side's spinning threads are asleep when the next begins."""
INSTALLED: Final = {"reference": ("torchxrayvision", ()), "ours": ("bedside", ("cpu",))}
"""Side -> distribution and extras whose installed files are added up with all that they need."""


@dataclass
class Side:
    """One contender: how to start it, and what was measured of it."""

    name: str
    command: list[str]
    seconds: list[float] = field(default_factory=list)
    cold_seconds: list[float] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)
    stages_ms: list[dict[str, float]] = field(default_factory=list)
    peak_mib: float = 0.0

    def start(self) -> subprocess.Popen[str]:
        """A fresh process."""
        return subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def warm(self) -> dict[str, Any]:
        """Median, 90th and 99th percentile in ms, and median of each stage."""
        cuts = statistics.quantiles(self.seconds, n=100, method="inclusive")
        stages = {k: statistics.median(s[k] for s in self.stages_ms) for k in self.stages_ms[0]}
        return {
            "median_ms": cuts[49] * 1e3,
            "p90_ms": cuts[89] * 1e3,
            "p99_ms": cuts[98] * 1e3,
            "stages_ms": stages,
        }


def ask(process: subprocess.Popen[str], image: Path) -> dict[str, Any]:
    """Have one image scored; the side's own answer."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process has no pipes")
    process.stdin.write(f"{image}\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise click.ClickException(f"a side died on {image.name}; its message stands above")
    answer: dict[str, Any] = json.loads(line)
    return answer


def peak_mib(process: subprocess.Popen[str]) -> float:
    """Peak resident set of a live process in MiB, from Linux' own count (VmHWM)."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM in /proc")


def stop(process: subprocess.Popen[str]) -> None:
    """End a side by closing its input."""
    process.communicate()


def measure_warm(sides: list[Side], images: list[Path], rounds: int) -> None:
    """Alternate the sides over the images; three images warm each up and are not counted."""
    pairs = [(side, side.start()) for side in sides]
    try:
        for _side, process in pairs:
            for image in images[:3]:
                ask(process, image)
        for index in range(rounds * len(images)):
            turn = index % len(pairs)
            for side, process in pairs[turn:] + pairs[:turn]:
                time.sleep(PAUSE_S)
                answer = ask(process, images[index % len(images)])
                side.seconds.append(answer["seconds"])
                side.stages_ms.append(answer["stages_ms"])
                if index < len(images):
                    side.scores.append(answer["scores"])
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


def installed_mib(distribution: str, extras: tuple[str, ...]) -> float:
    """Size of a distribution's files and those of all that it needs, in MiB, byte code not counted."""
    wanted, seen = [(distribution, extras)], set[tuple[str, tuple[str, ...]]]()
    files: set[Path] = set()
    while wanted:
        need = wanted.pop()
        if need in seen:
            continue
        seen.add(need)
        name, active = need
        found = importlib.metadata.distribution(name)
        files |= {Path(str(file.locate())) for file in found.files or () if file.suffix != ".pyc"}
        for line in found.requires or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *active)):
                wanted.append((requirement.name, tuple(sorted(requirement.extras))))
    return sum(file.stat().st_size for file in files if file.is_file()) / 2**20


def describe_machine(threads: int) -> dict[str, Any]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo").read_text()
    flags = next((line for line in info.splitlines() if line.startswith("flags")), "").split()
    model = next(
        (line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")), ""
    )
    names = ("torch", "torchxrayvision", "onnxruntime", "openvino", "numpy", "pydicom", "bedside")
    return {
        "processor": model or platform.processor(),
        "flags": [
            flag
            for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
            if flag in flags
        ],
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in names},
    }


def prepare(folder: Path, seed: int) -> tuple[Path, Path]:
    """Write one set of DenseNet-121 weights as a bundle and as a state dict of torchxrayvision's own module."""
    import torch

    from bedside_export.models import load_classifier

    bundle, weights = folder / "bundle", folder / "weights.pt"
    command = [
        "bedside-export",
        "cxr-severity",
        "--weights",
        f"random:{seed}",
        "--head",
        "v1",
        "--out",
        str(bundle),
    ]
    subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:]], check=True, stdout=sys.stderr
    )
    classifier = load_classifier(f"random:{seed}")
    parts = {"features": classifier.features, "classifier": classifier.logits}
    torch.save(
        {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()},
        weights,
    )
    return bundle, weights


def compare(sides: list[Side]) -> tuple[dict[str, float], dict[str, Any]]:
    """The ratios (the reference's figure over ours) and all that they come from."""
    by = {side.name: side for side in sides}
    reference = by[REFERENCE]
    size = {side: installed_mib(*spec) for side, spec in INSTALLED.items()}
    ort = by["onnxruntime fp32"]
    ratios = {
        "warm_onnxruntime_fp32": statistics.median(reference.seconds) / statistics.median(ort.seconds),
        "cold_start": statistics.median(reference.cold_seconds) / statistics.median(ort.cold_seconds),
        "peak_memory": reference.peak_mib / ort.peak_mib,
        "installed_size": size["reference"] / size["ours"],
    }
    if "openvino bf16" in by:
        bf16 = by["openvino bf16"]
        ratios["warm_openvino_bf16"] = statistics.median(reference.seconds) / statistics.median(bf16.seconds)
    details = {
        side.name: {
            "warm": side.warm(),
            "cold_start_median_s": statistics.median(side.cold_seconds),
            "peak_memory_mib": side.peak_mib,
            "max_score_difference": max(
                abs(a - b)
                for ours, theirs in zip(side.scores, reference.scores, strict=True)
                for a, b in zip(ours, theirs, strict=True)
            ),
        }
        for side in sides
    }
    return ratios, {"sides": details, "installed_mib": size}


def show(ratios: dict[str, float], details: dict[str, Any], machine: dict[str, Any]) -> None:
    """Print the tables."""
    click.echo(
        f"{machine['processor']}, {machine['cores']} cores, {' '.join(machine['flags'])}; {machine['versions']}"
    )
    click.echo(f"{'side':<18}{'warm median':>12}{'p99':>10}{'cold start':>12}{'peak':>11}{'score diff.':>13}")
    for name, side in details["sides"].items():
        click.echo(
            f"{name:<18}{side['warm']['median_ms']:>9.1f} ms{side['warm']['p99_ms']:>7.1f} ms"
            f"{side['cold_start_median_s']:>10.2f} s{side['peak_memory_mib']:>7.0f} MiB"
            f"{side['max_score_difference']:>13.5f}"
        )
    size = details["installed_mib"]
    click.echo(f"installed: reference {size['reference']:.0f} MiB, ours {size['ours']:.0f} MiB")
    click.echo("ratios (reference / ours): " + ", ".join(f"{k} {v:.2f}" for k, v in ratios.items()))


def choose_images(folder: Path, count: int) -> list[Path]:
    """``count`` pictures evenly spread over a folder."""
    paths = sorted(path for path in folder.iterdir() if path.suffix in {".jpg", ".jpeg", ".png"})
    if not paths:
        raise click.UsageError(f"no JPEG or PNG in {folder}; give another folder")
    return [paths[i * len(paths) // count] for i in range(min(count, len(paths)))]


def draw_phantoms(folder: Path) -> Path:
    """X-rays of the phantom as PNG, for machines without a collection."""
    from bedside_export.golden import phantom_radiographs

    folder.mkdir()
    for number, radiograph in enumerate(phantom_radiographs()):
        Image.fromarray((radiograph.pixels * 255).astype("uint8")).save(folder / f"{number:02}.png")
    return folder


@click.command()
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of grey JPEG or PNG.  [default: ../shared/data/cxr/images, else the phantom's X-rays]",
)
@click.option("--count", default=20, show_default=True, help="Images, evenly spread over the folder.")
@click.option("--rounds", default=3, show_default=True, help="Times that each image is scored by each side.")
@click.option("--starts", default=5, show_default=True, help="Cold starts of each side.")
@click.option("--threads", default=os.cpu_count() or 1, show_default=True, help="Threads of each side.")
@click.option("--seed", default=0, show_default=True, help="Seed of the DenseNet-121 weights.")
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
    seed: int,
    json_path: Path | None,
) -> None:
    """Compare torchxrayvision in PyTorch eager with bedside, from file to score."""
    machine = describe_machine(threads)
    with tempfile.TemporaryDirectory() as folder:
        source = images or (COLLECTION if COLLECTION.is_dir() else draw_phantoms(Path(folder) / "phantoms"))
        chosen = choose_images(source, count)
        bundle, weights = prepare(Path(folder), seed)
        ours = [sys.executable, str(SIDES / "bedside_side.py"), str(bundle)]
        sides = [
            Side(
                REFERENCE,
                [sys.executable, str(SIDES / "torchxrayvision_side.py"), str(weights), str(threads)],
            ),
            Side("onnxruntime fp32", [*ours, "onnxruntime", "fp32", str(threads)]),
            Side("openvino fp32", [*ours, "openvino", "fp32", str(threads)]),
        ]
        if "amx_bf16" in machine["flags"] or "avx512_bf16" in machine["flags"]:
            sides.append(Side("openvino bf16", [*ours, "openvino", "bf16", str(threads)]))
        measure_warm(sides, chosen, rounds)
        measure_cold(sides, chosen[0], starts)
    ratios, details = compare(sides)
    show(ratios, details, machine)
    if json_path:
        report = {"ratios": ratios, **details, "machine": machine, "images": len(chosen), "rounds": rounds}
        json_path.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
