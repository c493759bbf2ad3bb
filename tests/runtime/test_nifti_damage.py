"""NIfTI that is damaged, cut short, or none: a scan is whole, or an error says what is wrong."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.errors import BedsideError
from bedside.nifti.content import PART_BYTES
from bedside.nifti.reading import read_nifti
from bedside.nifti.voxels import is_nifti
from nifti_files import HU, image, nib, patched, refusal, save, whole


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return save(tmp_path / "a.nii")


@pytest.fixture(params=["a.nii", "a.nii.gz"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save(tmp_path / request.param)


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


def test_a_file_that_shrinks_while_it_is_open_is_told(plain: Path) -> None:
    with read_nifti(plain) as scan:
        plain.write_bytes(plain.read_bytes()[:400])
        with pytest.raises(BedsideError) as caught:
            scan.read([len(HU) - 1])
    assert caught.value.code == "broken-nifti"
