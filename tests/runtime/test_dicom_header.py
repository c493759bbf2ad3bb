"""What a DICOM header says of itself."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from bedside import dicom
from dicom_files import make_dataset, write_dataset
from reference import NATIVE_SYNTAXES


def test_the_header_is_read_without_pixels(tmp_path: Path) -> None:
    dataset = make_dataset(
        7,
        9,
        PresentationIntentType="FOR PROCESSING",
        ViewPosition="PA",
        BodyPartExamined="CHEST",
        PatientAge="006M",
        PhotometricInterpretation="MONOCHROME1",
    )

    header = dicom.read_header(write_dataset(tmp_path / "header.dcm", dataset))

    assert header.format == "DICOM"
    assert header.modality == "DX"
    assert header.sop_class_uid == "1.2.840.10008.5.1.4.1.1.1.1"
    assert header.transfer_syntax_uid == ExplicitVRLittleEndian
    assert header.presentation_intent == "FOR PROCESSING"
    assert header.view_position == "PA"
    assert header.body_part == "CHEST"
    assert header.age_years == pytest.approx(0.5)
    assert header.photometric_interpretation == "MONOCHROME1"
    assert header.bits_stored == 12


def code_item(value: str, meaning: str) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.CodeValue, item.CodeMeaning, item.CodingSchemeDesignator = value, meaning, "SCT"
    return item


@pytest.mark.parametrize("syntax", NATIVE_SYNTAXES, ids=lambda uid: uid.keyword)
@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (code_item("272479007", "postero-anterior"), "PA"),
        (code_item("399348003", "antero-posterior"), "AP"),
        (code_item("399173006", "left lateral"), "LL"),
        (code_item("0", "submentovertical"), "SUBMENTOVERTICAL"),
    ],
    ids=["PA", "AP", "LL", "other"],
)
def test_codes_stand_in_for_plain_words(
    tmp_path: Path, syntax: str, view: pydicom.Dataset, expected: str
) -> None:
    region = code_item("816094009", "Chest")
    dataset = make_dataset(ViewCodeSequence=[view], AnatomicRegionSequence=[region])
    dataset.PixelData = b"\0\0"

    header = dicom.read_header(write_dataset(tmp_path / "codes.dcm", dataset, syntax))

    assert header.view_position == expected
    assert header.body_part == "CHEST"


@pytest.mark.parametrize(
    ("age", "birth", "study", "expected"),
    [
        ("045Y", "", "", 45),
        ("010D", "", "", 10 / 365.25),
        ("", "20000101", "20100101", 10.0),
        ("old", "20000101", "20100101", 10.0),
        ("", "20100101", "20000101", None),
        ("", "20001399", "20100101", None),
        ("", "", "", None),
    ],
)
def test_the_age_comes_from_the_age_or_the_dates(
    tmp_path: Path, age: str, birth: str, study: str, expected: float | None
) -> None:
    dataset = make_dataset()
    for tag, vr, value in ((0x00101010, "LO", age), (0x00100030, "LO", birth), (0x00080020, "LO", study)):
        dataset.add_new(tag, vr, value)

    assert dicom.read_header(write_dataset(tmp_path / "age.dcm", dataset)).age_years == (
        None if expected is None else pytest.approx(expected, abs=0.01)
    )
