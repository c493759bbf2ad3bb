"""Pieces of a TID 1500 tree, made with highdicom's templates, which is imported when the first is made.

IHE RAD AI Results (AIR, 6.5.3) encodes findings and measurements as groups of TID 1500 (PS3.16) in a Comprehensive 3D
SR, each with a tracking identifier, its finding and finding site, and the algorithm that it comes from.
"""

# ruff: noqa: PLC0415 - highdicom is an extra, and slow to import

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from bedside.dicom.references import Instance
from bedside.errors import MissingExtraError
from bedside.results.dicom.codes import LATERALITY, LUNG, private
from bedside.results.dicom.findings import PERCENT, Figure, Group
from bedside.results.dicom.identity import Identity
from bedside.version import __version__

if TYPE_CHECKING:
    from highdicom import sr

__all__ = ["make_group", "make_report", "require_highdicom"]

COMMENT: Final = Code("121106", "DCM", "Comment")
IMAGE_LIBRARY: Final = Code("111028", "DCM", "Image Library")
IMAGE_GROUP: Final = Code("126200", "DCM", "Image Library Group")
MODALITY: Final = Code("121139", "DCM", "Modality")
MODALITIES: Final = MappingProxyType(
    {
        "CR": "Computed Radiography",
        "CT": "Computed Tomography",
        "DX": "Digital Radiography",
        "RG": "Radiographic imaging",
    }
)
"""CID 29, of what bedside analyses."""
SOURCE: Final = Code("260753009", "SCT", "Source")
UPPER: Final = Code("371886008", "SCT", "+, range of upper measurement uncertainty")
LOWER: Final = Code("371885007", "SCT", "-, range of lower measurement uncertainty")
"""CID 225, as TID 310 has them."""
DIGITS: Final = 4
"""Decimals of a number: far under any model's error, and the same on every engine that is right."""


def require_highdicom() -> None:
    """Make sure that results can be written as DICOM.

    Raises:
        MissingExtraError: highdicom is not installed.
    """
    try:
        import highdicom.sr  # noqa: F401
    except ImportError as error:
        raise MissingExtraError.of("highdicom", "dicom", "writing results as DICOM (--dicom)") from error


def make_report(identity: Identity, procedure: Code, groups: Iterable[Group]) -> Dataset:
    """The root of a TID 1500 Measurement Report, with the device that observed (TID 1002, 1004).

    Args:
        identity: Whose result it is.
        procedure: The imaging procedure that was analysed, not the algorithm (AIR 6.5.3).
        groups: At least one.
    """
    from highdicom import sr

    device = sr.DeviceObserverIdentifyingAttributes(
        uid=identity.device_uid(),
        name="bedside",
        manufacturer_name="bedside",
        model_name=identity.bundle.name,
        serial_number=identity.bundle.digest[:16],
    )
    context = sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=sr.CodedConcept("121007", "DCM", "Device"), observer_identifying_attributes=device
        )
    )
    report = sr.MeasurementReport(
        observation_context=context,
        procedure_reported=procedure,
        imaging_measurements=[make_group(identity, group) for group in groups],
        title=Code("126000", "DCM", "Imaging Measurement Report"),
    )
    root: Dataset = report[0]
    root.ContentSequence.insert(len(root.ContentSequence) - 1, _library(identity))  # before the measurements
    return root


def _library(identity: Identity) -> sr.ContainerContentItem:
    """TID 1600 Image Library: every instance that was analysed."""
    from highdicom import sr

    study = identity.study
    group = sr.ContainerContentItem(IMAGE_GROUP, relationship_type=sr.RelationshipTypeValues.CONTAINS)
    meaning = MODALITIES.get(study.modality)
    modality = Code("OT", "DCM", "Other") if meaning is None else Code(study.modality, "DCM", meaning)
    context = sr.RelationshipTypeValues.HAS_ACQ_CONTEXT
    items: list[sr.ContentItem] = [sr.CodeContentItem(MODALITY, modality, relationship_type=context)]
    items += [
        sr.ImageContentItem(
            SOURCE,
            each.sop_class_uid,
            each.sop_instance_uid,
            relationship_type=sr.RelationshipTypeValues.CONTAINS,
        )
        for each in study.instances
    ]
    group.ContentSequence = sr.ContentSequence(items)
    library = sr.ContainerContentItem(IMAGE_LIBRARY, relationship_type=sr.RelationshipTypeValues.CONTAINS)
    library.ContentSequence = sr.ContentSequence([group])
    return library


