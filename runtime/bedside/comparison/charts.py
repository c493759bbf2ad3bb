"""A comparison as a picture: for each quantity a scatter with the line of identity, and Bland and Altman's plots."""

from __future__ import annotations

import importlib
import io
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from bedside.agreement import EXTRA, BlandAltman, Interval
from bedside.comparison.quantities import Quantity
from bedside.errors import MissingExtraError
from bedside.provenance import NOTICE
from bedside.version import __version__

if TYPE_CHECKING:
    from bedside.comparison import Comparison

__all__ = ["draw"]

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Of the readers but the reference; told apart by the colour-blind too (Okabe and Ito 2008)."""
MARKERS: Final = "osD^vP"
INK, FAINT = "#222222", "#8a8a8a"
PANEL_INCHES: Final = 4.1
DOTS_PER_INCH: Final = 120
MAX_ROWS: Final = 3
"""Quantities that are drawn: the first ones, which are those of both lungs."""
CROWDED: Final = 0.15
"""Share of the frame between the limits, under which their texts would lie over each other."""
MAX_NAME: Final = 28
"""Longest name of a reader in the picture."""


def draw(comparison: Comparison) -> bytes:
    """A PNG of up to three quantities, a row each: scatter against the reference, then one plot for each other reader.

    Raises:
        MissingExtraError: The extra ``stats`` is not installed.
    """
    try:
        figures: Any = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise MissingExtraError.of("matplotlib", EXTRA, "the plot") from error
    names = [_shorten(reader.name) for reader in comparison.readers]
    rows = comparison.quantities[:MAX_ROWS]
    figure = figures.Figure(
        figsize=(PANEL_INCHES * len(names) * 1.12, PANEL_INCHES * len(rows) + 0.4),
        dpi=DOTS_PER_INCH,
        layout="constrained",
        facecolor="white",
    )
    for quantity, axes in zip(rows, figure.subplots(len(rows), len(names), squeeze=False), strict=True):
        _scatter(axes[0], quantity, names)
        for reader, each in enumerate(axes[1:], 1):
            _difference(each, quantity, names, reader)
        for each in axes:
            each.spines[["top", "right"]].set_visible(False)
            each.tick_params(colors=INK, labelsize=8)
    figure.supxlabel(
        "Lines: bias and limits of agreement (Bland and Altman); brackets: their 95 % intervals. "
        f"bedside {__version__}. {NOTICE}",
        fontsize=8,
        color=FAINT,
    )
    stream = io.BytesIO()
    figure.savefig(
        stream, format="png", metadata={"Software": f"bedside {__version__}", "Disclaimer": NOTICE}
    )
    return stream.getvalue()


def _scatter(axes: Any, quantity: Quantity, names: list[str]) -> None:
    values = quantity.values
    low, high = _range(values)
    axes.plot([low, high], [low, high], color=FAINT, linewidth=1, zorder=1)
    for reader in range(1, len(names)):
        axes.plot(values[:, 0], values[:, reader], label=names[reader], **_style(reader))
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.set_xlabel(f"{names[0]} (reference), {quantity.unit}", fontsize=9, color=INK)
    others = names[1] if len(names) == 2 else "other readers"
    axes.set_ylabel(f"{others}, {quantity.unit}", fontsize=9, color=INK)
    _title(axes, _heading(quantity))
    if len(names) > 2:
        axes.legend(fontsize=8, frameon=False, loc="upper left", handletextpad=0.2)


def _difference(axes: Any, quantity: Quantity, names: list[str], reader: int) -> None:
    reference, other = quantity.values[:, 0], quantity.values[:, reader]
    mean = (reference + other) / 2
    axes.axhline(0, color=FAINT, linewidth=1, zorder=1)
    axes.plot(mean, other - reference, **_style(reader))
    axes.set(xlim=_range(mean), ylim=_frame(quantity))
    found = quantity.pairs[reader - 1].bland_altman
    if found is not None:
        _limits(axes, found, COLOURS[(reader - 1) % len(COLOURS)])
    cases = f"{len(reference)} case" + ("s" if len(reference) > 1 else "")
    axes.set_xlabel(f"mean of the two, {quantity.unit}", fontsize=9, color=INK)
    axes.set_ylabel(f"{names[reader]} less reference, {quantity.unit}", fontsize=9, color=INK)
    _title(
        axes,
        f"{quantity.name}, differences\n{cases}" + ("" if found else ": too few for limits of agreement"),
    )


def _limits(axes: Any, found: BlandAltman, colour: str) -> None:
    """Bias and limits as lines; at the right their values, and their intervals as far as the frame goes."""
    bottom, top = axes.get_ylim()
    beside = axes.get_yaxis_transform()  # x in shares of the frame, y in data
    crowded = found.upper.value - found.lower.value < CROWDED * (top - bottom)
    text = partial(axes.text, 1.07, transform=beside, fontsize=8, color=INK)
    lines: tuple[tuple[Interval, str, str, str, float], ...] = (
        (found.upper, "--", "limit", "bottom", 1.05),
        (found.bias, "-", "bias", "center", 1.025),
        (found.lower, "--", "limit", "top", 1.05),
    )
    for interval, style, name, side, x in lines:
        axes.axhline(interval.value, color=colour, linestyle=style, linewidth=1.3, zorder=2)
        low, high = max(interval.low, bottom), min(interval.high, top)
        drawn = {"color": colour, "linewidth": 1.2, "transform": beside, "clip_on": False}
        axes.plot([x, x], [low, high], **drawn)
        for end in (interval.low, interval.high):
            if bottom < end < top:
                axes.plot([x - 0.01, x + 0.01], [end, end], **drawn)
        if not crowded:
            text(interval.value, f"{name} {interval.value:+.3g}", va=side)
    if crowded:
        limits = f"limits {found.lower.value:+.3g}\nto {found.upper.value:+.3g}"
        text(found.bias.value, f"bias {found.bias.value:+.3g}\n{limits}", va="center")


def _frame(quantity: Quantity) -> tuple[float, float]:
    """Limits of the differences of all readers, that they can be compared: all points and lines, and zero."""
    shown = [0.0, *(quantity.values[:, 1:] - quantity.values[:, :1]).ravel()]
    for pair in quantity.pairs:
        if pair.bland_altman is not None:
            shown += [pair.bland_altman.lower.value, pair.bland_altman.upper.value]
    low, high = min(shown), max(shown)
    room = 0.15 * (high - low) or 1.0
    return low - room, high + room


def _heading(quantity: Quantity) -> str:
    lines = [f"{quantity.name}, {quantity.unit}"]
    if quantity.icc is not None:
        icc = quantity.icc["ICC(2,1)"]
        lines.append(f"ICC(2,1) {icc.value:.3f} [{icc.low:.3f}, {icc.high:.3f}]")
    else:
        lines.append("")
    return "\n".join(lines)


def _style(reader: int) -> dict[str, Any]:
    index = (reader - 1) % len(COLOURS)
    return {
        "linestyle": "none",
        "marker": MARKERS[index],
        "markersize": 6,
        "markerfacecolor": COLOURS[index],
        "markeredgecolor": "white",
        "markeredgewidth": 0.6,
        "alpha": 0.85,
        "zorder": 3,
    }


def _title(axes: Any, text: str) -> None:
    axes.set_title(text, fontsize=9.5, color=INK, loc="left")


def _range(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Limits of an axis that shows all values, with some room."""
    low, high = float(values.min()), float(values.max())
    room = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    return low - room, high + room


def _shorten(name: str) -> str:
    """A name that fits and is drawn as it is: a dollar sign would begin a formula."""
    short = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
    return "".join(letter if letter.isprintable() else "?" for letter in short).replace("$", r"\$")
