"""Functional groups of many frames, encoded as they are made.

A segmentation has a thousand frames, and each has half a dozen nested items. As data sets they take longer to make and
to write than the pixels, and pydicom looks through all of them again; so what frames share is encoded once, and
the rest is joined to it as bytes.
"""

from __future__ import annotations

import struct

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

__all__ = ["encode_item", "encode_sequence", "frame_content", "segment_identification"]


def encode_item(item: Dataset) -> bytes:
    """The elements of a data set, explicit VR little endian."""
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_dataset(stream, item)
    data: bytes = stream.getvalue()
    return data


def encode_sequence(tag: int, *items: bytes) -> bytes:
    """A sequence of encoded items, with its header; all lengths are given (PS3.5, 7.5)."""
    body = b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(item)) + item for item in items)
    return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, b"SQ", 0, len(body)) + body


def frame_content(*indices: int) -> bytes:
    """Frame Content Sequence (0020,9111) with Dimension Index Values (0020,9157)."""
    values = struct.pack("<HH2sH", 0x0020, 0x9157, b"UL", 4 * len(indices))
    return encode_sequence(0x00209111, values + struct.pack(f"<{len(indices)}L", *indices))


def segment_identification(number: int) -> bytes:
    """Segment Identification Sequence (0062,000A) with Referenced Segment Number (0062,000B)."""
    return encode_sequence(0x0062000A, struct.pack("<HH2sHH", 0x0062, 0x000B, b"US", 2, number))
