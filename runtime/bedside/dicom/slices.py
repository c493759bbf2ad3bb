"""What one file says of its slices: where each lies in the patient, and how its pixels become HU.

A file of a plain CT holds one slice. One of an Enhanced CT, or of a legacy one that was converted, holds many:
what a plain file says at its top level then stands in functional groups, shared or for each frame
(PS3.3, C.7.6.16 and A.38).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from typing import BinaryIO, Final

import numpy as np

from bedside.dicom.elements import DataSet
from bedside.dicom.frames import Frame, find_frames
from bedside.dicom.grayscale import as_stored, read_rescale
from bedside.dicom.layout import Layout, count_frames, read_layout
from bedside.dicom.source import Source, find_size, read_source
from bedside.dicom.tags import Tag
from bedside.errors import BedsideError, InputError, RefusedError

__all__ = ["Part", "Plane", "Rescale", "Slice", "read_part"]

UNIT_TOLERANCE: Final = 1e-3
"""How far direction cosines may be from length 1 and from a right angle: they are written with few digits."""
PIXEL_MM: Final = (0.02, 10.0)
"""Pixels beyond are mistaken numbers: a CT's field of view of 20 to 700 mm has 64 to 1,024 columns."""


@dataclass(frozen=True, slots=True)
class Plane:
    """Where a slice lies (PS3.3, C.7.6.2)."""

    position: tuple[float, float, float]
    """Centre of the first pixel, LPS, mm: Image Position (Patient)."""
    orientation: tuple[float, float, float, float, float, float]
    """Unit vectors along which columns, then rows are counted: Image Orientation (Patient)."""
    spacing_mm: tuple[float, float]
    """Distance between rows, and between columns: Pixel Spacing."""


@dataclass(frozen=True, slots=True)
class Rescale:
    """How stored values become HU."""

    slope: float
    """Rescale Slope."""
    intercept: float
    """Rescale Intercept."""
    kind: str
    """Rescale Type; empty where it is absent."""
    stated: bool
    """Whether the file has a rescale at all."""
    padding: tuple[int, int] | None
    """Least and greatest stored value that stand for no picture."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One picture of a series; its pixels stay in the file."""

    file: int
    """Number of its file in the archive."""
    source: Source
    """Where the pixel data lies; without the other attributes, and without a body."""
    layout: Layout | None
    """Rows, columns and bits; None where there is `problem`, or no picture."""
    frame: Frame | None
    """Which frame of a multi-frame file; None in a plain one."""
    number: int
    """Number of the frame, from 1."""
    plane: Plane | None
    """None where the file doesn't say."""
    rescale: Rescale | None
    """None where there is `problem`, or no picture."""
    thickness_mm: float | None
    """Slice Thickness."""
    localizer: bool
    """Whether Image Type says so."""
    acquisition: tuple[bytes, ...]
    """What tells acquisitions within a series apart, as stored: their number, stack and time."""
    sop_class_uid: str
    """SOP Class UID."""
    sop_instance_uid: str
    """SOP Instance UID."""
    problem: str = ""
    """Why the pixels can't be read, as far as it is known before decoding."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one file adds to a series."""

    series_uid: str
    """Series Instance UID."""
    study_uid: str
    """Study Instance UID."""
    frame_of_reference_uid: str
    """Frame of Reference UID: positions with the same one can be compared."""
    modality: str
    """Modality, as it may be shown."""
    patient_position: str
    """Patient Position, e.g. ``HFS``; empty where it is absent."""
    slices: tuple[Slice, ...]
    """In the order of the frames; none where the file holds no picture in grey."""


