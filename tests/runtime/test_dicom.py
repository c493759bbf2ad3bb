"""Reading DICOM pictures: the table of cases, transfer syntaxes, geometry and headers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from bedside import dicom
from bedside.dicom.grayscale import read_pipeline
from bedside.dicom.layout import read_layout
from bedside.dicom.pixels import read_pixels
from bedside.dicom.source import read_source
from bedside.errors import MissingExtraError
from dicom_files import make_dataset, write_dataset, write_pixels
from reference import (
    CASES,
    CR_FILES,
    CT_FILES,
    CT_RANGE_HU,
    NATIVE_SYNTAXES,
    Case,
    CrFile,
    CtFile,
    encode_case,
)

needs_codecs = pytest.mark.skipif(
    importlib.util.find_spec("imagecodecs") is None, reason="needs the codecs extra: imagecodecs"
)


def read_hu(path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Values after the modality LUT, before any window."""
    with path.open("rb") as stream:
        source = read_source(stream)
        layout = read_layout(source.dataset)
        stored = read_pixels(stream, source, layout)
    pipeline, _ = read_pipeline(source.dataset, layout, stored.bits)
    return pipeline.modality_values()[stored.patterns]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("syntax", NATIVE_SYNTAXES, ids=lambda uid: uid.keyword)
def test_stored_values_are_shown_as_the_standard_says(case: Case, syntax: str, tmp_path: Path) -> None:
    radiograph = dicom.read_radiograph(encode_case(tmp_path / "case.dcm", case, syntax))

    assert radiograph.pixels.dtype == np.float32
    assert radiograph.pixels.flags.c_contiguous
    assert radiograph.pixels.flags.owndata
    np.testing.assert_allclose(radiograph.pixels[0], case.shown, rtol=0, atol=1e-6)
    assert tuple(finding.code for finding in radiograph.findings) == case.findings


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.header.get("BitsAllocated") != 32], ids=lambda case: case.name
)
def test_rle_shows_the_same(case: Case, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(encode_case(tmp_path / "native.dcm", case))
    dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    dataset.save_as(tmp_path / "rle.dcm")

    radiograph = dicom.read_radiograph(tmp_path / "rle.dcm")

    np.testing.assert_allclose(radiograph.pixels[0], case.shown, rtol=0, atol=1e-6)


@settings(max_examples=60)
@given(
    st.integers(2, 16),
    st.sampled_from(["window", "none"]),
    st.lists(st.integers(0, 0xFFFF), min_size=2, max_size=40),
    st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)
def test_a_picture_and_its_true_complement_look_alike(
    tmp_path_factory: pytest.TempPathFactory, bits: int, voi: str, values: list[int], function: str
) -> None:
    largest = (1 << bits) - 1
    pixels = np.array([values]) & largest
    centre, width = largest * 0.4, largest * 0.6 + 1
    # LINEAR is centred on c - 0.5 (PS3.3, C.11.2.1.2.1), so its mirror is one above that of the others.
    mirrored = largest - centre + (1 if function == "LINEAR" else 0)
    depth = {"BitsStored": bits, "HighBit": bits - 1}
    window = {"WindowCenter": f"{centre:.6f}", "WindowWidth": f"{width:.6f}", "VOILUTFunction": function}
    mirror = {**window, "WindowCenter": f"{mirrored:.6f}"}
    folder = tmp_path_factory.mktemp("complement")

    one = write_pixels(
        folder / "one.dcm", pixels, ExplicitVRLittleEndian, **depth, **(window if voi == "window" else {})
    )
    other = write_pixels(
        folder / "other.dcm",
        largest - pixels,
        ExplicitVRLittleEndian,
        PhotometricInterpretation="MONOCHROME1",
        **depth,
        **(mirror if voi == "window" else {}),
    )

    np.testing.assert_allclose(
        dicom.read_radiograph(one).pixels, dicom.read_radiograph(other).pixels, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("planar", [0, 1])
def test_three_equal_planes_are_a_grey_picture(tmp_path: Path, planar: int) -> None:
    grey = np.array([[0, 51], [102, 255]])
    pixels = np.stack([grey] * 3, axis=0 if planar else -1)
    dataset = make_dataset(
        2,
        2,
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=planar,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
    )
    dataset.PixelData = pixels.astype(np.uint8).tobytes()

    radiograph = dicom.read_radiograph(write_dataset(tmp_path / "grey.dcm", dataset))

    np.testing.assert_allclose(radiograph.pixels, grey / 255, atol=1e-6)
    assert "grey-in-colour" in {finding.code for finding in radiograph.findings}


def test_luminance_without_chrominance_is_a_grey_picture(tmp_path: Path) -> None:
    pixels = np.full((1, 3, 3), 128)
    pixels[0, :, 0] = 0, 51, 255
    dataset = make_dataset(
        1,
        3,
        SamplesPerPixel=3,
        PhotometricInterpretation="YBR_FULL",
        PlanarConfiguration=0,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
    )
    dataset.PixelData = pixels.astype(np.uint8).tobytes() + b"\0"

    radiograph = dicom.read_radiograph(write_dataset(tmp_path / "grey.dcm", dataset))

    np.testing.assert_allclose(radiograph.pixels, [[0, 0.2, 1]], atol=1e-6)


def test_eight_bit_pixels_in_big_endian_words_are_unswapped(tmp_path: Path) -> None:
    dataset = make_dataset(1, 3, BitsAllocated=8, BitsStored=8, HighBit=7)
    dataset.PixelData = bytes(
        [51, 0, 0, 255]
    )  # words 0x3300 0x00FF: pixels 0, 51, 255 and padding (PS3.5, 8.1.1)
    dataset["PixelData"].VR = "OW"

    radiograph = dicom.read_radiograph(write_dataset(tmp_path / "words.dcm", dataset, ExplicitVRBigEndian))

    np.testing.assert_allclose(radiograph.pixels, [[0, 0.2, 1]], atol=1e-6)


UPRIGHT = np.array([[0, 51, 102], [153, 204, 255]])


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (["L", "F"], UPRIGHT),
        (["R", "F"], UPRIGHT[:, ::-1]),
        (["L", "H"], UPRIGHT[::-1]),
        (["R", "H"], UPRIGHT[::-1, ::-1]),
        (["F", "L"], UPRIGHT.T),
        (["F", "R"], UPRIGHT[:, ::-1].T),
        (["H", "L"], UPRIGHT[::-1].T),
        (["H", "R"], UPRIGHT[::-1, ::-1].T),
        (["LF", "FR"], UPRIGHT),
    ],
    ids=lambda value: "\\".join(value) if isinstance(value, list) else "",
)
def test_a_turned_or_mirrored_picture_is_put_upright(
    tmp_path: Path, orientation: list[str], stored: np.ndarray[Any, Any]
) -> None:
    turned = orientation[0][0] in "FH"
    path = write_pixels(
        tmp_path / "turned.dcm",
        stored,
        PatientOrientation=orientation,
        PixelSpacing=[0.2, 0.1] if turned else [0.1, 0.2],
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
    )

    radiograph = dicom.read_radiograph(path)

    np.testing.assert_allclose(radiograph.pixels, UPRIGHT / 255, atol=1e-6)
    assert radiograph.spacing_mm == (0.1, 0.2)
    assert radiograph.pixels.flags.c_contiguous
    mended = "orientation-mended" in {finding.code for finding in radiograph.findings}
    assert mended == (orientation not in (["L", "F"], ["LF", "FR"]))


