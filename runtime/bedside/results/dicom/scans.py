"""One CT's result as DICOM objects: segmentation, report and key images; or a report that says why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from pydicom.dataset import FileDataset

from bedside.contract import Tissue
from bedside.dicom import DicomSeries
from bedside.dicom.archive import open_archive
from bedside.dicom.catalogue import Catalogue, Series, read_catalogue
from bedside.dicom.references import Instance
from bedside.errors import BedsideError, InternalError
from bedside.opacification import OpacificationResult
from bedside.report import page
from bedside.results.dicom.capture import make_capture
from bedside.results.dicom.document import make_document
from bedside.results.dicom.findings import Group, Segment
from bedside.results.dicom.folder import ResultFolder
from bedside.results.dicom.frames import BinaryFrames, LabelFrames
from bedside.results.dicom.header import encode
from bedside.results.dicom.identity import Identity
from bedside.results.dicom.placement import place
from bedside.results.dicom.refusal import describe_refusal
from bedside.results.dicom.segmentation import Segmentation, make_segmentation
from bedside.results.dicom.segments import plan_labels, plan_segments
from bedside.results.dicom.study import Study, no_reference, read_study
from bedside.results.dicom.trees import make_report, require_highdicom
from bedside.results.dicom.volumes import CHEST_CT, describe_volumes, scan_quality
from bedside.scan import Scan

__all__ = ["LabelCollector", "ScanRecorder"]


class Origin(Protocol):
    """A scan as it was asked for: `bedside.scans.ScanSource`."""

    @property
    def path(self) -> Path:
        """As it was given."""

    @property
    def series(self) -> str | None:
        """Series Instance UID or number, where the path holds several."""


class LabelCollector:
    """Takes a scan's labels as they come: a `bedside.segmentation.LabelSink`.

    Args:
        scan: The scan, still open.
        tissues: Of the bundle, in the order of the labels.
        labelmap: Whether for a label map, rather than for one bit a segment.

    Raises:
        RefusedError: ``no-reference``: the scan does not come of DICOM, or belongs to no study.
    """

    def __init__(self, scan: Scan, tissues: Sequence[Tissue], *, labelmap: bool = False) -> None:
        if not isinstance(scan, DicomSeries):
            raise no_reference("it is not DICOM")
        with scan.open_file() as stream:
            self.study = replace(read_study(stream), instance_number=1)
        self.scan = scan
        axes = scan.instances.axes
        self.placement = place(scan.grid, axes)
        self.plans = plan_labels(tissues) if labelmap else plan_segments(tissues)
        rows, columns = self.placement.matrix
        self.frames: BinaryFrames | LabelFrames = (
            LabelFrames(axes, rows * columns) if labelmap else BinaryFrames(self.plans, axes, rows * columns)
        )

    def put(
        self,
        index: int,
        labels: npt.NDArray[np.uint8],
        probabilities: Callable[[], npt.NDArray[np.float32]],  # noqa: ARG002 - of the protocol
    ) -> None:
        """Take one slice."""
        self.frames.put(index, labels)

    def segmentation(self, identity: Identity) -> Segmentation:
        """The segmentation of what came."""
        return make_segmentation(identity, self.plans, self.frames, self.placement, self.scan.instances)


class ScanRecorder:
    """Writes the DICOM results of CT scans: a `bedside.scans.Recorder`.

    Args:
        folder: Where to.
        tissues: Of the bundle, in the order of the labels.
        labelmap: Whether the segmentation is a label map, which older viewers don't know.
        clock: Tells the time, with its zone.

    Raises:
        MissingExtraError: highdicom is not installed.
    """

    def __init__(
        self,
        folder: ResultFolder,
        tissues: Sequence[Tissue],
        *,
        labelmap: bool = False,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        require_highdicom()
        self._folder = folder
        self._tissues = tuple(tissues)
        self._labelmap = labelmap
        self._clock = clock or _now
        self._collector: LabelCollector | None = None

    def claim(self, stem: str) -> None:
        """Make sure that the results of a scan may be written.

        Raises:
            OutputError: ``output-exists``.
        """
        self._collector = None
        self._folder.claim(stem)

    def open(self, scan: Scan) -> LabelCollector:
        """Take the labels of a scan.

        Raises:
            RefusedError: ``no-reference``.
        """
        self._collector = LabelCollector(scan, self._tissues, labelmap=self._labelmap)
        return self._collector

    def record(self, source: Origin, stem: str, result: OpacificationResult) -> OpacificationResult:
        """Write what came of a scan.

        Args:
            source: The scan, as it was asked for.
            stem: What the files' names begin with.
            result: One that kept its pictures, if it has volumes.

        Returns:
            The result. Of a scan that is no DICOM, or belongs to no study, nothing is written.

        Raises:
            OutputError: ``disk-full``; ``output-not-writable``; ``output-exists``.
        """
        collector, self._collector = self._collector, None
        try:
            if result.error is None and collector is not None:
                files = self._describe(result, collector)
            else:
                study = collector.study if collector is not None else _find_study(source.path, source.series)
                if study is None:
                    return result
                files = self._explain(result, study)
            self._folder.write(stem, files)
        except BedsideError:
            raise
        except Exception as problem:  # noqa: BLE001 - as in segmenting: told, and the other scans go on
            return replace(result, opacification=None, error=InternalError.of(problem))
        return result

    def _describe(self, result: OpacificationResult, collector: LabelCollector) -> dict[str, Iterable[bytes]]:
        slices = collector.scan.instances.slices
        study = replace(collector.study, instances=_distinct(slices))
        identity = Identity(study, result.bundle, result.engine, self._outcome(result), self._clock())
        files: dict[str, Iterable[bytes]] = {}
        made: list[FileDataset] = []
        segments: dict[str, Segment] = {}
        if collector.frames.keys:
            segmentation = collector.segmentation(identity)
            segments = {
                name: Segment(segmentation.instance, number) for name, number in segmentation.numbers.items()
            }
            made.append(segmentation.header)
            files["labelmap" if self._labelmap else "segmentation"] = segmentation.encode()
        shown = _distinct([slices[picture.index] for picture in result.pictures])
        montage = make_capture(identity, "montage", page.render(result), shown, upright=False)
        made.append(montage)
        files["montage"] = [encode(montage)]
        root = make_report(identity, CHEST_CT, describe_volumes(result, self._tissues, segments))
        files["report"] = [encode(make_document(identity, root, made, complete=True))]
        return files

    def _outcome(self, result: OpacificationResult) -> str:
        """``ok``, and what was asked for that makes another result of the same scan."""
        found = result.opacification
        sampled = f"-{len(found.curve)}" if found is not None and found.read_share < 1 else ""
        return f"ok{sampled}{'-labelmap' * self._labelmap}"

    def _explain(self, result: OpacificationResult, study: Study) -> dict[str, Iterable[bytes]]:
        error = result.error or no_reference("it is not DICOM")
        identity = Identity(study, result.bundle, result.engine, error.code, self._clock())
        groups: list[Group] = [*describe_refusal(error), *scan_quality(result)]
        root = make_report(identity, CHEST_CT, groups)
        return {"report": [encode(make_document(identity, root, complete=False))]}


def _distinct(instances: Iterable[Instance | None]) -> tuple[Instance, ...]:
    """Whole instances, each once, in order."""
    found = {
        each.sop_instance_uid: Instance(each.sop_class_uid, each.sop_instance_uid, None)
        for each in instances
        if each is not None
    }
    return tuple(found.values())


def _find_study(path: Path, series: str | None) -> Study | None:
    """The source of a scan that was not segmented; None where nothing could refer to it."""
    try:
        with closing(open_archive(path)) as archive:
            chosen = _choose(read_catalogue(archive), series)
            if chosen is None:
                return None
            slices = chosen.slices
            with archive.open(slices[0].file) as stream:
                study = replace(read_study(stream), instance_number=1)
    except BedsideError:  # the result says already what is wrong with it
        return None
    instances = _distinct(
        Instance(item.sop_class_uid, item.sop_instance_uid, None) for item in slices if item.sop_instance_uid
    )
    return replace(study, instances=instances)


def _choose(catalogue: Catalogue, series: str | None) -> Series | None:
    """The series that was asked for, or would have been taken: of several, the one with most slices."""
    pictured = [one for one in catalogue.series if one.slices]
    wanted = [one for one in pictured if series in {one.info.uid, str(one.info.number)}]
    scans = wanted or [one for one in pictured if one.info.modality == "CT"] or pictured
    return max(scans, key=lambda one: one.info.slices, default=None)


def _now() -> datetime:
    return datetime.now().astimezone()
