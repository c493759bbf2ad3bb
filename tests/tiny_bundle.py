"""A tiny, valid cxr-severity bundle, made without the onnx package: the ONNX file is encoded by hand.

    make_bundle        writes one into a folder; keywords replace what the manifest says
    Network            its graph, and the same arithmetic in numpy, which the golden outputs come from
    read_manifest, write_manifest, seal, zip_bundle   to alter one, with or without right hashes

The network averages the picture in squares of 8 x 8 pixels to `features`; the activation map is a line
through each feature, and the severity is its mean, as a linear head over pooled features is.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

SIDE = 32
"""Height and width of the network's input."""
POOL = 8
"""Side of the squares that are averaged."""
LABELS = ("Lung Opacity", "Effusion", "Hernia")
"""Pathologies, the last of them untrained."""
TRAINED = (True, True, False)
APPEARANCES = ("frontal", "inverted", "other")
"""What a picture may look like to it."""
MODEL = "model.onnx"
GOLDEN_INPUTS = "golden-inputs.npy"
GOLDEN_OUTPUTS = "golden-outputs.npz"


@dataclass(frozen=True, slots=True)
class Network:
    """The graph. With the defaults, black gives 0 and white gives the top of either scale."""

    weight: tuple[float, float] = (4 / 1024, 3 / 1024)
    """Extent and opacity per unit of the input."""
    bias: tuple[float, float] = (4.0, 3.0)
    """Extent and opacity of a picture that is 0 on average."""
    pathologies: bool = True
    """Whether it has the output ``pathologies``, (N, 3): sigmoid of a line through the mean."""
    lungs: bool = False
    """Whether it has the output ``lungs``, (N, 1, 4, 4): sigmoid of the negated features."""
    appearance: bool = False
    """Whether it has the output ``appearance``, (N, 3): a bright picture is frontal, a dark one inverted."""
    ir_version: int = 8
    """ONNX IR version, which ONNX Runtime has read since 1.12."""
    opset: int = 18
    """Version of the standard operators."""

    pathology_weight = (1 / 256, -1 / 256, 0.0)
    pathology_bias = (0.5, -0.5, 0.0)
    lung_weight = -1 / 256
    appearance_weight = (1 / 128, -1 / 128, 0.0)
    appearance_bias = (0.0, 0.0, -2.0)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph's outputs."""
        further = {"pathologies": self.pathologies, "lungs": self.lungs, "appearance": self.appearance}
        return ("severity", "cam", *(name for name, there in further.items() if there))

    def run(self, image: Floats) -> dict[str, Floats]:
        """What the graph answers on ``(N, 1, SIDE, SIDE)``, computed in numpy."""
        grid = SIDE // POOL
        features = image.reshape(-1, 1, grid, POOL, grid, POOL).mean(axis=(3, 5), dtype=np.float64)
        cam = features * _column(self.weight) + _column(self.bias)  # (N, 2, grid, grid)
        mean = features.mean(axis=(2, 3))
        answers = {
            "severity": cam.mean(axis=(2, 3)),
            "cam": cam,
            "pathologies": _sigmoid(mean * np.array(self.pathology_weight) + np.array(self.pathology_bias)),
            "lungs": _sigmoid(features * self.lung_weight),
            "appearance": _sigmoid(mean * np.array(self.appearance_weight) + np.array(self.appearance_bias)),
        }
        return {name: answers[name].astype(np.float32) for name in self.outputs}

    def encode(self) -> bytes:
        """The graph as an ONNX file."""
        grid = SIDE // POOL
        pool = [_attribute_ints("kernel_shape", (POOL, POOL)), _attribute_ints("strides", (POOL, POOL))]
        nodes = [
            _node("AveragePool", ["image"], "features", pool),
            _node("Mul", ["features", "weight"], "weighted"),
            _node("Add", ["weighted", "bias"], "cam"),
            _node("GlobalAveragePool", ["cam"], "pooled"),
            _node("Flatten", ["pooled"], "severity"),
        ]
        constants = [_tensor("weight", _column(self.weight)), _tensor("bias", _column(self.bias))]
        outputs = [_value("severity", ("N", 2)), _value("cam", ("N", 2, grid, grid))]
        if self.pathologies or self.appearance:
            nodes += [_node("GlobalAveragePool", ["features"], "mean"), _node("Flatten", ["mean"], "flat")]
        for name, there, weight, bias in (
            ("pathologies", self.pathologies, self.pathology_weight, self.pathology_bias),
            ("appearance", self.appearance, self.appearance_weight, self.appearance_bias),
        ):
            if there:
                nodes += [
                    _node("Mul", ["flat", f"{name}_weight"], f"{name}_line"),
                    _node("Add", [f"{name}_line", f"{name}_bias"], f"{name}_logits"),
                    _node("Sigmoid", [f"{name}_logits"], name),
                ]
                constants += [
                    _tensor(f"{name}_weight", np.array([weight])),
                    _tensor(f"{name}_bias", np.array([bias])),
                ]
                outputs.append(_value(name, ("N", len(weight))))
        if self.lungs:
            nodes += [_node("Mul", ["features", "lung_weight"], "air"), _node("Sigmoid", ["air"], "lungs")]
            constants.append(_tensor("lung_weight", np.array(self.lung_weight)))
            outputs.append(_value("lungs", ("N", 1, grid, grid)))
        graph = [_bytes(1, node) for node in nodes]
        graph.append(_bytes(2, b"tiny"))
        graph += [_bytes(5, tensor) for tensor in constants]
        graph.append(_bytes(11, _value("image", ("N", 1, SIDE, SIDE))))
        graph += [_bytes(12, value) for value in outputs]
        opset = _bytes(1, b"") + _varint_field(2, self.opset)
        return _varint_field(1, self.ir_version) + _bytes(7, b"".join(graph)) + _bytes(8, opset)


