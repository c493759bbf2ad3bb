"""bedside beside its peers, each as most people use it: same weights, same inputs, same threads, in one run.

    python benchmarks/peers.py cxr --weights densenet.pt --keep made --json peers-cxr.json
    python benchmarks/peers.py ct --weights unet.pt --keep made --torch-python monai/bin/python --json peers-ct.json

Each side is a process of its own, and all alternate. For X-rays: torchxrayvision's script in PyTorch eager (the
reference), the same compiled by PyTorch (``torch.compile``) and under its autocast to bf16, and the same steps on ONNX
Runtime with default options. For CT: a plain loop in PyTorch over the slices, compiled, under autocast, MONAI's
``sliding_window_inference``, and ONNX Runtime. Beside them OpenVINO's own ``benchmark_app`` on the very file that
bedside runs: it times the network alone, without reading and preparing a picture, and can be compared with no other.

For each: the warm median and 99th percentile, cold start (a fresh process to its first result; the first of several has
empty caches), peak memory, size of what has to be installed, lines that a person has to write, and how far its answers
are from PyTorch eager's, against what the bundle allows at that precision. Ratios are of PyTorch eager's warm median. A
side that can't run here is left out with the reason; one that dies, or Ctrl-C, leaves what was measured.

``--torch-python`` is the Python of the sides on PyTorch, with the extra ``export``, and ``monai`` for its side.
``--keep`` names a folder such as `cxr.py` and `ct.py` take. Needs the extras ``export``, ``cpu`` and ``openvino``, and
what `ct.py` needs. Not for clinical use.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import ct as ct_comparison
import cxr as cxr_comparison
from contender import ALONE, Contender, measure_cold, measure_warm
from installed import installed_mib_of
from machine import describe_machine, summarise_state, watch_machine
from networks import claim, describe_weights, summarise_weights
from peer_sides import EAGER, OURS, SIDES, Judge, Setting, judge_ct, judge_cxr, list_ct, list_cxr, plain_name
from pictures import COUNT, choose_images, draw_phantoms
from processes import ISAS, cap_isa, probe
from series import draw_phantom, find_series

from bedside.bundle import Bundle

PACKAGES: Final = ("torch", "torchxrayvision", "onnxruntime", "openvino", "numpy", "pydicom", "bedside")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured."""

    report: dict[str, Any]
    """Its head."""
    questions: list[Path]
    """What all sides are asked: pictures, or one folder of slices."""
    warm_ups: list[Path]
    """What they are asked before; the last is also the question of a cold start."""
    rounds: int
    """Times that each side answers all questions."""
    starts: int
    """Cold starts of each."""
    json_path: Path | None
    """Where the report goes."""
    without: tuple[str, ...] = ()
    """Sides to leave out."""


def keep_runnable(
    contenders: list[Contender], without: tuple[str, ...] = ()
) -> tuple[list[Contender], dict[str, str]]:
    """Those that can run here, and why others can't.

    Raises:
        click.UsageError: The reference can't, or a side that is to be left out does not exist.
    """
    names = [each.name for each in contenders]
    if unknown := set(without) - set(names):
        raise click.UsageError(f"no side {min(unknown)!r} to leave out; there are: {', '.join(names)}")
    left_out = {}
    for each in contenders:
        if each.name in without:
            left_out[each.name] = "as asked"
        elif reason := probe(each.command, each.environment):
            left_out[each.name] = reason
        elif each.scope != ALONE and not each.limits:
            left_out[each.name] = "the bundle states no tolerance for that precision"
    if EAGER in left_out:
        raise click.UsageError(f"{EAGER}, which all are compared with, can't run: {left_out[EAGER]}")
    return [each for each in contenders if each.name not in left_out], left_out


def report_on(contenders: list[Contender], judge: Judge) -> dict[str, Any]:
    """All figures, and which of bedside's engines are best."""
    reference = contenders[0]
    sides: dict[str, dict[str, Any]] = {}
    for each in contenders:
        told = sides[each.name] = each.describe()
        told["installed_mib"] = installed_mib_of(each.command[0], each.needs)
        complete = each.answers and len(each.answers) == len(reference.answers)
        told["parity"] = None
        if complete and each is not reference and each.scope != ALONE:
            told["parity"] = judge(each, reference)
        told["counts"] = each is reference or bool(told["parity"] and told["parity"]["inside_tolerance"])
        comparable = each.scope != ALONE and each.seconds and reference.seconds
        told["times_faster"] = (
            sides[reference.name]["warm"]["median_ms"] / told["warm"]["median_ms"] if comparable else None
        )
    ours = {name: told for name, told in sides.items() if name.startswith("bedside") and told["times_faster"]}
    counting = {name: told["times_faster"] for name, told in ours.items() if told["counts"]}
    fp32 = {name: ratio for name, ratio in counting.items() if name.endswith(" fp32")}
    return {
        "reference": reference.name,
        "bedside_fp32": max(fp32, key=lambda name: fp32[name], default=None),
        "bedside_best": max(counting, key=lambda name: counting[name], default=None),
        "sides": sides,
    }