def read_part(stream: BinaryIO, number: int) -> Part:
    """Read the header of a file.

    Args:
        stream: The file.
        number: Its number in the archive.

    Raises:
        InputError: ``not-an-image``, ``broken-dicom``.
    """
    source = read_source(stream)
    dataset = source.dataset
    modality = dataset.text(Tag.MODALITY).upper()
    plain = (
        modality.isascii() and modality.replace("_", "").replace(" ", "").isalnum() and len(modality) <= 16
    )
    return Part(
        series_uid=dataset.text(Tag.SERIES_INSTANCE_UID),
        study_uid=dataset.text(Tag.STUDY_INSTANCE_UID),
        frame_of_reference_uid=dataset.text(Tag.FRAME_OF_REFERENCE_UID),
        modality=modality if plain else "unknown",
        patient_position=dataset.text(Tag.PATIENT_POSITION).upper(),
        slices=tuple(_read_slices(stream, source, number)),
    )


def _read_slices(stream: BinaryIO, source: Source, number: int) -> Iterator[Slice]:
    dataset = source.dataset
    bare = replace(source, dataset=DataSet({}, dataset.pixels), body=None)
    common = dataset.items(Tag.SHARED_FUNCTIONAL_GROUPS_SEQUENCE)[:1]
    groups = dataset.items(Tag.PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)
    count = count_frames(dataset)
    whole = _Reader(number, bare, dataset)
    try:
        layout = read_layout(dataset, frames=True)
        many = count > 1 or bool(groups)
        frames: list[Frame | None] = list(find_frames(stream, source, layout, count)) if many else [None]
    except RefusedError:
        return  # a report in colour, a palette: no slice
    except InputError as error:
        if error.code != "no-pixels":
            for place, group in enumerate(groups or repeat(None, 1), 1):
                scope = (dataset,) if group is None else (group, *common, dataset)
                yield whole.read(scope, place, None, None, problem=error.message)
        return
    size = find_size(stream)
    for place, frame in enumerate(frames, 1):
        scope = (*groups[place - 1 : place], *common, dataset)
        yield whole.read(scope, place, frame, layout, problem=_find_cut(source, layout, frame, size))


def _find_cut(source: Source, layout: Layout, frame: Frame | None, size: int) -> str:
    """Why pixel data that the file is too short for can't be read; empty where nothing is known of it."""
    pixels = source.dataset.pixels
    if pixels is None or source.body is not None:
        return ""
    if frame is not None:
        end = max(start + length for start, length in frame.spans)
    else:
        end = pixels.offset + (layout.n_bytes if source.native else 0)
    return "the pixel data ends early" if end > size else ""


class _Reader:
    """Reads the attributes of one slice, each from the innermost of the data sets that holds it."""

    def __init__(self, file: int, source: Source, dataset: DataSet) -> None:
        self._file = file
        self._source = source
        self._dataset = dataset
        self._sop_class_uid = dataset.text(Tag.SOP_CLASS_UID)
        self._sop_instance_uid = dataset.text(Tag.SOP_INSTANCE_UID)

    def read(
        self,
        scope: tuple[DataSet, ...],
        number: int,
        frame: Frame | None,
        layout: Layout | None,
        *,
        problem: str = "",
    ) -> Slice:
        rescale = None
        if layout is not None:
            try:
                rescale = _read_rescale(_inside(scope, Tag.PIXEL_VALUE_TRANSFORMATION_SEQUENCE), layout)
            except BedsideError as error:
                problem = error.message
        measures = _inside(scope, Tag.PIXEL_MEASURES_SEQUENCE)
        thickness = _finite(_first(measures, Tag.SLICE_THICKNESS), 1)
        kinds = [
            *_first_texts(_inside(scope, Tag.CT_IMAGE_FRAME_TYPE_SEQUENCE), Tag.FRAME_TYPE),
            *self._dataset.texts(Tag.IMAGE_TYPE),
        ]
        return Slice(
            file=self._file,
            source=self._source,
            layout=layout,
            frame=frame,
            number=number,
            plane=_read_plane(scope, measures),
            rescale=rescale,
            thickness_mm=thickness[0] if thickness and thickness[0] > 0 else None,
            localizer="LOCALIZER" in {kind.upper() for kind in kinds},
            acquisition=_read_acquisition(scope),
            sop_class_uid=self._sop_class_uid,
            sop_instance_uid=self._sop_instance_uid,
            problem=problem,
        )


