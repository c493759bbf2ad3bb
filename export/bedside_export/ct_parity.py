"""PyTorch against every engine on the same tiles, in clinical units: Dice of each tissue, and the opacified volume.

Reference         what PyTorch says of the tiles
ask_reference     make it
check_tissues     what each engine says of a bundle's model: a `TissueParity`
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from bedside.backends import Backend, open_backend
from bedside.bundle import Bundle
from bedside.contract import Tissue
from bedside.errors import BackendError, MissingExtraError
from bedside.tissue_counts import FEW_VOXELS, TissueCounts, count_tissues
from bedside_export.errors import ExportError
from bedside_export.parity import ENGINES
from bedside_export.tissue_report import TissueGap, TissueParity, TissueReport

__all__ = [
    "TOLERANCES",
    "Reference",
    "ask_reference",
    "check_tissues",
]

TOLERANCES: Final[dict[str, dict[str, float]]] = {
    "fp32": {"dice_loss": 1e-3, "volume_percent": 0.05},
    "bf16": {"dice_loss": 0.005, "volume_percent": 0.5},
    "fp16": {"dice_loss": 0.005, "volume_percent": 0.5},
    "int8": {"dice_loss": 0.02, "volume_percent": 1.5},
}
"""Precision -> greatest 1 - Dice of a tissue, and greatest difference of the opacified volume in percent. Published
volumes are within 1.7 % of the experts' (Lensink et al. 2020): no engine is to add as much."""
SIZE_LIMIT: Final = 0.01
"""Greatest difference of an fp32 probability at another size of tile: a layer that is wrong there is off by more."""

_Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Reference:
    """Tiles as the network takes them, and PyTorch's answers."""

    images: _Float32
    """``(N, C, H, W)``: network inputs."""
    probabilities: _Float32
    """``(N, K, H, W)``, finite."""
    other_image: _Float32 | None
    """``(1, C, h, w)``: the same of another size, where the bundle's sides are dynamic."""
    other_probabilities: _Float32 | None
    """``(1, K, h, w)``."""
    voxel_ml: float
    """Volume of a voxel, mL."""

    @property
    def labels(self) -> npt.NDArray[np.uint8]:
        """``(N, H, W)``: the most probable tissues."""
        labels: npt.NDArray[np.uint8] = self.probabilities.argmax(axis=1).astype(np.uint8)
        return labels

    @property
    def expected(self) -> npt.NDArray[np.float64]:
        """``(N, K)``: sums of the probabilities over a tile."""
        return np.asarray(self.probabilities.sum(axis=(2, 3), dtype=np.float64))


