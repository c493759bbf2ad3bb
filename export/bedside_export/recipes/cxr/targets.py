"""Pictures as the network sees them, and the lungs it should find in them.

Everything is in the coordinates of the input square: the picture centred on black, its longer side the
square's (`place`), resized with anti-aliasing.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bedside.bundle import Input
from bedside.cxr import preprocess
from bedside.radiograph import Header, Radiograph
from bedside_export.recipes.cxr.data import Collection, DataError, Float, Picture, read_table
from bedside_export.recipes.cxr.network import INPUT_SIZE, MAP_SIZE
from bedside_export.recipes.cxr.opacity import read_opacity_masks

INPUT: Final = Input("image", (None, 1, INPUT_SIZE, INPUT_SIZE), low=0.0, high=1.0, crop="pad-square")
"""The whole picture, padded with black to a square."""

MASK_ARCHIVE: Final = "semantic_masks_v7labs_lungs.zip"
"""Lung masks of covid-chestxray-dataset (V7 Labs), inside the torchxrayvision wheel."""

_SAME_ASPECT: Final = 0.02
"""Greatest difference in aspect ratio at which a mask counts as drawn on this picture."""


@dataclass(frozen=True, slots=True)
class Arrays:
    """What is learnt from, for all pictures of a collection, in its order."""

    names: tuple[str, ...]
    """File names, the order of the rows below."""
    squares: Tensor
    """``(P, 1, 320, 320)`` float32: input squares, 0 black to 1 white."""
    lungs: Tensor
    """``(P, 2, 80, 80)`` float32: share of each cell that is lung, and inside a lung's box; -1 unknown."""
    opacity: Tensor
    """``(P, 1, 80, 80)`` float32: share of each cell that experts drew as opaque; -1 unknown."""

    def rows(self, pictures: tuple[Picture, ...] | list[Picture]) -> Tensor:
        """The rows of ``pictures``, int64."""
        where = {name: i for i, name in enumerate(self.names)}
        return torch.tensor([where[p.name] for p in pictures], dtype=torch.long)


def place(grey: Float) -> Float:
    """Pads ``(H, W)`` with black to a centred square; of an odd rest, the extra pixel goes right or below."""
    height, width = grey.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return np.pad(grey, ((top, side - height - top), (left, side - width - left)))


def input_square(grey: Float) -> Float:
    """The network's input ``(320, 320)``, 0 to 1, of a grey picture ``(H, W)``, 0 to 1: as the runtime makes it."""
    square: Float = preprocess(Radiograph(grey, Header("JPEG")), INPUT)[0, 0]
    return square


def _small_mask(image: Image.Image) -> Float:
    """A mask of any size as the share of each cell ``(80, 80)``."""
    mask = (np.asarray(image.convert("L"), dtype=np.float32) > 127).astype(np.float32)
    out = Image.fromarray(place(mask)).resize((MAP_SIZE, MAP_SIZE), Image.Resampling.BOX)
    return np.asarray(out, dtype=np.float32)


def open_mask_archive(path: Path) -> zipfile.ZipFile:
    """The archive of lung masks, given as itself or as the torchxrayvision wheel that holds it.

    Raises:
        DataError: ``path`` holds no such archive.
    """
    if not path.is_file() or not zipfile.is_zipfile(path):
        raise DataError("--lung-masks wants the torchxrayvision wheel or " + MASK_ARCHIVE)
    archive = zipfile.ZipFile(path)
    inner = [n for n in archive.namelist() if n.endswith(MASK_ARCHIVE)]
    return zipfile.ZipFile(io.BytesIO(archive.read(inner[0]))) if inner else archive


def read_lung_masks(collection: Collection, archive: zipfile.ZipFile | None) -> dict[str, Float]:
    """Lung masks ``(80, 80)`` by picture: the data folder's own, else the archive's.

    A mask whose aspect ratio isn't the picture's was drawn on another crop and is left out.
    """
    rows = read_table(collection.root / "metadata.csv", ("image", "filename"))
    original = {r["image"]: r["filename"] for r in rows}
    inside = {Path(n).name: n for n in archive.namelist() if not n.endswith("/")} if archive else {}
    masks: dict[str, Float] = {}
    for picture in collection.pictures:
        own = collection.root / "masks" / f"{Path(picture.name).stem}-lung.png"
        name = original.get(picture.name, "")
        if own.is_file():
            image = Image.open(own)
        elif archive and name in inside:
            image = Image.open(io.BytesIO(archive.read(inside[name])))
        else:
            continue
        with Image.open(collection.root / "images" / picture.name) as shown, image:
            ratio = (image.width / image.height) / (shown.width / shown.height)
            if abs(ratio - 1) < _SAME_ASPECT:
                masks[picture.name] = _small_mask(image)
    return masks


def read_lung_boxes(collection: Collection) -> dict[str, Float]:
    """Cells ``(80, 80)`` inside the experts' box of either lung, by picture."""
    columns = ("image", "x", "y", "width", "height", "image_width", "image_height")
    boxes: dict[str, Float] = {}
    for row in read_table(collection.root / "lung_boxes.csv", columns):
        x, y, w, h, width, height = (float(row[c]) for c in columns[1:])
        side = max(width, height)
        left, top = (side - width) / 2 + x, (side - height) / 2 + y
        edges = np.arange(MAP_SIZE + 1) * side / MAP_SIZE
        across = np.clip(np.minimum(edges[1:], left + w) - np.maximum(edges[:-1], left), 0, None)
        down = np.clip(np.minimum(edges[1:], top + h) - np.maximum(edges[:-1], top), 0, None)
        cells = np.outer(down, across).astype(np.float32) / np.float32((side / MAP_SIZE) ** 2)
        boxes[row["image"]] = np.maximum(boxes.get(row["image"], np.float32(0)), cells)
    return boxes


def read_arrays(collection: Collection, lung_masks: Path | None) -> Arrays:
    """Reads, resizes and stacks everything; seconds for the whole collection.

    Args:
        collection: All pictures.
        lung_masks: The torchxrayvision wheel or its archive of masks; without it, the data folder's own only.
    """
    archive = open_mask_archive(lung_masks) if lung_masks else None
    masks, boxes = read_lung_masks(collection, archive), read_lung_boxes(collection)
    unknown = np.full((MAP_SIZE, MAP_SIZE), -1, dtype=np.float32)
    opaque = read_opacity_masks(collection)
    squares = np.stack([input_square(collection.grey(p)) for p in collection.pictures])
    lungs = np.stack(
        [np.stack([masks.get(p.name, unknown), boxes.get(p.name, unknown)]) for p in collection.pictures],
    )
    opacity = np.stack([opaque.get(p.name, unknown) for p in collection.pictures])
    return Arrays(
        tuple(p.name for p in collection.pictures),
        torch.from_numpy(squares).unsqueeze(1),
        torch.from_numpy(lungs),
        torch.from_numpy(opacity).unsqueeze(1),
    )
