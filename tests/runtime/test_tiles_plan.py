"""A plan covers the scan evenly, holds its budget of memory, and says what would do where it can't."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bedside.errors import LimitError
from bedside.tiles import Blender, Network, TilePlan, least_memory, plan

sides = st.integers(1, 3000)


@given(sides, st.integers(1, 600), st.integers(0, 99))
@example(512, 256, 50)
@example(10, 10, 99)
@example(50, 10, 80)
def test_tiles_are_evenly_spread_and_overlap_as_asked(size: int, tile: int, percent: int) -> None:
    overlap = percent / 100
    (starts, _) = plan((1, size, 1), (tile, 1), overlap, network=Network(1)).starts
    if size <= tile:
        assert starts == (-((tile - size) // 2),)
        return
    assert starts[0] == 0
    assert starts[-1] == size - tile
    gaps = [after - before for before, after in pairwise(starts)]
    assert max(gaps) - min(gaps) <= 1
    # in hundredths, where nothing is rounded; a tile moves by one sample at least
    assert all(100 * (tile - gap) >= percent * tile or gap == 1 for gap in gaps)
    fewer = len(gaps) - 1
    widest = max(1, tile * (100 - percent) // 100)
    assert fewer * widest < size - tile, "one tile fewer would do"


def test_starts_of_a_slice_of_512() -> None:
    laid = plan((300, 512, 512), (256, 256), 0.5, network=Network(5))
    assert laid.starts == ((0, 128, 256), (0, 128, 256))
    assert laid.count == 2700
    assert plan((300, 512, 512), (96, 256, 256), 0.5, network=Network(5)).count == 9 * 6


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tile": (8,)}, "shape must be"),
        ({"tile": (0, 8)}, "shape must be"),
        ({"shape": (0, 8, 8)}, "shape must be"),
        ({"overlap": 1.0}, "overlap must be"),
        ({"overlap": -0.1}, "overlap must be"),
        ({"overlap": float("nan")}, "overlap must be"),
        ({"weights": "cosine"}, "weights must be"),
        ({"tile": (4, 8, 8), "network": Network(1, context=1)}, "context is for 2-D"),
    ],
)
def test_arguments_out_of_range_are_refused(changes: dict[str, Any], told: str) -> None:
    arguments: dict[str, Any] = {"shape": (8, 8, 8), "tile": (4, 4), "overlap": 0.5, "network": Network(1)}
    with pytest.raises(ValueError, match=told):
        plan(**{**arguments, **changes})


@pytest.mark.parametrize("counts", [{"classes": 0}, {"channels": 0}, {"batch": 0}, {"context": -1}])
def test_networks_without_channels_are_refused(counts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least"):
        Network(**{"classes": 1, **counts})


shapes = st.tuples(st.integers(1, 400), st.integers(1, 600), st.integers(1, 600))
tiles = st.lists(st.integers(1, 300), min_size=2, max_size=3).map(tuple)
networks = st.builds(Network, st.integers(1, 6), st.integers(1, 3), st.just(0), st.integers(1, 16))


@settings(deadline=None, max_examples=40)
@given(shapes, tiles, st.floats(0, 0.9), networks, st.floats(0, 4))
def test_the_budget_holds_and_the_least_that_is_named_works(
    shape: tuple[int, int, int], tile: tuple[int, ...], overlap: float, network: Network, room: float
) -> None:
    least = least_memory(shape, tile, network)
    laid = plan(shape, tile, overlap, network=network, memory=int(least * (1 + room)))
    assert laid.memory <= least * (1 + room)
    assert laid.slab >= 1
    assert 1 <= laid.batch <= network.batch
    assert plan(shape, tile, overlap, network=network, memory=least).memory == least
    with pytest.raises(LimitError) as caught:
        plan(shape, tile, overlap, network=network, memory=least - 1)
    assert caught.value.code == "memory-too-small"
    assert f"{-(-least // 2**20)} MiB" in caught.value.message


def test_slabs_shrink_before_batches() -> None:
    network = Network(5, batch=8)
    free = plan((300, 512, 512), (256, 256), 0.5, network=network)
    tight = plan((300, 512, 512), (256, 256), 0.5, network=network, memory=free.memory * 2 // 3)
    least = plan(
        (300, 512, 512),
        (256, 256),
        0.5,
        network=network,
        memory=least_memory((300, 512, 512), (256, 256), network),
    )
    assert (free.slab, free.batch) == (4, 8)
    assert tight.slab < 4
    assert tight.batch == 8
    assert (least.slab, least.batch) == (1, 1)


def measure_peak(laid: TilePlan) -> int:
    """Most bytes that Python and numpy held while a scan went through, slabs made as they are asked for."""

    def slabs() -> Iterator[npt.NDArray[np.float32]]:
        for first in range(0, laid.shape[0], laid.slab):
            count = min(laid.slab, laid.shape[0] - first)
            slab = np.empty((count, laid.network.channels, *laid.shape[1:]), np.float32)
            slab[:] = np.arange(laid.shape[2])
            yield slab

    def predict(given: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.zeros((len(given), laid.network.classes, *laid.tile), np.float32)

    blender = Blender(laid, predict, background=[0] * laid.network.classes)
    tracemalloc.start()
    try:
        seen = 0
        for joined in blender.run(slabs()):
            seen += len(joined)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen == laid.shape[0]
    return peak


@pytest.mark.parametrize(
    ("tile", "network"),
    [
        ((96, 96), Network(5, batch=8)),
        ((192, 192), Network(5, batch=4)),
        ((256, 200), Network(2, batch=4)),
        ((96, 96), Network(5, context=2, batch=8)),
        ((192, 192), Network(3, context=1, batch=4)),
        ((32, 96, 96), Network(5, batch=2)),
        ((200, 96, 96), Network(2, batch=1)),
    ],
)
@pytest.mark.parametrize("least", [False, True])
def test_no_more_is_held_than_the_plan_says(tile: tuple[int, ...], network: Network, least: bool) -> None:
    shape = (64, 192, 192)
    memory = least_memory(shape, tile, network) if least else None
    laid = plan(shape, tile, 0.5, network=network, memory=memory)
    bookkeeping = 1 << 17  # of spans and Python's own objects
    assert measure_peak(laid) <= laid.memory + bookkeeping


@pytest.mark.parametrize("tile", [(64, 64), (16, 64, 64)])
def test_memory_does_not_grow_with_the_slices(tile: tuple[int, ...]) -> None:
    short, long = (plan((count, 96, 96), tile, 0.5, network=Network(3, batch=4)) for count in (40, 400))
    assert long.memory == short.memory
    assert measure_peak(long) <= 1.02 * measure_peak(short)
