"""How long a CT's segmentation takes as DICOM: 250 slices of 512 x 512, written by bedside and read by highdicom.

    python benchmarks/segmentation_dicom.py [--labelmap] [--full] [--highdicom]

What is written is what ``bedside segment --dicom`` writes: both lungs and an opacity in each, synced to the disk.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import highdicom
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from bedside.backends.base import EngineInfo
from bedside.contract import Tissue
from bedside.dicom.geometry import Axes
from bedside.dicom.references import Instance, References
from bedside.provenance import BundleRef
from bedside.results.dicom.folder import ResultFolder
from bedside.results.dicom.frames import BinaryFrames, LabelFrames
from bedside.results.dicom.identity import Identity
from bedside.results.dicom.placement import place
from bedside.results.dicom.segmentation import make_segmentation
from bedside.results.dicom.segments import plan_labels, plan_segments
from bedside.results.dicom.study import Study, read_study
from bedside.scan import Grid

clock = time.perf_counter
CT = "1.2.840.10008.5.1.4.1.1.2"
SHAPE = (250, 512, 512)
SPACING = (1.25, 0.7, 0.7)
TISSUES = (
    Tissue("background"),
    Tissue("left lung", lung=True, side="left"),
    Tissue("right lung", lung=True, side="right"),
    Tissue("opacity in the left lung", opacity=True, lung=True, side="left"),
    Tissue("opacity in the right lung", opacity=True, lung=True, side="right"),
)


def make_labels(*, full: bool) -> npt.NDArray[np.uint8]:
    """Two lungs with an opacity in each; ``full``: all four of them in every slice."""
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    height = 0.05 if full else 1.0
    labels = np.zeros(SHAPE, np.uint8)
    for label, middle, size in ((2, 150, 1.0), (1, 362, 1.0), (4, 150, 0.5), (3, 362, 0.5)):
        inside = (
            height * ((z - 125) / (115 * size)) ** 2
            + ((y - 256) / (170 * size)) ** 2
            + ((x - middle) / (95 * size)) ** 2
        )
        labels[inside <= 1] = label
    return labels


def make_study() -> tuple[Study, References, Grid]:
    """A series without pixels."""
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = CT, "1.2.3.1"
    header.StudyInstanceUID, header.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    header.PatientName, header.PatientID = "Phantom", "0"
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, header, implicit_vr=False, little_endian=True)
    stream.seek(0)
    slices = tuple(Instance(CT, f"1.2.3.5.{index}", None) for index in range(SHAPE[0]))
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = SPACING
    affine[:3, 3], affine[3, 3] = (-180, -180, -150), 1
    references = References("1.2.3", "1.2.3.4", "1.2.3.9", slices, Axes())
    return read_study(stream), references, Grid(SHAPE, affine)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labelmap", action="store_true", help="a label map instead of one bit a segment")
    parser.add_argument("--full", action="store_true", help="every segment in every slice")
    parser.add_argument("--cpu", action="store_true", help="processor time instead of time on the wall")
    parser.add_argument("--highdicom", action="store_true", help="also time highdicom's own writer")
    wanted = parser.parse_args()
    if wanted.cpu:
        global clock  # noqa: PLW0603 - one clock for a whole run
        clock = time.process_time
    labels = make_labels(full=wanted.full)
    study, references, grid = make_study()
    plans = plan_labels(TISSUES) if wanted.labelmap else plan_segments(TISSUES)
    pixels = SHAPE[1] * SHAPE[2]
    engine = EngineInfo("onnxruntime", "1", "fp32", "CPU", None)
    identity = Identity(study, BundleRef("made", "1", "0" * 64), engine, "ok", datetime.now(timezone.utc))
    with tempfile.TemporaryDirectory() as name:
        start = clock()
        frames: BinaryFrames | LabelFrames = (
            LabelFrames(Axes(), pixels) if wanted.labelmap else BinaryFrames(plans, Axes(), pixels)
        )
        for index, plane in enumerate(labels):
            frames.put(index, plane)
        packed = clock()
        made = make_segmentation(identity, plans, frames, place(grid, Axes()), references)
        built = clock()
        kind = "labelmap" if wanted.labelmap else "segmentation"
        files = ResultFolder(name).write("scan", {kind: made.encode()})
        written = clock()
        path = Path(name) / files[kind]
        size = path.stat().st_size / 1e6
        print(f"{len(frames.keys)} frames, {len(made.numbers)} segments, {size:.1f} MB")
        print(
            f"written in {written - start:.2f} s: packing {packed - start:.2f} (while the network runs), "
            f"header {built - packed:.2f}, file {written - built:.2f}"
        )
        start = clock()
        read = highdicom.seg.segread(path)
        opened = clock()
        volume = read.get_volume(combine_segments=wanted.labelmap)
        stop = clock()
        print(
            f"read by highdicom in {stop - start:.2f} s: header {opened - start:.2f}, "
            f"{volume.array.shape} voxels {stop - opened:.2f}"
        )
        start = clock()
        array = pydicom.dcmread(path).pixel_array
        print(f"read by pydicom in {clock() - start:.2f} s: {array.shape}")
        if wanted.highdicom:
            time_highdicom(labels, kind, Path(name) / "highdicom.dcm")


def time_highdicom(labels: npt.NDArray[np.uint8], kind: str, path: Path) -> None:
    """The same labels through highdicom's writer."""
    sources = []
    for index in range(SHAPE[0]):
        source = Dataset()
        source.file_meta = pydicom.dataset.FileMetaDataset()
        source.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        source.SOPClassUID, source.SOPInstanceUID = CT, f"1.2.3.5.{index}"
        source.StudyInstanceUID, source.SeriesInstanceUID = "1.2.3", "1.2.3.4"
        source.FrameOfReferenceUID, source.PositionReferenceIndicator = "1.2.3.9", ""
        source.Rows, source.Columns = SHAPE[1:]
        source.ImagePositionPatient = [-180, -180, -150 + index * SPACING[0]]
        source.ImageOrientationPatient, source.PixelSpacing = [1, 0, 0, 0, 1, 0], list(SPACING[1:])
        source.SliceThickness, source.Modality = SPACING[0], "CT"
        for keyword in (
            "PatientName",
            "PatientID",
            "PatientBirthDate",
            "PatientSex",
            "StudyDate",
            "StudyTime",
            "StudyID",
            "AccessionNumber",
            "ReferringPhysicianName",
        ):
            setattr(source, keyword, "")
        sources.append(source)
    organ = codes.SCT.Lung
    described = [
        highdicom.seg.SegmentDescription(number, tissue.name, codes.SCT.Organ, organ, "MANUAL")
        for number, tissue in enumerate(TISSUES)
        if number
    ]
    start = clock()
    made = highdicom.seg.Segmentation(
        sources,
        labels,
        "LABELMAP" if kind == "labelmap" else "BINARY",
        described,
        "1.2.3.6",
        1,
        "1.2.3.6.1",
        1,
        "m",
        "m",
        "1",
        "1",
    )
    built = clock()
    made.save_as(path)
    print(
        f"written by highdicom in {clock() - start:.2f} s ({made.NumberOfFrames} frames), "
        f"of which made in {built - start:.2f}"
    )


if __name__ == "__main__":
    main()
