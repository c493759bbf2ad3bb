"""What is done to the slices of a series before it is read: dropped, doubled, darkened, moved or mixed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicom_series import AXIAL, Edit, put_hu, scan

__all__ = [
    "add_phase",
    "add_plane",
    "add_screen",
    "crop_one",
    "darken",
    "double",
    "drop",
    "interleave",
    "keep",
    "repeat",
    "rescale_half",
    "set_header",
    "shake",
    "shift_half",
]


def set_header(indices: Sequence[int] | slice | None = None, **header: object) -> Edit:
    """Set attributes of some slices, or of all; None takes them away."""

    def edit(slices: list[Dataset]) -> list[Dataset]:
        chosen = (
            slices
            if indices is None
            else (slices[indices] if isinstance(indices, slice) else [slices[index] for index in indices])
        )
        for dataset in chosen:
            for keyword, value in header.items():
                if value is None:
                    delattr(dataset, keyword)
                else:
                    setattr(dataset, keyword, value)
        return slices

    return edit


def drop(*indices: int) -> Edit:
    return lambda slices: [dataset for index, dataset in enumerate(slices) if index not in indices]


def keep(choose: Callable[[int], bool]) -> Edit:
    return lambda slices: [dataset for index, dataset in enumerate(slices) if choose(index)]


def repeat(*indices: int, change: Callable[[Dataset], None] = lambda _: None) -> Edit:
    """Add copies of slices, with instance UIDs of their own."""

    def edit(slices: list[Dataset]) -> list[Dataset]:
        copies = [copy.deepcopy(slices[index]) for index in indices]
        for number, dataset in enumerate(copies):
            dataset.SOPInstanceUID = UID(f"1.2.3.8.{number}")
            change(dataset)
        return [*slices, *copies]

    return edit


def darken(dataset: Dataset) -> None:
    """Other pixels: everything 100 HU lower."""
    dataset.PixelData = (np.frombuffer(dataset.PixelData, "<i2") - 100).astype("<i2").tobytes()


def double(dataset: Dataset) -> None:
    """The same HU in steps of half a unit."""
    dataset.RescaleSlope = 0.5
    dataset.PixelData = (np.frombuffer(dataset.PixelData, "<i2") * 2).astype("<i2").tobytes()


def second_breath(dataset: Dataset) -> None:
    darken(dataset)
    dataset.AcquisitionNumber = 2


def add_plane(count: int, cosines: Sequence[float], **header: object) -> Edit:
    """Add pictures in another plane."""

    def edit(slices: list[Dataset]) -> list[Dataset]:
        added = [copy.deepcopy(slices[index]) for index in range(count)]
        for number, dataset in enumerate(added):
            dataset.SOPInstanceUID = UID(f"1.2.3.7.{number}")
            dataset.ImageOrientationPatient = list(cosines)
            for keyword, value in header.items():
                setattr(dataset, keyword, value)
        return [*added, *slices]

    return edit


def shake(offset_mm: float) -> Edit:
    """Say of each slice that it lies a little higher or lower than it does."""

    def edit(slices: list[Dataset]) -> list[Dataset]:
        for index, dataset in enumerate(slices):
            x, y, z = dataset.ImagePositionPatient
            dataset.ImagePositionPatient = [x, y, z + offset_mm * (-1) ** index]
        return slices

    return edit


def rescale_half(slices: list[Dataset]) -> list[Dataset]:
    """Store every second slice by another slope and intercept."""
    for index in range(1, len(slices), 2):
        slices[index].RescaleSlope = 0.5
        slices[index].RescaleIntercept = -2000
        put_hu(slices[index], scan(AXIAL)[index])
    return slices


def crop_one(slices: list[Dataset]) -> list[Dataset]:
    slices[10].Rows //= 2
    slices[10].PixelData = slices[10].PixelData[: len(slices[10].PixelData) // 2]
    return slices


def add_screen(slices: list[Dataset]) -> list[Dataset]:
    """A picture of another size without any place: a dose report, say."""
    screen = copy.deepcopy(slices[0])
    screen.SOPInstanceUID = UID("1.2.3.6")
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(screen, keyword)
    screen.Rows //= 2
    screen.PixelData = screen.PixelData[: len(screen.PixelData) // 2]
    return [screen, *slices]


def shift_half(slices: list[Dataset]) -> list[Dataset]:
    for dataset in slices[: len(slices) // 2]:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x + 20, y, z]
    return slices


def add_phase(slices: list[Dataset]) -> list[Dataset]:
    """A second acquisition of all slices."""
    return repeat(*range(len(slices)), change=second_breath)(slices)


def interleave(slices: list[Dataset], offset_mm: float) -> list[Dataset]:
    """A second acquisition of all slices, a little higher."""

    def lift(dataset: Dataset) -> None:
        dataset.AcquisitionNumber = 2
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, z + offset_mm]

    return repeat(*range(len(slices)), change=lift)(slices)
