"""Which values pass for Hounsfield units, and what is said of those that don't."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bedside.chest import chest_phantom
from bedside.errors import RefusedError
from bedside.hounsfield import check_hu, sample_slices

Values = npt.NDArray[np.float32]
AFFINE = np.array([[0.0, 0, 3, -190], [0, 3, 0, -190], [10, 0, 0, -150], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def chest() -> Values:
    """A chest with noise of 20 HU, as a scanner without clipping gives it."""
    hu = chest_phantom("moderate").phantom.hu((30, 128, 128), AFFINE, supersampling=1)
    return hu + np.random.default_rng(0).normal(0, 20, hu.shape).astype(np.float32)


@pytest.fixture(scope="module")
def lungs(chest: Values) -> npt.NDArray[np.bool_]:
    inside = (chest > -950) & (chest < -300)
    inside[:, :20] = inside[:, -20:] = False
    return inside


def refusal(values: npt.NDArray[np.generic]) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        check_hu(values.astype(np.float32))
    return caught.value


@pytest.mark.parametrize("case", ["healthy", "mild", "moderate", "severe"])
def test_each_phantom_passes(case: str) -> None:
    check_hu(chest_phantom(case).phantom.hu((20, 64, 64), AFFINE * [1.5, 2, 2, 1], supersampling=1))


@pytest.mark.parametrize("padding", [-2000, -2048, -3024, -32768, np.nan])
def test_padding_does_not_matter(chest: Values, padding: float) -> None:
    y, x = np.ogrid[-64:64, -64:64]
    check_hu(np.where(y**2 + x**2 > 60**2, np.float32(padding), chest))


@pytest.mark.parametrize("padding", [-1000, 0, -2000, -3024, np.nan])
def test_lungs_alone_pass(chest: Values, lungs: npt.NDArray[np.bool_], padding: float) -> None:
    check_hu(np.where(lungs, chest, np.float32(padding)))


@pytest.mark.parametrize("window", [(-1000, 50), (-1350, 150), (-1024, 3071), (-160, 240), (-1000, 400)])
def test_values_clipped_to_a_window_pass(chest: Values, window: tuple[float, float]) -> None:
    check_hu(chest.clip(*window))


def test_contrast_and_metal_pass(chest: Values) -> None:
    enhanced = np.where((chest > 20) & (chest < 60), chest + 300, chest)
    enhanced[10:14, 60:66, 60:66] = 3071
    check_hu(enhanced)


def test_a_belly_without_gas_passes() -> None:
    rng = np.random.default_rng(0)
    hu = np.concatenate([rng.normal(-100, 25, 30000), rng.normal(50, 25, 60000), rng.normal(300, 150, 4000)])
    check_hu(hu.astype(np.float32))


@pytest.mark.parametrize(
    ("offset", "text"), [(1024, "HU + 1024"), (1000, "HU + 1024 (or 1000)"), (32768, "HU + 32768")]
)
@pytest.mark.parametrize("floor", [-np.inf, -1000])
def test_an_offset_is_refused_and_named(chest: Values, offset: float, text: str, floor: float) -> None:
    error = refusal(np.maximum(chest, floor) + offset)

    assert error.code == "not-hu"
    assert f"look like {text}" in error.message


def test_an_offset_is_found_where_the_padding_has_none(chest: Values) -> None:
    values = chest + 1024
    values[:, :20] = -2000
    assert "HU + 1024" in refusal(values).message


@pytest.mark.parametrize("floor", [-np.inf, -2048])
def test_an_intercept_applied_twice_is_refused_and_named(chest: Values, floor: float) -> None:
    error = refusal(np.maximum(chest - 1024, floor))

    assert error.code == "not-hu"
    assert "HU - 1024" in error.message


def scaled(hu: Values, low: float, high: float) -> npt.NDArray[np.generic]:
    return (hu.clip(-1000, 400) + 1000) / 1400 * (high - low) + low


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0, 1, "from 0 to 1"),
        (0, 255, "picture of 8 bits"),
        (-1, 1, "too narrow"),
        (-3, 3, "too narrow"),
        (0, 65535, "negative"),
        (0, 4095, "negative"),
    ],
)
def test_a_scaled_scan_is_refused_and_its_range_named(
    chest: Values, low: float, high: float, text: str
) -> None:
    error = refusal(scaled(chest, low, high))

    assert error.code == "not-hu"
    assert text in error.message


@pytest.mark.parametrize("values", [[0, 1], [0, 1, 2, 7], [0, 255], [0, 100, 200]])
def test_a_label_map_is_refused_as_one(values: list[int]) -> None:
    assert "label map" in refusal(np.random.default_rng(0).choice(values, (5, 40, 40))).message


def test_magnitudes_as_of_mr_are_refused() -> None:
    rng = np.random.default_rng(0)
    assert "MR" in refusal(np.abs(rng.normal(400, 300, 50000))).message
    assert "bone" in refusal(np.concatenate([rng.normal(0, 100, 30000), rng.normal(800, 200, 30000)])).message


@pytest.mark.parametrize(
    "values", [np.zeros((3, 4, 4)), np.full((3, 4, 4), -1000), np.full((3, 4, 4), np.nan)]
)
def test_a_constant_volume_is_refused(values: npt.NDArray[np.float64]) -> None:
    assert refusal(values).code == "constant-image"


def test_the_sample_is_spread_over_the_scan_and_read_slice_by_slice() -> None:
    asked: list[int] = []

    def read(slices: Sequence[int]) -> Values:
        asked.extend(slices)
        return np.tile(np.array(slices, np.float32)[:, None, None], (1, 300, 512))

    sample = sample_slices(read, 100, count=4)

    assert asked == [20, 40, 59, 79]
    assert sample.shape == (4, 150, 256)
    assert sample[:, 0, 0].tolist() == asked
    assert len(sample_slices(read, 2, count=4)) == 2


def test_a_real_scan_passes_and_its_stored_values_do_not(shared: Path) -> None:
    ljpeg = pytest.importorskip("imagecodecs").ljpeg_decode
    import pydicom
    from pydicom.encaps import generate_frames

    stored = []
    for path in sorted((shared / "data" / "ct" / "ricord-series").iterdir())[::25]:
        dataset = pydicom.dcmread(path)
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        stored.append(ljpeg(frame)[::2, ::2].astype(np.uint16).view(np.int16))
    values = np.stack(stored).astype(np.float32)
    intercept = float(dataset.RescaleIntercept)

    check_hu(values + intercept)
    check_hu(values[3:-3, 60:-60, 40:120] + intercept)
    assert "HU + 1024" in refusal(values).message
    assert "HU - 1024" in refusal(values + 2 * intercept).message
