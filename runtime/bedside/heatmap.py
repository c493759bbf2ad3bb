"""A scored X-ray as a picture: where its score comes from, laid over the X-ray at the X-ray's own resolution.

A class-activation map holds, for each place, how many points that place adds to the score: averaged over the
area that the network judges, the map is the score less a constant of the bundle. It tells what the network went
by; it does not outline disease. Places that lower the score are left grey. A colour means the same number of
points in every picture of a score. Arrays in, an array out; no I/O. Not for clinical use.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from bedside.cxr import Estimate, Frame
from bedside.errors import BundleError
from bedside.provenance import NOTICE
from bedside.severity import SeverityResult

__all__ = ["interpolation", "overlay", "render"]

COLOURS: Final = (
    "0d0887 220690 310597 3f049c 4c02a1 5901a5 6600a7 7201a8 7e03a8 8a09a5 9511a1 "
    "a01a9c aa2395 b32c8e bc3587 c43e7f cc4778 d24f71 d9586a df6263 e56b5d eb7556 "
    "f07f4f f48948 f89441 fb9f3a fdab33 feb72d fdc328 fcd025 f9dd25 f5eb27 f0f921"
)
"""Every eighth colour of plasma, by Nathaniel Smith and Stefan van der Walt (mpl-colormaps, CC0 1.0): perceptually
uniform, in order also for the colour-blind, and of no grey. Linear in between, within 3 of 255 of the original."""
OPACITY: Final = 0.5
"""Of the colour where it is strongest, so that the X-ray always shows through."""
FULL_AT: Final = 0.4
"""Share of the scale from which on the colour has its full opacity; under it, it fades in from none."""
SCORES: Final = ("extent", "opacity")
LEVELS: Final = 256
"""Colours told apart, as many as a grey sample has."""
ROWS: Final = 256
"""Rows coloured at a time: 8 MiB of work space for 3,000 columns."""
MIN_WIDTH: Final = 320
"""Pixels that the text needs; a narrower X-ray has black margins."""
MIN_TEXT: Final = 11
"""Size of the smallest text, in pixels to the em; less can't be read."""
TEXT_SHARE: Final = 1 / 48
"""Size of the text over the picture's width: an X-ray that fills a screen has text like a screen's."""

_Rgb = npt.NDArray[np.uint8]
_WHITE, _GREY, _AMBER = (240, 240, 240), (165, 165, 165), (255, 190, 60)


