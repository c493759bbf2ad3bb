"""Writing small DICOM files for tests, right and wrong alike."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

__all__ = ["make_dataset", "make_lut", "write_dataset", "write_pixels"]

DX_FOR_PRESENTATION: Final = "1.2.840.10008.5.1.4.1.1.1.1"


def make_lut(
    first: int, entries: list[int], bits: int, *, data: bytes | None = None, first_vr: str = "US"
) -> Dataset:
    """An item of a LUT sequence; ``data`` in place of the entries as 16-bit words."""
    item = Dataset()
    item.add_new(0x00283002, first_vr, [len(entries) & 0xFFFF, first, bits])
    if data is None and len(entries) < 1 << 15:
        item.add_new(0x00283006, "US", entries)
    else:  # a 16-bit length can't hold more, so the words go as OW
        item.add_new(0x00283006, "OW", np.array(entries, "<u2").tobytes() if data is None else data)
    return item


def make_dataset(rows: int = 1, columns: int = 1, **header: object) -> Dataset:
    """A DX picture without pixel data; ``header`` by keyword, None to leave an attribute out."""
    dataset = Dataset()
    dataset.SOPClassUID = DX_FOR_PRESENTATION
    dataset.SOPInstanceUID = "1.2.3.4"
    attributes: dict[str, object] = {
        "Modality": "DX",
        "Rows": rows,
        "Columns": columns,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        **header,
    }
    for keyword, value in attributes.items():
        if value is None:
            continue
        if keyword in {"PixelPaddingValue", "PixelPaddingRangeLimit"}:
            tag = 0x00280120 if keyword == "PixelPaddingValue" else 0x00280121
            dataset.add_new(tag, "SS" if attributes["PixelRepresentation"] else "US", value)
        elif keyword.endswith("Sequence"):
            setattr(dataset, keyword, Sequence(copy.deepcopy(cast("list[Dataset]", value))))
        else:
            setattr(dataset, keyword, value)
    return dataset


def write_dataset(
    path: Path, dataset: Dataset, syntax: str = ExplicitVRLittleEndian, frame: bytes | None = None
) -> Path:
    """Write a data set as a file; ``frame`` becomes its encapsulated pixel data."""
    if frame is not None:
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta = meta
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_pixels(
    path: Path, pixels: npt.NDArray[Any], syntax: str = ExplicitVRLittleEndian, **header: object
) -> Path:
    """Write ``pixels`` uncompressed: ``(H, W)``, or ``(H, W, 3)``; attributes by keyword."""
    dataset = make_dataset(pixels.shape[0], pixels.shape[1], **header)
    kind = f"{'>' if syntax == ExplicitVRBigEndian else '<'}u{dataset.BitsAllocated // 8}"
    data = (pixels.astype(np.int64) & ((1 << dataset.BitsAllocated) - 1)).astype(kind).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if dataset.BitsAllocated == 8 else "OW"
    if syntax == ExplicitVRBigEndian:
        _swap_lut_words(dataset)
    return write_dataset(path, dataset, syntax)


def _swap_lut_words(dataset: Dataset) -> None:
    """Words are written as they are by pydicom: put those of LUTs in big-endian order."""
    for keyword in ("ModalityLUTSequence", "VOILUTSequence", "PresentationLUTSequence"):
        for item in dataset.get(keyword, ()):
            if item[0x00283006].VR == "OW":
                item[0x00283006].value = np.frombuffer(item[0x00283006].value, "<u2").astype(">u2").tobytes()
