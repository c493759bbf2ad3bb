"""The sample X-ray: a valid DX file, the same every time, that shows what the phantom holds."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset
from pydicom.uid import UID

from bedside import sample
from bedside.chest import chest_phantom
from bedside.errors import OutputError

VALIDATOR = shutil.which("dciodvfy")

# Attributes of types 1 and 2 that PS3.3 asks of a DX image for presentation (A.26): all of type 1 hold a value.
TYPE_1 = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "PresentationIntentType",
    "InstanceNumber",
    "ImageType",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelIntensityRelationship",
    "PixelIntensityRelationshipSign",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "PresentationLUTShape",
    "LossyImageCompression",
    "BurnedInAnnotation",
    "PatientOrientation",
    "ImageLaterality",
    "AnatomicRegionSequence",
    "ImagerPixelSpacing",
    "ViewCodeSequence",
    "WindowCenter",
    "WindowWidth",
    "PixelData",
)
TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "SeriesNumber",
    "Manufacturer",
    "PositionerType",
    "DetectorType",
    "AcquisitionContextSequence",
)


@pytest.fixture(scope="module")
def header() -> FileDataset:
    return sample.dataset()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample.write_sample(tmp_path_factory.mktemp("sample") / "sample.dcm")


@pytest.mark.skipif(VALIDATOR is None, reason="dciodvfy (package dicom3tools) is not installed")
def test_the_validator_finds_no_error(file: Path) -> None:
    run = subprocess.run([str(VALIDATOR), str(file)], capture_output=True, text=True, check=False)
    said = run.stdout + run.stderr
    assert "DXImageForPresentation" in said
    assert "Error" not in said
    assert run.returncode == 0


def test_every_required_attribute_is_there(file: Path) -> None:
    read = pydicom.dcmread(file)
    assert [name for name in TYPE_1 if name not in read or read[name].is_empty] == []
    assert [name for name in TYPE_2 if name not in read] == []
    assert read.SOPClassUID == UID("1.2.840.10008.5.1.4.1.1.1.1")
    assert read.file_meta.MediaStorageSOPInstanceUID == read.SOPInstanceUID
    assert read.SOPInstanceUID.startswith("2.25.")
    assert len({read.SOPInstanceUID, read.SeriesInstanceUID, read.StudyInstanceUID}) == 3


def test_it_says_that_it_is_no_patient(header: FileDataset) -> None:
    assert (str(header.PatientName), header.PatientID) == ("Phantom^Bedside", "PHANTOM-0")
    assert (header.PatientIdentityRemoved, header.BurnedInAnnotation) == ("YES", "NO")
    assert "not a patient; not for clinical use" in header.ImageComments


def test_it_is_a_frontal_chest_of_12_bits(header: FileDataset) -> None:
    assert (header.Modality, header.BodyPartExamined, header.ViewPosition) == ("DX", "CHEST", "AP")
    assert header.PresentationIntentType == "FOR PRESENTATION"
    assert list(header.PatientOrientation) == ["L", "F"]
    assert (header.BitsAllocated, header.BitsStored, header.HighBit) == (16, 12, 11)
    assert header.PhotometricInterpretation == "MONOCHROME2"
    assert header.pixel_array.shape == (header.Rows, header.Columns) == sample.DETECTOR.shape
    assert header.pixel_array.max() < 4096


def test_every_run_writes_the_same_bytes(file: Path, tmp_path: Path) -> None:
    assert sample.write_sample(tmp_path / "again.dcm").read_bytes() == file.read_bytes()
    assert file.stat().st_size < 6e6


def test_another_seed_or_phantom_is_another_instance(header: FileDataset) -> None:
    noise = sample.dataset(seed=1)
    healthy = sample.dataset(phantom=chest_phantom("healthy").phantom)
    assert len({header.SOPInstanceUID, noise.SOPInstanceUID, healthy.SOPInstanceUID}) == 3
    change = noise.pixel_array.astype(int) - header.pixel_array.astype(int)
    assert 0 < np.abs(change).mean() < 40


def show(header: FileDataset) -> np.ndarray:
    """Linear window (PS3.3 C.11.2.1.2.1), 0 to 1."""
    values = header.pixel_array.astype(float)
    low = header.WindowCenter - 0.5 - (header.WindowWidth - 1) / 2
    return np.asarray(np.clip((values - low) / (header.WindowWidth - 1), 0, 1))


def mean_at(picture: np.ndarray, x: float, z: float) -> float:
    """Brightness around a point in the middle plane of the patient, x and z in mm."""
    scale = 1200 / (1200 - 135) / 0.36  # magnification at y = 0, over the pixel size
    row, column = 599.5 - (z + 15) * scale, 599.5 + x * scale
    return float(picture[round(row) - 12 : round(row) + 13, round(column) - 12 : round(column) + 13].mean())


@pytest.fixture(scope="module")
def healthy() -> np.ndarray:
    return show(sample.dataset(phantom=chest_phantom("healthy").phantom))


def test_air_is_black_lungs_are_dark_and_the_middle_is_bright(healthy: np.ndarray) -> None:
    picture = healthy
    lungs = [mean_at(picture, -80, 40), mean_at(picture, 80, 40)]
    assert mean_at(picture, -185, -150) < 0.02
    assert max(lungs) < 0.5
    assert min(mean_at(picture, 0, -60), mean_at(picture, -60, -150)) > 0.7
    assert (picture > 0.999).mean() < 0.02


def test_left_and_right_and_up_and_down_can_be_told_apart(healthy: np.ndarray) -> None:
    picture = healthy
    assert mean_at(picture, 70, -70) > mean_at(picture, -70, -70) + 0.1  # the heart
    assert mean_at(picture, 78, -140) < mean_at(picture, -78, -140) - 0.1  # gas in the stomach
    assert mean_at(picture, 0, -170) > mean_at(picture, 0, 190)  # the belly, the neck
    assert picture[70:130, 1080:1092].min() > 0.95  # the lead L


def test_opacities_brighten_the_lung_that_holds_them(healthy: np.ndarray) -> None:
    mild = show(sample.dataset(phantom=chest_phantom("mild").phantom))
    assert mean_at(mild, -84, -42) > mean_at(healthy, -84, -42) + 0.02
    assert mean_at(mild, 84, 40) == pytest.approx(mean_at(healthy, 84, 40), abs=0.005)


def test_noise_has_the_variance_of_a_photon_count() -> None:
    noise = sample.make_noise((400, 400), 3)
    assert noise.mean() == pytest.approx(0, abs=4 / 400)
    assert noise.var() == pytest.approx(1, abs=0.02)


def test_a_missing_folder_is_an_error_with_a_code(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        sample.write_sample(tmp_path / "nowhere" / "sample.dcm")
    assert caught.value.code == "output-not-writable"
    assert "nowhere" not in str(caught.value)


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "disk-full"), (errno.EDQUOT, "disk-full"), (errno.EIO, "output-not-writable")],
)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    target = tmp_path / "sample.dcm"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError) as caught:
        sample.write_sample(target)
    assert caught.value.code == code
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
