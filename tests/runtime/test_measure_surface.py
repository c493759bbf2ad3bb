"""Distance between surfaces: exact shapes, brute force under any affine, and SimpleITK."""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bedside.errors import MissingExtraError
from bedside.measure import SurfaceDistance, surface_distance

pytest.importorskip("scipy", reason="needs the extra stats")

Mask = npt.NDArray[np.bool_]

SPACING = (5.0, 0.7, 0.8)
AFFINE = np.diag([*SPACING, 1.0])
SHEARED = np.array([[0.0, 0.1, 0.7, -10], [1.5, 0.7, 0, 20], [5, 0, 0.2, -300], [0, 0, 0, 1]])

masks = arrays(np.bool_, (3, 4, 4))


def ball(shape: tuple[int, int, int], centre: tuple[float, float, float], radius_mm: float) -> Mask:
    offsets = [
        (np.arange(size) - middle) * step for size, middle, step in zip(shape, centre, SPACING, strict=True)
    ]
    z, y, x = np.meshgrid(*offsets, indexing="ij")
    return np.asarray(z**2 + y**2 + x**2 <= radius_mm**2)


def brute_force(first: Mask, second: Mask, affine: npt.NDArray[np.float64]) -> SurfaceDistance:
    """Each surface voxel against each, in mm."""
    points = []
    for mask in (first, second):
        wide = np.pad(mask, 1)
        surface = [
            (index - 1) @ affine[:3, :3].T
            for index in np.argwhere(wide)
            if any(not wide[tuple(index + step)] for step in (*np.eye(3, dtype=int), *-np.eye(3, dtype=int)))
        ]
        points.append(np.array(surface))
    distances = np.linalg.norm(points[0][:, None] - points[1][None], axis=2)
    there, back = distances.min(axis=1), distances.min(axis=0)
    return SurfaceDistance(
        float(np.concatenate([there, back]).mean()),
        float(max(there.max(), back.max())),
        float(max(np.percentile(there, 95), np.percentile(back, 95))),
    )


def approx(distance: SurfaceDistance) -> list[object]:
    return [pytest.approx(value, abs=1e-9) for value in listed(distance)]


def listed(distance: SurfaceDistance | None) -> list[float]:
    assert distance is not None
    return [distance.mean_mm, distance.hausdorff_mm, distance.hausdorff95_mm]


def test_a_mask_is_at_no_distance_from_itself() -> None:
    mask = ball((9, 40, 40), (4, 20, 20), 12)
    assert listed(surface_distance(mask, mask, AFFINE)) == [0, 0, 0]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_single_voxels_are_apart_by_the_spacing_of_the_axis(axis: int) -> None:
    first, second = np.zeros((5, 5, 5), bool), np.zeros((5, 5, 5), bool)
    first[1, 1, 1] = True
    second[tuple(1 + 2 * (np.arange(3) == axis))] = True
    assert listed(surface_distance(first, second, AFFINE)) == pytest.approx([2 * SPACING[axis]] * 3)


def test_a_plate_moved_by_one_slice_is_a_slice_away() -> None:
    first, second = np.zeros((4, 6, 6), bool), np.zeros((4, 6, 6), bool)
    first[1], second[2] = True, True
    assert listed(surface_distance(first, second, AFFINE)) == pytest.approx([5.0] * 3)


def test_an_outlier_moves_the_hausdorff_distance_and_not_the_95_percent_one() -> None:
    first, second = np.zeros((4, 30, 30), bool), np.zeros((4, 30, 30), bool)
    first[1, 2:22, 2:22] = second[1, 2:22, 2:22] = True
    second[1, 28, 2] = True
    found = surface_distance(first, second, AFFINE)
    assert found is not None
    assert found.hausdorff_mm == pytest.approx(7 * 0.7)  # row 28 from row 21
    assert found.hausdorff95_mm == 0


@pytest.mark.parametrize("filled", [(), (0,), (1,)])
def test_an_empty_mask_is_at_no_distance(filled: tuple[int, ...]) -> None:
    pair = [np.zeros((3, 3, 3), bool), np.zeros((3, 3, 3), bool)]
    for index in filled:
        pair[index][1] = True
    assert surface_distance(pair[0], pair[1], AFFINE) is None


@settings(max_examples=40)
@given(masks, masks, st.sampled_from([AFFINE, SHEARED]))
def test_distance_is_that_of_brute_force(first: Mask, second: Mask, affine: npt.NDArray[np.float64]) -> None:
    found = surface_distance(first, second, affine)
    if not first.any() or not second.any():
        assert found is None
    else:
        assert listed(found) == approx(brute_force(first, second, affine))


@pytest.mark.parametrize("seed", range(3))
def test_distance_agrees_with_simpleitk(seed: int) -> None:
    sitk = pytest.importorskip("SimpleITK", reason="compares with SimpleITK, which is not installed")
    rng = np.random.default_rng(seed)
    shape = (11, 45, 45)
    pair = [ball(shape, tuple(rng.uniform((4, 18, 18), (6, 26, 26))), rng.uniform(6, 14)) for _ in range(2)]
    contours = []
    for mask in pair:
        image = sitk.GetImageFromArray(mask.astype(np.uint8))
        image.SetSpacing(SPACING[::-1])  # ITK's are (x, y, z)
        contours.append(sitk.LabelContour(image, fullyConnected=False))
    hausdorff = sitk.HausdorffDistanceImageFilter()  # between sets of voxels: of the surfaces, here
    hausdorff.Execute(*contours)
    each = []
    for one, other in (contours, contours[::-1]):
        field = sitk.SignedMaurerDistanceMap(other, squaredDistance=False, useImageSpacing=True)
        each.append(np.abs(sitk.GetArrayFromImage(field))[sitk.GetArrayFromImage(one) > 0])
    found = surface_distance(pair[0], pair[1], AFFINE)
    assert found is not None
    assert found.hausdorff_mm == pytest.approx(hausdorff.GetHausdorffDistance(), abs=1e-5)  # ITK: 32 bits
    assert found.mean_mm == pytest.approx(np.concatenate(each).mean(), abs=1e-5)
    assert found.hausdorff95_mm == pytest.approx(max(np.percentile(part, 95) for part in each), abs=1e-5)


def test_masks_of_other_shapes_are_a_defect_of_the_caller() -> None:
    with pytest.raises(ValueError, match="not of one grid"):
        surface_distance(np.ones((2, 2, 2), bool), np.ones((2, 2, 3), bool), AFFINE)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.spatial", None)
    with pytest.raises(MissingExtraError, match=r"bedside\[stats\]"):
        surface_distance(np.ones((2, 2, 2), bool), np.ones((2, 2, 2), bool), AFFINE)