def ask_reference(
    network: nn.Module, images: _Float32, *, voxel_ml: float, other: tuple[int, int] | None = None
) -> Reference:
    """What PyTorch says of the tiles, one by one.

    Args:
        network: Gives probabilities ``(N, K, H, W)``.
        images: ``(N, C, H, W)``.
        voxel_ml: Volume of a voxel, mL.
        other: Another size ``(h, w)`` to try, taken of the middle of the first tile and repeated to fill it.

    Raises:
        ExportError: An answer is not finite, or not of the tile's size.
    """
    probabilities = np.concatenate([_ask(network, image[None]) for image in images])
    other_image = other_probabilities = None
    if other is not None:
        rows, columns = (
            (np.arange(side) + max(0, (whole - side) // 2)) % whole
            for side, whole in zip(other, images.shape[2:], strict=True)
        )
        other_image = np.ascontiguousarray(images[:1][..., rows[:, None], columns])
        other_probabilities = _ask(network, other_image)
    return Reference(images, probabilities, other_image, other_probabilities, voxel_ml)


def _ask(network: nn.Module, image: _Float32) -> _Float32:
    with torch.inference_mode():
        answer: _Float32 = network(torch.from_numpy(image)).numpy()
    if answer.ndim != 4 or answer.shape[2:] != image.shape[2:]:
        raise ExportError(
            f"the network answers {answer.shape} to {image.shape}; it must give each voxel of the tile its logits"
        )
    if not np.isfinite(answer).all():
        raise ExportError("the network's answer holds NaN or infinity on the phantom; check its weights")
    return answer


def check_tissues(bundle: Bundle, reference: Reference) -> TissueParity:
    """Run every engine on the bundle's model.

    Args:
        bundle: Opened; its tolerances apply.
        reference: PyTorch's answers.

    Raises:
        MissingExtraError: The reference engine is not installed.
    """
    manifest = bundle.manifest
    pairs = [
        *ENGINES,
        *((backend, "int8") for backend in ("onnxruntime", "openvino") if "int8" in manifest.models),
    ]
    pairs = [pair for pair in pairs if pair[1] in manifest.tolerances]
    reports = []
    for place, (backend, precision) in enumerate(pairs):
        try:
            reports.append(_try_engine(bundle, reference, backend, precision))
        except MissingExtraError:
            if place == 0:
                raise
            reports.append(TissueReport(backend, precision, "not-run", reason=f"{backend} is not installed"))
    source = f"torch {torch.__version__}, CPU, fp32, eager"
    return TissueParity(len(reference.images), reference.voxel_ml, source, tuple(reports))


def _try_engine(bundle: Bundle, reference: Reference, backend: str, precision: str) -> TissueReport:
    try:
        engine = open_backend(backend, bundle, precision=precision)
    except BackendError as error:
        status = "not-run" if error.code == "engine-unsupported" else "failed"
        return TissueReport(backend, precision, status, reason=error.message)
    try:
        return _compare(bundle, engine, reference)
    except BackendError as error:
        return TissueReport(backend, precision, "failed", version=engine.info.version, reason=error.message)
    finally:
        engine.close()


def _compare(bundle: Bundle, engine: Backend, reference: Reference) -> TissueReport:
    manifest, info = bundle.manifest, engine.info
    limits = manifest.tolerances[info.precision]

    def run(image: _Float32, shape: tuple[int, ...]) -> _Float32:
        answer: _Float32 = engine.run({manifest.input.name: np.ascontiguousarray(image)})[
            manifest.outputs[0].name
        ]
        if answer.shape != shape:
            raise BackendError("engine-failed", f"its answer is {answer.shape}, not {shape}")
        if not np.isfinite(answer).all():
            raise BackendError("engine-failed", "its answer holds NaN or infinity")
        return answer

    counts, largest = _count(reference, run)
    gaps = dict(_gaps(counts, manifest.tissues, reference.voxel_ml, limits["dice_loss"]))
    percent = counts.volume_percent(manifest.tissues)
    problems = [
        f"Dice loss of {name} is {gap.dice_loss:g} where {gap.limit:g} is allowed"
        for name, gap in gaps.items()
        if gap.dice_loss > gap.limit
    ]
    if percent > limits["volume_percent"]:
        problems.append(
            f"the opacity volume is off by {percent:.3g} % where {limits['volume_percent']:g} % is allowed"
        )
    other = None
    if reference.other_image is not None and reference.other_probabilities is not None:
        answer = run(reference.other_image, reference.other_probabilities.shape)
        other = float(np.abs(answer - reference.other_probabilities).max())
        if info.precision == "fp32" and other > SIZE_LIMIT and not problems:
            size = " x ".join(map(str, answer.shape[2:]))
            problems.append(
                f"a probability is off by {other:.3g} on a tile of {size} alone; export with --fixed"
            )
    opacity = np.array([tissue.opacity for tissue in manifest.tissues])
    ml = [reference.voxel_ml * float(each[opacity].sum()) for each in (counts.reference, counts.given)]
    return TissueReport(
        info.backend,
        info.precision,
        "failed" if problems else "passed",
        version=info.version,
        reason="; ".join(problems),
        tissues=gaps,
        volume_percent=_round(percent),
        volume_limit=limits["volume_percent"],
        opacity_ml=_round(ml[0]),
        opacity_ml_difference=_round(ml[1] - ml[0]),
        probability=_round(largest),
        probability_other_size=None if other is None else _round(other),
    )


def _count(
    reference: Reference, run: Callable[[_Float32, tuple[int, ...]], _Float32]
) -> tuple[TissueCounts, float]:
    """Counts over all tiles, one by one as in use, and over two in one batch; the largest difference."""
    total: TissueCounts | None = None
    largest = 0.0
    labels, expected = reference.labels, reference.expected
    for place, (image, wanted) in enumerate(zip(reference.images, reference.probabilities, strict=True)):
        answer = run(image[None], (1, *wanted.shape))[0]
        largest = max(largest, float(np.abs(answer - wanted).max()))
        counts = count_tissues(labels[place], expected[place], answer)
        total = counts if total is None else total + counts
    pair = reference.probabilities[:2]
    largest = max(largest, float(np.abs(run(reference.images[:2], pair.shape) - pair).max()))
    if total is None:
        raise ExportError("there is no tile to compare the engines on")
    return total, largest


def _gaps(
    counts: TissueCounts, tissues: tuple[Tissue, ...], voxel_ml: float, limit: float
) -> list[tuple[str, TissueGap]]:
    losses, absent = counts.dice_loss(), counts.absent()
    found = []
    for k, tissue in enumerate(tissues):
        voxels, given = int(counts.reference[k]), int(counts.given[k])
        note = "absent" if absent[k] else "few voxels" if voxels < FEW_VOXELS else ""
        gap = TissueGap(
            _round(losses[k]),
            limit,
            voxels,
            _round(voxels * voxel_ml),
            _round((given - voxels) * voxel_ml),
            note,
        )
        found.append((tissue.name, gap))
    return found


def _round(value: float) -> float:
    """Three significant digits: a report is for reading."""
    return float(f"{value:.3g}")
