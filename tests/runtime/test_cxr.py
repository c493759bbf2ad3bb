"""From display values to the network's input, and from its outputs to clinical scores."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.backends.base import Arrays
from bedside.bundle import Bundle, Input, Manifest
from bedside.cxr import Frame, frame_of, interpret, preprocess
from bedside.errors import BackendError
from bedside.radiograph import Header, Radiograph
from tiny_bundle import Network, golden_images, make_bundle

Picture = npt.NDArray[np.float32]
PNG = Header("PNG")
XRV = Input("image", (None, 1, 64, 64), -1024.0, 1024.0, "centre-square")
PADDED = dataclasses.replace(XRV, crop="pad-square", outside=-1024.0)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = make_bundle(tmp_path_factory.mktemp("bundle") / "b", network=Network(lungs=True))
    return Bundle.open(folder).manifest


def radiograph(pixels: npt.NDArray[Any], spacing_mm: tuple[float, float] | None = None) -> Radiograph:
    return Radiograph(np.ascontiguousarray(pixels, np.float32), PNG, spacing_mm)


def disc(rows: int, columns: int, aspect: float = 1.0) -> Picture:
    """A white disc in the middle, round on the patient if a pixel is ``aspect`` times as high as wide."""
    y = (np.arange(rows)[:, None] - (rows - 1) / 2) * aspect
    x = np.arange(columns)[None] - (columns - 1) / 2
    radius = 0.35 * min(rows * aspect, columns)
    return (y**2 + x**2 <= radius**2).astype(np.float32)


# The frame


@pytest.mark.parametrize(
    ("shape", "crop", "frame"),
    [
        ((100, 60), "centre-square", Frame(20, 0, 60, 60)),
        ((60, 100), "centre-square", Frame(0, 20, 60, 60)),
        ((101, 60), "centre-square", Frame(20, 0, 60, 60)),
        ((60, 61), "centre-square", Frame(0, 0, 60, 60)),
        ((7, 4), "centre-square", Frame(1, 0, 4, 4)),
        ((1, 9), "centre-square", Frame(0, 4, 1, 1)),
        ((100, 60), "pad-square", Frame(0, -20, 100, 100)),
        ((60, 101), "pad-square", Frame(-20, 0, 101, 101)),
        ((50, 50), "pad-square", Frame(0, 0, 50, 50)),
    ],
)
def test_frame_of_square_pixels(shape: tuple[int, int], crop: str, frame: Frame) -> None:
    assert frame_of(shape, 1.0, crop) == frame


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_centre_square_is_the_reference_s_crop(height: int, width: int) -> None:
    """torchxrayvision's XRayCenterCrop starts at ``size // 2 - side // 2``, the side being the smaller size."""
    side = min(height, width)
    assert frame_of((height, width), 1.0, "centre-square") == Frame(
        height // 2 - side // 2, width // 2 - side // 2, side, side
    )


@given(st.integers(1, 3000), st.integers(1, 3000), st.floats(0.1, 10))
def test_frame_is_square_on_the_patient_and_in_or_around_the_picture(
    height: int, width: int, aspect: float
) -> None:
    inner = frame_of((height, width), aspect, "centre-square")
    outer = frame_of((height, width), aspect, "pad-square")
    for frame in (inner, outer):
        assert abs(frame.height * aspect - frame.width) <= max(1, aspect)
    assert 0 <= inner.top <= inner.top + inner.height <= height
    assert 0 <= inner.left <= inner.left + inner.width <= width
    assert outer.top <= 0
    assert outer.left <= 0
    assert outer.top + outer.height >= height
    assert outer.left + outer.width >= width


# Preprocessing


@given(st.integers(1, 150), st.integers(1, 150), st.sampled_from([XRV, PADDED]), st.floats(0.2, 5))
def test_any_shape_becomes_the_network_s_input(height: int, width: int, spec: Input, aspect: float) -> None:
    pixels = np.random.default_rng(height * width).random((height, width), dtype=np.float32)
    image = preprocess(radiograph(pixels, (aspect, 1.0)), spec)
    assert image.shape == (1, 1, 64, 64)
    assert image.dtype == np.float32
    assert image.flags.c_contiguous
    assert image.min() >= -1024.01
    assert image.max() <= 1024.01


