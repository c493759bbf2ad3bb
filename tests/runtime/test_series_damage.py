"""Slices that can't be read: named, refused, and where that is allowed, made up for and told of."""

from __future__ import annotations

import logging
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless

from bedside import dicom
from bedside.errors import BedsideError, InputError, RefusedError
from dicom_files import write_dataset
from dicom_series import (
    AXIAL,
    LUNG_ML,
    compress,
    make_multiframe,
    make_series,
    measure_ml,
    scan,
    write_multiframe,
    write_series,
)

CANARY = "CANARY"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_series(tmp_path_factory.mktemp("whole") / "series", make_series(), shuffled=False)


def damage(whole: Path, folder: Path, place: int, keep: float) -> Path:
    """A copy of a series with the file of one slice cut to a share of its length."""
    copied = shutil.copytree(whole, folder / "series")
    path = copied / f"image-{place:04d}.dcm"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return copied


@pytest.mark.parametrize("keep", [0.5, 0.999], ids=["half", "all but a little"])
def test_a_slice_that_is_cut_short_is_named_and_refused(whole: Path, tmp_path: Path, keep: float) -> None:
    with pytest.raises(RefusedError) as caught:
        dicom.read_series(damage(whole, tmp_path, 16, keep))

    assert caught.value.code == "missing-slices"
    assert "slice 17 of 76 (from the feet)" in str(caught.value)
    assert "--allow-missing" in str(caught.value)


def test_it_is_interpolated_where_that_is_allowed(whole: Path, tmp_path: Path) -> None:
    with dicom.read_series(damage(whole, tmp_path, 16, 0.5), allow_missing=True) as series:
        assert series.grid.shape == AXIAL.shape
        assert [(e.finding, e.decision, e.count) for e in series.ledger] == [
            ("unreadable-slices", "mended", 1)
        ]
        assert "slice 17 of 76" in series.ledger[0].text
        hu = series.read(range(76))
        assert series.instances.slices[16] is None

    np.testing.assert_allclose(hu[16], (hu[15] + hu[17]) / 2, atol=1e-3)
    error = measure_ml(hu, AXIAL) / measure_ml(scan(AXIAL), AXIAL) - 1
    assert abs(error) <= series.ledger[0].volume_error_percent / 100
    assert measure_ml(hu, AXIAL) == pytest.approx(LUNG_ML, rel=0.01)


def test_one_at_the_end_is_left_out(whole: Path, tmp_path: Path) -> None:
    with dicom.read_series(damage(whole, tmp_path, 75, 0.5), allow_missing=True) as series:
        assert series.grid.shape[0] == 75
        assert [entry.finding for entry in series.ledger] == ["unreadable-slices"]
        assert series.ledger[0].volume_error_percent == pytest.approx(100 * 1.5 * 3 / 200)
        np.testing.assert_allclose(series.read([74])[0], scan(AXIAL)[74], atol=0.51)


@pytest.mark.parametrize("keep", [0.0, 0.002, 0.01], ids=["empty", "preamble", "header"])
def test_a_file_whose_header_is_lost_is_told_of(whole: Path, tmp_path: Path, keep: float) -> None:
    folder = damage(whole, tmp_path, 16, keep)
    with pytest.raises(RefusedError) as caught:
        dicom.read_series(folder)
    assert caught.value.code == "missing-slices"
    assert "1 DICOM file can't be read, and slice 17 of 76 (from the feet) missing" in str(caught.value)

    with dicom.read_series(folder, allow_missing=True) as series:
        assert [entry.finding for entry in series.ledger] == ["missing-slices", "unreadable-files"]
        assert measure_ml(series.read(range(76)), AXIAL) == pytest.approx(LUNG_ML, rel=0.01)


def test_too_many_are_refused_even_so(whole: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(whole, tmp_path / "series")
    for place in range(20, 40):
        path = copied / f"image-{place:04d}.dcm"
        path.write_bytes(path.read_bytes()[:-1000])

    with pytest.raises(RefusedError) as caught:
        dicom.read_series(copied, allow_missing=True)

    assert caught.value.code == "missing-slices"
    assert "20 of 76 slices" in str(caught.value)
    assert "--allow-missing" not in str(caught.value)


def test_a_duplicate_takes_the_place_of_a_damaged_slice(whole: Path, tmp_path: Path) -> None:
    folder = damage(whole, tmp_path, 16, 0.5)
    shutil.copy(whole / "image-0016.dcm", folder / "again.dcm")

    with dicom.read_series(folder) as series:
        assert [(entry.finding, entry.count) for entry in series.ledger] == [("duplicates", 1)]
        np.testing.assert_allclose(series.read([16])[0], scan(AXIAL)[16], atol=0.51)


# Damage that only decoding tells


def damage_frames(folder: Path, *places: int) -> Path:
    """A series of compressed slices of which some hold no codestream."""
    folder.mkdir()
    for place, dataset in enumerate(make_series()):
        frame = compress(np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns))
        broken = frame[:120] + bytes(len(frame) - 122) + frame[-2:] if place in places else frame
        write_dataset(folder / f"{place:03d}.dcm", dataset, JPEG2000Lossless, frame=broken)
    return folder


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return damage_frames(tmp_path_factory.mktemp("torn") / "series", 16, 40, 75)


