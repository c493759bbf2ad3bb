"""What a DICOM file says of itself, without any identifier of a patient."""

from __future__ import annotations

from datetime import date
from typing import Final

from bedside.dicom.elements import DataSet
from bedside.dicom.source import Source
from bedside.dicom.tags import Tag
from bedside.radiograph import Header

__all__ = ["make_header"]

VIEWS: Final = {
    "272479007": "PA",
    "R-40888": "PA",
    "R-10214": "PA",
    "399348003": "AP",
    "R-10206": "AP",
    "399173006": "LL",
    "R-10236": "LL",
    "399198007": "RL",
    "R-10232": "RL",
    "399067008": "LATERAL",
    "R-102CD": "LATERAL",
    "399260004": "LATERAL",
    "R-10224": "LATERAL",
    "399352003": "LATERAL",
    "R-10228": "LATERAL",
}
"""View codes, SNOMED CT and SRT, as the defined terms of View Position (PS3.16, CID 4010; PS3.3, C.8.4.5 and
C.8.11.5)."""

REGIONS: Final = {
    "816094009": "CHEST",
    "51185008": "CHEST",
    "T-D3000": "CHEST",
    "39607008": "LUNG",
    "T-28000": "LUNG",
    "818981001": "ABDOMEN",
    "113345001": "ABDOMEN",
    "T-D4000": "ABDOMEN",
}
"""Anatomic region codes as Body Part Examined (PS3.16, CID 4031 and annex L)."""

DAYS: Final = {"Y": 365.25, "M": 365.25 / 12, "W": 7.0, "D": 1.0}
"""Units of an age string (PS3.5, table 6.2-1), in days."""


def make_header(source: Source) -> Header:
    """The header of a file, whatever kind of image it holds; an absent attribute is empty."""
    dataset = source.dataset
    bits = dataset.integers(Tag.BITS_STORED)
    return Header(
        format="DICOM",
        modality=dataset.text(Tag.MODALITY).upper(),
        sop_class_uid=dataset.text(Tag.SOP_CLASS_UID),
        transfer_syntax_uid=source.transfer_syntax_uid,
        view_position=dataset.text(Tag.VIEW_POSITION).upper()
        or _read_code(dataset, Tag.VIEW_CODE_SEQUENCE, VIEWS),
        body_part=dataset.text(Tag.BODY_PART_EXAMINED).upper()
        or _read_code(dataset, Tag.ANATOMIC_REGION_SEQUENCE, REGIONS),
        presentation_intent=dataset.text(Tag.PRESENTATION_INTENT_TYPE).upper(),
        age_years=_read_age(dataset),
        photometric_interpretation=dataset.text(Tag.PHOTOMETRIC_INTERPRETATION).upper(),
        bits_stored=bits[0] if bits else 0,
    )


def _read_code(dataset: DataSet, tag: Tag, known: dict[str, str]) -> str:
    """A coded concept as one of the ``known`` terms, else its own meaning, upper case."""
    for item in dataset.items(tag):
        value = item.text(Tag.CODE_VALUE)
        return known.get(value, item.text(Tag.CODE_MEANING).upper())
    return ""


def _read_age(dataset: DataSet) -> float | None:
    text = dataset.text(Tag.PATIENT_AGE).upper()
    if len(text) > 1 and text[:-1].isdecimal() and text[-1] in DAYS:
        return int(text[:-1]) * DAYS[text[-1]] / DAYS["Y"]
    born, studied = _read_date(dataset, Tag.PATIENT_BIRTH_DATE), _read_date(dataset, Tag.STUDY_DATE)
    if born is None or studied is None or studied < born:
        return None
    return (studied - born).days / DAYS["Y"]


def _read_date(dataset: DataSet, tag: Tag) -> date | None:
    text = dataset.text(tag).replace(".", "")
    if len(text) != 8 or not text.isdecimal():
        return None
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return None
