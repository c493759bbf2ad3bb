"""One X-ray's result as DICOM objects: report, heatmap and activation map; or a report that says why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

from pydicom.dataset import FileDataset

from bedside import heatmap
from bedside.dicom.geometry import Axes
from bedside.dicom.source import read_source
from bedside.errors import BedsideError, InputError, InternalError, RefusedError
from bedside.files import open_input
from bedside.inputs import Source
from bedside.results.dicom.activation import find_axes, make_map
from bedside.results.dicom.capture import make_capture
from bedside.results.dicom.document import make_document
from bedside.results.dicom.findings import Group
from bedside.results.dicom.folder import ResultFolder
from bedside.results.dicom.header import encode
from bedside.results.dicom.identity import Identity
from bedside.results.dicom.refusal import describe_refusal
from bedside.results.dicom.severity import CHEST_XRAY, describe_severity, quality_group
from bedside.results.dicom.study import Study, no_reference, read_study
from bedside.results.dicom.trees import make_report, require_highdicom
from bedside.results.names import scan_stem
from bedside.severity import SeverityResult

__all__ = ["XrayRecorder", "make_objects"]


class XrayRecorder:
    """Writes the DICOM results of X-rays: a `bedside.batch.Recorder`.

    Args:
        folder: Where to.
        clock: Tells the time, with its zone.

    Raises:
        MissingExtraError: highdicom is not installed.
    """

    def __init__(self, folder: ResultFolder, *, clock: Callable[[], datetime] | None = None) -> None:
        require_highdicom()
        self._folder = folder
        self._clock = clock or _now

    def claim(self, source: Source) -> None:
        """Make sure that the results of an input may be written.

        Raises:
            OutputError: ``output-exists``.
        """
        self._folder.claim(_stem(source))

    def record(self, source: Source, result: SeverityResult) -> SeverityResult:
        """Write what came of an input.

        Args:
            source: The input.
            result: One that kept its picture, if it has a score.

        Returns:
            The result; refused (``no-reference``) if the input is no DICOM, or belongs to no study. An input that
            can't be read at all stays as it is: there is no report to write.

        Raises:
            OutputError: ``disk-full``; ``output-not-writable``; ``output-exists``.
        """
        try:
            study, axes = _read(source)
        except (RefusedError, InputError) as problem:
            if result.error is not None:
                return result
            why = problem.message if isinstance(problem, RefusedError) else ""
            error = RefusedError("no-reference", why) if why else no_reference("it is not DICOM")
            return replace(result, severity=None, error=error)
        try:
            objects = make_objects(result, study, axes, self._clock())
            self._folder.write(_stem(source), {kind: [encode(made)] for kind, made in objects.items()})
        except BedsideError:
            raise
        except Exception as problem:  # noqa: BLE001 - as in scoring: told, and the other inputs go on
            return replace(result, severity=None, error=InternalError.of(problem))
        return result


def make_objects(result: SeverityResult, study: Study, axes: Axes, now: datetime) -> dict[str, FileDataset]:
    """The DICOM objects of one result.

    Args:
        result: One that kept its picture, if it has a score.
        study: Its source.
        axes: From the source's pixels as stored to the picture's.
        now: When they are made, with the time zone.

    Returns:
        Kind -> object: ``report``, and of a score whose bundle gives a map also ``heatmap`` and ``map``.
    """
    outcome = "ok" if result.error is None else result.error.code
    identity = Identity(study, result.bundle, result.engine, outcome + "-forced" * result.forced, now)
    made: dict[str, FileDataset] = {}
    severity, radiograph, frame = result.severity, result.radiograph, result.frame
    groups: Iterable[Group]
    if result.error is not None:
        groups = [*describe_refusal(result.error), *quality_group(result)]
    else:
        groups = describe_severity(result)
        if severity is not None and radiograph is not None and frame is not None and severity.activation:
            picture = heatmap.render(result)
            made["heatmap"] = make_capture(identity, "heatmap", picture, study.instances, upright=True)
            made["map"] = make_map(
                identity,
                severity.activation["extent"],
                frame,
                radiograph.pixels.shape,
                axes,
                spacing_mm=radiograph.spacing_mm,
            )
    root = make_report(identity, CHEST_XRAY, groups)
    made["report"] = make_document(identity, root, list(made.values()), complete=result.error is None)
    return made


def _read(source: Source) -> tuple[Study, Axes]:
    with open_input(source.path) as stream:
        dataset = read_source(stream).dataset
        stream.seek(0)
        return read_study(stream), find_axes(dataset)


def _stem(source: Source) -> str:
    return scan_stem(source.path, source.root)


def _now() -> datetime:
    return datetime.now().astimezone()
