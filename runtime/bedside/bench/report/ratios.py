"""Two runs against each other, as a part of a page."""

from __future__ import annotations

from typing import Any, Final

from bedside.bench.bootstrap import LEVEL
from bedside.bench.comparison import Comparison, Ratio
from bedside.bench.report.drawing import COLOURS, FAINT, INK, figure_of, plain, png_of, set_title, short
from bedside.bench.report.page import Plot, Row, Section, Table, Verdict
from bedside.tuning.outcome import NOISE

__all__ = ["comparison_section"]

LOOKS: Final = {
    "faster": (COLOURS[2], "D"),
    "slower": (COLOURS[1], "X"),
    "noise": (COLOURS[5], "o"),
    "too few to tell": (FAINT, "."),
}
"""Verdict -> colour and marker."""


def comparison_section(found: Comparison) -> Section:
    """Ratios of two runs with their intervals.

    Raises:
        MissingExtraError: The extra ``bench`` is not installed.
    """
    doubts = found.doubts
    return Section(
        title="bedside bench: two runs compared",
        verdict=Verdict(not doubts, "BEWARE" if doubts else "Both runs are valid and complete", doubts),
        facts=tuple(("not the same", each) for each in found.differs),
        plots=(_plot(found),),
        notes=(
            f"A ratio is new to old. A difference counts if its interval leaves out 1 and it is over {NOISE:.0%}.",
        ),
    )


def _plot(found: Comparison) -> Plot:
    ratios = found.ratios
    figure, ((axes,),) = figure_of(1, 1, 0.3 * len(ratios) + 1.9)
    axes.axvspan(1 - NOISE, 1 + NOISE, color="#ececec")
    axes.axvline(1, color=INK, linewidth=1)
    for word, (colour, marker) in LOOKS.items():
        _points(axes, ratios, word, colour, marker)
    axes.set_yticks(range(len(ratios)), [plain(f"{each.of}: {each.quantity}") for each in ratios])
    axes.invert_yaxis()
    axes.set_xlabel("new / old")
    set_title(axes, f"ratios with intervals of {LEVEL:.0%}")
    axes.legend(fontsize=8.5, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    counts = {word: sum(each.verdict == word for each in ratios) for word in LOOKS}
    told = ", ".join(f"{count} {word}" for word, count in counts.items())
    head = ("", "", "old", "new", "unit", "new / old", f"interval, {LEVEL:.0%}", "")
    return Plot(
        slug="ratios",
        title="New to old",
        png=png_of(figure, "Two runs of bedside bench.", wrong="; ".join(found.doubts)),
        alt=f"Ratios of {len(ratios)} quantities, new to old: {told}.",
        caption="Left of 1 less than before; of rates more is faster, of all else less is. Grey: as far as a quiet "
        "machine repeats.",
        tables=(Table("Ratios", head, tuple(map(_row, ratios)), words=(0, 1, 4, 7)),),
    )


def _points(axes: Any, ratios: tuple[Ratio, ...], word: str, colour: str, marker: str) -> None:
    label: str | None = word
    for place, each in enumerate(ratios):
        if each.verdict != word:
            continue
        if each.low is not None and each.high is not None:
            axes.plot([each.low, each.high], [place, place], color=colour, linewidth=2)
        axes.plot(each.ratio, place, linestyle="none", marker=marker, markersize=7, color=colour, label=label)
        label = None


def _row(each: Ratio) -> Row:
    interval = "-" if each.low is None or each.high is None else f"{each.low:.3f} to {each.high:.3f}"
    return Row(
        (
            each.of,
            each.quantity,
            short(each.old),
            short(each.new),
            each.unit,
            f"{each.ratio:.3f}",
            interval,
            each.verdict,
        )
    )
