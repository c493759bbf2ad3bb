"""A roofline (`roofline.py`) as a part of a page."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Any, Final

from report_fields import Fields
from report_machine import caption_of, judge, list_facts, list_states

from bedside.bench.report import Plot, Row, Section, Table
from bedside.bench.report.drawing import (
    COLOURS,
    FAINT,
    INK,
    figure_of,
    key_of,
    plain,
    png_of,
    set_title,
    short,
)

__all__ = ["roofline_section"]

ACROSS: Final = 3
"""Panels in a row."""
NUMBERED: Final = 5
"""Parts of a network that have a number in the picture: those with most to gain."""
TOP: Final = 12
"""Parts of a network in its table."""
STYLES: Final = {"fp32": "-", "bf16": "--", "fp16": "-.", "int8": ":"}
"""Precision -> line of its peak."""


def roofline_section(record: Fields) -> Section:
    """Where each engine stands against the machine's limits."""
    machine, roof = record.object("machine"), record.object("roof")
    networks = record.each("networks")
    ran = [each for each in networks if "total" in each.values]
    verdict = judge(machine, complete="after" in machine.values)
    wrong = "" if verdict.passed else f"{verdict.word.partition(':')[0]}: {'; '.join(verdict.reasons)}"
    caption = f"{caption_of(machine)}. Medians of n = {record.number('runs'):g} profiled runs."
    plots = [_overview(ran, caption, wrong)] if ran else []
    plots += [
        _roofs([each for each in ran if each.text("bundle") == bundle], roof, caption, wrong)
        for bundle in dict.fromkeys(each.text("bundle") for each in ran)
    ]
    return Section(
        title="Roofline: each engine against this machine's limits",
        verdict=verdict,
        facts=(("runs of each", f"{record.number('runs'):g}"), *list_facts(machine)),
        plots=tuple(plots),
        tables=(_limits(roof), list_states(machine)),
        notes=tuple(
            f"{each.text('bundle')}, {each.text('engine')}: left out, {each.text('why_not')}"
            for each in networks
            if "total" not in each.values
        ),
    )


def _overview(ran: list[Fields], caption: str, wrong: str) -> Plot:
    """A bar an engine: what a run took, and what of it the machine needs at least."""
    figure, ((axes,),) = figure_of(1, 1, 0.42 * len(ran) + 1.9)
    rows, told = [], []
    reach = 0.0
    for place, each in enumerate(ran):
        total = each.object("total")
        ms, roof_ms = total.number("ms"), total.number("roof_ms")
        reach = max(reach, ms, roof_ms)
        share = roof_ms / ms if ms else 0.0
        axes.barh(place, ms, 0.62, color=COLOURS[4], label=None if place else "in the layers, profiled")
        axes.barh(
            place, roof_ms, 0.3, color=COLOURS[0], label=None if place else "least that this machine can take"
        )
        axes.annotate(f"{short(ms)} ms, {share:.0%} of it needed", (max(ms, roof_ms), place), xytext=(6, 0),
                      textcoords="offset points", va="center", fontsize=8.5, color=INK)  # fmt: skip
        name = (each.text("bundle"), each.text("engine"))
        told.append(f"{name[0]} on {name[1]} {short(ms)} ms, at least {short(roof_ms)} ms")
        rows.append(
            Row(
                (
                    *name,
                    " x ".join(f"{side:g}" for side in each.values.get("shape", ())),
                    short(each.number("gflop")),
                    short(each.number("run_ms")),
                    short(ms),
                    short(roof_ms),
                    short(100 * share),
                    short(total.number_or_none("gflop_per_s")),
                    total.text("bound_by") or "-",
                )
            )
        )
    axes.set_yticks(
        range(len(ran)), [plain(f"{each.text('bundle')}, {each.text('engine')}", 60) for each in ran]
    )
    axes.invert_yaxis()
    axes.set_xlim(0, 1.35 * reach or 1.0)
    axes.set_xlabel("time of a run, ms")
    set_title(axes, "all layers together")
    head = ("network", "engine", "input", "operations, GFLOP", "a run, ms", "its layers, ms", "roof, ms",
            "of the roof, %", "GFLOP/s", "bound by")  # fmt: skip
    return Plot(
        slug="roofline-engines",
        title="What a run takes, and what it has to",
        png=png_of(figure, caption, wrong=wrong, key=key_of([axes])),
        alt=f"Time of the layers of each engine, and the least that the machine can take: {'; '.join(told)}.",
        caption="A layer's roof is the larger of the times that its operations and its bytes take at best. What is "
        "light blue alone could be gained. A share over 100 % says that the peak was measured too low.",
        tables=(Table("Every engine", head, tuple(rows), words=(0, 1, 2, 9)),),
    )


