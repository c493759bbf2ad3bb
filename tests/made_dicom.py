"""DICOM results of made-up scans and X-rays, as the command line would write them, without a network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from bedside.contract import Tissue
from bedside.dicom import read_radiograph, read_series
from bedside.inputs import Source
from bedside.opacification import OpacificationResult
from bedside.results import scan_stem
from bedside.results.dicom.folder import ResultFolder
from bedside.results.dicom.identity import Identity
from bedside.results.dicom.scans import LabelCollector, ScanRecorder
from bedside.results.dicom.xrays import XrayRecorder
from bedside.scan import Grid
from bedside.severity import SeverityResult
from dicom_files import make_dataset, write_dataset
from dicom_series import make_affine
from made_results import BUNDLE, ENGINE, scored
from made_scans import measured

TISSUES = (
    Tissue("background"),
    Tissue("lung", lung=True),
    Tissue("ground glass", opacity=True, lung=True),
    Tissue("pleural effusion"),
)
"""Of `label_phantom`; the last one never occurs."""
LUNG_BELOW_HU, MARKER_ABOVE_HU = -400, 270
NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=timezone.utc)
SMALL = Grid((24, 34, 31), make_affine(pixel_mm=(7, 7), step=(0, 0, 8), shape=(24, 34, 31)))
"""The phantom in few slices; 34 x 31 pixels are no multiple of 8."""

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ScanSource:
    """What `bedside.scans` hands a recorder."""

    path: Path
    series: str | None = None


def make_folder(path: Path, *, overwrite: bool = False) -> ResultFolder:
    return ResultFolder(path, replace=overwrite)


def label_phantom(hu: npt.NDArray[np.floating[Any]]) -> Labels:
    """Lung is 1, the marker of three arms 2."""
    labels = (hu < LUNG_BELOW_HU).astype(np.uint8)
    labels[hu > MARKER_ABOVE_HU] = 2
    return labels


def record_scan(
    path: Path, folder: Path, *, labelmap: bool = False
) -> tuple[dict[str, Path], OpacificationResult]:
    """Label a series by its HU, and write what comes of it; returns kind -> file, and the result."""
    recorder = ScanRecorder(make_folder(folder), TISSUES, labelmap=labelmap, clock=lambda: NOON)
    stem = scan_stem(path)
    recorder.claim(stem)
    with read_series(path) as scan:
        hu = scan.read(range(scan.grid.shape[0]))
        labels = label_phantom(hu)
        collector = recorder.open(scan)
        for index, plane in enumerate(labels):
            collector.put(index, plane, lambda: np.empty(0, np.float32))
        result = replace(measured(hu, labels, scan.grid, tissues=TISSUES), ledger=scan.ledger)
        result = recorder.record(ScanSource(path), stem, result)
    return written(folder), result


def write_segmentation(
    path: Path,
    folder: Path,
    *,
    labelmap: bool = False,
    read: slice = slice(None),
    allow_missing: bool = False,
    marker_alone: bool = False,
) -> Path:
    """Label a series by its HU, and write the segmentation alone; or that of the marker, in one segment."""
    tissues = (Tissue("background"), Tissue("marker")) if marker_alone else TISSUES
    with read_series(path, allow_missing=allow_missing) as scan:
        labels = label_phantom(scan.read(range(scan.grid.shape[0])))
        if marker_alone:
            labels = (labels == 2).astype(np.uint8)
        collector = LabelCollector(scan, tissues, labelmap=labelmap)
        for index in reversed(range(len(labels))[read]):  # in any order
            collector.put(index, labels[index], lambda: np.empty(0, np.float32))
        made = collector.segmentation(Identity(collector.study, BUNDLE, ENGINE, "ok", NOON))
    kind = "labelmap" if labelmap else "segmentation"
    make_folder(folder).write("scan", {kind: made.encode()})
    return written(folder)["labelmap" if labelmap else "seg"]


def write_xray(path: Path, pixels: npt.NDArray[np.integer[Any]] | None = None, **header: Any) -> Path:
    """A DX picture of 72 x 80 with a bright spot in row 10, column 60, unless told otherwise."""
    if pixels is None:
        pixels = np.tile(np.arange(80, dtype=np.uint16), (72, 1))
        pixels[8:13, 58:63] = 4000
    attributes: dict[str, Any] = {
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4",
        "SOPInstanceUID": "1.2.3.4.5",
        "ViewPosition": "AP",
        "BodyPartExamined": "CHEST",
        **header,
    }
    dataset = make_dataset(*pixels.shape, **attributes)
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    return write_dataset(path, dataset, ExplicitVRLittleEndian)


def record_xray(
    path: Path, folder: Path, result: SeverityResult | None = None, *, overwrite: bool = False
) -> tuple[dict[str, Path], SeverityResult]:
    """Write what comes of an X-ray with a made-up score; returns kind -> file, and the result."""
    recorder = XrayRecorder(make_folder(folder, overwrite=overwrite), clock=lambda: NOON)
    if result is None:
        result = scored(str(path), pixels=read_radiograph(path).pixels)
    source = Source(path)
    recorder.claim(source)
    result = recorder.record(source, result)
    return written(folder), result


def written(folder: Path) -> dict[str, Path]:
    """Kind of result, as its file is named -> the file."""
    return {path.stem.rpartition("-")[2]: path for path in sorted(folder.iterdir())}


def texts(item: Dataset) -> list[str]:
    """All that an SR's tree says, an item a line, without its references."""
    lines = []
    for child in item.get("ContentSequence", ()):
        name = child.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in child else ""
        value: object = ""
        if child.ValueType == "NUM":
            measured_value = child.MeasuredValueSequence[0]
            unit = measured_value.MeasurementUnitsCodeSequence[0].CodeValue
            value = f"{float(measured_value.NumericValue):g} {unit}"
        elif child.ValueType == "CODE":
            code = child.ConceptCodeSequence[0]
            value = f"{code.get('CodeValue') or code.LongCodeValue} {code.CodingSchemeDesignator}"
        elif child.ValueType == "TEXT":
            value = child.TextValue
        lines += [f"{name}: {value}", *texts(child)]
    return lines


def read(path: Path) -> Dataset:
    return pydicom.dcmread(path)
