"""The quality gate: what is refused, what is noted, and that force overrides and says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.bundle import Bundle, Manifest
from bedside.cxr import interpret
from bedside.errors import InputError, RefusedError
from bedside.quality import (
    BLACK_SHARE,
    LOW_SIDE,
    MIN_SIDE,
    WHITE_SHARE,
    check_header,
    check_pixels,
    check_severity,
    looks_inverted,
)
from bedside.radiograph import Header, Radiograph
from tiny_bundle import Network, golden_images, make_bundle

Picture = npt.NDArray[np.float32]
GOOD = Header("DICOM", modality="DX", view_position="PA", body_part="CHEST")
STORAGE = "1.2.840.10008.5.1.4.1.1."


def header(**changes: Any) -> Header:
    return replace(GOOD, **changes)


def codes(findings: tuple[Any, ...]) -> list[str]:
    return [finding.code for finding in findings]


def chest(side: int = 300) -> Picture:
    """Two dark lungs and dark upper corners in a grey body."""
    y, x = np.mgrid[0:side, 0:side] / side
    pixels = np.full((side, side), 0.7, np.float32)
    for middle in (0.27, 0.73):
        pixels[((x - middle) / 0.15) ** 2 + ((y - 0.5) / 0.3) ** 2 < 1] = 0.25
    pixels[(y < 0.15) & (abs(x - 0.5) > 0.35)] = 0.05
    return pixels


def check(pixels: Picture, *, force: bool = False) -> list[str]:
    return codes(check_pixels(Radiograph(pixels, GOOD), force=force))


# Headers


def test_good_header_has_no_finding() -> None:
    assert check_header(GOOD) == ()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_picture_file_says_nothing_and_is_not_blamed(kind: str) -> None:
    assert check_header(Header(kind)) == ()


MODALITIES = ["CR", "DX", "RG", "XR", "DR", "CR ", "cr", " Dx\0"]
OTHER_MODALITIES = ["CT", "MR", "US", "MG", "NM", "PT", "XA", "RF", "IO", "PX", "SEG", "PR", "CTX", "ct"]
FRONTAL = [
    "PA", "AP", "pa", " AP ", "AP SUPINE", "AP PORTABLE", "AP ERECT", "AP AXIAL", "CHEST PA", "PA CHEST", "AP_SUPINE",
    "PA/ERECT", "P.A.", "FRONTAL", "POSTEROANTERIOR", "AP\\SUPINE", "W033 CHEST PA",
]  # fmt: skip
TURNED = [
    "LL", "RL", "LAT", "LATERAL", "lateral", "LEFT LATERAL", "LAO", "RAO", "LPO", "RPO", "LLD", "AP LLD", "PA RLD",
    "XTABLE LATERAL", "SWIMMERS", "PA/LAT", "PA AND LATERAL", "RIGHT OBLIQUE", "AP DECUBITUS", "OPEN MOUTH", "SUNRISE",
]  # fmt: skip
SILENT_VIEWS = ["", "  ", "UNKNOWN", "SUPINE", "PORTABLE", "N/A", "--", "0", "CHEST"]
CHESTS = [
    "CHEST", "chest", " CHEST ", "PORT CHEST", "CHEST 1V", "CHEST_PA", "CHEST AP/PA", "CHEST^PA", "CHESTABDOMEN",
    "LUNG", "THORAX", "Torax", "TORACE", "RIBS", "RIB CAGE", "PULMONES",
]  # fmt: skip
OTHER_PARTS = [
    "ABDOMEN",
    "HAND",
    "SKULL",
    "TSPINE",
    "THORACIC SPINE",
    "KNEE",
    "PELVIS",
    "SHOULDER",
    "BREAST",
    "NECK",
]
SILENT_PARTS = ["", " ", "UNKNOWN", "OTHER", "N/A", "00", "DEFAULT"]


@pytest.mark.parametrize("modality", MODALITIES)
def test_projection_modality_passes(modality: str) -> None:
    assert check_header(header(modality=modality)) == ()


@pytest.mark.parametrize("modality", ["OT", "SC", "", " ", "ot"])
def test_modality_that_says_nothing_is_noted(modality: str) -> None:
    assert codes(check_header(header(modality=modality))) == ["modality-unknown"]


@pytest.mark.parametrize("tail", ["1", "1.1", "7", "7.2"])
def test_unsure_modality_of_an_xray_class_passes(tail: str) -> None:
    assert codes(check_header(header(modality="OT", sop_class_uid=STORAGE + tail))) == ["modality-unknown"]


@pytest.mark.parametrize("tail", ["2", "4", "6.1", "77.1.4", "11.1", "88.11"])
def test_unsure_modality_of_another_class_is_refused(tail: str) -> None:
    refused("wrong-modality", modality="", sop_class_uid=STORAGE + tail)


@pytest.mark.parametrize("view", FRONTAL)
def test_frontal_view_passes(view: str) -> None:
    assert check_header(header(view_position=view)) == ()


@pytest.mark.parametrize("view", SILENT_VIEWS)
def test_view_that_says_nothing_is_noted(view: str) -> None:
    assert codes(check_header(header(view_position=view))) == ["view-unknown"]


@pytest.mark.parametrize("part", CHESTS)
def test_chest_passes(part: str) -> None:
    assert check_header(header(body_part=part)) == ()


@pytest.mark.parametrize("part", SILENT_PARTS)
def test_body_part_that_says_nothing_is_noted(part: str) -> None:
    assert codes(check_header(header(body_part=part))) == ["body-part-unknown"]


REFUSALS: list[tuple[str, dict[str, str]]] = [
    *(("wrong-modality", {"modality": modality}) for modality in OTHER_MODALITIES),
    *(("wrong-view", {"view_position": view}) for view in TURNED),
    *(("wrong-body-part", {"body_part": part}) for part in OTHER_PARTS),
    ("for-processing", {"presentation_intent": "FOR PROCESSING"}),
    ("for-processing", {"presentation_intent": "for processing "}),
    ("for-processing", {"sop_class_uid": STORAGE + "1.1.1"}),
]


def refused(code: str, **changes: str) -> None:
    with pytest.raises(RefusedError) as caught:
        check_header(header(**changes))
    assert caught.value.code == code
    assert "--force" in caught.value.message
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(("code", "changes"), REFUSALS)
def test_header_is_refused_with_its_code(code: str, changes: dict[str, str]) -> None:
    refused(code, **changes)


@pytest.mark.parametrize(("code", "changes"), REFUSALS)
def test_force_turns_a_refusal_into_a_finding(code: str, changes: dict[str, str]) -> None:
    findings = check_header(header(**changes), force=True)
    assert codes(findings) == ["forced"]
    assert findings[0].text.startswith(f"{code}: ")


def test_force_tells_every_refusal() -> None:
    findings = check_header(header(modality="CT", view_position="LL", body_part="SKULL"), force=True)
    told = [finding.text.partition(":")[0] for finding in findings]
    assert told == ["wrong-modality", "wrong-view", "wrong-body-part"]


def test_for_presentation_passes() -> None:
    assert check_header(header(presentation_intent="FOR PRESENTATION", sop_class_uid=STORAGE + "1.1")) == ()


@pytest.mark.parametrize(
    ("age", "noted"), [(0.1, True), (17.99, True), (18.0, False), (80.0, False), (None, False)]
)
def test_child_is_noted(age: float | None, noted: bool) -> None:
    assert (codes(check_header(header(age_years=age))) == ["paediatric"]) is noted


@given(st.text(), st.text(), st.text(), st.text())
def test_any_header_is_judged_in_one_printable_line(modality: str, view: str, part: str, intent: str) -> None:
    findings = check_header(
        header(modality=modality, view_position=view, body_part=part, presentation_intent=intent), force=True
    )
    assert all(finding.text.isprintable() and len(finding.text) < 200 for finding in findings)


# Pixels


def test_good_picture_has_no_finding() -> None:
    assert check(chest()) == []


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("force", [False, True])
def test_constant_picture_is_refused_even_by_force(value: float, force: bool) -> None:
    with pytest.raises(RefusedError) as caught:
        check(np.full((300, 300), value, np.float32), force=force)
    assert caught.value.code == "constant-image"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pixel_that_is_no_number_is_refused(bad: float) -> None:
    pixels = chest()
    pixels[7, 7] = bad
    with pytest.raises(InputError) as caught:
        check(pixels, force=True)
    assert caught.value.code == "bad-attribute"


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (1, 300), (300, 1), (63, 300), (300, 63), (2, 2), (7, 9)])
def test_tiny_picture_is_refused_unless_forced(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).random(shape, dtype=np.float32)
    with pytest.raises(RefusedError) as caught:
        check(pixels)
    assert caught.value.code == "tiny-image"
    assert check(pixels, force=True)[0] == "forced"


@pytest.mark.parametrize(("side", "expected"), [(MIN_SIDE, ["low-resolution"]), (LOW_SIDE, [])])
def test_small_picture_is_noted(side: int, expected: list[str]) -> None:
    assert check(chest(side)) == expected


@pytest.mark.parametrize(
    ("share", "value", "code"), [(WHITE_SHARE, 1.0, "clipped-white"), (BLACK_SHARE, 0.0, "clipped-black")]
)
def test_clipped_picture_is_noted(share: float, value: float, code: str) -> None:
    for excess, expected in ((-0.02, False), (0.02, True)):
        pixels = chest()
        pixels[-round(300 * (share + excess)) :] = value
        assert (code in check(pixels)) is expected


def test_over_windowed_picture_is_noted() -> None:
    assert "clipped-white" in check(np.clip((chest() - 0.2) * 4, 0, 1))


def test_inverted_picture_is_noted() -> None:
    assert check(1 - chest()) == ["inverted-looking"]


@given(st.integers(1, 12), st.integers(1, 12))
def test_any_small_picture_is_judged(height: int, width: int) -> None:
    assert looks_inverted(np.ones((height, width), np.float32)) is False


@given(st.floats(0.1, 0.9), st.floats(0.05, 0.1))
def test_contrast_and_brightness_do_not_matter(offset: float, gain: float) -> None:
    pixels = (offset + gain * (chest(80) - 0.5)).astype(np.float32)
    assert looks_inverted(pixels) is False
    assert looks_inverted(1 - pixels) is True


@pytest.mark.slow
def test_sample_passes_the_gate(tmp_path: Path) -> None:
    from bedside.reading import read_radiograph
    from bedside.sample import write_sample

    radiograph = read_radiograph(write_sample(tmp_path / "sample.dcm"))
    assert check_header(radiograph.header) == ()
    assert check_pixels(radiograph) == ()
    assert looks_inverted(1 - radiograph.pixels)


@pytest.mark.slow
def test_shared_pictures_are_upright_and_their_complements_are_not(shared: Path) -> None:
    """The figures that the docstrings of `looks_inverted`, `WHITE_SHARE` and `BLACK_SHARE` give."""
    from bedside.reading import read_radiograph

    pictures = [
        read_radiograph(path).pixels for path in sorted((shared / "data" / "cxr" / "images").iterdir())
    ]
    assert len(pictures) == 588
    assert sum(looks_inverted(pixels) for pixels in pictures) == 1
    assert sum(looks_inverted(1 - pixels) for pixels in pictures) == 587
    notes = [code for pixels in pictures for code in check(pixels)]
    assert notes.count("clipped-white") == 0
    assert notes.count("clipped-black") == 1


# What the network's answer says


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = make_bundle(tmp_path_factory.mktemp("bundle") / "b", network=Network(lungs=True))
    return Bundle.open(folder).manifest


@pytest.mark.parametrize(("covered", "expected"), [(0, ["lungs-not-found"]), (1, []), (16, [])])
def test_picture_without_lungs_is_noted(covered: int, expected: list[str], manifest: Manifest) -> None:
    """The bundle's limits: a probability over 0.5 on at least 0.05 of the square, here 1 of 16 cells."""
    outputs = Network(lungs=True).run(golden_images()[:1])
    outputs["lungs"] = np.where(np.arange(16) < covered, 0.9, 0.1).astype(np.float32).reshape(1, 1, 4, 4)
    assert codes(check_severity(interpret(outputs, manifest), manifest)) == expected


def test_bundle_without_limits_or_lungs_has_no_note(manifest: Manifest) -> None:
    outputs = Network(lungs=True).run(golden_images()[:1])
    outputs["lungs"] = np.zeros_like(outputs["lungs"])
    severity = interpret(outputs, manifest)
    assert check_severity(severity, replace(manifest, thresholds={})) == ()
    assert check_severity(replace(severity, lungs=None), manifest) == ()
