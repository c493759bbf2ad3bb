"""How far each engine is from what this machine can do at all: a roofline, per part of each network.

    python benchmarks/roofline.py --json roofline.json
    python benchmarks/roofline.py --bundle made/bundle --engine "openvino bf16"

The machine's peak of multiply-adds is the speed of a large matrix product at each precision, the faster of PyTorch's
and OpenVINO's; its bandwidth is that of STREAM's triad over arrays from 1 MiB to well beyond the caches. What a layer
needs is counted from the ONNX graph: operations, and bytes of weights and activations at the precision that the engine
chose, values inside a fused layer left out. What it took is told by the engine's own profile, mapped back on the graph.
A layer's roof is the larger of the times that its operations and its bytes take at best; bytes are taken at the
bandwidth measured for as many, since what one layer writes the next often finds in a cache. What a part took beyond its
roof is what could be gained there: the table is sorted by that.

``--bundle`` takes the built-in bundles' names, and folders such as `ct.py` and `cxr.py` make with ``--keep``. Needs the
extra ``export``. Not for clinical use.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
from costs import read_costs
from layers import OWN, WIDTHS, Roof, gather, read_layers, stand
from machine import describe_machine, summarise_state, watch_machine
from processes import ask, probe, start, stop

from bedside.bundle import Bundle
from bedside.errors import BundleError

SIDES: Final = Path(__file__).parent / "sides"
BUNDLES: Final = ("cxr-severity-lite", "ct-opacity-lite")
ENGINES: Final = ("onnxruntime fp32", "openvino fp32", "openvino bf16", "openvino fp16", "openvino int8-bf16")
PACKAGES: Final = ("onnxruntime", "openvino", "torch", "onnx", "numpy", "bedside")
TRIADS_MIB: Final = (1, 4, 16, 64, 256)
"""Of the three arrays together; one beyond the caches is added."""
BEYOND_CACHES: Final = 4
"""So many times the last cache is memory's, by the rules of STREAM."""
LARGEST_MIB: Final = 3072


def measure_roof(threads: int, side: int) -> tuple[Roof, dict[str, Any]]:
    """The machine's peaks and bandwidths, and who reached them."""
    products: dict[str, dict[str, Any]] = {name: {} for name in WIDTHS}
    triads: list[dict[str, float]] = []
    for library in ("torch", "openvino"):
        command = [sys.executable, str(SIDES / "roof_side.py"), library, str(threads), str(side)]
        if reason := probe(command):
            for tried in products.values():
                tried[library] = {"why_not": reason}
            continue
        process = start(command)
        try:
            for precision, tried in products.items():
                tried[library] = ask(process, f"product {precision}")
            if library == "torch":
                sizes = sorted({*TRIADS_MIB, beyond_caches_mib()})
                reached = [{"mib": mib, **ask(process, f"triad {mib}")} for mib in sizes]
                triads = [each for each in reached if "gb_per_s" in each]
        finally:
            stop(process)
    peaks = {}
    for precision, tried in products.items():
        speeds = {name: each["gflops"] for name, each in tried.items() if "gflops" in each}
        if speeds:
            peaks[precision] = max(speeds.values())
            tried["by"] = max(speeds, key=lambda name: speeds[name])
    if "fp32" not in peaks or not triads:
        raise click.UsageError("the machine's peak needs PyTorch; install the extra export")
    told = {"product_side": side, "products": products, "peaks_gflops": peaks, "triads": triads}
    return Roof(peaks, tuple((each["mib"], each["gb_per_s"]) for each in triads)), told


