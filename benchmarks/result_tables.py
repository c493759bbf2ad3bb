"""Tables of what each benchmark found, in Markdown.

    TABLES[kind](figures)     of one step's JSON

A kind is the name of a step up to what differs between those alike: ``bench``, ``cxr``, ``ct``, ``peers``, ``steady``,
``roofline``, ``growth``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

__all__ = ["TABLES", "make_table"]

GROUPS: Final = 5
"""Parts of a network that are shown."""
Figures = Mapping[str, Any]


def make_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first column is of words, the others are of numbers."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return (
        "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        + "\n"
    )


def _number(value: float | None, form: str = ".1f", per: float = 1) -> str:
    return "-" if value is None else f"{value / per:{form}}"


def _left_out(told: Mapping[str, str]) -> str:
    return "\n".join(f"Left out: {name}, {reason}.\n" for name, reason in told.items())


def _tell_bench(run: Figures) -> Iterator[str]:
    engine, samples = run["engine"], run["samples"]
    sizes = ", ".join(sorted({"x".join(map(str, sample["shape"])) for sample in samples}))
    yield (
        f"{run['bundle']['name']} {run['bundle']['version']} ({run['bundle']['digest'][:12]}) on {engine['backend']} "
        f"{engine['version']}, {engine['precision']}, {engine['device']}; "
        f"{'the phantom' if run['phantom'] else 'pictures'} of {sizes}. {run['rules'][0].upper()}{run['rules'][1:]}.\n"
    )
    yield make_table(
        [
            "scenario",
            "studies",
            "median ms",
            "p90 ms",
            "p99 ms",
            "p99 early stopping ms",
            "a second",
            "generator",
        ],
        [
            (
                scenario["name"] + ("" if scenario["full_length"] else " (short)"),
                str(len(scenario["queries"]["samples"])),
                *(
                    _number((scenario["latency"] or {}).get(key))
                    for key in ("p50_ms", "p90_ms", "p99_ms", "p99_early_ms")
                ),
                _number(scenario["per_second"], ".2f"),
                scenario["generator"]["name"],
            )
            for scenario in run["scenarios"]
        ],
    )
    single = next((each for each in run["scenarios"] if each["name"] == "single-stream"), None)
    if single is not None and single["queries"]["samples"]:
        stages = single["queries"]["stages_ms"]
        yield make_table(
            ["stage", "median ms"], [(name, _number(_median(times), ".2f")) for name, times in stages.items()]
        )
    started = [start for start in run["starts"] if start["total_ms"]]
    if started:
        yield make_table(
            ["first result", "median ms", "slowest ms", "times"],
            [
                (
                    start["kind"],
                    _number(_median(start["total_ms"])),
                    _number(max(start["total_ms"])),
                    str(len(start["total_ms"])),
                )
                for start in started
            ],
        )
    parity = run["parity"]
    if parity is not None:
        gaps = ", ".join(
            f"{each['of']} {_number(each['difference'], '.3g')} of {each['tolerance']:g}"
            for each in parity["differences"]
        )
        yield f"Golden inputs on this engine: {'passed' if parity['passed'] else 'FAILED'} ({gaps}).\n"
    energy = run["energy"]
    if energy["measured"]:
        yield make_table(
            ["energy", "J a study above idle"],
            [(each["scenario"], _number(each["per_study_j"], ".2f")) for each in energy["studies"]],
        )
    else:
        yield f"Energy: {energy['reason']}.\n"
    if run["peak_memory_mib"] is not None:
        yield f"Peak memory {run['peak_memory_mib']:.0f} MiB.\n"


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _tell_cxr(report: Figures) -> Iterator[str]:
    sizes = list(next(iter(report["sides"].values()))["warm"])
    yield (
        f"{report['images']} X-rays, {report['rounds']} rounds, {report['starts']} cold starts; how many times faster "
        "than torchxrayvision in PyTorch eager.\n"
    )
    heads = ["side", *(f"{size}: {what}" for size in sizes for what in ("median ms", "p99 ms", "faster"))]
    heads += ["cold start s", "peak MiB", "largest difference of a score"]
    yield make_table(
        heads,
        [
            (
                _named(name, inside=side["inside_tolerance"]),
                *(
                    cell
                    for size in sizes
                    for cell in (
                        _number(side["warm"][size]["median_ms"]),
                        _number(side["warm"][size]["p99_ms"]),
                        _number(side["warm_ratio"][size], ".2f"),
                    )
                ),
                _number(side["cold_start_median_s"], ".2f"),
                _number(side["peak_memory_mib"], ".0f"),
                _number(side["max_score_difference"], ".5f"),
            )
            for name, side in report["sides"].items()
        ],
    )
    size = report["installed_mib"]
    yield f"Installed: torchxrayvision {size['reference']:.0f} MiB, bedside {size['ours']:.0f} MiB.\n"
    yield _left_out(report["left_out"])


def _named(name: str, *, inside: bool) -> str:
    return name if inside else f"{name} (OUT OF TOLERANCE)"


def _tell_ct(report: Figures) -> Iterator[str]:
    yield f"{report['slices']} of {report['series_slices']} slices, median of {report['rounds']} rounds.\n"
    yield make_table(
        ["side", "ms a slice", "faster", "network faster", "processor s", "peak MiB", "opacity volume off %"],
        [
            (
                _named(name, inside=side["inside_tolerance"]),
                _number(side["ms_per_slice"]),
                _number(report["ratios_end_to_end"].get(name), ".2f"),
                _number(report["ratios_inference"].get(name), ".2f"),
                _number(side["cpu_seconds"]),
                _number(side["peak_memory_mib"], ".0f"),
                _number(side["opacity_volume_percent"], ".2f"),
            )
            for name, side in report["sides"].items()
        ],
    )
    yield _left_out(report["skipped"])


def _tell_peers(report: Figures) -> Iterator[str]:
    per = report["divide_by"]
    yield f"{report['what']}; ms per {report['unit']}, {report['rounds']} rounds, {report['starts']} cold starts.\n"
    heads = [
        "side",
        "median ms",
        "p99 ms",
        "faster",
        "cold start s",
        "peak MiB",
        "installed MiB",
        "lines",
        "against PyTorch eager",
    ]
    rows = []
    for name, side in report["sides"].items():
        alone, parity = side["lines"] is None, side["parity"]
        told = "the network alone" if alone else "" if parity is None else parity["short"]
        told = "; ".join(part for part in (told, side["died"]) if part)
        rows.append(
            (
                _named(name, inside=parity is None or parity["inside_tolerance"]),
                _number(side["warm"].get("median_ms"), per=1 if alone else per),
                _number(side["warm"].get("p99_ms"), per=1 if alone else per),
                _number(side["times_faster"], ".2f"),
                _number(side["cold_start_median_s"], ".2f"),
                _number(side["peak_memory_mib"] or None, ".0f"),
                _number(side["installed_mib"], ".0f"),
                _number(side["lines"], "d") if side["lines"] is None else str(side["lines"]),
                told,
            )
        )
    yield make_table(heads, rows)
    yield _left_out(report["left_out"])


def _tell_steady(report: Figures) -> Iterator[str]:
    yield make_table(
        ["side", "left alone", "median ms", "p99 ms", "max ms", "n", "x hot"],
        [
            (
                name,
                when,
                *(_number(found[key]) for key in ("median_ms", "p99_ms", "max_ms")),
                str(found["n"]),
                _number(found["times_hot"], ".2f"),
            )
            for name, side in report["sides"].items()
            for when, found in side["latency"].items()
        ],
    )
    yield make_table(
        ["side", "to open ms", "1st score ms", "2nd score ms"],
        [
            (name, *(_number(side[key]) for key in ("open_ms", "first_score_ms", "second_score_ms")))
            for name, side in report["sides"].items()
        ],
    )
    yield make_table(
        ["a run of the network", "in process ms", "isolated ms", "costs ms", "ratio"],
        [
            (
                engine,
                *(_number(cost[key], ".2f") for key in ("in_process_ms", "isolated_ms", "costs_ms")),
                _number(cost["ratio"], ".3f"),
            )
            for engine, cost in report["isolation"].items()
        ],
    )
    yield _left_out(report["left_out"])


def _tell_roofline(report: Figures) -> Iterator[str]:
    roof = report["roof"]
    peaks = ", ".join(f"{name} {speed:.0f} GFLOP/s" for name, speed in roof["peaks_gflops"].items())
    triads = ", ".join(f"{each['gb_per_s']:.1f} GB/s at {each['mib']} MiB" for each in roof["triads"])
    yield f"Measured peak: {peaks}. Bandwidth: {triads}.\n"
    ran = [each for each in report["networks"] if "why_not" not in each]
    rows = [
        (
            f"{network['bundle']}, {network['engine']}: {group['group']}",
            _number(group["gflop"], ".3f"),
            _number(group["ms"], ".2f"),
            _number(group["gflop_per_s"], ".0f"),
            _number(group["share_of_roof"], ".0%"),
            _number(group["lost_ms"], ".2f"),
            group["bound_by"],
        )
        for network in ran
        for group in [*network["groups"][:GROUPS], network["total"]]
    ]
    yield make_table(["part", "GFLOP", "ms", "GFLOP/s", "of its roof", "to gain ms", "bound by"], rows)
    yield _left_out(
        {
            f"{each['bundle']} on {each['engine']}": each["why_not"]
            for each in report["networks"]
            if "why_not" in each
        }
    )


def _tell_growth(report: Figures) -> Iterator[str]:
    axis = report["axis"]
    for curve in report["curves"]:
        what = f", {curve['what']}" if "what" in curve else ""
        yield f"{curve['bundle']}, {curve['engine']}{what}.\n"
        if curve["why_not"]:
            yield f"Left out: {curve['why_not']}.\n"
        if curve["points"]:
            yield make_table(
                [axis, "median ms", "each ms", "peak MiB"],
                [
                    (
                        f"{point[axis]:g}",
                        _number(
                            point.get(
                                "median_ms", point.get("seconds", 0) * 1e3 if axis == "slices" else None
                            )
                        ),
                        _number(point.get("ms_per_slice", point.get("ms_per_picture")), ".2f"),
                        _number(point["peak_memory_mib"], ".0f"),
                    )
                    for point in curve["points"]
                ],
            )
        if "fit_fixed_seconds" in curve:
            yield (
                f"A line: {curve['fit_fixed_seconds']:.2f} s and {curve['fit_ms_per_slice']:.2f} ms a slice, "
                f"at most {curve['fit_worst_percent']:.0f} % off; memory {curve['memory_growth_mib']:+.0f} MiB.\n"
            )


TABLES: Final[Mapping[str, Callable[[Figures], Iterator[str]]]] = MappingProxyType(
    {
        "bench": _tell_bench,
        "cxr": _tell_cxr,
        "ct": _tell_ct,
        "peers": _tell_peers,
        "steady": _tell_steady,
        "roofline": _tell_roofline,
        "growth": _tell_growth,
    }
)
"""Kind of step -> parts of its text, in order."""
