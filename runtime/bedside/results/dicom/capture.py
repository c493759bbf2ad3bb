"""Pictures for every viewer: secondary captures (PS3.3, A.8.1) with the notice burnt in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import FileDataset
from pydicom.sequence import Sequence as Items

from bedside.dicom.references import Instance
from bedside.report.lettering import Colour, length, write
from bedside.results.dicom.codes import code_sequence
from bedside.results.dicom.header import SOURCE_IMAGE, begin, reference
from bedside.results.dicom.identity import Identity

__all__ = ["BANNER", "LONGEST", "make_capture", "stamp"]

BANNER: Final = "NOT FOR DIAGNOSTIC USE"
"""Burnt in above and below every picture."""
LONGEST: Final = 2048
"""Pixels of the longer side: what a reading screen shows of a portrait picture; 12 MiB at most."""
_AMBER: Final[Colour] = (255, 190, 60)
_SHARE: Final = 0.5
"""Of the width that the banner takes, where that is not too large."""
_TEXT: Final = (12, 48)
"""Smallest and largest text of the banner, pixels to the em."""

_Bytes = npt.NDArray[np.uint8]


def stamp(pixels: _Bytes) -> _Bytes:
    """A picture of at most `LONGEST` with `BANNER` in a strip above and below, ``(H, W, 3)`` uint8, new."""
    picture = Image.fromarray(pixels)
    if max(picture.size) > LONGEST:
        picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    width, height = picture.size
    size = max(_TEXT[0], min(_TEXT[1], round(_TEXT[0] * _SHARE * width / length(BANNER, _TEXT[0]))))
    strip = 2 * size
    whole = max(width, round(length(BANNER, size)) + size)
    canvas = Image.new("RGB", (whole, height + 2 * strip))
    canvas.paste(picture, ((whole - width) // 2, strip))
    for middle in (strip / 2, height + 1.5 * strip):
        write(canvas, (whole / 2, middle), BANNER, size=size, colour=_AMBER, anchor="mm")
    return np.asarray(canvas)


def make_capture(
    identity: Identity, kind: str, pixels: _Bytes, sources: Sequence[Instance], *, upright: bool
) -> FileDataset:
    """A picture as a secondary capture.

    Args:
        identity: Whose result it is.
        kind: ``heatmap`` or ``montage``.
        pixels: ``(H, W, 3)`` uint8 sRGB; stamped here.
        sources: The instances that it shows.
        upright: Whether it is one frontal picture, the patient's left on its right.
    """
    stamped = stamp(pixels)
    made = begin(identity, kind)
    made.ConversionType = "WSD"
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.PatientOrientation = ["L", "F"] if upright else ""
    made.BodyPartExamined = "CHEST"
    made.BurnedInAnnotation = "NO"  # of the patient's identity; the notice is no annotation in that sense
    made.RecognizableVisualFeatures = "NO"
    made.LossyImageCompression = "00"
    made.DerivationDescription = f"{BANNER}: drawn by {identity.bundle.name} {identity.bundle.version}"
    made.ImageComments = f"{BANNER}. Research only; not for clinical use."
    items = []
    for source in sources:
        item = reference(source)
        item.PurposeOfReferenceCodeSequence = code_sequence(SOURCE_IMAGE)
        items.append(item)
    made.SourceImageSequence = Items(items)
    made.SamplesPerPixel = 3
    made.PhotometricInterpretation = "RGB"
    made.PlanarConfiguration = 0
    made.Rows, made.Columns = stamped.shape[:2]
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    data = stamped.tobytes()
    made.PixelData = data + b"\0" * (len(data) % 2)
    made["PixelData"].VR = "OB"
    return made