def beyond_caches_mib() -> int:
    """Size of arrays that no cache holds."""
    sizes = [0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        with suppress(OSError, ValueError):
            sizes.append(int(path.read_text().strip().removesuffix("K")) // 1024)
    return min(max(BEYOND_CACHES * max(sizes), 2 * TRIADS_MIB[-1]), LARGEST_MIB)


def examine(source: str, engine: str, threads: int, runs: int, roof: Roof) -> dict[str, Any]:
    """One network on one engine; with ``why_not`` where it does not run here."""
    bundle = Bundle.open(source)
    backend, _, precision = engine.partition(" ")
    told: dict[str, Any] = {"bundle": bundle.manifest.name, "digest": bundle.digest, "engine": engine}
    command = [sys.executable, str(SIDES / "profile_side.py"), source, backend, precision, str(threads)]
    if reason := probe(command):
        return {**told, "why_not": reason}
    process = start(command)
    try:
        answer = ask(process, str(runs))
    except click.ClickException as error:
        return {**told, "why_not": error.message}
    finally:
        stop(process)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(bundle.read(bundle.model("fp32")))
        graph = read_costs(path, answer["shape"])
    layers = read_layers(graph, answer["layers"], precision)
    counted = {name for layer in layers for name in layer.nodes}
    return {
        **told,
        "shape": answer["shape"],
        "gflop": sum(node.operations for node in graph.nodes) / 1e9,
        "gflop_not_in_profile": sum(n.operations for n in graph.nodes if n.name not in counted) / 1e9,
        "gflop_by_precision": {
            kind: sum(layer.operations for layer in layers if layer.precision == kind) / 1e9
            for kind in sorted({layer.precision for layer in layers if layer.operations})
        },
        "run_ms": answer["run_ms"],
        "total": stand("all", layers, roof),
        "groups": gather(layers, roof),
        "kinds": [
            stand(kind or OWN, [layer for layer in layers if layer.kind == kind], roof)
            for kind in sorted({layer.kind for layer in layers})
        ],
        "layers": [
            {**asdict(layer), "roof_arithmetic_ms": pair[0], "roof_memory_ms": pair[1]}
            for layer, pair in ((layer, roof.times_ms(layer)) for layer in layers)
        ],
    }


def show_roof(told: dict[str, Any]) -> None:
    """Print the machine's limits."""
    for precision, tried in told["products"].items():
        cells = (
            f"{name} {each['gflops']:.0f} GFLOP/s" if "gflops" in each else f"{name}: {each['why_not']}"
            for name, each in tried.items()
            if name != "by"
        )
        click.echo(f"peak {precision}: " + ", ".join(cells))
    click.echo(
        "bandwidth: "
        + ", ".join(f"{each['gb_per_s']:.1f} GB/s at {each['mib']} MiB" for each in told["triads"])
    )


def show(network: dict[str, Any], top: int) -> None:
    """Print where one network stands on one engine."""
    click.echo(f"\n{network['bundle']}, {network['engine']}")
    if "why_not" in network:
        click.echo(f"left out, {network['why_not']}")
        return
    total = network["total"]
    click.echo(
        f"{network['gflop']:.2f} GFLOP; {network['run_ms']:.2f} ms a run, {total['ms']:.2f} ms in its layers with the "
        f"profile on; roof {total['roof_ms']:.2f} ms"
    )
    ran = ", ".join(f"{kind} {gflop:.3f}" for kind, gflop in network["gflop_by_precision"].items())
    click.echo(f"GFLOP by the precision that they ran in: {ran}")
    click.echo(
        f"{'part':<28}{'GFLOP':>8}{'FLOP/B':>8}{'ms':>9}{'GFLOP/s':>9}{'roof':>9}{'share':>7}{'to gain':>9}  bound by"
    )
    for group in [*network["groups"][:top], total]:
        cells = (
            f"{'-':>{width}}" if group[key] is None else f"{group[key]:>{width}{form}}"
            for key, width, form in (
                ("gflop", 8, ".3f"),
                ("flop_per_byte", 8, ".1f"),
                ("ms", 9, ".3f"),
                ("gflop_per_s", 9, ".0f"),
                ("roof_gflop_per_s", 9, ".0f"),
                ("share_of_roof", 7, ".0%"),
                ("lost_ms", 9, ".3f"),
            )
        )
        click.echo(f"{group['group']:<28}" + "".join(cells) + f"  {group['bound_by']}")


@click.command()
@click.option(
    "--bundle",
    "bundles",
    multiple=True,
    default=BUNDLES,
    show_default=True,
    help="Folder, zip file or name; can be given several times.",
)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    default=ENGINES,
    show_default=True,
    help="Backend and precision, in quotes; can be given several times.",
)
@click.option(
    "--runs",
    default=20,
    type=click.IntRange(min=1),
    show_default=True,
    help="Runs of each, profiled and not.",
)
@click.option("--threads", default=os.cpu_count() or 1, show_default=True, help="Threads of each engine.")
@click.option(
    "--side",
    default=4096,
    type=click.IntRange(min=64),
    show_default=True,
    help="Of the square matrices whose product is the peak.",
)
@click.option("--top", default=12, type=click.IntRange(min=1), show_default=True, help="Parts in each table.")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here."
)
def main(  # noqa: PLR0913 - click hands over each option
    *,
    bundles: tuple[str, ...],
    engines: tuple[str, ...],
    runs: int,
    threads: int,
    side: int,
    top: int,
    json_path: Path | None,
) -> None:
    """Tell where each engine stands against what this machine can do, part by part of each network."""
    for source in bundles:
        try:
            Bundle.open(source)
        except BundleError as error:
            raise click.UsageError(f"--bundle {source}: {error.message}") from error
    machine = describe_machine(threads, PACKAGES)
    networks: list[dict[str, Any]] = []
    report: dict[str, Any] = {"benchmark": "roofline", "runs": runs, "machine": machine, "networks": networks}
    with watch_machine(machine):
        roof, report["roof"] = measure_roof(threads, side)
        show_roof(report["roof"])
        for source in bundles:
            for engine in engines:
                networks.append(examine(source, engine, threads, runs, roof))
                show(networks[-1], top)
                if json_path:  # what is finished is kept
                    json_path.write_text(json.dumps(report, indent=1) + "\n")
    click.echo(f"\n{summarise_state(machine)}")
    if json_path:
        json_path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
