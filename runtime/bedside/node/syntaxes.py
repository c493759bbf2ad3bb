"""What the receiver takes: kinds of objects, and how they may be encoded. Not for clinical use."""

from __future__ import annotations

from typing import Final

__all__ = ["SOP_CLASSES", "TRANSFER_SYNTAXES", "VERIFICATION"]

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
_SYNTAX: Final = "1.2.840.10008.1.2"
_LITTLE: Final = (_SYNTAX + ".1", _SYNTAX, _SYNTAX + ".1.99", _SYNTAX + ".2")
_COMPRESSED: Final = {
    "": (".5", ".4.50", ".4.90", ".4.91"),
    "codecs": (".4.70", ".4.57", ".4.80", ".4.81", ".4.51", ".4.53", ".4.55"),
}


def _list(extra: str) -> tuple[str, ...]:
    return tuple(_SYNTAX + end for end in _COMPRESSED[extra])


TRANSFER_SYNTAXES: Final = (*_LITTLE, *_list(""), *_list("codecs"))
"""All that `bedside.dicom` reads, the plain ones first: of what a sender offers, the first of these is taken."""
