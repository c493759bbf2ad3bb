"""The table of CT cases: right or left, front or back, head or feet, how much, and what the ledger says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bedside import dicom
from bedside.dicom.ledger import GeometryError
from bedside.scan import Entry, Grid
from dicom_series import (
    ARMS,
    AXIAL,
    CORNER_HU,
    LUNG_ML,
    Encoding,
    make_multiframe,
    make_series,
    measure_ml,
    scan,
    write_multiframe,
    write_series,
)
from reference_ct import CT_CASES, GEOMETRIES, CtCase, make_case

ROUNDING_HU = 0.5
"""HU are stored as whole numbers."""


def read(
    path: Path, *, allow_missing: bool = False
) -> tuple[npt.NDArray[np.float32], Grid, tuple[Entry, ...]]:
    with dicom.read_series(path, allow_missing=allow_missing, threads=2) as series:
        hu = series.read(range(series.grid.shape[0]))
        return hu, series.grid, series.ledger


def check_marker(hu: npt.NDArray[np.float32]) -> None:
    """Each arm leaves the corner along its own axis of the array, towards growing indices."""
    corner = np.median(np.argwhere(np.abs(hu - CORNER_HU) < 1), axis=0)
    for axis, name in enumerate(("head", "back", "left")):
        voxels = np.argwhere(np.abs(hu - ARMS[name][0]) < 1)
        assert len(voxels) > 20
        way = np.median(voxels, axis=0) - corner
        assert np.argmax(np.abs(way)) == axis, name
        assert way[axis] > 5, name


def check_exact(hu: npt.NDArray[np.float32], grid: Grid, *, exchanged: bool = False) -> None:
    """Each voxel is what the phantom is where the grid says that the voxel lies.

    Where rows and columns were ``exchanged``, the phantom is voxelised by columns too: its partial volumes are
    exact along the one and sampled along the other.
    """
    assert hu.shape == grid.shape
    if exchanged:
        depth, rows, columns = grid.shape
        expected = scan(Grid((depth, columns, rows), grid.affine[:, [0, 2, 1, 3]])).transpose(0, 2, 1)
    else:
        expected = scan(grid)
    np.testing.assert_allclose(hu, expected, atol=ROUNDING_HU + 0.02)


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("frames", [False, True], ids=["files", "frames"])
def test_every_geometry_is_put_in_canonical_order(name: str, frames: bool, tmp_path: Path) -> None:
    stored, position, findings = GEOMETRIES[name]
    slices = make_series(stored, PatientPosition=position, SliceThickness=3.0)
    if frames:
        path = write_multiframe(tmp_path / "all.dcm", make_multiframe(slices))
    else:
        path = write_series(tmp_path / "series", slices)

    hu, grid, ledger = read(path)

    assert tuple(entry.finding for entry in ledger) == findings
    assert {entry.decision for entry in ledger} <= {"accepted"}
    assert sum(entry.volume_error_percent for entry in ledger) == 0
    assert np.linalg.det(grid.affine[:3, :3]) != 0
    assert all(grid.affine[row, column] > 0 for row, column in ((2, 0), (1, 1), (0, 2)))
    check_exact(hu, grid, exchanged=abs(stored.affine[0, 1]) > abs(stored.affine[0, 2]))
    check_marker(hu)
    assert measure_ml(hu, grid) == pytest.approx(LUNG_ML, rel=0.01)


@pytest.mark.parametrize("case", [case for case in CT_CASES if not case.refused], ids=lambda case: case.name)
def test_what_is_accepted_or_mended_gives_the_volume(case: CtCase, tmp_path: Path) -> None:
    path = write_series(tmp_path / "series", make_case(case))
    if case.needs_leave:
        with pytest.raises(GeometryError) as caught:
            read(path)
        assert caught.value.code == "missing-slices"
        assert caught.value.ledger[-1].decision == "refused"
        assert "--allow-missing" in str(caught.value)

    hu, grid, ledger = read(path, allow_missing=case.needs_leave)

    assert tuple((entry.finding, entry.decision) for entry in ledger) == case.findings
    check_marker(hu)
    measured = measure_ml(hu, grid)
    assert measured == pytest.approx(LUNG_ML, rel=0.01)
    if case.exact:
        check_exact(hu, grid)
    else:
        bound = sum(entry.volume_error_percent for entry in ledger) / 100
        regular = measure_ml(scan(AXIAL), AXIAL)
        assert bound > 0
        assert abs(measured / regular - 1) <= bound


@pytest.mark.parametrize("case", [case for case in CT_CASES if case.refused], ids=lambda case: case.name)
def test_what_makes_no_volume_is_refused(case: CtCase, tmp_path: Path) -> None:
    path = write_series(tmp_path / "series", make_case(case))

    with pytest.raises(GeometryError) as caught:
        read(path, allow_missing=True)

    error = caught.value
    assert error.code == case.refused
    assert tuple((entry.finding, entry.decision) for entry in error.ledger) == case.findings
    assert "\n" not in str(error)
    assert str(error) == error.ledger[-1].text


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "per frame"])
@pytest.mark.parametrize(
    "encoding",
    [
        Encoding(),
        Encoding(compressed=True),
        Encoding(compressed=True, fragments=3),
        Encoding(compressed=True, fragments=3, table="basic"),
        Encoding(compressed=True, table="extended"),
    ],
    ids=["native", "one fragment", "fragments", "basic table", "extended table"],
)
def test_frames_are_found_however_they_are_stored(shared: bool, encoding: Encoding, tmp_path: Path) -> None:
    slices = make_series()[20:60]
    path = write_multiframe(
        tmp_path / "all.dcm", make_multiframe(slices[::-1], shared=shared, encoding=encoding)
    )

    hu, grid, ledger = read(path)

    assert ledger == ()
    check_exact(hu, grid)


def test_each_frame_has_its_own_rescale(tmp_path: Path) -> None:
    case = next(case for case in CT_CASES if case.name == "mixed rescale")
    path = write_multiframe(tmp_path / "all.dcm", make_multiframe(make_case(case)))

    hu, grid, ledger = read(path)

    assert [entry.finding for entry in ledger] == ["mixed-rescale"]
    check_exact(hu, grid)


def test_a_frame_without_a_position_counts_as_missing(tmp_path: Path) -> None:
    dataset = make_multiframe(make_series())
    del dataset.PerFrameFunctionalGroupsSequence[30].PlanePositionSequence

    hu, grid, ledger = read(write_multiframe(tmp_path / "all.dcm", dataset))

    assert [entry.finding for entry in ledger] == ["missing-slices", "without-position"]
    assert measure_ml(hu, grid) == pytest.approx(LUNG_ML, rel=0.01)
