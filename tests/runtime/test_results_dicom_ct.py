"""A CT's results as DICOM: nothing mirrored, every frame on its own slice, volumes as they were measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from bedside.dicom.geometry import Axes
from bedside.errors import RefusedError
from bedside.results import scan_stem
from bedside.results.dicom.frames import BinaryFrames
from bedside.results.dicom.scans import ScanRecorder
from bedside.results.dicom.segments import plan_segments
from bedside.scan import Grid
from dicom_series import CORNER, make_affine, make_multiframe, make_series, write_multiframe, write_series
from made_dicom import (
    MARKER_ABOVE_HU,
    NOON,
    SMALL,
    TISSUES,
    ScanSource,
    make_folder,
    read,
    record_scan,
    texts,
    write_segmentation,
    written,
)
from made_scans import unsegmented

pytest.importorskip("highdicom", reason="needs the dicom extra")

TILT = np.radians(20)
GEOMETRIES: dict[str, dict[str, Any]] = {
    "axial": {},
    "columns to the right": {"along": (-1, 0, 0)},
    "rows to the front": {"down": (0, -1, 0)},
    "half turn": {"along": (-1, 0, 0), "down": (0, -1, 0)},
    "rows and columns exchanged": {"along": (0, 1, 0), "down": (1, 0, 0)},
    "quarter turn": {"along": (0, -1, 0), "down": (1, 0, 0)},
    "oblique": {
        "down": (0, np.cos(TILT), np.sin(TILT)),
        "step": (0, -8 * np.sin(TILT), 8 * np.cos(TILT)),
    },
    "oblique and flipped": {
        "along": (-1, 0, 0),
        "down": (0, -np.cos(TILT), np.sin(TILT)),
        "step": (0, 8 * np.sin(TILT), 8 * np.cos(TILT)),
    },
    "gantry tilt": {"step": (0, 2.5, 8)},
    "oblong pixels": {"pixel_mm": (7, 6)},
}


def make_grid(**geometry: Any) -> Grid:
    given = {"pixel_mm": (7, 7), "step": (0, 0, 8), **geometry}
    return Grid(SMALL.shape, make_affine(shape=SMALL.shape, **given))


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_series(tmp_path_factory.mktemp("ct") / "series", make_series(SMALL))


@pytest.fixture(scope="module")
def objects(series: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    files, result = record_scan(series, tmp_path_factory.mktemp("dicom"))
    assert result.status == "ok"
    return {kind: read(path) for kind, path in files.items()}


def marker_in(dataset: Dataset) -> np.ndarray:
    return (
        dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept) > MARKER_ABOVE_HU
    )


def numbers(dataset: Dataset) -> dict[str, int]:
    return {item.SegmentLabel: item.SegmentNumber for item in dataset.SegmentSequence}


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
@pytest.mark.parametrize("labelmap", [False, True], ids=["bits", "labelmap"])
def test_nothing_is_mirrored(geometry: dict[str, Any], labelmap: bool, tmp_path: Path) -> None:
    slices = make_series(make_grid(**geometry))
    by_uid = {str(each.SOPInstanceUID): each for each in slices}
    path = write_series(tmp_path / "series", slices)

    made = read(write_segmentation(path, tmp_path / "out", labelmap=labelmap))

    frames = made.pixel_array
    wanted = numbers(made)["Ground glass"]
    shared = made.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    row_mm, column_mm = (float(mm) for mm in shared.PixelMeasuresSequence[0].PixelSpacing)
    places = []
    for frame, group in zip(frames, made.PerFrameFunctionalGroupsSequence, strict=True):
        if not labelmap and group.SegmentIdentificationSequence[0].ReferencedSegmentNumber != wanted:
            continue
        inside = frame == wanted if labelmap else frame == 1
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        source = by_uid[image.ReferencedSOPInstanceUID]
        np.testing.assert_array_equal(inside, marker_in(source))
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        np.testing.assert_allclose(position, [float(mm) for mm in source.ImagePositionPatient], atol=1e-3)
        np.testing.assert_allclose(cosines, [float(c) for c in source.ImageOrientationPatient], atol=1e-6)
        rows, columns = np.nonzero(inside)
        places.append(
            position + np.outer(columns * column_mm, cosines[:3]) + np.outer(rows * row_mm, cosines[3:])
        )
    middle = np.concatenate(places).mean(axis=0)
    assert (middle - CORNER > 5).all()  # arms of 44 mm: to the left, to the back and to the head


def test_frames_of_any_size_are_packed_bit_upon_bit(objects: dict[str, Dataset]) -> None:
    made = objects["seg"]
    assert made.Rows * made.Columns % 8
    pixels = made.NumberOfFrames * made.Rows * made.Columns
    assert len(made.PixelData) == -(-pixels // 8) + -(-pixels // 8) % 2


def test_segments_are_coded_and_overlap(objects: dict[str, Dataset]) -> None:
    made = objects["seg"]
    lungs, opacity = made.SegmentSequence
    assert made.SegmentsOverlap == "YES"
    assert lungs.SegmentLabel == "Both lungs"
    assert lungs.SegmentedPropertyTypeCodeSequence[0].CodeValue == "39607008"
    assert opacity.SegmentedPropertyTypeCodeSequence[0].CodeValue == "112120"
    assert opacity.AnatomicRegionSequence[0].CodeValue == "39607008"
    algorithm = opacity.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("tiny", "1.0.0")
    assert "0123456789abcdef" * 4 in algorithm.AlgorithmParameters
    frames = made.pixel_array.astype(bool)
    of = [
        group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for group in made.PerFrameFunctionalGroupsSequence
    ]
    counts = [int(frames[np.array(of) == number].sum()) for number in (1, 2)]
    assert counts[0] > counts[1] > 0  # the lungs hold their opacities


def test_a_segment_has_no_gaps() -> None:
    labels = np.zeros((6, 3, 3), np.uint8)
    labels[1, 0, 0] = labels[4, 1, 1] = 2
    frames = BinaryFrames(plan_segments(TISSUES), Axes(), 9)
    for index, plane in enumerate(labels):
        if index != 2:
            frames.put(index, plane)
    assert frames.keys == [(plan, index) for plan in (0, 1) for index in (1, 3, 4)]
    bits = np.unpackbits(np.frombuffer(b"".join(frames.data()), np.uint8), bitorder="little")
    assert np.flatnonzero(bits).tolist() == [0, 22, 27, 49]
    assert frames.n_bytes == 7  # 6 frames of 9 bits


def test_slices_that_were_not_read_have_no_frame(series: Path, tmp_path: Path) -> None:
    path = write_segmentation(series, tmp_path, read=slice(None, None, 2))
    sources = {
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        for group in read(path).PerFrameFunctionalGroupsSequence
    }
    assert sources
    assert {int(uid.rpartition(".")[2]) % 2 for uid in sources} == {1}


def test_a_blended_slice_refers_to_both_its_neighbours(tmp_path: Path) -> None:
    slices = make_series(SMALL)
    del slices[12]
    path = write_series(tmp_path / "series", slices)

    made = write_segmentation(path, tmp_path / "out", allow_missing=True)

    images = [
        [image.ReferencedSOPInstanceUID for image in group.DerivationImageSequence[0].SourceImageSequence]
        for group in read(made).PerFrameFunctionalGroupsSequence
    ]
    assert ["1.2.3.1.12", "1.2.3.1.14"] in images


def test_frames_of_a_multi_frame_file_are_referred_to_by_number(tmp_path: Path) -> None:
    path = write_multiframe(tmp_path / "scan.dcm", make_multiframe(make_series(SMALL)))

    made = read(write_segmentation(path, tmp_path / "out"))

    group = made.PerFrameFunctionalGroupsSequence[0]
    (image,) = group.DerivationImageSequence[0].SourceImageSequence
    height = float(group.PlanePositionSequence[0].ImagePositionPatient[2])
    first = float(make_series(SMALL)[0].ImagePositionPatient[2])
    assert image.ReferencedFrameNumber == round((height - first) / 8) + 1
    assert len(made.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1


def test_the_report_has_each_volume_with_its_site_and_segment(objects: dict[str, Dataset]) -> None:
    report, made = objects["report"], objects["seg"]
    lines = texts(report)
    assert "Procedure reported: 169069000 SCT" in lines
    assert "Finding: 112120 DCM" in lines
    assert any(line.startswith("Volume: ") and line.endswith(" mL") for line in lines)
    assert "+, range of upper measurement uncertainty: " in "\n".join(lines)
    segments = [
        (str(item.ReferencedSOPInstanceUID), int(item.ReferencedSegmentNumber))
        for item in referenced(report)
        if "ReferencedSegmentNumber" in item
    ]
    assert sorted(segments) == [(made.SOPInstanceUID, 1), (made.SOPInstanceUID, 2)]


def test_evidence_is_the_series_and_what_was_made_of_it(series: Path, objects: dict[str, Dataset]) -> None:
    (study,) = objects["report"].CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == "1.2.3"
    source, made = study.ReferencedSeriesSequence
    assert source.SeriesInstanceUID == "1.2.3.1"
    assert len(source.ReferencedSOPSequence) == SMALL.shape[0] == len(list(series.iterdir()))
    assert made.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == objects["seg"].SOPInstanceUID
    (beside,) = objects["report"].PertinentOtherEvidenceSequence
    (other,) = beside.ReferencedSeriesSequence
    assert other.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == objects["montage"].SOPInstanceUID


def test_the_image_library_lists_every_slice(objects: dict[str, Dataset]) -> None:
    library = next(
        item
        for item in objects["report"].ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Image Library"
    )
    assert "Modality: CT DCM" in texts(library)
    listed = {str(item.ReferencedSOPInstanceUID) for item in referenced(library)}
    assert listed == {f"1.2.3.1.{number}" for number in range(1, SMALL.shape[0] + 1)}


def test_key_images_say_what_they_are_not_for(objects: dict[str, Dataset]) -> None:
    montage = objects["montage"]
    assert montage.pixel_array.shape == (montage.Rows, montage.Columns, 3)
    assert "NOT FOR DIAGNOSTIC USE" in montage.DerivationDescription
    assert len(montage.SourceImageSequence) == 12
    assert montage.pixel_array[: 2 * 48].any()  # the banner


@pytest.mark.parametrize("make", [lambda p: p, lambda p: p / "image-0000.dcm"], ids=["folder", "one file"])
def test_a_scan_that_was_not_segmented_says_why(
    make: Callable[[Path], Path], series: Path, tmp_path: Path
) -> None:
    recorder = ScanRecorder(make_folder(tmp_path), TISSUES, clock=lambda: NOON)
    path, stem = make(series), scan_stem(series)
    error = RefusedError("no-lungs", "no lungs in the scan; give a chest CT")

    recorder.claim(stem)
    result = recorder.record(ScanSource(path), stem, unsegmented(str(path), error))

    assert result.error is error
    files = written(tmp_path)
    assert set(files) == {"report"}
    report = read(files["report"])
    assert report.CompletionFlag == "PARTIAL"
    lines = texts(report)
    assert "Summary of Analyses: 111225 DCM" in lines
    assert "Why there is no result: no-lungs 99BEDSIDE" in lines
    assert "Comment: no lungs in the scan; give a chest CT" in lines
    assert report.StudyInstanceUID == "1.2.3"


def referenced(item: Dataset) -> list[Dataset]:
    found = list(item.get("ReferencedSOPSequence", ()))
    for child in item.get("ContentSequence", ()):
        found += referenced(child)
    return found
