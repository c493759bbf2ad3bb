"""The network's grid, its tiles, and the way back to the scan's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.contract import Tiling
from bedside.scan import Grid
from bedside.segmentation import Segmentor, fit_grid, list_tiles
from fake_ct import make_engine, make_manifest

TILING = Tiling((256, 256), 0.25, "gaussian", multiple=32, smallest=64)


def grid_of(rows: int, columns: int, row_mm: float, column_mm: float, slices: int = 3) -> Grid:
    return Grid(
        (slices, rows, columns),
        np.array([[0, 0, column_mm, 0], [0, row_mm, 0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]]),
    )


def segmentor_of(grid: Grid, spacing: float | None, tiling: Tiling = TILING) -> Segmentor:
    spec = replace(make_manifest().input, spacing_mm=None if spacing is None else (spacing, spacing))
    manifest = make_manifest(input=spec, tiling=tiling)
    size = fit_grid(grid, spec, tiling)
    return Segmentor(manifest, make_engine(), grid, list_tiles(size, spec, tiling)[0])


@pytest.mark.parametrize(
    ("rows", "row_mm", "size"),
    [
        (512, 0.703, 256),  # 257 by the spacing: a padded tile would cost a quarter more
        (512, 0.977, 352),  # 357
        (512, 0.64, 234),  # 224 is farther than the snap reaches
        (512, 0.8, 288),  # 293
        (100, 1.4, 96),  # 100
        (40, 1.4, 40),
    ],
)
def test_network_sees_its_spacing_but_for_a_whole_tile(rows: int, row_mm: float, size: int) -> None:
    spec = replace(make_manifest().input, spacing_mm=(1.4, 1.4))
    assert fit_grid(grid_of(rows, rows, row_mm, row_mm), spec, TILING) == (size, size)


def test_network_without_spacing_sees_the_scans_own() -> None:
    assert fit_grid(grid_of(300, 200, 0.7, 0.9), make_manifest().input, TILING) == (300, 200)


def test_whole_slice_comes_first_then_what_was_tried_then_smaller() -> None:
    spec = make_manifest().input
    assert list_tiles((256, 256), spec, TILING) == [(256, 256), (128, 128), (64, 64)]
    assert list_tiles((257, 300), spec, TILING) == [(288, 320), (256, 256), (128, 128), (64, 64)]
    assert list_tiles((512, 512), spec, TILING) == [(256, 256), (128, 128), (64, 64)]
    assert list_tiles((40, 40), spec, TILING) == [(64, 64)]


def test_fixed_shape_leaves_no_choice() -> None:
    spec = replace(make_manifest().input, shape=(1, 1, 384, 384))
    assert list_tiles((512, 512), spec, replace(TILING, size=(384, 384))) == [(384, 384)]


def smooth(seed: int, kinds: int, rows: int, columns: int) -> npt.NDArray[np.float32]:
    """Probabilities with a background around blobs, as a network gives them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :columns]
    fields = [np.full((rows, columns), 0.4)]
    for _ in range(kinds - 1):
        cy, cx, size = rng.uniform(0, rows), rng.uniform(0, columns), rng.uniform(2, rows / 3)
        fields.append(np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / size**2))
    stack = np.stack(fields)
    shares: npt.NDArray[np.float32] = (stack / stack.sum(axis=0)).astype(np.float32)
    return shares


@given(st.integers(0, 10_000), st.sampled_from([(512, 0.703), (100, 1.4), (200, 0.5), (300, 3.0)]))
@settings(max_examples=25)
def test_labels_are_the_most_probable_of_all_interpolated_probabilities(
    seed: int, field: tuple[int, float]
) -> None:
    side, mm = field
    segmentor = segmentor_of(grid_of(side, side, mm, mm), 1.4)
    probabilities = smooth(seed, 5, *segmentor.size)
    spread = segmentor.spread(probabilities)
    labels = segmentor.decide(probabilities)
    differ = labels != spread.argmax(axis=0)
    top = np.sort(spread, axis=0)[-2:]
    assert (top[1] - top[0])[differ].max(initial=0) < 1e-5  # ties, by rounding


