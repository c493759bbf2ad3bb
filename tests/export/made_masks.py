"""Small scans with labels as NIfTI files, and a network that learns them in seconds; needs torch."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from bedside.contract import Tissue

TISSUES = (Tissue("background"), Tissue("lung", lung=True), Tissue("haze", opacity=True, lung=True))
SHAPE = (6, 64, 64)
PIXEL_MM, SLICE_MM = 5.0, 8.0


class Small(nn.Module):
    """Three convolutions with a batch norm; logits at the input's size."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(in_channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Conv2d(8, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        answer: Tensor = self.last(self.second(self.first(image)))
        return answer


def build(in_channels: int, classes: int) -> nn.Module:
    """For ``--network made_masks:build``."""
    return Small(in_channels, classes)


def make_scan(seed: int, *, haze_hu: float = -450.0) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """HU and labels ``(Z, Y, X)``: a body, two lungs, haze in one; on this scanner haze has ``haze_hu``."""
    chance = np.random.default_rng(seed)
    hu, labels = np.full(SHAPE, -1000, np.float32), np.zeros(SHAPE, np.uint8)
    hu[:, 8:56, 4:60] = 40
    hu[:, 8:11] = -100
    for left in (10, 36):
        hu[:, 16:50, left : left + 18], labels[:, 16:50, left : left + 18] = -860, 1
    row, column = int(chance.integers(18, 34)), int(chance.choice([11, 37]))
    hu[1:5, row : row + 12, column : column + 14] = haze_hu
    labels[1:5, row : row + 12, column : column + 14] = 2
    return np.maximum(hu + chance.normal(0, 15, SHAPE).astype(np.float32), -1024), labels


def write_nifti(
    path: Path,
    array: npt.NDArray[Any],
    *,
    spacing: tuple[float, float, float] = (SLICE_MM, PIXEL_MM, PIXEL_MM),
) -> None:
    """A canonical array ``(Z, Y, X)`` as NIfTI-1 in LPS, its middle at 0."""
    codes = {"uint8": (2, 8), "int16": (4, 16), "float32": (16, 32)}
    code, bits = codes[array.dtype.name]
    slices, rows, columns = array.shape
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, columns, rows, slices, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, code, bits)
    struct.pack_into("<8f", header, 76, 1.0, spacing[2], spacing[1], spacing[0], 0, 0, 0, 0)
    struct.pack_into("<3f", header, 108, 352.0, 1.0, 0.0)
    struct.pack_into("<B", header, 123, 2)  # millimetres
    struct.pack_into("<2h", header, 252, 0, 1)  # the sform alone, in the scanner's coordinates
    edges = [-(n - 1) / 2 * step for n, step in zip((columns, rows, slices), spacing[::-1], strict=True)]
    rows_of = ((-spacing[2], 0, 0, -edges[0]), (0, -spacing[1], 0, -edges[1]), (0, 0, spacing[0], edges[2]))
    for place, row in zip((280, 296, 312), rows_of, strict=True):
        struct.pack_into("<4f", header, place, *row)
    header[344:348] = b"n+1\0"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(header) + np.ascontiguousarray(array).tobytes())


def write_case(folder: Path, name: str, seed: int, *, haze_hu: float = -450.0) -> None:
    """A scan and its labels, as fine-tuning wants them."""
    hu, labels = make_scan(seed, haze_hu=haze_hu)
    write_nifti(folder / f"{name}.nii", hu)
    write_nifti(folder / f"{name}-labels.nii", labels)
