"""The built-in chest X-ray bundle, from what the recipe trained and measured.

    python -m bedside_export.recipes.cxr.bundle --trained DIR --data ../shared/data \
         --out runtime/bedside/models/cxr-severity-lite

``DIR`` holds ``metrics.json`` of the recipe's ``evaluate``, ``network.pt`` of its ``train``, ``intervals.json`` of
`cxr.intervals`, if the bundle is to refuse what is no frontal chest X-ray ``quality-metrics.json`` and ``quality.pt``
of `cxr.quality.appearance`, and if it is to know its noise ``repeatability.json`` of `cxr.repeatability`. Every figure
in the model card, every interval and threshold is read from the metrics. With ``--data``, half of the recipe's patients
give the ranges of the int8 file, and the engines are compared on the others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from bedside.bundle import Output, Score
from bedside.contract import APPEARANCES
from bedside_export.golden import golden_inputs
from bedside_export.heads import BOUNDS, SCORES, TITLES
from bedside_export.parity import Parity
from bedside_export.recipes.command import bundle_command
from bedside_export.recipes.cxr import intervals
from bedside_export.recipes.cxr.card import LICENCE, NAME, write_card
from bedside_export.recipes.cxr.network import SeverityNetwork
from bedside_export.recipes.cxr.quality.appearance import METRICS as QUALITY_METRICS
from bedside_export.recipes.cxr.quality.appearance import WEIGHTS
from bedside_export.recipes.cxr.quality.network import CheckedNetwork, QualityNetwork
from bedside_export.recipes.cxr.repeatability_report import FILE as REPEATABILITY
from bedside_export.recipes.cxr.repeatability_report import with_repeatability
from bedside_export.recipes.cxr.targets import INPUT
from bedside_export.recipes.reproduction import to_text
from bedside_export.rounding import round_weights
from bedside_export.writer import Draft, write_bundle

__all__ = ["build_bundle", "draft_bundle"]

HEAD: Final = "linear in EfficientNet-Lite0's features pooled to six lung zones (bedside_export.recipes)"
THRESHOLDS: Final = {"lung_probability": 0.5, "lung_area_min": 0.08}
"""Share of the padded square that lungs must cover, else `bedside.quality` notes ``lungs-not-found``: less than the
network finds in any picture of the collection, which tests/runtime/test_built_in_bundle.py holds it to."""
GOLDEN: Final = 8
"""Golden pictures kept, of all severities, to keep the wheel small."""


def draft_bundle(metrics: Mapping[str, Any], version: str) -> Draft:
    """What the bundle says of itself.

    Args:
        metrics: What `read_metrics` gives. Without ``quality`` the bundle answers on any picture, and without
            ``repeatability`` it says of no change whether it is noise.
        version: Version of the bundle.
    """
    outputs: tuple[Output, ...] = (
        Output("severity", "severity", SCORES),
        Output("cam", "activation-map", SCORES),
        Output("lungs", "lungs"),
    )
    thresholds = dict(THRESHOLDS)
    if "quality" in metrics:
        outputs = (*outputs, Output("appearance", "appearance", APPEARANCES))
        thresholds |= metrics["quality"]["thresholds"]
    return Draft(
        name=NAME,
        version=version,
        title="Severity of COVID-19 on a frontal chest X-ray: geographic extent and degree of opacity",
        licence=LICENCE,
        licence_text=f"{LICENCE.notice}\nNot for clinical use.\n\n"
        + (files("bedside_export") / "licences" / "CC-BY-NC-SA-4.0.txt").read_text(encoding="utf-8"),
        card=write_card(metrics, version),
        metrics=to_text(metrics),
        input=INPUT,
        outputs=outputs,
        scores=tuple(
            _score(metrics, name, title, bounds)
            for name, title, bounds in zip(SCORES, TITLES, BOUNDS, strict=True)
        ),
        thresholds=thresholds,
    )


def _score(metrics: Mapping[str, Any], name: str, title: str, bounds: tuple[float, float]) -> Score:
    first, *further = intervals.intervals_of(metrics["intervals"], name)
    score = Score(name, title, *bounds, HEAD, first, further=tuple(further))
    return with_repeatability(score, metrics.get("repeatability", {}))


def read_metrics(trained: Path) -> dict[str, Any]:
    """All that was measured: ``metrics.json``, and beside it the intervals, and quality and repeatability if there.

    Args:
        trained: The folder that the recipes' commands wrote into.
    """
    parts = {"intervals": intervals.FILE, "quality": QUALITY_METRICS, "repeatability": REPEATABILITY}
    metrics: dict[str, Any] = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))
    for part, name in parts.items():
        if part == "intervals" or (trained / name).is_file():
            metrics[part] = json.loads((trained / name).read_text(encoding="utf-8"))
    return metrics


def build_bundle(trained: Path, out: Path, *, version: str = "1.0.0", force: bool = False) -> Parity:
    """Export the trained network as a bundle.

    Args:
        trained: Folder with ``network.pt``, what `read_metrics` reads, and ``quality.pt`` if quality was measured.
        out: The bundle to write.
        version: Its version.
        force: Replace a bundle that is there.

    Raises:
        ParityError: An engine disagrees with PyTorch; nothing is written.
        OutputError: The bundle can't be written.
    """
    metrics = read_metrics(trained)
    severity = SeverityNetwork()
    severity.load_state_dict(torch.load(trained / "network.pt", weights_only=True))
    network: nn.Module = severity
    if "quality" in metrics:
        judge = QualityNetwork()
        judge.load_state_dict(torch.load(trained / WEIGHTS, weights_only=True))
        network = CheckedNetwork(severity, judge)
    return write_bundle(
        draft_bundle(metrics, version),
        round_weights(network.eval()),
        golden_inputs(INPUT)[:GOLDEN],
        out=out,
        force=force,
    )


main = bundle_command(
    build_bundle, "Write the built-in chest X-ray bundle from what the recipe trained and measured."
)

if __name__ == "__main__":
    main()
