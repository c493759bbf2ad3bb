"""Where experts drew opacity: their masks, and two heads that learn them in training alone.

Some pictures have masks of ground glass and of consolidation. How much of the lung they cover goes with geographic
extent as closely as a radiologist's Brixia score does, and they also say where. The heads see the features that
severity is read from, and those of twice the resolution before them; the finished network does without the heads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from PIL import Image
from torch import Tensor, nn

from bedside_export.recipes.cxr.data import Collection, DataError, Float
from bedside_export.recipes.cxr.network import MAP_SIZE, SeverityNetwork
from bedside_export.recipes.efficientnet_lite import HEAD

FINDINGS: Final = ("ggo", "consolidation")
"""Endings of the masks that count as opacity."""

MIDDLE: Final = 10
"""The last block of the feature extractor at a 16th of the crop's size."""

MIDDLE_WIDTH: Final = 112
"""Its channels."""

USUAL: Final = 0.18
"""Share of a crop that is opaque where nothing is known yet: the heads begin there."""

_SPACING: Final = 4
"""The masks are sampled at every so many pixels of the crop before they are averaged over cells."""


def read_opacity_masks(collection: Collection) -> dict[str, Float]:
    """Share of each cell ``(80, 80)`` that is ground glass or consolidation, by picture.

    Pictures with a mask of their lungs were searched for opacity: without one of `FINDINGS`, they have none.

    Raises:
        DataError: A mask isn't of its picture's size.
    """
    folder, masks = collection.root / "masks", {}
    for picture in collection.pictures:
        stem = Path(picture.name).stem
        if not (folder / f"{stem}-lung.png").is_file():
            continue
        found = np.zeros((MAP_SIZE, MAP_SIZE), dtype=np.float32)
        with Image.open(collection.root / "images" / picture.name) as shown:
            size = shown.size
        for path in (folder / f"{stem}-{finding}.png" for finding in FINDINGS):
            if path.is_file():
                with Image.open(path) as image:
                    found = np.maximum(found, _cells(image, size))
        masks[picture.name] = found
    return masks


def _cells(image: Image.Image, size: tuple[int, int]) -> Float:
    """A mask of a picture of ``size`` as the share of each cell ``(80, 80)`` of the input square."""
    if image.size != size:
        raise DataError("a mask in masks/ is not of its picture's size: draw it on the picture in images/")
    side = max(size)
    square = Image.new("L", (side, side))
    square.paste(image.convert("L"), ((side - size[0]) // 2, (side - size[1]) // 2))
    opaque = Image.fromarray((np.asarray(square) > 127).astype(np.float32))
    return np.asarray(opaque.resize((MAP_SIZE, MAP_SIZE), Image.Resampling.BOX), dtype=np.float32)


class OpacityHeads(nn.Module):
    """Opacity in cells of a 32nd and of a 16th of the crop, each linear in its features."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse = nn.Conv2d(HEAD, 1, 1)
        self.fine = nn.Conv2d(MIDDLE_WIDTH, 1, 1)
        for head in (self.coarse, self.fine):
            nn.init.normal_(head.weight, std=1e-3)
            nn.init.constant_(head.bias, float(np.log(USUAL / (1 - USUAL))))  # type: ignore[arg-type]

    def loss(self, features: tuple[Tensor, Tensor], truth: Tensor, known: Tensor) -> Tensor:
        """Cross-entropy of both heads, a scalar; pictures without masks count nothing.

        Args:
            features: ``(N, 112, 14, 14)`` and ``(N, 1280, 7, 7)``, by `features_of`.
            truth: ``(N, 1, 56, 56)`` opacity on the crop, 0 to 1, by `opacity_of`.
            known: ``(N,)``: 1 where the picture has masks, else 0.
        """
        total = torch.zeros(())
        for head, seen in zip((self.fine, self.coarse), features, strict=True):
            logits = head(seen)
            cells = F.adaptive_avg_pool2d(truth, logits.shape[-2:])
            loss = F.binary_cross_entropy_with_logits(logits, cells, reduction="none")
            total = total + (loss.mean((1, 2, 3)) * known).mean()
        return total


def opacity_of(masks: Tensor, grid: Tensor) -> Tensor:
    """The masks ``(N, 1, 80, 80)`` on the crop that ``grid`` ``(N, 224, 224, 2)`` samples, ``(N, 1, 56, 56)``."""
    return F.grid_sample(masks.clamp(min=0), grid[:, ::_SPACING, ::_SPACING], align_corners=False)


def features_of(network: SeverityNetwork, crop: Tensor, *, frozen: int, half: bool) -> tuple[Tensor, Tensor]:
    """Features of a crop, half-way and at the end.

    Args:
        network: Whose features.
        crop: ``(N, 3, 224, 224)``, by the network's `Colours`.
        frozen: Blocks from the stem on through which nothing is learnt.
        half: Those blocks in bfloat16.

    Returns:
        ``(N, 112, 14, 14)`` and ``(N, 1280, 7, 7)``, float32.
    """
    extractor = network.features
    x = crop.contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        x = extractor.blocks[:frozen](extractor.stem(x))
    middle = extractor.blocks[frozen : MIDDLE + 1](x.float())
    return middle, extractor.head(extractor.blocks[MIDDLE + 1 :](middle))
