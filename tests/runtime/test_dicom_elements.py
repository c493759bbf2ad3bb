"""Data elements are read as pydicom reads them, on every file that pydicom carries."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pydicom
import pydicom.data
import pytest
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from bedside import dicom
from bedside.dicom.elements import Encoding, parse
from bedside.dicom.layout import read_layout
from bedside.dicom.pixels import read_pixels
from bedside.dicom.source import read_source
from bedside.dicom.tags import Tag
from bedside.errors import BedsideError
from dicom_files import make_dataset, write_dataset

FILES = sorted(path for path in Path(pydicom.data.__file__).parent.rglob("*") if path.suffix == ".dcm")
TEXTS = {Tag.MODALITY: "CS", Tag.SOP_CLASS_UID: "UI", Tag.BODY_PART_EXAMINED: "CS", Tag.PATIENT_AGE: "AS"}
NUMBERS = (Tag.ROWS, Tag.COLUMNS, Tag.BITS_ALLOCATED, Tag.BITS_STORED, Tag.HIGH_BIT, Tag.PIXEL_REPRESENTATION)


def read_with_pydicom(path: Path) -> pydicom.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path, force=True)


def read_stored(stream: BinaryIO) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.int64]], int, int]:
    """Bit patterns, their bits, and how far pydicom leaves them shifted."""
    source = read_source(stream)
    layout = read_layout(source.dataset)
    stored = read_pixels(stream, source, layout)
    shift = layout.high_bit + 1 - layout.bits_stored if source.native else 0
    return stored.patterns.astype(np.int64), stored.bits, shift


def test_attributes_agree_with_pydicom() -> None:
    compared = 0
    for path in FILES:
        try:
            with path.open("rb") as stream:
                ours = read_source(stream).dataset
        except BedsideError:
            continue
        theirs = read_with_pydicom(path)
        for tag in TEXTS:
            assert (
                ours.text(tag) == str(theirs.get(tag).value if tag in theirs else "").split("\\")[0].strip()
            ), path.name
        for tag in NUMBERS:
            values = ours.integers(tag)
            assert (values[0] if values else None) == (theirs[tag].value if tag in theirs else None), (
                path.name
            )
        compared += 1

    assert compared >= 60


def test_stored_values_agree_with_pydicom() -> None:
    compared = 0
    for path in FILES:
        try:
            with path.open("rb") as stream:
                patterns, bits, shift = read_stored(stream)
        except BedsideError:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                expected = pixel_array(read_with_pydicom(path), raw=True)
            except (RuntimeError, NotImplementedError):  # pydicom has no decoder here
                continue
        masked = (expected.astype(np.int64) >> shift) & ((1 << bits) - 1)
        np.testing.assert_array_equal(patterns, masked, err_msg=path.name)
        compared += 1

    assert compared >= 20


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_what_is_not_asked_for_is_not_held(tmp_path: Path, syntax: str) -> None:
    dataset = make_dataset(PatientName="Somebody^Else", PatientID="123")

    with write_dataset(tmp_path / "name.dcm", dataset, syntax).open("rb") as stream:
        held = read_source(stream).dataset

    assert held.texts(Tag.MODALITY) == ["DX"]
    assert set(held.elements) <= {int(tag) for tag in Tag}
    assert b"Somebody" not in repr(held).encode()


def test_the_encoding_of_a_data_set_is_told_by_its_first_element(tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "explicit.dcm", make_dataset(), ExplicitVRLittleEndian)
    mislabelled = path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0")
    path.write_bytes(mislabelled)

    assert dicom.read_header(path).modality == "DX"


def test_an_unknown_value_representation_is_skipped() -> None:
    unknown = b"\x09\0\x01\x10ZZ\x02\0ab"
    modality = b"\x08\0\x60\0CS\x02\0DX"

    dataset, position = parse(unknown + modality, 0, Encoding(explicit=True))

    assert dataset.text(Tag.MODALITY) == "DX"
    assert position == len(unknown + modality)


def test_a_sequence_of_unknown_representation_is_implicit() -> None:
    # PS3.5, 6.2.2: UN of undefined length holds items in implicit VR
    item = b"\x08\0\0\x01\x04\0\0\0ABCD"
    sequence = (
        b"\x54\0\x20\x02UN\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0" + len(item).to_bytes(4, "little") + item
    )
    end = b"\xfe\xff\xdd\xe0\0\0\0\0"

    dataset, _ = parse(sequence + end, 0, Encoding(explicit=True))

    assert [item.text(Tag.CODE_VALUE) for item in dataset.items(Tag.VIEW_CODE_SEQUENCE)] == ["ABCD"]


def test_a_compressed_icon_in_a_sequence_is_skipped() -> None:
    pixels = (
        b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\x02\0\0\0ab" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    )
    icon = b"\x88\0\x00\x02SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\xff\xff\xff\xff" + pixels
    icon += b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    rows = b"\x28\0\x10\0US\x02\0\x07\0"

    dataset, _ = parse(icon + rows, 0, Encoding(explicit=True))

    assert dataset.integers(Tag.ROWS) == [7]
    assert dataset.pixels is None
