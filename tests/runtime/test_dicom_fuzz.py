"""Files damaged at random: a picture or an error with a code, and nothing else."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from bedside import reading
from bedside.errors import BedsideError
from bedside.radiograph import Radiograph
from dicom_files import make_dataset, make_lut, write_dataset, write_pixels

PIXELS = np.arange(64 * 48).reshape(64, 48)
EIGHT_BITS = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}


def small_files(folder: Path) -> dict[str, bytes]:
    pixels = PIXELS[:6, :8] * 40
    header = {
        "VOILUTSequence": [make_lut(0, [0, 100, 255], 8)],
        "ViewCodeSequence": [make_lut(0, [1, 2], 8)],
        "PixelSpacing": [0.1, 0.1],
        "WindowCenter": 50,
        "WindowWidth": 100,
        "PatientOrientation": ["R", "F"],
        "PixelPaddingValue": 0,
    }
    native = write_pixels(folder / "native.dcm", pixels, ExplicitVRLittleEndian, **header)
    implicit = write_pixels(folder / "implicit.dcm", pixels, ImplicitVRLittleEndian, **header)
    deflated = write_pixels(folder / "deflated.dcm", pixels, DeflatedExplicitVRLittleEndian, **header)
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, "JPEG", quality=20)
    small = out.getvalue()
    jpeg = write_dataset(
        folder / "jpeg.dcm",
        make_dataset(6, 8, **EIGHT_BITS),
        JPEGBaseline8Bit,
        frame=small + b"\0" * (len(small) % 2),
    )
    rle = pydicom.dcmread(native)
    rle.compress(RLELossless, generate_instance_uid=False)
    rle.save_as(folder / "rle.dcm")
    paths = [native, implicit, deflated, jpeg, folder / "rle.dcm"]
    return {path.stem: path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return small_files(tmp_path_factory.mktemp("fuzzed"))


@settings(max_examples=500)
@given(
    name=st.sampled_from(["native", "implicit", "deflated", "jpeg", "rle"]),
    flips=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=6),
    cut=st.one_of(st.none(), st.integers(0, 1 << 16)),
)
def test_a_damaged_file_is_a_picture_or_an_error_with_a_code(
    fuzzed: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    flips: list[tuple[int, int]],
    cut: int | None,
) -> None:
    data = bytearray(fuzzed[name])
    for position, value in flips:
        data[position % len(data)] = value
    if cut is not None:
        del data[cut % len(data) :]
    path = tmp_path_factory.getbasetemp() / "damaged.dcm"
    path.write_bytes(data)

    try:
        radiograph = reading.read_radiograph(path)
    except BedsideError as error:
        assert "\n" not in str(error)  # noqa: PT017 - most examples raise, some read
        return
    assert isinstance(radiograph, Radiograph)
    assert np.isfinite(radiograph.pixels).all()
    assert radiograph.pixels.min() >= 0
    assert radiograph.pixels.max() <= 1