def test_ends_of_the_scale_are_mapped_to_the_ends() -> None:
    # the inner part: at the border, anti-aliasing reaches over the edge, where the reference has 0
    for value, expected in ((0.0, -1024.0), (0.5, 0.0), (1.0, 1024.0)):
        image = preprocess(radiograph(np.full((128, 128), value)), XRV)
        np.testing.assert_allclose(image[..., 4:-4, 4:-4], expected, atol=1e-3)


def test_border_of_the_reference_tends_to_its_zero() -> None:
    """scikit-image filters in [-1024, 1024] with 0 outside: both a black and a white border tend to 0."""
    for value, expected in ((0.0, -1024.0), (1.0, 1024.0)):
        image = preprocess(radiograph(np.full((512, 512), value)), XRV)
        assert 0.5 < float(image[0, 0, 0, 32]) / expected < 1


def test_outside_of_a_padded_picture_is_black() -> None:
    image = preprocess(radiograph(np.ones((128, 32))), PADDED)[0, 0]
    np.testing.assert_allclose(image[:, :20], -1024, atol=1e-3)
    np.testing.assert_allclose(image[:, -20:], -1024, atol=1e-3)
    np.testing.assert_allclose(image[4:-4, 28:36], 1024, atol=1e-3)


def test_a_black_picture_padded_with_black_is_black_everywhere() -> None:
    image = preprocess(radiograph(np.zeros((100, 37))), PADDED)
    np.testing.assert_allclose(image, -1024, atol=1e-3)


def test_what_lies_outside_the_crop_does_not_matter() -> None:
    pixels = np.random.default_rng(0).random((200, 100), dtype=np.float32)
    other = pixels.copy()
    other[:50], other[150:] = 0, 1
    np.testing.assert_array_equal(preprocess(radiograph(pixels), XRV), preprocess(radiograph(other), XRV))


@pytest.mark.parametrize("spec", [XRV, PADDED])
@pytest.mark.parametrize("aspect", [0.5, 2.0])
def test_a_disc_on_the_patient_stays_a_disc(spec: Input, aspect: float) -> None:
    """Twice as many samples along one axis give the picture that square pixels give."""
    rows, columns = round(200 / aspect), 200
    image = preprocess(radiograph(disc(rows, columns, aspect), (0.2 * aspect, 0.2)), spec)[0, 0] > 0
    square = preprocess(radiograph(disc(200, 200), (0.2, 0.2)), spec)[0, 0] > 0
    height, width = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    assert abs(np.ptp(height) - np.ptp(width)) <= 1
    assert np.mean(image != square) < 0.02


def test_only_the_ratio_of_the_spacing_matters() -> None:
    pixels = disc(90, 120)
    want = preprocess(radiograph(pixels), XRV)
    for spacing in (0.1, 1.0, 7.0):
        np.testing.assert_array_equal(preprocess(radiograph(pixels, (spacing, spacing)), XRV), want)


def test_picture_is_left_alone() -> None:
    picture = radiograph(disc(90, 120))
    kept = picture.pixels.copy()
    picture.pixels.flags.writeable = False
    for spec in (XRV, PADDED):
        image = preprocess(picture, spec)
        assert not np.shares_memory(image, picture.pixels)
    np.testing.assert_array_equal(picture.pixels, kept)


@pytest.mark.parametrize(
    ("pixels", "spacing_mm"),
    [
        (np.zeros((4, 4), np.float64), None),
        (np.zeros((4, 4, 1), np.float32), None),
        (np.zeros((0, 4), np.float32), None),
        (np.zeros((4, 4), np.float32), (0.0, 1.0)),
        (np.zeros((4, 4), np.float32), (-1.0, -1.0)),
        (np.zeros((4, 4), np.float32), (1.0, 0.05)),
        (np.zeros((4, 4), np.float32), (float("nan"), 1.0)),
        (np.zeros((4, 4), np.float32), (float("inf"), float("inf"))),
    ],
)
def test_radiograph_refuses_what_no_reader_may_give(
    pixels: Picture, spacing_mm: tuple[float, float] | None
) -> None:
    with pytest.raises(ValueError, match="must be"):
        Radiograph(pixels, PNG, spacing_mm)


# Interpretation


def answers(image: Picture | None = None, **changes: object) -> Arrays:
    outputs = Network(lungs=True).run(golden_images()[:1] if image is None else image)
    for name, value in changes.items():
        outputs[name] = np.asarray(value, np.float32)
    return outputs


