"""What a CT's report says: volumes for each finding and finding site, with their interval and doubts (TID 1500)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pydicom.sr.coding import Code

from bedside.contract import Tissue
from bedside.opacification import Opacification, OpacificationResult, Region, TissueVolume
from bedside.results.dicom.codes import ABNORMAL_OPACITY, LUNG, pattern_code, private
from bedside.results.dicom.findings import PERCENT, Figure, Group, Interval, Note, Segment

__all__ = ["CHEST_CT", "describe_volumes", "scan_quality"]

CHEST_CT: Final = Code("169069000", "SCT", "CT of chest")
VOLUME: Final = Code("118565006", "SCT", "Volume")
MEAN_HU: Final = Code("112181", "DCM", "Mean Attenuation Coefficient")
MILLILITRE: Final = Code("mL", "UCUM", "milliliter")
HOUNSFIELD: Final = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
IMAGE_QUALITY: Final = Code("111101", "DCM", "Image Quality")
_REGIONS: Final = (("", "both lungs"), ("right", "right lung"), ("left", "left lung"))


def describe_volumes(
    result: OpacificationResult, tissues: Sequence[Tissue], segments: Mapping[str, Segment]
) -> Iterator[Group]:
    """The groups of a segmented CT's report.

    Args:
        result: One with status ``ok``.
        tissues: Of the bundle, in the order of the labels.
        segments: Name -> segment, of what is segmented: ``left lung``, ``right lung``, ``both lungs``, and
            ``tissue N`` of each label.

    Raises:
        ValueError: If it has no volumes.
    """
    found = result.opacification
    if found is None:
        raise ValueError("a result without volumes has nothing to describe")
    for side, name in _REGIONS:
        region = {"": found.both, "right": found.right, "left": found.left}[side]
        yield Group(name, LUNG, side, figures=_lung(region), segment=segments.get(name))
        interval = _interval(found) if side == "" else None
        yield Group(
            f"opacity in {name}",
            ABNORMAL_OPACITY,
            side,
            figures=_opacity(region, interval),
            comments=(f"left and right told apart by: {found.sides}",)
            if side
            else ("Not for clinical use.",),
        )
    for tissue in found.tissues:
        if tissue.label:
            yield _tissue(tissue, tissues[tissue.label], segments)
    yield from scan_quality(result)


def scan_quality(result: OpacificationResult) -> Iterator[Group]:
    """How much was read, what was found in the geometry, and the doubts; nothing where there is nothing to tell."""
    notes = [Note.quality(entry.finding, f"{entry.decision}: {entry.text}") for entry in result.ledger]
    notes += [Note.quality(finding.code, finding.text) for finding in result.quality]
    figures: tuple[Figure, ...] = ()
    if result.opacification is not None:
        figures = (Figure(private("read-share"), 100 * result.opacification.read_share, PERCENT),)
    if figures or notes:
        yield Group("scan quality", IMAGE_QUALITY, figures=figures, notes=tuple(notes))


def _lung(region: Region) -> tuple[Figure, ...]:
    return (
        Figure(VOLUME, region.lung_ml, MILLILITRE),
        *_given(private("lung-opacity-share"), region.opacity_percent, PERCENT),
        *_given(private("lung-aerated-share"), region.aerated_percent, PERCENT),
        *_given(MEAN_HU, region.mean_hu, HOUNSFIELD),
    )


def _opacity(region: Region, interval: Interval | None) -> tuple[Figure, ...]:
    return (
        Figure(VOLUME, region.opacity_ml, MILLILITRE, interval),
        Figure(private("volume-expected"), region.opacity_ml_expected, MILLILITRE),
    )


def _tissue(volume: TissueVolume, tissue: Tissue, segments: Mapping[str, Segment]) -> Group:
    code = pattern_code(tissue.name, opacity=tissue.opacity)
    if tissue.lung and not tissue.opacity:
        code = private("aerated-lung")
    return Group(
        f"tissue {volume.label}",
        code,
        tissue.side if tissue.lung else None,
        figures=(
            Figure(VOLUME, volume.ml, MILLILITRE),
            Figure(private("volume-expected"), volume.ml_expected, MILLILITRE),
            *_given(private("share-of-lungs"), volume.percent_of_lung, PERCENT),
            *_given(MEAN_HU, volume.mean_hu, HOUNSFIELD),
        ),
        segment=segments.get(f"tissue {volume.label}"),
        comments=(f"as the bundle names it: {tissue.name}",),
    )


def _given(name: Code, value: float | None, unit: Code) -> tuple[Figure, ...]:
    return () if value is None else (Figure(name, value, unit),)


def _interval(found: Opacification) -> Interval:
    interval = found.interval
    level = "level not measured" if interval.level is None else f"{interval.level:.0%} interval"
    return Interval(
        interval.low,
        interval.high,
        interval.level,
        f"{level} {interval.low:.1f} to {interval.high:.1f} mL; {interval.method}",
    )