def render(result: SeverityResult, *, score: str = "extent") -> _Rgb:
    """Draw a scored X-ray with its scores above and the scale of its colours below.

    Args:
        result: One with status ``ok``, fresh from a scorer: it holds the picture.
        score: Whose map: ``extent`` or ``opacity``.

    Returns:
        ``(H', W', 3)`` uint8 sRGB, new: the X-ray's own pixels, one to one, between two strips of text.

    Raises:
        BundleError: ``bundle-task`` if the bundle gives no activation map of that score.
        ValueError: If the result has no score, or ``score`` is none.
    """
    severity, radiograph, frame = result.severity, result.radiograph, result.frame
    if severity is None or radiograph is None or frame is None:
        raise ValueError(
            "a heatmap needs a scored result that kept its picture: score(..., keep_picture=True)"
        )
    if score not in SCORES:
        raise ValueError(f"no score {score!r}: give one of {', '.join(SCORES)}")
    if score not in severity.activation:
        raise _no_map()
    shown = severity.extent if score == "extent" else severity.opacity
    picture = overlay(radiograph.pixels, frame, severity.activation[score], top=_top(shown))
    height, across, _ = picture.shape
    whole = (
        frame.top <= 0 <= frame.top + frame.height - height
        and frame.left <= 0 <= frame.left + frame.width - across
    )
    width = max(across, MIN_WIDTH)
    heading = _heading(result, (severity.extent, severity.opacity), width)
    legend = _legend(result, shown, width, whole=whole)
    sides = ((0, 0), ((width - across) // 2, (width - across + 1) // 2), (0, 0))
    return np.concatenate([heading, np.pad(picture, sides), legend])


def overlay(
    pixels: npt.NDArray[np.float32], frame: Frame, activation: npt.NDArray[np.float32], *, top: float
) -> _Rgb:
    """Lay a map over an X-ray in colour; where the map is at most 0, or does not reach, the X-ray stays grey.

    Args:
        pixels: Display values from 0 to 1, ``(H, W)``.
        frame: Where the map lies, in pixels.
        activation: ``(h, w)``; linear between the centres of its cells, level from there to the frame's edge.
        top: Value with the last colour.

    Returns:
        ``(H, W, 3)`` uint8, new.
    """
    height, width = pixels.shape
    across = interpolation(width, frame.left, frame.width, activation.shape[1])
    along = interpolation(height, frame.top, frame.height, activation.shape[0])
    narrow = activation @ across.T * np.float32((LEVELS - 1) / top)  # (h, w) -> (h, W), in levels
    table = _blend()
    picture = np.empty((height, width, 3), np.uint8)
    for start in range(0, height, ROWS):
        rows = slice(start, start + ROWS)
        level = np.clip(along[rows] @ narrow, 0, LEVELS - 1)
        index = np.rint(level).astype(np.intp) * 256
        index += np.rint(np.clip(pixels[rows], 0, 1) * np.float32(255)).astype(np.intp)
        np.take(table, index, axis=0, out=picture[rows], mode="clip")
    return picture


def interpolation(picture: int, start: int, length: int, cells: int) -> npt.NDArray[np.float32]:
    """Matrix ``(picture, cells)`` from a map's axis to pixels; rows of zeros outside of the frame."""
    pixel = np.arange(picture)
    at = np.clip((pixel + 0.5 - start) * (cells / length) - 0.5, 0, cells - 1)
    inside = (pixel >= start) & (pixel < start + length)
    share = 1 - np.abs(at[:, None] - np.arange(cells))
    weights: npt.NDArray[np.float64] = np.maximum(share, 0) * inside[:, None]
    return weights.astype(np.float32)


def _blend() -> _Rgb:
    """Colour of each level over each grey, ``(LEVELS * 256, 3)``."""
    share = np.linspace(0, 1, LEVELS)
    alpha = (OPACITY * np.minimum(share / FULL_AT, 1))[:, None, None]
    grey = np.arange(256.0)[None, :, None]
    return np.rint(grey * (1 - alpha) + _colours(share)[:, None, :] * alpha).astype(np.uint8).reshape(-1, 3)


def _colours(share: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Colours of shares of the scale, ``(..., 3)`` from 0 to 255."""
    points = np.array([list(bytes.fromhex(colour)) for colour in COLOURS.split()], float)
    place = np.linspace(0, 1, len(points))
    return np.stack([np.interp(share, place, channel) for channel in points.T], axis=-1)


def _heading(result: SeverityResult, estimates: Iterable[Estimate], width: int) -> _Rgb:
    lines = [(_told(estimate), _WHITE) for estimate in estimates]
    lines.append((NOTICE.rstrip(".").upper(), _AMBER))
    if result.forced:
        lines.append(("Refused by the quality gate, and forced", _AMBER))
    return _strip(lines, width)


def _legend(result: SeverityResult, shown: Estimate, width: int, *, whole: bool) -> _Rgb:
    bundle, engine = result.bundle, result.engine
    caption = f"Local contribution to {shown.title}, in points"
    notes = [
        (f"{bundle.name} {bundle.version} ({bundle.digest[:8]}), {engine.backend} {engine.precision}", _GREY)
    ]
    if not whole:
        notes.insert(0, ("Only the middle square was looked at", _GREY))
    return np.concatenate([_strip([(caption, _WHITE)], width), _bar(shown, width), _strip(notes, width)])


def _told(estimate: Estimate) -> str:
    title = estimate.title[:1].upper() + estimate.title[1:]
    return (
        f"{title} {estimate.value:.1f} of {estimate.scale[1]:g} "
        f"({estimate.level:.0%} interval {estimate.low:.1f} to {estimate.high:.1f})"
    )


def _bar(shown: Estimate, width: int) -> _Rgb:
    """The scale: each colour as it looks over black, middle and bright grey, with its points below."""
    size = _text_size(width)
    left, length = size, width - 2 * size
    ticks = np.linspace(0, _top(shown), 5)
    canvas = Image.new("RGB", (width, 3 * size))
    level = np.rint(np.linspace(0, LEVELS - 1, length)).astype(np.intp)
    grey = np.repeat([32, 112, 192], (size // 3, size // 3, size - 2 * (size // 3)))
    canvas.paste(Image.fromarray(_blend()[level[None, :] * 256 + grey[:, None]]), (left, 0))
    draw, font = ImageDraw.Draw(canvas), _font(size)
    for number, value in enumerate(ticks):
        x = left + round(number / (len(ticks) - 1) * (length - 1))
        draw.line((x, size, x, size * 5 // 4), fill=_WHITE, width=max(1, size // 12))
        text = f"{value:g}" + (" or more" if number == len(ticks) - 1 else "")
        space = draw.textlength(text, font=font)
        draw.text(
            (min(max(x - space / 2, left), left + length - space), size * 5 // 4),
            text,
            fill=_WHITE,
            font=font,
        )
    return np.asarray(canvas)


def _strip(lines: list[tuple[str, tuple[int, int, int]]], width: int) -> _Rgb:
    """Lines of text on black, each made smaller, and at last cut off, where it is too long."""
    size = _text_size(width)
    step = size * 3 // 2
    canvas = Image.new("RGB", (width, step * len(lines) + size // 2))
    draw = ImageDraw.Draw(canvas)
    room = width - 2 * size
    for number, (line, colour) in enumerate(lines):
        text, font = line, _font(size)
        space = draw.textlength(text, font=font)
        if space > room:
            font = _font(max(MIN_TEXT, int(size * room / space)))
            while draw.textlength(text, font=font) > room:
                text = f"{text[:-4]}..."
        draw.text((size, number * step + size // 2), text, fill=colour, font=font)
    return np.asarray(canvas)


def _text_size(width: int) -> int:
    return max(MIN_TEXT, round(width * TEXT_SHARE))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _top(estimate: Estimate) -> float:
    """Points with the last colour: those of the whole scale."""
    return estimate.scale[1] - estimate.scale[0]


def _no_map() -> BundleError:
    return BundleError(
        "bundle-task",
        "the bundle gives no activation map, so there is no heatmap; leave it out, or give another bundle",
    )
