"""Accuracy against latency, over precisions, engines and bundles, as a part of a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from report_labels import place_numbers
from report_points import DICE, OPACITY, VOLUME, Point

from bedside.bench.report import Plot, Row, Section, Table, Verdict
from bedside.bench.report.drawing import (
    COLOURS,
    FAINT,
    MARKERS,
    WRONG,
    count_of,
    figure_of,
    keep_times,
    plain,
    png_of,
    set_title,
    short,
)

__all__ = ["find_front", "pareto_sections"]

PRECISIONS: Final = ("fp32", "bf16", "fp16", "int8", "int8-bf16", "int8-fp16")
"""Each with a colour of its own, in `COLOURS`' order; others have the last."""
FILLINGS: Final = ("full", "none", "left", "bottom", "right", "top")
"""Of the markers, one a bundle."""
LEAST: Final = 1e-7
"""Differences below, none at all included, are drawn there: a logarithmic axis has no zero."""
UNITS: Final = {DICE: "0 to 1", VOLUME: "%"}
"""Quantity -> unit of its difference; of others it is that of a score, points."""


def pareto_sections(points: Sequence[Point]) -> list[Section]:
    """A section for what can be compared: alike in what was timed, on one machine, with the same quantities."""
    groups: dict[tuple[object, ...], list[Point]] = {}
    for point in points:
        if point.gaps and point.latency_ms > 0:
            groups.setdefault((tuple(sorted(point.gaps)), point.timed, point.machine), []).append(point)
    return [_section(group) for group in groups.values() if len(group) > 1]


