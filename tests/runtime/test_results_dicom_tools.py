"""DICOM results, judged by others' tools: dciodvfy of dicom3tools, DCMTK, highdicom and SimpleITK.

CI installs dicom3tools and dcmtk from Debian; where one is absent, what needs it is skipped. ``EXPLAINED`` has each
warning of dciodvfy that is let pass, with the reason; any other fails the test, as an error does.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset

from bedside.dicom import read_series
from bedside.errors import RefusedError
from bedside.scan import Grid
from dicom_series import make_affine, make_series, write_series
from made_dicom import (
    SMALL,
    label_phantom,
    read,
    record_scan,
    record_xray,
    texts,
    write_segmentation,
    write_xray,
)
from made_results import unscored

highdicom = pytest.importorskip("highdicom", reason="needs the dicom extra")

EXPLAINED = {
    "Unrecognized defined term <99BEDSIDE> for value 1 of attribute <Coding Scheme Designator>": (
        "a private scheme, which Coding Scheme Identification Sequence names (PS3.16, 8)"
    ),
    "Attribute is not present in standard DICOM IOD - (0x0018,0x1002) UI Device UID": (
        "Device UID in Contributing Equipment Sequence, as IHE AIR 6.5.3.1 asks for; this dciodvfy is older"
    ),
    "Dicom dataset contains attributes not present in standard DICOM IOD - this is a Standard Extended SOP Class": (
        "follows from the one before"
    ),
}
"""Warning of dciodvfy 1.00~20220618 -> why it is no defect."""
EMPTY = {
    f"Missing attribute or value that would be needed to build DICOMDIR - {name}"
    for name in ("Patient ID", "Study Date", "Study Time", "Study ID")
}
"""Warnings of the same where the source's own type 2 attributes are missing: they are copied empty, as they must be."""
UNKNOWN = {
    "Error - Information Object Not found": "label maps are of DICOM 2024e, after this dciodvfy",
    "Error - Shall not be present for Referenced SOP Class that is not segmentation - attribute "
    "<ReferencedSegmentNumber>": "the same: a label map is a segmentation",
}
"""Error of the same, on label maps alone -> why it is none."""
EVEN = Grid((24, 32, 32), make_affine(pixel_mm=(7, 7), step=(0, 0, 8), shape=(24, 32, 32)))
"""Its bits fill bytes: of others, GDCM 3.0 in SimpleITK 2.5 leaves the last few bits of the file as memory had them."""
PATIENT: dict[str, Any] = {
    "PatientName": "Doe^Jane",
    "PatientID": "1",
    "PatientBirthDate": "19500101",
    "PatientSex": "F",
    "StudyDate": "20260101",
    "StudyTime": "120000",
    "StudyID": "S1",
    "AccessionNumber": "A1",
    "ReferringPhysicianName": "Roe^Richard",
}


