"""The built-in chest X-ray bundle, from what the recipe trained and measured.

    python -m bedside_export.recipes.cxr_bundle --trained DIR --data ../shared/data \
         --out runtime/bedside/models/cxr-severity-lite

``DIR`` holds ``metrics.json`` of the recipe's ``evaluate`` and ``network.pt`` of its ``train``. Every figure in the
model card and every interval is read from ``metrics.json``. With ``--data``, half of the recipe's patients give the
ranges of the int8 file, and the engines are compared on the others.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import torch

from bedside.bundle import Interval, Licence, Output, Score
from bedside_export.golden import golden_inputs
from bedside_export.heads import BOUNDS, SCORES, TITLES
from bedside_export.parity import Parity
from bedside_export.recipes.command import bundle_command
from bedside_export.recipes.cxr_network import INPUT_SIZE, SeverityNetwork
from bedside_export.recipes.cxr_targets import INPUT
from bedside_export.rounding import WEIGHT_BITS, round_weights
from bedside_export.writer import LICENCE_FILE, Draft, write_bundle

__all__ = ["build_bundle", "draft_bundle"]

NAME: Final = "cxr-severity-lite"
HEAD: Final = "linear in EfficientNet-Lite0's features pooled to six lung zones (bedside_export.recipes)"
LICENCE: Final = Licence(
    "CC-BY-NC-SA-4.0",
    LICENCE_FILE,
    commercial_use=False,
    notice="Trained on Brixia scores (CC BY-NC-SA 4.0) and on pictures of which many are for non-commercial use.",
)
THRESHOLDS: Final = {"lung_probability": 0.5, "lung_area_min": 0.08}
"""Share of the padded square that lungs must cover, else `bedside.quality` notes ``lungs-not-found``: less than the
network finds in any picture of the collection, which tests/runtime/test_built_in_bundle.py holds it to."""
GOLDEN: Final = 8
"""Golden pictures kept, of all severities, to keep the wheel small."""


def draft_bundle(metrics: dict[str, Any], version: str) -> Draft:
    """What the bundle says of itself.

    Args:
        metrics: ``metrics.json`` of the recipe's evaluation.
        version: Version of the bundle.
    """
    return Draft(
        name=NAME,
        version=version,
        title="Severity of COVID-19 on a frontal chest X-ray: geographic extent and degree of opacity",
        licence=LICENCE,
        licence_text=f"{LICENCE.notice}\nNot for clinical use.\n\n"
        + (files("bedside_export") / "licences" / "CC-BY-NC-SA-4.0.txt").read_text(encoding="utf-8"),
        card=_card(metrics, version),
        input=INPUT,
        outputs=(
            Output("severity", "severity", SCORES),
            Output("cam", "activation-map", SCORES),
            Output("lungs", "lungs"),
        ),
        scores=tuple(
            Score(name, title, low, high, HEAD, _interval(metrics, name))
            for name, title, (low, high) in zip(SCORES, TITLES, BOUNDS, strict=True)
        ),
        thresholds=THRESHOLDS,
    )


def build_bundle(trained: Path, out: Path, *, version: str = "1.0.0", force: bool = False) -> Parity:
    """Export the trained network as a bundle.

    Args:
        trained: Folder with ``metrics.json`` and ``network.pt``.
        out: The bundle to write.
        version: Its version.
        force: Replace a bundle that is there.

    Raises:
        ParityError: An engine disagrees with PyTorch; nothing is written.
        OutputError: The bundle can't be written.
    """
    network = SeverityNetwork()
    network.load_state_dict(torch.load(trained / "network.pt", weights_only=True))
    metrics = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))
    rounded = round_weights(network.eval())
    return write_bundle(
        draft_bundle(metrics, version), rounded, golden_inputs(INPUT)[:GOLDEN], out=out, force=force
    )


def _interval(metrics: dict[str, Any], score: str) -> Interval:
    interval, measured = metrics["interval"], metrics["interval"][score]
    least = min(interval[name]["measured_coverage"] for name in SCORES)
    return Interval(
        level=interval["level"],
        below=round(max(0.0, -measured["lower"]), 4),
        above=round(max(0.0, measured["upper"]), 4),
        method=f"errors on {measured['pictures']} pictures of patients not trained on, in "
        f"{len(metrics['seeds'])} splits; "
        f"widened until they held {least:.0%} of the truths of other patients among these",
    )


def _card(metrics: dict[str, Any], version: str) -> str:
    summary, data, interval = metrics["summary"], metrics["data"], metrics["interval"]
    errors = "\n".join(
        f"| {title} (0 to {high:g}) | {found['mae_mean']:.2f} ± {found['mae_sd']:.2f} "
        f"| {found['mae_of_training_mean_mean']:.2f} | {found['r2_mean']:.2f} | {found['correlation_mean']:.2f} "
        f"| {interval[name]['lower']:+.2f} to {interval[name]['upper']:+.2f} |"
        for name, title, (_, high) in zip(SCORES, TITLES, BOUNDS, strict=True)
        for found in [summary[name]]
    )
    views = "\n".join(
        f"| {view} | {found['pictures']} | {found['mae']:.2f} | {found['bias']:+.2f} |"
        for view, found in metrics["brixia_by_view"].items()
    )
    sources = "\n".join(f"- {s['what']}: {s['source']}; {s['licence']}" for s in data["sources"])
    scored, brixia = data["severity_scored"], data["brixia_scored"]
    return f"""\