def find_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of (latency, difference) that no other is better than in both, from the fastest on."""
    front: list[tuple[float, float]] = []
    for point in sorted(points):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def _section(points: list[Point]) -> Section:
    ordered = sorted(points, key=lambda point: point.latency_ms)
    usable = [point for point in ordered if not point.wrong]
    out = len(ordered) - len(usable)
    word = f"{count_of(len(usable), 'engine', 'engines')} inside tolerance"
    return Section(
        title=f"Accuracy against latency: {ordered[0].timed}",
        verdict=Verdict(bool(usable), word if usable else "NONE inside tolerance"),
        facts=(
            ("machine", ordered[0].machine),
            ("timed", f"median, {ordered[0].timed}"),
            ("differences", "; ".join(dict.fromkeys(point.against for point in ordered))),
        ),
        plots=(_plot(ordered),),
        notes=(f"{out} may not be used, and are left out of the best: the table says why.",) if out else (),
    )


def _plot(points: list[Point]) -> Plot:
    quantities = list(points[0].gaps)
    judged = list(dict.fromkeys(name for point in points for name in point.errors))
    count = len(quantities) + len(judged)
    columns = min(count, 3) if count != 4 else 2
    lines = -(-count // columns)
    figure, axes = figure_of(lines, columns, 3.6 * lines + 1.0)
    panels = axes.ravel()
    looks = _Looks(
        list(dict.fromkeys(point.backend for point in points)),
        list(dict.fromkeys((point.bundle, point.digest) for point in points)),
    )
    numbers = [
        *(_draw_gaps(axis, points, name, looks) for axis, name in zip(panels, quantities, strict=False)),
        *(
            _draw_errors(axis, points, name, looks)
            for axis, name in zip(panels[len(quantities) :], judged, strict=False)
        ),
    ]
    for axis in panels[count:]:
        axis.set_visible(False)
    figure.draw_without_rendering()  # lays it out: before, nobody knows what hides what
    for axis, wanted in zip(panels, numbers, strict=False):
        place_numbers(axis, wanted)
    best = next((point.name for point in points if not point.wrong), "none")
    counts = [point.n for point in points]
    caption = (
        "Down and to the left is better; the line joins those that no other beats in both. Crossed out: may not be "
        f"used. Numbers are those of the table. Differences under {LEAST:g} are drawn there."
    )
    if judged:
        caption += (
            " Errors against experts are of the bundle's network in fp32, on cases held out; bars: what the engine "
            "can add or take on average, by its differences on real pictures."
        )
    span = f"{min(counts)}" + ("" if min(counts) == max(counts) else f" to {max(counts)}")
    below = f"Median, {points[0].timed}, of n = {span}; {points[0].machine}."
    return Plot(
        slug="pareto",
        title="What speed costs",
        png=png_of(figure, below, key=_key(points, looks)),
        alt=f"Difference from the reference over the latency of {len(points)} engines. The fastest inside its "
        f"tolerance: {best}. The table has every point.",
        caption=caption,
        tables=(_table(points, quantities, judged),),
    )


def _draw_gaps(axes: Any, points: list[Point], name: str, looks: _Looks) -> list[tuple[float, float, int]]:
    """Differences from the reference; returns where each number belongs."""
    drawn = []
    usable = []
    for number, point in enumerate(points, 1):
        gap = point.gaps[name]
        if gap is None:
            continue
        drawn.append((point.latency_ms, max(gap, LEAST), number))
        usable += [] if point.wrong else [(point.latency_ms, max(gap, LEAST))]
        _mark(axes, point, max(gap, LEAST), looks)
    front = find_front(usable)
    axes.plot([x for x, _ in front], [y for _, y in front], color=FAINT, linewidth=1, zorder=1)
    heights = [height for _, height, _ in drawn] or [LEAST, 1.0]
    axes.set_yscale("log")
    axes.set_ylim(min(heights) / 4, max(heights) * 6)
    axes.set_ylabel(f"difference, {UNITS.get(name, 'points')}")
    _finish(axes, points, name)
    return drawn


def _draw_errors(axes: Any, points: list[Point], name: str, looks: _Looks) -> list[tuple[float, float, int]]:
    """Errors against experts; returns where each number belongs."""
    drawn, reach = [], [0.0]
    for number, point in enumerate(points, 1):
        if name not in point.errors:
            continue
        error, spread = point.errors[name]
        if spread is not None:
            ends = [error - spread, error + spread]
            axes.plot([point.latency_ms] * 2, ends, color=FAINT, linewidth=1.5, zorder=1)
        reach.append(error + (spread or 0.0))
        drawn.append((point.latency_ms, error, number))
        _mark(axes, point, error, looks)
    axes.set_ylim(0, 1.25 * max(reach) or 1.0)
    axes.set_ylabel("error" if name == OPACITY else "mean absolute error, points")
    _finish(axes, points, f"{name}: against experts")
    return drawn


def _finish(axes: Any, points: list[Point], name: str) -> None:
    times = [point.latency_ms for point in points]
    if not keep_times(axes.xaxis, times):
        axes.set_xlim(0, 1.12 * max(times))
    axes.set_xlabel("latency, median, ms")
    axes.grid(color="#e4e4e4", linewidth=0.7)
    set_title(axes, plain(name))


def _mark(axes: Any, point: Point, height: float, looks: _Looks) -> None:
    axes.plot(point.latency_ms, height, zorder=2, **looks.of(point))
    if point.wrong:
        cross = {"marker": "x", "markersize": 13, "markeredgewidth": 2, "color": WRONG}
        axes.plot(point.latency_ms, height, zorder=3, **cross)


def _key(points: list[Point], looks: _Looks) -> list[Any]:
    """Colours of precisions, shapes of engines, fillings of bundles, drawn on no axes."""
    line: Any = import_module("matplotlib.lines").Line2D
    mark = {"linestyle": "none", "markersize": 8}
    colours = {point.precision or "peers": _colour(point) for point in points}
    handles = [
        line([], [], marker="o", color=colour, label=plain(name), **mark) for name, colour in colours.items()
    ]
    handles += [
        line([], [], marker=looks.marker(name), color=FAINT, label=plain(name), **mark)
        for name in looks.backends
    ]
    if len(looks.bundles) > 1:
        handles += [
            line([], [], marker="o", color=FAINT, label=plain(f"{name} {digest[:6]}"), **filling, **mark)
            for (name, digest), filling in zip(
                looks.bundles, map(_fill, range(len(looks.bundles))), strict=True
            )
        ]
    if any(point.wrong for point in points):
        handles.append(
            line([], [], linestyle="none", marker="x", markersize=10, color=WRONG, label="may not be used")
        )
    return handles


@dataclass(frozen=True, slots=True)
class _Looks:
    """What is told apart by shape and filling."""

    backends: list[str]
    """Each with a marker."""
    bundles: list[tuple[str, str]]
    """Name and digest, each with a filling."""

    def marker(self, backend: str) -> str:
        """Of an engine; the crosses stand for what may not be used."""
        markers = MARKERS.rstrip("PX")
        return markers[self.backends.index(backend) % len(markers)]

    def of(self, point: Point) -> dict[str, Any]:
        """Of a point, as `Axes.plot` takes it."""
        filling = _fill(self.bundles.index((point.bundle, point.digest)))
        return {
            "linestyle": "none",
            "marker": self.marker(point.backend),
            "markersize": 8,
            "color": _colour(point),
            **filling,
        }


def _fill(place: int) -> dict[str, str]:
    return {"fillstyle": FILLINGS[place % len(FILLINGS)], "markerfacecoloralt": "white"}


def _colour(point: Point) -> str:
    places = {name: place for place, name in enumerate(PRECISIONS)}
    return COLOURS[places.get(point.precision, len(COLOURS) - 1)]


def _table(points: list[Point], quantities: list[str], judged: list[str]) -> Table:
    rows = []
    for number, point in enumerate(points, 1):
        gaps = [
            "not finite" if point.gaps[name] is None else f"{point.gaps[name]:.2g}" for name in quantities
        ]
        errors = []
        for name in judged:
            error, spread = point.errors.get(name, (None, None))
            errors.append(short(error) + ("" if spread is None else f" +- {short(spread)}"))
        cells = (
            str(number),
            f"{point.backend} {point.precision}".strip(),
            point.bundle or "-",
            point.threads or "-",
            str(point.n),
            short(point.latency_ms),
            *gaps,
            *errors,
            point.against,
            f"MAY NOT BE USED: {point.wrong}" if point.wrong else "",
        )
        rows.append(Row(cells, wrong=bool(point.wrong)))
    titles = [f"{name}, {UNITS.get(name, 'points')}" for name in quantities]
    against = [f"{name} against experts" + ("" if name == OPACITY else ", points") for name in judged]
    head = (
        "number",
        "engine",
        "bundle",
        "threads",
        "n",
        "median, ms",
        *titles,
        *against,
        "differences are",
        "",
    )
    return Table(
        "Every point, the fastest first", head, tuple(rows), words=(1, 2, len(head) - 2, len(head) - 1)
    )