def make_group(
    identity: Identity, group: Group
) -> sr.MeasurementsAndQualitativeEvaluations | sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    """One Measurement Group: of a segment (TID 1411), or of the images that were analysed (TID 1501)."""
    from highdicom import sr

    tracking = sr.TrackingIdentifier(identity.tracking_uid(group.name), f"bedside {group.name}")
    site = None if group.side is None else [sr.FindingSite(LUNG, laterality=LATERALITY[group.side])]
    algorithm = _algorithm(identity)
    figures = [_measurement(figure) for figure in group.figures]
    notes = [sr.QualitativeEvaluation(note.name, note.value) for note in group.notes]
    for note, item in zip(group.notes, notes, strict=True):
        if note.text:
            item[0].ContentSequence = sr.ContentSequence([_text(COMMENT, note.text, within=True)])
    made: sr.MeasurementsAndQualitativeEvaluations | sr.VolumetricROIMeasurementsAndQualitativeEvaluations
    if group.segment is None:
        made = sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            finding_type=group.finding,
            algorithm_id=algorithm,
            finding_sites=site,
            measurements=figures or None,
            qualitative_evaluations=notes or None,
            source_images=_sources(identity.study.instances),
        )
    else:
        made = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            referenced_segment=sr.ReferencedSegment(
                sop_class_uid=group.segment.instance.sop_class_uid,
                sop_instance_uid=group.segment.instance.sop_instance_uid,
                segment_number=group.segment.number,
                source_series=sr.SourceSeriesForSegmentation(identity.study.series_uid),
            ),
            finding_type=group.finding,
            algorithm_id=algorithm,
            finding_sites=site,
            measurements=figures or None,
            qualitative_evaluations=notes or None,
        )
    made[0].ContentSequence.extend(_text(COMMENT, line) for line in group.comments)
    return made


def _algorithm(identity: Identity) -> sr.AlgorithmIdentification:
    """TID 4019: the bundle's name and version; its digest and the engine as parameters."""
    from highdicom import sr

    return sr.AlgorithmIdentification(
        identity.bundle.name,
        identity.bundle.version,
        [
            f"bundle sha256 {identity.bundle.digest}",
            f"engine {identity.engine.line}",
            f"bedside {__version__}",
        ],
    )


def _measurement(figure: Figure) -> sr.Measurement:
    """TID 300, with its interval as upper and lower uncertainty (TID 310) in the unit of the value."""
    from highdicom import sr

    made = sr.Measurement(figure.name, round(float(figure.value), DIGITS), figure.unit)
    interval = figure.interval
    if interval is None:
        return made
    properties = sr.RelationshipTypeValues.HAS_PROPERTIES
    ends = ((UPPER, interval.high - figure.value), (LOWER, figure.value - interval.low))
    children = [
        sr.NumContentItem(
            name, round(max(0.0, float(width)), DIGITS), figure.unit, relationship_type=properties
        )
        for name, width in ends
    ]
    if interval.level is not None:
        children.append(
            sr.NumContentItem(
                private("level"), round(100 * interval.level, 2), PERCENT, relationship_type=properties
            )
        )
    content = made[0].ContentSequence if "ContentSequence" in made[0] else sr.ContentSequence()
    content.extend([*children, _text(private("intervals"), interval.text, within=True)])
    made[0].ContentSequence = content
    return made


def _text(name: Code, text: str, *, within: bool = False) -> sr.TextContentItem:
    """A text item: in a group, or of a statement within one."""
    from highdicom import sr

    relation = sr.RelationshipTypeValues.HAS_PROPERTIES if within else sr.RelationshipTypeValues.CONTAINS
    return sr.TextContentItem(name, text, relationship_type=relation)


def _sources(instances: Sequence[Instance]) -> list[sr.SourceImageForMeasurementGroup] | None:
    """The pictures of a group, where they are few enough to be named in each."""
    from highdicom import sr

    if len(instances) != 1:
        return None
    return [
        sr.SourceImageForMeasurementGroup(
            each.sop_class_uid,
            each.sop_instance_uid,
            None if each.frame is None else [each.frame],
        )
        for each in instances
    ]
