"""What the node reads of a header: UIDs, traits and the expected number; never a warning, never a value in an error."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from bedside.errors import InputError
from bedside.node.rules import Traits
from bedside.node.traits import MAX_DESCRIPTION, parse_labels, read_labels
from dicom_files import make_dataset, write_dataset

UIDS = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.1"}
CANARY = "CANARY"


def write(path: Path, syntax: str = ImplicitVRLittleEndian, **header: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's own, on writing what is wrong
        return write_dataset(path, make_dataset(**{**UIDS, **header}), syntax)


def code(value: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", "a meaning"
    return [item]


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_reads_what_rules_and_the_queue_ask_for(tmp_path: Path, syntax: str) -> None:
    path = write(
        tmp_path / "a.dcm",
        syntax,
        BodyPartExamined="CHEST",
        ViewPosition="PA",
        SeriesDescription="Thorax p.a.",
        StudyDescription="Check",
        NumberOfSeriesRelatedInstances=2,
    )
    labels = read_labels(path, calling_ae="XRAY1", called_ae="NODE")
    assert (labels.study, labels.series, labels.sop) == ("1.2.3", "1.2.3.1", "1.2.3.4")
    assert labels.sop_class == "1.2.840.10008.5.1.4.1.1.1.1"
    assert labels.expected == 2
    assert labels.traits == Traits("DX", "CHEST", "PA", "Thorax p.a.", "Check", "XRAY1", "NODE")


def test_what_is_absent_is_empty(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path / "a.dcm", Modality=None))
    assert labels.traits == Traits()
    assert labels.expected is None


def test_codes_stand_in_for_terms_that_are_left_out(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.dcm", ViewCodeSequence=code("399348003"), AnatomicRegionSequence=code("51185008")
    )
    traits = read_labels(path).traits
    assert (traits.view, traits.body_part) == ("AP", "CHEST")


@pytest.mark.parametrize(
    ("charset", "raw", "text"),
    [
        ("ISO_IR 100", "Röntgen".encode("latin-1"), "Röntgen"),
        ("ISO_IR 192", "Röntgen 胸部".encode(), "Röntgen 胸部"),
        ("GB18030", "胸部".encode("gb18030"), "胸部"),
        ("\\ISO 2022 IR 87", b"CT " + "胸部".encode("iso2022_jp"), "CT 胸部"),
        ("\\ISO 2022 IR 149", b"\x1b$)C" + "흉부".encode("euc_kr"), "흉부"),
        ("", "Röntgen".encode(), "Röntgen"),
        ("", "Röntgen".encode("latin-1"), "Röntgen"),
        ("NO SUCH SET", "Röntgen".encode("latin-1"), "Röntgen"),
        ("ISO_IR 192", "Röntgen".encode("latin-1"), "Röntgen"),
    ],
)
def test_description_is_read_in_its_character_set(
    tmp_path: Path, charset: str, raw: bytes, text: str
) -> None:
    """The bytes are put in by hand: pydicom would put them right."""
    place = "x" * (len(raw) + len(raw) % 2)
    named = "c" * (len(charset) + len(charset) % 2)
    path = write(tmp_path / "a.dcm", SeriesDescription=place, ImageComments=named, SpecificCharacterSet=None)
    content = path.read_bytes().replace(place.encode(), raw.ljust(len(place)), 1)
    if charset:  # after the meta header; order matters to no reader here
        element = b"\x08\x00\x05\x00" + len(named).to_bytes(4, "little") + charset.ljust(len(named)).encode()
        first = content.index(b"\x08\x00\x16\x00", 200)
        content = content[:first] + element + content[first:]
    assert parse_labels(io.BytesIO(content)).traits.series_description == text


def test_endless_description_is_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", SeriesDescription="x" * 5000)
    assert len(read_labels(path).traits.series_description) == MAX_DESCRIPTION


@pytest.mark.parametrize("value", ["0", "-3", "many", "99999999999", "1e3", ""])
def test_number_that_is_none_is_not_expected(tmp_path: Path, value: str) -> None:
    path = write(tmp_path / "a.dcm", NumberOfSeriesRelatedInstances="7" * (len(value) + len(value) % 2 or 2))
    held = ("7" * (len(value) + len(value) % 2 or 2)).encode()
    path.write_bytes(path.read_bytes().replace(held, value.encode().ljust(len(held)), 1))
    assert read_labels(path).expected is None


@pytest.mark.parametrize("name", ["StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", [None, "", CANARY, "../../etc", "1.2..3", "1." * 40 + "1", "1.2.3 4"])
def test_object_without_proper_uids_is_refused(tmp_path: Path, name: str, value: str | None) -> None:
    header: dict[str, Any] = {name: value}
    with pytest.raises(InputError, match=name) as caught:
        read_labels(write(tmp_path / "a.dcm", **header))
    assert caught.value.code == "broken-dicom"
    assert CANARY not in caught.value.message


def test_damage_is_told_without_values_and_without_warnings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    path = write(
        tmp_path / f"{CANARY}.dcm",
        PatientName=CANARY,
        PatientID=CANARY,
        PatientBirthDate=CANARY,
        StudyDate=CANARY,
        SeriesDescription=CANARY,
        InstanceNumber="1",
    )
    caplog.clear()
    content = path.read_bytes()
    codes, messages = set(), []
    for cut in range(0, len(content), 7):
        path.write_bytes(content[:cut])
        try:
            read_labels(path)
        except InputError as error:
            codes.add(error.code)
            messages.append(error.message)
    assert {"broken-dicom", "empty-file"} <= codes <= {"broken-dicom", "empty-file", "not-an-image"}
    assert not any(CANARY in message for message in messages)
    assert not caplog.records
    assert not recwarn.list


def test_picture_that_is_no_dicom_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"\x89PNG" + bytes(200))
    with pytest.raises(InputError) as caught:
        read_labels(tmp_path / "a.dcm")
    assert caught.value.code == "not-an-image"
