"""From stored values to display values: the grayscale pipeline, on plain numbers.

The order is the standard's (PS3.4, N.2): Modality LUT or rescale (PS3.3, C.11.1), then VOI LUT or window
(C.11.2), then Presentation LUT (C.11.6) or inversion by MONOCHROME1 (C.7.6.3.1.2). A stored value of 16 bits
or fewer has at most 65,536 states, so the whole pipeline is computed once for each state, in float64, and
applied to the picture by one table look-up: exact, and faster than any arithmetic on the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.radiograph import Finding

__all__ = ["LookupTable", "Pipeline", "Window", "render"]

FULL_RANGE_BITS: Final = 8
"""Without VOI, values of up to so many bits are shown over their full range, deeper ones over what occurs."""

DARK: Final = 0.1
"""A picture whose brightest pixel is below this is told of: most likely its bits or window are misstated."""

BLOCK: Final = 1 << 16
"""Pixels looked up at once: their indices, 8 bytes each, fit a second-level cache."""

FloatArray = npt.NDArray[np.float64]
Patterns = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class LookupTable:
    """A table as in the LUT sequences (PS3.3, C.11.1.1)."""

    first: int
    """The input that the first entry belongs to; smaller inputs take the first entry, too large ones the last."""
    entries: npt.NDArray[np.uint16]
    """``(N,)``."""
    bits: int
    """Bits of an entry: its range is 0 to 2^bits - 1."""

    def apply(self, values: FloatArray) -> FloatArray:
        """The entry for each of ``values``, rounded to the nearest input."""
        indices = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1).astype(np.intp)
        entries: FloatArray = self.entries[indices].astype(np.float64)
        return entries

    @property
    def largest(self) -> int:
        """2^bits - 1."""
        return (1 << self.bits) - 1


@dataclass(frozen=True, slots=True)
class Window:
    """Window Center, Window Width and VOI LUT Function (PS3.3, C.11.2.1.2 and C.11.2.1.3)."""

    centre: float
    """Window Center (0028,1050)."""
    width: float
    """Window Width (0028,1051): at least 1 for LINEAR, above 0 for the others."""
    function: str = "LINEAR"
    """``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID``."""

    def __post_init__(self) -> None:
        """Refuse what the standard gives no meaning."""
        if self.function not in {"LINEAR", "LINEAR_EXACT", "SIGMOID"}:
            raise ValueError(f"unknown function {self.function!r}")
        if not (np.isfinite(self.centre) and np.isfinite(self.width)):
            raise ValueError("centre and width must be finite")
        if self.width <= 0 or (self.function == "LINEAR" and self.width < 1):
            raise ValueError(f"width {self.width} is too small for {self.function}")

    def apply(self, values: FloatArray) -> FloatArray:
        """Display values from 0 to 1."""
        if self.function == "SIGMOID":
            exponent = np.clip(-4.0 * (values - self.centre) / self.width, -700.0, 700.0)
            return 1.0 / (1.0 + np.exp(exponent))
        if self.function == "LINEAR_EXACT":
            return np.clip((values - self.centre) / self.width + 0.5, 0.0, 1.0)
        if self.width == 1.0:
            return (values > self.centre - 0.5).astype(np.float64)
        return np.clip((values - (self.centre - 0.5)) / (self.width - 1.0) + 0.5, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Everything between a stored value and what is seen."""

    bits: int
    """Bits of a stored value, 1 to 16."""
    signed: bool = False
    """Whether stored values are two's complement."""
    slope: float = 1.0
    """Rescale Slope (0028,1053)."""
    intercept: float = 0.0
    """Rescale Intercept (0028,1052)."""
    modality: LookupTable | None = None
    """Modality LUT, in place of slope and intercept."""
    voi: LookupTable | Window | None = None
    """VOI LUT or window; None where the file has neither."""
    presentation: LookupTable | None = None
    """Presentation LUT: its input is the VOI's output, over its whole range."""
    inverted: bool = False
    """Whether the result is inverted, by MONOCHROME1 or by Presentation LUT Shape INVERSE: once, not twice."""
    padding: tuple[int, int] | None = None
    """Least and greatest stored value that are no picture (PS3.3, C.7.5.1.1.2): black, and never counted."""

    def stored_values(self) -> npt.NDArray[np.int32]:
        """The stored value of each bit pattern, ``(2^bits,)``."""
        values = np.arange(1 << self.bits, dtype=np.int32)
        if self.signed:
            values[1 << (self.bits - 1) :] -= 1 << self.bits
        return values

    def modality_values(self) -> FloatArray:
        """What each bit pattern means after the modality LUT or rescale, ``(2^bits,)``."""
        stored = self.stored_values().astype(np.float64)
        return stored * self.slope + self.intercept if self.modality is None else self.modality.apply(stored)


