"""The report of a segmented CT: one page with the slices, the curve along the body and the volumes.

It holds nothing that tells whose scan it is: no name, number, date, file name or series. Arrays and numbers in, an
array out; no I/O. Not for clinical use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from bedside.opacification import Opacification, OpacificationResult, Region, TissueVolume
from bedside.provenance import NOTICE
from bedside.report import curve, montage
from bedside.report.lettering import Colour, fit, length, wrap, write
from bedside.report.palette import LUNG, Ink, inks_of, texture
from bedside.report.wording import (
    bundle_line,
    confusion_line,
    engine_line,
    hu_text,
    interval_line,
    interval_text,
    ledger_line,
    ml_text,
    percent_text,
    sampling_line,
    share_line,
    sides_line,
    tissue_text,
)

__all__ = ["WIDTH", "render"]

WIDTH: Final = 1600
"""Of the page, pixels: fits a screen of 1920, and is sharp on paper."""
MARGIN: Final = 32
"""Around the page, and between its columns."""
TEXT: Final = 20
"""Size of the text, pixels to the em."""
LINE: Final = 30
"""From line to line."""
LUNG_GREY: Final = 128
"""Grey of ground glass in the montage's window: -600 HU."""
CURVE_HEIGHT: Final = 380
"""Of the curve, with its axes."""
TITLES: Final = 170
"""Width of the notes' titles."""
NOTES: Final = 8
"""Most notes of a kind; the JSON has them all."""

_Bytes = npt.NDArray[np.uint8]
_WHITE: Final[Colour] = (240, 240, 240)
_GREY: Final[Colour] = (165, 165, 165)
_AMBER: Final[Colour] = (255, 190, 60)
_FAINT: Final[Colour] = (70, 70, 70)

_FIGURES: Final[tuple[tuple[str, Callable[[Region], str]], ...]] = (
    ("lung, mL", lambda region: ml_text(region.lung_ml)),
    ("opacity, mL", lambda region: ml_text(region.opacity_ml)),
    ("opacity expected, mL", lambda region: ml_text(region.opacity_ml_expected)),
    ("opacity, % of lung", lambda region: percent_text(region.opacity_percent)),
    ("well aerated, % of lung", lambda region: percent_text(region.aerated_percent)),
    ("mean HU", lambda region: hu_text(region.mean_hu)),
)
"""What is told of both lungs and of each."""


def render(result: OpacificationResult) -> _Bytes:
    """Draw the page.

    Args:
        result: One with status ``ok`` that kept its pictures.

    Returns:
        ``(H, WIDTH, 3)`` uint8 sRGB, light on black, new.

    Raises:
        ValueError: If the result has no volumes, or no pictures.
    """
    found = result.opacification
    if found is None or result.error is not None or not result.pictures:
        raise ValueError("a report needs a result that has volumes and kept its pictures")
    room = WIDTH - 2 * MARGIN
    right = room * 11 // 20
    page = _stacked(
        [
            _heading(result, found, room),
            Image.fromarray(montage.render(result.pictures, found.tissues, width=room)),
            _legend(found, room),
            _beside(
                _curve(result, found, room - MARGIN - right),
                _stacked([_regions(found, right), _tissues(found, right)]),
            ),
            _notes(result, found, room),
        ],
        margin=MARGIN,
    )
    return np.asarray(page)


def _heading(result: OpacificationResult, found: Opacification, room: int) -> Image.Image:
    both = found.both
    share = "" if both.opacity_percent is None else f", {percent_text(both.opacity_percent)} % of the lungs"
    warned = found.read_share < 1
    canvas = Image.new("RGB", (room, 144 + LINE * warned))
    write(canvas, (0, 0), "Opacified lung on CT", size=34, colour=_WHITE)
    write(canvas, (room, 2), NOTICE.rstrip(".").upper(), size=30, colour=_AMBER, anchor="ra")
    for top, line in ((44, bundle_line(result)), (44 + LINE - 2, engine_line(result))):
        write(canvas, (0, top), fit(line, TEXT, room), size=TEXT, colour=_GREY)
    main = f"{ml_text(both.opacity_ml)} mL opacified{share}"
    write(canvas, (0, 138), main, size=28, colour=_WHITE, anchor="ls")
    beside = length(main, 28) + 24
    interval = fit(interval_text(found.interval), 24, room - beside)
    write(canvas, (beside, 138), interval, size=24, colour=_GREY, anchor="ls")
    if warned:
        line = share_line(result, found)
        told = fit(line[:1].upper() + line[1:], 24, room)
        write(canvas, (0, 138 + LINE), told, size=24, colour=_AMBER, anchor="ls")
    return canvas


