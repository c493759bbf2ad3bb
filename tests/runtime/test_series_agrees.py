"""Our series reader against ITK's, for what both read: positions, directions and values."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from bedside import dicom
from dicom_series import make_series, write_series
from reference_ct import GEOMETRIES

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # SWIG's types have no __module__
    sitk = pytest.importorskip("SimpleITK", reason="needs SimpleITK")

# ITK has no shear in its geometry: it warns of a tilted gantry, and reads it as if there was none.
SHEARLESS = [name for name in GEOMETRIES if "tilt" not in name]


@pytest.mark.parametrize("name", SHEARLESS)
def test_the_same_value_lies_at_the_same_point_of_the_patient(name: str, tmp_path: Path) -> None:
    folder = write_series(tmp_path / "series", make_series(GEOMETRIES[name][0]))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    theirs = sitk.GetArrayFromImage(image)

    with dicom.read_series(folder) as series:
        grid = series.grid
        ours = series.read(range(grid.shape[0]))

    assert grid.voxel_ml * 1000 == pytest.approx(np.prod(image.GetSpacing()), rel=1e-5)
    assert sorted(ours.shape) == sorted(theirs.shape)
    places = np.random.default_rng(5).integers(0, grid.shape, (400, 3))
    points = np.column_stack([places, np.ones(len(places))]) @ grid.affine.T
    for place, point in zip(places, points, strict=True):
        x, y, z = image.TransformPhysicalPointToIndex(point[:3].tolist())
        assert image.TransformIndexToPhysicalPoint((x, y, z)) == pytest.approx(point[:3], abs=1e-3)
        assert ours[tuple(place)] == theirs[z, y, x]
