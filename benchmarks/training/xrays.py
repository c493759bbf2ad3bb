"""X-rays as the DenseNet of the comparison sees them, and what is known of them in torchxrayvision's terms.

Of the eighteen outputs four are learnt: Lung Opacity, so that head v1 of Cohen et al. 2020 gives the experts' extent;
Pneumonia, by the finding; Consolidation and Infiltration (here: ground glass), by the masks. The zones of the Brixia
score and the boxes of the lungs are learnt beside them, by layers that are thrown away: few pictures have a score, and
a network that starts from chance needs to be told more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from pictures import COUNT, choose_images
from PIL import Image
from torch import Tensor

from bedside.cxr import preprocess
from bedside.radiograph import Header, Radiograph
from bedside_export.models import load_classifier
from bedside_export.recipes.cxr.augment import Distortion, distort_exposure, distorted_grid, flip_zones
from bedside_export.recipes.cxr.data import (
    NEAR_DUPLICATE,
    ZONE_MAXIMUM,
    Collection,
    Picture,
    Split,
    read_collection,
    read_table,
    read_thumbnails,
)
from bedside_export.recipes.cxr.learnt import derive_severity
from bedside_export.recipes.cxr.network import sampling_grid
from bedside_export.severity import input_rule

__all__ = ["LABELS", "Batch", "Xrays", "read_xrays"]

LABELS: Final = ("Pneumonia", "Consolidation", "Infiltration")
"""Outputs learnt as yes or no, by torchxrayvision's names."""
HEALTHY: Final = "No Finding"
UNTOLD: Final = ("", "todo", "Unknown", "ARDS", "Lipoid")
"""Findings of metadata.csv that say neither yes nor no of an infectious pneumonia."""
_MARGIN: Final = 256
"""Side that pictures are kept at: a little over the network's 224, since distortion resamples them."""
_CELLS: Final = 28
"""Side of the lungs' map before it is averaged to the features' 7."""
_WHOLE: Final = (0.0, 0.0, 1.0, 1.0)
"""The box that is the whole picture."""
_HOW: Final = Distortion(shift=0.03, scale=0.08, rotation=0.1, gamma=0.25, contrast=0.15, brightness=0.05)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a step learns from; what is not known is NaN."""

    pictures: Tensor
    """``(N, 1, 224, 224)`` in -1024 to 1024."""
    extent: Tensor
    """``(N,)`` 0 to 8."""
    labels: Tensor
    """``(N, 3)`` 0 or 1, `LABELS`."""
    zones: Tensor
    """``(N, 6)`` 0 to 1, `bedside_export.recipes.cxr.data.ZONES`."""
    lungs: Tensor
    """``(N, 7, 7)`` share of each cell inside a lung's box."""


