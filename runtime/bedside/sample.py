"""The sample X-ray: the chest phantom as a portable AP radiograph, in a valid DX DICOM file.

It stands in for a study where no patient's may be used: in the demo, the tests and the README. The picture is
the Beer-Lambert projection of `bedside.chest`, with quantum noise and the processing of a display; the same
arguments give the same bytes. A phantom, not a patient. Not for clinical use.
"""

from __future__ import annotations

import hashlib
import os
from io import BytesIO
from pathlib import Path
from typing import Final
from uuid import NAMESPACE_OID, uuid5

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from bedside.chest import chest_phantom
from bedside.phantom import MU_WATER_PER_MM, Detector, Phantom
from bedside.results import write_bytes
from bedside.version import __version__

__all__ = [
    "DETECTOR",
    "dataset",
    "derive_uid",
    "describe_patient",
    "make_header",
    "make_noise",
    "project",
    "write_sample",
]

DETECTOR: Final = Detector(
    shape=(1200, 1200), spacing_mm=0.36, centre=(0.0, 135.0, -15.0), distance_mm=1200.0
)
"""43 x 43 cm, the largest common flat panel, in bins of 0.36 mm, 1.2 m from the source as at a bedside."""

_PHOTONS_PER_MM2 = 300_000
"""Photons that would reach the detector without a patient: a choice that makes noise visible, not disturbing."""
_DETAIL_PIXELS = 61
"""Width of the neighbourhood that detail is told from, about 22 mm."""
_DETAIL_GAIN = 0.9
"""How much detail is lifted over its neighbourhood, as the processing of a display does."""
_RANGE_MM = (0.0, 320.0)
"""Water equivalents of the stored values 0 and 4095."""
_WINDOW_MM = (40.0, 285.0)
"""Water equivalents shown as black and white."""
_BITS = 12


def project(*, phantom: Phantom | None = None, seed: int = 0) -> npt.NDArray[np.uint16]:
    """Take the X-ray picture.

    Args:
        phantom: What is before the detector; the severe case of `bedside.chest.CASES` by default.
        seed: Of the quantum noise.

    Returns:
        ``(1200, 1200)`` uint16, 12 bits, dark where X-rays pass. Rows run from head to feet, columns from the
        patient's right to left.
    """
    source = chest_phantom("severe").phantom if phantom is None else phantom
    light = _blur(source.transmission(DETECTOR), 3) * _marker()
    photons = _PHOTONS_PER_MM2 * DETECTOR.spacing_mm**2
    light = (
        np.maximum(light * photons + np.sqrt(light * photons) * make_noise(light.shape, seed), 1) / photons
    )
    water_mm = np.log(light) / -MU_WATER_PER_MM
    water_mm += _DETAIL_GAIN * (water_mm - _blur(water_mm, _DETAIL_PIXELS))
    low, high = _RANGE_MM
    top = 2**_BITS - 1
    return np.asarray(np.clip(np.rint((water_mm - low) / (high - low) * top), 0, top).astype(np.uint16))


def dataset(*, phantom: Phantom | None = None, seed: int = 0) -> FileDataset:
    """The sample as a DICOM data set, ready to alter and to save; arguments as of `project`.

    SOP class Digital X-Ray Image Storage - For Presentation (DICOM PS3.3 A.26). All UIDs are derived from the
    pixels and the version of bedside, under the root 2.25; all dates are fixed.
    """
    pixels = project(phantom=phantom, seed=seed)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    uids = {name: derive_uid(name, __version__, digest) for name in ("study", "series", "instance")}
    header = make_header(DigitalXRayImageStorageForPresentation, **uids)
    _describe_study(header)
    _describe_anatomy(header)
    _describe_detector(header)
    _describe_pixels(header, pixels)
    return header


def make_header(sop_class_uid: str, *, study: UID, series: UID, instance: UID) -> FileDataset:
    """A data set with its meta information and its UIDs, and nothing else."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = derive_uid("bedside")
    meta.ImplementationVersionName = f"BEDSIDE_{__version__}"[:16]
    header = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID = UID(sop_class_uid)
    header.SOPInstanceUID = instance
    header.StudyInstanceUID = study
    header.SeriesInstanceUID = series
    return header


def write_sample(path: str | os.PathLike[str], *, phantom: Phantom | None = None, seed: int = 0) -> Path:
    """Write the sample as a DICOM file; an existing file is replaced in one step, or not at all.

    Args:
        path: The file to write. Its folder exists.
        phantom: As of `project`.
        seed: As of `project`.

    Returns:
        ``path``.

    Raises:
        OutputError: ``output-not-writable`` or ``disk-full``; nothing is left behind.
    """
    stream = BytesIO()
    dataset(phantom=phantom, seed=seed).save_as(stream, enforce_file_format=True)
    write_bytes(path, stream.getvalue())
    return Path(path)


def _blur(picture: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    """Two passes of a moving mean of odd ``width`` along each axis, edges repeated: a triangle of twice the width."""
    for _ in range(2):
        for _ in range(2):
            padded = np.pad(picture, ((width // 2 + 1, width // 2), (0, 0)), mode="edge")
            total = np.cumsum(padded, axis=0)
            picture = ((total[width:] - total[:-width]) / width).T
    return picture


def make_noise(shape: tuple[int, ...], seed: int | tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Noise of mean 0 and variance 1, near normal: each value is the sum of the eight bytes of a random word.

    With hundreds of photons in a pixel, a Poisson count is near normal with its mean as its variance. Bytes are
    used because NumPy promises that a bit generator's stream never changes (NEP 19), and promises no such thing
    of its distributions.
    """
    words = np.random.PCG64(seed).random_raw(int(np.prod(shape)))
    total = words.view(np.uint8).reshape(-1, 8).sum(axis=1, dtype=np.float64).reshape(shape)
    return np.asarray((total - 8 * 127.5) / np.sqrt(8 * (256**2 - 1) / 12))


