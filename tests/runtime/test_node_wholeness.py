"""Whether an object's pixel data is all there: told without a decoder, and never against what the reader says."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from bedside.errors import BedsideError
from bedside.node.wholeness import judge_pixels
from bedside.reading import read_radiograph
from dicom_files import make_dataset, write_dataset, write_pixels

PIXELS = np.random.default_rng(0).integers(0, 255, (20, 15))
"""An odd number of bytes, where there is one a pixel: the last is padding, which need not be there."""
EIGHT_BITS: dict[str, Any] = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
END = b"\xfe\xff\xdd\xe0\0\0\0\0"
"""Of a sequence of fragments."""


def write_native(syntax: str, **header: Any) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        return write_pixels(path, PIXELS, syntax, **header)

    return write


def write_jpeg(path: Path, syntax: str = JPEGBaseline8Bit, form: str = "JPEG") -> Path:
    out = io.BytesIO()
    Image.fromarray(PIXELS.astype(np.uint8)).save(
        out, form, **({"no_jp2": True} if form == "JPEG2000" else {})
    )
    return write_dataset(path, make_dataset(20, 15, **EIGHT_BITS), syntax, out.getvalue())


def write_jpeg_2000(path: Path) -> Path:
    return write_jpeg(path, JPEG2000Lossless, "JPEG2000")


def write_rle(path: Path) -> Path:
    made = pydicom.dcmread(write_pixels(path, PIXELS, **EIGHT_BITS))
    made.compress(RLELossless, generate_instance_uid=False)
    made.save_as(path)
    return path


def write_without_end(path: Path) -> Path:
    """As some writers do: no delimiter after the last fragment."""
    content = write_jpeg(path).read_bytes()
    assert content.endswith(END)
    path.write_bytes(content.removesuffix(END))
    return path


def write_pieces(path: Path) -> Path:
    """A picture in two fragments, of which the second holds the last byte of the codestream alone."""
    content = write_jpeg(path).read_bytes().removesuffix(END)
    start = content.index(b"\xff\xd8\xff")
    first, last = content[start:].rstrip(b"\0")[:-1], b"\xd9\0"
    if len(first) % 2:
        first = first[:-1] + b"\xff\xff"  # ahead of a marker there may be more of them (T.81, B.1.1.2)
    items = (b"\xfe\xff\x00\xe0" + len(each).to_bytes(4, "little") + each for each in (first, last))
    path.write_bytes(content[: start - 8] + b"".join(items) + END)
    return path


WRITERS = {
    "explicit": write_native(ExplicitVRLittleEndian),
    "implicit": write_native(ImplicitVRLittleEndian),
    "deflated": write_native(DeflatedExplicitVRLittleEndian),
    "big": write_native(ExplicitVRBigEndian),
    "bytes": write_native(ExplicitVRLittleEndian, **EIGHT_BITS),
    "jpeg": write_jpeg,
    "jpeg-2000": write_jpeg_2000,
    "rle": write_rle,
    "without-end": write_without_end,
    "pieces": write_pieces,
}


def judge(content: bytes) -> str:
    return judge_pixels(io.BytesIO(content))


def refusal(path: Path) -> str:
    """Why a picture can't be read, by its code; empty if it can."""
    try:
        read_radiograph(path)
    except BedsideError as error:
        return error.code
    return ""


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_what_reads_is_whole_and_what_a_cut_left_is_not(
    writer: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = writer(tmp_path / "a.dcm")
    content = path.read_bytes()
    assert (refusal(path), judge(content)) == ("", "whole")
    judged = set()
    for cut in (*range(1, 40), *range(40, len(content), 17)):
        path.write_bytes(content[:-cut])
        code, found = refusal(path), judge(content[:-cut])
        judged.add(found)
        assert (found == "whole") == (code == ""), (cut, code)
        assert found == "cut" or code != "truncated-pixels", cut
    assert "cut" in judged


def test_every_frame_counts(tmp_path: Path) -> None:
    native = make_dataset(4, 4, NumberOfFrames=3)
    native.PixelData = bytes(3 * 32)
    native["PixelData"].VR = "OW"
    content = write_dataset(tmp_path / "a.dcm", native).read_bytes()
    assert (judge(content), judge(content[:-1])) == ("whole", "cut")

    stream = b"\xff\xd8" + bytes(20) + b"\xff\xd9"
    for frames, found in ((2, "whole"), (3, "broken")):
        dataset = make_dataset(4, 4, NumberOfFrames=frames)
        dataset.PixelData = encapsulate([stream, stream])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        content = write_dataset(tmp_path / "b.dcm", dataset, JPEGBaseline8Bit).read_bytes()
        assert judge(content) == found
    between = content.index(stream) + len(stream)  # where one frame ends: nothing is missing but the rest
    assert judge(content[:between]) == "cut"


def with_pixels(n_bytes: int, **header: object) -> pydicom.Dataset:
    dataset = make_dataset(4, 4, **header)
    dataset.PixelData = bytes(n_bytes)
    dataset["PixelData"].VR = "OW"
    return dataset


@pytest.mark.parametrize(
    "dataset",
    [
        make_dataset(4, 4),
        with_pixels(30),
        with_pixels(32, Rows=None),
        with_pixels(32, BitsStored=40),
    ],
    ids=["no pixels", "too few by its own word", "no rows", "bits"],
)
def test_what_can_never_be_read_is_broken(dataset: pydicom.Dataset, tmp_path: Path) -> None:
    assert judge(write_dataset(tmp_path / "a.dcm", dataset).read_bytes()) == "broken"


def test_what_is_refused_for_what_it_shows_is_whole_or_cut(tmp_path: Path) -> None:
    dataset = with_pixels(32, PhotometricInterpretation="PALETTE COLOR")
    content = write_dataset(tmp_path / "a.dcm", dataset).read_bytes()
    assert (judge(content), judge(content[:-1])) == ("whole", "cut")


@pytest.mark.parametrize("content", [b"", b"a letter to the ward" * 20, b"\0" * 128 + b"DICM"])
def test_what_is_no_picture_is_broken(content: bytes) -> None:
    assert judge(content) == "broken"


def test_damaged_fragments_are_broken(tmp_path: Path) -> None:
    content = write_jpeg(tmp_path / "a.dcm").read_bytes()
    start = content.index(b"\xff\xd8\xff") - 8
    assert judge(content[:start] + b"\1" + content[start + 1 :]) == "broken"
    assert judge(content[: start + 4] + b"\xff\xff\xff\xff" + content[start + 8 :]) == "broken"
