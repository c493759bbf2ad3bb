from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest

from bedside.opacification import TissueVolume
from bedside.report.montage import FILLING
from bedside.report.palette import COLOURS, LUNG, TEXTURES, Ink, inks_of, texture

Array = npt.NDArray[np.float64]

# G. M. Machado, M. M. Oliveira, L. A. F. Fernandes, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency", IEEE TVCG 15(6):1291, 2009: matrices of severity 1.0, for linear RGB.
SIGHTS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
NOTICED = 12.0
APART = 18.0
"""CIELAB distance (CIE 1976) that is told apart at a glance; 2.3 is just noticed side by side (Mahy et al. 1994)."""


def seen(colour: Array, sight: str) -> Array:
    """CIELAB (D65) of an sRGB colour from 0 to 255."""
    share = colour / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    linear = np.clip(SIGHTS[sight] @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    white = xyz / np.array([0.9505, 1.0, 1.089])
    f = np.where(white > (6 / 29) ** 3, np.cbrt(white), white / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def tissue(label: int, *, opacity: bool = False, lung: bool = False) -> TissueVolume:
    return TissueVolume(label, f"tissue {label}", opacity, lung, 1.0, 1.0, 0.5, 0.5, None, None)


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("grey", [80, 128, 180, 230])
def test_fillings_are_told_apart_by_everyone_on_any_lung(sight: str, grey: int) -> None:
    blended = [grey * (1 - FILLING) + np.array(colour) * FILLING for colour in COLOURS]
    ground = seen(np.full(3, grey), sight)
    for one, other in combinations([seen(colour, sight) for colour in blended], 2):
        assert np.linalg.norm(one - other) > APART
    for colour in blended:
        assert np.linalg.norm(seen(colour, sight) - ground) > NOTICED


@pytest.mark.parametrize("sight", SIGHTS)
def test_outline_of_the_lungs_is_no_tissues_colour(sight: str) -> None:
    lung = seen(np.array(LUNG, float), sight)
    for colour in COLOURS:
        assert np.linalg.norm(seen(np.array(colour, float), sight) - lung) > APART


def test_every_tissue_but_background_and_aerated_lung_has_an_ink_of_its_own() -> None:
    tissues = [
        tissue(0),
        tissue(1, lung=True),
        tissue(2),
        *(tissue(n, lung=True, opacity=True) for n in range(3, 15)),
    ]
    inks = inks_of(tissues)
    assert set(inks) == set(range(2, 15))
    assert len(set(inks.values())) == len(inks)
    assert [ink.filled for ink in inks.values()] == [True] * 12 + [False]


def test_first_opacity_has_the_first_colour_wherever_it_stands() -> None:
    assert inks_of([tissue(0), tissue(1), tissue(2, lung=True, opacity=True)])[2] == Ink(
        COLOURS[0], 0, filled=True
    )


def test_textures_differ_and_leave_much_of_the_colour() -> None:
    patterns = [texture((32, 48), number) for number in range(TEXTURES)]
    assert (patterns[0] == 1).all()
    for pattern in patterns[1:]:
        assert 0.3 < pattern.mean() < 0.7
    for one, other in combinations(patterns, 2):
        assert (one != other).mean() > 0.2
