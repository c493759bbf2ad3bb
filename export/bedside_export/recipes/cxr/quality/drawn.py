"""Pictures drawn by rules, none of them a chest X-ray: noise, ramps, patterns, pages, charts, limbs.

Each function draws one picture ``(D, D)`` from 0 to 1, by the generator it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from bedside_export.recipes.cxr.data import Float

__all__ = ["DRAWN", "DRAWN_SIDE", "draw"]

DRAWN_SIDE: Final = 320
"""Side of the pictures."""

Chance = np.random.Generator


def draw(kind: str, chance: Chance) -> Float:
    """A picture of one of `DRAWN`."""
    return np.asarray(np.clip(DRAWN[kind](chance), 0, 1), dtype=np.float32)


def _axes(chance: Chance) -> tuple[Float, Float]:
    """Coordinates from -1 to 1, turned at random."""
    line = np.linspace(-1, 1, DRAWN_SIDE, dtype=np.float32)
    y, x = np.meshgrid(line, line, indexing="ij")
    angle = chance.uniform(0, 2 * np.pi)
    return (
        np.asarray(x * np.cos(angle) + y * np.sin(angle), np.float32),
        np.asarray(y * np.cos(angle) - x * np.sin(angle), np.float32),
    )


def _white_noise(chance: Chance) -> Float:
    level = chance.uniform(0.1, 0.9)
    spread = chance.uniform(0.02, 0.5)
    return chance.normal(level, spread, (DRAWN_SIDE, DRAWN_SIDE)).astype(np.float32)


def _clouds(chance: Chance) -> Float:
    """Noise of a power law, as clouds have."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(DRAWN_SIDE), np.fft.fftfreq(DRAWN_SIDE)))
    frequency[0, 0] = 1
    spectrum = np.fft.fft2(chance.normal(size=(DRAWN_SIDE, DRAWN_SIDE))) / frequency ** chance.uniform(
        0.8, 2.2
    )
    spectrum[0, 0] = 0
    field = np.fft.ifft2(spectrum).real
    return np.asarray(0.5 + field / (field.std() * chance.uniform(2.5, 6)), dtype=np.float32)


def _blank(chance: Chance) -> Float:
    level = chance.uniform(0, 1)
    return chance.normal(level, chance.uniform(0.0005, 0.01), (DRAWN_SIDE, DRAWN_SIDE)).astype(np.float32)


def _ramp(chance: Chance) -> Float:
    x, y = _axes(chance)
    base = np.hypot(x, y) if chance.random() < 0.5 else x
    low, high = np.sort(chance.uniform(0, 1, 2))
    share = (base - base.min()) / np.ptp(base)
    return np.asarray(low + (high - low + 0.05) * share ** chance.uniform(0.5, 2), dtype=np.float32)


def _checkers(chance: Chance) -> Float:
    x, y = _axes(chance)
    count = chance.uniform(2, 20)
    board = (np.floor(x * count) + np.floor(y * count)) % 2
    low, high = np.sort(chance.uniform(0, 1, 2))
    return np.asarray(low + (high - low + 0.1) * board, dtype=np.float32)


def _stripes(chance: Chance) -> Float:
    x, _ = _axes(chance)
    wave = np.sin(x * chance.uniform(4, 80) + chance.uniform(0, 6))
    return np.asarray(
        0.5 + chance.uniform(0.1, 0.5) * (np.sign(wave) if chance.random() < 0.5 else wave), np.float32
    )


def _shapes(chance: Chance) -> Float:
    """Boxes, discs and lines of any grey on any ground."""
    image = Image.new("L", (DRAWN_SIDE, DRAWN_SIDE), int(chance.integers(0, 256)))
    pen = ImageDraw.Draw(image)
    for _ in range(int(chance.integers(1, 25))):
        x, y = chance.uniform(-0.1, 0.9, 2) * DRAWN_SIDE
        w, h = chance.uniform(0.05, 0.6, 2) * DRAWN_SIDE
        grey = int(chance.integers(0, 256))
        shape = chance.integers(0, 3)
        if shape == 0:
            pen.rectangle((x, y, x + w, y + h), fill=grey)
        elif shape == 1:
            pen.ellipse((x, y, x + w, y + h), fill=grey)
        else:
            pen.line((x, y, x + w, y + h), fill=grey, width=int(chance.integers(1, 20)))
    field = np.asarray(image, dtype=np.float32) / np.float32(255)
    return np.asarray(ndimage.gaussian_filter(field, chance.uniform(0, 6)), dtype=np.float32)


