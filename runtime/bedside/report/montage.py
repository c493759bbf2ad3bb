"""Slices of a CT side by side, in a lung window, with what was segmented drawn over them.

Slices are shown as radiologists look at them: from the feet, so that the patient's left is on the right of the
picture and the front is up. Opacities are filled, half transparent, and outlined; the lungs are outlined with their
opacities; any other tissue has a dashed line. Arrays in, an array out; no I/O. Not for clinical use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from bedside.opacification import Picture, TissueVolume
from bedside.rendering import Window
from bedside.report.lettering import Colour, fit, write
from bedside.report.palette import LUNG, Ink, inks_of, texture

__all__ = ["WINDOW", "draw_slice", "render"]

WINDOW: Final = Window(-600, 1500, "LINEAR_EXACT")
"""The usual lung window, -1350 to 150 HU: in it vessels and ground glass stand out from lung of -870 HU, and
consolidation of about 30 HU stays short of white, unlike in a narrower or lower one. Level -500, also in use, shows
the same darker, and ground glass less."""
FILLING: Final = 0.45
"""Opacity of a filling: the texture of the lung must be seen through it."""
BODY_HU: Final = -300
"""Denser than lung, air and most of a table's foam: what the crop keeps. Fat is at -90, so no patient is cut; what was
labelled plays no part, so a lung that was missed is still seen."""
MARGIN_MM: Final = 5.0
"""Left around the body."""
GAP: Final = 8
"""Between pictures, pixels."""
WIDEST: Final = 768
"""Most width of a picture, pixels: more shows no more of a slice of 512 pixels."""
TALLEST: Final = 1.1
"""Most height of a picture for its width."""
TEXT: Final = 18
"""Size of the text in a picture, pixels to the em."""
DASH: Final = 10
"""Period of a dashed line, pixels."""
RULER_MM: Final = 50.0
"""Length of the ruler in the first picture."""

_Bytes = npt.NDArray[np.uint8]
_Floats = npt.NDArray[np.float32]
_Mask = npt.NDArray[np.bool_]
_WHITE: Final[Colour] = (255, 255, 255)
_BLACK: Final[Colour] = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class _Frame:
    """What of the slices is shown, and how large."""

    rows: slice
    columns: slice
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    per_mm: float
    """Pixels."""


def render(pictures: Sequence[Picture], tissues: Sequence[TissueVolume], *, width: int) -> _Bytes:
    """Draw slices in rows, from the head to the feet.

    Args:
        pictures: At least one, from the feet to the head, all of one grid.
        tissues: All classes of the labels.
        width: Of the whole, pixels.

    Returns:
        ``(H, width, 3)`` uint8 sRGB, new; black between the slices.

    Raises:
        ValueError: No pictures, or of different grids.
    """
    if not pictures or len({(each.hu.shape, each.labels.shape, each.spacing_mm) for each in pictures}) > 1:
        raise ValueError("a montage needs pictures, all of one grid")
    across = _columns(len(pictures))
    cell = min(WIDEST, (width - (across - 1) * GAP) // across)
    frame = _frame(pictures, cell)
    down = -(-len(pictures) // across)
    canvas = Image.new("RGB", (width, down * (frame.height + GAP) - GAP))
    left = (width - across * (cell + GAP) + GAP + cell - frame.width) // 2
    box, size = (frame.rows, frame.columns), (frame.height, frame.width)
    inks = inks_of(tissues)
    lungs = [tissue.label for tissue in tissues if tissue.lung]
    for number, picture in enumerate(reversed(pictures)):
        row, column = divmod(number, across)
        tile = Image.fromarray(draw_slice(picture.hu[box], picture.labels[box], size, inks=inks, lungs=lungs))
        _label(tile, picture)
        if number == 0:
            _rule(tile, frame.per_mm)
        canvas.paste(tile, (left + column * (cell + GAP), row * (frame.height + GAP)))
    return np.asarray(canvas)


def draw_slice(
    hu: _Floats,
    labels: _Bytes,
    size: tuple[int, int],
    *,
    inks: Mapping[int, Ink],
    lungs: Sequence[int],
) -> _Bytes:
    """Draw one slice, without text. Where nothing is labelled it stays exactly grey.

    Args:
        hu: ``(Y, X)`` float32, HU.
        labels: ``(Y, X)`` uint8.
        size: ``(H, W)`` of the picture: both arrays are resized to it, the labels as the area that each covers.
        inks: Label -> how it is drawn.
        lungs: Labels that are lung, opacities among them: they are outlined together.

    Returns:
        ``(H, W, 3)`` uint8, new.
    """
    grey = np.rint(WINDOW.apply(np.asarray(hu, np.float64)) * 255).astype(np.uint8)
    picture = np.repeat(_resized(grey, size)[..., None], 3, axis=2).astype(np.float32)
    present = set(np.unique(labels).tolist())
    lines: list[tuple[_Mask, Colour]] = []
    for label, ink in inks.items():
        if label not in present:
            continue
        covered = _covered(labels == label, size)
        if ink.filled:
            share = (FILLING * covered * texture(size, ink.texture))[..., None]
            picture += (np.array(ink.colour, np.float32) - picture) * share
            lines.append((_edge(covered), ink.colour))
        else:
            line = _edge(covered, depth=2)
            lines += [(line, _BLACK), (line & _dashes(size), ink.colour)]
    if present & set(lungs):
        lines.append((_edge(_covered(np.isin(labels, lungs), size), depth=2), LUNG))
    for line, colour in lines:
        picture[line] = colour
    return np.rint(picture).astype(np.uint8)


def _columns(pictures: int) -> int:
    if pictures <= 4:
        return pictures
    return 3 if pictures <= 6 else 4 if pictures <= 12 else 6


def _frame(pictures: Sequence[Picture], cell: int) -> _Frame:
    """The box around the body in all slices, and its size in a cell, with millimetres alike along both axes."""
    row_mm, column_mm = pictures[0].spacing_mm
    body = np.any([picture.hu > BODY_HU for picture in pictures], axis=0)
    rows = _extent(body.any(axis=1), MARGIN_MM / row_mm)
    columns = _extent(body.any(axis=0), MARGIN_MM / column_mm)
    high, wide = (rows.stop - rows.start) * row_mm, (columns.stop - columns.start) * column_mm
    per_mm = min(cell / wide, cell * TALLEST / high)
    return _Frame(rows, columns, max(1, round(high * per_mm)), max(1, round(wide * per_mm)), per_mm)


def _extent(inside: _Mask, margin: float) -> slice:
    """From the first to the last that is inside, and a margin; all, where none is."""
    (places,) = np.nonzero(inside)
    if not len(places):
        return slice(0, len(inside))
    more = round(margin)
    return slice(max(0, int(places[0]) - more), min(len(inside), int(places[-1]) + 1 + more))


def _resized(values: _Bytes, size: tuple[int, int]) -> _Bytes:
    height, width = size
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR))


def _covered(mask: _Mask, size: tuple[int, int]) -> _Floats:
    """Share of each pixel that a mask covers, ``(H, W)`` from 0 to 1."""
    return _resized(mask.astype(np.uint8) * np.uint8(255), size).astype(np.float32) / np.float32(255)


def _edge(covered: _Floats, *, depth: int = 1) -> _Mask:
    """The outermost pixels, ``depth`` of them, of what is at least half covered."""
    inside: _Mask = covered >= 0.5
    deep = inside
    for _ in range(depth):
        around = np.pad(deep, 1)
        deep = deep & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return inside & ~deep


def _dashes(size: tuple[int, int]) -> _Mask:
    rows, columns = np.indices(size, sparse=True)
    dashes: _Mask = (rows + columns) % DASH < DASH * 0.6
    return dashes


def _label(tile: Image.Image, picture: Picture) -> None:
    """Which slice it is, and which side is which."""
    inset = TEXT // 3
    name = fit(f"slice {picture.index}, z {picture.z_mm:.0f} mm", TEXT, tile.width - 2 * inset)
    write(tile, (inset, inset), name, size=TEXT, colour=_WHITE)
    for side, place, anchor in (("R", inset, "lm"), ("L", tile.width - inset, "rm")):
        write(tile, (place, tile.height / 2), side, size=TEXT + 4, colour=_WHITE, anchor=anchor)


def _rule(tile: Image.Image, per_mm: float) -> None:
    """A ruler, where there is room for it."""
    reach, inset = round(RULER_MM * per_mm), TEXT // 2
    if reach > tile.width // 2:
        return
    right, below = tile.width - inset, tile.height - inset
    draw = ImageDraw.Draw(tile)
    for colour, wider in ((_BLACK, 1), (_WHITE, 0)):
        draw.rectangle((right - reach - wider, below - 2 - wider, right + wider, below + wider), fill=colour)
    text = f"{RULER_MM / 10:g} cm"
    write(
        tile,
        (right - reach / 2, below - 6),
        text,
        size=TEXT,
        colour=_WHITE,
        anchor="ms",
    )
