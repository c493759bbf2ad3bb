"""What an X-ray's report says: severity with its intervals, pathologies, looks and doubts (TID 1500)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydicom.sr.coding import Code

from bedside.cxr import Estimate
from bedside.results.dicom.codes import ABNORMAL_OPACITY, PRIVATE, pathology_code, private, scale_unit
from bedside.results.dicom.findings import Figure, Group, Interval, Note
from bedside.severity import SeverityResult

__all__ = ["CHEST_XRAY", "PROBABILITY", "describe_severity", "quality_group"]

CHEST_XRAY: Final = Code("399208008", "SCT", "Plain chest X-ray")
PROBABILITY: Final = Code("122157", "DCM", "Probability")
IMAGE_QUALITY: Final = Code("111101", "DCM", "Image Quality")
_SHARE: Final = scale_unit(0, 1)


def describe_severity(result: SeverityResult) -> Iterator[Group]:
    """The groups of a scored X-ray's report.

    Both scores are measurements of abnormal opacity in both lungs, in units that say the scale. A pathology is a
    finding with its probability (AIR 6.5.3, qualitative findings and measurements).

    Args:
        result: One with status ``ok``.

    Raises:
        ValueError: If it has no score.
    """
    severity = result.severity
    if severity is None:
        raise ValueError("a result without a score has nothing to describe")
    yield Group(
        "severity",
        ABNORMAL_OPACITY,
        side="",
        figures=(_score(severity.extent), _score(severity.opacity)),
        comments=("Not for clinical use.",),
    )
    for label, probability in severity.pathologies.items():
        yield Group(
            f"pathology {label}",
            pathology_code(label),
            side="",
            figures=(Figure(PROBABILITY, probability, _SHARE),),
        )
    yield from quality_group(result)


def quality_group(result: SeverityResult) -> Iterator[Group]:
    """What the picture looks like, and the doubts about it; nothing where there is none."""
    looks = tuple(
        Figure(private(f"appears-{name}"), probability, _SHARE)
        for name, probability in result.appearance.items()
        if f"appears-{name}" in PRIVATE
    )
    notes = tuple(Note.quality(finding.code, finding.text) for finding in result.quality)
    if looks or notes:
        yield Group("image quality", IMAGE_QUALITY, figures=looks, notes=notes)


def _score(estimate: Estimate) -> Figure:
    lines = [f"{estimate.title} on a scale of {estimate.scale[0]:g} to {estimate.scale[1]:g}"]
    lines += [f"{span.level:.0%} interval {span.low:.2f} to {span.high:.2f}" for span in estimate.intervals]
    lines += [f"wider for {cause.name} (x{cause.factor:g})" for cause in estimate.causes]
    lines.append(estimate.method)
    return Figure(
        private(estimate.name),
        estimate.value,
        scale_unit(*estimate.scale),
        Interval(estimate.low, estimate.high, estimate.level, "; ".join(lines)),
    )
