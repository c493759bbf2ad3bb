"""Our preprocessing against torchxrayvision's own code, on every X-ray of the reference material."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
import skimage.io

from bedside.bundle import Input
from bedside.cxr import preprocess
from bedside.radiograph import Radiograph
from bedside.reading import read_radiograph

SPEC = Input("image", (None, 1, 224, 224), low=-1024.0, high=1024.0, crop="centre-square")
TIMED = 60


@pytest.fixture(scope="module")
def images(shared: Path) -> list[Path]:
    images = sorted((shared / "data" / "cxr" / "images").iterdir())
    assert len(images) == 588
    return images


def _reference(xrv: ModuleType, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    prepared: npt.NDArray[np.float32] = xrv.datasets.XRayResizer(224)(xrv.datasets.XRayCenterCrop()(pixels))
    return prepared


def _load_as_reference(xrv: ModuleType, path: Path) -> npt.NDArray[np.float32]:
    pixels: npt.NDArray[np.float32] = xrv.utils.normalize(skimage.io.imread(path), 255, reshape=True)
    return pixels


def test_every_picture_is_prepared_as_torchxrayvision_does(images: list[Path], xrv: ModuleType) -> None:
    worst = 0.0
    for path in images:
        wanted = _reference(xrv, _load_as_reference(xrv, path))
        found = preprocess(read_radiograph(path), SPEC)
        assert found.shape == (1, 1, 224, 224)
        worst = max(worst, float(np.abs(found[0] - wanted).max()))
    assert worst <= 0.5  # of the scale from -1024 to 1024


def test_preparing_takes_at_most_a_third_of_torchxrayvisions_time(
    images: list[Path], xrv: ModuleType
) -> None:
    chosen = images[:: len(images) // TIMED]
    ours: list[tuple[Radiograph, npt.NDArray[np.float32]]] = [
        (read_radiograph(path), _load_as_reference(xrv, path)) for path in chosen
    ]
    spent: tuple[list[float], list[float]] = ([], [])
    for radiograph, pixels in ours:
        start = time.perf_counter()
        preprocess(radiograph, SPEC)
        middle = time.perf_counter()
        _reference(xrv, pixels)
        spent[0].append(middle - start)
        spent[1].append(time.perf_counter() - middle)
    assert median(spent[0]) <= median(spent[1]) / 3
