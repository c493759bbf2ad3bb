"""Bad input: each kind has its code, and none crashes, hangs, or reads as a picture."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from bedside import dicom, reading
from bedside.errors import BedsideError, RefusedError
from dicom_files import make_dataset, make_lut, write_dataset, write_pixels

PIXELS = np.arange(64 * 48).reshape(64, 48)


def save(pixels: np.ndarray[Any, Any], format: str, **options: object) -> bytes:  # noqa: A002 - pillow's word
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format, **options)
    return out.getvalue()


JPEG = save(PIXELS.astype(np.uint8), "JPEG")
JPEG_2000 = save(PIXELS.astype(np.uint16), "JPEG2000", irreversible=False, no_jp2=True)
EIGHT_BITS = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}


def refusal(path: Path) -> BedsideError:
    with pytest.raises(BedsideError) as caught:
        reading.read_radiograph(path)
    assert "\n" not in str(caught.value)
    assert path.name not in str(caught.value)
    return caught.value


def with_pixels(n_bytes: int, **header: object) -> pydicom.Dataset:
    dataset = make_dataset(4, 4, **header)
    dataset.PixelData = bytes(n_bytes)
    dataset["PixelData"].VR = "OW"
    return dataset


def test_a_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.dcm").code == "not-found"
    assert refusal(Path(f"{tmp_path}/none\0.dcm")).code == "not-found"
    (tmp_path / "file").write_bytes(b"x")
    assert refusal(tmp_path / "file" / "below.dcm").code == "not-found"


def test_a_folder_a_pipe_and_a_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.dcm")

    assert refusal(tmp_path).code == "not-readable"
    assert refusal(tmp_path / "pipe.dcm").code == "not-readable"
    assert refusal(Path("/dev/zero")).code == "not-readable"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = write_pixels(tmp_path / "secret.dcm", PIXELS)
    path.chmod(0)

    assert refusal(path).code == "not-readable"


def test_an_io_error_while_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_stream: object) -> None:
        raise OSError(5, "Input/output error")

    path = write_pixels(tmp_path / "disk.dcm", PIXELS)
    monkeypatch.setattr(dicom, "read_source", fail)

    assert refusal(path).code == "not-readable"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty-file"),
        (b"x", "not-an-image"),
        (b"hello, this is a text file", "not-an-image"),
        (bytes(1000), "not-an-image"),
        (b"%PDF-1.7" + bytes(500), "not-an-image"),
        (bytes(128) + b"DICM", "no-pixels"),
        (bytes(128) + b"DICM" + b"\x02\0\x10\0UI", "broken-dicom"),
        (bytes(128) + b"DICM" + b"\x02\0\x10\0UI\xff\xff1.2", "broken-dicom"),
    ],
)
def test_a_file_that_is_no_picture(tmp_path: Path, content: bytes, code: str) -> None:
    (tmp_path / "file.dcm").write_bytes(content)

    assert refusal(tmp_path / "file.dcm").code == code


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
)
@pytest.mark.parametrize(
    ("n_bytes", "code"),
    [(0, "truncated-pixels"), (30, "truncated-pixels"), (34, "excess-pixels"), (64, "excess-pixels")],
)
def test_pixel_data_of_the_wrong_length(tmp_path: Path, syntax: str, n_bytes: int, code: str) -> None:
    path = write_dataset(tmp_path / "length.dcm", with_pixels(n_bytes), syntax)

    assert refusal(path).code == code


@pytest.mark.parametrize("cut", [1, 2, 100, 6000])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_file_cut_short_in_its_pixels(tmp_path: Path, cut: int, syntax: str) -> None:
    path = write_pixels(tmp_path / "cut.dcm", PIXELS, syntax)
    path.write_bytes(path.read_bytes()[:-cut])

    assert refusal(path).code == "truncated-pixels"


@pytest.mark.parametrize("kept", range(1, 10))
def test_a_file_cut_short_in_an_element_of_its_header(tmp_path: Path, kept: int) -> None:
    path = write_pixels(tmp_path / "cut.dcm", PIXELS)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"\x28\0\x10\0US") + kept])

    assert refusal(path).code == "broken-dicom"


def test_padding_after_a_data_set_without_pixels_is_no_damage(tmp_path: Path) -> None:
    path = write_pixels(tmp_path / "padded.dcm", PIXELS)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"\x28\0\x10\0US")] + bytes(3))

    assert refusal(path).code == "no-pixels"


def test_a_deflated_file_cut_short(tmp_path: Path) -> None:
    path = write_pixels(tmp_path / "cut.dcm", PIXELS, DeflatedExplicitVRLittleEndian)
    path.write_bytes(path.read_bytes()[:-500])

    assert refusal(path).code in {"truncated-pixels", "broken-dicom"}


def test_a_deflated_file_that_expands_without_end(tmp_path: Path) -> None:
    path = write_pixels(tmp_path / "bomb.dcm", PIXELS, DeflatedExplicitVRLittleEndian)
    data = path.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = b"\x09\0\x01\x10OB\0\0" + (2**32 - 2).to_bytes(4, "little")
    bomb = deflater.compress(head) + deflater.compress(bytes(100 << 20)) + deflater.flush()
    path.write_bytes(data[:start] + bomb)

    assert refusal(path).code == "broken-dicom"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({"Rows": 0}, "bad-dimensions"),
        ({"Columns": 0}, "bad-dimensions"),
        ({"Rows": 65535, "Columns": 65535}, "bad-dimensions"),
        ({"Rows": 10000, "Columns": 10000}, "bad-dimensions"),
        ({"Rows": None}, "bad-attribute"),
        ({"Columns": None}, "bad-attribute"),
        ({"BitsAllocated": None}, "bad-attribute"),
        ({"BitsAllocated": 12}, "bad-attribute"),
        ({"BitsAllocated": 64}, "bad-attribute"),
        ({"BitsStored": None}, "bad-attribute"),
        ({"BitsStored": 0}, "bad-attribute"),
        ({"BitsStored": 17}, "bad-attribute"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "bad-attribute"),
        ({"HighBit": 10}, "bad-attribute"),
        ({"HighBit": 16}, "bad-attribute"),
        ({"PixelRepresentation": None}, "bad-attribute"),
        ({"PhotometricInterpretation": None}, "bad-attribute"),
        ({"SamplesPerPixel": 3}, "bad-attribute"),
        ({"PhotometricInterpretation": "RGB"}, "bad-attribute"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour"),
        ({"PhotometricInterpretation": "HSV", "SamplesPerPixel": 3}, "colour"),
        ({"NumberOfFrames": 2}, "multi-frame"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "bad-attribute"),
        ({"RescaleSlope": 1e30, "RescaleIntercept": 0}, "bad-attribute"),
        ({"ModalityLUTSequence": [make_lut(0, [0, 1, 2], 12, data=bytes(2))]}, "bad-attribute"),
    ],
    ids=str,
)
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_an_attribute_that_gives_no_picture(
    tmp_path: Path, header: dict[str, Any], code: str, syntax: str
) -> None:
    path = write_dataset(tmp_path / "attribute.dcm", with_pixels(32, **header), syntax)

    assert refusal(path).code == code
    assert dicom.read_header(path).modality == "DX"


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "abc", "1e400"])
def test_a_rescale_that_is_no_number(tmp_path: Path, text: str) -> None:
    dataset = with_pixels(32)
    dataset.add_new(0x00281053, "LO", text)

    assert (
        refusal(write_dataset(tmp_path / "slope.dcm", dataset, ImplicitVRLittleEndian)).code
        == "bad-attribute"
    )


def test_a_window_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    dataset = make_dataset(1, 2)
    dataset.PixelData = bytes([0, 0, 100, 0])
    dataset.add_new(0x00281050, "LO", "abc")
    dataset.add_new(0x00281051, "LO", "nan")

    radiograph = dicom.read_radiograph(
        write_dataset(tmp_path / "window.dcm", dataset, ImplicitVRLittleEndian)
    )

    np.testing.assert_array_equal(radiograph.pixels, [[0, 1]])
    assert radiograph.findings[0].code == "voi-invalid"


def test_a_report_has_no_pixels(tmp_path: Path) -> None:
    assert refusal(write_dataset(tmp_path / "report.dcm", make_dataset(Rows=None))).code == "no-pixels"


def test_floating_point_pixels(tmp_path: Path) -> None:
    dataset = make_dataset(4, 4)
    dataset.FloatPixelData = bytes(64)

    assert refusal(write_dataset(tmp_path / "map.dcm", dataset)).code == "bad-attribute"


def test_a_colour_picture(tmp_path: Path) -> None:
    header = {
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0,
        **EIGHT_BITS,
    }
    dataset = make_dataset(4, 4, **header)
    dataset.PixelData = bytes(range(48))

    error = refusal(write_dataset(tmp_path / "colour.dcm", dataset))

    assert isinstance(error, RefusedError)
    assert error.code == "colour"


def test_an_unknown_transfer_syntax(tmp_path: Path) -> None:
    path = write_dataset(
        tmp_path / "video.dcm", make_dataset(64, 48), "1.2.840.10008.1.2.4.102", frame=b"movie!"
    )

    error = refusal(path)

    assert error.code == "unsupported-syntax"
    assert "1.2.840.10008.1.2.4.102" in str(error)


Alter = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    ("syntax", "frame", "header", "alter", "codes"),
    [
        (JPEGBaseline8Bit, JPEG, EIGHT_BITS, lambda frame: frame[: len(frame) // 2], {"truncated-pixels"}),
        (JPEGBaseline8Bit, JPEG, EIGHT_BITS, lambda frame: frame[:20], {"broken-pixels"}),
        (JPEGBaseline8Bit, JPEG, EIGHT_BITS, lambda _: b"no JPEG!", {"broken-pixels"}),
        (JPEGBaseline8Bit, JPEG, {**EIGHT_BITS, "Rows": 65}, lambda frame: frame, {"broken-pixels"}),
        (JPEGBaseline8Bit, JPEG_2000, {}, lambda frame: frame, {"broken-pixels"}),
        (JPEG2000Lossless, JPEG_2000, {}, lambda frame: frame[: len(frame) // 2], {"truncated-pixels"}),
        (
            JPEG2000Lossless,
            JPEG_2000,
            {},
            lambda frame: frame[:60] + bytes(len(frame) - 62) + frame[-2:],
            {"broken-pixels"},
        ),
        (JPEG2000Lossless, JPEG, EIGHT_BITS, lambda frame: frame, {"broken-pixels"}),
        (RLELossless, b"", {}, lambda _: bytes(70), {"broken-pixels"}),
        (
            RLELossless,
            b"",
            {},
            lambda _: b"\x02\0\0\0\x40\0\0\0\x42\0\0\0" + bytes(52) + b"\x81\0\x81\0",
            {"truncated-pixels"},
        ),
        (RLELossless, b"", {}, lambda _: b"\x02\0\0\0\x40\0\0\0\xff\xff\0\0" + bytes(56), {"broken-pixels"}),
    ],
)
def test_compressed_pixels_that_are_damaged(
    tmp_path: Path, syntax: str, frame: bytes, header: dict[str, Any], alter: Alter, codes: set[str]
) -> None:
    altered = alter(frame)
    dataset = make_dataset(**{"Rows": 64, "Columns": 48, **header})

    path = write_dataset(
        tmp_path / "damaged.dcm", dataset, syntax, frame=altered + b"\0" * (len(altered) % 2)
    )

    assert refusal(path).code in codes


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "truncated-pixels"),
        (b"\xfe\xff\x00\xe0\0\0\0\0", "truncated-pixels"),
        (b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\xff\xff\0\0", "truncated-pixels"),
        (b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\xff\xff\xff\xff", "broken-pixels"),
        (b"\x01\x02\x03\x04\0\0\0\0", "broken-pixels"),
        (b"\xfe\xff\x00\xe0\x08\0\0\0\0\0\0\0\x10\0\0\0\xfe\xff\xdd\xe0\0\0\0\0", "excess-pixels"),
        (b"\xfe\xff\x00\xe0\0\0\0\0" + b"\xfe\xff\x00\xe0\0\0\x20\0" + bytes(1 << 21), "excess-pixels"),
    ],
)
def test_broken_encapsulation(tmp_path: Path, body: bytes, code: str) -> None:
    path = write_dataset(
        tmp_path / "items.dcm", make_dataset(4, 4, **EIGHT_BITS), JPEGBaseline8Bit, frame=b"marker!!"
    )
    data = path.read_bytes()
    start = data.index(b"\xe0\x7f\x10\x00") + 12
    path.write_bytes(data[:start] + body)

    assert refusal(path).code == code


def test_uncompressed_pixels_in_a_compressed_file(tmp_path: Path) -> None:
    path = write_pixels(tmp_path / "mixed.dcm", PIXELS)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"))

    assert refusal(path).code == "broken-pixels"


def test_a_sequence_nested_without_end(tmp_path: Path) -> None:
    path = write_pixels(tmp_path / "nested.dcm", PIXELS, ImplicitVRLittleEndian)
    data = path.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    nest = b"\x09\0\x01\x10\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 5000
    path.write_bytes(data[:start] + nest)

    assert refusal(path).code == "broken-dicom"
