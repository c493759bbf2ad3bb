"""The built-in chest X-ray bundle's model card, from what the recipe measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bedside.bundle import Licence
from bedside_export.draft import LICENCE_FILE
from bedside_export.heads import BOUNDS, SCORES, TITLES
from bedside_export.recipes.cxr.intervals import describe as describe_intervals
from bedside_export.recipes.cxr.network import INPUT_SIZE
from bedside_export.recipes.cxr.quality.report import describe as describe_quality
from bedside_export.recipes.cxr.repeatability_report import describe as describe_repeatability
from bedside_export.rounding import WEIGHT_BITS

__all__ = ["LICENCE", "NAME", "write_card"]

NAME: Final = "cxr-severity-lite"
LICENCE: Final = Licence(
    "CC-BY-NC-SA-4.0",
    LICENCE_FILE,
    commercial_use=False,
    notice="Trained on Brixia scores (CC BY-NC-SA 4.0) and on pictures of which many are for non-commercial use.",
)


def write_card(metrics: Mapping[str, Any], version: str) -> str:
    """The model card, Markdown.

    Args:
        metrics: As `bedside_export.recipes.cxr.bundle.read_metrics` gives it.
        version: Version of the bundle.
    """
    summary, data = metrics["summary"], metrics["data"]
    errors = "\n".join(
        f"| {title} (0 to {high:g}) | {found['mae_mean']:.2f} ± {found['mae_sd']:.2f} "
        f"| {found['mae_of_training_mean_mean']:.2f} | {found['r2_mean']:.2f} | {found['correlation_mean']:.2f} |"
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

One graph from the picture to the scores. A small U-Net finds the lungs in the picture, which is padded to a
square and resized to {INPUT_SIZE}x{INPUT_SIZE}; the box around them is cut out at 224x224; EfficientNet-Lite0
(from ImageNet) sees it contrast-equalised, as it is, and half and half, and gives features, pooled to three by
two lung zones; every zone's part of the severity is linear in them. `cam` is that linear map before pooling: over
the cut-out box, its mean plus a constant is the severity. `lungs` is the probability of lung. Both are in the
coordinates of the padded square.

## Data

{data["pictures"]} pictures of {data["patients"]} known patients: {scored["pictures"]} scored for severity by three
experts ({scored["patients"]} patients, all {", ".join(scored["views"])}), {brixia["pictures"]} with Brixia scores of
two radiologists ({brixia["ap_or_supine"]} AP or supine), masks and boxes of lungs, and masks of opacity.

{sources}

## Protocol

{metrics["protocol"]} Seeds {", ".join(str(seed) for seed in metrics["seeds"])}.

## Errors on patients not trained on

| score | MAE ± deviation of splits | MAE of the mean | R² | correlation |
|---|---|---|---|---|
{errors}

MAE of the mean: of answering every picture with the training half's mean score.

Against Brixia scores of held-out pictures ({metrics["brixia_rule"]}):

| view | pictures | MAE | bias |
|---|---|---|---|
{views}

All pictures scored for severity are PA; what a portable machine takes is AP, and is measured on Brixia's scores
alone.

## Intervals

{metrics["intervals"]["method"]}

{describe_intervals(metrics["intervals"])}
{describe_quality(metrics.get("quality"))}
{describe_repeatability(metrics.get("repeatability", {}))}
## Checked

After training, batch norms were folded and weights rounded to {WEIGHT_BITS} significant bits, which takes half the
room. Every engine's answers were compared with PyTorch's of that network, on phantom X-rays: `parity.json`. Where
the bundle holds fp16 and int8 files, it tells as well how far each engine at each precision is from the reference
on real pictures: int8 has its ranges from every second patient, and is compared on the others. How far its layers
are quantised was chosen after seeing what earlier choices did on those others, so that the figures at int8 are
slightly flattered.

## Limits

- Adults, frontal views, COVID-19, pictures from publications and web pages.
- It {"may give" if "quality" in metrics else "gives"} a number for a picture without lungs, a high one: heed the note
  `lungs-not-found`.
- The score follows exposure, more than that of a network which sees the equalised picture alone; even haze is seen
  only as far as the greys show it.
- Supine pictures: see the bias against Brixia above.
- Another hospital's pictures may err more than the interval says.

## Terms

{LICENCE.spdx}; commercial use: no. {LICENCE.notice}
"""
