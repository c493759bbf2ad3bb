"""What a result copies of its source: whose it is and which study it belongs to; and what it refers to.

Only attributes of the Patient and Study modules are read, by name: private ones never are. Nothing of it reaches a
message or a log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Final

import pydicom
from pydicom.charset import convert_encodings, python_encoding
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from bedside.dicom.references import Instance
from bedside.errors import RefusedError
from bedside.results.dicom.quiet import quiet

__all__ = ["Study", "no_reference", "read_study"]

TYPE_2: Final = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
"""Of the Patient and General Study modules: there in every result, empty where the source has none."""
TYPE_3: Final = (
    "IssuerOfPatientID",
    "TypeOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "PatientBirthTime",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "EthnicGroup",
    "QualityControlSubject",
    "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence",
    "PatientBreedDescription",
    "PatientBreedCodeSequence",
    "BreedRegistrationSequence",
    "ResponsiblePerson",
    "ResponsiblePersonRole",
    "ResponsibleOrganization",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "IssuerOfAccessionNumberSequence",
    "StudyDescription",
    "ReferencedStudySequence",
    "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy",
    "ConsultingPhysicianName",
    "ProcedureCodeSequence",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientSexNeutered",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
)
"""Of the Patient, General Study, Patient Study and Clinical Trial modules (PS3.3, C.7.1, C.7.2): copied where given."""
OWN: Final = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "InstanceNumber",
    "Modality",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "TimezoneOffsetFromUTC",
)
"""What is read of the source for its own sake."""

_FORMS: Final[Mapping[str, re.Pattern[str]]] = {
    "DA": re.compile(r"\d{8}"),
    "TM": re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?"),
    "AS": re.compile(r"\d{3}[DWMY]"),
    "UI": re.compile(r"[0-9.]{1,64}"),
    "CS": re.compile(r"[A-Z0-9_ ]{0,16}"),
    "DS": re.compile(r" *[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)? *"),
    "IS": re.compile(r" *[-+]?\d{1,11} *"),
}
"""Values of a VR that may be copied (PS3.5, table 6.2-1); others are broken, and left out."""
_SEXES: Final = frozenset({"M", "F", "O"})
_OFFSET: Final = re.compile(r"[+-]\d{4}")
_OLD_DATE: Final = re.compile(r"(\d{4})\.(\d{2})\.(\d{2})")
"""As ACR-NEMA wrote dates (PS3.5, 6.2)."""


@dataclass(frozen=True, slots=True)
class Study:
    """The source of a result."""

    modules: Dataset = field(repr=False)
    """Attributes of the Patient and Study modules, checked, with their Specific Character Set."""
    study_uid: str
    """Study Instance UID."""
    series_uid: str
    """Series Instance UID."""
    series_number: int
    """Series Number; 0 where the source has none."""
    instance_number: int
    """Instance Number of the file that was read; 1 where it has none."""
    modality: str
    """Modality, e.g. ``CT``."""
    frame_of_reference_uid: str
    """Frame of Reference UID; empty where the source has none."""
    position_reference: str
    """Position Reference Indicator."""
    utc_offset: str
    """Timezone Offset From UTC, ``+0900``; empty where the source is silent."""
    instances: tuple[Instance, ...]
    """What was analysed."""


def read_study(stream: BinaryIO) -> Study:
    """Read a DICOM file's header for what results copy of it.

    Args:
        stream: The file, at its start.

    Raises:
        RefusedError: ``no-reference``: it is not DICOM, or lacks the UIDs that a result refers to.
    """
    with quiet():
        try:
            source = pydicom.dcmread(
                stream, stop_before_pixels=True, force=True, specific_tags=[*OWN, *TYPE_2, *TYPE_3]
            )
            charset = _character_set(source)
            elements = _read_elements(source, charset)
        except Exception:  # noqa: BLE001 - a damaged header makes pydicom raise anything, with values in it
            raise no_reference("its header can't be read") from None
    own = {name: _text(elements, name) for name in OWN}
    for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        if not own[name]:
            raise no_reference(f"it has no (or no valid) {name}")
    modules = Dataset()
    if charset:
        modules.SpecificCharacterSet = charset if len(charset) > 1 else charset[0]
    for name in (*TYPE_2, *TYPE_3):
        if name in elements:
            modules.add(elements[name])
    for name in TYPE_2:
        if name not in modules:
            setattr(modules, name, "")
    return Study(
        modules=modules,
        study_uid=own["StudyInstanceUID"],
        series_uid=own["SeriesInstanceUID"],
        series_number=_number(own["SeriesNumber"], 0),
        instance_number=_number(own["InstanceNumber"], 1),
        modality=own["Modality"],
        frame_of_reference_uid=own["FrameOfReferenceUID"],
        position_reference=own["PositionReferenceIndicator"],
        utc_offset=own["TimezoneOffsetFromUTC"] if _OFFSET.fullmatch(own["TimezoneOffsetFromUTC"]) else "",
        instances=(Instance(own["SOPClassUID"], own["SOPInstanceUID"], None),),
    )


def no_reference(why: str) -> RefusedError:
    """The refusal of a source that no DICOM result could belong to."""
    return RefusedError(
        "no-reference",
        f"results as DICOM need a study that they belong to, and the input gives none: {why}; "
        "give the original DICOM, or leave --dicom out",
    )


def _character_set(source: Dataset) -> list[str]:
    """The declared one; where none is, or none that exists, the one that the bytes are of. Empty for plain ASCII."""
    stated = source.get("SpecificCharacterSet") or ""
    terms = [str(term).strip() for term in ([stated] if isinstance(stated, str) else stated)]
    if any(terms) and all(term in python_encoding for term in terms):
        return terms
    raw = b"".join(_raw(source, name) for name in (*TYPE_2, *TYPE_3))
    if raw.isascii():
        return []
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return ["ISO_IR 100"]  # Latin-1: what undeclared bytes mostly are; the bytes stay as they are
    return ["ISO_IR 192"]


def _raw(source: Dataset, name: str) -> bytes:
    """An attribute's value as it is in the file."""
    item: object = source.get_item(Tag(name))
    value = item.value if isinstance(item, RawDataElement) else None
    return value if isinstance(value, bytes) else b""


