"""The second main job, read top to bottom: from a CT to volumes.

`bedside.segmentation` has what happens to one scan.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import TracebackType

from bedside.backends import Backend, EngineInfo
from bedside.bundle import Bundle
from bedside.device import Watch
from bedside.dicom.ledger import GeometryError
from bedside.engines import Auto, EngineRequest, hold, open_engine
from bedside.errors import BedsideError, BundleError, InternalError, OutputError
from bedside.fitness import Doubts, doubt_machine
from bedside.guard import Guard
from bedside.memory import MIB, PeakMemory
from bedside.opacification import OpacificationResult
from bedside.provenance import BundleRef
from bedside.scan import Scan
from bedside.segmentation import Job, Request, Warm

__all__ = ["BUILT_IN_CT", "CtSegmenter", "open_ct"]

BUILT_IN_CT = "ct-opacity-lite"
"""The bundle that segments CT where none is named."""


def open_ct(
    bundle: str | Path | Bundle | None = None,
    backend: str = "onnxruntime",
    *,
    precision: str | None = None,
    threads: int | None = None,
    guard: Guard | None = None,
    auto: Auto | None = None,
) -> CtSegmenter:
    """Open a bundle that segments CT on an engine.

    Args:
        bundle: A folder, a zip file, a built-in bundle's name, or an opened bundle; None for the built-in one.
        backend: Name of the engine, one of `bedside.backends.BACKENDS`; or ``auto``, for the best of a tuned plan
            (`bedside.tuning`), else the reference. `EngineInfo.chosen` says which it came to.
        precision: One of `bedside.backends.PRECISIONS`; None for fp32. With ``auto`` it must be None.
        threads: Threads inside one inference; None leaves it to the engine.
        guard: What happens where the engine crashes or hangs; None for a result that says so.
        auto: Where ``auto`` finds its plans, and whether it tunes in the background where there is none.

    Returns:
        The segmenter, to be used in a ``with`` statement.

    Raises:
        BundleError: The bundle is not there, broken, altered, unsafe, or for another task.
        MissingExtraError: The engine is not installed.
        BackendError: The engine can't load the bundle's model, or does not have that precision.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(BUILT_IN_CT if bundle is None else bundle)
    request = EngineRequest(backend, precision, threads, guard=guard or Guard(), auto=auto or Auto())
    return CtSegmenter(opened, open_engine(opened, request))


class CtSegmenter:
    """Segments CT scans with one bundle on one engine. Use it from one thread at a time.

    Args:
        bundle: The opened bundle.
        backend: An engine that holds its model; closed with the segmenter.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        if bundle.manifest.task != "ct-opacity":
            backend.close()
            raise BundleError(
                "bundle-task",
                f"the bundle is for {bundle.manifest.task}, not for ct-opacity; give another bundle",
            )
        self.bundle = bundle
        self._backend = backend
        self._warm: Warm = set()
        try:
            self._doubts = Doubts(bundle, backend)
        except BundleError:
            backend.close()
            raise
        self._watch = Watch(gpus=backend.info.device != "CPU")
        self._ref = BundleRef(bundle.manifest.name, bundle.manifest.version, bundle.digest)

    def segment(self, source: str | Path | Scan, request: Request | None = None) -> OpacificationResult:
        """Segment one scan.

        Args:
            source: A folder of DICOM, a zip of one, a multi-frame DICOM file, a NIfTI file, or a `Scan`, which
                stays open.
            request: How; None for the defaults.

        Returns:
            The result. Whatever goes wrong with the input or in the network is told in it (``status``,
            ``error``) and not raised; `OpacificationResult.raise_for_status` raises it.

        Raises:
            OutputError: The sink can't write.
        """
        request = request or Request()
        job = Job(self.bundle.manifest, self._backend, request, self._warm)
        result = OpacificationResult(
            source=source if isinstance(source, str) else str(source) if isinstance(source, Path) else "",
            bundle=self._ref,
            engine=self.engine,
            memory_budget_mib=None if request.memory_bytes is None else request.memory_bytes / MIB,
        )
        with hold(self._backend), PeakMemory() as memory, self._watch.over(long=True) as span:
            try:
                result = job.run(source, result)
                result = replace(result, quality=(*result.quality, *self._doubts.list()))
            except OutputError:
                raise
            except BedsideError as problem:
                if isinstance(problem, GeometryError):
                    job.ledger = problem.ledger
                problem.__traceback__ = problem.__cause__ = problem.__context__ = None
                result = replace(result, error=problem, opacification=None)
            except Exception as problem:  # noqa: BLE001 -- one study's surprise must not take the others down
                result = replace(result, error=InternalError.of(problem), opacification=None)
        return replace(
            result,
            engine=self.engine,
            quality=(*result.quality, *doubt_machine(span.machine)),
            machine=span.machine,
            ledger=job.ledger,
            series=job.series,
            predicted_memory_mib=job.predicted_bytes / MIB if job.predicted_bytes else None,
            peak_memory_mib=memory.peak_bytes / MIB,
            timing_ms=job.clock.finish(),
        )

    @property
    def engine(self) -> EngineInfo:
        """What runs the network."""
        return self._backend.info

    def close(self) -> None:
        """Free the engine."""
        self._backend.close()

    def __enter__(self) -> CtSegmenter:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Free the engine."""
        self.close()
