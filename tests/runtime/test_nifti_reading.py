"""Reading NIfTI: nibabel writes what is read, and says where each voxel lies."""

from __future__ import annotations

import gzip
import os
import struct
import tracemalloc
from collections.abc import Callable
from importlib import import_module
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.errors import BedsideError
from bedside.nifti import voxels as voxels_module
from bedside.nifti.content import PART_BYTES
from bedside.nifti.reading import NiftiScan, read_labels, read_nifti
from bedside.nifti.voxels import Voxels, is_nifti
from bedside.scan import AIR_HU, Scan

nib: Any = import_module("nibabel")  # typed in parts
orientations = nib.orientations

HU = np.random.default_rng(0).permutation(np.arange(-900, 420)).reshape(10, 12, 11).astype(np.int16)
"""``(Z, Y, X)``: no value twice, as many light and dense as a scan may have."""
AFFINE = np.array([[0.0, 0, 0.8, -200], [0, 0.7, 0, -150], [2.5, 0, 0, -300], [0, 0, 0, 1]])
"""Index (z, y, x, 1) -> LPS."""
RAS = np.diag([-1.0, -1, 1, 1])
TURN = nib.eulerangles.euler2mat(0.3, -0.2, 0.1)
CODES = ["".join(code) for axes in permutations(("LR", "PA", "IS")) for code in product(*axes)]


def image(
    values: npt.NDArray[Any] = HU, affine: npt.NDArray[np.float64] = AFFINE, *, version: Any = nib.Nifti1Image
) -> Any:
    """A nibabel image of a canonical array: its axes (i, j, k) are (x, y, z), to the left, the back and the head."""
    return version(values.T, RAS @ affine[:, [2, 1, 0, 3]])


def save(path: Path, made: Any = None) -> Path:
    nib.save(image() if made is None else made, path)
    return path


def whole(scan: Scan) -> npt.NDArray[np.float32]:
    return scan.read(range(scan.grid.shape[0]))


def refusal(path: Path, **options: Any) -> BedsideError:
    with pytest.raises(BedsideError) as caught:
        read_nifti(path, **options)
    return caught.value


def patched(path: Path, offset: int, layout: str, *values: float | bytes) -> Path:
    """A plain copy of a file, with some of its header overwritten; offsets are those of nifti1.h."""
    data = bytearray(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    struct.pack_into(f"<{layout}", data, offset, *values)
    changed = path.with_name("patched.nii")
    changed.write_bytes(data)
    return changed


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


@pytest.mark.parametrize("share", [0.001, 0.05, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_broken(both: Path, share: float) -> None:
    data = both.read_bytes()
    both.write_bytes(data[: int(len(data) * share)])
    assert refusal(both).code == "broken-nifti"


def test_a_damaged_checksum_is_found(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz")
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    assert refusal(path).code == "broken-nifti"


def test_gzip_of_several_members_and_padding_after_it_read(plain: Path, tmp_path: Path) -> None:
    data = plain.read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(
        b"".join(gzip.compress(data[i : i + 700]) for i in range(0, len(data), 700)) + bytes(100)
    )
    with read_nifti(path) as scan:
        np.testing.assert_array_equal(whole(scan), HU)


@pytest.mark.parametrize("cut", range(-2, 3))
def test_a_member_that_begins_where_a_read_ends_is_not_lost(plain: Path, tmp_path: Path, cut: int) -> None:
    data = plain.read_bytes()
    first = gzip.compress(data[:1000])
    padded = 4 * gzip_of_nothing(60000)  # members with an extra field (RFC 1952), up to the end of a read
    padded += gzip_of_nothing(PART_BYTES + cut - len(first) - len(padded) - 22)
    path = tmp_path / "b.nii.gz"
    path.write_bytes(first + padded + gzip.compress(data[1000:]))
    assert path.read_bytes()[PART_BYTES + cut :].startswith(b"\x1f\x8b")
    with read_nifti(path) as scan:
        np.testing.assert_array_equal(whole(scan), HU)


def gzip_of_nothing(extra: int) -> bytes:
    """A member of ``extra`` + 22 bytes, and no content."""
    empty = gzip.compress(b"", mtime=0)
    assert len(empty) == 20
    return empty[:3] + b"\x04" + empty[4:10] + struct.pack("<H", extra) + bytes(extra) + empty[10:]


@pytest.mark.parametrize(
    ("offset", "layout", "values"),
    [
        (42, "3h", (0, 5, 5)),
        (42, "3h", (-1, 5, 5)),
        (42, "3h", (32767, 32767, 32767)),
        (40, "h", (0,)),
        (40, "h", (9,)),
        (70, "h", (99,)),
        (72, "h", (32,)),
        (108, "f", (np.nan,)),
        (108, "f", (100,)),
        (108, "f", (1e30,)),
        (112, "2f", (2, np.nan)),
        (123, "B", (7,)),
        (280, "f", (np.nan,)),
        (344, "4s", (b"abcd",)),
        (0, "i", (349,)),
    ],
)
def test_a_header_that_makes_no_sense_is_broken(
    plain: Path, offset: int, layout: str, values: tuple[float, ...]
) -> None:
    assert refusal(patched(plain, offset, layout, *values)).code == "broken-nifti"


@pytest.mark.parametrize(
    ("code", "expected"), [(128, "colour"), (32, "not-hu"), (1536, "not-hu"), (1, "not-hu")]
)
def test_types_that_no_ct_has_are_refused(plain: Path, code: int, expected: str) -> None:
    assert refusal(patched(plain, 70, "h", code)).code == expected


def test_the_header_of_a_pair_and_analyze_are_refused_with_advice(plain: Path) -> None:
    assert "pair" in refusal(patched(plain, 344, "4s", b"ni1")).message
    assert "Analyze" in refusal(patched(plain, 344, "4s", b"")).message


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"", "empty-file"), (b"\x1f\x8bgarbage", "broken-nifti"), (b"DICM" * 200, "broken-nifti")],
)
def test_what_is_no_nifti_has_its_code(tmp_path: Path, data: bytes, code: str) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(data)
    assert refusal(path).code == code


def test_a_missing_file_and_a_folder_have_their_codes(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.nii").code == "not-found"
    assert refusal(tmp_path).code == "not-readable"


def test_files_are_known_by_their_content(both: Path, tmp_path: Path) -> None:
    assert is_nifti(both.rename(tmp_path / "anything"))
    for data in (b"\x1f\x8bgarbage", gzip.compress(b"text"), b"\x89PNG" * 100):
        (tmp_path / "other").write_bytes(data)
        assert not is_nifti(tmp_path / "other")


@settings(max_examples=150)
@given(
    flips=st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=4),
    version=st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]),
    packed=st.booleans(),
)
def test_a_damaged_header_is_a_scan_or_an_error_with_a_code(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]], version: Any, packed: bool
) -> None:
    data = bytearray(image(version=version).to_bytes())
    for position, value in flips:
        data[position] = value
    path = tmp_path_factory.getbasetemp() / "damaged.nii"
    path.write_bytes(gzip.compress(data, 1) if packed else data)
    try:
        with read_nifti(path) as scan:
            assert np.isfinite(whole(scan)).all()
    except BedsideError:
        return


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


def test_a_file_that_shrinks_while_it_is_open_is_told(plain: Path) -> None:
    with read_nifti(plain) as scan:
        plain.write_bytes(plain.read_bytes()[:400])
        with pytest.raises(BedsideError) as caught:
            scan.read([len(HU) - 1])
    assert caught.value.code == "broken-nifti"


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
