"""Tiles give back what the network answers, whatever their size and overlap, in order, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bedside.tiles import Blender, Network, Tally, TilePlan, plan

Float32 = npt.NDArray[np.float32]
Shape = tuple[int, int, int]

overlaps = st.sampled_from([0.0, 0.25, 0.5, 0.9]) | st.floats(0, 0.9)
weights = st.sampled_from(["gaussian", "flat"])
values = st.sampled_from(
    [(0.0, 1.0), (-1024.0, 3071.0), (1e6, 1e6), (0.0, 1e30), (1e-30, 1e-30), (1e4, 1e4 + 1)]
)


def scan(shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Float32:
    noise = np.random.default_rng(sum(shape)).random(shape)
    return (low + (high - low) * noise).astype(np.float32)


def in_slabs(slices: npt.NDArray[Any], *sizes: int) -> Iterator[npt.NDArray[Any]]:
    """``slices`` in slabs of the given sizes, over and over."""
    first = 0
    while first < len(slices):
        for size in sizes:
            yield slices[first : first + size]
            first += size


def blend(blender: Blender, slices: npt.NDArray[Any], *sizes: int) -> Float32:
    return np.concatenate([each.copy() for each in blender.run(in_slabs(slices, *sizes or (3,)))])


def identity(tiles: Float32) -> Float32:
    return tiles.copy()


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 50), st.integers(1, 50)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    overlaps,
    weights,
    values,
    st.integers(1, 9),
)
@example((2, 33, 47), (16, 20), 0.9, "gaussian", (-1024.0, 3071.0), 7)
@example((1, 5, 50), (40, 40), 0.0, "flat", (1e6, 1e6), 4)
def test_identity_is_given_back_to_the_last_bit_2d(
    shape: Shape,
    tile: tuple[int, int],
    overlap: float,
    weighting: str,
    ends: tuple[float, float],
    batch: int,
) -> None:
    slices = scan((shape[0], 2, *shape[1:]), *ends)
    laid = plan(shape, tile, overlap, network=Network(classes=2, channels=2, batch=batch), weights=weighting)
    got = blend(Blender(laid, identity), slices, 1, 3)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, slices)


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(st.integers(1, 24), st.integers(1, 18), st.integers(1, 18)),
    st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12)),
    overlaps,
    weights,
    values,
)
@example((1, 9, 9), (4, 4, 4), 0.5, "gaussian", (0.0, 1.0))
@example((24, 4, 4), (5, 4, 4), 0.9, "gaussian", (-1024.0, 3071.0))
def test_identity_is_given_back_to_the_last_bit_3d(
    shape: Shape, tile: tuple[int, int, int], overlap: float, weighting: str, ends: tuple[float, float]
) -> None:
    slices = scan((shape[0], 1, *shape[1:]), *ends)
    laid = plan(shape, tile, overlap, network=Network(classes=1, batch=3), weights=weighting)
    np.testing.assert_array_equal(blend(Blender(laid, identity), slices, 2, 5), slices)


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(st.integers(1, 12), st.integers(1, 20), st.integers(1, 20)),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    overlaps,
    st.integers(1, 4),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
)
@example((3, 8, 8), (8, 8), 0.5, 2, [2])
@example((2, 8, 8), (4, 8), 0.5, 4, [1])
def test_neighbouring_slices_are_channels_and_the_outermost_are_repeated(
    shape: Shape, tile: tuple[int, int], overlap: float, context: int, sizes: list[int]
) -> None:
    slices = scan((shape[0], 2, *shape[1:]))
    around = 2 * context + 1
    laid = plan(shape, tile, overlap, network=Network(2 * around, channels=2, context=context, batch=2))
    got = blend(Blender(laid, identity), slices, *sizes)
    for index in range(shape[0]):
        for step in range(around):
            neighbour = min(max(index + step - context, 0), shape[0] - 1)
            np.testing.assert_array_equal(got[index, 2 * step : 2 * step + 2], slices[neighbour])


def weigh(size: int) -> npt.NDArray[np.float64]:
    """A Gaussian of an eighth of the tile about its middle, at least 1e-3: the documented definition."""
    return np.array([max(np.exp(-0.5 * ((i - (size - 1) / 2) / (size / 8)) ** 2), 1e-3) for i in range(size)])


@pytest.mark.parametrize(
    ("tile", "overlap"),
    [((24, 20), 0.5), ((10, 16), 0.9), ((70, 16), 0.3), ((6, 24, 20), 0.5), ((5, 10, 64), 0.8)],
)
def test_answers_that_differ_are_a_weighted_mean(tile: tuple[int, ...], overlap: float) -> None:
    """Against sums of products over sums of weights, held for the whole scan in float64."""
    shape = (13, 61, 53)
    slices = scan((shape[0], 1, *shape[1:]))
    laid = plan(shape, tile, overlap, network=Network(classes=2, batch=1))
    answers: list[Float32] = []

    def predict(tiles: Float32) -> Float32:
        answers.append(np.random.default_rng(len(answers)).random((1, 2, *tile), dtype=np.float32))
        return answers[-1]

    got = blend(Blender(laid, predict), slices, 8)
    depth = tile[0] if len(tile) == 3 else 1
    profile = weigh(tile[-2])[:, None] * weigh(tile[-1])
    if len(tile) == 3:
        profile = weigh(depth)[:, None, None] * profile
    padded = [max(size, side) for size, side in zip(shape, (depth, *tile[-2:]), strict=True)]
    sums, total = np.zeros((2, *padded)), np.zeros(padded)
    before = [(large - size) // 2 for large, size in zip(padded, shape, strict=True)]
    if len(tile) == 3:
        places = [(z, y, x) for z in laid.starts[0] for y in laid.starts[1] for x in laid.starts[2]]
    else:  # the slices of a slab follow each other at one place
        slabs = [range(first, min(first + laid.slab, shape[0])) for first in range(0, shape[0], laid.slab)]
        places = [(z, y, x) for slab in slabs for y in laid.starts[0] for x in laid.starts[1] for z in slab]
    for place, answer in zip(places, answers, strict=True):
        where = tuple(
            slice(at + pad, at + pad + side)
            for at, pad, side in zip(place, before, (depth, *tile[-2:]), strict=True)
        )
        sums[(slice(None), *where)] += answer[0].reshape(2, depth, *tile[-2:]) * profile
        total[where] += profile
    inside = tuple(slice(pad, pad + size) for pad, size in zip(before, shape, strict=True))
    want = (sums[(slice(None), *inside)] / total[inside]).swapaxes(0, 1)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("tile", [(16, 16), (32, 40), (6, 16, 16)])
def test_half_precision_answers_are_joined_in_float32(tile: tuple[int, ...]) -> None:
    laid = plan((8, 32, 40), tile, 0.5, network=Network(1, batch=4))
    slices = scan((8, 1, 32, 40)).astype(np.float16).astype(np.float32)

    def predict(tiles: Float32) -> npt.NDArray[np.float16]:
        return tiles.astype(np.float16)

    got = blend(Blender(laid, predict), slices)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, slices)


@pytest.mark.parametrize("tile", [(24, 30), (7, 24, 30)])
def test_padding_has_its_value_and_lies_around(tile: tuple[int, ...]) -> None:
    seen: list[Float32] = []

    def predict(tiles: Float32) -> Float32:
        seen.append(tiles.copy())
        return tiles

    laid = plan((3, 20, 20), tile, 0.5, network=Network(1, batch=5))
    slices = scan((3, 1, 20, 20))
    blend(Blender(laid, predict, pad=-7.0), slices)
    want = np.full((3, 24, 30), -7.0, np.float32)
    want[:, 2:22, 5:25] = slices[:, 0]
    if len(tile) == 3:
        want = np.pad(want, ((2, 2), (0, 0), (0, 0)), constant_values=-7.0)
    np.testing.assert_array_equal(np.concatenate(seen).reshape(want.shape), want)


def test_tiles_of_several_slices_fill_batches_and_the_last_may_be_smaller() -> None:
    sizes: list[int] = []

    def predict(tiles: Float32) -> Float32:
        sizes.append(len(tiles))
        return tiles

    laid = plan((8, 40, 40), (20, 20), 0.5, network=Network(1, batch=7))  # 9 tiles a slice
    assert laid.count == 72
    assert laid.slab == 4
    blend(Blender(laid, predict), scan((8, 1, 40, 40)), laid.slab)
    assert sizes == [7, 7, 7, 7, 7, 1] * 2


def spots(shape: tuple[int, ...], *where: tuple[slice | int, ...]) -> Float32:
    """Air, but for some places."""
    slices = np.full(shape, -1.0, np.float32)
    for each in where:
        slices[each] = scan(slices[each].shape)
    return slices


def halves(tiles: Float32) -> Float32:
    return np.repeat(np.full_like(tiles, 0.5), 2, axis=1)


def test_constant_tiles_are_left_out_and_are_background() -> None:
    slices = spots((2, 1, 32, 32), np.s_[1, 0, 3:9, 20:28])
    laid = plan((2, 32, 32), (16, 16), 0, network=Network(2, batch=3))
    blender = Blender(laid, halves, background=[1, 0])
    got = blend(blender, slices)
    assert blender.tally == Tally(predicted=1, constant=7)
    want = np.zeros((2, 2, 32, 32), np.float32)
    want[:, 0] = 1
    want[1, :, :16, 16:] = 0.5
    np.testing.assert_array_equal(got, want)


def test_a_tile_of_one_slice_that_varies_over_its_neighbours_is_predicted() -> None:
    slices = spots((2, 1, 8, 8))
    slices[1] = 0
    laid = plan((2, 8, 8), (8, 8), 0, network=Network(1, context=1))
    blender = Blender(laid, lambda tiles: tiles[:, 1:2], background=[9])
    np.testing.assert_array_equal(blend(blender, slices), slices)
    assert blender.tally == Tally(predicted=2)


@pytest.mark.parametrize("tile", [(16, 16), (4, 16, 16)])
def test_tiles_without_body_are_left_out(tile: tuple[int, ...]) -> None:
    slices = scan((4, 1, 32, 32))
    body = np.zeros((4, 32, 32), np.bool_)
    body[3, 20, 20] = True
    laid = plan((4, 32, 32), tile, 0, network=Network(1, batch=2))
    blender = Blender(laid, identity, background=[-5])
    got = np.concatenate(list(blender.run(in_slabs(slices, 3), in_slabs(body, 3))))
    want = np.full_like(slices, -5)
    kept = np.s_[:, :, 16:, 16:] if len(tile) == 3 else np.s_[3:, :, 16:, 16:]
    want[kept] = slices[kept]
    np.testing.assert_array_equal(got, want)
    assert blender.tally == (Tally(1, 0, 3) if len(tile) == 3 else Tally(1, 0, 15))


def test_bodies_go_with_their_slices_where_neighbours_are_awaited() -> None:
    slices = scan((7, 1, 8, 8))
    body = np.zeros((7, 8, 8), np.bool_)
    awake = [0, 4, 6]
    body[awake, 2, 2] = True
    laid = plan((7, 8, 8), (8, 8), 0, network=Network(1, context=2, batch=2))
    blender = Blender(laid, lambda tiles: tiles[:, 2:3], background=[-5])
    got = np.concatenate(list(blender.run(in_slabs(slices, 3, 1), in_slabs(body, 3, 1))))
    want = np.full_like(slices, -5)
    want[awake] = slices[awake]
    np.testing.assert_array_equal(got, want)
    assert blender.tally == Tally(predicted=3, outside=4)


def test_every_tile_is_predicted_where_no_background_is_given() -> None:
    slices = spots((2, 1, 32, 32))
    laid = plan((2, 32, 32), (16, 16), 0, network=Network(2))
    blender = Blender(laid, halves)
    body = np.zeros((2, 32, 32), np.bool_)
    got = np.concatenate(list(blender.run([slices], [body])))
    assert (got == 0.5).all()
    assert blender.tally == Tally(predicted=8)


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.9])
def test_left_out_tiles_keep_their_turn_among_those_that_overlap(overlap: float) -> None:
    """The shares of a mean hold for one order: a tile left out must not overtake those that wait for a batch."""
    slices = spots((3, 1, 40, 40), np.s_[:, 0, 14:27, 15:25])
    laid = plan((3, 40, 40), (12, 14), overlap, network=Network(1, batch=5))

    def predict(tiles: Float32) -> Float32:
        """Background where a tile is constant, and a ramp elsewhere."""
        constant = (tiles == -1).all(axis=(1, 2, 3), keepdims=True)
        return np.where(
            constant, np.float32(-5), np.broadcast_to(np.arange(14, dtype=np.float32), tiles.shape)
        )

    skipping = Blender(laid, predict, background=[-5])
    got = blend(skipping, slices)
    assert skipping.tally.constant > 0
    np.testing.assert_array_equal(got, blend(Blender(laid, predict), slices))


def test_a_slice_alone_is_as_in_the_run() -> None:
    slices = scan((5, 1, 30, 30))
    laid = plan((5, 30, 30), (16, 16), 0.5, network=Network(2, batch=4))

    def predict(tiles: Float32) -> Float32:
        """Depends on the place in the tile, so that blending shows."""
        ramp = np.linspace(0, 1, 16, dtype=np.float32)
        return np.concatenate([tiles * ramp, tiles * ramp[:, None]], axis=1)

    blender = Blender(laid, predict)
    whole = blend(blender, slices)
    np.testing.assert_array_equal(blender.predict_slices(slices[[3]]), whole[[3]])
    np.testing.assert_array_equal(blender.predict_slices(slices[[4, 0]]), whole[[4, 0]])
    assert blender.predict_slices(slices[:0]).shape == (0, 2, 30, 30)


def test_whole_slices_are_handed_to_the_network_and_back_without_a_copy() -> None:
    slices = scan((5, 1, 30, 30))
    given: list[Float32] = []
    answers: list[Float32] = []

    def predict(tiles: Float32) -> Float32:
        given.append(tiles)
        answers.append(tiles * 2)
        return answers[-1]

    laid = plan((5, 30, 30), (30, 30), 0.5, network=Network(1, batch=2))
    assert laid.whole
    assert laid.slab == 2
    got = list(Blender(laid, predict, background=[0]).run([slices]))
    assert all(mine is its for mine, its in zip(got, answers, strict=True))
    assert all(np.shares_memory(each, slices) for each in given)


def test_whole_slices_more_than_a_batch_are_joined() -> None:
    slices = scan((5, 1, 30, 30))
    laid = plan((5, 30, 30), (30, 30), 0.5, network=Network(1, batch=2))
    np.testing.assert_array_equal(Blender(laid, identity).predict_slices(slices), slices)


def test_the_network_gets_contiguous_float32() -> None:
    def predict(tiles: Float32) -> Float32:
        assert tiles.dtype == np.float32
        assert tiles.flags.c_contiguous
        return tiles[:, 1:2]

    slices = scan((5, 1, 12, 12)).astype(np.float64)
    for tile in [(12, 12), (8, 12), (20, 20)]:
        laid = plan((5, 12, 12), tile, 0.5, network=Network(1, context=1, batch=2))
        np.testing.assert_array_equal(blend(Blender(laid, predict), slices), slices)


def laid_out(tile: tuple[int, ...] = (8, 8)) -> TilePlan:
    return plan((4, 16, 16), tile, 0.5, network=Network(1))


@pytest.mark.parametrize("tile", [(8, 8), (3, 8, 8)])
@pytest.mark.parametrize(("count", "told"), [(3, "and 3 came"), (5, "and more came"), (0, "and 0 came")])
def test_another_number_of_slices_is_refused(tile: tuple[int, ...], count: int, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        list(Blender(laid_out(tile), identity).run([scan((count, 1, 16, 16))]))


def test_slabs_and_bodies_of_another_shape_are_refused() -> None:
    blender = Blender(laid_out(), identity)
    with pytest.raises(ValueError, match="slabs must be"):
        list(blender.run([scan((4, 16, 16))]))
    with pytest.raises(ValueError, match="a body must be"):
        list(blender.run([scan((4, 1, 16, 16))], [np.ones((3, 16, 16), np.bool_)]))
    with pytest.raises(ValueError, match="images must be"):
        blender.predict_slices(scan((4, 2, 16, 16)))


def test_an_answer_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="the network answered"):
        list(Blender(laid_out(), lambda tiles: tiles[:, :, 1:]).run([scan((4, 1, 16, 16))]))


def test_a_background_of_other_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="background must have 1"):
        Blender(laid_out(), identity, background=[1, 0])


def test_a_slice_alone_is_refused_for_tiles_of_volumes() -> None:
    with pytest.raises(ValueError, match="3-D tiles"):
        Blender(laid_out((2, 8, 8)), identity).predict_slices(scan((1, 1, 16, 16)))
