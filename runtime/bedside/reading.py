"""One way in for every kind of file: the kind is told by the content, never by the name."""

from __future__ import annotations

import os

from bedside import dicom, images
from bedside.containers import find_format
from bedside.errors import InputError
from bedside.files import open_input
from bedside.images import load_decoders
from bedside.radiograph import Header, Radiograph

__all__ = ["load_decoders", "read_header", "read_radiograph"]

HEAD_BYTES = 256
"""Enough to tell the kind of a file: a DICOM file names itself after 128 bytes."""


def read_header(path: str | os.PathLike[str]) -> Header:
    """What a DICOM, PNG, JPEG or TIFF file says of itself; no pixel is decoded.

    Raises:
        InputError: The file can't be opened, is of no known kind, or its header is damaged.
        RefusedError: ``multi-frame`` or ``colour``, of a picture file.
    """
    return dicom.read_header(path) if _is_dicom(path) else images.read_picture_header(path)


def read_radiograph(path: str | os.PathLike[str]) -> Radiograph:
    """The one grey picture of a DICOM, PNG, JPEG or TIFF file, as it is meant to be seen.

    Raises:
        InputError: The file can't be read as a picture: any of its codes.
        RefusedError: ``multi-frame``, ``colour``.
        MissingExtraError: The decoder is in the ``codecs`` extra, which is not installed.
    """
    return dicom.read_radiograph(path) if _is_dicom(path) else images.read_picture(path)


def _is_dicom(path: str | os.PathLike[str]) -> bool:
    with open_input(path) as stream:
        head = stream.read(HEAD_BYTES)
    if dicom.is_dicom(head):
        return True
    if find_format(head):
        return False
    raise InputError("not-an-image", "the file is neither DICOM nor PNG, JPEG or TIFF; give one of these")
