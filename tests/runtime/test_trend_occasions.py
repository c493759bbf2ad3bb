"""When a study was and of whom: from DICOM, without a word of the patient anywhere."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from bedside.dicom import Marks, Patient, read_occasion
from bedside.dicom.elements import WANTED
from bedside.dicom.tags import ISSUER_OF_PATIENT_ID, PATIENT_ID
from bedside.errors import InputError, RefusedError
from bedside.trend import Request, follow_up
from bedside.trend.moments import parse_moment
from bedside.trend.occasions import Dated, choose_patient, patient_of, read_times
from bedside.trend.studies import Study, read_study
from dicom_files import make_dataset, write_dataset
from followed import unknown, x_ray

CANARY = "CANARY-7731"


def taken(path: Path, syntax: str = ExplicitVRLittleEndian, **header: Any) -> Path:
    """A DICOM picture of a patient, on the first of March unless told otherwise."""
    attributes: dict[str, object] = {
        "PatientID": CANARY,
        "PatientName": f"{CANARY}^Name",
        "AcquisitionDate": "20200301",
        "AcquisitionTime": "083000",
        "SOPInstanceUID": f"1.2.{zlib.crc32(path.name.encode())}",
        **header,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's own, on values that are wrong on purpose
        dataset = make_dataset(2, 2, **attributes)
        dataset.PixelData = bytes(8)
        dataset["PixelData"].VR = "OW"
        return write_dataset(path, dataset, syntax)


def clock(path: Path) -> tuple[str | None, bool, str]:
    occasion = read_occasion(path, Marks())
    assert occasion is not None
    moment = None if occasion.taken is None else occasion.taken.isoformat()
    return moment, occasion.timed, occasion.clock


def test_identity_is_read_nowhere_else() -> None:
    assert WANTED.isdisjoint({PATIENT_ID, ISSUER_OF_PATIENT_ID})


NOTHING: dict[str, Any] = {"AcquisitionDate": None, "AcquisitionTime": None}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({}, ("2020-03-01T08:30:00", True, "acquisition")),
        (
            {"AcquisitionDateTime": "20200302101112.5+0100"},
            ("2020-03-02T10:11:12", True, "acquisition"),
        ),
        ({"AcquisitionTime": "08"}, ("2020-03-01T08:00:00", True, "acquisition")),
        ({"AcquisitionTime": "083015.123"}, ("2020-03-01T08:30:15", True, "acquisition")),
        ({"AcquisitionTime": None}, ("2020-03-01T00:00:00", False, "acquisition")),
        ({"AcquisitionTime": "99"}, ("2020-03-01T00:00:00", False, "acquisition")),
        (
            {"AcquisitionTime": None, "ContentDate": "20200301", "ContentTime": "0901"},
            ("2020-03-01T09:01:00", True, "content"),
        ),
        (
            {**NOTHING, "StudyDate": "20200303", "StudyTime": "1200"},
            ("2020-03-03T12:00:00", True, "study"),
        ),
        ({**NOTHING, "StudyDate": "20200303"}, ("2020-03-03T00:00:00", False, "study")),
        ({**NOTHING, "StudyDate": "20201303"}, (None, False, "")),
        ({**NOTHING, "AcquisitionDateTime": "2020"}, (None, False, "")),
        (NOTHING, (None, False, "")),
    ],
)
def test_time_is_that_nearest_to_the_exposure(
    tmp_path: Path, header: dict[str, Any], expected: tuple[str | None, bool, str]
) -> None:
    assert clock(taken(tmp_path / "a.dcm", **header)) == expected


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_patient_is_known_in_every_encoding(tmp_path: Path, syntax: str) -> None:
    marks = Marks()
    plain = read_occasion(taken(tmp_path / "a.dcm"), marks)
    other = read_occasion(taken(tmp_path / "b.dcm", syntax), marks)
    assert plain is not None
    assert other is not None
    assert plain.patient == other.patient is not None


def test_marks_tell_nothing_and_differ_from_run_to_run(tmp_path: Path) -> None:
    path = taken(tmp_path / "a.dcm")
    first, second = read_occasion(path, Marks()), read_occasion(path, Marks())
    assert first is not None
    assert second is not None
    assert first.patient != second.patient
    assert CANARY not in repr(first)
    assert repr(replace(first, view="")) == repr(replace(second, view=""))


def test_padding_and_case_make_no_other_patient(tmp_path: Path) -> None:
    marks = Marks()
    first = patient_of(taken(tmp_path / "a.dcm", PatientID="ab 12"), marks)
    assert patient_of(taken(tmp_path / "b.dcm", PatientID="AB 12 "), marks) == first
    assert patient_of(taken(tmp_path / "c.dcm", PatientID="AB 13"), marks) != first


def test_occasion_of_a_scan_is_that_of_its_series(tmp_path: Path) -> None:
    folder = tmp_path / "scan"
    taken(folder / "1.dcm", SeriesInstanceUID="1.2.3", AcquisitionDate="20200301")
    taken(folder / "2.dcm", SeriesInstanceUID="1.2.4", AcquisitionDate="20200305")
    (folder / "note.txt").write_text("no picture\n")
    (folder / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 20)
    archive = tmp_path / "scan.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in folder.iterdir():
            packed.write(path, path.name)
    for source in (folder, archive):
        occasion = read_occasion(source, Marks(), series="1.2.4")
        assert occasion is not None
        assert occasion.taken is not None
        assert occasion.taken.isoformat() == "2020-03-05T08:30:00"
        assert read_occasion(source, Marks(), series="1.2.5") is None


def test_what_is_no_dicom_tells_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    assert read_occasion(path, Marks()) is None
    with pytest.raises(InputError) as caught:
        patient_of(path, Marks())
    assert caught.value.code == "bad-attribute"
    with pytest.raises(InputError):
        read_occasion(tmp_path / "gone.dcm", Marks())


# Who is followed.


def results(*paths: Path) -> list[dict[str, Any]]:
    return [x_ray(str(path), 1 + number) for number, path in enumerate(paths)]


def test_times_and_patient_come_from_the_files_that_results_name(tmp_path: Path) -> None:
    late = taken(tmp_path / "a.dcm", AcquisitionDate="20200309")
    early = taken(tmp_path / "b.dcm")
    trend = follow_up(results(late, early), manifest_of=unknown)
    assert [placed.moment.text for placed in trend.studies] == ["2020-03-01 08:30", "2020-03-09 08:30"]
    assert [placed.clock for placed in trend.studies] == ["acquisition"] * 2
    assert not [note for note in trend.notes if note.code == "patient-unknown"]
    assert CANARY not in str([trend.notes, trend.left_out])


def test_what_is_told_goes_before_the_file(tmp_path: Path) -> None:
    path = taken(tmp_path / "a.dcm")
    request = Request([("a.dcm", parse_moment("2020-04-01"))])
    (placed,) = follow_up(results(path), request, manifest_of=unknown).studies
    assert (placed.moment.text, placed.clock) == ("2020-04-01", "given")


def test_two_patients_are_refused_without_a_word_of_them(tmp_path: Path) -> None:
    paths = [taken(tmp_path / f"{n}.dcm", PatientID=f"{CANARY}-{n % 2}") for n in range(3)]
    with pytest.raises(RefusedError) as caught:
        follow_up(results(*paths), manifest_of=unknown)
    assert caught.value.code == "several-patients"
    assert "2 patients (1: 2 studies, 2: 1 study)" in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("by_file", [False, True])
def test_one_of_several_patients_is_chosen(tmp_path: Path, by_file: bool) -> None:
    days = {"AcquisitionDate": "20200309"}
    paths = [taken(tmp_path / "a.dcm"), taken(tmp_path / "b.dcm", PatientID="OTHER", **days)]
    paths.append(taken(tmp_path / "c.dcm", PatientID="OTHER"))
    marks = Marks()
    wanted = patient_of(paths[2], marks) if by_file else 2
    trend = follow_up(results(*paths), Request((), wanted, marks=marks), manifest_of=unknown)
    assert [Path(placed.study.source).name for placed in trend.studies] == ["c.dcm", "b.dcm"]
    assert [note.code for note in trend.notes if note.code == "others"] == ["others"]


@pytest.mark.parametrize("wanted", [0, 3])
def test_patient_that_there_is_not_is_refused(tmp_path: Path, wanted: int) -> None:
    paths = [taken(tmp_path / "a.dcm"), taken(tmp_path / "b.dcm", PatientID="OTHER")]
    with pytest.raises(RefusedError) as caught:
        follow_up(results(*paths), Request((), wanted), manifest_of=unknown)
    assert caught.value.code == "no-studies"


def test_refused_picture_of_another_patient_is_not_told_of(tmp_path: Path) -> None:
    paths = [taken(tmp_path / f"{n}.dcm", PatientID=name) for n, name in enumerate(("A", "B", "A", "B"))]
    records = results(*paths)
    for record in records[2:]:
        record |= {"status": "refused", "error": {"code": "wrong-view", "message": "lateral"}}
    trend = follow_up(records, Request((), 1), manifest_of=unknown)
    assert [Path(each.source).name for each in trend.left_out] == ["2.dcm"]


@pytest.mark.parametrize("attribute", ["PatientBirthDate", "IssuerOfPatientID"])
def test_one_number_with_two_births_or_issuers_is_two_patients(tmp_path: Path, attribute: str) -> None:
    paths = [
        taken(tmp_path / "a.dcm", **{attribute: "19500101"}),
        taken(tmp_path / "b.dcm", **{attribute: "19510101"}),
        taken(tmp_path / "c.dcm"),
    ]
    follow_up(results(paths[0], paths[2]), manifest_of=unknown)  # one that is silent fits each
    with pytest.raises(RefusedError) as caught:
        follow_up(results(*paths), manifest_of=unknown)
    assert caught.value.code == "several-patients"
    assert "1950" not in str(caught.value)


def test_person_may_say_that_two_are_one(tmp_path: Path) -> None:
    paths = [taken(tmp_path / "a.dcm"), taken(tmp_path / "b.dcm", PatientID="MERGED")]
    trend = follow_up(results(*paths), Request(same_patient=True), manifest_of=unknown)
    assert len(trend.studies) == 2
    assert [note.code for note in trend.notes if note.code == "same-patient"] == ["same-patient"]


def test_pictures_of_nobody_known_go_with_one_patient_and_not_with_several(tmp_path: Path) -> None:
    def dated(number: bytes) -> Dated:
        study = read_study(x_ray("a.png", 1))
        assert isinstance(study, Study)
        patient = Patient(number, b"", b"") if number else None
        return Dated(study, parse_moment("0"), "given", patient, b"", "")

    known, silent, other = dated(b"1"), dated(b""), dated(b"2")
    assert choose_patient([known, silent], None) == [known, silent]
    assert choose_patient([known, silent, other], 1) == [known]


def test_copies_of_a_picture_count_once(tmp_path: Path) -> None:
    paths = [taken(tmp_path / f"{n}.dcm", SOPInstanceUID="1.2.3") for n in range(2)]
    trend = follow_up(results(*paths), manifest_of=unknown)
    assert len(trend.studies) == 1
    assert [each.reason for each in trend.left_out] == ["the same picture as an earlier one"]


def test_change_of_projection_is_told_at_the_study_after_it(tmp_path: Path) -> None:
    views = ("PA", "AP", "", "AP SUPINE", "PA")
    paths = [
        taken(tmp_path / f"{n}.dcm", AcquisitionDate=f"2020030{n + 1}", ViewPosition=view or None)
        for n, view in enumerate(views)
    ]
    trend = follow_up(results(*paths), manifest_of=unknown)
    told = ["view-changed" in {note.code for note in placed.study.notes} for placed in trend.studies]
    assert told == [False, True, False, False, True]


def test_time_of_the_study_alone_is_told(tmp_path: Path) -> None:
    path = taken(tmp_path / "a.dcm", **NOTHING, StudyDate="20200301")
    (placed,) = follow_up(results(path), manifest_of=unknown).studies
    assert "study-time" in {note.code for note in placed.study.notes}


# Tables of times.


def test_table_of_times_is_read(tmp_path: Path) -> None:
    table = tmp_path / "times.csv"
    table.write_text('\ufeffward,time,source\n3,2020-03-01,"a,b.png"\n\n4,2020-03-02T10:00,c.png\n', "utf-8")
    assert [(name, moment.text) for name, moment in read_times(table)] == [
        ("a,b.png", "2020-03-01"),
        ("c.png", "2020-03-02 10:00"),
    ]


@pytest.mark.parametrize(
    "text", ["source;time\na;1\n", "file,time\na,1\n", "source,time\na\n", "source,time\na,soon\n", "\xff"]
)
def test_table_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    table = tmp_path / "times.csv"
    table.write_text(text, "latin-1")
    with pytest.raises(InputError) as caught:
        read_times(table)
    assert caught.value.code == "bad-attribute"
