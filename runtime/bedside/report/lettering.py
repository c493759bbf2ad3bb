"""Text in pictures: made to fit, in the one font that comes with Pillow. No I/O."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Final, TypeAlias

from PIL import Image, ImageDraw, ImageFont

__all__ = ["ELLIPSIS", "Colour", "Font", "fit", "font_of", "length", "plain", "wrap", "write"]

Colour: TypeAlias = tuple[int, int, int]
"""Red, green, blue, 0 to 255 (sRGB)."""
Font: TypeAlias = "ImageFont.FreeTypeFont | ImageFont.ImageFont"
ELLIPSIS: Final = "..."
"""Stands for what did not fit."""


@cache
def font_of(size: int) -> Font:
    """Pillow's own scalable font, ``size`` pixels to the em; it has been there since Pillow 10.1."""
    return ImageFont.load_default(size=size)


def plain(text: str) -> str:
    """Text on one line in ASCII, all that the font has: accents are dropped, and other letters become ``?``."""
    letters = unicodedata.normalize("NFKD", text)
    line = " ".join("".join(letter for letter in letters if not unicodedata.combining(letter)).split())
    return "".join(letter if " " <= letter <= "~" else "?" for letter in line)


def length(text: str, size: int) -> float:
    """Width of a plain line, pixels."""
    return font_of(size).getlength(text)


def fit(text: str, size: int, room: float) -> str:
    """A plain line of at most ``room`` pixels: `text`, or as much of its beginning as fits, and `ELLIPSIS`."""
    line = plain(text)
    if length(line, size) <= room:
        return line
    while line and length(line + ELLIPSIS, size) > room:
        line = line[:-1]
    return line.rstrip() + ELLIPSIS


def wrap(text: str, size: int, room: float) -> list[str]:
    """Plain lines of at most ``room`` pixels that hold the text; a word longer than a line is cut."""
    lines = [""]
    for word in plain(text).split(" "):
        longer = f"{lines[-1]} {word}".lstrip()
        if length(longer, size) <= room:
            lines[-1] = longer
        elif lines[-1]:
            lines.append(fit(word, size, room))
        else:
            lines[-1] = fit(word, size, room)
    return lines


def write(
    canvas: Image.Image,
    place: tuple[float, float],
    text: str,
    *,
    size: int,
    colour: Colour,
    anchor: str = "la",
) -> None:
    """Write a plain line, with black around its letters so that they can be read on any ground.

    Args:
        canvas: An RGB picture, which is changed.
        place: Pixels from the left and from the top.
        text: As `plain` or `fit` give it.
        size: Pixels to the em.
        colour: Of the letters.
        anchor: Which point of the text is at ``place``, as Pillow names it: ``la`` its left and top.
    """
    ImageDraw.Draw(canvas).text(
        place,
        text,
        font=font_of(size),
        fill=colour,
        anchor=anchor,
        stroke_width=max(1, size // 10),
        stroke_fill=(0, 0, 0),
    )