@pytest.mark.parametrize("orientation", [["A", "F"], ["L"], "", ["X", "Y"], ["L", "R"], ["F", "H"]], ids=str)
def test_an_orientation_out_of_the_frontal_plane_changes_nothing(
    tmp_path: Path, orientation: list[str]
) -> None:
    path = write_pixels(
        tmp_path / "side.dcm",
        UPRIGHT,
        PatientOrientation=orientation,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
    )

    np.testing.assert_allclose(dicom.read_radiograph(path).pixels, UPRIGHT / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("header", "spacing", "code"),
    [
        ({"PixelSpacing": [0.1, 0.2], "ImagerPixelSpacing": [0.3, 0.3]}, (0.1, 0.2), None),
        ({"ImagerPixelSpacing": [0.3, 0.15]}, (0.3, 0.15), None),
        ({"NominalScannedPixelSpacing": [0.3, 0.3]}, (0.3, 0.3), None),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.2, 0.2]}, (0.2, 0.2), "spacing-invalid"),
        ({"PixelSpacing": [0.1, 10]}, None, "spacing-invalid"),
        ({"PixelSpacing": [-0.1, -0.1]}, None, "spacing-invalid"),
        ({"PixelAspectRatio": [2, 1]}, (2.0, 1.0), "spacing-relative"),
        ({"PixelAspectRatio": [1, 1]}, None, None),
        ({}, None, None),
    ],
)
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_the_most_trusted_usable_spacing_is_taken(
    tmp_path: Path, header: dict[str, Any], spacing: tuple[float, float] | None, code: str | None, syntax: str
) -> None:
    radiograph = dicom.read_radiograph(write_pixels(tmp_path / "spacing.dcm", UPRIGHT, syntax, **header))

    assert radiograph.spacing_mm == spacing
    assert [finding.code for finding in radiograph.findings if "spacing" in finding.code] == [code] * bool(
        code
    )