def test_outputs_become_clinical_scores(manifest: Manifest) -> None:
    severity = interpret(answers(severity=[[3.0, 2.0]]), manifest)
    extent, opacity = severity.extent, severity.opacity
    assert (extent.name, extent.value, extent.low, extent.high, extent.scale) == (
        "extent",
        3,
        2.5,
        3.75,
        (0, 8),
    )
    assert (opacity.name, opacity.value, opacity.low, opacity.high, opacity.scale) == (
        "opacity",
        2,
        1.5,
        2.75,
        (0, 6),
    )
    assert extent.level == 0.8
    assert (extent.method, extent.head) == ("made up for tests", "brightness")
    assert {type(number) for number in (extent.value, extent.low, extent.high)} == {float}


@pytest.mark.parametrize(
    ("raw", "value", "low", "high"),
    [
        (-5, 0, 0, 0.75),
        (0, 0, 0, 0.75),
        (0.25, 0.25, 0, 1),
        (7.9, 7.9, 7.4, 8),
        (8, 8, 7.5, 8),
        (1e30, 8, 7.5, 8),
    ],
)
def test_value_and_interval_stay_within_the_scale(
    raw: float, value: float, low: float, high: float, manifest: Manifest
) -> None:
    extent = interpret(answers(severity=[[raw, 1.0]]), manifest).extent
    assert (extent.value, extent.low, extent.high) == pytest.approx((value, low, high), abs=1e-6)


@given(st.floats(-1e6, 1e6, width=32), st.floats(-1e6, 1e6, width=32))
def test_interval_holds_its_value(manifest: Manifest, first: float, second: float) -> None:
    severity = interpret(answers(severity=[[first, second]]), manifest)
    for estimate in (severity.extent, severity.opacity):
        assert estimate.scale[0] <= estimate.low <= estimate.value <= estimate.high <= estimate.scale[1]


def test_untrained_pathologies_are_absent(manifest: Manifest) -> None:
    severity = interpret(answers(pathologies=[[0.75, 0.25, 0.5]]), manifest)
    assert severity.pathologies == {"Lung Opacity": 0.75, "Effusion": 0.25}


def test_maps_are_named_by_score(manifest: Manifest) -> None:
    outputs = answers()
    severity = interpret(outputs, manifest)
    assert list(severity.activation) == ["extent", "opacity"]
    np.testing.assert_array_equal(severity.activation["opacity"], outputs["cam"][0, 1])
    assert severity.lungs is not None
    np.testing.assert_array_equal(severity.lungs, outputs["lungs"][0, 0])


def test_what_the_bundle_does_not_give_is_empty(manifest: Manifest) -> None:
    bare = dataclasses.replace(manifest, outputs=manifest.outputs[:1])
    severity = interpret({"severity": np.zeros((1, 2), np.float32)}, bare)
    assert (severity.pathologies, severity.activation, severity.lungs) == ({}, {}, None)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["severity", "cam", "pathologies", "lungs"])
def test_a_number_that_is_none_is_refused_in_any_output(name: str, bad: float, manifest: Manifest) -> None:
    outputs = answers()
    outputs[name] = outputs[name].copy()
    outputs[name].flat[-1] = bad
    with pytest.raises(BackendError) as caught:
        interpret(outputs, manifest)
    assert caught.value.code == "not-finite"


@pytest.mark.parametrize("name", ["severity", "cam", "pathologies", "lungs"])
def test_missing_output_is_told(name: str, manifest: Manifest) -> None:
    outputs = answers()
    del outputs[name]
    with pytest.raises(BackendError, match=f"{name!r} is missing") as caught:
        interpret(outputs, manifest)
    assert caught.value.code == "engine-failed"


@pytest.mark.parametrize("shape", [(2, 2), (1, 3), (1, 1), (2,), (), (0, 2)])
def test_output_of_another_shape_is_told(shape: tuple[int, ...], manifest: Manifest) -> None:
    with pytest.raises(BackendError) as caught:
        interpret(answers(severity=np.zeros(shape)), manifest)
    assert caught.value.code == "engine-failed"


def test_batch_of_three_is_not_taken_for_one(manifest: Manifest) -> None:
    with pytest.raises(BackendError):
        interpret(answers(golden_images()), manifest)


# Against scikit-image, on the shared pictures: tests/export, where that package is


def test_shared_pictures_all_have_an_input(shared: Path) -> None:
    from bedside.reading import read_radiograph

    for path in sorted((shared / "data" / "cxr" / "images").iterdir())[::40]:
        image = preprocess(read_radiograph(path), XRV)
        assert np.isfinite(image).all()
        assert image.std() > 50
