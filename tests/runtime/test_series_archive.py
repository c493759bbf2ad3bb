"""The files of a series: in a folder, in a zip, or one alone."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bedside import dicom
from bedside.dicom.archive import MAX_MEMBER_BYTES
from bedside.errors import InputError, RefusedError
from dicom_series import AXIAL, make_multiframe, make_series, scan, write_multiframe, write_series


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_series(tmp_path_factory.mktemp("plain") / "series", make_series()[:12])


def pack(folder: Path, target: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(target, "w", method) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, f"study/{path.relative_to(folder)}")
    return target


def test_files_that_are_no_dicom_are_skipped_and_counted(folder: Path, tmp_path: Path) -> None:
    mixed = shutil.copytree(folder, tmp_path / "mixed")
    deep = mixed / "deeper" / "still"
    deep.mkdir(parents=True)
    (mixed / "image-0003.dcm").rename(deep / "image")
    for name in ("notes.txt", "table.csv", "empty"):
        (mixed / name).write_text("" if name == "empty" else "no DICOM, whatever it says of CT")
    (mixed / ".hidden.dcm").write_text("neither")
    (mixed / "DICOMDIR").write_bytes((mixed / "image-0001.dcm").read_bytes())
    os.mkfifo(mixed / "pipe.dcm")
    (mixed / "nowhere.dcm").symlink_to(mixed / "gone.dcm")

    with dicom.read_series(mixed) as series:
        assert [(entry.finding, entry.decision, entry.count) for entry in series.ledger] == [
            ("other-files", "accepted", 3)
        ]
        np.testing.assert_allclose(series.read([5])[0], scan(AXIAL)[5], atol=0.51)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_reads_as_its_folder(folder: Path, tmp_path: Path, method: int) -> None:
    packed = pack(folder, tmp_path / "series.zip", method)
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("__MACOSX/study/._image-0001.dcm", "resource fork")
        archive.writestr("study/readme.txt", "no DICOM")

    with dicom.read_series(folder) as plain, dicom.read_series(packed) as series:
        assert series.grid.shape == plain.grid.shape
        np.testing.assert_array_equal(series.grid.affine, plain.grid.affine)
        np.testing.assert_array_equal(series.read([11, 0, 4]), plain.read([11, 0, 4]))
        assert [entry.finding for entry in series.ledger] == ["other-files"]


def test_a_zip_of_a_multi_frame_file_is_read(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    write_multiframe(inner / "all.dcm", make_multiframe(make_series()))

    with dicom.read_series(pack(inner, tmp_path / "all.zip")) as series:
        np.testing.assert_allclose(series.read([70, 3]), scan(AXIAL)[[70, 3]], atol=0.51)


def test_nothing_of_a_zip_is_inflated_beyond_a_limit(folder: Path, tmp_path: Path) -> None:
    bomb = pack(folder, tmp_path / "bomb.zip")
    with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("study/large.dcm", bytes(MAX_MEMBER_BYTES + 1))

    with pytest.raises(RefusedError) as caught:
        dicom.read_series(bomb)

    assert caught.value.code == "missing-slices"  # it might have been one
    with dicom.read_series(bomb, allow_missing=True) as series:
        assert series.grid.shape[0] == 12


def test_a_damaged_zip_is_told(folder: Path, tmp_path: Path) -> None:
    packed = pack(folder, tmp_path / "series.zip")
    (tmp_path / "cut.zip").write_bytes(packed.read_bytes()[:-400])

    with pytest.raises(InputError) as caught:
        dicom.read_series(tmp_path / "cut.zip")

    assert caught.value.code == "not-readable"


def test_a_zip_with_a_password_is_told(folder: Path, tmp_path: Path) -> None:
    data = bytearray(pack(folder, tmp_path / "series.zip").read_bytes())
    start = data.find(b"PK\x01\x02")
    data[start + 8] |= 1  # general purpose bit 0: encrypted
    (tmp_path / "locked.zip").write_bytes(data)

    with pytest.raises(InputError) as caught:
        dicom.read_series(tmp_path / "locked.zip")

    assert caught.value.code == "not-readable"
    assert "password" in str(caught.value)


def test_a_member_of_a_zip_that_fails_its_checksum_counts_as_unreadable(folder: Path, tmp_path: Path) -> None:
    packed = pack(folder, tmp_path / "series.zip", zipfile.ZIP_STORED)
    data = bytearray(packed.read_bytes())
    data[data.find((folder / "image-0004.dcm").read_bytes()[1000:1200]) + 50] ^= 0xFF
    packed.write_bytes(data)

    with pytest.raises(RefusedError) as caught:
        dicom.read_series(packed)

    assert caught.value.code == "missing-slices"
    assert "slice 4 of 12" in str(caught.value)


def test_an_unusual_way_of_packing_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        dicom.read_series(pack(folder, tmp_path / "series.zip", zipfile.ZIP_BZIP2))

    assert caught.value.code == "not-readable"
