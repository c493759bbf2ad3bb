"""A CT's labels as a segmentation or a label map (PS3.3, A.51), on the very pixels of the slices.

Frames have the matrix and the directions of the source's files, so nothing is resampled and nothing is mirrored: the
labels, which come in canonical order, are turned back. A slice that was blended from two (see
`bedside.dicom.series`) refers to both.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence as Items
from pydicom.sr.coding import Code

from bedside.dicom.references import Instance, References
from bedside.results.dicom.codes import code_sequence
from bedside.results.dicom.frames import BinaryFrames, LabelFrames
from bedside.results.dicom.groups import (
    encode_item,
    encode_sequence,
    frame_content,
    segment_identification,
)
from bedside.results.dicom.header import begin, encode, reference, series_references
from bedside.results.dicom.identity import Identity, derive_uid
from bedside.results.dicom.placement import Placement
from bedside.results.dicom.segments import Plan, describe_segment

__all__ = ["Segmentation", "make_segmentation"]

SEGMENTATION: Final = Code("113076", "DCM", "Segmentation")
"""CID 7203."""
SOURCE_IMAGE: Final = Code("121322", "DCM", "Source image for image processing operation")
"""CID 7202."""
_PER_FRAME: Final = 0x52009230
_PIXEL_DATA: Final = 0x7FE00010


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A segmentation, ready to be written."""

    header: FileDataset
    """All but the functional groups of each frame and Pixel Data, its last elements."""
    groups: list[bytes]
    """Items of Per-Frame Functional Groups Sequence, encoded."""
    frames: BinaryFrames | LabelFrames
    """The pixels."""
    numbers: dict[str, int]
    """`Plan.name` -> Segment Number, of the segments that are there."""

    @property
    def instance(self) -> Instance:
        """How others refer to it."""
        return Instance(str(self.header.SOPClassUID), str(self.header.SOPInstanceUID), None)

    def encode(self) -> Iterator[bytes]:
        """The file, in pieces: memory does not hold the pixels."""
        yield encode(self.header)
        yield encode_sequence(_PER_FRAME, *self.groups)
        odd = self.frames.n_bytes % 2
        yield struct.pack(
            "<HH2sHL", _PIXEL_DATA >> 16, _PIXEL_DATA & 0xFFFF, b"OB", 0, self.frames.n_bytes + odd
        )
        yield from self.frames.data()
        yield b"\0" * odd


def make_segmentation(
    identity: Identity,
    plans: Sequence[Plan],
    frames: BinaryFrames | LabelFrames,
    placement: Placement,
    references: References,
) -> Segmentation:
    """A segmentation of what was found.

    Args:
        identity: Whose result it is.
        plans: The segments that were looked for, as the frames were made with; those without a voxel are left out.
        frames: With all slices that were read.
        placement: Where they are.
        references: The slices' instances.
    """
    binary = isinstance(frames, BinaryFrames)
    made = begin(identity, "segmentation" if binary else "labelmap")
    found = sorted({plan for plan, _ in frames.keys}) if binary else list(range(len(plans)))
    number = (
        {plan: place for place, plan in enumerate(found, 1)}
        if binary
        else {place: plan.labels[0] for place, plan in enumerate(plans)}
    )
    _add_image(made, frames, placement, binary=binary)
    if binary:
        made.SegmentsOverlap = "YES" if _overlap([plans[each] for each in found]) else "NO"
    made.SegmentSequence = Items([describe_segment(identity, plans[each], number[each]) for each in found])
    made.FrameOfReferenceUID = references.frame_of_reference_uid or derive_uid("frame", references.series_uid)
    made.PositionReferenceIndicator = identity.study.position_reference
    made.ReferencedSeriesSequence = series_references(
        [(references.series_uid, identity.study.instances)], keyword="ReferencedInstanceSequence"
    )
    _add_dimensions(made, binary=binary)
    made.SharedFunctionalGroupsSequence = Items([placement.shared()])
    groups = list(_per_frame(frames, number, placement, references))
    return Segmentation(made, groups, frames, {plans[each].name: number[each] for each in found})


