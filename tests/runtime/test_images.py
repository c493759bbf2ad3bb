"""Reading PNG, JPEG and TIFF pictures."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bedside import reading
from bedside.errors import BedsideError
from bedside.images import read_picture, read_picture_header
from bedside.radiograph import Radiograph

Pixels = np.ndarray[Any, Any]

EIGHT = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)
SIXTEEN = (EIGHT.astype(np.uint16) * 257).astype(np.uint16)
SHOWN = EIGHT / 255


def save(path: Path, pixels: Pixels, **options: object) -> Path:
    Image.fromarray(pixels).save(path, None, **options)
    return path


def codes(radiograph: Radiograph) -> list[str]:
    return [finding.code for finding in radiograph.findings]


def refusal(path: Path) -> BedsideError:
    with pytest.raises(BedsideError) as caught:
        reading.read_radiograph(path)
    assert "\n" not in str(caught.value)
    assert path.name not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(("pixels", "bits"), [(EIGHT, 8), (SIXTEEN, 16)], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.tif", {}),
        ("lzw.tif", {"compression": "tiff_lzw"}),
        ("deflate.tif", {"compression": "tiff_adobe_deflate"}),
        ("packed.tif", {"compression": "packbits"}),
    ],
)
def test_levels_become_display_values(
    tmp_path: Path, pixels: Pixels, bits: int, name: str, options: dict[str, Any]
) -> None:
    path = save(tmp_path / name, pixels, **options)

    radiograph = read_picture(path)

    np.testing.assert_allclose(radiograph.pixels, SHOWN, rtol=0, atol=1e-6)
    assert radiograph.pixels.flags.c_contiguous
    assert radiograph.header.format == {"png": "PNG", "tif": "TIFF"}[name[-3:]]
    assert radiograph.header.bits_stored == bits
    assert radiograph.findings == ()
    assert radiograph.spacing_mm is None
    assert read_picture_header(path) == radiograph.header


def test_a_jpeg_reads(tmp_path: Path) -> None:
    pixels = np.linspace(0, 255, 64 * 64).astype(np.uint8).reshape(64, 64)
    path = save(tmp_path / "a.jpg", pixels, quality=95)

    radiograph = read_picture(path)

    np.testing.assert_allclose(radiograph.pixels, pixels / 255, atol=4 / 255)
    assert radiograph.header.format == "JPEG"
    assert radiograph.header.bits_stored == 8


def test_the_kind_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    save(tmp_path / "a.png", EIGHT)
    (tmp_path / "a.dcm").write_bytes((tmp_path / "a.png").read_bytes())

    assert reading.read_header(tmp_path / "a.dcm").format == "PNG"
    assert reading.read_radiograph(tmp_path / "a.dcm").header.format == "PNG"


def write_tiff(path: Path, pixels: Pixels, order: str, tags: dict[int, int], *, next_offset: int = 0) -> Path:
    """An uncompressed TIFF of one strip, byte by byte (TIFF 6.0, section 2)."""
    bits = pixels.dtype.itemsize * 8
    strip = pixels.astype(f"{order}u{bits // 8}").tobytes()
    entries = {
        256: pixels.shape[1],
        257: pixels.shape[0],
        258: bits,
        259: 1,
        262: 1,
        273: 8,
        277: 1,
        278: pixels.shape[0],
        279: len(strip),
        **tags,
    }
    directory = struct.pack(order + "H", len(entries))
    for tag, value in sorted(entries.items()):
        directory += struct.pack(order + "HHLL", tag, 4, 1, value)
    directory += struct.pack(order + "L", next_offset)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "L", 8 + len(strip))
    path.write_bytes(head + strip + directory)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("pixels", [EIGHT, SIXTEEN], ids=["8 bits", "16 bits"])
def test_white_is_zero_in_a_tiff_that_says_so(tmp_path: Path, order: str, pixels: Pixels) -> None:
    plain = read_picture(write_tiff(tmp_path / "plain.tif", pixels, order, {}))
    white = read_picture(write_tiff(tmp_path / "white.tif", pixels, order, {262: 0}))

    np.testing.assert_allclose(plain.pixels, SHOWN, atol=1e-6)
    np.testing.assert_allclose(white.pixels, 1 - SHOWN, atol=1e-6)
    assert codes(white) == ["inverted"]


TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.T,
    6: np.rot90,
    7: lambda p: p[::-1, ::-1].T,
    8: lambda p: np.rot90(p, -1),
}
"""Orientation -> how an upright picture is stored (TIFF 6.0, page 36)."""


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg"])
def test_orientation_is_honoured(tmp_path: Path, orientation: int, name: str) -> None:
    upright = np.kron(EIGHT, np.ones((16, 16), np.uint8))
    stored = np.ascontiguousarray(TURNS[orientation](upright))
    if name == "a.tif":
        path = write_tiff(tmp_path / name, stored, "<", {274: orientation})
    else:
        exif = Image.Exif()
        exif[274] = orientation
        path = save(tmp_path / name, stored, exif=exif)

    radiograph = read_picture(path)

    np.testing.assert_allclose(radiograph.pixels, upright / 255, atol=3 / 255)
    assert codes(radiograph) == ([] if orientation == 1 else ["orientation-mended"])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_grey_picture_stored_in_colour_is_grey(tmp_path: Path, mode: str, suffix: str) -> None:
    if mode == "LA" and suffix == "tif":
        pytest.skip("pillow writes no such TIFF")
    Image.fromarray(EIGHT).convert(mode).save(tmp_path / f"a.{suffix}")

    radiograph = read_picture(tmp_path / f"a.{suffix}")

    np.testing.assert_allclose(radiograph.pixels, SHOWN, atol=1e-6)
    assert codes(radiograph) == ["grey-in-colour"]


def test_a_grey_jpeg_stored_in_colour_is_grey(tmp_path: Path) -> None:
    pixels = np.linspace(0, 255, 64 * 64).astype(np.uint8).reshape(64, 64)
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "a.jpg", quality=80)

    radiograph = read_picture(tmp_path / "a.jpg")

    np.testing.assert_allclose(radiograph.pixels, pixels / 255, atol=8 / 255)
    assert codes(radiograph) == ["grey-in-colour"]


def test_one_bit_reads_as_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(EIGHT > 127).save(tmp_path / "a.png")

    np.testing.assert_array_equal(read_picture(tmp_path / "a.png").pixels, EIGHT > 127)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_colour_is_refused(tmp_path: Path, name: str) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16, :, 0] = 200
    save(tmp_path / name, pixels)

    assert refusal(tmp_path / name).code == "colour"


def test_four_inks_are_refused(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8)).save(tmp_path / "a.jpg")

    assert refusal(tmp_path / "a.jpg").code == "colour"


def test_floating_point_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.tif", SHOWN.astype(np.float32))

    assert refusal(tmp_path / "a.tif").code == "colour"


def test_several_pictures_are_refused(tmp_path: Path) -> None:
    page = Image.fromarray(EIGHT)
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    page.save(tmp_path / "a.png", save_all=True, append_images=[Image.fromarray(255 - EIGHT)])

    assert refusal(tmp_path / "a.tif").code == "multi-frame"
    assert refusal(tmp_path / "a.png").code == "multi-frame"


def png(rows: int, columns: int, body: bytes, *extra: tuple[bytes, bytes], bits: int = 8) -> bytes:
    def chunk(name: bytes, value: bytes) -> bytes:
        return struct.pack(">L", len(value)) + name + value + struct.pack(">L", zlib.crc32(name + value))

    head = chunk(b"IHDR", struct.pack(">LLBBBBB", columns, rows, bits, 0, 0, 0, 0))
    chunks = [chunk(name, value) for name, value in extra]
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("rows", "columns"), [(100_000, 100_000), (1, 2**31 - 1), (0, 5)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(
    tmp_path: Path, rows: int, columns: int
) -> None:
    (tmp_path / "a.png").write_bytes(png(rows, columns, zlib.compress(bytes(1000))))

    assert refusal(tmp_path / "a.png").code == "bad-dimensions"


@pytest.mark.parametrize(
    ("level", "shown", "found"), [(4095, 1.0, ["scale-mended"]), (65520, 65520 / 65535, [])]
)
def test_twelve_bits_in_sixteen_are_scaled_as_the_png_says(
    tmp_path: Path, level: int, shown: float, found: list[str]
) -> None:
    rows = b"\0" + struct.pack(">HH", 0, level)
    (tmp_path / "a.png").write_bytes(png(1, 2, zlib.compress(rows), (b"sBIT", b"\x0c"), bits=16))

    radiograph = read_picture(tmp_path / "a.png")

    np.testing.assert_allclose(radiograph.pixels, [[0, shown]], atol=1e-6)
    assert codes(radiograph) == found


def test_a_dark_picture_is_told_of(tmp_path: Path) -> None:
    radiograph = read_picture(save(tmp_path / "a.png", np.array([[0, 4095]], np.uint16)))

    np.testing.assert_allclose(radiograph.pixels, [[0, 4095 / 65535]], atol=1e-6)
    assert codes(radiograph) == ["dark-image"]


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_picture_cut_short_is_broken(tmp_path: Path, name: str, share: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    path = save(tmp_path / name, pixels)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])

    assert refusal(path).code == "broken-image"


@settings(max_examples=300)
@given(
    name=st.sampled_from(["png", "jpeg", "tiff"]),
    flips=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=6),
    cut=st.one_of(st.none(), st.integers(0, 1 << 16)),
)
def test_a_damaged_picture_is_a_picture_or_an_error_with_a_code(
    tmp_path_factory: pytest.TempPathFactory, name: str, flips: list[tuple[int, int]], cut: int | None
) -> None:
    out = io.BytesIO()
    Image.fromarray(EIGHT).save(out, name)
    data = bytearray(out.getvalue())
    for position, value in flips:
        data[position % len(data)] = value
    if cut is not None:
        del data[cut % len(data) :]
    path = tmp_path_factory.getbasetemp() / "damaged.picture"
    path.write_bytes(data)

    try:
        radiograph = reading.read_radiograph(path)
    except BedsideError:
        return
    assert radiograph.pixels.min() >= 0
    assert radiograph.pixels.max() <= 1


def test_real_pictures_read(shared: Path) -> None:
    paths = sorted((shared / "data" / "cxr" / "images").iterdir())[::20]

    for path in paths:
        radiograph = reading.read_radiograph(path)
        with Image.open(path) as picture:
            assert radiograph.pixels.shape == (picture.height, picture.width)
        assert radiograph.pixels.std() > 0.02
