"""Planes between grids equal Pillow's bilinear resize, follow straight ramps, and know what lies outside."""

from __future__ import annotations

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from bedside.planes import Band, PixelAxis, plan_band, resample_planes

Float32 = npt.NDArray[np.float32]

sizes = st.integers(1, 70)


def noise(*shape: int) -> Float32:
    return np.random.default_rng(sum(shape)).random(shape, dtype=np.float32)


def stretch(size: int, outputs: int) -> PixelAxis:
    """``outputs`` pixels over the length of ``size`` pixels of 1 mm."""
    factor = size / outputs
    return PixelAxis(outputs, factor, (factor - 1) / 2)


def pillow(
    plane: Float32, shape: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> Float32:
    """Pillow's own: a triangle as wide as the new pixels, over the samples that there are; ``box`` in x, y, x, y."""
    return np.asarray(Image.fromarray(plane).resize(shape[::-1], Image.Resampling.BILINEAR, box=box))


@settings(deadline=None, max_examples=60)
@given(sizes, sizes, st.integers(1, 90), st.integers(1, 90))
@example(1, 1, 1, 1)
@example(70, 1, 1, 90)
@example(64, 64, 33, 127)
def test_clamped_it_is_pillow_s_resize(height: int, width: int, rows: int, columns: int) -> None:
    plane = noise(height, width)
    bands = (
        plan_band(PixelAxis(size, 1), stretch(size, outputs), clamp=True)
        for size, outputs in ((height, rows), (width, columns))
    )
    got = resample_planes(plane, *bands)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, pillow(plane, (rows, columns)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("spacing", [0.25, 1.0, 1.375, 2.0, 4.625])
@pytest.mark.parametrize("origin", [-30.0, -0.375, 0.0, 7.875, 45.0])
def test_what_lies_outside_has_its_value(spacing: float, origin: float) -> None:
    """Against Pillow on the picture with a wide border of that value, at a box that binary fractions
    tell exactly, for Pillow takes it in single precision."""
    plane, border, count = noise(40, 50), 140, 24
    source, target = (PixelAxis(size, 1, 2) for size in plane.shape), PixelAxis(count, spacing, origin)
    got = resample_planes(plane, *(plan_band(each, target) for each in source), outside=-3.0)
    first = origin - spacing / 2 - 2 + 0.5 + border
    last = first + count * spacing
    want = pillow(np.pad(plane, border, constant_values=-3.0), (count, count), (first, first, last, last))
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)


@pytest.mark.parametrize("antialias", [False, True])
def test_far_outside_is_the_outside_or_as_the_border(antialias: bool) -> None:
    plane = noise(5, 6)
    far, border = (PixelAxis(1, 2, origin) for origin in (100, 5.5))

    def last(at: PixelAxis, *, clamp: bool) -> float:
        rows = plan_band(PixelAxis(5, 1, 1), at, antialias=antialias, clamp=clamp)
        columns = plan_band(PixelAxis(6, 1), at, antialias=antialias, clamp=clamp)
        return float(resample_planes(plane, rows, columns, outside=-1000)[0, 0])

    assert last(far, clamp=False) == -1000
    assert last(far, clamp=True) == last(border, clamp=True)
    if not antialias:
        assert last(far, clamp=True) == plane[-1, -1]


def ramp(axis: PixelAxis) -> npt.NDArray[np.float64]:
    return axis.origin_mm + np.arange(axis.size, dtype=np.float64) * axis.spacing_mm


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (PixelAxis(257, 1.4, -180), PixelAxis(511, 0.7, -179)),  # denser
        (PixelAxis(257, 1.4, -180), PixelAxis(300, 0.9321, -111.1)),
        (PixelAxis(512, 0.7, -180), PixelAxis(254, 1.4, -178.95)),  # every second border: symmetric weights
        (PixelAxis(512, 0.7, -180), PixelAxis(169, 2.1, -178.6)),
    ],
)
def test_a_ramp_stays_the_ramp(source: PixelAxis, target: PixelAxis) -> None:
    band = plan_band(source, target)
    plane = (ramp(source)[:, None] + 2 * ramp(source)).astype(np.float32)
    want = ramp(target)[:, None] + 2 * ramp(target)
    np.testing.assert_allclose(resample_planes(plane, band, band), want, rtol=0, atol=3e-7 * 540)


def test_without_antialiasing_a_ramp_stays_the_ramp_at_any_spacing() -> None:
    source, target = PixelAxis(512, 0.703, -180), PixelAxis(200, 1.337, -170)
    band = plan_band(source, target, antialias=False)
    plane = (ramp(source)[:, None] + 2 * ramp(source)).astype(np.float32)
    want = ramp(target)[:, None] + 2 * ramp(target)
    np.testing.assert_allclose(resample_planes(plane, band, band), want, rtol=0, atol=3e-7 * 540)


