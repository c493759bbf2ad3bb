"""An X-ray's results as DICOM: whose they are, what they say, what they refer to, and what is never copied."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from bedside.dicom import read_radiograph
from bedside.errors import BackendError, BedsideError, InputError, RefusedError
from bedside.inputs import Source
from bedside.provenance import BundleRef
from bedside.results.dicom.capture import BANNER, LONGEST, stamp
from bedside.results.dicom.header import begin, encode
from bedside.results.dicom.identity import Identity
from bedside.results.dicom.quiet import quiet
from bedside.results.dicom.study import read_study
from bedside.results.dicom.xrays import XrayRecorder
from command_line import draw
from made_dicom import NOON, make_folder, read, record_xray, texts, write_xray, written
from made_results import BUNDLE, ENGINE, scored, unscored

pytest.importorskip("highdicom", reason="needs the dicom extra")

KINDS = {"report", "heatmap", "map"}


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    folder = tmp_path_factory.mktemp("xray")
    files, result = record_xray(write_xray(folder / "in.dcm"), folder / "out")
    assert result.status == "ok"
    return {kind: read(path) for kind, path in files.items()}


def test_scores_come_with_their_scale_and_interval(objects: dict[str, Dataset]) -> None:
    lines = texts(objects["report"])
    place = lines.index("Geographic extent of lung opacity: 5.2 {0:8}")
    assert lines[place + 1 : place + 4] == [
        "+, range of upper measurement uncertainty: 1 {0:8}",
        "-, range of lower measurement uncertainty: 1 {0:8}",
        "Share of truths inside such an interval: 80 %",
    ]
    assert "Degree of lung opacity: 3.1 {0:6}" in lines
    assert f"Algorithm Parameters: bundle sha256 {'0123456789abcdef' * 4}" in lines
    assert "Algorithm Name: tiny" in lines


def test_pathologies_and_doubts_are_coded(objects: dict[str, Dataset]) -> None:
    lines = texts(objects["report"])
    assert lines.count("Finding: 112033 DCM") == 2  # the severity, and Lung Opacity
    assert "Finding: 60046008 SCT" in lines
    assert "Probability: 0.125 {0:1}" in lines
    assert "Quality Finding: view-unknown 99BEDSIDE" in lines
    assert "Comment: the header gives no view position; taken as frontal" in lines


def test_all_are_of_one_study_and_refer_to_the_x_ray(objects: dict[str, Dataset]) -> None:
    assert set(objects) == KINDS
    for made in objects.values():
        assert made.StudyInstanceUID == "1.2.3"
        assert made.SeriesInstanceUID != "1.2.3.4"
        assert made.ContentQualification == "RESEARCH"
        assert "not for clinical use" in made.SeriesDescription
        (equipment,) = made.ContributingEquipmentSequence
        assert equipment.ManufacturerModelName == "tiny"
        assert "0123456789abcdef" * 4 in equipment.ContributionDescription
        assert equipment.ContributionDateTime == "20260102120000+0000"
    assert len({made.SeriesInstanceUID for made in objects.values()}) == 3
    assert len({made.SeriesNumber for made in objects.values()}) == 3
    (evidence,) = objects["report"].CurrentRequestedProcedureEvidenceSequence
    (source,) = evidence.ReferencedSeriesSequence
    assert source.SeriesInstanceUID == "1.2.3.4"
    assert source.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.5"
    (shown,) = objects["heatmap"].SourceImageSequence
    assert shown.ReferencedSOPInstanceUID == "1.2.3.4.5"


def test_a_second_run_is_known_by_its_uids(tmp_path: Path) -> None:
    path = write_xray(tmp_path / "in.dcm")
    first, _ = record_xray(path, tmp_path / "one")
    again, _ = record_xray(path, tmp_path / "two")
    other = replace(
        scored(str(path), pixels=read_radiograph(path).pixels), bundle=BundleRef("tiny", "1.0.1", "f" * 64)
    )
    changed, _ = record_xray(path, tmp_path / "three", other)

    def uids(files: dict[str, Path]) -> set[str]:
        return {
            str(read(file)[tag].value)
            for file in files.values()
            for tag in ("SOPInstanceUID", "SeriesInstanceUID")
        }

    assert uids(first) == uids(again)
    assert uids(first).isdisjoint(uids(changed))


@pytest.mark.parametrize(
    "orientation", [["L", "F"], ["R", "F"], ["L", "H"], ["F", "L"], ["H", "R"], ["F", "R"]], ids="\\".join
)
def test_the_map_lies_on_the_pixels_as_they_are_stored(orientation: list[str], tmp_path: Path) -> None:
    path = write_xray(tmp_path / "in.dcm", PatientOrientation=orientation)
    upright = read_radiograph(path).pixels
    row, column = (int(axis.mean()) for axis in np.nonzero(upright == upright.max()))
    cells = np.zeros((60, 60), np.float32)
    side = max(upright.shape)  # the map lies over a square around the picture
    top, left = (side - upright.shape[0]) // 2, (side - upright.shape[1]) // 2
    down, across = (row + top) * 60 // side, (column + left) * 60 // side
    cells[down - 1 : down + 2, across - 1 : across + 2] = 5

    files, _ = record_xray(
        path, tmp_path / "out", scored(str(path), pixels=upright, activation={"extent": cells})
    )

    made, source = read(files["map"]), pydicom.dcmread(path)
    hot = np.unravel_index(made.pixel_array.argmax(), made.pixel_array.shape)
    assert (made.Rows, made.Columns) == (source.Rows, source.Columns)
    np.testing.assert_allclose(hot, (10, 60), atol=2)
    shared = made.SharedFunctionalGroupsSequence[0]
    (mapping,) = made.PerFrameFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    values = made.pixel_array * mapping.RealWorldValueSlope + mapping.RealWorldValueIntercept
    assert values.max() == pytest.approx(5, abs=0.05)
    assert values.min() == pytest.approx(0, abs=1e-6)
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    named = {"L": (1, 0, 0), "R": (-1, 0, 0), "F": (0, 0, -1), "H": (0, 0, 1)}
    np.testing.assert_allclose(cosines, [*named[orientation[0]], *named[orientation[1]]], atol=1e-9)


NAMES = {
    "Japanese": (
        ["", "ISO 2022 IR 87"],
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        "山田^太郎",
    ),
    "Japanese, half width": (
        ["ISO 2022 IR 13", "ISO 2022 IR 87"],
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
        "山田^太郎",
    ),
    "German": ("ISO_IR 100", "Müller^Jürgen".encode("latin-1"), "Müller^Jürgen"),
    "German, UTF-8": ("ISO_IR 192", "Müller^Jürgen".encode(), "Müller^Jürgen"),
    "undeclared Latin-1": (None, "Müller^Jürgen".encode("latin-1"), "Müller^Jürgen"),
    "undeclared UTF-8": (None, "Müller^Jürgen".encode(), "Müller^Jürgen"),
    "declared and unknown": ("ISO_IR 999", "Müller^Jürgen".encode("latin-1"), "Müller^Jürgen"),
}


def with_name(path: Path, charset: str | list[str] | None, name: bytes) -> Path:
    """A picture whose patient has a name of these bytes, whatever is declared of them."""
    name += b" " * (len(name) % 2)
    stands_in = "@" * len(name)
    write_xray(path, PatientName=stands_in, SpecificCharacterSet=None if charset is None else "ISO_IR 6")
    data = path.read_bytes().replace(stands_in.encode(), name)
    if charset is not None:
        terms = "\\".join([charset] if isinstance(charset, str) else charset).encode()
        terms += b" " * (len(terms) % 2)
        data = data.replace(b"CS\x08\x00ISO_IR 6", b"CS" + bytes([len(terms), 0]) + terms)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("charset", "name", "shown"), NAMES.values(), ids=NAMES.keys())
def test_names_keep_their_bytes(
    charset: str | list[str] | None, name: bytes, shown: str, tmp_path: Path
) -> None:
    path = with_name(tmp_path / "in.dcm", charset, name)

    files, result = record_xray(path, tmp_path / "out")

    assert result.status == "ok"
    for file in files.values():
        assert name in file.read_bytes()
        with quiet():
            components = str(read(file).PatientName).split("=")
        assert shown in components


def test_what_the_study_says_is_copied_and_nothing_private(tmp_path: Path) -> None:
    issuer = Dataset()
    issuer.UniversalEntityID = "ISSUER"
    block = issuer.private_block(0x0009, "CANARY", create=True)
    block.add_new(1, "LO", "CANARY")
    path = write_xray(
        tmp_path / "in.dcm",
        PatientID="P1",
        PatientBirthDate="19000101",
        PatientSex="UNKNOWN",
        StudyDate="20260101",
        AccessionNumber="A1",
        InstitutionName="CANARY",
        PatientAge="076Y",
        IssuerOfPatientIDQualifiersSequence=[issuer],
    )
    dataset = pydicom.dcmread(path)
    dataset.private_block(0x0011, "CANARY", create=True).add_new(1, "LO", "CANARY")
    dataset.save_as(path)
    data = path.read_bytes()
    place = data.index(b"\x10\x00\x30\x00DA")
    path.write_bytes(data[:place] + b"\x10\x00\x30\x00DA\x0a\x001950.02.03" + data[place + 16 :])

    files, _ = record_xray(path, tmp_path / "out")

    for file in files.values():
        made = read(file)
        assert (made.PatientID, made.PatientBirthDate, made.PatientSex) == ("P1", "19500203", "")
        assert (made.StudyDate, made.StudyTime, made.AccessionNumber) == ("20260101", "", "A1")
        assert (made.StudyID, made.ReferringPhysicianName, made.PatientAge) == ("", "", "076Y")
        assert made.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityID == "ISSUER"
        assert b"CANARY" not in file.read_bytes()


def test_times_are_on_the_clock_of_the_source(tmp_path: Path) -> None:
    files, _ = record_xray(write_xray(tmp_path / "in.dcm", TimezoneOffsetFromUTC="+0900"), tmp_path / "out")
    report = read(files["report"])
    assert (report.ContentDate, report.ContentTime, report.TimezoneOffsetFromUTC) == (
        "20260102",
        "210000",
        "+0900",
    )


def test_without_an_offset_none_is_claimed(objects: dict[str, Dataset]) -> None:
    assert all("TimezoneOffsetFromUTC" not in made for made in objects.values())
    assert objects["report"].ContentTime == "120000"


@pytest.mark.parametrize(
    ("error", "summary"),
    [
        (RefusedError("wrong-view", "the view position is LL, not frontal (PA, AP)"), "111225 DCM"),
        (BackendError("engine-crashed", "the engine's process ended by itself"), "111224 DCM"),
    ],
)
def test_a_picture_without_a_score_says_why(error: BedsideError, summary: str, tmp_path: Path) -> None:
    path = write_xray(tmp_path / "in.dcm")
    files, result = record_xray(path, tmp_path / "out", unscored(str(path), error))
    assert result.error is error
    assert set(files) == {"report"}
    report = read(files["report"])
    assert (report.CompletionFlag, report.VerificationFlag) == ("PARTIAL", "UNVERIFIED")
    lines = texts(report)
    assert f"Summary of Analyses: {summary}" in lines
    assert f"Why there is no result: {error.code} 99BEDSIDE" in lines
    assert f"Comment: {error.message}" in lines


def test_what_is_no_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = draw(tmp_path / "in" / "CANARY.png")
    recorder = XrayRecorder(make_folder(tmp_path / "out"), clock=lambda: datetime.now(timezone.utc))

    result = recorder.record(Source(path), scored(str(path)))

    assert result.error is not None
    assert (result.error.code, result.status) == ("no-reference", "refused")
    assert "it is not DICOM" in result.error.message
    assert "CANARY" not in result.error.message
    assert written(tmp_path / "out") == {}


@pytest.mark.parametrize("missing", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_what_belongs_to_no_study_is_refused(missing: str, tmp_path: Path) -> None:
    path = write_xray(tmp_path / "in.dcm", **{missing: None})
    files, result = record_xray(path, tmp_path / "out")
    assert result.error is not None
    assert (result.error.code, result.status) == ("no-reference", "refused")
    assert missing in result.error.message
    assert files == {}


def test_what_can_not_be_read_at_all_keeps_its_error(tmp_path: Path) -> None:
    error = InputError("not-found", "no such file; check the path")
    recorder = XrayRecorder(make_folder(tmp_path / "out"))
    result = recorder.record(Source(tmp_path / "gone.dcm"), unscored("gone.dcm", error))
    assert result.error is error
    assert written(tmp_path / "out") == {}


def test_a_broken_attribute_of_the_patient_stops_nothing_and_is_told_to_nobody(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = write_xray(
        tmp_path / "in.dcm", PatientName="@" * 20, PatientBirthDate="20000101", PatientSize="1.8 "
    )
    data = path.read_bytes().replace(b"@" * 20, b"CANARY^\xff\xfe\x1b$B" + b"x" * 8)
    path.write_bytes(data.replace(b"20000101", b"CANARY!!").replace(b"1.8 ", b"CANA"))
    files, result = record_xray(path, tmp_path / "out")
    assert result.status == "ok"
    report = read(files["report"])
    assert report.PatientBirthDate == ""
    assert "PatientSize" not in report
    assert "CANARY" not in "".join(capfd.readouterr()) + caplog.text


def test_captures_are_bounded_and_stamped() -> None:
    stamped = stamp(np.full((3000, 2500, 3), 100, np.uint8))
    height, width, _ = stamped.shape
    assert width <= LONGEST
    strip = (height - LONGEST) // 2
    for part in (stamped[:strip], stamped[-strip:]):
        assert part[..., 0].max() == 255  # amber letters
        assert part[..., 2].max() < 100
    assert (stamped[strip + 5 : -strip - 5] == 100).all()
    narrow = stamp(np.zeros((40, 30, 3), np.uint8))
    assert narrow.shape[1] > 30  # the notice is there in full
    assert BANNER == "NOT FOR DIAGNOSTIC USE"


def test_damaged_headers_are_refused_or_copied_in_part_and_never_a_defect(tmp_path: Path) -> None:
    issuer = Dataset()
    issuer.UniversalEntityID = "ISSUER"
    path = write_xray(
        tmp_path / "in.dcm", PatientName="Doe^Jane", IssuerOfPatientIDQualifiersSequence=[issuer]
    )
    whole = path.read_bytes()
    start, end = whole.index(b"DICM") + 4, whole.index(b"\xe0\x7f\x10\x00")
    random = np.random.default_rng(11)
    outcomes = set()
    for _ in range(200):
        data = bytearray(whole)
        for place in random.integers(start, end, random.integers(1, 8)):
            data[place] = random.integers(0, 256)
        try:
            study = read_study(io.BytesIO(data))
        except RefusedError as error:
            outcomes.add(error.code)
        else:
            outcomes.add("read")
            made = begin(Identity(study, BUNDLE, ENGINE, "ok", NOON), "report")
            assert encode(made)
    assert outcomes == {"read", "no-reference"}
