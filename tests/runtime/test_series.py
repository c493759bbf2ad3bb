"""Opening and reading a CT series: folders, zips and files, the choice among several, threads, and HU."""

from __future__ import annotations

import importlib.util
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import UID

from bedside import dicom
from bedside.errors import BedsideError, InputError, RefusedError
from bedside.scan import AIR_HU, Scan
from dicom_files import make_dataset, write_dataset, write_pixels
from dicom_series import AXIAL, make_multiframe, make_series, scan, write_multiframe, write_series
from reference import CT_FILES, SHARED, CtFile

CT_FOLDER = SHARED / "dicom" / "ct-transfer-syntaxes"
RICORD = SHARED / "ct" / "ricord-series"

needs_codecs = pytest.mark.skipif(
    importlib.util.find_spec("imagecodecs") is None, reason="needs the codecs extra"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_series(tmp_path_factory.mktemp("plain") / "series", make_series()[:12])


# What is given


@pytest.mark.parametrize(
    ("make", "error", "code"),
    [
        (lambda path: None, InputError, "not-found"),
        (lambda path: path.mkdir(), RefusedError, "no-series"),
        (lambda path: (path.mkdir(), (path / "a.txt").write_text("no DICOM")), RefusedError, "no-series"),
        (lambda path: path.write_text("no DICOM, and no zip"), RefusedError, "no-series"),
        (lambda path: path.touch(), InputError, "empty-file"),
        (lambda path: (path.mkdir(), (path / "a.dcm").write_text("a b")), InputError, "not-an-image"),
        (lambda path: zipfile.ZipFile(path, "w").close(), RefusedError, "no-series"),
    ],
    ids=["nothing", "empty folder", "no DICOM", "another file", "empty file", "named so", "empty zip"],
)
def test_what_holds_no_series_is_told(
    make: Callable[[Path], object], error: type[BedsideError], code: str, tmp_path: Path
) -> None:
    path = tmp_path / "CANARY"
    make(path)

    with pytest.raises(error) as caught:
        dicom.read_series(path)

    assert caught.value.code == code
    assert "CANARY" not in str(caught.value)


def test_a_folder_of_x_rays_is_another_modality(tmp_path: Path) -> None:
    for number, modality in enumerate(("CR", "CR", "DX")):
        write_pixels(tmp_path / f"{number}.dcm", np.zeros((4, 4)), Modality=modality)

    with pytest.raises(RefusedError) as caught:
        dicom.read_series(tmp_path)

    assert caught.value.code == "wrong-modality"
    assert "2 CR, 1 DX" in str(caught.value)


def test_one_plain_file_is_one_slice(folder: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        dicom.read_series(folder / "image-0001.dcm")

    assert caught.value.code == "improper-geometry"
    assert "whole series" in str(caught.value)


def test_a_modality_that_could_be_a_name_is_not_shown(tmp_path: Path) -> None:
    dataset = make_dataset(2, 2)
    dataset.PixelData = bytes(8)
    dataset.add_new(0x00080060, "LO", "Doe^Jane (1970)")
    write_dataset(tmp_path / "one.dcm", dataset)

    with pytest.raises(RefusedError) as caught:
        dicom.read_series(tmp_path)

    assert "Doe" not in str(caught.value).replace("DOE", "Doe")


# The choice among several


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    write_series(folder / "one", make_series(number=1)[:12])
    write_series(folder / "two", make_series(number=2)[:8])
    report = make_dataset(Modality="SR", SeriesInstanceUID="1.2.3.0")
    write_dataset(folder / "report.dcm", report)
    return folder


def test_series_are_listed(two: Path) -> None:
    assert [(one.number, one.uid, one.modality, one.files, one.slices) for one in dicom.list_series(two)] == [
        (1, "1.2.3.0", "SR", 1, 0),
        (2, "1.2.3.1", "CT", 12, 12),
        (3, "1.2.3.2", "CT", 8, 8),
    ]


def test_two_series_are_refused_without_a_choice(two: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        dicom.read_series(two)

    assert caught.value.code == "several-series"
    assert "2: CT, 12 slices, 3: CT, 8 slices" in str(caught.value)
    assert "1.2.3" not in str(caught.value)


@pytest.mark.parametrize(("wanted", "depth"), [("1.2.3.1", 12), ("1.2.3.2", 8), ("2", 12), ("3", 8)])
def test_a_series_is_chosen_by_uid_or_number(two: Path, wanted: str, depth: int) -> None:
    with dicom.read_series(two, series=wanted) as series:
        assert series.grid.shape[0] == depth
        assert series.instances.series_uid == f"1.2.3.{1 if depth == 12 else 2}"
        assert [(entry.finding, entry.count) for entry in series.ledger] == [("other-series", 2)]


@pytest.mark.parametrize(
    ("wanted", "code"), [("4", "no-series"), ("1.2.3", "no-series"), ("1", "wrong-modality")]
)
def test_a_choice_that_is_none_is_told(two: Path, wanted: str, code: str) -> None:
    with pytest.raises(RefusedError) as caught:
        dicom.read_series(two, series=wanted)

    assert caught.value.code == code


def test_a_localizer_series_needs_no_choice(tmp_path: Path) -> None:
    write_series(tmp_path / "scan", make_series(number=1)[:12])
    write_series(
        tmp_path / "scout", make_series(number=2, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])[:2]
    )

    with dicom.read_series(tmp_path) as series:
        assert series.grid.shape[0] == 12
        assert [entry.finding for entry in series.ledger] == ["other-series"]


# Reading


def open_scan(path: Path) -> Scan:
    """The type checker holds the series against the protocol."""
    return dicom.read_series(path)


def test_a_series_is_a_scan(folder: Path) -> None:
    scan_ = open_scan(folder)
    assert scan_.grid.shape == (12, *AXIAL.shape[1:])
    assert scan_.ledger == ()
    scan_.close()
    with pytest.raises(RuntimeError):
        scan_.read([0])


def test_slices_are_read_in_any_order_and_more_than_once(folder: Path) -> None:
    with dicom.read_series(folder, threads=3) as series:
        hu = series.read([7, 2, 7, 11, 0])
        assert hu.dtype == np.float32
        assert hu.flags.owndata
        np.testing.assert_allclose(hu, scan(AXIAL)[[7, 2, 7, 11, 0]], atol=0.51)
        assert series.read([]).shape == (0, *AXIAL.shape[1:])


def test_threads_change_nothing(folder: Path) -> None:
    with dicom.read_series(folder, threads=1) as one, dicom.read_series(folder, threads=5) as many:
        np.testing.assert_array_equal(one.read(range(12)), many.read(range(12)))


@pytest.mark.parametrize("place", [-1, 12])
def test_a_slice_that_is_not_there_is_an_error_of_the_caller(folder: Path, place: int) -> None:
    with dicom.read_series(folder) as series, pytest.raises(IndexError):
        series.read([0, place])


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_no_file_is_held_open_and_no_pixel_is_read_at_opening(folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "series")
    held = Path("/proc/self/fd")
    before = {path.name for path in held.iterdir()}

    with dicom.read_series(copied) as series:
        assert {path.name for path in held.iterdir()} <= before
        for path in copied.iterdir():
            data = path.read_bytes()
            path.write_bytes(data[:-16] + b"\xff" * 16)
        assert (series.read([3])[0, -1, -8:] == AIR_HU).all()  # stored -1: -1025 HU


def test_the_objects_of_each_slice_are_known(folder: Path) -> None:
    with dicom.read_series(folder) as series:
        found = series.instances

    assert (found.study_uid, found.series_uid, found.frame_of_reference_uid) == (
        "1.2.3",
        "1.2.3.1",
        "1.2.3.9",
    )
    assert [one.sop_instance_uid for one in found.slices if one] == [f"1.2.3.1.{n}" for n in range(1, 13)]
    assert {(one.sop_class_uid, one.frame) for one in found.slices if one} == {
        ("1.2.840.10008.5.1.4.1.1.2", None)
    }
    assert found.axes.as_stored


def test_the_frame_of_each_slice_is_known_and_none_of_a_blend(tmp_path: Path) -> None:
    slices = make_series()[:12]
    del slices[4]
    path = write_multiframe(tmp_path / "all.dcm", make_multiframe(slices[::-1]))

    with dicom.read_series(path) as series:
        frames = [None if one is None else one.frame for one in series.instances.slices]

    assert frames == [11, 10, 9, 8, None, 7, 6, 5, 4, 3, 2, 1]


# HU


def make_pair(hu: list[int], folder: Path, **changes: object) -> Path:
    """Two slices of a few pixels with these HU."""
    for number in (1, 2):
        header: dict[str, Any] = {
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 1,
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
            "ImagePositionPatient": [0, 0, number],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [1, 1],
            **changes,
        }
        write_pixels(folder / f"{number}.dcm", np.array([hu, hu]) + 1024, Modality="CT", **header)
    return folder


def read_row(folder: Path) -> tuple[list[float], list[str]]:
    with dicom.read_series(folder) as series:
        return series.read([0])[0, 0].tolist(), [entry.finding for entry in series.ledger]


def test_what_lies_below_the_scale_is_air(tmp_path: Path) -> None:
    hu, findings = read_row(make_pair([-3024, -2000, -1025, -1024, -1001, -1000, 40, 3071, 9000], tmp_path))

    assert hu == [-1000, -1000, -1000, -1024, -1001, -1000, 40, 3071, 9000]
    assert findings == []


def test_padding_is_air(tmp_path: Path) -> None:
    hu, _ = read_row(make_pair([-2024, -950, 40, 9000], tmp_path, PixelPaddingValue=-1000))
    assert hu == [AIR_HU, -950, 40, 9000]
    hu, _ = read_row(make_pair([40, 9000], tmp_path, PixelPaddingValue=10024))
    assert hu == [40, AIR_HU]
    hu, _ = read_row(
        make_pair([-1010, -960, -899, 40], tmp_path, PixelPaddingValue=0, PixelPaddingRangeLimit=64)
    )
    assert hu == [AIR_HU, AIR_HU, -899, 40]


def test_padding_that_is_tissue_is_kept_and_noted(tmp_path: Path) -> None:
    hu, findings = read_row(make_pair([-1000, 0, 40], tmp_path, PixelPaddingValue=1024))

    assert hu == [-1000, 0, 40]
    assert findings == ["padding-ignored"]


def test_signed_values_without_a_rescale_are_hu(tmp_path: Path) -> None:
    hu, findings = read_row(make_pair([-2024, -984], tmp_path, RescaleSlope=None, RescaleIntercept=None))

    assert hu == [-1000, 40]
    assert findings == ["no-rescale"]


def test_unsigned_values_without_a_rescale_are_refused(tmp_path: Path) -> None:
    header = {"RescaleSlope": None, "RescaleIntercept": None, "PixelRepresentation": 0}
    with pytest.raises(RefusedError) as caught:
        read_row(make_pair([0, 40], tmp_path, **header))

    assert caught.value.code == "not-hu"


def test_a_rescale_that_is_none_makes_a_slice_unreadable(tmp_path: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        read_row(make_pair([0, 40], tmp_path, RescaleSlope=0))

    assert caught.value.code == "missing-slices"


# The real files


def make_real_pair(file: CtFile, folder: Path) -> Path:
    """The one slice of a transfer syntax as two of a series, their pixel data untouched."""
    for number in (1, 2):
        dataset = pydicom.dcmread(CT_FOLDER / f"{file.syntax}.dcm")
        dataset.ImagePositionPatient = [0, 0, 2 * number]
        dataset.SOPInstanceUID = UID(f"1.2.3.{number}")
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


@pytest.mark.parametrize("file", CT_FILES, ids=lambda file: file.syntax)
def test_every_transfer_syntax_gives_the_same_hu(file: CtFile, tmp_path: Path) -> None:
    if not CT_FOLDER.is_dir():
        pytest.skip("needs the reference material in ../shared")
    if file.extra and importlib.util.find_spec("imagecodecs") is None:
        pytest.skip("needs the codecs extra")
    plain = pydicom.dcmread(CT_FOLDER / "1.2.840.10008.1.2.1.dcm")
    expected = plain.pixel_array * float(plain.RescaleSlope) + float(plain.RescaleIntercept)

    with dicom.read_series(make_real_pair(file, tmp_path)) as series:
        hu = series.read([0, 1])

    np.testing.assert_array_equal(hu[0], hu[1])
    assert hu.min() >= -1024
    # Air is one: what lies below the scale is, and lossy codecs move values across its end
    assert np.abs(np.maximum(hu[0], AIR_HU) - np.maximum(expected, AIR_HU)).max() <= file.error_hu
    if file.error_hu == 0:
        np.testing.assert_array_equal(hu[0], np.where(expected < -1024, AIR_HU, expected))


@needs_codecs
@pytest.mark.skipif(not RICORD.is_dir(), reason="needs the reference material in ../shared")
def test_the_real_series_reads_as_pydicom_reads_it() -> None:
    if not any(importlib.util.find_spec(name) for name in ("gdcm", "pylibjpeg")):
        pytest.skip("needs a decoder of JPEG Lossless for pydicom: python-gdcm or pylibjpeg")
    places = (0, 60, 124, 247)
    heights = {}
    for path in RICORD.iterdir():
        header = pydicom.dcmread(path, specific_tags=["ImagePositionPatient"], stop_before_pixels=True)
        heights[float(header.ImagePositionPatient[2])] = path

    with dicom.read_series(RICORD) as series:
        assert series.ledger == ()
        assert series.grid.shape == (248, 512, 512)
        assert series.grid.spacing_mm == pytest.approx((1.25, 0.703125, 0.703125), abs=1e-6)
        hu = series.read(places)
        uids = [one.sop_instance_uid if one else "" for one in series.instances.slices]

    for row, place in enumerate(places):
        theirs = pydicom.dcmread(heights[sorted(heights)[place]])
        expected = theirs.pixel_array * float(theirs.RescaleSlope) + float(theirs.RescaleIntercept)
        np.testing.assert_array_equal(hu[row], np.where(expected < -1024, AIR_HU, expected))
        assert uids[place] == theirs.SOPInstanceUID
