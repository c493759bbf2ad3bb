"""Where the voxels of NIfTI lie: nibabel says it, and what contradicts itself is refused or told."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bedside.nifti.reading import NiftiScan, read_nifti
from bedside.nifti.voxels import Voxels
from nifti_files import AFFINE, HU, RAS, TURN, image, nib, orientations, patched, refusal, save, whole

CODES = ["".join(code) for axes in permutations(("LR", "PA", "IS")) for code in product(*axes)]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return save(tmp_path / "a.nii")


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_every_order_of_axes_reads_as_the_same_canonical_scan(tmp_path: Path, code: str, name: str) -> None:
    made = image()
    turn = orientations.ornt_transform(nib.io_orientation(made.affine), orientations.axcodes2ornt(code))
    path = save(tmp_path / name, made.as_reoriented(turn))
    assert nib.aff2axcodes(nib.load(path).affine) == tuple(code)

    with NiftiScan(Voxels(path, buffer_bytes=500)) as scan:  # two planes at a time, or one
        np.testing.assert_allclose(scan.grid.affine, AFFINE, atol=1e-4)
        np.testing.assert_array_equal(whole(scan), HU)


@pytest.mark.parametrize(
    "change",
    [
        np.diag([1.0, 1, 1]),
        np.diag([-1.0, 1, 1]),
        TURN,
        TURN @ np.diag([1, -1, 1]),
        np.array([[1, 0, 0], [0, 1, 0.3], [0, 0, 1]]),
        TURN @ np.array([[1, 0, 0], [0, 1, -0.2], [0, 0, 1]]),
        np.array([[0, 0, 1.0], [1, 0, 0], [0, 1, 0]]) @ TURN,
    ],
    ids=["plain", "left-handed", "oblique", "oblique left-handed", "sheared", "sheared oblique", "sagittal"],
)
def test_each_voxel_lies_where_nibabel_says(tmp_path: Path, change: npt.NDArray[np.float64]) -> None:
    made = nib.Nifti1Image(HU.T, np.eye(4))
    affine = np.diag([0.8, 0.7, 2.5, 1.0])
    affine[:3, :3] = change @ affine[:3, :3]
    affine[:3, 3] = (30, -40, 50)
    made.set_sform(affine, 1)
    made.set_qform(None, 0)
    made.header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    path = save(tmp_path / "a.nii.gz", made)

    with read_nifti(path) as scan:
        values, grid = whole(scan), scan.grid

    assert grid.affine[2, 0] > 0
    assert grid.affine[1, 1] > 0
    assert grid.affine[0, 2] > 0
    for value in (-900, -123, 0, 77, 419):
        ours = grid.affine @ [*np.argwhere(values == value)[0], 1]
        theirs = nib.load(path).affine @ [*np.argwhere(value == HU.T)[0], 1]
        np.testing.assert_allclose(ours, RAS @ theirs, atol=1e-4)


@pytest.mark.parametrize(
    "turn",
    [
        np.eye(3),
        TURN,
        TURN.T @ TURN.T,
        np.diag([1.0, -1, -1]),
        np.diag([-1.0, -1, 1]),
        np.diag([-1.0, 1, -1]),
    ],
)
@pytest.mark.parametrize("handedness", [1, -1])
def test_a_quaternion_reads_as_nibabel_reads_it(
    tmp_path: Path, turn: npt.NDArray[np.float64], handedness: int
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = turn * [0.8, 0.7, 2.5 * handedness]
    affine[:3, 3] = (10, 20, 30)
    made = nib.Nifti1Image(HU.T, None)
    made.set_qform(affine, 1)
    path = save(tmp_path / "a.nii", made)
    reference = nib.load(path)
    assert (reference.header["sform_code"], reference.header["qform_code"]) == (0, 1)

    with read_nifti(path) as scan:
        values, grid = whole(scan), scan.grid

    for value in (-900, 0, 419):
        theirs = RAS @ reference.affine @ [*np.argwhere(value == HU.T)[0], 1]
        np.testing.assert_allclose(grid.affine @ [*np.argwhere(values == value)[0], 1], theirs, atol=1e-4)


@pytest.mark.parametrize(("code", "millimetres"), [("meter", 1000), ("micron", 0.001), ("unknown", 1)])
def test_units_of_length_count(tmp_path: Path, code: str, millimetres: float) -> None:
    affine = AFFINE.copy()
    affine[:3] /= millimetres
    made = image(affine=affine)
    made.header.set_xyzt_units(code)
    with read_nifti(save(tmp_path / "a.nii", made)) as scan:
        np.testing.assert_allclose(scan.grid.affine, AFFINE, atol=1e-4)


def test_a_wrong_unit_of_length_is_refused(plain: Path) -> None:
    error = refusal(patched(plain, 123, "B", 1))
    assert error.code == "improper-geometry"
    assert "800 x 700 x 2.5e+03 mm" in error.message or "2.5e+03 x 700 x 800 mm" in error.message


def test_a_file_without_orientation_is_refused_unless_it_is_stated(tmp_path: Path) -> None:
    made = nib.Nifti1Image(HU.T, None)
    made.header["pixdim"][1:4] = (0.8, 0.7, 2.5)
    path = save(tmp_path / "a.nii.gz", made)

    error = refusal(path)
    assert error.code == "improper-geometry"
    assert "left and right" in error.message

    for stated, expected in (("LPS", HU), ("RAS", HU[:, ::-1, ::-1]), ("LPI", HU[::-1])):
        with read_nifti(path, orientation=stated) as scan:
            np.testing.assert_array_equal(whole(scan), expected)
            assert scan.grid.spacing_mm == pytest.approx((2.5, 0.7, 0.8))
            assert [(entry.finding, entry.decision) for entry in scan.ledger] == [
                ("orientation-stated", "mended")
            ]
    for wrong in ("LRS", "xyz", "RA", "ras"):
        with pytest.raises(ValueError, match="orientation must be"):
            read_nifti(path, orientation=wrong)


def test_a_stated_orientation_does_not_override_the_file(plain: Path) -> None:
    with read_nifti(plain, orientation="RAS") as scan:
        np.testing.assert_array_equal(whole(scan), HU)
        assert scan.ledger == ()


def test_transforms_that_disagree_on_the_sides_are_refused(tmp_path: Path) -> None:
    made = image()
    made.set_sform(made.affine, 1)
    made.set_qform(made.affine @ np.diag([-1, 1, 1, 1]), 1)
    error = refusal(save(tmp_path / "a.nii", made))
    assert error.code == "improper-geometry"
    assert "contradict" in error.message


@pytest.mark.parametrize(("factor", "outcome"), [(1.0005, 0), (1.005, 0.5), (1.02, None)])
def test_voxel_sizes_that_disagree_with_the_sform_are_bounded_or_refused(
    plain: Path, factor: float, outcome: float | None
) -> None:
    path = patched(plain, 80, "f", 0.8 * factor)
    if outcome is None:
        assert refusal(path).code == "improper-geometry"
        return
    with read_nifti(path) as scan:
        assert sum(entry.volume_error_percent for entry in scan.ledger) == pytest.approx(outcome, abs=0.01)
        assert scan.grid.voxel_ml == pytest.approx(0.8 * 0.7 * 2.5 / 1000)


def test_a_singular_sform_leaves_the_qform(tmp_path: Path) -> None:
    made = image()
    made.set_qform(made.affine, 1)
    with read_nifti(patched(save(tmp_path / "a.nii", made), 280, "12f", *[0] * 12)) as scan:
        np.testing.assert_allclose(scan.grid.affine, AFFINE, atol=1e-4)
        assert [entry.finding for entry in scan.ledger] == ["sform-unusable"]


def test_a_unit_affine_is_told(tmp_path: Path) -> None:
    with read_nifti(save(tmp_path / "a.nii", nib.Nifti1Image(HU.T, np.eye(4)))) as scan:
        assert [(entry.finding, entry.decision) for entry in scan.ledger] == [("unit-affine", "accepted")]
