"""The first main job, read top to bottom: from a file to a severity score."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from bedside import cxr, intervals, quality
from bedside.backends import Backend, EngineInfo
from bedside.bundle import Bundle
from bedside.device import Watch
from bedside.engines import Auto, EngineRequest, open_engine
from bedside.errors import BedsideError, BundleError, InternalError
from bedside.fitness import Doubts, doubt_machine
from bedside.guard import Guard
from bedside.provenance import BundleRef
from bedside.radiograph import Finding
from bedside.reading import load_decoders, read_header, read_radiograph
from bedside.severity import SeverityResult
from bedside.timing import Stages

__all__ = ["BUILT_IN_CXR", "CxrScorer", "open_cxr"]

BUILT_IN_CXR = "cxr-severity-lite"
"""The bundle that scores X-rays where none is named."""


def open_cxr(
    bundle: str | Path | Bundle | None = None,
    backend: str = "onnxruntime",
    *,
    precision: str | None = None,
    threads: int | None = None,
    guard: Guard | None = None,
    auto: Auto | None = None,
) -> CxrScorer:
    """Open a bundle that scores X-rays on an engine, all of it warm: the first score takes as long as the next.

    Args:
        bundle: A folder, a zip file, a built-in bundle's name, or an opened bundle; None for the built-in one.
        backend: Name of the engine, one of `bedside.backends.BACKENDS`; or ``auto``, for the best of a tuned plan
            (`bedside.tuning`), else the reference. `EngineInfo.chosen` says which it came to.
        precision: One of `bedside.backends.PRECISIONS`; None for fp32. With ``auto`` it must be None.
        threads: Threads inside one inference; None leaves it to the engine.
        guard: What happens where the engine crashes or hangs; None for a result that says so.
        auto: Where ``auto`` finds its plans, and whether it tunes in the background where there is none.

    Returns:
        The scorer, to be used in a ``with`` statement.

    Raises:
        BundleError: The bundle is not there, broken, altered, unsafe, or for another task.
        MissingExtraError: The engine is not installed.
        BackendError: The engine can't load the bundle's model, or does not have that precision.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(BUILT_IN_CXR if bundle is None else bundle)
    load_decoders()
    request = EngineRequest(backend, precision, threads, guard=guard or Guard(), auto=auto or Auto())
    return CxrScorer(opened, open_engine(opened, request))


class CxrScorer:
    """Scores chest X-rays with one bundle on one engine. Use it from one thread at a time.

    Args:
        bundle: The opened bundle.
        backend: An engine that holds its model; closed with the scorer.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        if bundle.manifest.task != "cxr-severity":
            backend.close()
            raise BundleError(
                "bundle-task",
                f"the bundle is for {bundle.manifest.task}, not for cxr-severity; give another bundle",
            )
        self.bundle = bundle
        self._backend = backend
        try:
            self._doubts = Doubts(bundle, backend)
        except BundleError:
            backend.close()
            raise
        self._watch = Watch(gpus=backend.info.device != "CPU")
        self._ref = BundleRef(bundle.manifest.name, bundle.manifest.version, bundle.digest)

    def score(self, source: str | Path, *, force: bool = False, keep_picture: bool = False) -> SeverityResult:
        """Score one file.

        Args:
            source: A DICOM, PNG, JPEG or TIFF file.
            force: Score also what is not a frontal chest X-ray by its header or its looks; the result says so.
            keep_picture: Keep the picture in the result, as a heatmap needs it: 4 bytes a pixel.

        Returns:
            The result. Whatever goes wrong with the input or in the network is told in it (``status``,
            ``error``) and not raised; `SeverityResult.raise_for_status` raises it.
        """
        span = self._watch.over()
        stages = Stages()
        findings: list[Finding] = []
        severity = radiograph = frame = error = None
        appearance: dict[str, float] = {}
        spec = self.bundle.manifest.input
        try:
            with stages.measure("read"):
                findings += quality.check_header(read_header(source), force=force)
                radiograph = read_radiograph(source)
                findings += radiograph.findings
                findings += quality.check_pixels(radiograph, force=force)
            with stages.measure("preprocess"):
                frame = cxr.frame_of(radiograph.pixels.shape, radiograph.pixel_aspect, spec.crop)
                image = cxr.preprocess(radiograph, spec)
            with stages.measure("inference"):
                outputs = self._backend.run({spec.name: image})
            with stages.measure("interpret"):
                severity = cxr.interpret(outputs, self.bundle.manifest)
                appearance = severity.appearance
                findings += quality.check_appearance(appearance, self.bundle.manifest, force=force)
                findings += quality.check_severity(severity, self.bundle.manifest)
                severity, told = intervals.widen(
                    severity, self.bundle.manifest, radiograph.header.view_position, findings
                )
                findings += told
                findings += self._doubts.list()
        except BedsideError as problem:
            error = _without_frames(problem)
        except Exception as problem:  # noqa: BLE001 -- one study's surprise must not take the others down
            error = InternalError.of(problem)
        machine = span.end()
        findings += doubt_machine(machine)
        return SeverityResult(
            source=str(source),
            bundle=self._ref,
            engine=self.engine,
            severity=severity if error is None else None,
            error=error,
            appearance=appearance,
            quality=tuple(findings),
            forced=any(finding.code == "forced" for finding in findings),
            timing_ms=stages.finish(),
            machine=machine,
            radiograph=radiograph if keep_picture else None,
            frame=frame,
        )

    @property
    def engine(self) -> EngineInfo:
        """What runs the network."""
        return self._backend.info

    def close(self) -> None:
        """Free the engine."""
        self._backend.close()

    def __enter__(self) -> CxrScorer:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Free the engine."""
        self.close()


def _without_frames(error: BedsideError) -> BedsideError:
    """Let go of the frames in an error's traceback and causes: they hold the picture, in a cycle with the error."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error
