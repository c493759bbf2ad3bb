"""What a study is made of, stage by stage, and what first results are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from bedside.bench.figures import STAGES, Scenario, Start
from bedside.bench.report.drawing import (
    COLOURS,
    INK,
    count_of,
    figure_of,
    key_of,
    plain,
    png_of,
    set_title,
    short,
)
from bedside.bench.report.page import Plot, Row, Table

__all__ = ["plot_stages", "plot_starts"]

LOW, HIGH = 10.0, 90.0
"""Percentiles between which the whisker of a stage lies."""
FRESH: Final = "interpreter"
"""Part of a first result of a fresh process."""
OTHERS: Final = "the study's other stages"
PARTS: Final = {FRESH: COLOURS[1], "open": COLOURS[2], "inference": COLOURS[0], OTHERS: COLOURS[5]}
"""What is drawn of a first result, with its colour; the table has each stage."""


def plot_stages(stream: Scenario, caption: str, *, overlapping: bool, wrong: str = "") -> Plot:
    """A waterfall of the stages' medians; where stages overlap, bars that begin together.

    Args:
        stream: With at least one study.
        caption: What ran, and where.
        overlapping: Whether stages overlap in time.
        wrong: Why it may not be used.
    """
    stages = {
        name: np.asarray(stream.queries.stages_ms[name])
        for name in (*STAGES, *sorted(stream.queries.stages_ms.keys() - set(STAGES)))
        if stream.queries.stages_ms.get(name)
    }
    medians = {name: float(np.median(values)) for name, values in stages.items()}
    ends = {name: np.percentile(values, (LOW, HIGH)).tolist() for name, values in stages.items()}
    whole = float(np.median(np.asarray(stream.queries.service_ms)))
    summed = sum(medians.values())
    studies = count_of(len(stream.queries.samples), "study", "studies")
    figure, ((axes,),) = figure_of(1, 1, 0.42 * len(stages) + 2.1)
    begin, reach = 0.0, whole
    for place, (name, median) in enumerate(medians.items()):
        low, high = ends[name]
        axes.barh(place, median, 0.62, begin, color=COLOURS[0], alpha=0.8)
        axes.plot([begin + low, begin + high], [place, place], color=INK, linewidth=1.2)
        reach = max(reach, begin + high)
        share = f"{median / whole:.0%}" if whole else "-"
        axes.annotate(
            f"{short(median)} ms, {share}",
            (begin + max(high, median), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=INK,
        )
        begin += 0.0 if overlapping else median
    axes.barh(len(medians), whole, 0.62, color=COLOURS[5])
    axes.annotate(
        f"{short(whole)} ms",
        (whole, len(medians)),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        color=INK,
    )
    axes.set_yticks(range(len(medians) + 1), [*map(plain, medians), "whole study"])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.2 * reach)
    axes.set_xlabel("time, ms")
    set_title(axes, f"median of each stage, n = {studies}" + (", stages overlap" if overlapping else ""))
    adds = (
        "Stages overlap in time, so that each bar begins at 0 and their sum is over the whole."
        if overlapping
        else f"The medians add up to {short(summed)} ms; the median of the whole is {short(whole)} ms."
    )
    told = ", ".join(f"{name} {short(median)} ms" for name, median in medians.items())
    rows = [
        Row((name, short(medians[name]), *(short(end) for end in ends[name]), _share(medians[name], whole)))
        for name in stages
    ]
    rows.append(Row(("whole study", short(whole), "", "", "")))
    head = ("stage", "median, ms", f"p{LOW:g}, ms", f"p{HIGH:g}, ms", "of the whole, %")
    return Plot(
        slug="stages",
        title="Where the time goes",
        png=png_of(figure, f"{caption}. Single stream, n = {studies}.", wrong=wrong),
        alt=f"Median time of each stage of a study: {told}; the whole {short(whole)} ms.",
        caption=f"Bars: median of each stage in its order; lines: from the {LOW:g}th to the {HIGH:g}th percentile. "
        f"{adds}",
        tables=(Table(f"Stages of the single stream, n = {studies}", head, tuple(rows)),),
    )


def plot_starts(
    starts: Sequence[Start], hot_ms: float | None, caption: str, *, wrong: str = ""
) -> Plot | None:
    """First results: of fresh processes, and after a pause; None where none was measured.

    Args:
        starts: As they were measured; those that were not are told in the table.
        hot_ms: Median of the single stream, for comparison.
        caption: What ran, and where.
        wrong: Why it may not be used.
    """
    measured = [each for each in starts if each.total_ms]
    if not measured:
        return None
    fresh = [each for each in measured if FRESH in each.parts_ms or "open" in each.parts_ms]
    idle = [each for each in measured if each not in fresh]
    groups = [group for group in (("fresh process", fresh), ("after a pause", idle)) if group[1]]
    tallest = max(len(group) for _, group in groups)
    figure, (panels,) = figure_of(1, len(groups), 0.55 * tallest + 1.9)
    for axes, (title, group) in zip(panels, groups, strict=True):
        _draw_group(axes, group, hot_ms if group is idle else None)
        set_title(axes, title)
    told = "; ".join(f"{each.kind} {short(float(np.median(each.total_ms)))} ms" for each in measured)
    return Plot(
        slug="starts",
        title="First results",
        png=png_of(figure, f"{caption}.", wrong=wrong, key=key_of(panels)),
        alt=f"Median time to a first result: {told}.",
        caption="Bars: median of each part; ticks: each time that it was measured. The two panels have scales of "
        "their own.",
        tables=(_start_table(starts),),
    )


def _draw_group(axes: Any, group: Sequence[Start], hot_ms: float | None) -> None:
    """First results on one scale."""
    for place, each in enumerate(group):
        begin = 0.0
        parts = dict.fromkeys(PARTS, 0.0)
        for name, values in each.parts_ms.items():
            parts[name if name in parts else OTHERS] += float(np.median(values)) if values else 0.0
        for name, length in parts.items():
            if length > 0:
                axes.barh(place, length, 0.6, begin, color=PARTS[name], edgecolor="white", label=name)
            begin += length
        times = each.total_ms
        axes.plot(times, [place] * len(times), linestyle="none", marker="|", markersize=18, color=INK)
    if hot_ms is not None:
        axes.axvline(hot_ms, color=INK, linestyle="--", linewidth=1.2, label=f"hot, p50 {short(hot_ms)} ms")
    axes.set_yticks(range(len(group)), [f"{plain(each.kind)}\nn = {len(each.total_ms)}" for each in group])
    axes.set_ylim(len(group) - 0.4, -0.6)
    axes.set_xlim(0, 1.06 * max(hot_ms or 0.0, *(max(each.total_ms) for each in group)))
    axes.set_xlabel("time to the written result, ms")


def _start_table(starts: Sequence[Start]) -> Table:
    rows = []
    for each in starts:
        if not each.total_ms:
            rows.append(
                Row((each.kind, "0", "-", "-", "-", "", f"not measured: {each.skipped or 'interrupted'}"))
            )
            continue
        opened = each.parts_ms.get("open", ())
        rows.append(
            Row(
                (
                    each.kind,
                    str(len(each.total_ms)),
                    short(float(np.median(each.total_ms))),
                    short(min(each.total_ms)),
                    short(max(each.total_ms)),
                    short(float(np.median(opened))) if opened else "-",
                    _parts(each.parts_ms),
                )
            )
        )
    head = (
        "first result",
        "n",
        "median, ms",
        "least, ms",
        "most, ms",
        "of it to open, ms",
        "parts, median ms",
    )
    return Table("First results", head, tuple(rows), words=(0, 6))


def _parts(parts_ms: Mapping[str, tuple[float, ...]]) -> str:
    return ", ".join(
        f"{name} {short(float(np.median(values)))}" for name, values in parts_ms.items() if values
    )


def _share(part: float, whole: float) -> str:
    return short(100 * part / whole) if whole else "-"
