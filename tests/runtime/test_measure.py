"""Volumes and overlap of label maps, against counts by hand and a second implementation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bedside.errors import RefusedError
from bedside.measure import Overlap, check_same_grid, cross_tabulate, volumes_ml
from bedside.scan import Grid

Labels = npt.NDArray[np.uint8]

AFFINE = np.diag([5.0, 0.8, 0.8, 1.0])
"""Slices 5 mm apart, pixels of 0.8 mm: a voxel is 0.0032 mL."""
SHEARED = np.array([[0.0, 0, 0.7, -10], [1.5, 0.7, 0, 20], [5, 0, 0, -300], [0, 0, 0, 1]])
"""Tilted gantry: each slice 1.5 mm further back; the volume of a voxel is 5 x 0.7 x 0.7 mm3 all the same."""

label_maps = arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 4))


def make(*filled: tuple[int, int]) -> Labels:
    """``(2, 4, 5)``: from voxel 0 on, ``count`` voxels of each ``(label, count)``."""
    flat = np.zeros(40, np.uint8)
    start = 0
    for label, count in filled:
        flat[start : start + count] = label
        start += count
    return flat.reshape(2, 4, 5)


def test_volume_is_voxels_times_their_volume_and_background_is_none() -> None:
    found = volumes_ml(make((3, 10), (4, 5)), AFFINE)
    assert found == pytest.approx({3: 10 * 5 * 0.8 * 0.8 / 1000, 4: 5 * 5 * 0.8 * 0.8 / 1000})


def test_volume_under_a_shear_is_that_of_the_parallelepiped() -> None:
    assert volumes_ml(make((1, 8)), SHEARED) == pytest.approx({1: 8 * 5 * 0.7 * 0.7 / 1000})


def test_volume_of_nothing_is_nothing() -> None:
    assert volumes_ml(make(), AFFINE) == {}


def test_overlap_counted_by_hand() -> None:
    first, second = make((3, 10)), make((0, 4), (3, 8))  # voxels 0 to 9 and 4 to 11: 6 shared, 12 in either
    found = cross_tabulate(first, second, AFFINE).overlap({3})
    assert found.dice == pytest.approx(2 * 6 / 18)
    assert found.iou == pytest.approx(6 / 12)
    assert found.difference_ml == pytest.approx(-2 * 0.0032)
    assert found.difference_percent == pytest.approx(-20)
    assert found.empty == ""


def test_a_group_counts_a_confusion_within_it_as_agreement() -> None:
    # the opacity IoU of Lensink et al. 2020: the patterns are taken together
    first, second = make((2, 6), (3, 6)), make((3, 6), (4, 6))
    table = cross_tabulate(first, second, AFFINE)
    assert table.overlap({2, 3, 4}).iou == 1
    assert [table.overlap({label}).iou for label in (2, 3, 4)] == [0, 0, 0]


def test_the_same_part_may_have_other_labels_in_the_second_map() -> None:
    table = cross_tabulate(make((1, 10)), make((3, 4), (4, 6)), AFFINE)
    assert table.overlap({1}, {3, 4}).dice == 1


def test_masks_that_are_both_empty_have_no_dice_no_iou_and_no_percentage() -> None:
    found = cross_tabulate(make(), make(), AFFINE).overlap({1})
    assert (found.dice, found.iou, found.difference_percent, found.empty) == (None, None, None, "both")
    assert found.difference_ml == 0


@pytest.mark.parametrize(
    ("first", "second", "empty", "percent"),
    [(make(), make((1, 10)), "first", None), (make((1, 10)), make(), "second", -100.0)],
)
def test_one_empty_mask_is_a_dice_of_nought_and_says_which(
    first: Labels, second: Labels, empty: str, percent: float | None
) -> None:
    found = cross_tabulate(first, second, AFFINE).overlap({1})
    assert (found.dice, found.iou, found.empty) == (0, 0, empty)
    assert found.difference_percent == (None if percent is None else pytest.approx(percent))


def test_overlaps_add_up_by_volume() -> None:
    whole = Overlap(10, 10, 10) + Overlap(30, 30, 0)
    assert whole.dice == pytest.approx(0.25)
    assert Overlap(10, 10, 10) + Overlap(0, 0, 0) == Overlap(10, 10, 10)


@settings(max_examples=50)
@given(label_maps, label_maps)
def test_overlap_is_what_masks_say(first: Labels, second: Labels) -> None:
    table = cross_tabulate(first, second, AFFINE)
    for labels in ({1}, {2, 3}, {1, 2, 3, 4}):
        one, other = np.isin(first, list(labels)), np.isin(second, list(labels))
        found = table.overlap(labels)
        total, union = one.sum() + other.sum(), (one | other).sum()
        assert found.dice == (pytest.approx(2 * (one & other).sum() / total) if total else None)
        assert found.iou == (pytest.approx((one & other).sum() / union) if union else None)


@settings(max_examples=25)
@given(label_maps, label_maps)
def test_swapping_the_maps_swaps_the_volumes_only(first: Labels, second: Labels) -> None:
    there = cross_tabulate(first, second, AFFINE).overlap({1, 2})
    back = cross_tabulate(second, first, AFFINE).overlap({1, 2})
    assert (there.dice, there.iou) == (back.dice, back.iou)
    assert there.difference_ml == pytest.approx(-back.difference_ml)


@pytest.mark.parametrize("label", [1, 2, 3])
def test_overlap_agrees_with_simpleitk(label: int) -> None:
    sitk = pytest.importorskip("SimpleITK", reason="compares with SimpleITK, which is not installed")
    rng = np.random.default_rng(label)
    first, second = (rng.integers(0, 4, (7, 11, 13)).astype(np.uint8) for _ in range(2))
    ours = cross_tabulate(first, second, AFFINE).overlap({label})
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.Execute(sitk.GetImageFromArray(first), sitk.GetImageFromArray(second))  # source, target
    assert ours.dice == pytest.approx(measures.GetDiceCoefficient(label))
    assert ours.iou == pytest.approx(measures.GetJaccardCoefficient(label))
    # ITK's similarity is 2 (source - target) / (source + target)
    similarity = -2 * ours.difference_ml / (ours.first_ml + ours.second_ml)
    assert similarity == pytest.approx(measures.GetVolumeSimilarity(label))


def test_other_shapes_are_refused() -> None:
    with pytest.raises(RefusedError, match="2 x 4 x 5 and 2 x 4 x 6 voxels") as caught:
        cross_tabulate(make(), np.zeros((2, 4, 6), np.uint8), AFFINE)
    assert caught.value.code == "not-comparable"


@pytest.mark.parametrize("value", [-1, 256])
def test_labels_outside_8_bits_are_refused(value: int) -> None:
    labels = make().astype(np.int32)
    labels[0, 0, 0] = value
    for call in (lambda: volumes_ml(labels, AFFINE), lambda: cross_tabulate(make(), labels, AFFINE)):
        with pytest.raises(RefusedError, match="labels from 0 to 255") as caught:
            call()
        assert caught.value.code == "not-comparable"


@pytest.mark.parametrize("labels", [np.zeros((2, 2, 2)), np.zeros((2, 2), np.uint8)])
def test_what_is_no_label_map_is_a_defect_of_the_caller(labels: npt.NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="integers"):
        volumes_ml(labels, AFFINE)


def test_a_grid_is_the_same_but_for_rounding_of_its_file() -> None:
    grid = Grid((300, 512, 512), SHEARED)
    rounded = Grid(grid.shape, SHEARED.astype(np.float32).astype(np.float64))
    check_same_grid(grid, rounded)


def test_grids_apart_are_refused_with_how_far() -> None:
    moved = SHEARED.copy()
    moved[2, 3] += 3.0
    with pytest.raises(RefusedError, match="3 mm apart") as caught:
        check_same_grid(Grid((3, 4, 5), SHEARED), Grid((3, 4, 5), moved))
    assert caught.value.code == "not-comparable"


def test_a_grid_of_another_spacing_is_refused_although_its_origin_is_the_same() -> None:
    wider = SHEARED.copy()
    wider[:3, 2] *= 1.01  # 1 % over 500 columns are 5 voxels
    with pytest.raises(RefusedError, match="the affines differ"):
        check_same_grid(Grid((3, 4, 500), SHEARED), Grid((3, 4, 500), wider))


def test_a_grid_of_another_shape_is_refused() -> None:
    with pytest.raises(RefusedError, match="3 x 4 x 5 and 3 x 4 x 6 voxels"):
        check_same_grid(Grid((3, 4, 5), AFFINE), Grid((3, 4, 6), AFFINE))
