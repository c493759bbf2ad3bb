"""What all pictures of a report have in common: size, colours, lettering, and what stands below each."""

from __future__ import annotations

import importlib
import importlib.util
import io
from collections.abc import Sequence
from math import ceil
from textwrap import fill
from typing import Any, Final

from bedside.errors import MissingExtraError
from bedside.provenance import NOTICE
from bedside.version import __version__

__all__ = [
    "COLOURS",
    "FAINT",
    "HATCH",
    "INK",
    "MARKERS",
    "PERCENTILES",
    "WRONG",
    "count_of",
    "figure_of",
    "keep_times",
    "key_of",
    "missing",
    "plain",
    "png_of",
    "require_plots",
    "set_title",
    "short",
]

EXTRA: Final = "bench"
"""What brings the libraries."""
LIBRARIES: Final = ("matplotlib", "jinja2")
"""For the pictures, and for the page."""
COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#999999", "#000000")
"""Told apart by the colour-blind too (Okabe and Ito 2008), but for `WRONG`, which stands for one thing alone."""
MARKERS: Final = "osD^vPX"
"""As many, so that nothing is told by colour alone."""
WRONG: Final = "#D55E00"
"""What may not be used; always with words or `HATCH` beside it."""
HATCH: Final = "////"
"""Over bars that may not be used."""
INK, FAINT = "#222222", "#6a6a6a"
WIDTH_INCHES: Final = 10.0
DOTS_PER_INCH: Final = 120
LETTERS: Final = 150
"""That fit into a line below a picture."""
KEY_POINTS: Final = 8.5
"""Size of the letters of a key."""
KEY_LINE_INCHES: Final = 0.19
"""From line to line of a key of that size, with matplotlib's own spacing."""
LONGEST: Final = 44
"""Letters of a name in a picture."""
PERCENTILES: Final = (("p50", 0.5, "-"), ("p90", 0.9, "--"), ("p99", 0.99, ":"))
"""Name, share and style of the line of what is marked in each distribution."""
SPREAD: Final = 20.0
"""Times over the least, from which values stand on a logarithmic axis: one outlier would flatten all else."""


def missing(package: str) -> MissingExtraError:
    """The error for a library that is not there."""
    return MissingExtraError.of(package, EXTRA, "a report")


def key_of(axes: Sequence[Any]) -> list[Any]:
    """What is drawn in some panels and has a label, each label once; for `png_of`."""
    found: dict[str, Any] = {}
    for each in axes:
        for handle, label in zip(*each.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values())


def require_plots() -> None:
    """See that the libraries are installed, before anything is measured.

    Raises:
        MissingExtraError: The first that is not.
    """
    for package in LIBRARIES:
        if importlib.util.find_spec(package) is None:
            raise missing(package)


def figure_of(
    rows: int, columns: int, height: float, *, widths: Sequence[float] | None = None
) -> tuple[Any, Any]:
    """A figure and its axes ``(rows, columns)``.

    Args:
        rows: Of panels.
        columns: Of panels.
        height: Of all, inches.
        widths: Of the columns, to each other.

    Raises:
        MissingExtraError: The extra ``bench`` is not installed.
    """
    try:
        figures: Any = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise missing("matplotlib") from error
    figure = figures.Figure(
        figsize=(WIDTH_INCHES, height), dpi=DOTS_PER_INCH, layout="constrained", facecolor="white"
    )
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08, wspace=0.04)
    axes = figure.subplots(
        rows, columns, squeeze=False, gridspec_kw=None if widths is None else {"width_ratios": widths}
    )
    for each in axes.ravel():
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(colors=INK, labelsize=8.5)
        each.xaxis.label.set(size=9, color=INK)
        each.yaxis.label.set(size=9, color=INK)
        each.set_axisbelow(True)
    return figure, axes


def png_of(figure: Any, caption: str, *, wrong: str = "", key: Sequence[Any] = ()) -> bytes:
    """The figure as a file, with what it is of below, and what it is not for.

    Args:
        figure: What was drawn.
        caption: On what, how many, on which machine.
        wrong: Why its figures may not be used; stands above all. Empty where they may.
        key: What colours and marks mean, for all panels: artists with labels, set below these.
    """
    inches, room = figure.get_figheight(), 0.08
    if key:
        longest = max(len(str(each.get_label())) for each in key)
        columns = max(1, min(len(key), LETTERS // (longest + 8)))
        figure.legend(
            handles=key,
            loc="upper left",
            bbox_to_anchor=(0.0, 0.0),
            ncols=columns,
            fontsize=KEY_POINTS,
            frameon=False,
        )
        room += ceil(len(key) / columns) * KEY_LINE_INCHES + 0.12
    below = fill(plain(caption, 4 * LETTERS), LETTERS)
    below = f"{below}\nbedside {__version__}. {NOTICE}"
    figure.text(0.5, -room / inches, below, fontsize=8, color=FAINT, ha="center", va="top")
    if wrong:
        above = fill(plain(wrong, 2 * LETTERS), LETTERS * 2 // 3)
        figure.text(0.01, 1.01, above, fontsize=11, color=WRONG, weight="bold", ha="left", va="bottom")
    stream = io.BytesIO()
    figure.savefig(
        stream,
        format="png",
        bbox_inches="tight",  # the texts above and below lie outside of what is laid out
        pad_inches=0.12,
        metadata={"Software": f"bedside {__version__}", "Disclaimer": NOTICE},
    )
    return stream.getvalue()


def plain(text: str, longest: int = LONGEST) -> str:
    """Text that fits and is drawn as it is: a dollar sign would begin a formula, and the font has no other scripts."""
    known = "".join(letter if letter.isprintable() else "?" for letter in text)
    known = known.encode("latin-1", "replace").decode("latin-1")
    if len(known) > longest:
        known = f"{known[: longest - 3]}..."
    return known.replace("\\", "/").replace("$", r"\$")


def set_title(axes: Any, text: str, *, wrong: bool = False) -> None:
    """Above a panel, at its left."""
    axes.set_title(text, fontsize=10, color=WRONG if wrong else INK, loc="left")


def keep_times(axis: Any, values: Sequence[float], *, always: bool = False) -> bool:
    """Have times, or what else is over 0, stand on an axis as they are read.

    Args:
        axis: ``axes.xaxis`` or ``axes.yaxis``.
        values: What is drawn there.
        always: Whether the axis is logarithmic in any case.

    Returns:
        Whether it is logarithmic: where some are more than `SPREAD` times others.
    """
    there = [value for value in values if value > 0]
    wide = bool(there) and (always or max(there) > SPREAD * min(there))
    which = {"x": "set_xscale", "y": "set_yscale"}[axis.axis_name]
    if wide:
        getattr(axis.axes, which)("log")
        ticker: Any = importlib.import_module("matplotlib.ticker")
        decades = max(there) / min(there)
        steps = (1.0, 2.0, 5.0) if decades < 1e3 else (1.0,)
        axis.set_major_locator(ticker.LogLocator(subs=steps, numticks=12))
        axis.set_minor_locator(ticker.NullLocator())
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    return wide


def count_of(number: int, unit: str, units: str) -> str:
    """A number of things, e.g. ``1 study``."""
    return f"{number} {unit if number == 1 else units}"


def short(value: float | None) -> str:
    """A number of three digits or more, as tables have it."""
    if value is None:
        return "-"
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        return f"{value:.2g}"
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.3g}"