def _roofs(ran: list[Fields], roof: Fields, caption: str, wrong: str) -> Plot:
    """A panel an engine: speed over operations a byte, below the roofs."""
    columns = min(len(ran), ACROSS)
    lines = ceil(len(ran) / columns)
    figure, axes = figure_of(lines, columns, 3.7 * lines + 0.6)
    peaks, triads = roof.numbers("peaks_gflops"), _triads(roof)
    panels = axes.ravel()
    limits = _frame(ran, peaks)
    for panel, each in zip(panels, ran, strict=False):
        _panel(panel, each, peaks, triads, limits)
    for panel in panels[len(ran) :]:
        panel.set_visible(False)
    name = ran[0].text("bundle")
    return Plot(
        slug=f"roofline-{_slug(name)}",
        title=f"Parts of {name}",
        png=png_of(figure, f"{name}; {caption}", wrong=wrong, key=key_of(panels[: len(ran)])),
        alt=f"Rooflines of {name} on {len(ran)} engines: speed of each part over its operations per byte, below the "
        "machine's peaks and bandwidths. The tables have all of it.",
        caption="Large: parts of the network, the larger the longer they take; numbers: those with most to gain, as in "
        "the tables. Small: single layers. Level lines: peaks; rising lines: bandwidths. Both axes are logarithmic. "
        "A point above its roof says that the roof was measured too low, as on a machine that others use.",
        tables=tuple(_parts(each) for each in ran),
    )


def _panel(
    axes: Any,
    network: Fields,
    peaks: dict[str, float],
    triads: list[tuple[float, float]],
    limits: tuple[tuple[float, float], tuple[float, float]],
) -> None:
    (left, right), (bottom, top) = limits
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(bottom, top))
    total = network.object("total")
    precisions = [each for each in total.texts("precisions") if each in peaks]
    highest = max((peaks[each] for each in precisions), default=max(peaks.values(), default=1.0))
    for precision in precisions:
        axes.axhline(peaks[precision], color=INK, linestyle=STYLES.get(precision, "-"), linewidth=1.1,
                     label=f"peak {precision}, {short(peaks[precision])} GFLOP/s")  # fmt: skip
    for (mib, speed), colour in zip(
        dict.fromkeys((triads[0], triads[-1])) if triads else (), (FAINT, COLOURS[1]), strict=False
    ):
        ends = (left, min(right, highest / speed))
        axes.plot(ends, [end * speed for end in ends], color=colour, linewidth=1.2,
                  label=f"{short(speed)} GB/s, arrays of {mib:g} MiB")  # fmt: skip
    small = list(_layer_points(network))
    axes.plot([x for x, _ in small], [y for _, y in small], linestyle="none", marker=".", markersize=3,
              color=COLOURS[5], label="a layer")  # fmt: skip
    groups = sorted(network.each("groups"), key=lambda group: -group.number("lost_ms"))
    whole = sum(group.number("ms") for group in groups) or 1.0
    part = {"linestyle": "none", "marker": "o", "alpha": 0.6, "markeredgecolor": "white", "color": COLOURS[0]}
    axes.plot([], [], markersize=8, label="a part", **part)
    for rank, group in enumerate(groups, 1):
        x, y = group.number_or_none("flop_per_byte"), group.number_or_none("gflop_per_s")
        if not x or not y:
            continue
        axes.plot(x, y, markersize=5 + 22 * (group.number("ms") / whole) ** 0.5, **part)
        if rank <= NUMBERED:
            axes.annotate(str(rank), (x, y), ha="center", va="center", fontsize=7.5, weight="bold")
    axes.set_xlabel("operations per byte, FLOP/B")
    axes.set_ylabel("speed, GFLOP/s")
    set_title(axes, plain(network.text("engine")))


