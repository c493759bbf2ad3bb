"""What all objects have in common: patient, study, series, equipment, provenance; and their encoding."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Final

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian

from bedside.dicom.references import Instance
from bedside.results.dicom.codes import code_sequence, scheme_items
from bedside.results.dicom.identity import KINDS, Identity, derive_uid
from bedside.results.dicom.quiet import quiet
from bedside.version import __version__

__all__ = ["SOURCE_IMAGE", "begin", "encode", "reference", "series_references"]

NOTICE: Final = "RESEARCH - not for clinical use"
"""Ends the description of every series."""
MAKER: Final = "bedside"
PROCESSING_EQUIPMENT: Final = Code("109102", "DCM", "Processing Equipment")
"""CID 7005. AIR 6.5.3.1 asks for a "Processing Algorithm", for which DICOM has no code yet."""
SOURCE_IMAGE: Final = Code("121322", "DCM", "Source image for image processing operation")
"""CID 7202."""


def begin(identity: Identity, kind: str) -> FileDataset:
    """An object with the modules that are common to all, ready for those of its own.

    Contributing Equipment Sequence names the algorithm with its version, and in Device UID its digest (IHE RAD AIR,
    6.5.3.1). Content Qualification says RESEARCH.

    Args:
        identity: Whose result it is.
        kind: One of `KINDS`.
    """
    what, study, now = KINDS[kind], identity.study, identity.local_now()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(what.sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(identity.instance_uid(kind))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(derive_uid("implementation"))
    meta.ImplementationVersionName = f"BEDSIDE_{__version__}"[:16]
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for element in study.modules:
        made.add(element)
    made.StudyInstanceUID = study.study_uid
    if study.utc_offset:
        made.TimezoneOffsetFromUTC = now.strftime("%z")
    made.SOPClassUID = meta.MediaStorageSOPClassUID
    made.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    made.InstanceCreationDate = made.ContentDate = now.strftime("%Y%m%d")
    made.InstanceCreationTime = made.ContentTime = now.strftime("%H%M%S")
    made.ContentQualification = "RESEARCH"
    made.Modality = what.modality
    made.SeriesInstanceUID = identity.series_uid(kind)
    made.SeriesNumber = identity.series_number(kind)
    made.SeriesDescription = f"{what.description} ({NOTICE})"
    made.InstanceNumber = max(1, study.instance_number)
    made.Manufacturer = MAKER
    made.ManufacturerModelName = identity.bundle.name[:64]
    made.DeviceSerialNumber = identity.bundle.digest[:16]
    made.SoftwareVersions = [f"bedside {__version__}", f"bundle {identity.bundle.version}"[:64]]
    made.ContributingEquipmentSequence = Sequence([_equipment(identity)])
    made.CodingSchemeIdentificationSequence = scheme_items()
    return made


def reference(instance: Instance) -> Dataset:
    """An item that refers to an instance, or to a frame of it."""
    item = Dataset()
    item.ReferencedSOPClassUID = instance.sop_class_uid
    item.ReferencedSOPInstanceUID = instance.sop_instance_uid
    if instance.frame is not None:
        item.ReferencedFrameNumber = instance.frame
    return item


def series_references(groups: Iterable[tuple[str, Iterable[Instance]]], *, keyword: str) -> Sequence:
    """Series with the instances in them, each instance once.

    Args:
        groups: Series Instance UID, and instances.
        keyword: Of the sequence of instances: ``ReferencedSOPSequence`` or ``ReferencedInstanceSequence``.
    """
    items = []
    for uid, instances in groups:
        item = Dataset()
        item.SeriesInstanceUID = uid
        whole = {
            each.sop_instance_uid: Instance(each.sop_class_uid, each.sop_instance_uid, None)
            for each in instances
        }
        setattr(item, keyword, Sequence([reference(each) for each in whole.values()]))
        items.append(item)
    return Sequence(items)


def encode(made: FileDataset) -> bytes:
    """The object as a DICOM file (PS3.10), explicit VR little endian."""
    stream = io.BytesIO()
    with quiet():
        made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _equipment(identity: Identity) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = code_sequence(PROCESSING_EQUIPMENT)
    item.Manufacturer = MAKER
    item.ManufacturerModelName = identity.bundle.name[:64]
    item.SoftwareVersions = [f"bundle {identity.bundle.version}"[:64], f"bedside {__version__}"]
    item.DeviceUID = identity.device_uid()
    item.ContributionDateTime = identity.now.strftime("%Y%m%d%H%M%S%z")
    item.ContributionDescription = (
        f"{identity.engine.backend} {identity.engine.precision}; "
        f"sha256 {identity.bundle.digest}; not for clinical use"
    )
    return item
