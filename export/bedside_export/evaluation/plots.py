"""Pictures of an evaluation: predictions against experts, differences after Bland and Altman, errors by range."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from math import ceil
from textwrap import fill
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from bedside.agreement import BlandAltman
from bedside.provenance import NOTICE
from bedside.version import __version__
from bedside_export.evaluation.protocol import Evaluation
from bedside_export.heads import SCORES, TITLES

__all__ = ["COLOUR", "COLOURS", "FAINT", "INK", "dots", "draw_evaluation", "draw_limits", "panels", "to_png"]

COLOUR: Final = "#0072B2"
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#000000")
"""Told apart by the colour-blind too (Okabe and Ito 2008)."""
INK, FAINT = "#222222", "#8a8a8a"
PANEL_INCHES: Final = 3.3
ACROSS: Final = 4
"""Panels in a row."""
DOTS_PER_INCH: Final = 110
_TITLE_WIDTH: Final = 34
"""Letters of a panel's title in a line."""

Float = npt.NDArray[np.float64]


def draw_evaluation(evaluation: Evaluation) -> dict[str, bytes]:
    """PNG files by their names: for each score a scatter and differences, and one of errors by range."""
    files = {}
    for score, name in enumerate(SCORES):
        files[f"{name}-scatter.png"] = _draw_methods(evaluation, score, _scatter, "predictions")
        files[f"{name}-bland-altman.png"] = _draw_methods(evaluation, score, _difference, "differences")
    files["ranges.png"] = _draw_ranges(evaluation)
    return files


def panels(count: int, *, across: int = ACROSS, inches: float = PANEL_INCHES) -> tuple[Figure, list[Any]]:
    """A figure with that many panels, in rows."""
    columns = min(count, across)
    rows = ceil(count / columns)
    figure = Figure(
        figsize=(inches * columns, inches * rows + 0.6),
        dpi=DOTS_PER_INCH,
        layout="constrained",
        facecolor="white",
    )
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[count:]:
        unused.set_visible(False)
    for each in axes[:count]:
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(colors=INK, labelsize=8)
    return figure, list(axes[:count])


def to_png(figure: Figure, *, caption: str) -> bytes:
    """The figure with a caption below, as a file that says what it is not for."""
    width = int(figure.get_figwidth() * 13)
    figure.supxlabel(fill(f"{caption} bedside {__version__}. {NOTICE}", width), fontsize=8, color=FAINT)
    stream = io.BytesIO()
    figure.savefig(
        stream, format="png", metadata={"Software": f"bedside {__version__}", "Disclaimer": NOTICE}
    )
    return stream.getvalue()


def _draw_methods(
    evaluation: Evaluation, score: int, draw: Callable[[Any, Evaluation, int, int], None], what: str
) -> bytes:
    figure, axes = panels(len(evaluation.outcomes))
    for place, each in enumerate(axes):
        draw(each, evaluation, score, place)
    low, high = evaluation.table.bounds[score]
    figure.suptitle(
        f"{TITLES[score].capitalize()} ({low:g} to {high:g}): {what}",
        fontsize=11,
        color=INK,
        x=0.01,
        ha="left",
    )
    return to_png(
        figure,
        caption="A dot: a picture, its mean prediction over the splits that held its patient out. "
        + ("Line: identity." if draw is _scatter else "Lines: bias and limits of agreement (95 %)."),
    )


def _scatter(axes: Any, evaluation: Evaluation, score: int, place: int) -> None:
    row = evaluation.rows[SCORES[score]][place]
    truth, mean = _pairs(evaluation, score, place)
    low, high = evaluation.table.bounds[score]
    room = 0.05 * (high - low)
    bottom = min(low, float(mean.min())) - room
    top = max(high, float(mean.max())) + room
    axes.plot([low, high], [low, high], color=FAINT, linewidth=1, zorder=1)
    axes.plot(truth, mean, **dots())
    axes.set(xlim=(low - room, high + room), ylim=(bottom, top))
    axes.set_xlabel("experts", fontsize=9, color=INK)
    axes.set_ylabel("prediction", fontsize=9, color=INK)
    mae, correlation = row.summary.metrics["mae"], row.summary.metrics["correlation"]
    _title(axes, row.method, f"MAE {mae.mean:.2f}, correlation {correlation.mean:.2f}")