def test_a_slice_that_does_not_decode_is_named_when_it_is_read(torn: Path) -> None:
    with dicom.read_series(torn) as series:
        assert series.ledger == ()
        np.testing.assert_allclose(series.read([15, 17]), scan(AXIAL)[[15, 17]], atol=0.51)
        with pytest.raises(InputError) as caught:
            series.read(range(10, 20))

    assert caught.value.code == "missing-slices"
    assert "slice 17 of 76 (from the feet) can't be read" in str(caught.value)
    assert "--allow-missing" in str(caught.value)


def test_where_that_is_allowed_the_ledger_grows(torn: Path) -> None:
    with dicom.read_series(torn, allow_missing=True) as series:
        assert not series.ledger
        hu = series.read(range(76))
        (entry,) = series.ledger
        again = series.read([16, 75])

    assert (entry.finding, entry.decision, entry.count) == ("unreadable-slices", "mended", 3)
    assert "slices 17, 41, 76 of 76" in entry.text
    np.testing.assert_allclose(hu[16], (hu[15] + hu[17]) / 2, atol=1e-3)
    np.testing.assert_array_equal(hu[75], hu[74])
    np.testing.assert_array_equal(again, hu[[16, 75]])
    error = measure_ml(hu, AXIAL) / measure_ml(scan(AXIAL), AXIAL) - 1
    assert abs(error) <= entry.volume_error_percent / 100
    assert entry.volume_error_percent < 3


def test_a_multi_frame_file_that_is_cut_short_loses_its_last_frames(tmp_path: Path) -> None:
    path = write_multiframe(tmp_path / "all.dcm", make_multiframe(make_series()))
    data = path.read_bytes()
    path.write_bytes(data[: -AXIAL.shape[1] * AXIAL.shape[2] * 2 * 2 + 100])

    with pytest.raises(RefusedError) as caught:
        dicom.read_series(path)
    assert "slices 75, 76 of 76" in str(caught.value)

    with dicom.read_series(path, allow_missing=True) as series:
        assert series.grid.shape[0] == 74


# What is said of it


def plant(dataset: Dataset, path_number: int) -> Dataset:
    dataset.PatientName = dataset.PatientID = dataset.StudyDescription = CANARY
    dataset.SeriesDescription = dataset.InstitutionName = f"{CANARY} {path_number}"
    return dataset


def test_nothing_of_the_patient_or_the_files_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    slices = [plant(dataset, number) for number, dataset in enumerate(make_series())]
    good = tmp_path / f"{CANARY}-good"
    good.mkdir()
    for number, dataset in enumerate(slices):
        write_dataset(good / f"{CANARY}-{number:03d}.dcm", dataset)
    for bad in ("cut", "header", "two"):
        shutil.copytree(good, tmp_path / f"{CANARY}-{bad}")
    path = tmp_path / f"{CANARY}-cut" / f"{CANARY}-007.dcm"
    path.write_bytes(path.read_bytes()[:-1000])
    (tmp_path / f"{CANARY}-header" / f"{CANARY}-007.dcm").write_bytes(path.read_bytes()[:300])
    other = plant(make_series(number=2)[3], 2)
    write_dataset(tmp_path / f"{CANARY}-two" / f"{CANARY}-other.dcm", other)
    write_dataset(tmp_path / f"{CANARY}-two" / f"{CANARY}-more.dcm", plant(make_series(number=2)[4], 2))
    caplog.clear()
    capfd.readouterr()

    said = []
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for folder in sorted(tmp_path.iterdir()):
            for allowed in (False, True):
                try:
                    said.append(repr(dicom.list_series(folder)))
                    with dicom.read_series(folder, allow_missing=allowed) as series:
                        series.read([3])
                        said += [repr(series), repr(series.grid), repr(series.ledger)]
                except BedsideError as error:
                    said.append(f"{error.code}: {error}")

    assert len(said) > 10
    assert any("missing-slices" in text for text in said)
    assert any("several-series" in text for text in said)
    assert CANARY not in "".join(said)
    assert not [str(warning.message) for warning in caught]
    assert CANARY not in caplog.text
    assert CANARY not in "".join(capfd.readouterr())
