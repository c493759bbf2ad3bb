"""A bundle's manifest and an engine that sees tissues by their HU, so that what it must answer is known exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bedside.backends.fake import FakeBackend
from bedside.contract import Golden, Input, Licence, Output, Stored, Tiling, Tissue
from bedside.manifest import SCHEMA, Manifest

TISSUES = (
    Tissue("background"),
    Tissue("left lung", lung=True, side="left"),
    Tissue("right lung", lung=True, side="right"),
    Tissue("ground glass", opacity=True, lung=True),
    Tissue("consolidation", opacity=True, lung=True),
)
HU_OF = np.array([40.0, -880.0, -780.0, -600.0, -350.0], np.float32)
"""HU that stand for each of `TISSUES`; air outside is background too."""
_EDGES = np.array([-940.0, -830.0, -690.0, -475.0, -155.0])
_BETWEEN = np.array([0, 1, 2, 3, 4, 0])


def make_manifest(tissues: tuple[Tissue, ...] = TISSUES, **changes: Any) -> Manifest:
    """A manifest of a 2-D network that takes any size."""
    stored = Stored(1, "0" * 64)
    names = tuple(tissue.name for tissue in tissues)
    manifest = Manifest(
        schema=SCHEMA,
        name="fake-ct",
        version="1.0.0",
        task="ct-opacity",
        title="tissues by their HU",
        licence=Licence("CC0-1.0", "LICENCE", commercial_use=True, notice="none"),
        model_card="card.md",
        parity="parity.json",
        models={"fp32": "model.onnx"},
        input=Input("image", (None, 1, None, None), -1.0, 1.0, hu_window=(-1000.0, 200.0)),
        outputs=(Output("tissues", "tissues", names),),
        scores=(),
        golden=Golden("in.npy", "out.npz", "none"),
        tolerances={"fp32": {"dice_loss": 0.001, "volume_percent": 0.05}},
        files=dict.fromkeys(("LICENCE", "card.md", "parity.json", "model.onnx", "in.npy", "out.npz"), stored),
        tiling=Tiling((64, 64), 0.25, "gaussian", multiple=8, smallest=16),
        tissues=tissues,
    )
    return replace(manifest, **changes)


def see(inputs: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, npt.NDArray[Any]]:
    """Answer with the tissue that each pixel's HU stands for; of several channels, the middle one's."""
    images = inputs["image"]
    image = images[:, images.shape[1] // 2]
    labels = _BETWEEN[np.searchsorted(_EDGES, (image + 1) / 2 * 1200 - 1000)]
    return {"tissues": np.ascontiguousarray(np.moveaxis(np.eye(5, dtype=np.float32)[labels], -1, 1))}


def make_engine() -> FakeBackend:
    """An engine that answers with `see`."""
    return FakeBackend(see)


def paint(labels: npt.NDArray[np.uint8], border: int = 4) -> npt.NDArray[np.float32]:
    """HU that `see` takes for these labels, with air around: ``(Z, Y, X)`` float32."""
    hu: npt.NDArray[np.float32] = HU_OF[labels]
    hu[:, :border] = hu[:, -border:] = -1000
    return hu
