"""Which segments a CT's segmentation has, and how they are coded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.sr.coding import Code

from bedside.contract import Tissue
from bedside.results.dicom.codes import LATERALITY, LUNG, code_item, code_sequence, pattern_code, private
from bedside.results.dicom.identity import Identity

__all__ = ["Plan", "describe_segment", "plan_labels", "plan_segments"]

ANATOMY: Final = Code("123037004", "SCT", "Anatomical Structure")
ABNORMALITY: Final = Code("49755003", "SCT", "Morphologically Abnormal Structure")
"""CID 7150."""
ARTIFICIAL_INTELLIGENCE: Final = Code("123110", "DCM", "Artificial Intelligence")
"""CID 7162."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One segment."""

    name: str
    """``left lung``, ``right lung``, ``both lungs``, or ``tissue N`` for one label."""
    label: str
    """For people."""
    labels: tuple[int, ...]
    """Labels of the voxels in it."""
    category: Code
    """Anatomy, or an abnormality of it."""
    kind: Code
    """What it is."""
    side: str | None
    """``left``, ``right``, empty for both; None where there is no side."""
    in_lung: bool
    """Whether its region is the lung, rather than it being the lung."""


def plan_segments(tissues: Sequence[Tissue]) -> tuple[Plan, ...]:
    """Segments that may overlap: the lungs whole, with their opacities; each opacity; and what else is labelled.

    Left and right are segments of their own where the network tells all of the lung apart; else the lungs are one
    segment, beside the parts that it does tell apart.

    Args:
        tissues: Of the bundle, in the order of the labels.
    """
    lung = [label for label, tissue in enumerate(tissues) if tissue.lung]
    sided = all(tissues[label].side for label in lung)
    plans = []
    for side in ("right", "left") if sided else ("",):
        members = tuple(label for label in lung if tissues[label].side == side or not sided)
        name = f"{side} lung" if side else "both lungs"
        if members:
            plans.append(Plan(name, name.capitalize(), members, ANATOMY, LUNG, side, in_lung=False))
    alone = [
        each
        for each in plan_labels(tissues)
        if not (each.kind == private("aerated-lung") and (sided or not each.side))
    ]
    return (*plans, *alone)


def plan_labels(tissues: Sequence[Tissue]) -> tuple[Plan, ...]:
    """Segments that do not overlap: one for each label but the background's, 0."""
    plans = []
    for label, tissue in enumerate(tissues):
        if label == 0:
            continue
        aerated = tissue.lung and not tissue.opacity
        kind = private("aerated-lung") if aerated else pattern_code(tissue.name, opacity=tissue.opacity)
        category = ANATOMY if aerated else ABNORMALITY
        side = tissue.side if tissue.lung else None
        name = tissue.name.capitalize()[:64]
        plans.append(Plan(f"tissue {label}", name, (label,), category, kind, side, in_lung=tissue.lung))
    return tuple(plans)


def describe_segment(identity: Identity, plan: Plan, number: int) -> Dataset:
    """An item of Segment Sequence (PS3.3, C.8.20.4), with the algorithm that made it (AIR 6.5.3.1)."""
    kind = code_item(plan.kind)
    item = Dataset()
    item.SegmentNumber = number
    item.SegmentLabel = plan.label
    item.SegmentDescription = f"{plan.label}; not for clinical use"[:1024]
    item.SegmentAlgorithmType = "AUTOMATIC"
    item.SegmentAlgorithmName = identity.bundle.name[:64]
    item.SegmentedPropertyCategoryCodeSequence = code_sequence(plan.category)
    item.SegmentedPropertyTypeCodeSequence = Items([kind])
    if plan.in_lung:
        region = code_item(LUNG)
        region.AnatomicRegionModifierSequence = code_sequence(LATERALITY[plan.side or ""])
        item.AnatomicRegionSequence = Items([region])
    elif plan.side is not None:
        kind.SegmentedPropertyTypeModifierCodeSequence = code_sequence(LATERALITY[plan.side])
    item.TrackingID = f"bedside {plan.name}"
    item.TrackingUID = identity.tracking_uid(plan.name)
    algorithm = Dataset()
    algorithm.AlgorithmFamilyCodeSequence = code_sequence(ARTIFICIAL_INTELLIGENCE)
    algorithm.AlgorithmName = identity.bundle.name[:64]
    algorithm.AlgorithmVersion = identity.bundle.version[:64]
    algorithm.AlgorithmParameters = f"bundle sha256 {identity.bundle.digest}; engine {identity.engine.line}"
    algorithm.AlgorithmSource = "bedside"
    item.SegmentationAlgorithmIdentificationSequence = Items([algorithm])
    return item