def _inside(scope: tuple[DataSet, ...], tag: Tag) -> tuple[DataSet, ...]:
    """The first item of sequence ``tag`` in each data set, then the top level itself."""
    return (*(item for dataset in scope for item in dataset.items(tag)[:1]), scope[-1])


def _first(scope: tuple[DataSet, ...], tag: Tag) -> list[float]:
    return next((dataset.decimals(tag) for dataset in scope if tag in dataset.elements), [])


def _first_texts(scope: tuple[DataSet, ...], tag: Tag) -> list[str]:
    return next((dataset.texts(tag) for dataset in scope if tag in dataset.elements), [])


def _finite(values: list[float], count: int) -> list[float]:
    """``values`` where they are ``count`` finite numbers, else none."""
    return values if len(values) == count and all(map(math.isfinite, values)) else []


def _read_plane(scope: tuple[DataSet, ...], measures: tuple[DataSet, ...]) -> Plane | None:
    position = _finite(_first(_inside(scope, Tag.PLANE_POSITION_SEQUENCE), Tag.IMAGE_POSITION_PATIENT), 3)
    cosines = _finite(
        _first(_inside(scope, Tag.PLANE_ORIENTATION_SEQUENCE), Tag.IMAGE_ORIENTATION_PATIENT), 6
    )
    spacing = _finite(_first(measures, Tag.PIXEL_SPACING), 2)
    if not (position and cosines and spacing):
        return None
    if not PIXEL_MM[0] <= min(spacing) <= max(spacing) <= PIXEL_MM[1]:
        return None
    along, down = np.array(cosines[:3]), np.array(cosines[3:])
    lengths = np.linalg.norm(along), np.linalg.norm(down)
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(along @ down)) > UNIT_TOLERANCE:
        return None
    a, b, c, d, e, f = (float(value) for value in (*(along / lengths[0]), *(down / lengths[1])))
    x, y, z = position
    return Plane((x, y, z), (a, b, c, d, e, f), (spacing[0], spacing[1]))


def _read_rescale(scope: tuple[DataSet, ...], layout: Layout) -> Rescale:
    holder = next((dataset for dataset in scope if Tag.RESCALE_SLOPE in dataset.elements), scope[-1])
    top = scope[-1]
    if top.items(Tag.MODALITY_LUT_SEQUENCE):
        raise InputError("bad-attribute", "a Modality LUT in place of a rescale, which a CT does not have")
    slope, intercept = read_rescale(holder)
    padding = top.integers(Tag.PIXEL_PADDING_VALUE, signed=layout.signed)
    limit = top.integers(Tag.PIXEL_PADDING_RANGE_LIMIT, signed=layout.signed) or padding
    ends = [as_stored(end, layout) for end in (*padding[:1], *limit[:1])] if padding else []
    return Rescale(
        slope=slope,
        intercept=intercept,
        kind=holder.text(Tag.RESCALE_TYPE).upper(),
        stated=Tag.RESCALE_SLOPE in holder.elements and Tag.RESCALE_INTERCEPT in holder.elements,
        padding=(min(ends), max(ends)) if ends else None,
    )


def _read_acquisition(scope: tuple[DataSet, ...]) -> tuple[bytes, ...]:
    content = _inside(scope, Tag.FRAME_CONTENT_SEQUENCE)
    tags = (Tag.ACQUISITION_NUMBER, Tag.FRAME_ACQUISITION_NUMBER, Tag.STACK_ID, Tag.TEMPORAL_POSITION_INDEX)
    found = (
        next((dataset.elements[tag].value for dataset in content if tag in dataset.elements), b"")
        for tag in tags
    )
    return tuple(found)
