"""Is this a picture that a bundle may answer on? First what its own header says, then what its pixels show.

Refusals are errors with a stable code; doubts are findings. ``force`` turns a refusal into a finding, so that
the result says what was overridden.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.bundle import Manifest
from bedside.cxr import Severity
from bedside.errors import InputError, RefusedError
from bedside.radiograph import Finding, Header, Radiograph

__all__ = ["check_appearance", "check_header", "check_pixels", "check_severity", "looks_inverted"]

XRAY_MODALITIES: Final = frozenset({"CR", "DX", "RG", "XR", "DR"})
"""Projection X-ray: the defined terms CR, DX, RG of DICOM PS3.3 C.7.3.1.1.1, and what some machines write."""
UNSURE_MODALITIES: Final = frozenset({"OT", "SC", ""})
"""Say nothing of the kind of picture, as secondary captures do."""
_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
FOR_PROCESSING: Final = _STORAGE + "1.1.1"
"""SOP class of digital X-ray images for processing (PS3.4, B.5)."""
XRAY_SOP_CLASSES: Final = frozenset(
    _STORAGE + tail for tail in ("1", "1.1", "1.1.1", "7", "7.1", "7.2", "7.3", "7.4")
) | {""}
"""CR, DX and secondary capture (PS3.4, B.5): what a picture of an unsure modality may be."""
FRONTAL_WORDS: Final = frozenset({"PA", "AP", "FRONTAL", "POSTEROANTERIOR", "ANTEROPOSTERIOR"})
"""In View Position (0018,5101), PS3.3 C.8.7.1.1.1 and C.8.11.5; machines add words, as in ``AP SUPINE``."""
TURNED_WORDS: Final = frozenset(
    [
        "LAT",
        "LATERAL",
        "LL",
        "RL",
        "OBL",
        "OBLIQUE",
        "LAO",
        "RAO",
        "LPO",
        "RPO",
        "LLO",
        "RLO",
        "LLD",
        "RLD",
        "DECUB",
        "DECUBITUS",
        "XTABLE",
        "SWIMMERS",
    ]
)
"""In View Position: lateral, oblique, or lying on a side. One of them refuses, also beside a frontal word."""
CHEST_WORDS: Final = ("CHEST", "THORAX", "TORAX", "TORACE", "LUNG", "PULMON", "RIB")
"""Body Part Examined (0018,0015), PS3.16 annex L: any value that holds one of these, as ``PORT CHEST 1V`` does."""
SILENT_WORDS: Final = frozenset(
    [
        "CHEST",
        "THORAX",
        "UNKNOWN",
        "UNSPECIFIED",
        "OTHER",
        "NONE",
        "NA",
        "N",
        "A",
        "DEFAULT",
        "PORTABLE",
        "PORT",
        "SUPINE",
        "ERECT",
        "UPRIGHT",
        "SITTING",
    ]
)
"""Tell neither a view nor a body part other than the chest: an attribute of them alone counts as missing."""
ADULT_YEARS: Final = 18
"""The built-in and the published networks were trained on adults."""
MIN_SIDE: Final = 64
"""Pixels; no lung can be judged on fewer."""
LOW_SIDE: Final = 224
"""Pixels; under the input size of the usual networks a picture is enlarged."""
WHITE_SHARE: Final = 0.2
"""Share of pixels at the very top of the range from which a picture counts as clipped: over the greatest (0.19)
of the 588 frontal X-rays of covid-chestxray-dataset and Brixia that bedside is tested on."""
BLACK_SHARE: Final = 0.4
"""Share of pixels at the very bottom: one of the same 588 has more (0.50), 99 of 100 have less than 0.26."""

APPEARS: Final = MappingProxyType(
    {
        "turned-left": ("turned-picture", "it looks turned a quarter to the left; turn it to the right"),
        "turned-right": ("turned-picture", "it looks turned a quarter to the right; turn it to the left"),
        "upside-down": ("turned-picture", "it looks upside down; turn it"),
        "inverted": ("inverted-picture", "black and white look exchanged; invert it"),
        "partial": ("not-frontal-chest", "it looks like a part of a chest X-ray; send the whole"),
        "other": ("not-frontal-chest", "it does not look like a frontal chest X-ray; send one"),
    }
)
"""What a picture looks like, if not frontal -> code, and what to say of it and to do about it."""


def check_header(header: Header, *, force: bool = False) -> tuple[Finding, ...]:
    """Refuse what its own header says is not a frontal chest X-ray for display.

    Raises:
        RefusedError: ``wrong-modality``, ``wrong-view``, ``wrong-body-part`` or ``for-processing``, unless
            ``force``.
    """
    findings = []
    for code, text in _header_refusals(header):
        if not force:
            raise RefusedError(code, f"{text}; use force (--force) to score it all the same")
        findings.append(Finding("forced", f"{code}: {text}; scored all the same, as asked"))
    findings += [Finding(code, text) for code, text in _header_notes(header)]
    return tuple(findings)


def check_pixels(radiograph: Radiograph, *, force: bool = False) -> tuple[Finding, ...]:
    """Refuse a picture without content, and note what makes its score doubtful.

    Raises:
        RefusedError: ``constant-image`` always; ``tiny-image`` unless ``force``.
        InputError: ``bad-attribute`` if a pixel is NaN or infinite: some networks would answer all the same.
    """
    pixels = radiograph.pixels
    low, high = float(pixels.min()), float(pixels.max())
    if not math.isfinite(low + high):
        raise InputError(
            "bad-attribute", "the picture's values are not all numbers once rescaled; export it again"
        )
    if low == high:
        raise RefusedError(
            "constant-image", "every pixel has the same value: there is nothing to score; send it again"
        )
    findings = []
    height, width = pixels.shape
    if min(height, width) < MIN_SIDE:
        text = f"{width}x{height} pixels are too few to judge lungs on (at least {MIN_SIDE} a side)"
        if not force:
            raise RefusedError("tiny-image", f"{text}; use force (--force) to score it all the same")
        findings.append(Finding("forced", f"tiny-image: {text}; scored all the same, as asked"))
    findings += [Finding(code, text) for code, text in _pixel_notes(pixels)]
    return tuple(findings)


def _header_refusals(header: Header) -> Iterator[tuple[str, str]]:
    modality, intent = _tidy(header.modality), _tidy(header.presentation_intent)
    if modality not in XRAY_MODALITIES | UNSURE_MODALITIES:
        yield "wrong-modality", f"the modality is {modality[:16]}, not a projection X-ray (CR, DX)"
    elif modality in UNSURE_MODALITIES and header.sop_class_uid not in XRAY_SOP_CLASSES:
        yield "wrong-modality", "by its SOP class the image is not a projection X-ray (CR, DX)"
    if intent == "FOR PROCESSING" or header.sop_class_uid == FOR_PROCESSING:
        yield (
            "for-processing",
            "the image is raw detector data (FOR PROCESSING); send the one FOR PRESENTATION",
        )
    view = _words(header.view_position)
    if view & TURNED_WORDS or not (view & FRONTAL_WORDS or view <= SILENT_WORDS):
        yield "wrong-view", f"the view position is {_tidy(header.view_position)[:16]}, not frontal (PA, AP)"
    if not _is_chest(header.body_part) and not _words(header.body_part) <= SILENT_WORDS:
        yield "wrong-body-part", f"the body part is {_tidy(header.body_part)[:16]}, not the chest"


def _header_notes(header: Header) -> Iterator[tuple[str, str]]:
    if header.format == "DICOM":
        if _tidy(header.modality) in UNSURE_MODALITIES:
            yield "modality-unknown", "the header does not say that this is an X-ray"
        if _words(header.view_position) <= SILENT_WORDS:
            yield "view-unknown", "the header gives no view position; taken as frontal"
        if not _is_chest(header.body_part) and _words(header.body_part) <= SILENT_WORDS:
            yield "body-part-unknown", "the header gives no body part; taken as chest"
    if header.age_years is not None and header.age_years < ADULT_YEARS:
        yield "paediatric", f"the patient is under {ADULT_YEARS}; the networks were trained on adults"


def _is_chest(body_part: str) -> bool:
    return any(word in _tidy(body_part) for word in CHEST_WORDS)


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall("[A-Z]+", _tidy(text).replace(".", "")))


def _tidy(text: str) -> str:
    """Upper case, one line, no padding: a header is typed by people, and the text goes into messages."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).upper().split())


