"""Where an X-ray's score comes from, as numbers: a parametric map (PS3.3, A.75) on the pixels of the X-ray as stored.

Each pixel holds how many points its place adds to the score (see `bedside.heatmap`), 16 bits with a real-world value
mapping. The map has the matrix of its source and refers to it, with locations preserved. An X-ray has no position in
the patient, and a map needs one: so it lies in a frame of reference of its own, in millimetres of the detector where
they are known, with the directions of the upright picture. IHE RAD AIR 6.5.3, parametric maps.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence as Items
from pydicom.sr.coding import Code

from bedside.cxr import Frame
from bedside.dicom.elements import DataSet
from bedside.dicom.geometry import Axes
from bedside.dicom.orientation import put_upright
from bedside.heatmap import interpolation
from bedside.results.dicom.codes import code_item, code_sequence, private
from bedside.results.dicom.header import SOURCE_IMAGE, begin, reference, series_references
from bedside.results.dicom.identity import Identity, derive_uid
from bedside.results.dicom.placement import place, turn_back
from bedside.scan import Grid

__all__ = ["find_axes", "make_map"]

QUANTITY: Final = Code("246205007", "SCT", "Quantity")
CLASS_ACTIVATION: Final = Code("130402", "DCM", "Class activation")
NO_UNITS: Final = Code("1", "UCUM", "no units")
TOP: Final = 65535
"""Largest stored value."""
_ALL_AXES: Final = tuple(
    Axes(transposed, rows, columns)
    for transposed in (False, True)
    for rows in (False, True)
    for columns in (False, True)
)


def find_axes(dataset: DataSet) -> Axes:
    """How a reader turns a picture upright by its own header, from stored pixels to those that are scored."""
    probe = np.arange(6, dtype=np.float32).reshape(2, 3)
    upright, _, _ = put_upright(probe, None, dataset)
    return next(axes for axes in _ALL_AXES if np.array_equal(axes.turn(probe), upright))


def make_map(
    identity: Identity,
    activation: npt.NDArray[np.float32],
    frame: Frame,
    shape: tuple[int, int],
    axes: Axes,
    *,
    spacing_mm: tuple[float, float] | None = None,
) -> FileDataset:
    """The map of the geographic extent.

    Args:
        identity: Whose result it is; its one source instance is the X-ray.
        activation: ``(h, w)`` points of the score.
        frame: Where it lies in the upright picture.
        shape: ``(H, W)`` of the upright picture.
        axes: From stored to upright.
        spacing_mm: Distance of rows and of columns of the upright picture; None where it is unknown.
    """
    across = interpolation(shape[1], frame.left, frame.width, activation.shape[1])
    along = interpolation(shape[0], frame.top, frame.height, activation.shape[0])
    values = along @ (activation @ across.T)  # (h, w) -> (h, W) -> (H, W), points
    low, high = float(values.min()), float(values.max())
    slope = (high - low) / TOP or 1.0
    stored = turn_back(axes, np.rint((values - low) / slope).astype("<u2"))
    made = begin(identity, "map")
    made.ImageType = ["DERIVED", "PRIMARY", "STATIC", "NONE"]
    made.ContentLabel = "EXTENT"
    made.ContentDescription = "Local contribution to geographic extent, in points"
    made.ContentCreatorName = ""
    made.BodyPartExamined = "CHEST"
    made.BurnedInAnnotation = "NO"
    made.RecognizableVisualFeatures = "NO"
    made.LossyImageCompression = "00"
    made.PresentationLUTShape = "IDENTITY"
    made.AcquisitionContextSequence = Items()
    made.NumberOfFrames = 1
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.Rows, made.Columns = stored.shape
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
    source = identity.study.instances
    made.ReferencedSeriesSequence = series_references(
        [(identity.study.series_uid, source)], keyword="ReferencedInstanceSequence"
    )
    _add_dimensions(made)
    made.FrameOfReferenceUID = derive_uid("detector", source[0].sop_instance_uid)
    made.PositionReferenceIndicator = ""
    shared = _place(shape, axes, spacing_mm)
    shared.ParametricMapFrameTypeSequence = Items([_one(FrameType=made.ImageType)])
    made.SharedFunctionalGroupsSequence = Items([shared])
    image = reference(source[0])
    image.SpatialLocationsPreserved = "YES"
    image.PurposeOfReferenceCodeSequence = code_sequence(SOURCE_IMAGE)
    derived = Dataset()
    derived.SourceImageSequence = Items([image])
    derived.DerivationCodeSequence = code_sequence(CLASS_ACTIVATION)
    per_frame = Dataset()
    per_frame.DerivationImageSequence = Items([derived])
    per_frame.RealWorldValueMappingSequence = Items([_mapping(slope, low)])
    per_frame.FrameContentSequence = Items([_one(DimensionIndexValues=[1])])
    made.PerFrameFunctionalGroupsSequence = Items([per_frame])
    made.PixelData = np.ascontiguousarray(stored).tobytes()
    made["PixelData"].VR = "OW"
    return made


def _place(shape: tuple[int, int], axes: Axes, spacing_mm: tuple[float, float] | None) -> Dataset:
    """What is said of the frame's place, and of how it is shown, in Shared Functional Groups Sequence."""
    height, width = spacing_mm or (1.0, 1.0)
    plane = np.array([[0, 0, width, 0], [1, 0, 0, 0], [0, -height, 0, 0], [0, 0, 0, 1]], np.float64)
    placement = place(Grid((1, *shape), plane), axes)
    shared = placement.shared()
    shared.PlanePositionSequence = Items([placement.position(0)])
    shared.PixelValueTransformationSequence = Items(
        [_one(RescaleIntercept=0, RescaleSlope=1, RescaleType="US")]
    )
    shared.FrameVOILUTSequence = Items([_one(WindowCenter=TOP / 2, WindowWidth=TOP)])
    shared.FrameAnatomySequence = Items([_anatomy()])
    return shared


def _mapping(slope: float, intercept: float) -> Dataset:
    quantity = Dataset()
    quantity.ValueType = "CODE"
    quantity.ConceptNameCodeSequence = code_sequence(QUANTITY)
    quantity.ConceptCodeSequence = code_sequence(CLASS_ACTIVATION)
    item = Dataset()
    item.RealWorldValueFirstValueMapped = 0
    item.RealWorldValueLastValueMapped = TOP
    item["RealWorldValueFirstValueMapped"].VR = item["RealWorldValueLastValueMapped"].VR = "US"
    item.RealWorldValueIntercept = intercept
    item.RealWorldValueSlope = slope
    item.LUTExplanation = private("extent").meaning
    item.LUTLabel = "EXTENT"
    item.MeasurementUnitsCodeSequence = Items([code_item(NO_UNITS)])
    item.QuantityDefinitionSequence = Items([quantity])
    return item


def _add_dimensions(made: FileDataset) -> None:
    uid = derive_uid("dimensions", str(made.SOPInstanceUID))
    made.DimensionOrganizationSequence = Items([_one(DimensionOrganizationUID=uid)])
    made.DimensionIndexSequence = Items(
        [
            _one(
                DimensionIndexPointer=0x00409210,
                FunctionalGroupPointer=0x00409096,
                DimensionOrganizationUID=uid,
                DimensionDescriptionLabel="LUT Label",
            )
        ]
    )


def _anatomy() -> Dataset:
    item = Dataset()
    item.FrameLaterality = "B"
    item.AnatomicRegionSequence = code_sequence(Code("51185008", "SCT", "Chest"))
    return item


def _one(**attributes: object) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item