def show(report: dict[str, Any]) -> None:
    """Print the table."""
    machine = report["machine"]
    click.echo(f"{machine['processor']}, {machine['cores']} cores, {' '.join(machine['flags'])}")
    click.echo(summarise_state(machine) if "after" in machine else "the run was cut short")
    click.echo(summarise_weights(report["weights"]))
    click.echo(", ".join(f"{name} {version}" for name, version in machine["versions"].items()))
    click.echo(f"\n{report['what']}; ms per {report['unit']}")
    click.echo(
        f"{'side':<28}{'median':>9}{'p99':>9}{'faster':>8}{'cold':>9}{'memory':>11}{'installed':>12}{'lines':>7}"
        "  against PyTorch eager"
    )
    for name, side in report["sides"].items():
        warm, per = side["warm"], report["divide_by"] if side["scope"] != ALONE else 1
        cells = [
            _cell(warm.get("median_ms"), 9, ".1f", per),
            _cell(warm.get("p99_ms"), 9, ".1f", per),
            _cell(side["times_faster"], 8, ".2f"),
            _cell(side["cold_start_median_s"], 7, ".2f") + " s",
            _cell(side["peak_memory_mib"] or None, 7, ".0f") + " MiB",
            _cell(side["installed_mib"], 8, ".0f") + " MiB",
            _cell(side["lines"], 7, "d"),
        ]
        parity = side["parity"]
        told = "" if parity is None else parity["short"]
        if parity is not None and not parity["inside_tolerance"]:
            told += "; OUT OF TOLERANCE"
        told = "the network alone" if side["scope"] == ALONE else told
        click.echo(f"{name:<28}" + "".join(cells) + "  " + "; ".join(filter(None, (told, side["died"]))))
    for name, reason in report["left_out"].items():
        click.echo(f"{name}: left out, {reason}")
    for key, title in (
        ("bedside_fp32", "bedside fp32"),
        ("bedside_best", "bedside's best inside its tolerance"),
    ):
        if report[key]:
            ratio = report["sides"][report[key]]["times_faster"]
            click.echo(f"{title}: {report[key]}, {ratio:.2f} times faster than {report['reference']}")


def _cell(value: float | None, width: int, form: str, per: float = 1) -> str:
    if value is None:
        return f"{'-':>{width}}"
    return f"{value if form == 'd' else value / per:>{width}{form}}"


def run(contenders: list[Contender], judge: Judge, plan: Plan) -> None:
    """Measure, print, write; Ctrl-C leaves what was measured."""
    there, left_out = keep_runnable(contenders, plan.without)
    complete = False
    try:
        with watch_machine(plan.report["machine"]):
            measure_cold(
                there, plan.warm_ups[-1], plan.starts
            )  # first: of several starts, the first has empty caches
            measure_warm(there, plan.questions, plan.warm_ups, plan.rounds)
            complete = True
    except KeyboardInterrupt:
        click.echo("stopped; what was measured follows", err=True)
    if not there[0].seconds:
        raise click.ClickException(f"{EAGER} gave no answer, so nothing can be compared")
    report = {**plan.report, "rounds": plan.rounds, "starts": plan.starts, "complete": complete}
    report |= {"left_out": left_out, **report_on(there, judge)}
    for side in report["sides"].values():
        if side["scope"] != ALONE and side["warm"]["n"]:
            key = f"median_ms_per_{report['unit']}"
            side["warm"][key] = side["warm"]["median_ms"] / report["divide_by"]
    show(report)
    if plan.json_path:
        plan.json_path.write_text(json.dumps(report, indent=1) + "\n")


def export_plain(kind: str, made: Path, setting: Setting) -> None:
    """Write the network as most people export it, unless it is there."""
    path = made / plain_name(setting.plane)
    if not path.is_file():
        command = [setting.python, str(SIDES / "plain_onnx.py"), kind, str(made / "weights.pt"), str(path)]
        subprocess.run([*command, *map(str, setting.plane)], check=True, stdout=sys.stderr)


def add_options(command: Any) -> Any:
    """Options of both comparisons."""
    for option in reversed(
        (
            click.option(
                "--rounds",
                default=3,
                type=click.IntRange(min=1),
                show_default=True,
                help="Turns of each side.",
            ),
            click.option(
                "--starts",
                default=3,
                type=click.IntRange(min=0),
                show_default=True,
                help="Cold starts of each side.",
            ),
            click.option(
                "--threads", default=os.cpu_count() or 1, show_default=True, help="Threads of each side."
            ),
            click.option(
                "--isa",
                type=click.Choice(ISAS),
                help="Cap the instruction sets of oneDNN, on which PyTorch and OpenVINO stand.",
            ),
            click.option(
                "--engine",
                "engines",
                multiple=True,
                default=OURS,
                show_default=True,
                help="Of bedside: backend and precision, in quotes; can be given several times.",
            ),
            click.option(
                "--without",
                multiple=True,
                metavar="SIDE",
                help='A peer to leave out, e.g. "torch.compile", whose first start takes minutes; can be given several '
                "times.",
            ),
            click.option(
                "--weights",
                default="random:0",
                show_default=True,
                metavar="FILE|random:SEED",
                help="Weights, as train.py writes them.",
            ),
            click.option(
                "--torch-python",
                default=sys.executable,
                metavar="FILE",
                help="The Python of the sides on PyTorch, with the extra export.  [default: this one]",
            ),
            click.option(
                "--keep",
                type=click.Path(file_okay=False, path_type=Path),
                help="Folder for the weights and the bundle made of them; what is there already is taken.",
            ),
            click.option(
                "--json",
                "json_path",
                type=click.Path(dir_okay=False, path_type=Path),
                help="Write all figures here.",
            ),
        )
    ):
        command = option(command)
    return command