def _layer_points(network: Fields) -> Iterator[tuple[float, float]]:
    for layer in network.each("layers"):
        operations, ms = layer.number("operations"), layer.number("ms")
        size = layer.number("weight_bytes") + layer.number("activation_bytes")
        if operations > 0 and ms > 0 and size > 0:
            yield operations / size, operations / ms / 1e6


def _frame(ran: list[Fields], peaks: dict[str, float]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Limits of both axes, the same in all panels: they can be compared."""
    points = [point for each in ran for point in _layer_points(each)]
    for each in ran:
        for group in each.each("groups"):
            x, y = group.number_or_none("flop_per_byte"), group.number_or_none("gflop_per_s")
            points += [(x, y)] if x and y else []
    xs, ys = [x for x, _ in points] or [1.0], [y for _, y in points] or [1.0]
    used = {name for each in ran for name in each.object("total").texts("precisions")}
    top = max([*ys, *(peaks[name] for name in used if name in peaks)])
    return (min(xs) / 2, max(xs) * 2), (max(min(ys) / 2, top / 1e6), top * 2)


def _parts(network: Fields) -> Table:
    groups = sorted(network.each("groups"), key=lambda group: -group.number("lost_ms"))
    rows = []
    for place, group in enumerate([*groups[:TOP], network.object("total")], 1):
        number = str(place) if place <= min(NUMBERED, len(groups)) else ""
        name = group.text("group") if place <= len(groups[:TOP]) else "all parts"
        rows.append(
            Row(
                (
                    name,
                    number,
                    ", ".join(group.texts("precisions")),
                    short(group.number("gflop")),
                    short(group.number_or_none("flop_per_byte")),
                    short(group.number("ms")),
                    short(group.number_or_none("gflop_per_s")),
                    short(group.number_or_none("roof_gflop_per_s")),
                    short(100 * (group.number_or_none("share_of_roof") or 0.0)),
                    short(group.number("lost_ms")),
                    group.text("bound_by") or "-",
                )
            )
        )
    head = ("part", "number", "precisions", "GFLOP", "FLOP/B", "ms", "GFLOP/s", "roof, GFLOP/s", "of the roof, %",
            "to gain, ms", "bound by")  # fmt: skip
    left = f"; {len(groups) - TOP} more parts are in the JSON" if len(groups) > TOP else ""
    return Table(
        f"{network.text('bundle')} on {network.text('engine')}{left}", head, tuple(rows), words=(0, 2, 10)
    )


def _limits(roof: Fields) -> Table:
    rows = [
        Row((f"peak {name}", short(speed), "GFLOP/s")) for name, speed in roof.numbers("peaks_gflops").items()
    ]
    rows += [Row((f"bandwidth, arrays of {mib:g} MiB", short(speed), "GB/s")) for mib, speed in _triads(roof)]
    return Table("What this machine reached at most", ("", "measured", "unit"), tuple(rows), words=(0, 2))


def _triads(roof: Fields) -> list[tuple[float, float]]:
    """MiB and GB/s, rising in MiB."""
    return sorted((each.number("mib"), each.number("gb_per_s")) for each in roof.each("triads"))


def _slug(name: str) -> str:
    """A name as a part of a file's name."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name.lower())[:40]
