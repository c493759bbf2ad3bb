"""Resizing equals, to float32, a slow reference that follows the definition sample by sample."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bedside.resampling import plan_axis, resample

Floats = npt.NDArray[np.float64]


def reference_axis(samples: Floats, outputs: int) -> Floats:
    """``samples`` resized along the first axis, in float64, by the documented definition.

    scikit-image's ``resize`` (order 1, anti_aliasing, mode ``constant``, cval 0), along one axis: a Gaussian
    of standard deviation ``max(0, (factor - 1) / 2)``, cut at ``int(4 sigma + 0.5)`` (scipy.ndimage's
    ``truncate`` of 4) and normalised, over samples that are 0 outside; then linear interpolation at the pixel
    centres ``(i + 0.5) factor - 0.5`` (scipy.ndimage's ``grid_mode``), 0 outside.
    """
    count = len(samples)
    factor = count / outputs
    sigma = max(0.0, (factor - 1) / 2)
    reach = int(4 * sigma + 0.5)
    weights = [math.exp(-0.5 * (step / sigma) ** 2) if sigma else 1.0 for step in range(-reach, reach + 1)]
    total = math.fsum(weights)
    filtered = np.zeros_like(samples)
    for step, weight in zip(range(-reach, reach + 1), weights, strict=True):
        first, last = max(0, -step), min(count, count - step)  # the centres with a sample that many steps on
        if first < last:
            filtered[first:last] += samples[first + step : last + step] * (weight / total)
    resized = np.zeros((outputs, *samples.shape[1:]))
    for index in range(outputs):
        position = (index + 0.5) * factor - 0.5
        below = math.floor(position)
        for neighbour, share in ((below, 1 - (position - below)), (below + 1, position - below)):
            if 0 <= neighbour < count:
                resized[index] += share * filtered[neighbour]
    return resized


def reference(picture: Floats, shape: tuple[int, int]) -> Floats:
    return reference_axis(reference_axis(picture, shape[0]).T, shape[1]).T


def resized(picture: npt.NDArray[np.float32], shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    height, width = picture.shape
    return resample(picture, plan_axis(height, 0, height, shape[0]), plan_axis(width, 0, width, shape[1]))


def noise(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(sum(shape)).random(shape, dtype=np.float32)


sides = st.integers(1, 70)


@given(sides, sides, st.integers(1, 40), st.integers(1, 40))
@example(1, 1, 1, 1)
@example(1, 70, 40, 1)
@example(64, 64, 32, 32)
@example(33, 33, 32, 32)
@example(31, 31, 32, 32)
def test_equals_the_reference_at_any_size(height: int, width: int, rows: int, columns: int) -> None:
    picture = noise(height, width)
    got = resized(picture, (rows, columns))
    assert got.dtype == np.float32
    assert got.shape == (rows, columns)
    np.testing.assert_allclose(got, reference(picture.astype(np.float64), (rows, columns)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 223, 224, 225, 448, 1000, 3001])
def test_equals_the_reference_at_the_network_s_size(count: int) -> None:
    picture = noise(count, 1)
    want = reference_axis(picture.astype(np.float64), 224)
    got = resample(picture, plan_axis(count, 0, count, 224), plan_axis(1, 0, 1, 1))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


@given(st.integers(1, 60), st.integers(-40, 40), st.integers(1, 120), st.integers(1, 40))
def test_stretch_that_reaches_over_the_edge_equals_padding_with_zeros(
    count: int, start: int, length: int, outputs: int
) -> None:
    samples = noise(count)
    padded = np.zeros(length)
    for index in range(length):
        if 0 <= start + index < count:
            padded[index] = samples[start + index]
    axis = plan_axis(count, start, length, outputs)
    got = resample(samples[:, None], axis, plan_axis(1, 0, 1, 1))[:, 0]
    np.testing.assert_allclose(got, reference_axis(padded, outputs), rtol=0, atol=1e-6)


@given(st.integers(1, 300), st.integers(1, 60))
def test_sums_are_what_a_white_picture_gives(count: int, outputs: int) -> None:
    axis = plan_axis(count, 0, count, outputs)
    white = resample(np.ones((count, 1), np.float32), axis, plan_axis(1, 0, 1, 1))[:, 0]
    np.testing.assert_allclose(axis.sums, white, rtol=0, atol=1e-6)
    assert axis.sums.max() <= 1 + 1e-6


def test_same_size_is_the_identity() -> None:
    picture = noise(50, 60)
    np.testing.assert_array_equal(resized(picture, (50, 60)), picture)


def test_flips_commute() -> None:
    picture = noise(301, 257)
    flipped = resized(np.ascontiguousarray(picture[::-1, ::-1]), (64, 48))
    np.testing.assert_allclose(flipped[::-1, ::-1], resized(picture, (64, 48)), rtol=0, atol=1e-6)


def test_picture_is_left_alone_and_any_memory_order_serves() -> None:
    picture = noise(97, 131)
    kept = picture.copy()
    want = resized(picture, (32, 32))
    np.testing.assert_array_equal(picture, kept)
    picture.flags.writeable = False
    np.testing.assert_array_equal(resized(picture, (32, 32)), want)
    wide = np.repeat(picture, 2, axis=1)[:, ::2]
    assert not wide.flags.c_contiguous
    np.testing.assert_allclose(resized(wide, (32, 32)), want, rtol=0, atol=1e-6)
    np.testing.assert_allclose(resized(np.asfortranarray(picture), (32, 32)), want, rtol=0, atol=1e-6)


def test_result_is_a_new_contiguous_array() -> None:
    picture = noise(32, 32)
    got = resized(picture, (32, 32))
    assert got.flags.c_contiguous
    assert not np.shares_memory(got, picture)


@pytest.mark.parametrize("shape", [(4000, 4000), (32_768, 8), (8, 32_768)])
def test_a_plan_is_small_beside_its_picture(shape: tuple[int, int]) -> None:
    for count in shape:
        axis = plan_axis(count, 0, count, 224)
        assert sum(block.nbytes for _, block in axis.blocks) < 8_000_000
        assert all(block.dtype == np.float32 for _, block in axis.blocks)
