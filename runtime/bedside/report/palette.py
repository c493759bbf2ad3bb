"""Colours of tissues, to be told apart by everyone. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.opacification import TissueVolume
from bedside.report.lettering import Colour

__all__ = ["COLOURS", "LUNG", "TEXTURES", "Ink", "inks_of", "texture"]

LUNG: Final[Colour] = (0, 180, 180)
"""Outline of the lungs: teal, as far as may be from `COLOURS` and from grey to any eye."""
COLOURS: Final[tuple[Colour, ...]] = (
    (255, 60, 0),
    (255, 240, 40),
    (40, 60, 255),
    (0, 255, 120),
    (255, 120, 255),
)
"""Red, yellow, blue, green, pink, the first ones furthest apart. Half transparent over any grey of a lung, any two are
at least 18 apart in CIELAB, and 12 from that grey, for normal sight and for protanopia, deuteranopia and tritanopia as
Machado et al. simulate them (IEEE TVCG 15:1291, 2009); Okabe and Ito's set, made for full colour, falls to 7 there."""
TEXTURES: Final = 4
"""Even, and stripes in three directions: more tissues than colours differ in these."""
STRIPE: Final = 8
"""Distance from stripe to stripe, pixels."""


@dataclass(frozen=True, slots=True)
class Ink:
    """How a tissue is shown."""

    colour: Colour
    """Of its line and its filling."""
    texture: int
    """Of its filling: 0 even; see `texture`."""
    filled: bool
    """Filled within its line, as opacities are; otherwise the line alone, which is dashed."""


def inks_of(tissues: Sequence[TissueVolume]) -> dict[int, Ink]:
    """Label -> ink: of every opacity, and of every other tissue that is neither lung nor the background.

    Aerated lung has none: lungs are outlined together, in `LUNG`.
    """
    shown = [tissue for tissue in tissues if tissue.opacity]
    shown += [tissue for tissue in tissues if tissue.label and not tissue.opacity and not tissue.lung]
    return {
        tissue.label: Ink(
            COLOURS[number % len(COLOURS)], number // len(COLOURS) % TEXTURES, filled=tissue.opacity
        )
        for number, tissue in enumerate(shown)
    }


def texture(shape: tuple[int, int], number: int) -> npt.NDArray[np.float32]:
    """How much of an ink's filling each pixel takes: ``(H, W)`` float32, 0 or 1; all 1 for texture 0."""
    rows, columns = np.indices(shape, sparse=True)
    if number == 0:
        return np.ones(shape, np.float32)
    along = (rows + columns, rows - columns, rows + 0 * columns)[number - 1]
    return (along % STRIPE < STRIPE // 2).astype(np.float32)
