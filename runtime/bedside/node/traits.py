"""What the node reads of an object's header: where it belongs, and what rules look at. Not for clinical use.

By `bedside.dicom`, not by pydicom, which warns and logs with values in the text, and can't be hushed for one thread.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from pydicom.charset import python_encoding

from bedside.dicom.elements import DataSet
from bedside.dicom.header import make_header
from bedside.dicom.source import Source, read_source
from bedside.dicom.tags import Tag
from bedside.errors import InputError
from bedside.files import open_input
from bedside.node.rules import Traits

__all__ = ["Labels", "parse_labels", "read_labels"]

CHARACTER_SET: Final = 0x00080005
STUDY_DESCRIPTION: Final = 0x00081030
SERIES_DESCRIPTION: Final = 0x0008103E
SERIES_INSTANCES: Final = 0x00201209
"""NumberOfSeriesRelatedInstances."""
MAX_INSTANCES: Final = 1_000_000
"""A greater number of instances of one series is a mistake."""
MAX_DESCRIPTION: Final = 256
"""Characters of a description that rules look at: four times what PS3.5 allows (LO)."""
_ALSO: Final = frozenset({CHARACTER_SET, STUDY_DESCRIPTION, SERIES_DESCRIPTION, SERIES_INSTANCES})
_UID: Final = re.compile(r"[0-9]+(?:\.[0-9]+)*")
"""PS3.5, 9.1, but for leading zeros, which senders write."""
_UID_LENGTH: Final = 64
_ESCAPE: Final = re.compile(r"\x1b[ -/]{1,3}[0-~]")
"""Of ISO 2022, where a codec leaves it in the text."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What an object says of itself. The UIDs are for the queue, and for no log."""

    study: str
    """StudyInstanceUID."""
    series: str
    """SeriesInstanceUID."""
    sop: str
    """SOPInstanceUID."""
    sop_class: str
    """SOPClassUID."""
    expected: int | None
    """NumberOfSeriesRelatedInstances (0020,1209); None where it is not there, or is no number."""
    traits: Traits
    """What rules look at."""


def read_labels(path: Path, *, calling_ae: str = "", called_ae: str = "") -> Labels:
    """Read the header of a DICOM file; no pixel is decoded. May be called from any thread.

    Args:
        path: The file.
        calling_ae: AE title of its sender.
        called_ae: AE title that the sender called.

    Raises:
        InputError: ``broken-dicom``: the header can't be read, or one of the four UIDs is missing or is none;
            ``not-an-image``: it is not DICOM; ``not-found``, ``not-readable``, ``empty-file``.
    """
    with open_input(path) as stream:
        return parse_labels(stream, calling_ae=calling_ae, called_ae=called_ae)


def parse_labels(stream: BinaryIO, *, calling_ae: str = "", called_ae: str = "") -> Labels:
    """The same, of a file that is open, at its start.

    Raises:
        InputError: ``broken-dicom``, ``not-an-image``.
    """
    source = _read_source(stream)
    dataset = source.dataset
    header = make_header(source)
    return Labels(
        study=_uid(dataset, Tag.STUDY_INSTANCE_UID, "StudyInstanceUID"),
        series=_uid(dataset, Tag.SERIES_INSTANCE_UID, "SeriesInstanceUID"),
        sop=_uid(dataset, Tag.SOP_INSTANCE_UID, "SOPInstanceUID"),
        sop_class=_uid(dataset, Tag.SOP_CLASS_UID, "SOPClassUID"),
        expected=_expected(dataset),
        traits=Traits(
            modality=header.modality,
            body_part=header.body_part,
            view=header.view_position,
            series_description=_description(dataset, SERIES_DESCRIPTION),
            study_description=_description(dataset, STUDY_DESCRIPTION),
            calling_ae=calling_ae,
            called_ae=called_ae,
        ),
    )


def _read_source(stream: BinaryIO) -> Source:
    try:
        return read_source(stream, also=_ALSO)
    except InputError as error:
        if error.code != "not-an-image":
            raise
        raise InputError(error.code, "the file is not DICOM, and a node takes nothing else") from error


def _uid(dataset: DataSet, tag: Tag, name: str) -> str:
    text = dataset.text(tag)
    if len(text) > _UID_LENGTH or not _UID.fullmatch(text):
        raise InputError(
            "broken-dicom", f"the object has no {name} that is a UID; have its sender export it again"
        )
    return text


def _expected(dataset: DataSet) -> int | None:
    text = _value(dataset, SERIES_INSTANCES).decode("ascii", "replace").strip(" \0")
    number = int(text) if re.fullmatch(r"\+?[0-9]{1,12}", text) else 0
    return number if 0 < number <= MAX_INSTANCES else None


def _description(dataset: DataSet, tag: int) -> str:
    return _decode(dataset, _value(dataset, tag))[:MAX_DESCRIPTION]


def _decode(dataset: DataSet, value: bytes) -> str:
    """A text in its own character set; in UTF-8 or Latin-1 where the object names none or a wrong one."""
    terms = _value(dataset, CHARACTER_SET).decode("ascii", "replace").split("\\")
    known = [term.strip(" \0") for term in terms]
    named = [python_encoding[term] for term in known if term and term in python_encoding]
    if b"\x1b" in value:
        named.reverse()  # the first is the one before any escape sequence
    for codec in [*named, "utf-8"]:
        try:
            return _ESCAPE.sub("", value.decode(codec)).strip(" \0")
        except UnicodeError:
            continue
    return value.decode("latin-1").strip(" \0")


def _value(dataset: DataSet, tag: int) -> bytes:
    element = dataset.elements.get(tag)
    return b"" if element is None else element.value
