"""Curves of growth (`growth.py`) as a part of a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from report_fields import Fields
from report_machine import caption_of, judge, list_facts, list_states

from bedside.bench.report import Plot, Row, Section, Table
from bedside.bench.report.drawing import (
    COLOURS,
    FAINT,
    INK,
    MARKERS,
    figure_of,
    key_of,
    plain,
    png_of,
    set_title,
    short,
)

__all__ = ["growth_section"]

UNITS: Final = {
    "pictures": "pictures in one run",
    "threads": "threads",
    "slices": "slices",
    "megapixels": "image, megapixels",
}
"""Axis -> its title."""
TITLES: Final = {
    "pictures": "Growth with the batch",
    "threads": "Growth with the threads",
    "slices": "Growth with the slices of a scan",
    "megapixels": "Growth with the size of the image",
}


@dataclass(frozen=True, slots=True)
class _Point:
    """A process of its own."""

    at: float
    """What grows."""
    ms: float
    """Median time."""
    low_ms: float
    """Fastest."""
    high_ms: float
    """Slowest."""
    n: int
    """Times."""
    extra: float | None
    """Per picture or slice in ms, or the speed-up."""
    memory_mib: float


@dataclass(frozen=True, slots=True)
class _Curve:
    """One engine."""

    name: str
    points: tuple[_Point, ...]
    why_not: str
    """Why it has no more points."""


def growth_section(record: Fields) -> Section:
    """Time and memory over what grew."""
    machine, axis = record.object("machine"), record.text("axis")
    if axis not in UNITS:
        raise ValueError(f"no axis {axis[:40]!r} is known; there are {', '.join(UNITS)}")
    curves = [_read(each, axis) for each in record.each("curves")]
    drawn = [curve for curve in curves if curve.points]
    verdict = judge(machine, complete=bool(record.flag("complete")))
    wrong = "" if verdict.passed else f"{verdict.word.partition(':')[0]}: {'; '.join(verdict.reasons)}"
    return Section(
        title=TITLES[axis],
        verdict=verdict,
        facts=(("rounds", f"{record.number('rounds'):g}"), *list_facts(machine)),
        plots=(_plot(drawn, axis, caption_of(machine), wrong),) if drawn else (),
        tables=(list_states(machine),),
        notes=tuple(f"{curve.name}: {curve.why_not}" for curve in curves if curve.why_not),
    )


def _read(curve: Fields, axis: str) -> _Curve:
    name = f"{curve.text('bundle')}, {curve.text('engine')}"
    if what := curve.text_or("what"):
        name += f", {what}"
    points = (
        _read_slices(each) if axis == "slices" else _read_point(each, axis) for each in curve.each("points")
    )
    return _Curve(name, tuple(sorted(points, key=lambda point: point.at)), curve.text_or("why_not"))


def _read_point(point: Fields, axis: str) -> _Point:
    values = point.values.get("seconds")
    return _Point(
        at=point.number(axis),
        ms=point.number("median_ms"),
        low_ms=point.number("fastest_ms"),
        high_ms=point.number("slowest_ms"),
        n=len(values) if isinstance(values, list) else 1,
        extra=point.number_or_none("ms_per_picture" if axis == "pictures" else "speed_up"),
        memory_mib=point.number("peak_memory_mib"),
    )


def _read_slices(point: Fields) -> _Point:
    ms = point.number("seconds") * 1e3
    return _Point(
        point.number("slices"), ms, ms, ms, 1, point.number("ms_per_slice"), point.number("peak_memory_mib")
    )


def _plot(curves: list[_Curve], axis: str, caption: str, wrong: str) -> Plot:
    extra = {
        "pictures": "ms/picture",
        "threads": "speed-up over the fewest threads",
        "slices": "ms/slice",
    }.get(axis)
    seconds = max(point.ms for curve in curves for point in curve.points) > 1e4
    figure, (panels,) = figure_of(1, 2 if extra is None else 3, 3.9 + 0.24 * len(curves))
    scale, unit = (1e-3, "s") if seconds else (1.0, "ms")
    for number, curve in enumerate(curves):
        look = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[number % len(MARKERS)],
            "markersize": 5,
            "linewidth": 1.4,
            "label": plain(curve.name, 90),
        }
        at = [point.at for point in curve.points]
        middle = [point.ms * scale for point in curve.points]
        ends = (
            [(point.ms - point.low_ms) * scale for point in curve.points],
            [(point.high_ms - point.ms) * scale for point in curve.points],
        )
        panels[0].errorbar(at, middle, yerr=ends, capsize=2.5, **look)
        panels[-1].plot(at, [point.memory_mib for point in curve.points], **look)
        if extra is not None:
            panels[1].plot(at, [point.extra or float("nan") for point in curve.points], **look)
    titles = [f"time, {unit}", *([] if extra is None else [extra]), "peak memory, MiB"]
    for axes, title in zip(panels, titles, strict=True):
        _finish(axes, axis, title, sorted({point.at for curve in curves for point in curve.points}))
    if axis == "threads":
        ends_at = panels[1].get_xlim()[1]
        panels[1].axline((1, 1), slope=1, color=FAINT, linestyle=":", linewidth=1)
        panels[1].set_ylim(
            0, 1.05 * max(1.0, ends_at, *(point.extra or 0.0 for c in curves for point in c.points))
        )
    first = min(point.at for curve in curves for point in curve.points)
    last = max(point.at for curve in curves for point in curve.points)
    return Plot(
        slug=f"growth-{axis}",
        title=TITLES[axis],
        png=png_of(
            figure, f"{caption}. Each point a process of its own.", wrong=wrong, key=key_of(panels[:1])
        ),
        alt=f"Time and peak memory of {len(curves)} curves from {first:g} to {last:g} {UNITS[axis]}; "
        + "; ".join(f"{c.name}: {_range(c)}" for c in curves),
        caption="Points: medians; bars: fastest and slowest. "
        + ("Dotted: as many times faster as there are threads." if axis == "threads" else ""),
        tables=(_table(curves, axis, extra),),
    )


def _finish(axes: Any, axis: str, title: str, values: list[float]) -> None:
    axes.set_xlabel(UNITS[axis])
    axes.set_ylabel(title)
    set_title(axes, title.partition(",")[0])
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_ylim(0, 1.1 * axes.dataLim.y1 or 1.0)
    if axis == "pictures" and len(values) > 3:
        axes.set_xscale("log", base=2)
        axes.set_xticks(values, [f"{value:g}" for value in values])
    elif axis in ("pictures", "threads"):
        axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.tick_params(axis="x", which="minor", bottom=False)
    axes.xaxis.label.set_color(INK)
    if axis in ("slices", "megapixels"):
        axes.set_xlim(0, 1.06 * max(values))


def _range(curve: _Curve) -> str:
    ends = [curve.points[place] for place in (0, -1)]
    return " to ".join(
        f"{short(point.ms)} ms and {short(point.memory_mib)} MiB at {point.at:g}" for point in ends
    )


def _table(curves: list[_Curve], axis: str, extra: str | None) -> Table:
    rows = [
        Row(
            (
                curve.name,
                f"{point.at:g}",
                str(point.n),
                short(point.ms),
                short(point.low_ms),
                short(point.high_ms),
                *([] if extra is None else [short(point.extra)]),
                short(point.memory_mib),
            )
        )
        for curve in curves
        for point in curve.points
    ]
    head = ("curve", UNITS[axis], "n", "median, ms", "fastest, ms", "slowest, ms",
            *([] if extra is None else [extra]), "peak memory, MiB")  # fmt: skip
    return Table("Every point; n: times that it was measured", head, tuple(rows))
