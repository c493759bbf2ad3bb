"""What the bundle of a DenseNet severity network says of itself: interface, terms, model card."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from bedside.bundle import Input, Licence, Output
from bedside_export.heads import SCORES, SeverityHead
from bedside_export.models import Classifier
from bedside_export.writer import LICENCE_FILE, TOLERANCES, Draft

__all__ = ["NOTICE", "Naming", "draft_severity", "input_rule"]

NOTICE: Final = (
    "The weights are torchxrayvision's (code under Apache-2.0); they were trained on collections with terms of "
    "their own, of which several (CheXpert, MIMIC-CXR, PadChest) allow non-commercial research only."
)
"""Where the terms of pretrained weights come from (torchxrayvision's documentation of its weights)."""
_RANDOM_NOTICE: Final = "Random weights, learned from nothing: for tests and benchmarks of speed only."

_RANDOM_WARNING: Final = (
    "\n**The weights are random. Nothing that this network says of an X-ray means anything.**\n"
)


@dataclass(frozen=True, slots=True)
class Naming:
    """What the exporting person says of the bundle; None where bedside is to decide."""

    name: str | None = None
    """Lower-case letters, digits, ``.`` and ``-``."""
    version: str = "1.0.0"
    """Version of the bundle."""
    licence: str | None = None
    """SPDX expression of the terms."""
    licence_text: str | None = None
    """The terms in full."""
    commercial_use: bool = False
    """Whether those terms allow commercial use; heeded only with `licence`."""


def input_rule(classifier: Classifier) -> Input:
    """How torchxrayvision prepares a picture: ``XRayCenterCrop``, then ``XRayResizer``, grey values +-1024."""
    size = classifier.input_size
    return Input("image", (None, 1, size, size), low=-1024.0, high=1024.0, crop="centre-square", outside=0.0)


def draft_severity(classifier: Classifier, head: SeverityHead, naming: Naming) -> Draft:
    """Everything that the bundle says, but for what only its writing can tell.

    Args:
        classifier: Its labels, trained mask and input size.
        head: Its scores.
        naming: Name, version and terms.
    """
    what = "random" if classifier.random else classifier.kind
    licence, text = _terms(classifier, naming)
    name = naming.name or f"cxr-severity-{what}"
    title = "Severity of COVID-19 on a frontal chest X-ray: geographic extent and degree of opacity"
    return Draft(
        name=name,
        version=naming.version,
        title=f"{title} (random weights: for tests only)" if classifier.random else title,
        licence=licence,
        licence_text=text,
        card=_card(classifier, head, name=f"{name} {naming.version}", licence=licence),
        input=input_rule(classifier),
        outputs=(
            Output("severity", "severity", SCORES),
            Output("cam", "activation-map", SCORES),
            Output("pathologies", "pathologies", classifier.labels, classifier.trained),
        ),
        scores=head.scores,
    )


def _terms(classifier: Classifier, naming: Naming) -> tuple[Licence, str]:
    apache = (files("bedside_export") / "licences" / "Apache-2.0.txt").read_text()
    if naming.licence is not None:
        notice = "Terms as given by the person who exported the bundle."
        text = naming.licence_text or f"{naming.licence}\n\n{notice}\n"
        return Licence(naming.licence, LICENCE_FILE, naming.commercial_use, notice), text
    if classifier.random:
        return Licence("Apache-2.0", LICENCE_FILE, commercial_use=True, notice=_RANDOM_NOTICE), apache
    terms = (
        f"{NOTICE}\nNot for clinical use. The Apache License of torchxrayvision's code follows.\n\n{apache}"
    )
    return Licence(
        "LicenseRef-torchxrayvision-weights", LICENCE_FILE, commercial_use=False, notice=NOTICE
    ), terms


def _card(classifier: Classifier, head: SeverityHead, *, name: str, licence: Licence) -> str:
    trained = [label for label, known in zip(classifier.labels, classifier.trained, strict=True) if known]
    missing = [label for label, known in zip(classifier.labels, classifier.trained, strict=True) if not known]
    rows = "\n".join(
        f"| {score.title} | {score.low:g} to {score.high:g} | {interval.level:.0%} within "
        f"-{interval.below:.2f} and +{interval.above:.2f} | {interval.method} |"
        for score, interval in ((score, score.interval) for score in head.scores)
    )
    return f"""\
# {name}

**Not for clinical use.** For research: it estimates how severe COVID-19 looks on a frontal chest X-ray.
{_RANDOM_WARNING if classifier.random else ""}
## Network

- DenseNet-121 of torchxrayvision, weights: {classifier.weights}; one channel,
  {classifier.input_size}x{classifier.input_size}, grey values from -1024 to 1024.
- Head: {head.source}.
- {head.reading}
- `pathologies`: torchxrayvision's probabilities, with its operating points at 0.5.
  Trained: {", ".join(trained) or "none"}.
  Never trained, so never reported: {", ".join(missing) or "none"}.

## Scores

| score | scale | interval | from |
|---|---|---|---|
{rows}

{head.scales}

## Data and protocol

- Weights: see torchxrayvision's documentation of the collections that they were trained on.
- Head: {head.protocol}

## Checked

Every engine's answers were compared with PyTorch's on phantom X-rays: `parity.json`. A difference of over
{TOLERANCES["fp32"]:g} in a score refuses an fp32 engine, of over {TOLERANCES["bf16"]:g} a bf16 or fp16 one.

## Limits

- Adults, frontal views, COVID-19. It gives a number for any picture, also for one that is not a chest.
- The interval is of the data that it was measured on; another hospital's pictures may err more.

## Terms

{licence.spdx}; commercial use: {"yes" if licence.commercial_use else "no"}. {licence.notice}
"""