def _marker() -> npt.NDArray[np.float64]:
    """Transmission of the lead letter L at the patient's left shoulder: ``(rows, columns)``."""
    lead = np.ones(DETECTOR.shape)
    lead[70:130, 1080:1092] = 0.002
    lead[118:130, 1080:1118] = 0.002
    return lead


def derive_uid(*parts: str) -> UID:
    """A UID under the root 2.25 (PS3.5 B.2) that is the same for the same parts."""
    return UID(f"2.25.{uuid5(NAMESPACE_OID, '/'.join(parts)).int}")


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning
    return item


def _describe_study(header: Dataset) -> None:
    """Patient, General Study, General Series, DX Series, General Equipment, General Image, SOP Common."""
    describe_patient(header)
    header.SeriesDescription = "Chest AP, phantom"
    header.InstanceNumber = 1
    header.Modality = "DX"
    header.PresentationIntentType = "FOR PRESENTATION"
    header.ImageType = ["DERIVED", "PRIMARY", ""]
    header.DerivationDescription = "Projection of a geometric phantom"


def describe_patient(header: Dataset) -> None:
    """Who and when: no patient, and fixed dates; and by what equipment: this one."""
    header.SpecificCharacterSet = "ISO_IR 192"
    header.PatientName = "Phantom^Bedside"
    header.PatientID = "PHANTOM-0"
    header.PatientBirthDate = ""
    header.PatientSex = "O"
    header.PatientAge = "060Y"
    header.PatientIdentityRemoved = "YES"
    header.DeidentificationMethod = "Never a patient: computed from a geometric phantom"
    header.StudyDate = header.SeriesDate = header.AcquisitionDate = header.ContentDate = "20260101"
    header.StudyTime = header.SeriesTime = header.AcquisitionTime = header.ContentTime = "120000"
    header.StudyID = "PHANTOM"
    header.AccessionNumber = ""
    header.ReferringPhysicianName = ""
    header.StudyDescription = "Phantom, not a patient"
    header.SeriesNumber = 1
    header.ImageComments = "Phantom, not a patient; not for clinical use"
    header.BurnedInAnnotation = "NO"
    header.LossyImageCompression = "00"
    header.Manufacturer = "bedside"
    header.ManufacturerModelName = "Phantom"
    header.DeviceSerialNumber = "0"
    header.SoftwareVersions = __version__


def _describe_anatomy(header: Dataset) -> None:
    """DX Anatomy Imaged, DX Positioning, Acquisition Context."""
    header.BodyPartExamined = "CHEST"
    header.ImageLaterality = "U"
    header.AnatomicRegionSequence = Sequence([_code("816094009", "SCT", "Chest")])
    header.PatientOrientation = ["L", "F"]
    header.ViewPosition = "AP"
    header.ViewCodeSequence = Sequence([_code("399348003", "SCT", "antero-posterior")])
    header.ViewCodeSequence[0].ViewModifierCodeSequence = Sequence([])
    header.PatientOrientationCodeSequence = Sequence([_code("102538003", "SCT", "recumbent")])
    header.PatientOrientationCodeSequence[0].PatientOrientationModifierCodeSequence = Sequence(
        [_code("40199007", "SCT", "supine")]
    )
    header.PositionerType = "NONE"
    header.AcquisitionContextSequence = Sequence([])


def _describe_detector(header: Dataset) -> None:
    """DX Detector, and the geometry of the projection."""
    rows, columns = DETECTOR.shape
    header.DetectorType = "DIRECT"
    header.DetectorConfiguration = "AREA"
    header.DetectorID = "PHANTOM"
    header.DetectorActiveShape = "RECTANGLE"
    header.DetectorActiveDimensions = [rows * DETECTOR.spacing_mm, columns * DETECTOR.spacing_mm]
    header.ImagerPixelSpacing = [DETECTOR.spacing_mm, DETECTOR.spacing_mm]
    header.DistanceSourceToDetector = DETECTOR.distance_mm


def _describe_pixels(header: Dataset, pixels: npt.NDArray[np.uint16]) -> None:
    """Image Pixel, DX Image, VOI LUT."""
    low, high = _RANGE_MM
    black, white = ((2**_BITS - 1) * (edge - low) / (high - low) for edge in _WINDOW_MM)
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.Rows, header.Columns = pixels.shape
    header.BitsAllocated = 16
    header.BitsStored = _BITS
    header.HighBit = _BITS - 1
    header.PixelRepresentation = 0
    header.PixelIntensityRelationship = "LOG"
    header.PixelIntensityRelationshipSign = -1
    header.RescaleIntercept = 0
    header.RescaleSlope = 1
    header.RescaleType = "US"
    header.PresentationLUTShape = "IDENTITY"
    header.WindowCenter = round((black + white) / 2)
    header.WindowWidth = round(white - black)
    header.WindowCenterWidthExplanation = "CHEST"
    header.VOILUTFunction = "LINEAR"
    header.PixelData = pixels.astype("<u2").tobytes()
    header["PixelData"].VR = "OW"
