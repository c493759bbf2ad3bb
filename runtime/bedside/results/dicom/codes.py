"""Coded concepts of DICOM results: standard ones where there are any, and one documented private scheme for the rest.

Standard codes are of SNOMED CT (SCT), DICOM itself (DCM, PS3.16 annex D), UCUM and LOINC (LN). What none of them has is
in `PRIVATE`, under the designator `SCHEME`; ``docs/dicom.md`` has the same table.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Final

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.coding import Code

__all__ = [
    "ABNORMAL_OPACITY",
    "LATERALITY",
    "LUNG",
    "PRIVATE",
    "SCHEME",
    "code_item",
    "code_sequence",
    "finding_code",
    "pathology_code",
    "pattern_code",
    "private",
    "scale_unit",
    "scheme_items",
]

SCHEME: Final = "99BEDSIDE"
"""Designator of the private scheme: 99 begins a local one (PS3.16, 8)."""
MAX_MEANING: Final = 64
"""Characters of Code Meaning (VR LO)."""
MAX_VALUE: Final = 16
"""Characters of Code Value (VR SH); a longer one goes into Long Code Value (PS3.3, 8.1)."""

PRIVATE: Final = MappingProxyType(
    {
        "extent": "Geographic extent of lung opacity",
        "opacity": "Degree of lung opacity",
        "level": "Share of truths inside such an interval",
        "intervals": "Intervals and what they rest on",
        "lung-opacity-share": "Opacified share of the lung",
        "lung-aerated-share": "Well-aerated share of the lung",
        "share-of-lungs": "Share of both lungs",
        "volume-expected": "Volume as the sum of probabilities",
        "read-share": "Share of the slices that were read",
        "reason": "Why there is no result",
        "forced": "Scored although refused, as asked",
        "appears-frontal": "Looks like a frontal chest X-ray",
        "appears-turned-left": "Looks turned a quarter to the left",
        "appears-turned-right": "Looks turned a quarter to the right",
        "appears-upside-down": "Looks upside down",
        "appears-inverted": "Black and white look exchanged",
        "appears-partial": "Looks like a part of a chest X-ray",
        "appears-other": "Looks like something else",
        "ground-glass-septal": "Ground glass with smooth interlobular septal thickening",
        "crazy-paving": "Crazy paving",
        "organizing-pneumonia": "Organizing pneumonia pattern",
        "atoll-sign": "Atoll sign",
        "aerated-lung": "Lung outside of opacities",
    }
)
"""Code -> its meaning. Besides these, `finding_code` and `pathology_code` make codes of what a result itself names."""

LUNG: Final = Code("39607008", "SCT", "Lung")
ABNORMAL_OPACITY: Final = Code("112033", "DCM", "Abnormal opacity")
LATERALITY: Final = MappingProxyType(
    {
        "left": Code("7771000", "SCT", "Left"),
        "right": Code("24028007", "SCT", "Right"),
        "": Code("51440002", "SCT", "Right and left"),
    }
)
"""Side of a tissue -> laterality (CID 244); none is both."""

PATHOLOGIES: Final = MappingProxyType(
    {
        "atelectasis": Code("46621007", "SCT", "Atelectasis"),
        "cardiomegaly": Code("8186001", "SCT", "Cardiomegaly"),
        "consolidation": Code("95436008", "SCT", "Lung consolidation"),
        "edema": Code("19242006", "SCT", "Pulmonary edema"),
        "effusion": Code("60046008", "SCT", "Pleural effusion"),
        "emphysema": Code("87433001", "SCT", "Pulmonary emphysema"),
        "fibrosis": Code("51615001", "SCT", "Fibrosis of lung"),
        "hernia": Code("84089009", "SCT", "Hiatal hernia"),
        "infiltration": Code("112121", "DCM", "Infiltrate"),
        "lung opacity": ABNORMAL_OPACITY,
        "mass": Code("4147007", "SCT", "Mass"),
        "nodule": Code("27925004", "SCT", "Nodule"),
        "pneumonia": Code("233604007", "SCT", "Pneumonia"),
        "pneumothorax": Code("36118008", "SCT", "Pneumothorax"),
    }
)
"""Label of a network, in lower case -> its concept."""

PATTERNS: Final = MappingProxyType(
    {
        "ground glass": Code("112120", "DCM", "Ground glass opacity"),
        "pure ground glass": Code("112120", "DCM", "Ground glass opacity"),
        "ground glass opacity": Code("112120", "DCM", "Ground glass opacity"),
        "ground glass with smooth interlobular septal thickening": Code(
            "ground-glass-septal", SCHEME, PRIVATE["ground-glass-septal"]
        ),
        "crazy paving": Code("crazy-paving", SCHEME, PRIVATE["crazy-paving"]),
        "organizing pneumonia": Code("organizing-pneumonia", SCHEME, PRIVATE["organizing-pneumonia"]),
        "atoll sign": Code("atoll-sign", SCHEME, PRIVATE["atoll-sign"]),
        "consolidation": Code("95436008", "SCT", "Lung consolidation"),
        "pleural effusion": Code("60046008", "SCT", "Pleural effusion"),
        "lymphadenopathy": Code("30746006", "SCT", "Lymphadenopathy"),
    }
)
"""Tissue of a bundle, in lower case -> its concept."""


def private(value: str) -> Code:
    """A concept of `PRIVATE`."""
    return Code(value, SCHEME, PRIVATE[value])


def pathology_code(label: str) -> Code:
    """The concept of a network's label; one of the private scheme, made of the label, where none is standard."""
    words = " ".join(label.replace("_", " ").split())
    known = PATHOLOGIES.get(words.lower())
    return known if known is not None else Code(f"finding-{_slug(words)}", SCHEME, words[:MAX_MEANING])


def pattern_code(name: str, *, opacity: bool) -> Code:
    """The concept of a bundle's tissue: an abnormal opacity, where an opacity says no more than that."""
    known = PATTERNS.get(name.lower())
    if known is not None:
        return known
    return ABNORMAL_OPACITY if opacity else Code(f"tissue-{_slug(name)}", SCHEME, name[:MAX_MEANING])


def finding_code(code: str) -> Code:
    """The concept of an error (`bedside.errors.CODES`), a quality note or an entry of the geometry ledger."""
    return Code(code, SCHEME, code.replace("-", " ").capitalize()[:MAX_MEANING])


def scale_unit(low: float, high: float) -> Code:
    """The unit of a score that says its scale, as PS3.16 writes ranges: ``{0:8}``, "range: 0:8"."""
    return Code(f"{{{low:g}:{high:g}}}", "UCUM", f"range: {low:g}:{high:g}")


def code_item(code: Code) -> Dataset:
    """A concept as an item of a code sequence (PS3.3, 8.8)."""
    item = Dataset()
    if len(code.value) > MAX_VALUE:
        item.LongCodeValue = code.value
    else:
        item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item


def code_sequence(*codes: Code) -> Sequence:
    """A code sequence."""
    return Sequence([code_item(code) for code in codes])


def scheme_items() -> Sequence:
    """Coding Scheme Identification Sequence: what the private designator stands for (PS3.3, C.12.1.1.1)."""
    item = Dataset()
    item.CodingSchemeDesignator = SCHEME
    item.CodingSchemeName = "bedside"
    item.CodingSchemeResponsibleOrganization = "bedside"
    return Sequence([item])


def _slug(words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-") or "unnamed"