@pytest.mark.parametrize("syntax", NATIVE_SYNTAXES[:2] + NATIVE_SYNTAXES[3:], ids=lambda uid: uid.keyword)
def test_a_data_set_without_preamble_is_read(tmp_path: Path, syntax: str) -> None:
    case = CASES[4]
    data = encode_case(tmp_path / "whole.dcm", case, syntax).read_bytes()
    start = 132 + 12 + int.from_bytes(data[140:144], "little")
    (tmp_path / "bare.dcm").write_bytes(data[start:])

    radiograph = dicom.read_radiograph(tmp_path / "bare.dcm")

    np.testing.assert_allclose(radiograph.pixels[0], case.shown, atol=1e-6)


def test_a_header_longer_than_the_first_read_is_read(tmp_path: Path) -> None:
    dataset = make_dataset(1, 2)
    dataset.add_new(0x00090010, "LO", "VENDOR")
    dataset.add_new(0x00091001, "OB", bytes(300_000))
    dataset.PixelData = bytes([0, 0, 0xFF, 0x0F])

    for syntax in NATIVE_SYNTAXES[:3]:
        radiograph = dicom.read_radiograph(write_dataset(tmp_path / "long.dcm", dataset, syntax))
        np.testing.assert_array_equal(radiograph.pixels, [[0, 1]])


@pytest.mark.parametrize("file", CT_FILES, ids=lambda file: file.syntax[17:] or "implicit")
def test_one_slice_reads_alike_in_every_transfer_syntax(shared: Path, file: CtFile) -> None:
    if file.extra and importlib.util.find_spec("imagecodecs") is None:
        pytest.skip("needs the codecs extra: imagecodecs")
    folder = shared / "data" / "dicom" / "ct-transfer-syntaxes"
    twin = read_hu(folder / "1.2.840.10008.1.2.1.dcm")
    assert (twin.min(), twin.max()) == CT_RANGE_HU

    values = read_hu(folder / f"{file.syntax}.dcm")

    assert dicom.read_header(folder / f"{file.syntax}.dcm").transfer_syntax_uid == file.syntax
    assert np.abs(values - twin).max() <= file.error_hu


@pytest.mark.parametrize("file", CR_FILES, ids=lambda file: file.name[-16:])
def test_real_radiographs_read(shared: Path, file: CrFile) -> None:
    if file.extra and importlib.util.find_spec("imagecodecs") is None:
        pytest.skip("needs the codecs extra: imagecodecs")

    radiograph = dicom.read_radiograph(shared / "data" / "dicom" / "cr" / file.name)

    assert radiograph.pixels.shape == file.shape
    assert radiograph.header.modality == "CR"
    assert radiograph.header.view_position == "PA"
    assert radiograph.pixels.min() >= 0
    assert radiograph.pixels.max() <= 1


def test_the_relabelled_twin_reads_as_its_complement(shared: Path) -> None:
    folder = shared / "data" / "dicom" / "cr"
    original = dicom.read_radiograph(folder / CR_FILES[0].name)
    relabelled = dicom.read_radiograph(folder / CR_FILES[1].name)

    np.testing.assert_allclose(original.pixels + relabelled.pixels, 1, rtol=0, atol=1e-6)
    assert original.pixels.std() > 0.1


@needs_codecs
def test_the_near_lossless_film_shows_dark_lungs(shared: Path) -> None:
    radiograph = dicom.read_radiograph(shared / "data" / "dicom" / "cr" / CR_FILES[2].name)

    # MONOCHROME1, values 871 to 26481 (pyjpegls 1.5.1, libjpeg 2.5.0), window LINEAR 15000/30000
    seen = 1 - ((np.array([26481, 871]) - 14999.5) / 29999 + 0.5)
    np.testing.assert_allclose([radiograph.pixels.min(), radiograph.pixels.max()], seen, rtol=0, atol=1e-6)
    spine, right_lung = radiograph.pixels[600:1000, 850:950], radiograph.pixels[700:900, 400:500]
    assert spine.mean() > right_lung.mean() + 0.1
    assert "spacing-invalid" in {finding.code for finding in radiograph.findings}


def test_without_the_extra_the_error_names_it(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    folder = shared / "data" / "dicom" / "ct-transfer-syntaxes"

    for file in CT_FILES:
        if file.extra:
            with pytest.raises(MissingExtraError, match=r"bedside\[codecs\]"):
                dicom.read_radiograph(folder / f"{file.syntax}.dcm")
        else:
            assert dicom.read_radiograph(folder / f"{file.syntax}.dcm").pixels.shape == (512, 512)
