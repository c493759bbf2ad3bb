"""A tiny, valid ct-opacity bundle, made without torch and onnx: the ONNX file is encoded by hand.

    make_ct_bundle     writes one into a folder; keywords replace what the manifest says
    ThresholdNetwork   its graph, and the same arithmetic in numpy, which the golden outputs come from

The network smooths a slice a little and sorts HU into tissues, so on a scan it finds lungs, something like opacity at
every edge of them, and no patient's disease. Air outside of the body is background.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bedside.chest import chest_phantom
from tiny_bundle import (
    GOLDEN_INPUTS,
    GOLDEN_OUTPUTS,
    MODEL,
    _attribute_ints,
    _bytes,
    _node,
    _tensor,
    _value,
    _varint_field,
    seal,
)

Floats = npt.NDArray[np.float32]

WINDOW = (-1000.0, 0.0)
"""HU are clipped to this and mapped to 0 to 1."""
TISSUES: tuple[dict[str, Any], ...] = (
    {"name": "background"},
    {"name": "lung", "lung": True},
    {"name": "ground glass", "lung": True, "opacity": True},
    {"name": "crazy paving", "lung": True, "opacity": True},
    {"name": "consolidation", "lung": True, "opacity": True},
)
CENTRES_HU = (0.0, -870.0, -600.0, -450.0, -350.0)
"""Each voxel goes to the tissue whose HU is nearest."""
AIR_BELOW_HU = -950.0
"""Darker voxels are background too."""
TILE = 64
"""Side of the tile that the manifest names."""


@dataclass(frozen=True, slots=True)
class ThresholdNetwork:
    """``slice`` (N, C, H, W) -> ``tissues`` (N, 5, H, W): a 3x3 convolution, ReLU, a 1x1 convolution, softmax."""

    context: int = 0
    """Neighbouring slices to each side; they weigh little."""
    sharpness: float = 200.0
    """How sure it is."""
    fixed: int | None = None
    """Height and width of its input; None for any."""

    @property
    def channels(self) -> int:
        """Slices of the input."""
        return 2 * self.context + 1

    def parameters(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Weight ``(2, C, 3, 3)`` and bias of the first convolution, weight ``(5, 2, 1, 1)`` and bias of the second."""
        kernel = np.full((3, 3), 0.05)
        kernel[1, 1] = 0.6
        slices = np.full(self.channels, 0.1)
        slices[self.context] = 1 - 0.2 * self.context
        smooth = slices[:, None, None] * kernel
        centres = (np.array(CENTRES_HU) - WINDOW[0]) / (WINDOW[1] - WINDOW[0])
        air = (AIR_BELOW_HU - WINDOW[0]) / (WINDOW[1] - WINDOW[0])
        first = np.stack([smooth, -smooth])
        second = np.stack([centres * self.sharpness, np.eye(len(centres))[0] * 20 * self.sharpness], axis=1)
        floats = (first, np.array([0.0, air]), second[:, :, None, None], -(centres**2) / 2 * self.sharpness)
        one, two, three, four = (np.asarray(each, np.float32) for each in floats)
        return one, two, three, four

    def run(self, image: Floats) -> dict[str, Floats]:
        """What the graph answers on ``(N, C, H, W)``, computed in numpy."""
        weight, bias, mix, offset = (each.astype(np.float64) for each in self.parameters())
        padded = np.pad(image.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        hidden = np.maximum(np.einsum("nchwij,ocij->nohw", windows, weight) + bias[:, None, None], 0)
        logits = np.einsum("nohw,ko->nkhw", hidden, mix[:, :, 0, 0]) + offset[:, None, None]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return {"tissues": (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)}

    def encode(self) -> bytes:
        """The graph as an ONNX file."""
        names = ("weight", "bias", "mix", "offset")
        pads = [_attribute_ints("pads", (1, 1, 1, 1)), _attribute_ints("kernel_shape", (3, 3))]
        axis = _bytes(1, b"axis") + _varint_field(3, 1) + _varint_field(20, 2)  # attribute type 2: INT
        nodes = [
            _node("Conv", ["slice", "weight", "bias"], "smooth", pads),
            _node("Relu", ["smooth"], "hidden"),
            _node("Conv", ["hidden", "mix", "offset"], "logits", [_attribute_ints("kernel_shape", (1, 1))]),
            _node("Softmax", ["logits"], "tissues", [axis]),
        ]
        rows, columns = ("H", "W") if self.fixed is None else (self.fixed, self.fixed)
        graph = [_bytes(1, node) for node in nodes]
        graph.append(_bytes(2, b"tiny"))
        graph += [
            _bytes(5, _tensor(name, values.astype(np.float64)))
            for name, values in zip(names, self.parameters(), strict=True)
        ]
        graph.append(_bytes(11, _value("slice", ("N", self.channels, rows, columns))))
        graph.append(_bytes(12, _value("tissues", ("N", len(CENTRES_HU), rows, columns))))
        opset = _bytes(1, b"") + _varint_field(2, 18)
        return _varint_field(1, 8) + _bytes(7, b"".join(graph)) + _bytes(8, opset)


def make_ct_bundle(
    folder: Path,
    *,
    network: ThresholdNetwork | None = None,
    golden: dict[str, npt.NDArray[Any]] | None = None,
    tiling: dict[str, Any] | None = None,
    **overrides: object,
) -> Path:
    """Write a bundle into ``folder``, which is made if it is not there.

    Args:
        folder: Where.
        network: Its graph.
        golden: Golden outputs ``labels`` and ``expected``; None for what the network answers.
        tiling: Keys of ``tiling`` that replace the usual ones.
        overrides: Top-level keys of ``bundle.json`` that replace the usual ones.

    Returns:
        ``folder``.
    """
    network = network or ThresholdNetwork()
    folder.mkdir(parents=True, exist_ok=True)
    images = golden_slices(network)
    (folder / MODEL).write_bytes(network.encode())
    np.save(folder / GOLDEN_INPUTS, images)
    np.savez_compressed(folder / GOLDEN_OUTPUTS, **(golden_answers(network) if golden is None else golden))  # type: ignore[arg-type]
    (folder / "LICENSE").write_text("For tests only.\n", encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text(
        "# tiny\n\nMade by a test. Not for clinical use.\n", encoding="utf-8"
    )
    (folder / "parity.json").write_text("{}\n", encoding="utf-8")
    manifest = ct_manifest_of(network)
    manifest["tiling"] |= tiling or {}
    return seal(folder, manifest | overrides)


def golden_slices(network: ThresholdNetwork) -> Floats:
    """``(3, C, TILE, TILE)`` float32: cuts through the phantom of a severe case, on the network's scale."""
    mm = 5.0
    affine = np.diag([mm, mm, mm, 1.0])[[2, 1, 0, 3]]  # (z, y, x) -> (x, y, z)
    affine[:3, 3] = -TILE / 2 * mm, -TILE / 2 * mm, -40.0
    hu = chest_phantom("severe").phantom.hu((network.channels + 2, TILE, TILE), affine)
    low, high = WINDOW
    scaled = (np.clip(hu, low, high) - low) / (high - low)
    return np.stack([scaled[start : start + network.channels] for start in range(3)]).astype(np.float32)


def golden_answers(network: ThresholdNetwork) -> dict[str, npt.NDArray[Any]]:
    """What the network answers on its golden slices, as the bundle stores it."""
    answers = network.run(golden_slices(network))["tissues"]
    return {
        "labels": answers.argmax(axis=1).astype(np.uint8),
        "expected": answers.sum(axis=(2, 3), dtype=np.float64),
    }


def ct_manifest_of(network: ThresholdNetwork) -> dict[str, Any]:
    """``bundle.json`` for a network, without ``files``."""
    return {
        "schema": "bedside.bundle/1",
        "name": "tiny-ct",
        "version": "1.0.0",
        "task": "ct-opacity",
        "title": "A network for tests: HU as tissue",
        "licence": {
            "spdx": "CC-BY-NC-SA-4.0",
            "file": "LICENSE",
            "commercial_use": False,
            "notice": "made by a test; as if its labels were non-commercial",
        },
        "model_card": "MODEL_CARD.md",
        "parity": "parity.json",
        "models": {"fp32": MODEL},
        "input": {
            "name": "slice",
            "shape": [None, network.channels, network.fixed, network.fixed],
            "low": 0.0,
            "high": 1.0,
            "hu_window": list(WINDOW),
        },
        "outputs": [
            {"name": "tissues", "meaning": "tissues", "labels": [tissue["name"] for tissue in TISSUES]}
        ],
        "scores": [],
        "golden": {"inputs": GOLDEN_INPUTS, "outputs": GOLDEN_OUTPUTS, "source": "slices of the phantom"},
        "tolerances": {
            "fp32": {"dice_loss": 0.001, "volume_percent": 0.05},
            "bf16": {"dice_loss": 0.02, "volume_percent": 2.0},
        },
        "tiling": {
            "size": [network.fixed or TILE, network.fixed or TILE],
            "overlap": 0.25,
            "weights": "gaussian",
            "multiple": 1,
            "smallest": 8,
            "context": network.context,
            "skip": "constant",
        },
        "tissues": list(TISSUES),
    }