def test_spread_probabilities_keep_their_sum_and_place() -> None:
    segmentor = segmentor_of(grid_of(512, 512, 0.703, 0.703), 1.4)
    probabilities = smooth(1, 4, *segmentor.size)
    spread = segmentor.spread(probabilities)
    assert spread.shape == (4, 512, 512)
    assert spread.sum(axis=0) == pytest.approx(np.ones((512, 512)), abs=1e-5)
    assert spread.reshape(4, 256, 2, 256, 2).mean(axis=(2, 4)) == pytest.approx(probabilities, abs=0.02)


def test_preparing_leaves_the_scan_alone() -> None:
    for spacing in (None, 1.4):
        segmentor = segmentor_of(grid_of(64, 64, 0.7, 0.7), spacing)
        hu = np.full((2, 64, 64), -500, np.float32)
        images = segmentor.prepare(hu)
        assert (hu == -500).all()
        assert images.shape == (2, *segmentor.size)
        assert images == pytest.approx(np.full(images.shape, -1 + 2 * 500 / 1200), abs=1e-5)


def test_neighbours_stop_at_the_ends() -> None:
    manifest = make_manifest(
        input=replace(make_manifest().input, shape=(None, 5, None, None)), tiling=replace(TILING, context=2)
    )
    segmentor = Segmentor(manifest, make_engine(), grid_of(64, 64, 1, 1, slices=4), (64, 64))
    assert segmentor.neighbours(0) == [0, 0, 0, 1, 2]
    assert segmentor.neighbours(3) == [1, 2, 3, 3, 3]


@pytest.mark.parametrize(
    ("context_mm", "expected"),
    [
        (0.0, [3, 4, 5, 6, 7]),  # the next ones, however far
        (2.0, [3, 4, 5, 6, 7]),
        (3.0, [1, 3, 5, 7, 9]),  # 1.5 slices: 4 mm
        (3.9, [1, 3, 5, 7, 9]),
        (6.0, [0, 2, 5, 8, 9]),
        (1.4, [3, 4, 5, 6, 7]),
        (1.3, [5, 5, 5, 5, 5]),  # 2 mm are over half as far again
    ],
)
def test_neighbours_lie_as_far_as_the_network_learnt(context_mm: float, expected: list[int]) -> None:
    manifest = make_manifest(
        input=replace(make_manifest().input, shape=(None, 5, None, None)),
        tiling=replace(TILING, context=2, context_mm=context_mm),
    )
    segmentor = Segmentor(manifest, make_engine(), grid_of(64, 64, 1, 1, slices=10), (64, 64))
    assert segmentor.neighbours(5) == expected


def test_neighbours_are_counted_along_the_normal_where_the_gantry_is_tilted() -> None:
    manifest = make_manifest(
        input=replace(make_manifest().input, shape=(None, 3, None, None)),
        tiling=replace(TILING, context=1, context_mm=4.0),
    )
    affine = grid_of(64, 64, 1, 1).affine.copy()
    affine[1, 0] = (
        3.0  # the next slice's origin is 3 mm lower in the plane: 3.6 mm away, and 2 mm along the normal
    )
    segmentor = Segmentor(manifest, make_engine(), Grid((9, 64, 64), affine), (64, 64))
    assert segmentor.neighbours(4) == [2, 4, 6]


def test_body_reaches_from_its_first_to_its_last_voxel() -> None:
    segmentor = segmentor_of(grid_of(64, 64, 1, 1), None, replace(TILING, skip="body"))
    images = np.full((2, 1, 64, 64), -1, np.float32)
    images[0, 0, 10, 20] = images[0, 0, 30, 25] = 0.5
    body = segmentor.find_body(images)
    assert body[0, 10:31, 20:26].all()
    assert body.sum() == 21 * 6