def _legend(found: Opacification, room: int) -> Image.Image:
    """What the colours over the slices mean, in as many lines as it takes."""
    entries: list[tuple[str, Ink | None]] = [("lung, outline", None)]
    names = {tissue.label: tissue.name for tissue in found.tissues}
    entries += [
        (names[label] if ink.filled else f"{names[label]} (not counted)", ink)
        for label, ink in inks_of(found.tissues).items()
    ]
    note = "Lung window, level -600, width 1500 HU. Seen from the feet: L is the patient's left. Head first."
    placed: list[tuple[int, int, str, Ink | None]] = []
    x = y = 0
    for name, ink in entries:
        text = fit(name, TEXT, room - 36)
        step = 36 + int(length(text, TEXT)) + 28
        if x and x + step - 28 > room:
            x, y = 0, y + LINE
        placed.append((x, y, text, ink))
        x += step
    canvas = Image.new("RGB", (room, y + 2 * LINE))
    for left, top, text, ink in placed:
        _swatch(canvas, (left, top + 2), ink)
        write(canvas, (left + 36, top), text, size=TEXT, colour=_WHITE)
    write(canvas, (0, y + LINE + 2), fit(note, TEXT - 2, room), size=TEXT - 2, colour=_GREY)
    return canvas


def _swatch(canvas: Image.Image, place: tuple[int, int], ink: Ink | None) -> None:
    """A patch of an ink as it looks over lung; a ring for the lungs' outline and for what is not filled."""
    (left, top), (high, wide) = place, (18, 26)
    colour = LUNG if ink is None else ink.colour
    box = (left, top, left + wide - 1, top + high - 1)
    draw = ImageDraw.Draw(canvas)
    if ink is not None and ink.filled:
        share = (montage.FILLING * texture((high, wide), ink.texture))[..., None]
        patch = np.rint(LUNG_GREY * (1 - share) + np.array(colour) * share).astype(np.uint8)
        canvas.paste(Image.fromarray(patch), (left, top))
    draw.rectangle(box, outline=colour, width=2)
    if ink is not None and not ink.filled:
        for gap in range(left + 6, left + wide, 10):
            draw.line((gap, top, gap, top + high), fill=(0, 0, 0), width=4)


def _curve(result: OpacificationResult, found: Opacification, width: int) -> Image.Image:
    opacities = [ink.colour for ink in inks_of(found.tissues).values() if ink.filled]
    return Image.fromarray(
        curve.render(
            found.curve,
            (CURVE_HEIGHT, width),
            colours=(LUNG, opacities[0] if len(opacities) == 1 else _WHITE),
            marks=[picture.z_mm for picture in result.pictures],
            whole=found.read_share == 1,
        )
    )


def _regions(found: Opacification, width: int) -> Image.Image:
    regions = (found.both, found.right, found.left)
    rows: list[list[str]] = [["", "both lungs", "right lung", "left lung"]]
    for name, told in _FIGURES:
        rows.append([name, *(told(region) for region in regions)])
    return _table(rows, width, [130, 130, 130])


def _tissues(found: Opacification, width: int) -> Image.Image:
    inks = inks_of(found.tissues)
    shown = [tissue for tissue in found.tissues if tissue.label or tissue.lung]
    rows = [["volumes, mL", "both", "right", "left", "expected", "% of lung", "HU"]]
    rows += [[tissue_text(tissue), *_amounts(tissue)] for tissue in shown]
    return _table(rows, width, [78, 78, 78, 106, 112, 72], [inks.get(tissue.label) for tissue in shown])