def make_bundle(
    folder: Path,
    *,
    network: Network | None = None,
    golden: dict[str, Floats] | None = None,
    **overrides: object,
) -> Path:
    """Write a bundle into ``folder``, which is made if it is not there.

    Args:
        folder: Where.
        network: Its graph.
        golden: Golden outputs; None for what the network answers.
        overrides: Top-level keys of ``bundle.json`` that replace the usual ones.

    Returns:
        ``folder``.
    """
    network = network or Network()
    folder.mkdir(parents=True, exist_ok=True)
    images = golden_images()
    (folder / MODEL).write_bytes(network.encode())
    np.save(folder / GOLDEN_INPUTS, images)
    np.savez(folder / GOLDEN_OUTPUTS, **(network.run(images) if golden is None else golden))  # type: ignore[arg-type]
    (folder / "LICENSE").write_text("For tests only.\n", encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text(
        "# tiny\n\nMade by a test. Not for clinical use.\n", encoding="utf-8"
    )
    (folder / "parity.json").write_text("{}\n", encoding="utf-8")
    return seal(folder, manifest_of(network) | overrides)


def golden_images() -> Floats:
    """``(3, 1, SIDE, SIDE)`` float32: a ramp, its complement, and noise of a fixed seed."""
    ramp = np.linspace(-1000, 900, SIDE * SIDE).reshape(1, SIDE, SIDE)
    noise = np.random.default_rng(1).uniform(-1024, 1024, (1, SIDE, SIDE))
    return np.stack([ramp, -ramp, noise]).astype(np.float32)


def manifest_of(network: Network) -> dict[str, Any]:
    """``bundle.json`` for a network, without ``files``."""
    scores = ("extent", "opacity")
    outputs: dict[str, dict[str, Any]] = {
        "severity": {"meaning": "severity", "labels": scores},
        "cam": {"meaning": "activation-map", "labels": scores},
        "pathologies": {"meaning": "pathologies", "labels": LABELS, "trained": TRAINED},
        "lungs": {"meaning": "lungs"},
        "appearance": {"meaning": "appearance", "labels": APPEARANCES},
    }
    return {
        "schema": "bedside.bundle/1",
        "name": "tiny",
        "version": "1.0.0",
        "task": "cxr-severity",
        "title": "A network for tests: brightness as severity",
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
            "name": "image",
            "shape": [None, 1, SIDE, SIDE],
            "low": -1024.0,
            "high": 1024.0,
            "crop": "centre-square",
        },
        "outputs": [{"name": name, **outputs[name]} for name in network.outputs],
        "scores": [_score("extent", "geographic extent", 8.0), _score("opacity", "degree of opacity", 6.0)],
        "golden": {"inputs": GOLDEN_INPUTS, "outputs": GOLDEN_OUTPUTS, "source": "two ramps and noise"},
        "tolerances": {
            "fp32": {"extent": 0.01, "opacity": 0.01},
            "bf16": {"extent": 0.1, "opacity": 0.1},
        },
        "thresholds": {
            **({"lung_probability": 0.5, "lung_area_min": 0.05} if network.lungs else {}),
            **(
                {"frontal_probability_min": 0.4, "frontal_probability_sure": 0.8}
                if network.appearance
                else {}
            ),
        },
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """``bundle.json`` as it stands."""
    manifest: dict[str, Any] = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    return manifest


def write_manifest(folder: Path, manifest: dict[str, Any]) -> Path:
    """Write ``bundle.json`` as it is given, right or wrong."""
    (folder / "bundle.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return folder


def seal(folder: Path, manifest: dict[str, Any] | None = None) -> Path:
    """Write ``bundle.json`` with the right size and hash of every file that lies in ``folder``.

    ``files`` in ``manifest`` is kept where it is given; None seals what the folder's own manifest says.
    """
    if manifest is None:
        manifest = {key: value for key, value in read_manifest(folder).items() if key != "files"}
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in sorted(folder.iterdir())
        if path.name != "bundle.json"
    }
    return write_manifest(folder, {"files": files, **manifest})


def zip_bundle(folder: Path, target: Path) -> Path:
    """The bundle in ``folder`` as the zip file ``target``."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return target


def _score(name: str, title: str, high: float) -> dict[str, Any]:
    interval = {"level": 0.8, "below": 0.5, "above": 0.75, "method": "made up for tests"}
    return {
        "name": name,
        "title": title,
        "low": 0.0,
        "high": high,
        "head": "brightness",
        "interval": interval,
    }


def _column(values: tuple[float, ...]) -> npt.NDArray[np.float64]:
    return np.array(values)[None, :, None, None]  # (C,) -> (1, C, 1, 1)


def _sigmoid(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1 / (1 + np.exp(-values))


# Protobuf, with the field numbers of onnx.proto (ONNX IR, github.com/onnx/onnx).


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _varint_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _node(operator: str, inputs: Iterable[str], output: str, attributes: Iterable[bytes] = ()) -> bytes:
    encoded = b"".join(_bytes(1, name.encode()) for name in inputs) + _bytes(2, output.encode())
    return encoded + _bytes(4, operator.encode()) + b"".join(_bytes(5, attribute) for attribute in attributes)


def _attribute_ints(name: str, values: Iterable[int]) -> bytes:
    return (
        _bytes(1, name.encode())
        + b"".join(_varint_field(8, value) for value in values)
        + _varint_field(20, 7)
    )


def _tensor(name: str, values: npt.NDArray[np.float64]) -> bytes:
    dims = b"".join(_varint_field(1, size) for size in values.shape)
    data = struct.pack(f"<{values.size}f", *values.ravel())
    return dims + _varint_field(2, 1) + _bytes(8, name.encode()) + _bytes(9, data)  # data type 1: float32


def _value(name: str, shape: Iterable[int | str]) -> bytes:
    dims = b"".join(
        _bytes(1, _bytes(2, size.encode()) if isinstance(size, str) else _varint_field(1, size))
        for size in shape
    )
    tensor = _varint_field(1, 1) + _bytes(2, dims)  # element type 1: float32
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, tensor))