def render(patterns: Patterns, pipeline: Pipeline) -> tuple[npt.NDArray[np.float32], tuple[Finding, ...]]:
    """Display values of a picture.

    Args:
        patterns: Stored values as bit patterns of ``pipeline.bits`` bits, ``(H, W)``.
        pipeline: What to do with them.

    Returns:
        Display values, ``(H, W)`` float32 from 0 (black) to 1 (white), a new array; and what is worth telling.
    """
    findings: list[Finding] = []
    padding = _find_padding(patterns, pipeline)
    if padding is not None and padding.any():
        findings.append(Finding("padding", "pixels outside of the exposed picture are shown black"))
    shown = _show(pipeline, patterns, padding)
    if pipeline.padding is not None:
        stored = pipeline.stored_values()
        shown[(stored >= pipeline.padding[0]) & (stored <= pipeline.padding[1])] = 0.0
    pixels = _look_up(shown.astype(np.float32), patterns)
    if pixels.max() < DARK:
        findings.append(Finding("dark-image", "the picture uses only the darkest tenth of its range"))
    return pixels, tuple(findings)


def _look_up(table: npt.NDArray[np.float32], patterns: Patterns) -> npt.NDArray[np.float32]:
    """``table[patterns]``, a few rows at a time: numpy widens indices to 64 bits, which then stay in the cache."""
    pixels = np.empty(patterns.shape, np.float32)
    rows = max(1, BLOCK // patterns.shape[1])
    for start in range(0, patterns.shape[0], rows):
        block = slice(start, start + rows)
        np.take(table, patterns[block], out=pixels[block], mode="clip")  # no pattern is beyond the table
    return pixels


def _ordered(patterns: Patterns, pipeline: Pipeline) -> Patterns:
    """Patterns that sort as their stored values do: those of signed values with the sign bit turned."""
    return patterns ^ patterns.dtype.type(1 << (pipeline.bits - 1)) if pipeline.signed else patterns


def _find_padding(patterns: Patterns, pipeline: Pipeline) -> npt.NDArray[np.bool_] | None:
    """Which pixels are padding, ``(H, W)``; None where no value is named as padding."""
    if pipeline.padding is None:
        return None
    offset = 1 << (pipeline.bits - 1) if pipeline.signed else 0
    least, greatest = (min(max(end + offset, 0), (1 << pipeline.bits) - 1) for end in pipeline.padding)
    ordered = _ordered(patterns, pipeline)
    return (ordered >= patterns.dtype.type(least)) & (ordered <= patterns.dtype.type(greatest))


def _extremes(
    patterns: Patterns, pipeline: Pipeline, padding: npt.NDArray[np.bool_] | None
) -> tuple[int, int]:
    """The least and greatest stored value that occur outside of the padding; (0, -1) where none does."""
    ordered = _ordered(patterns, pipeline)
    where = True if padding is None else ~padding
    offset = 1 << (pipeline.bits - 1) if pipeline.signed else 0
    low = int(np.min(ordered, where=where, initial=np.iinfo(ordered.dtype).max))
    high = int(np.max(ordered, where=where, initial=0))
    return (low - offset, high - offset) if low <= high else (0, -1)


def _show(pipeline: Pipeline, patterns: Patterns, padding: npt.NDArray[np.bool_] | None) -> FloatArray:
    """The display value of each bit pattern, ``(2^bits,)``, padding aside."""
    values = pipeline.modality_values()
    if isinstance(pipeline.voi, LookupTable):
        shown = pipeline.voi.apply(values) / pipeline.voi.largest
    elif isinstance(pipeline.voi, Window):
        shown = pipeline.voi.apply(values)
    elif pipeline.bits <= FULL_RANGE_BITS:
        shown = _spread(values, values)
    else:
        low, high = _extremes(patterns, pipeline, padding)
        stored = pipeline.stored_values()
        shown = _spread(values, values[(stored >= low) & (stored <= high)])
    if pipeline.presentation is not None:
        table = pipeline.presentation
        shown = table.apply(table.first + shown * (len(table.entries) - 1)) / table.largest
    return 1.0 - shown if pipeline.inverted else shown


def _spread(values: FloatArray, counted: FloatArray) -> FloatArray:
    """``values`` so that the least of ``counted`` becomes 0 and the greatest 1; all 0.5 where they are one.

    One half is its own complement, so a constant picture and its MONOCHROME1 twin look alike too.
    """
    if counted.size == 0 or counted.max() == counted.min():
        return np.full_like(values, 0.5)
    low, high = counted.min(), counted.max()
    spread: FloatArray = np.clip((values - low) / (high - low), 0.0, 1.0)
    return spread