def _amounts(tissue: TissueVolume) -> list[str]:
    return [
        ml_text(tissue.ml),
        ml_text(tissue.ml_right),
        ml_text(tissue.ml_left),
        ml_text(tissue.ml_expected),
        percent_text(tissue.percent_of_lung),
        hu_text(tissue.mean_hu),
    ]


def _table(
    rows: Sequence[Sequence[str]],
    width: int,
    columns: Sequence[int],
    swatches: Sequence[Ink | None] | None = None,
) -> Image.Image:
    """A table with its heading in the first row; numbers end at the right of their columns, long names wrap."""
    first = width - sum(columns)
    inset = 0 if swatches is None else 36
    names = [wrap(row[0], TEXT, first - inset - 8) for row in rows]
    canvas = Image.new("RGB", (width, LINE * sum(map(len, names)) + 8))
    top = 0
    for number, (row, name) in enumerate(zip(rows, names, strict=True)):
        colour = _WHITE if number else _GREY
        ink = swatches[number - 1] if number and swatches is not None else None
        if ink is not None:
            _swatch(canvas, (0, top + 2), ink)
        for below, line in enumerate(name):
            place = (inset if number else 0, top + below * LINE)
            write(canvas, place, line, size=TEXT, colour=colour)
        right = first
        for cell, column in zip(row[1:], columns, strict=True):
            right += column
            write(canvas, (right, top), fit(cell, TEXT, column), size=TEXT, colour=colour, anchor="ra")
        top += LINE * len(name)
        if not number:
            ImageDraw.Draw(canvas).line((0, top, width, top), fill=_FAINT)
            top += 8
    return canvas


def _notes(result: OpacificationResult, found: Opacification, width: int) -> Image.Image:
    """What the numbers rest on: titles at the left, text at the right."""
    lines: list[tuple[str, str, Colour]] = []
    for title, texts, colour in _told(result, found):
        more = [f"and {len(texts) - NOTES} more, in the JSON"] if len(texts) > NOTES else []
        told = [line for text in [*texts[:NOTES], *more] for line in wrap(text, TEXT - 2, width - TITLES)]
        lines += [(title if number == 0 else "", line, colour) for number, line in enumerate(told)]
    step = LINE - 4
    canvas = Image.new("RGB", (width, len(lines) * step))
    for number, (title, line, colour) in enumerate(lines):
        write(canvas, (0, number * step), title, size=TEXT - 2, colour=_WHITE)
        write(canvas, (TITLES, number * step), line, size=TEXT - 2, colour=colour)
    return canvas


def _told(result: OpacificationResult, found: Opacification) -> Iterator[tuple[str, Sequence[str], Colour]]:
    """Title, lines and colour of each note."""
    doubts = [finding.text for finding in result.quality]
    yield "Doubts", doubts or ["none"], _AMBER if doubts else _GREY
    yield "Geometry", [ledger_line(entry) for entry in result.ledger] or ["nothing to tell"], _GREY
    yield "Interval", [interval_line(found.interval)], _GREY
    if found.sampling is not None:
        yield "Slices not read", [sampling_line(found.sampling)], _GREY
    yield "Expected", ["volume by the network's probabilities instead of its labels"], _GREY
    yield "Well aerated", ["voxels of the lungs from -950 to -700 HU"], _GREY
    yield "Left and right", [f"told apart {sides_line(found)}"], _GREY
    yield "Disagreement", [confusion_line(each) for each in found.confusion], _GREY


def _stacked(blocks: Sequence[Image.Image], *, margin: int = 0) -> Image.Image:
    gap = MARGIN * 2 // 3
    width = max(block.width for block in blocks) + 2 * margin
    height = sum(block.height + gap for block in blocks) - gap + 2 * margin
    canvas = Image.new("RGB", (width, height))
    top = margin
    for block in blocks:
        canvas.paste(block, (margin, top))
        top += block.height + gap
    return canvas


def _beside(left: Image.Image, right: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", (left.width + MARGIN + right.width, max(left.height, right.height)))
    canvas.paste(left, (0, 0))
    canvas.paste(right, (left.width + MARGIN, 0))
    return canvas
