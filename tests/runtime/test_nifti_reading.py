"""Reading NIfTI: each voxel's value as nibabel reads it, in any type and order, and what memory it takes."""

from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bedside.errors import BedsideError
from bedside.nifti import voxels as voxels_module
from bedside.nifti.content import PART_BYTES
from bedside.nifti.reading import NiftiScan, read_labels, read_nifti
from bedside.nifti.voxels import Voxels
from bedside.scan import AIR_HU
from nifti_files import AFFINE, HU, RAS, image, nib, orientations, patched, refusal, save, whole


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return save(tmp_path / "a.nii")


@pytest.fixture(params=["a.nii", "a.nii.gz"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save(tmp_path / request.param)


def test_a_scan_reads_in_hu_and_in_its_place(both: Path) -> None:
    with read_nifti(both) as scan:
        assert scan.grid.shape == HU.shape
        np.testing.assert_allclose(scan.grid.affine, AFFINE, atol=1e-5)
        assert whole(scan).dtype == np.float32
        np.testing.assert_array_equal(whole(scan), HU)
        assert scan.ledger == ()


def test_slices_read_in_any_order_and_again(both: Path) -> None:
    with read_nifti(both) as scan:
        first = scan.read([7, 0, 7])
        scan.read([3])
        np.testing.assert_array_equal(first, HU[[7, 0, 7]])
        assert scan.read([]).shape == (0, *HU.shape[1:])
        for index in (-1, len(HU)):
            with pytest.raises(IndexError):
                scan.read([index])


@pytest.mark.parametrize("version", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_every_real_type_and_byte_order_reads_as_nibabel_reads_it(
    tmp_path: Path, version: Any, order: str, kind: str
) -> None:
    slope, intercept = {"u1": (6, -1000), "i1": (6, -250)}.get(kind, (0.5, -1024))
    stored = np.rint((HU - intercept) / slope).clip(
        -128 if kind == "i1" else 0, 255 if kind[1] == "1" else 9999
    )
    header = version.header_class(endianness=order)
    header.set_data_dtype(f"{order}{kind}")
    made = version(stored.T.astype(f"{order}{kind}"), image().affine, header)
    made.header.set_slope_inter(slope, intercept)
    data = bytearray(made.to_bytes())  # nibabel would scale again, so that the header is put in place here
    at, layout = (112, "2f") if version is nib.Nifti1Image else (176, "2d")
    struct.pack_into(f"{order}{layout}", data, at, slope, intercept)
    path = tmp_path / "a.nii"
    path.write_bytes(data)
    reference = nib.load(path).get_fdata().T

    with read_nifti(path) as scan:
        assert scan._voxels.fields.dtype.newbyteorder("=") == np.dtype(kind)
        np.testing.assert_allclose(whole(scan), reference, rtol=1e-6)
        np.testing.assert_allclose(scan.grid.affine, AFFINE, atol=1e-4)


@pytest.mark.parametrize(("slope", "intercept"), [(0, 5), (np.nan, np.nan), (np.inf, 0), (1, 0)])
def test_a_slope_that_is_none_scales_nothing(plain: Path, slope: float, intercept: float) -> None:
    with read_nifti(patched(plain, 112, "2f", slope, intercept)) as scan:
        np.testing.assert_array_equal(whole(scan), HU)


@pytest.mark.parametrize("extra", [(1,), (1, 1), (1, 1, 1)])
def test_further_axes_of_one_are_dropped(tmp_path: Path, extra: tuple[int, ...]) -> None:
    made = nib.Nifti1Image(HU.T.reshape(*HU.T.shape, *extra), image().affine)
    with read_nifti(save(tmp_path / "a.nii", made)) as scan:
        np.testing.assert_array_equal(whole(scan), HU)


@pytest.mark.parametrize("extra", [(2,), (1, 3)])
def test_several_volumes_are_refused(tmp_path: Path, extra: tuple[int, ...]) -> None:
    made = nib.Nifti1Image(np.zeros((4, 4, 4, *extra), np.int16), np.eye(4))
    assert refusal(save(tmp_path / "a.nii", made)).code == "multi-frame"


def test_a_picture_of_two_axes_is_one_slice(tmp_path: Path) -> None:
    made = nib.Nifti1Image(HU[0].T, image().affine)
    with read_nifti(save(tmp_path / "a.nii.gz", made)) as scan:
        np.testing.assert_array_equal(whole(scan), HU[:1])


def test_what_is_no_number_reads_as_air_and_is_told(tmp_path: Path) -> None:
    values = HU.astype(np.float64)
    values[2, 3, 4], values[2, 0, 0], values[5, 1, 1], values[6, 0, 0] = np.nan, np.inf, -np.inf, 1e300
    with read_nifti(save(tmp_path / "a.nii", image(values))) as scan:
        for _ in range(2):
            hu = whole(scan)
            wrong = np.isnan(values) | (np.abs(values) > 1e30)
            assert (hu[wrong] == AIR_HU).all()
            np.testing.assert_array_equal(hu[~wrong], HU[~wrong])
            (entry,) = scan.ledger
            assert (entry.finding, entry.decision, entry.count) == ("not-a-number", "mended", 3)
            assert entry.text.startswith("4 voxels")


def test_padding_reads_as_air(tmp_path: Path) -> None:
    values = HU.copy()
    values[:, 0], values[:, 1], values[:, 2] = -3024, -2000, -1024
    with read_nifti(save(tmp_path / "a.nii", image(values))) as scan:
        hu = whole(scan)
    assert (hu[:, :2] == AIR_HU).all()
    assert (hu[:, 2] == -1024).all()


@pytest.mark.parametrize("values", [HU + 1024, (HU > 0).astype(np.uint8), HU / 1000])
def test_what_is_not_in_hu_is_refused(tmp_path: Path, values: npt.NDArray[Any]) -> None:
    assert refusal(save(tmp_path / "a.nii.gz", image(values))).code == "not-hu"


def test_a_constant_volume_is_refused(tmp_path: Path) -> None:
    assert refusal(save(tmp_path / "a.nii", image(np.zeros_like(HU)))).code == "constant-image"


@pytest.mark.parametrize("code", ["LPS", "LSP", "SPL"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_memory_does_not_grow_with_the_volume(tmp_path: Path, code: str, name: str) -> None:
    made = image(np.tile(HU, (16, 16, 16)))
    turn = orientations.ornt_transform(nib.io_orientation(made.affine), orientations.axcodes2ornt(code))
    path = save(tmp_path / name, made.as_reoriented(turn))
    tracemalloc.start()
    try:
        with NiftiScan(Voxels(path, buffer_bytes=1 << 16)) as scan:
            for index in range(scan.grid.shape[0]):
                scan.read([index])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert HU.nbytes * 16**3 > 10e6
    assert (
        peak < 8 * PART_BYTES
    )  # 2 MiB: packed bytes and what is left of them, unpacked ones, and a few planes


def test_no_temporary_file_is_left_nor_needed_for_a_plain_one(
    plain: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(voxels_module, "_LARGE_TEMPORARY", folder)
    packed = save(tmp_path / "b.nii.gz")
    with read_nifti(packed) as scan:
        assert list(folder.iterdir()) == []
        np.testing.assert_array_equal(whole(scan), HU)
    monkeypatch.setattr(os, "fstatvfs", no_space)
    error = refusal(packed)
    assert error.code == "disk-full"
    assert "temporary space" in error.message
    read_nifti(plain).close()


def no_space(_: int) -> Any:
    class Disk:
        f_bavail = 0
        f_frsize = 4096

    return Disk


LABELS = np.random.default_rng(1).integers(0, 5, HU.shape).astype(np.uint8)


@pytest.mark.parametrize(
    ("convert", "kind"),
    [
        (lambda a: a, np.uint8),
        (lambda a: a.astype(np.float32), np.uint8),
        (lambda a: a.astype(np.int64), np.uint8),
        (lambda a: a.astype(np.uint16) * 300, np.uint16),
        (lambda a: a.astype(np.int16) - 1, np.int32),
        (lambda a: a.astype(np.float64) * 70000, np.int32),
    ],
)
def test_labels_read_in_canonical_order_whatever_their_type(
    tmp_path: Path, convert: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], kind: Any
) -> None:
    made = nib.as_closest_canonical(
        nib.Nifti1Image(convert(LABELS).T, image().affine, dtype=convert(LABELS).dtype)
    )
    labels, affine = read_labels(save(tmp_path / "a.nii.gz", made))
    np.testing.assert_array_equal(labels, convert(LABELS))
    assert labels.dtype == kind
    np.testing.assert_allclose(affine, AFFINE, atol=1e-4)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, 3e9])
def test_labels_that_are_not_whole_numbers_are_refused(tmp_path: Path, value: float) -> None:
    values = LABELS.astype(np.float64)
    values[4, 4, 4] = value
    with pytest.raises(BedsideError) as caught:
        read_labels(save(tmp_path / "a.nii", image(values)))
    assert "no label map" in caught.value.message


@pytest.mark.parametrize("name", ["id001", "id002"])
def test_real_scans_read_as_nibabel_reads_them(shared: Path, name: str) -> None:
    path = shared / "data" / "ct" / "lung-field" / f"{name}.nii.gz"
    reference = nib.as_closest_canonical(nib.load(path))
    expected = reference.get_fdata().T[:, ::-1, ::-1]  # RAS -> LPS

    with read_nifti(path) as scan:
        hu, grid = whole(scan), scan.grid

    np.testing.assert_allclose(hu, np.where(expected < -1500, AIR_HU, expected), atol=1e-3)
    corner = RAS @ reference.affine @ [expected.shape[2] - 1, expected.shape[1] - 1, 0, 1]
    np.testing.assert_allclose(grid.affine @ [0, 0, 0, 1], corner, atol=1e-3)
    assert grid.voxel_ml == pytest.approx(np.prod(reference.header.get_zooms()) / 1000, rel=1e-6)
    mask = path.with_name(f"{name}-msk.nii.gz")
    assert refusal(mask).code == "not-hu"
    with pytest.raises(BedsideError):
        read_labels(mask)