def _difference(axes: Any, evaluation: Evaluation, score: int, place: int) -> None:
    row = evaluation.rows[SCORES[score]][place]
    truth, mean = _pairs(evaluation, score, place)
    low, high = evaluation.table.bounds[score]
    axes.axhline(0, color=FAINT, linewidth=1, zorder=1)
    middle, room = (truth + mean) / 2, 0.05 * (high - low)
    axes.plot(middle, mean - truth, **dots())
    axes.set_xlim(min(low, float(middle.min())) - room, max(high, float(middle.max())) + room)
    axes.set_ylim(*_reach(evaluation, score))
    if row.limits is not None:
        draw_limits(axes, row.limits)
    axes.set_xlabel("mean of the two", fontsize=9, color=INK)
    axes.set_ylabel("prediction less experts", fontsize=9, color=INK)
    _title(axes, row.method, "")


def draw_limits(axes: Any, limits: BlandAltman, colour: str = COLOUR) -> None:
    """Bias and limits of agreement as lines, with their values."""
    for value, style, side in (
        (limits.upper.value, "--", "bottom"),
        (limits.bias.value, "-", "bottom" if limits.bias.value >= 0 else "top"),
        (limits.lower.value, "--", "top"),
    ):
        axes.axhline(value, color=colour, linestyle=style, linewidth=1.2, zorder=2)
        axes.annotate(
            f"{value:+.2f}",
            (0.99, value),
            xycoords=axes.get_yaxis_transform(),
            xytext=(0, 2 if side == "bottom" else -2),
            textcoords="offset points",
            ha="right",
            va=side,
            fontsize=8,
            color=INK,
            zorder=4,
        )


def _draw_ranges(evaluation: Evaluation) -> bytes:
    figure, axes = panels(len(SCORES), across=2, inches=5.2)
    count = len(evaluation.outcomes)
    for each, name, title in zip(axes, SCORES, TITLES, strict=True):
        rows = evaluation.rows[name]
        width = 0.8 / count
        for place, row in enumerate(rows):
            heights = [0.0 if one.mae is None else one.mae for one in row.ranges]
            left = np.arange(len(heights)) - 0.4 + (place + 0.5) * width
            each.bar(left, heights, width * 0.92, color=COLOURS[place % len(COLOURS)], label=row.method)
        marks = [f"{one.low:g} to {one.high:g}\n{one.pictures} pictures" for one in rows[-1].ranges]
        each.set_xticks(range(len(marks)), marks)
        each.set_ylabel("mean absolute error", fontsize=9, color=INK)
        each.set_xlabel("experts' score", fontsize=9, color=INK)
        each.set_title(title.capitalize(), fontsize=10, color=INK, loc="left")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, fontsize=8, frameon=False)
    return to_png(figure, caption="Errors on held-out patients by range of the experts' score.")


def _pairs(evaluation: Evaluation, score: int, place: int) -> tuple[Float, Float]:
    mean = evaluation.mean_prediction(evaluation.outcomes[place], score)
    known = np.isfinite(mean)
    return evaluation.table.scores[known, score], mean[known]


def _reach(evaluation: Evaluation, score: int) -> tuple[float, float]:
    """Limits of the differences that show every method's dots and lines, that they can be compared."""
    shown = [0.0]
    for place, row in enumerate(evaluation.rows[SCORES[score]]):
        truth, mean = _pairs(evaluation, score, place)
        shown += (mean - truth).tolist()
        if row.limits is not None:
            shown += [row.limits.lower.value, row.limits.upper.value]
    low, high = min(shown), max(shown)
    room = 0.08 * (high - low) or 1.0
    return low - room, high + room


def dots(colour: str = COLOUR) -> dict[str, Any]:
    """How a picture's dot is drawn."""
    return {
        "linestyle": "none",
        "marker": "o",
        "markersize": 5,
        "markerfacecolor": colour,
        "markeredgecolor": "white",
        "markeredgewidth": 0.5,
        "alpha": 0.8,
        "zorder": 3,
    }


def _title(axes: Any, name: str, detail: str) -> None:
    lines: Sequence[str] = [fill(name.replace("$", r"\$"), _TITLE_WIDTH), *([detail] if detail else [])]
    axes.set_title("\n".join(lines), fontsize=9, color=INK, loc="left")