@click.group()
def main() -> None:
    """Compare bedside with its peers, each as most people use it."""


@main.command()
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of grey JPEG or PNG.  [default: ../shared/data/cxr/images, else the phantom's X-rays]",
)
@click.option("--count", default=COUNT, type=click.IntRange(min=1), show_default=True, help="Images.")
@add_options
def cxr(images: Path | None, count: int, **options: Any) -> None:
    """From an X-ray's file to its scores, with the DenseNet-121 of torchxrayvision."""
    with tempfile.TemporaryDirectory() as folder:
        work, collection = Path(folder), cxr_comparison.COLLECTION
        source = images or (collection if collection.is_dir() else draw_phantoms(work / "phantoms"))
        chosen = choose_images(source, count)
        wanted = count + 2 * cxr_comparison.CALIBRATION
        others = [path for path in choose_images(source, wanted) if path not in chosen]
        made = options["keep"] or work / "network"
        told = describe_weights(options["weights"])
        claim(made, told)
        real = source == collection or images
        made_of, _ = cxr_comparison.prepare(made, options["weights"], others if real else [])
        bundle = Bundle.open(made_of)
        rows, columns = (side or 1 for side in bundle.manifest.input.shape[2:])
        setting = set_up(options, (rows, columns), work)
        export_plain("cxr", made, setting)
        report = begin("cxr", options, told) | {
            "what": f"{len(chosen)} X-rays, from file to scores",
            "unit": "xray",
            "divide_by": 1,
            "images": len(chosen),
        }
        warm_ups = chosen[:3]
        plan = Plan(report, chosen, warm_ups, **pick(options))
        run(list_cxr(bundle, made, setting), judge_cxr(bundle), plan)


@main.command()
@click.option(
    "--series",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with one CT series.  [default: ../shared/data/ct/ricord-series, else the phantom's]",
)
@click.option(
    "--slices",
    default=20,
    type=click.IntRange(min=ct_comparison.WARM_UP),
    show_default=True,
    help="Neighbouring slices, from the middle of the series.",
)
@add_options
def ct(series: Path | None, slices: int, **options: Any) -> None:
    """From a folder of DICOM to volumes, with the U-Net of COVID19-L3-Net."""
    with tempfile.TemporaryDirectory() as folder:
        work, collection = Path(folder), ct_comparison.COLLECTION
        source = series or (collection if collection.is_dir() else draw_phantom(work / "phantom"))
        found = find_series(source)
        count = min(slices, len(found.files))
        made = options["keep"] or work / "network"
        told = describe_weights(options["weights"])
        claim(made, told)
        others = found.without_middle(count)
        ct_comparison.make_network(others, options["weights"], made, options["torch_python"], work)
        bundle = Bundle.open(made / "bundle")
        setting = set_up(options, found.plane, work)
        export_plain("ct", made, setting)
        report = begin("ct", options, told) | {
            "what": f"{count} of {len(found.files)} slices, from a folder of DICOM to volumes",
            "unit": "slice",
            "divide_by": count,
            "slices": count,
            "plane": found.plane,
        }
        folders = found.copy_middle(count, work / "series"), found.copy_middle(3, work / "warm-up")
        plan = Plan(report, [folders[0]], [folders[1]], **pick(options))
        run(list_ct(bundle, made, setting), judge_ct(bundle), plan)


def set_up(options: dict[str, Any], plane: tuple[int, int], work: Path) -> Setting:
    """What all sides share; what PyTorch compiles is kept in the work folder, empty at first."""
    environment = {**cap_isa(options["isa"]), "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor")}
    return Setting(
        options["torch_python"], str(options["threads"]), environment, options["engines"], plane, work
    )


def pick(options: dict[str, Any]) -> dict[str, Any]:
    """The options that a plan takes."""
    return {name: options[name] for name in ("rounds", "starts", "json_path", "without")}


def begin(task: str, options: dict[str, Any], weights: dict[str, Any]) -> dict[str, Any]:
    """The report's head."""
    return {
        "benchmark": "peers",
        "task": task,
        "machine": describe_machine(options["threads"], PACKAGES),
        "isa": options["isa"],
        "weights": weights,
    }


if __name__ == "__main__":
    main()
