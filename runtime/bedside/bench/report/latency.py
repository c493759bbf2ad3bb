"""How long studies took, one by one: their distribution, their course, and what a server held."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from bedside.bench.figures import Scenario, Search
from bedside.bench.report.drawing import (
    COLOURS,
    FAINT,
    INK,
    PERCENTILES,
    WRONG,
    count_of,
    figure_of,
    keep_times,
    png_of,
    set_title,
    short,
)
from bedside.bench.report.page import Plot, Row, Table
from bedside.bench.tail import percentile

__all__ = ["plot_latency", "plot_server", "scenario_table"]

ENOUGH: Final = 20
"""Fewest values that are drawn as a histogram; of fewer each is a step."""
FEWEST_BINS, MOST_BINS = 10, 120
"""Of a histogram; between them as many as Freedman and Diaconis have it (1981)."""
MAX_RATES: Final = 6
"""Most runs of a server whose distributions are drawn: those nearest to the rate that was found."""
QUEUE_COLUMNS: Final = (
    "scenario",
    "n, studies",
    "p50, ms",
    "p90, ms",
    "p99, ms",
    "longest, ms",
    "studies/s",
    "",
)


def plot_latency(stream: Scenario, caption: str, *, wrong: str = "") -> Plot:
    """The single stream: how its latencies are distributed, and how they went.

    Args:
        stream: With at least one study.
        caption: What ran, and where.
        wrong: Why it may not be used.
    """
    values = np.asarray(sorted(stream.queries.latency_ms))
    marks = [(name, percentile(values.tolist(), share), style) for name, share, style in PERCENTILES]
    studies = count_of(len(values), "study", "studies")
    figure, ((left, right),) = figure_of(1, 2, 4.0)
    _distribution(left, values)
    for name, value, style in marks:
        left.axvline(value, color=INK, linestyle=style, linewidth=1.4, label=f"{name} {short(value)} ms")
    left.legend(fontsize=8.5, loc="best", framealpha=0.9, edgecolor="none")
    set_title(left, f"single stream, {studies}")
    _course(right, stream, marks)
    told = ", ".join(f"{name} {short(value)} ms" for name, value, _ in marks)
    return Plot(
        slug="latency",
        title="Latency, from file to written result",
        png=png_of(figure, f"{caption}. Single stream, n = {studies}.", wrong=wrong),
        alt=f"Distribution of the latency of {studies} of the single stream, and each over time: {told}, longest "
        f"{short(float(values[-1]))} ms.",
        caption="Left: how many studies took how long, each with a tick below, and the percentiles. Right: each study "
        "when it came; a course that rises or falls is a machine that warms, throttles or was shared.",
        tables=(_tail(stream, marks),),
    )


def plot_server(
    stream: Scenario, servers: list[Scenario], search: Search | None, caption: str, *, wrong: str = ""
) -> Plot:
    """What came at random times: distributions beside the single stream's, and latency over the rate.

    Args:
        stream: The single stream.
        servers: Runs of the server with at least one study.
        search: What they came to.
        caption: What ran, and where.
        wrong: Why it may not be used.
    """
    figure, ((left, right),) = figure_of(1, 2, 4.2)
    _steps(left, np.asarray(stream.queries.latency_ms), INK, "single stream")
    goal = max(each.rate_per_second or 0.0 for each in servers)
    if search is not None and search.best_per_second is not None:
        goal = search.best_per_second
    near = sorted(servers, key=lambda each: abs((each.rate_per_second or 0.0) - goal))[:MAX_RATES]
    for number, each in enumerate(sorted(near, key=lambda each: each.rate_per_second or 0.0)):
        label = f"{short(each.rate_per_second)}/s, {'held' if each.held else 'not held'}"
        _steps(
            left,
            np.asarray(each.queries.latency_ms),
            COLOURS[number % len(COLOURS)],
            label,
            "-" if each.held else "--",
        )
    every = [value for each in (stream, *near) for value in each.queries.latency_ms]
    keep_times(left.xaxis, every)
    left.set_xlabel("latency, waiting included, ms")
    left.set_ylabel("share of the studies")
    set_title(left, "done within a time, by rate of arrivals")
    _rates(right, servers)
    bound = servers[0].bound_ms
    if bound is not None:
        for draw in (left.axvline, right.axhline):
            draw(bound, color=WRONG, linewidth=1.2, linestyle="-.", label=f"bound {short(bound)} ms")
    left.legend(fontsize=8, loc="lower right", framealpha=0.9, edgecolor="none")
    right.legend(fontsize=8, loc="best", framealpha=0.9, edgecolor="none")
    held = "no rate was held"
    if search is not None and search.best_per_second is not None:
        held = f"the highest rate that was held is {short(search.best_per_second)} studies a second"
    studies = count_of(sum(len(each.queries.samples) for each in servers), "study", "studies")
    runs = count_of(len(servers), "run", "runs")
    return Plot(
        slug="server",
        title="Server: studies that come at random times",
        png=png_of(figure, f"{caption}. Server, {runs} of {studies} in all.", wrong=wrong),
        alt=f"Latency of {runs} with random arrivals against the bound of {short(bound)} ms; {held}.",
        caption=f"A rate is held if at most 1 in 100 studies takes longer than the bound; {held}. Dashed: not held. A "
        "study's latency has what it waited for those before it.",
        tables=(),
    )


def scenario_table(scenarios: tuple[Scenario, ...]) -> Table:
    """Each run of a scenario, a line."""
    rows = []
    for each in scenarios:
        name = each.name
        if each.rate_per_second is not None:
            name = f"{name} at {short(each.rate_per_second)} studies/s"
        word = "" if each.complete else "not finished"
        if each.held is not None:
            word = "held" if each.held else "not held"
        latency = each.latency
        times = ["-"] * 4
        if latency is not None:
            four = (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.max_ms)
            times = [short(ms) for ms in four]
        cells = (name, str(len(each.queries.samples)), *times, short(each.per_second), word)
        rows.append(Row(cells, wrong=not each.complete and each.held is None))
    return Table("Every run of a scenario", QUEUE_COLUMNS, tuple(rows), words=(0, 7))


def _tail(stream: Scenario, marks: list[tuple[str, float, str]]) -> Table:
    """Percentiles, and what MLPerf's early stopping says of them."""
    latency, studies = stream.latency, count_of(len(stream.queries.samples), "study", "studies")
    rows = [Row((name, short(value), "")) for name, value, _ in marks]
    if latency is not None:
        for place, value, needs in (
            (1, latency.p90_early_ms, latency.p90_needs),
            (2, latency.p99_early_ms, latency.p99_needs),
        ):
            sure = f"takes {needs} studies" if value is None else short(value)
            rows[place] = Row((*rows[place].cells[:2], sure))
        rows.append(Row(("longest", short(latency.max_ms), "")))
        rows.append(Row(("mean", short(latency.mean_ms), "")))
    return Table(
        f"Single stream, n = {studies} in {short(stream.seconds)} s",
        ("", "latency, ms", "at 99 % confidence (early stopping), ms"),
        tuple(rows),
    )