def needs(tool: str, package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"needs {tool} of Debian's {package}")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each object."""
    folder = tmp_path_factory.mktemp("tools")
    xray = write_xray(folder / "xray.dcm", **PATIENT)
    bare = write_xray(folder / "bare.dcm", PatientOrientation=["R", "F"])
    series = write_series(folder / "series", make_series(SMALL, **PATIENT))
    refusal = RefusedError("wrong-view", "the view position is LL, not frontal (PA, AP)")
    made = {
        "xray": record_xray(xray, folder / "1")[0],
        "bare": record_xray(bare, folder / "2")[0],
        "refused": record_xray(xray, folder / "3", unscored("xray.dcm", refusal))[0],
        "scan": record_scan(series, folder / "4")[0],
        "labelled": record_scan(series, folder / "5", labelmap=True)[0],
    }
    return {f"{name} {kind}": path for name, kinds in made.items() for kind, path in kinds.items()} | {
        "series": series
    }


def judge(path: Path) -> list[str]:
    """What dciodvfy finds wrong."""
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, errors="replace", check=False)
    return [
        line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("Error", "Warning"))
    ]


OBJECTS = [
    *(f"{name} {kind}" for name in ("xray", "bare") for kind in ("report", "heatmap", "map")),
    "refused report",
    *(f"scan {kind}" for kind in ("report", "seg", "montage")),
]


@needs("dciodvfy", "dicom3tools")
@pytest.mark.parametrize("name", OBJECTS)
def test_dciodvfy_finds_no_error_and_no_warning_without_a_reason(name: str, files: dict[str, Path]) -> None:
    wrong = {
        line.partition(" - ")[2].strip() if line.startswith("Warning") else line
        for line in judge(files[name])
    }
    assert wrong <= EXPLAINED.keys() | (EMPTY if name.startswith("bare") else set())


@needs("dciodvfy", "dicom3tools")
@pytest.mark.parametrize("kind", ["labelmap", "report"])
def test_dciodvfy_knows_no_label_map_and_finds_nothing_else(kind: str, files: dict[str, Path]) -> None:
    wrong = {line.strip() for line in judge(files[f"labelled {kind}"]) if line.startswith("Error")}
    assert wrong <= UNKNOWN.keys()


@needs("dciodvfy", "dicom3tools")
def test_dciodvfy_would_find_an_error(files: dict[str, Path], tmp_path: Path) -> None:
    made = read(files["scan seg"])
    del made.SegmentSequence[0].SegmentedPropertyTypeCodeSequence
    made.save_as(tmp_path / "bad.dcm")
    assert any(line.startswith("Error") for line in judge(tmp_path / "bad.dcm"))


@needs("dcmdump", "dcmtk")
@pytest.mark.parametrize("name", [*OBJECTS, "labelled labelmap"])
def test_dcmtk_reads_every_object_to_its_end(name: str, files: dict[str, Path]) -> None:
    done = subprocess.run(
        ["dcmdump", "-q", "+L", "+P", "0008,0018", files[name]], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert str(read(files[name]).SOPInstanceUID) in done.stdout


@needs("dsrdump", "dcmtk")
@pytest.mark.parametrize("name", [name for name in OBJECTS if name.endswith("report")])
def test_dcmtk_understands_the_reports(name: str, files: dict[str, Path]) -> None:
    done = subprocess.run(["dsrdump", "+Pl", files[name]], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "Comprehensive 3D SR Document" in done.stdout
    for line in texts(read(files[name])):
        title, _, _ = line.partition(":")
        assert title in done.stdout


@needs("dsrdump", "dcmtk")
def test_dcmtk_reads_the_numbers(files: dict[str, Path]) -> None:
    done = subprocess.run(["dsrdump", files["xray report"]], capture_output=True, text=True, check=True)
    assert '"Geographic extent of lung opacity")="5.2" ({0:8},UCUM,"range: 0:8")' in done.stdout


def test_highdicom_reads_the_groups_of_a_report(files: dict[str, Path]) -> None:
    report = highdicom.sr.srread(files["scan report"]).content
    sites = {
        (group.finding_type.meaning, measurement.name.meaning)
        for group in report.get_volumetric_roi_measurement_groups()
        for measurement in group.get_measurements()
    }
    assert ("Lung", "Volume") in sites
    assert ("Ground glass opacity", "Volume") in sites
    assert len(report.get_image_measurement_groups()) > 3


def test_highdicom_reads_the_volume_back(files: dict[str, Path]) -> None:
    with read_series(files["series"]) as scan:
        labels = label_phantom(scan.read(range(scan.grid.shape[0])))
        grid = scan.grid
    whole = highdicom.seg.segread(files["scan seg"]).get_volume(segment_numbers=[1, 2])
    lungs, marker = np.moveaxis(whole.array, 3, 0)
    shared = np.array(whole.affine)
    start = shared @ [0, 0, 0, 1] - grid.affine @ [0, 0, 0, 1]  # empty slices at the ends have no frame
    first = round(start[2] / 8) if shared[2, 0] > 0 else round((start[2] + 8 * (1 - len(lungs))) / 8)
    step = 1 if shared[2, 0] > 0 else -1
    part = labels[first : first + len(lungs)][::step]
    np.testing.assert_array_equal(lungs, np.isin(part, (1, 2)))
    np.testing.assert_array_equal(marker, part == 2)
    flat = highdicom.seg.segread(files["labelled labelmap"]).get_volume(combine_segments=True)
    np.testing.assert_array_equal(flat.array[::-1] if flat.affine[2, 0] < 0 else flat.array, part[::step])


def test_highdicom_reads_the_map(files: dict[str, Path]) -> None:
    if not hasattr(highdicom.pm.ParametricMap, "from_dataset"):
        pytest.skip("needs highdicom 0.25 or later to read maps")
    made = highdicom.pm.ParametricMap.from_dataset(read(files["xray map"]))
    frame = made.get_frame(1, apply_real_world_transform=True)
    assert frame.shape == (72, 80)
    assert frame.max() == pytest.approx(6, abs=0.5)


@pytest.mark.parametrize("flipped", [False, True], ids=["as usual", "columns to the right"])
def test_simpleitk_puts_the_segmentation_where_the_scan_is(flipped: bool, tmp_path: Path) -> None:
    simpleitk = pytest.importorskip("SimpleITK")
    slices = make_series(EVEN)
    if flipped:
        for each in slices:
            stored = np.frombuffer(each.PixelData, "<i2").reshape(each.Rows, each.Columns)
            each.PixelData = stored[:, ::-1].tobytes()
            x, y, z = map(float, each.ImagePositionPatient)
            each.ImagePositionPatient = [x + 7 * (each.Columns - 1), y, z]
            each.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]
    path = write_series(tmp_path / "series", slices, shuffled=False)
    seg = simpleitk.ReadImage(str(write_segmentation(path, tmp_path / "out", marker_alone=True)))
    inside = simpleitk.GetArrayFromImage(seg) > 0
    shown = [place for place, each in enumerate(slices) if marker_in(each).any()]
    first = shown[0]

    assert seg.GetSpacing() == pytest.approx((7, 7, 8), abs=1e-4)
    np.testing.assert_array_equal(inside, [marker_in(each) for each in slices[first : shown[-1] + 1]])
    for place, row, column in ((0, 0, 0), (1, 30, 2), (len(inside) - 1, 3, 31)):
        source = slices[first + place]
        cosines = np.array(source.ImageOrientationPatient, float)
        corner = np.array(source.ImagePositionPatient, float)
        point = corner + 7 * column * cosines[:3] + 7 * row * cosines[3:]
        assert seg.TransformIndexToPhysicalPoint((column, row, place)) == pytest.approx(point, abs=1e-3)


def marker_in(dataset: Dataset) -> npt.NDArray[np.bool_]:
    stored = np.frombuffer(dataset.PixelData, "<i2").reshape(dataset.Rows, dataset.Columns)
    inside: npt.NDArray[np.bool_] = label_phantom(stored + float(dataset.RescaleIntercept)) == 2
    return inside