@given(st.floats(0.3, 1.39), st.integers(256, 600))
@example(0.85, 512)
def test_averaging_shifts_nothing_by_more_than_a_tenth_of_a_pixel(spacing: float, size: int) -> None:
    """A triangle of a width that no whole number of pixels fills has its middle a little off, Pillow's no less."""
    source = PixelAxis(size, spacing)
    target = source.respaced(1.4)
    line = resample_planes(ramp(source).astype(np.float32)[:, None], plan_band(source, target), one())[:, 0]
    inside = slice(3, -3)
    np.testing.assert_allclose(line[inside], ramp(target)[inside], rtol=0, atol=0.1 * spacing)


def one() -> Band:
    return plan_band(PixelAxis(1, 1), PixelAxis(1, 1))


@pytest.mark.parametrize("outside", [-1000.0, 0.0])
@pytest.mark.parametrize("spacing", [0.5, 0.7, 1.4])
def test_a_constant_stays_that_constant(outside: float, spacing: float) -> None:
    source = PixelAxis(60, 0.7)
    band = plan_band(source, PixelAxis(80, spacing, -5))
    plane: Float32 = np.full((60, 60), outside, np.float32)
    got = resample_planes(plane, band, band, outside=outside)
    np.testing.assert_allclose(got, outside, rtol=5e-7)


@given(st.integers(1, 300), st.floats(0.2, 3))
def test_the_same_grid_gives_the_same_values(size: int, spacing: float) -> None:
    axis = PixelAxis(size, spacing, -12.5)
    plane = noise(size, 3)
    same = plan_band(axis, axis)
    np.testing.assert_array_equal(
        resample_planes(plane, same, plan_band(PixelAxis(3, 1), PixelAxis(3, 1))), plane
    )


def test_shares_of_classes_still_sum_to_one() -> None:
    source, target = PixelAxis(65, 1.4), PixelAxis(128, 0.703)
    shares = np.moveaxis(np.random.default_rng(1).dirichlet(np.ones(5), (2, 65, 65)), -1, 1).astype(
        np.float32
    )
    band = plan_band(source, target, clamp=True)
    got = resample_planes(shares, band, band)
    assert got.shape == (2, 5, 128, 128)
    assert got.min() >= 0
    np.testing.assert_allclose(got.sum(axis=1), 1, rtol=0, atol=1e-6)


def test_a_stack_is_its_planes_one_by_one() -> None:
    planes = noise(3, 2, 40, 30)
    rows = plan_band(PixelAxis(40, 1), PixelAxis(20, 2, 0.5))
    columns = plan_band(PixelAxis(30, 1), PixelAxis(50, 0.6, -0.2))
    got = resample_planes(planes, rows, columns, outside=4)
    for index in np.ndindex(3, 2):
        np.testing.assert_array_equal(got[index], resample_planes(planes[index], rows, columns, outside=4))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_are_taken_as_float32(dtype: type) -> None:
    plane: npt.NDArray[np.floating] = noise(20, 20).astype(dtype)
    band = plan_band(PixelAxis(20, 1), PixelAxis(9, 2))
    np.testing.assert_array_equal(
        resample_planes(plane, band, band), resample_planes(plane.astype(np.float32), band, band)
    )


def test_strided_planes_are_taken() -> None:
    plane = noise(40, 60)
    band = plan_band(PixelAxis(20, 1), PixelAxis(9, 2))
    want = resample_planes(np.ascontiguousarray(plane[::-2, ::3]), band, band)
    np.testing.assert_array_equal(resample_planes(plane[::-2, ::3], band, band), want)


@pytest.mark.parametrize(("size", "spacing"), [(512, 0.703), (400, 0.85), (1, 0.7), (512, 1.4)])
def test_a_respaced_axis_has_the_same_middle_and_nearly_the_length(size: int, spacing: float) -> None:
    axis = PixelAxis(size, spacing, -123.4)
    wanted = axis.respaced(1.4)
    assert wanted.spacing_mm == 1.4
    assert ramp(wanted).mean() == pytest.approx(ramp(axis).mean(), abs=1e-9)
    assert wanted.size >= 1
    assert abs(wanted.size * 1.4 - size * spacing) <= 0.7


def test_beside_the_result_one_plane_is_held() -> None:
    planes = np.ones((20, 200, 200), np.float32)
    band = plan_band(PixelAxis(200, 0.7), PixelAxis(100, 1.4, 0.35))
    tracemalloc.start()
    try:
        resample_planes(planes, band, band, outside=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    result, plane, border = 20 * 100 * 100 * 4, 200 * 200 * 4, 3 * 100 * 100 * 8
    assert peak <= result + plane + border


def test_planes_of_another_size_and_axes_without_pixels_are_refused() -> None:
    band = plan_band(PixelAxis(20, 1), PixelAxis(9, 2))
    with pytest.raises(ValueError, match="planes must be"):
        resample_planes(noise(20, 21), band, band)
    for size, spacing in ((0, 1.0), (5, 0.0), (5, -1.0), (5, float("nan")), (5, float("inf"))):
        with pytest.raises(ValueError, match="an axis must have"):
            PixelAxis(size, spacing)