@dataclass(frozen=True, slots=True)
class Xrays:
    """Pictures and what is known of them."""

    squares: Tensor
    """``(P, 1, 256, 256)`` uint8, the picture's middle square."""
    inputs: Tensor
    """``(P, 1, 224, 224)`` float32, as in use."""
    extent: Tensor
    """``(P,)``; NaN where there is no score."""
    labels: Tensor
    """``(P, 3)``."""
    zones: Tensor
    """``(P, 6)``."""
    lungs: Tensor
    """``(P, 28, 28)``."""

    def take(self, rows: Tensor) -> Xrays:
        """Some of the pictures."""
        kept = (self.squares, self.inputs, self.extent, self.labels, self.zones, self.lungs)
        return Xrays(*(each[rows] for each in kept))

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        """Distorted pictures, half of them mirrored; those with a score come twice as often."""
        weights = 1.0 + (~self.extent.isnan()).float()
        rows = torch.multinomial(weights, count, replacement=False, generator=generator)
        flip = torch.rand(count, generator=generator) < 0.5
        box = torch.tensor(_WHOLE).expand(count, 4)
        state = generator.get_state()
        grid = distorted_grid(sampling_grid(self.inputs.shape[-1]), box, flip, _HOW, generator)
        grey = F.grid_sample(self.squares[rows].float() / 255, grid, align_corners=False)
        grey = distort_exposure(grey, _HOW, generator).clamp(0, 1)
        again = torch.Generator()
        again.set_state(state)  # the same distortion
        cells = distorted_grid(sampling_grid(_CELLS), box, flip, _HOW, again)
        lungs = F.grid_sample(self.lungs[rows][:, None], cells, align_corners=False)
        zones = self.zones[rows]
        return Batch(
            grey * 2048 - 1024,
            self.extent[rows],
            self.labels[rows],
            torch.where(flip[:, None], flip_zones(zones), zones),
            F.avg_pool2d(lungs, _CELLS // 7)[:, 0],
        )


def read_xrays(data: Path) -> tuple[Xrays, Xrays]:
    """Pictures to learn from, and those of patients that `benchmarks/cxr.py` scores, to measure on.

    Args:
        data: The folder that holds ``cxr/``.

    Raises:
        DataError: A table or a picture is missing.
    """
    collection = read_collection(data)
    split = split_patients(collection)
    lines = derive_severity(list(split.training))
    everything = _prepare(collection, lines[0])
    where = {picture.name: row for row, picture in enumerate(collection.pictures)}

    def rows(pictures: tuple[Picture, ...]) -> Tensor:
        return torch.tensor([where[picture.name] for picture in pictures])

    return everything.take(rows(split.training)), everything.take(rows(split.held_out))


def split_patients(collection: Collection) -> Split:
    """Hold out the patients of the pictures that the comparison scores, and whatever nearly equals one of theirs."""
    chosen = {path.name for path in choose_images(collection.root / "images", COUNT)}
    patients = {p.patient for p in collection.pictures if p.name in chosen and p.patient}
    held_out = tuple(p for p in collection.pictures if p.name in chosen or p.patient in patients)
    rest = [p for p in collection.pictures if p not in held_out]
    thumbnails = read_thumbnails(collection)
    theirs = np.stack([thumbnails[p.name] for p in held_out])
    likeness = np.stack([thumbnails[p.name] for p in rest]) @ theirs.T  # (rest, held out)
    training = tuple(p for p, row in zip(rest, likeness, strict=True) if row.max() < NEAR_DUPLICATE)
    split = Split(0, training, held_out)
    split.check(training)
    return split


def _prepare(collection: Collection, line: tuple[float, float]) -> Xrays:
    """Every picture; extent is the experts', else what their Brixia score gives by a line."""
    rule = input_rule(load_classifier("random:0"))
    findings = {
        row["image"]: row["finding"]
        for row in read_table(collection.root / "metadata.csv", ("image", "finding"))
    }
    boxes = _read_boxes(collection)
    missing = float("nan")
    squares, inputs, extent, labels, zones = [], [], [], [], []
    for picture in collection.pictures:
        grey = collection.grey(picture)
        inputs.append(preprocess(Radiograph(grey, Header("JPEG")), rule)[0])
        squares.append(_square(grey))
        known = missing if picture.brixia is None else line[0] * picture.brixia + line[1]
        extent.append(known if picture.severity is None else picture.severity[0])
        finding = findings.get(picture.name, "")
        pneumonia = missing if finding in UNTOLD else float(finding != HEALTHY)
        labels.append([pneumonia, *_read_masks(collection, picture)])
        zones.append([missing] * 6 if picture.zones is None else [z / ZONE_MAXIMUM for z in picture.zones])
    unknown = np.full((_CELLS, _CELLS), np.nan, np.float32)
    return Xrays(
        torch.from_numpy(np.stack(squares))[:, None],
        torch.from_numpy(np.stack(inputs)),
        torch.tensor(extent).clamp(0, 8),
        torch.tensor(labels),
        torch.tensor(zones),
        torch.from_numpy(np.stack([boxes.get(p.name, unknown) for p in collection.pictures])),
    )


def _square(grey: np.ndarray) -> np.ndarray:
    """The middle square ``(256, 256)`` uint8 of a picture ``(H, W)`` of 0 to 1."""
    side = min(grey.shape)
    top, left = (size // 2 - side // 2 for size in grey.shape)
    middle = Image.fromarray((grey[top : top + side, left : left + side] * 255).round().astype(np.uint8))
    return np.asarray(middle.resize((_MARGIN, _MARGIN), Image.Resampling.BOX))


def _read_masks(collection: Collection, picture: Picture) -> tuple[float, float]:
    """Whether consolidation and ground glass were drawn; NaN where nobody drew."""
    stem, folder = Path(picture.name).stem, collection.root / "masks"
    if not (folder / f"{stem}-lung.png").is_file():
        return float("nan"), float("nan")
    kinds = (folder / f"{stem}-{kind}.png" for kind in ("consolidation", "ggo"))
    first, second = (float(path.is_file()) for path in kinds)
    return first, second


def _read_boxes(collection: Collection) -> dict[str, np.ndarray]:
    """Share of each cell ``(28, 28)`` of the middle square that is inside a lung's box, by picture."""
    columns = ("image", "x", "y", "width", "height", "image_width", "image_height")
    boxes: dict[str, np.ndarray] = {}
    for row in read_table(collection.root / "lung_boxes.csv", columns):
        x, y, w, h, width, height = (float(row[column]) for column in columns[1:])
        side = min(width, height)
        left, top = x - (width - side) / 2, y - (height - side) / 2
        edges = np.arange(_CELLS + 1) * side / _CELLS
        across = np.clip(np.minimum(edges[1:], left + w) - np.maximum(edges[:-1], left), 0, None)
        down = np.clip(np.minimum(edges[1:], top + h) - np.maximum(edges[:-1], top), 0, None)
        cells = (np.outer(down, across) / (side / _CELLS) ** 2).astype(np.float32)
        boxes[row["image"]] = np.maximum(boxes.get(row["image"], np.float32(0)), cells)
    return boxes