def _pixel_notes(pixels: npt.NDArray[np.float32]) -> Iterator[tuple[str, str]]:
    height, width = pixels.shape
    if MIN_SIDE <= min(height, width) < LOW_SIDE:
        yield "low-resolution", f"{width}x{height} pixels are few; detail is lost"
    thumbnail = pixels[:: max(1, height // 256), :: max(1, width // 256)]
    white, black = (np.count_nonzero(end) / thumbnail.size for end in (thumbnail >= 1, thumbnail <= 0))
    if white > WHITE_SHARE:
        yield (
            "clipped-white",
            f"{white:.0%} of the picture is pure white: over-windowed, or inverted background",
        )
    if black > BLACK_SHARE:
        yield "clipped-black", f"{black:.0%} of the picture is pure black: over-windowed, or wide collimation"
    if looks_inverted(pixels):
        yield "inverted-looking", "lungs look brighter than the mediastinum: the grey scale may be inverted"


def looks_inverted(pixels: npt.NDArray[np.float32]) -> bool:
    """Whether the grey scale of a chest picture seems to be the wrong way round.

    In a chest X-ray the middle column (spine, heart, upper abdomen) is white, while the upper corners (air
    beside the neck) and the middle of either lung are black. Where the middle is the darker, the picture is
    probably inverted. No constant here was fitted: the regions are anatomy, the threshold is zero. Of the 588
    frontal X-rays that bedside is tested on, it takes 1 for inverted, and 587 of their complements.
    """
    step = max(1, min(pixels.shape) // 512)  # means of large regions need no more
    pixels = pixels[::step, ::step]
    height, width = pixels.shape
    beside, around = slice(height * 5 // 16, height * 10 // 16), slice(0, height * 3 // 16)

    def mean(rows: slice, first: int, last: int) -> float:
        """Mean from ``first`` to ``last`` thirty-seconds of the width; of one row or column at least."""
        columns = slice(width * first // 32, max(width * last // 32, width * first // 32 + 1))
        return float(pixels[rows.start : max(rows.stop, rows.start + 1), columns].mean())

    middle = mean(slice(height // 4, height * 7 // 8), 13, 19)
    lungs = mean(beside, 5, 10) + mean(beside, 22, 27)
    corners = mean(around, 0, 3) + mean(around, 29, 32)
    return middle < (lungs + corners) / 4


def check_appearance(
    appearance: Mapping[str, float], manifest: Manifest, *, force: bool = False
) -> tuple[Finding, ...]:
    """Refuse what does not look like a whole, upright frontal chest X-ray, and note what is in doubt.

    The limits are the bundle's: under ``frontal_probability_min`` a picture is refused, under
    ``frontal_probability_sure`` doubted. A mirrored chest is not told from one with the heart on the right.

    Args:
        appearance: One of `bedside.contract.APPEARANCES` -> probability; empty if the bundle tells none.
        manifest: Its limits.
        force: Note what would be refused.

    Raises:
        RefusedError: ``turned-picture``, ``inverted-picture`` or ``not-frontal-chest``, unless ``force``.
    """
    limits = manifest.thresholds
    if not appearance or "frontal_probability_min" not in limits:
        return ()
    frontal = appearance["frontal"]
    if (
        frontal >= limits.get("frontal_probability_sure", 0.0)
        and frontal >= limits["frontal_probability_min"]
    ):
        return ()
    looks = max((name for name in appearance if name != "frontal"), key=appearance.__getitem__)
    code, text = APPEARS[looks]
    if frontal >= limits["frontal_probability_min"]:
        doubt = f"the picture may be no whole, upright frontal chest X-ray (probability that it is: {frontal:.0%})"
        return (Finding("frontal-doubtful", f"{doubt}; the next guess is {looks}"),)
    text = f"{text} (frontal by {frontal:.0%}, {looks} by {appearance[looks]:.0%})"
    if not force:
        raise RefusedError(code, f"{text}, or use force (--force) to score it all the same")
    return (Finding("forced", f"{code}: {text}; scored all the same, as asked"),)


def check_severity(severity: Severity, manifest: Manifest) -> tuple[Finding, ...]:
    """Note what the network's own answer says of the picture: no lungs found, a score beyond its scale.

    The limits are the bundle's: ``lung_probability`` and ``lung_area_min`` (share of the picture's square).
    """
    limits = manifest.thresholds
    if severity.lungs is None or "lung_area_min" not in limits:
        return ()
    area = float((severity.lungs > limits["lung_probability"]).mean())
    if area >= limits["lung_area_min"]:
        return ()
    text = (
        f"lungs cover {area:.1%} of the picture, under {limits['lung_area_min']:.0%}: they may not be in it"
    )
    return (Finding("lungs-not-found", text),)