def _two_ovals(chance: Chance) -> Float:
    """Two dark ovals in a grey field and no more: what a chest would be to who looks at nothing else."""
    x, y = np.meshgrid(*[np.linspace(-1, 1, DRAWN_SIDE, dtype=np.float32)] * 2)
    field = np.full((DRAWN_SIDE, DRAWN_SIDE), chance.uniform(0.5, 1), np.float32)
    for side in (-1, 1):
        width, height = chance.uniform(0.15, 0.4), chance.uniform(0.3, 0.8)
        inside = ((x - side * chance.uniform(0.35, 0.5)) / width) ** 2 + ((y - 0.1) / height) ** 2 < 1
        field[inside] = chance.uniform(0, 0.4)
    return np.asarray(ndimage.gaussian_filter(field, chance.uniform(0, 5)), dtype=np.float32)


def _page(chance: Chance) -> Float:
    """Lines of text, dark on light or the other way round."""
    dark = chance.random() < 0.3
    image = Image.new("L", (DRAWN_SIDE, DRAWN_SIDE), 0 if dark else 255)
    pen = ImageDraw.Draw(image)
    size = int(chance.integers(7, 32))
    font = ImageFont.load_default(size)
    letters = list("abcdefghijklmnopqrstuvwxyz      ABCDEFGH0123456789.,")
    for top in range(int(chance.integers(0, 40)), DRAWN_SIDE, int(size * chance.uniform(1.1, 1.8))):
        text = "".join(chance.choice(letters, 80))[: int(chance.integers(10, 80))]
        pen.text((int(chance.integers(0, 40)), top), text, fill=255 if dark else 0, font=font)
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def _chart(chance: Chance) -> Float:
    """Axes with a curve or bars."""
    image = Image.new("L", (DRAWN_SIDE, DRAWN_SIDE), 255)
    pen = ImageDraw.Draw(image)
    pen.line((30, 20, 30, 290, 300, 290), fill=0, width=2)
    heights = np.cumsum(chance.normal(0, 25, 12)) + 150
    points = [(40 + 22 * i, float(np.clip(h, 20, 285))) for i, h in enumerate(heights)]
    if chance.random() < 0.5:
        pen.line(points, fill=int(chance.integers(0, 150)), width=int(chance.integers(1, 5)))
    else:
        for x, h in points:
            pen.rectangle((x, h, x + 14, 290), fill=int(chance.integers(0, 200)))
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def _limb(chance: Chance) -> Float:
    """Long bones with hollow shafts and thick ends in soft tissue, as thicknesses seen by X-rays: arms, legs, hands."""
    x, y = _axes(chance)
    bones = int(chance.choice([1, 2, 2, 5]))
    thickness = np.zeros_like(x)
    width = chance.uniform(0.25, 0.6)
    tissue = np.sqrt(np.clip(width**2 - (x - 0.1 * np.sin(2 * y)) ** 2, 0, None)) * chance.uniform(0.5, 1.5)
    for place in (np.arange(bones) - (bones - 1) / 2) * (1.4 * width / bones):
        joint = chance.uniform(-0.8, 0.8)
        radius = chance.uniform(0.25, 0.4) * width / bones * (1 + 0.8 * np.exp(-(((y - joint) / 0.15) ** 2)))
        across = (x - place - chance.uniform(-0.1, 0.1) * y) ** 2
        shaft = np.sqrt(np.clip(radius**2 - across, 0, None))
        hollow = np.sqrt(np.clip((radius * 0.6) ** 2 - across, 0, None))
        thickness += (shaft - hollow * 0.8) * (np.abs(y - joint) > 0.015)
    return np.asarray(0.9 * tissue + 3.5 * thickness + 0.05, dtype=np.float32)


DRAWN: Final[Mapping[str, Callable[[Chance], Float]]] = MappingProxyType(
    {
        "white noise": _white_noise,
        "clouds": _clouds,
        "blank": _blank,
        "ramps": _ramp,
        "checkers": _checkers,
        "stripes": _stripes,
        "shapes": _shapes,
        "two ovals": _two_ovals,
        "pages": _page,
        "charts": _chart,
        "limbs": _limb,
    }
)
"""Kind -> what draws one."""