def _distribution(axes: Any, values: Any) -> None:
    """A histogram of sorted values with a tick for each, or few of them as steps."""
    log = keep_times(axes.xaxis, values.tolist())
    axes.set_xlabel("latency, ms")
    if len(values) < ENOUGH:
        _steps(axes, values, COLOURS[0], "each study a step")
        axes.set_ylabel("share of the studies")
        if not log:
            axes.set_xlim(0, 1.15 * values[-1])
        return
    scaled = np.log(values) if log else values
    bins = len(np.histogram_bin_edges(scaled, "fd")) - 1 if np.ptp(scaled) > 0 else 1
    edges = np.linspace(
        scaled[0], scaled[-1] + 1e-9 * abs(scaled[-1]) + 1e-12, min(max(bins, FEWEST_BINS), MOST_BINS) + 1
    )
    axes.hist(values, np.exp(edges) if log else edges, color=COLOURS[0], alpha=0.75)
    axes.plot(values, np.zeros(len(values)), "|", color=INK, alpha=0.5, markersize=6, clip_on=False)
    axes.set_ylabel("studies")


def _course(axes: Any, stream: Scenario, marks: list[tuple[str, float, str]]) -> None:
    """Each study when it came."""
    seconds = np.asarray(stream.queries.at_ms) / 1e3
    values = stream.queries.latency_ms
    for _, value, style in marks:
        axes.axhline(value, color=INK, linestyle=style, linewidth=1.0, zorder=1)
    size = 4 if len(values) >= ENOUGH else 9
    axes.plot(seconds, values, linestyle="none", marker=".", markersize=size, color=COLOURS[0], alpha=0.75)
    if not keep_times(axes.yaxis, values):
        axes.set_ylim(0, 1.08 * max(values) or 1.0)
    axes.set_xlim(-0.02 * (seconds.max() or 1.0), 1.02 * (seconds.max() or 1.0))
    axes.set_xlabel("when the study came, s")
    axes.set_ylabel("latency, ms")
    set_title(axes, "one after the other")


def _steps(axes: Any, values: Any, colour: str, label: str, style: str = "-") -> None:
    """Share of the studies that were done within a time."""
    ordered = np.sort(values)
    shares = np.arange(1, len(ordered) + 1) / len(ordered)
    axes.step(
        np.concatenate([ordered[:1], ordered]),
        np.concatenate([[0.0], shares]),
        where="post",
        color=colour,
        linestyle=style,
        linewidth=1.5,
        label=f"{label} (n = {len(ordered)})",
    )
    axes.set_ylim(0, 1.02)


def _rates(axes: Any, servers: list[Scenario]) -> None:
    """99th percentile over the rate."""
    for held, colour, marker, label in ((True, COLOURS[0], "o", "held"), (False, WRONG, "X", "not held")):
        runs = [each for each in servers if bool(each.held) is held and each.latency is not None]
        axes.plot(
            [each.rate_per_second for each in runs],
            [each.latency.p99_ms for each in runs if each.latency is not None],
            linestyle="none",
            marker=marker,
            markersize=7,
            color=colour,
            label=label if runs else None,
        )
    tails = [each.latency.p99_ms for each in servers if each.latency is not None]
    bounds = [each.bound_ms for each in servers if each.bound_ms]
    if not keep_times(axes.yaxis, tails + bounds):
        axes.set_ylim(0, 1.1 * max(tails + bounds))
    axes.set_xlim(0, 1.15 * max(each.rate_per_second or 0.0 for each in servers))
    axes.set_xlabel("arrivals, studies/s")
    axes.set_ylabel("p99 of the latency, ms")
    set_title(axes, "what the rate costs")
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.tick_params(color=FAINT)