def _add_image(
    made: FileDataset, frames: BinaryFrames | LabelFrames, placement: Placement, *, binary: bool
) -> None:
    made.ImageType = ["DERIVED", "PRIMARY"]
    made.ContentLabel = "LUNG_OPACITY"
    made.ContentDescription = "Lungs and their opacities; not for clinical use"
    made.ContentCreatorName = ""
    made.BodyPartExamined = "CHEST"
    made.LossyImageCompression = "00"
    made.SegmentationType = "BINARY" if binary else "LABELMAP"
    made.NumberOfFrames = len(frames.keys)
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.Rows, made.Columns = placement.matrix
    made.BitsAllocated = made.BitsStored = frames.bits
    made.HighBit = frames.bits - 1
    made.PixelRepresentation = 0
    if not binary:
        made.add_new(0x00280120, "US", 0)  # Pixel Padding Value: the background


def _add_dimensions(made: FileDataset, *, binary: bool) -> None:
    """Frames are sorted by segment, then by position (PS3.3, C.7.6.17)."""
    uid = derive_uid("dimensions", str(made.SOPInstanceUID))
    organization = Dataset()
    organization.DimensionOrganizationUID = uid
    made.DimensionOrganizationSequence = Items([organization])
    wanted = [(0x0062000B, 0x0062000A, "Referenced Segment Number")] if binary else []
    wanted.append((0x00200032, 0x00209113, "Image Position (Patient)"))
    items = []
    for pointer, group, label in wanted:
        item = Dataset()
        item.DimensionIndexPointer = pointer
        item.FunctionalGroupPointer = group
        item.DimensionOrganizationUID = uid
        item.DimensionDescriptionLabel = label
        items.append(item)
    made.DimensionIndexSequence = Items(items)


def _per_frame(
    frames: BinaryFrames | LabelFrames, number: dict[int, int], placement: Placement, references: References
) -> Iterator[bytes]:
    """Items of Per-Frame Functional Groups Sequence, in ascending order of their elements."""
    slices = sorted({index for _, index in frames.keys})
    rank = {index: place for place, index in enumerate(slices, 1)}
    derivation = {index: _derivation(_sources(references, index)) for index in slices}
    position = {index: _plane_position(placement, index) for index in slices}
    binary = isinstance(frames, BinaryFrames)
    for plan, index in frames.keys:
        if binary:
            indices = frame_content(number[plan], rank[index])
            yield derivation[index] + indices + position[index] + segment_identification(number[plan])
        else:
            yield derivation[index] + frame_content(rank[index]) + position[index]


def _sources(references: References, index: int) -> list[Instance]:
    """The instance of a slice; of a blended one, the nearest on each side."""
    own = references.slices[index]
    if own is not None:
        return [own]
    below = next((each for each in references.slices[index::-1] if each is not None), None)
    above = next((each for each in references.slices[index:] if each is not None), None)
    return [each for each in (below, above) if each is not None]


def _derivation(sources: Sequence[Instance]) -> bytes:
    images = []
    for source in sources:
        item = reference(source)
        item.SpatialLocationsPreserved = "YES"
        item.PurposeOfReferenceCodeSequence = code_sequence(SOURCE_IMAGE)
        images.append(item)
    derived = Dataset()
    derived.SourceImageSequence = Items(images)
    derived.DerivationCodeSequence = code_sequence(SEGMENTATION)
    return encode_sequence(0x00089124, encode_item(derived))


def _plane_position(placement: Placement, index: int) -> bytes:
    return encode_sequence(0x00209113, encode_item(placement.position(index)))


def _overlap(plans: Sequence[Plan]) -> bool:
    labels = [label for plan in plans for label in plan.labels]
    return len(labels) > len(set(labels))
