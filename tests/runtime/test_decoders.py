"""Compressed frames come back as encoded, bit by bit where the process is lossless."""

from __future__ import annotations

import io
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from bedside import dicom
from bedside.codestream import read_codestream
from bedside.decoders import decode_codestream, decode_rle
from bedside.errors import BedsideError, InputError
from dicom_files import make_dataset, write_dataset

Pixels = np.ndarray[Any, Any]


@pytest.fixture
def imagecodecs() -> ModuleType:
    module: ModuleType = pytest.importorskip("imagecodecs", reason="needs the codecs extra: imagecodecs")
    return module


def picture(bits: int, *, signed: bool = False) -> Pixels:
    values = np.random.default_rng(bits).integers(0, 1 << bits, (33, 47))
    values[0, :2] = 0, (1 << bits) - 1
    if signed:
        return (values - (1 << (bits - 1))).astype(np.int8 if bits <= 8 else np.int16)
    return values.astype(np.uint8 if bits <= 8 else np.uint16)


def decode(frame: bytes) -> Pixels:
    return decode_codestream(frame, read_codestream(frame))


def shown(folder: Path, frame: bytes, syntax: str, **header: object) -> Pixels:
    """The pixels of a DICOM file, 0 to 1, without VOI: the range of what occurs."""
    dataset = make_dataset(33, 47, **header)
    path = write_dataset(folder / "frame.dcm", dataset, syntax, frame=frame + b"\0" * (len(frame) % 2))
    pixels: Pixels = dicom.read_radiograph(path).pixels
    return pixels


def spread(values: Pixels) -> Pixels:
    wide = values.astype(np.float64)
    scaled: Pixels = (wide - wide.min()) / (wide.max() - wide.min())
    return scaled


def test_sixteen_bit_jpeg_2000_is_exact_with_pillow_alone() -> None:
    values = picture(16)
    out = io.BytesIO()
    Image.fromarray(values).save(out, "JPEG2000", irreversible=False, no_jp2=True)

    np.testing.assert_array_equal(decode(out.getvalue()), values)


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 15, 16])
@pytest.mark.parametrize("representation", [0, 1])
def test_jpeg_2000_of_every_depth_is_exact(
    imagecodecs: ModuleType, tmp_path: Path, bits: int, representation: int
) -> None:
    signed = representation == 1
    values = picture(bits, signed=signed)
    # Unsigned samples are coded less half their range, signed ones as they are (ISO 15444-1, G.1.2). So the codestream
    # of a signed picture is that of the unsigned one with the sign in Ssiz, its byte 42: OpenJPEG itself writes signed
    # samples of 8 bits wrongly on aarch64 (its issue 1605).
    frame = imagecodecs.jpeg2k_encode(
        picture(bits), level=0, bitspersample=bits, codecformat="j2k", reversible=True
    )
    if signed:
        frame = frame[:42] + bytes([frame[42] | 0x80]) + frame[43:]
    found = read_codestream(frame)
    assert (found.precision, found.signed) == (bits, signed)

    mask = (1 << bits) - 1
    np.testing.assert_array_equal(decode(frame) & mask, values.view(f"u{values.itemsize}") & mask)
    header = {"BitsAllocated": 8 if bits == 8 else 16, "BitsStored": bits, "HighBit": bits - 1}
    pixels = shown(tmp_path, frame, JPEG2000Lossless, PixelRepresentation=representation, **header)
    np.testing.assert_allclose(pixels, spread(values), rtol=0, atol=1e-6)