def _read_elements(source: Dataset, charset: list[str]) -> dict[str, DataElement]:
    """Keyword -> element, of those that can be read and are valid."""
    encodings = convert_encodings(charset or ["ISO_IR 6"])
    found: dict[str, DataElement] = {}
    for name in (*OWN, *TYPE_2, *TYPE_3):
        item: object = source.get_item(Tag(name))
        if not isinstance(item, RawDataElement):
            continue
        try:
            element = _mended(convert_raw_data_element(item, encoding=encodings, ds=source))
            if _is_valid(name, element):
                found[name] = element
        except Exception:  # noqa: BLE001, S112 - as above: a broken attribute of the patient is not passed on
            continue
    return found


def _mended(element: DataElement) -> DataElement:
    """An element without what is not to be passed on: private items, and dates in the old form."""
    if element.VR == "SQ":
        for item in element.value:
            item.remove_private_tags()
    elif element.VR == "DA" and (old := _OLD_DATE.fullmatch(str(element.value))):
        return DataElement(element.tag, "DA", "".join(old.groups()))
    return element


def _is_valid(name: str, element: DataElement) -> bool:
    if element.VR in {"SQ", "UN"}:
        return element.VR == "SQ" and len(element.value) > 0
    form = _FORMS.get(element.VR)
    return element.is_empty or (
        (name != "PatientSex" or str(element.value) in _SEXES)
        and (form is None or form.fullmatch(str(element.value)) is not None)
    )


def _text(elements: Mapping[str, DataElement], name: str) -> str:
    element = elements.get(name)
    return "" if element is None or element.value is None else str(element.value).strip()


def _number(text: str, default: int) -> int:
    return int(text) if re.fullmatch(r"\+?\d{1,9}", text) else default
