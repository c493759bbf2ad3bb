"""What a file says of its patient reaches no log, no warning, no message and no result."""

from __future__ import annotations

import dataclasses
import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from bedside import reading
from bedside.errors import BedsideError
from bedside.radiograph import Header
from dicom_files import make_dataset, write_dataset

CANARY = "CANARY"
TEXT_VRS = {"PN", "LO", "SH", "ST", "LT", "UT", "UC"}
SKIPPED = {"", "CodeMeaning"}


def plant(dataset: Dataset) -> None:
    """A canary in every text attribute about patient, visit, study and people, and in dates that are none."""
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if (
            tag >> 16 in {0x0008, 0x0010, 0x0032, 0x0038, 0x0040, 0x4008}
            and vr in TEXT_VRS
            and keyword not in SKIPPED
        ):
            dataset.add_new(tag, vr, CANARY)
    for tag in (0x00100030, 0x00101010, 0x00080020, 0x00080005):
        dataset.add_new(tag, "LO", CANARY)  # wrong on purpose: values that a parser would warn about


def variants(folder: Path) -> list[Path]:
    good = make_dataset(2, 2)
    good.PixelData = bytes(8)
    short = make_dataset(2, 2)
    short.PixelData = bytes(6)
    wide = make_dataset(2, 2, BitsStored=40)
    wide.PixelData = bytes(8)
    paths = []
    for number, dataset in enumerate((good, short, wide, make_dataset(2, 2))):
        plant(dataset)
        for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pydicom's own, on writing
                paths.append(write_dataset(folder / f"{CANARY}-{number}-{syntax[-1]}.dcm", dataset, syntax))
    frame = make_dataset(2, 2, BitsAllocated=8, BitsStored=8, HighBit=7)
    plant(frame)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths.append(
            write_dataset(folder / f"{CANARY}-jpeg.dcm", frame, JPEGBaseline8Bit, frame=b"\xff\xd8\xff\xd9")
        )
    exif = Image.Exif()
    exif[270] = CANARY
    out = io.BytesIO()
    Image.new("L", (2, 2)).save(out, "JPEG", exif=exif, comment=CANARY)
    path = folder / f"{CANARY}-exif.dcm"
    small = make_dataset(2, 2, BitsAllocated=8, BitsStored=8, HighBit=7)
    paths.append(
        write_dataset(path, small, JPEGBaseline8Bit, frame=out.getvalue() + b"\0" * (out.tell() % 2))
    )
    data = paths[1].read_bytes()
    for cut in (200, 300, len(data) // 2, len(data) - 20):
        path = folder / f"{CANARY}-cut-{cut}.dcm"
        path.write_bytes(data[:cut])
        paths.append(path)
    return paths


def pictures(folder: Path) -> list[Path]:
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    exif = Image.Exif()
    exif[270], exif[274] = CANARY, 3
    picture.save(folder / f"{CANARY}.jpg", exif=exif, comment=CANARY)
    picture.save(folder / f"{CANARY}.tif", description=CANARY, artist=CANARY, compression="tiff_lzw")
    picture.save(folder / f"{CANARY}.png", exif=exif)
    (folder / f"{CANARY}-cut.tif").write_bytes((folder / f"{CANARY}.tif").read_bytes()[:60])
    (folder / f"{CANARY}-cut.jpg").write_bytes((folder / f"{CANARY}.jpg").read_bytes()[:-30])
    return sorted(folder.iterdir())


def outcome(read: Callable[[Path], object], path: Path) -> str:
    try:
        return repr(read(path))
    except BedsideError as error:
        return f"{error.code}: {error}"


@pytest.mark.parametrize("make", [variants, pictures])
def test_nothing_of_the_patient_leaks(
    make: Callable[[Path], list[Path]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    paths = make(tmp_path)
    caplog.clear()
    capfd.readouterr()

    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outcomes = [
            outcome(read, path) for path in paths for read in (reading.read_header, reading.read_radiograph)
        ]

    assert len(outcomes) == 2 * len(paths)
    assert not [text for text in outcomes if CANARY in text]
    assert not [str(warning.message) for warning in caught]
    assert CANARY not in caplog.text
    assert CANARY not in "".join(capfd.readouterr())


def test_the_header_has_no_field_for_an_identifier() -> None:
    names = {field.name for field in dataclasses.fields(Header)}
    assert names == {
        "format",
        "modality",
        "sop_class_uid",
        "transfer_syntax_uid",
        "view_position",
        "body_part",
        "presentation_intent",
        "age_years",
        "photometric_interpretation",
        "bits_stored",
    }
