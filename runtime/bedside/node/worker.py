"""The process that runs studies: it holds the engines, and what goes wrong in it costs one study one try.

What is said between the two, one JSON object a message:

    To the worker     {"open": {...}}             opens the engine of a rule
                      {"run": {...}}              runs a study
                      {"explain": {...}}          writes the report of a study that no run came to the end of
    From the worker   {"done": {"status": ..., "error": [class, code, message] | null}}
                      {"error": [class, code, message]}

Not for clinical use.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bedside.backends.base import EngineInfo
from bedside.batch import Batch
from bedside.bundle import Bundle
from bedside.engines import AUTO, FALLBACK, Auto
from bedside.errors import BedsideError, BundleError, InternalError
from bedside.inputs import Source
from bedside.isolation.wire import MAX_BYTES, pack, pack_error, unpack, unpack_error
from bedside.isolation.worker import end_with
from bedside.memory import MIB
from bedside.node.jobs import Job
from bedside.opacification import OpacificationResult
from bedside.provenance import BundleRef
from bedside.results import write_result_json
from bedside.results.dicom.folder import ResultFolder
from bedside.results.dicom.scans import ScanRecorder
from bedside.results.dicom.xrays import XrayRecorder
from bedside.results.names import scan_stem
from bedside.scans import Scans, ScanSource
from bedside.scorer import CxrScorer, open_cxr
from bedside.segmentation import Request
from bedside.segmenter import CtSegmenter, open_ct
from bedside.severity import SeverityResult

__all__ = ["RESULT", "main"]

RESULT = "result.json"
"""Name of the result as JSON, in the folder of a run."""

Result = SeverityResult | OpacificationResult


def main(channel: int, lifeline: int) -> None:
    """Serve until the other end of the channel is closed.

    Args:
        channel: Descriptor of the socket that orders come from.
        lifeline: Descriptor of a pipe that nobody writes to, and whose other end the node holds.
    """
    end_with(lifeline)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node decides when a run ends
    for descriptor in (channel, lifeline):
        os.set_inheritable(descriptor, False)
    with socket.socket(fileno=channel) as connection, suppress(BrokenPipeError, ConnectionResetError):
        engines = _Engines()
        while data := connection.recv(MAX_BYTES):
            try:
                answer = _obey(unpack(data), engines)
            except Exception as problem:  # noqa: BLE001 - all of it is told on the other side
                error = problem if isinstance(problem, BedsideError) else InternalError.of(problem)
                answer = {"error": pack_error(error)}
            connection.send(pack(answer))
    os._exit(0)  # what engines' libraries do at exit can only go wrong


class _Engines:
    """Opened engines, by rule."""

    def __init__(self) -> None:
        self._opened: dict[str, CxrScorer | CtSegmenter] = {}

    def of(self, job: Job) -> CxrScorer | CtSegmenter:
        if job.rule not in self._opened:
            bundle = Bundle.open(Path(job.bundle))
            if bundle.digest != job.digest:
                raise BundleError(
                    "bundle-altered", "the bundle was changed since the node was started; restart it"
                )
            opener = open_cxr if job.task == "cxr-severity" else open_ct
            cache = None if job.cache is None else Path(job.cache)
            self._opened[job.rule] = opener(bundle, job.backend, precision=job.precision, auto=Auto(cache))
        return self._opened[job.rule]


def _obey(order: Mapping[str, Any], engines: _Engines) -> dict[str, object]:
    ((what, told),) = order.items()
    job = Job(**{**told["job"], "destinations": tuple(told["job"]["destinations"])})
    if what == "open":
        engines.of(job)
        return {"done": {"status": "ok", "error": None}}
    source, out = Path(told["source"]), Path(told["out"])
    if what == "explain":
        result = _explain(job, source, out, unpack_error(told["error"]))
    else:
        result = _run(engines.of(job), job, source, out)
    error = None if result.error is None else pack_error(result.error)
    return {"done": {"status": result.status, "error": error}}


def _run(engine: CxrScorer | CtSegmenter, job: Job, source: Path, out: Path) -> Result:
    """Run a study, and write what came of it; the JSON comes last."""
    folder = ResultFolder(out)
    result: Result
    if isinstance(engine, CxrScorer):
        (scored,) = Batch(engine, recorder=XrayRecorder(folder)).run([Source(source)])
        result = scored.result
    else:
        recorder = ScanRecorder(folder, engine.bundle.manifest.tissues, labelmap=job.labelmap)
        request = Request(memory_bytes=None if job.memory_mib is None else int(job.memory_mib * MIB))
        (segmented,) = Scans(engine, request=request, recorder=recorder).run([ScanSource(source)])
        result = segmented.result
    write_result_json(out / RESULT, result.to_json())
    return result


def _explain(job: Job, source: Path, out: Path, error: BedsideError) -> Result:
    """Write the report of a study without an answer. No engine is opened: it may be what went wrong."""
    bundle = Bundle.open(Path(job.bundle))
    ref = BundleRef(bundle.manifest.name, bundle.manifest.version, bundle.digest)
    backend, precision = FALLBACK if job.backend == AUTO else (job.backend, job.precision or "fp32")
    info = EngineInfo(backend, "not run", precision, "none", None)
    folder = ResultFolder(out)
    result: Result
    if job.task == "cxr-severity":
        result = SeverityResult(source="", bundle=ref, engine=info, error=error)
        XrayRecorder(folder).record(Source(source), result)
    else:
        result = OpacificationResult(source="", bundle=ref, engine=info, error=error)
        recorder = ScanRecorder(folder, bundle.manifest.tissues, labelmap=job.labelmap)
        recorder.record(ScanSource(source), scan_stem(source), result)
    write_result_json(out / RESULT, result.to_json())
    return result