@pytest.mark.parametrize("bits", range(2, 17))
def test_lossless_jpeg_of_every_depth_is_exact(imagecodecs: ModuleType, tmp_path: Path, bits: int) -> None:
    values = picture(bits)
    frame = imagecodecs.jpeg8_encode(values, lossless=True, predictor=1, bitspersample=bits)

    np.testing.assert_array_equal(decode(frame), values)
    header = {"BitsAllocated": 8 if bits <= 8 else 16, "BitsStored": bits, "HighBit": bits - 1}
    np.testing.assert_allclose(
        shown(tmp_path, frame, JPEGLosslessSV1, **header), spread(values), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_jpeg_ls_is_exact(imagecodecs: ModuleType, tmp_path: Path, bits: int) -> None:
    values = picture(bits)
    frame = imagecodecs.jpegls_encode(values)
    assert read_codestream(frame).process == "jpeg-ls"

    np.testing.assert_array_equal(decode(frame), values)
    header = {"BitsAllocated": 8 if bits <= 8 else 16, "BitsStored": bits, "HighBit": bits - 1}
    np.testing.assert_allclose(
        shown(tmp_path, frame, JPEGLSLossless, **header), spread(values), rtol=0, atol=1e-6
    )


def test_signed_values_in_an_unsigned_codestream_are_twos_complement(
    imagecodecs: ModuleType, tmp_path: Path
) -> None:
    values = picture(12, signed=True)
    frame = imagecodecs.jpeg8_encode(
        values.view(np.uint16) & 0xFFF, lossless=True, predictor=1, bitspersample=12
    )

    pixels = shown(tmp_path, frame, JPEGLosslessSV1, PixelRepresentation=1)

    np.testing.assert_allclose(pixels, spread(values), rtol=0, atol=1e-6)


def test_whole_cells_in_a_codestream_are_cut_to_the_stored_bits(
    imagecodecs: ModuleType, tmp_path: Path
) -> None:
    values = picture(12)
    frame = imagecodecs.jpegls_encode((values << 4) | 5)  # overlay bits below the value

    pixels = shown(tmp_path, frame, JPEGLSLossless, HighBit=15)

    np.testing.assert_allclose(pixels, spread(values), rtol=0, atol=1e-6)


def test_a_lossy_value_beyond_the_stored_bits_is_clipped_not_wrapped(
    imagecodecs: ModuleType, tmp_path: Path
) -> None:
    values = picture(10)
    values[3, 3] = 1027  # what a lossy codec makes of 1023
    frame = imagecodecs.jpegls_encode(values)

    pixels = shown(tmp_path, frame, JPEGLSNearLossless, BitsStored=10, HighBit=9)

    assert pixels[3, 3] == 1


def test_a_codestream_of_fewer_bits_is_read_by_its_own(tmp_path: Path) -> None:
    values = np.linspace(0, 255, 33 * 47).astype(np.uint8).reshape(33, 47)
    out = io.BytesIO()
    Image.fromarray(values).save(out, "JPEG", quality=98)
    dataset = make_dataset(33, 47)
    frame = out.getvalue()
    path = write_dataset(
        tmp_path / "bits.dcm", dataset, JPEGExtended12Bit, frame=frame + b"\0" * (len(frame) % 2)
    )

    radiograph = dicom.read_radiograph(path)

    np.testing.assert_allclose(radiograph.pixels, values / 255, atol=4 / 255)
    assert radiograph.findings[0].code == "bits-mended"


def test_a_grey_jpeg_in_colour_reads_and_a_coloured_one_does_not(tmp_path: Path) -> None:
    values = np.linspace(0, 255, 33 * 47).astype(np.uint8).reshape(33, 47)
    header = {
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "YBR_FULL_422",
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
    }
    grey, red = io.BytesIO(), io.BytesIO()
    Image.fromarray(values).convert("RGB").save(grey, "JPEG", quality=95)
    Image.new("RGB", (47, 33), (200, 0, 0)).save(red, "JPEG", quality=95)

    np.testing.assert_allclose(
        shown(tmp_path, grey.getvalue(), JPEGBaseline8Bit, **header), values / 255, atol=6 / 255
    )
    with pytest.raises(BedsideError) as caught:
        shown(tmp_path, red.getvalue(), JPEGBaseline8Bit, **header)
    assert caught.value.code == "colour"


@pytest.mark.parametrize("syntax", [JPEG2000, JPEGLSLossless, JPEGLosslessSV1])
def test_damaged_codestreams_give_an_error_or_a_picture(
    imagecodecs: ModuleType, tmp_path: Path, syntax: str
) -> None:
    values = picture(12)
    frame = {
        JPEG2000: lambda: imagecodecs.jpeg2k_encode(values, level=0, bitspersample=12, codecformat="j2k"),
        JPEGLSLossless: lambda: imagecodecs.jpegls_encode(values),
        JPEGLosslessSV1: lambda: imagecodecs.jpeg8_encode(
            values, lossless=True, predictor=1, bitspersample=12
        ),
    }[UID(syntax)]()
    random = np.random.default_rng(0)

    for _ in range(200):
        damaged = bytearray(frame)
        for position in random.integers(0, len(frame), random.integers(1, 5)):
            damaged[position] = random.integers(0, 256)
        try:
            pixels = shown(tmp_path, bytes(damaged), syntax)
        except BedsideError:
            continue
        assert pixels.shape == (33, 47)


def test_rle_expands_runs_and_literals() -> None:
    # the beginning of the worked example in Apple's technical note TN1023 on PackBits
    segment = bytes([0xFE, 0xAA, 0x02, 0x80, 0x00, 0x2A])  # AA three times, then three literals
    frame = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56) + segment

    np.testing.assert_array_equal(decode_rle(frame, 2, 3, 1, 8), [[0xAA, 0xAA, 0xAA], [0x80, 0x00, 0x2A]])


def test_rle_of_thirty_two_bits_is_refused() -> None:
    with pytest.raises(InputError):
        decode_rle(bytes(64), 1, 1, 1, 32)