# {NAME} {version}

**Not for clinical use.** For non-commercial research: it estimates how severe COVID-19 looks on a frontal chest
X-ray, as geographic extent (each lung 0 to 4, summed) and degree of opacity (each lung 0 to 3, summed), the scores
of Cohen et al. 2020 (arXiv 2005.11856).

## Network

One graph from the picture to the scores. A small U-Net finds the lungs in the picture, which is padded to a square
and resized to {INPUT_SIZE}x{INPUT_SIZE}; the box around them is cut out at 224x224 and contrast-equalised;
EfficientNet-Lite0 (from ImageNet) gives features, pooled to three by two lung zones; every zone's part of the
severity is linear in them. `cam` is that linear map before pooling: over the cut-out box, its mean plus a constant
is the severity. `lungs` is the probability of lung. Both are in the coordinates of the padded square.

## Data

{data["pictures"]} pictures of {data["patients"]} known patients: {scored["pictures"]} scored for severity by three
experts ({scored["patients"]} patients, all {", ".join(scored["views"])}), {brixia["pictures"]} with Brixia scores of
two radiologists ({brixia["ap_or_supine"]} AP or supine), and masks and boxes of lungs.

{sources}

## Protocol

{metrics["protocol"]} Seeds {", ".join(str(seed) for seed in metrics["seeds"])}.

The interval: {interval["method"]}

## Errors on patients not trained on

| score | MAE ± deviation of splits | MAE of the mean | R² | correlation | {interval["level"]:.0%} of truths within |
|---|---|---|---|---|---|
{errors}

MAE of the mean: of answering every picture with the training half's mean score.

Against Brixia scores of held-out pictures ({metrics["brixia_rule"]}):

| view | pictures | MAE | bias |
|---|---|---|---|
{views}

All pictures scored for severity are PA; what a portable machine takes is AP, and is measured on Brixia's scores
alone. The interval does not know of it.

## Checked

After training, batch norms were folded and weights rounded to {WEIGHT_BITS} significant bits, which takes half the
room. Every engine's answers were compared with PyTorch's of that network, on phantom X-rays: `parity.json`. Where
the bundle holds fp16 and int8 files, it tells as well how far each engine at each precision is from the reference
on real pictures: int8 has its ranges from every second patient, and is compared on the others. How far its layers
are quantised was chosen after seeing what earlier choices did on those others, so that the figures at int8 are
slightly flattered.

## Limits

- Adults, frontal views, COVID-19, pictures from publications and web pages.
- It gives a number for any picture, a high one where there is no lung: heed the note `lungs-not-found`.
- Haze over a whole lung without contrast is scored too low: equalising takes the absolute haze away.
- Another hospital's pictures may err more than the interval says.

## Terms

{LICENCE.spdx}; commercial use: no. {LICENCE.notice}
"""


main = bundle_command(
    build_bundle, "Write the built-in chest X-ray bundle from what the recipe trained and measured."
)

if __name__ == "__main__":
    main()
