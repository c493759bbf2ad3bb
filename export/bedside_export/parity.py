"""PyTorch against every engine on the same pictures, in score units.

    answer         what PyTorch says: the reference
    check_parity   what each engine says of an assembled bundle's model: a `Parity`

A difference is counted in score units before anything is clipped to a scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from bedside.backends import Backend, open_backend
from bedside.bundle import Bundle
from bedside.errors import BackendError, MissingExtraError
from bedside_export.errors import ExportError, ParityError

__all__ = ["ENGINES", "SCHEMA", "Answers", "Difference", "EngineReport", "Parity", "answer", "check_parity"]

SCHEMA: Final = "bedside.parity/1"
"""Schema of the report."""
ENGINES: Final = (("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "fp16"))
"""(backend, precision) to try; the first is the reference engine, and has to be there."""
_BATCH: Final = 3
"""Pictures in the one batch that shows the batch to be dynamic; else they go one by one, as in use."""

Answers = dict[str, npt.NDArray[np.float32]]
"""Output name -> ``(N, ...)`` array."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far an engine's answers are from PyTorch's."""

    max: float
    """Largest absolute difference."""
    p99: float
    """99th percentile of the absolute differences."""
    limit: float
    """Largest difference allowed: of a score in its units; of another output in parts of its greatest
    absolute value, if that is over 1."""


@dataclass(frozen=True, slots=True)
class EngineReport:
    """One engine at one precision."""

    backend: str
    """Name of the backend."""
    precision: str
    """Precision asked for."""
    status: str
    """``passed``, ``failed``, or ``not-run`` where this machine doesn't have the engine or the precision."""
    version: str = ""
    """Version of the engine's library."""
    reason: str = ""
    """Why it failed or did not run, in one line."""
    scores: dict[str, Difference] = field(default_factory=dict)
    """Score -> difference, unclipped."""
    outputs: dict[str, Difference] = field(default_factory=dict)
    """Other output -> difference."""


@dataclass(frozen=True, slots=True)
class Parity:
    """The report that goes into the bundle."""

    images: int
    """Number of golden pictures."""
    reference: str
    """What the engines were compared with."""
    engines: tuple[EngineReport, ...]
    """One for each of `ENGINES`."""
    schema: str = SCHEMA
    """`SCHEMA`."""

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)

    def require(self) -> None:
        """Insist on every fp32 engine that ran.

        Raises:
            ParityError: One of them failed; the message says by how much.
        """
        for report in self.engines:
            if report.precision == "fp32" and report.status == "failed":
                raise ParityError(
                    f"{report.backend} {report.precision} does not answer as PyTorch does ({report.reason}); "
                    "no bundle is written"
                )


def answer(network: nn.Module, images: npt.NDArray[np.float32], outputs: tuple[str, ...]) -> Answers:
    """What PyTorch says of the pictures, one by one.

    Args:
        network: Gives a tensor for each of ``outputs``.
        images: ``(N, C, H, W)``.
        outputs: Names of the outputs, in order.

    Raises:
        ExportError: An answer is not finite.
    """
    network.eval()
    with torch.inference_mode():
        single = [network(torch.from_numpy(image[None])) for image in images]
    answers = {name: np.concatenate([one[i].numpy() for one in single]) for i, name in enumerate(outputs)}
    if broken := [name for name, values in answers.items() if not np.isfinite(values).all()]:
        raise ExportError(
            f"the network's output {broken[0]!r} holds NaN or infinity on the phantom; check its weights"
        )
    return answers


def check_parity(
    bundle: Bundle, images: npt.NDArray[np.float32], reference: Mapping[str, npt.NDArray[Any]]
) -> Parity:
    """Run every engine of `ENGINES` on the bundle's model.

    Args:
        bundle: Opened; its tolerances apply.
        images: ``(N, C, H, W)``, as many as ``reference`` has answers for.
        reference: PyTorch's answers.

    Raises:
        MissingExtraError: The reference engine is not installed.
    """
    reports = []
    for place, (backend, precision) in enumerate(ENGINES):
        try:
            reports.append(_try_engine(bundle, images, reference, backend=backend, precision=precision))
        except MissingExtraError:
            if place == 0:
                raise
            reports.append(EngineReport(backend, precision, "not-run", reason=f"{backend} is not installed"))
    return Parity(len(images), f"torch {torch.__version__}, CPU, fp32, eager", tuple(reports))


def _try_engine(
    bundle: Bundle,
    images: npt.NDArray[np.float32],
    reference: Mapping[str, npt.NDArray[Any]],
    *,
    backend: str,
    precision: str,
) -> EngineReport:
    try:
        engine = open_backend(backend, bundle, precision=precision)
    except BackendError as error:
        status = "not-run" if error.code == "engine-unsupported" else "failed"
        return EngineReport(backend, precision, status, reason=error.message)
    try:
        answers = _run(engine, bundle.manifest.input.name, images)
    except BackendError as error:
        return EngineReport(backend, precision, "failed", version=engine.info.version, reason=error.message)
    finally:
        engine.close()
    return _compare(
        bundle, answers, reference, report=EngineReport(backend, precision, "", engine.info.version)
    )


def _run(engine: Backend, name: str, images: npt.NDArray[np.float32]) -> list[tuple[slice, Answers]]:
    """The engine's answers to each picture alone, and to the first few in one batch, with their places."""
    places = [slice(i, i + 1) for i in range(len(images))] + [slice(0, min(_BATCH, len(images)))]
    return [(place, engine.run({name: np.ascontiguousarray(images[place])})) for place in places]


def _compare(
    bundle: Bundle,
    answers: list[tuple[slice, Answers]],
    reference: Mapping[str, npt.NDArray[Any]],
    *,
    report: EngineReport,
) -> EngineReport:
    tolerances = bundle.manifest.tolerances[report.precision]
    scores, others, problems = {}, {}, []
    for output in bundle.manifest.outputs:
        wanted = reference[output.name]
        shapes = {values[output.name].shape[1:] for _, values in answers}
        if shapes != {wanted.shape[1:]}:
            problems.append(f"{output.name} has another shape")
            continue
        gaps = np.concatenate([np.abs(values[output.name] - wanted[place]) for place, values in answers])
        if not np.isfinite(gaps).all():
            problems.append(f"{output.name} holds NaN or infinity")
            continue
        if output.meaning == "severity":
            for channel, label in enumerate(output.labels):
                scores[label] = _summarise(gaps[:, channel], tolerances[label])
        else:
            peak = max(1.0, float(np.abs(wanted).max()))
            others[output.name] = _summarise(gaps, min(tolerances.values()) * peak)
    problems += [
        f"{name} is off by {gap.max:g} where {gap.limit:g} is allowed"
        for name, gap in (scores | others).items()
        if gap.max > gap.limit
    ]
    return EngineReport(
        report.backend,
        report.precision,
        "failed" if problems else "passed",
        version=report.version,
        reason="; ".join(problems),
        scores=scores,
        outputs=others,
    )


def _summarise(gaps: npt.NDArray[np.float32], limit: float) -> Difference:
    return Difference(_round(float(gaps.max())), _round(float(np.quantile(gaps, 0.99))), _round(limit))


def _round(value: float) -> float:
    """Three significant digits: a report is for reading."""
    return float(f"{value:.3g}")
