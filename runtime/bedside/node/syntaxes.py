"""What the receiver takes: kinds of objects, and how they may be encoded. Not for clinical use."""

from __future__ import annotations

from typing import Final

from bedside.decoders import is_available
from bedside.dicom.pixels import PROCESSES, RLE
from bedside.dicom.source import DEFLATED_LITTLE, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE

__all__ = ["SOP_CLASSES", "VERIFICATION", "list_syntaxes"]

VERIFICATION: Final = "1.2.840.10008.1.1"
"""C-ECHO (PS3.4, A.4)."""
_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
SOP_CLASSES: Final = {
    _STORAGE + "1": "Computed Radiography Image Storage",
    _STORAGE + "1.1": "Digital X-Ray Image Storage - For Presentation",
    _STORAGE + "7": "Secondary Capture Image Storage",
    _STORAGE + "7.2": "Multi-frame Grayscale Byte Secondary Capture Image Storage",
    _STORAGE + "7.3": "Multi-frame Grayscale Word Secondary Capture Image Storage",
    _STORAGE + "2": "CT Image Storage",
    _STORAGE + "2.1": "Enhanced CT Image Storage",
    _STORAGE + "2.2": "Legacy Converted Enhanced CT Image Storage",
}
"""SOP Class UID -> name (PS3.4, B.5)."""
_ALWAYS: Final = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
"""Compressed syntaxes that a core install decodes, whatever is in them."""


def list_syntaxes() -> tuple[str, ...]:
    """Transfer syntaxes that `bedside.dicom` can decode here, the plain ones first.

    Of what a sender offers, the first of these is taken. Without the extra ``codecs`` a sender that could also send
    without compression does so, and one that could not is told that its objects are not taken.
    """
    compressed = tuple(PROCESSES) if is_available() else _ALWAYS
    return (EXPLICIT_LITTLE, IMPLICIT_LITTLE, DEFLATED_LITTLE, EXPLICIT_BIG, RLE, *compressed)
