"""The answer on one X-ray, as Python, the command line and batches give it alike."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bedside.backends.base import EngineInfo
from bedside.cxr import Estimate, Frame, Severity
from bedside.device import Machine
from bedside.errors import BedsideError
from bedside.provenance import NOTICE, BundleRef
from bedside.radiograph import Finding, Radiograph

__all__ = ["SCHEMA", "SeverityResult"]

SCHEMA: Final = "bedside.severity/1"
"""Version of the JSON; its schema is ``schemas/severity-1.schema.json``."""


@dataclass(frozen=True, slots=True)
class SeverityResult:
    """What came of one input: scores, or why there are none."""

    source: str
    """The input, as it was given."""
    bundle: BundleRef
    """What answered, or would have."""
    engine: EngineInfo
    """What ran it."""
    severity: Severity | None = None
    """The scores; None unless `status` is ``ok``."""
    error: BedsideError | None = None
    """Why there are none; None if `status` is ``ok``."""
    appearance: dict[str, float] = field(default_factory=dict)
    """What the picture looks like, as far as the bundle tells: one of `bedside.contract.APPEARANCES` -> probability.
    Also of a picture that was refused for it."""
    quality: tuple[Finding, ...] = ()
    """Choices made in reading and doubts about the picture, in order."""
    forced: bool = False
    """True if `force` overrode a refusal."""
    timing_ms: dict[str, float] = field(default_factory=dict)
    """Stage -> milliseconds, of the stages that were reached, and their ``total``."""
    machine: Machine | None = None
    """How the device fared; None where nobody looked."""
    radiograph: Radiograph | None = field(default=None, repr=False)
    """The picture that was scored, where `CxrScorer.score` was to keep it; not part of the JSON."""
    frame: Frame | None = None
    """The square of it that the network saw; not part of the JSON."""

    @property
    def status(self) -> str:
        """``ok``; ``refused`` (readable, but not to be scored); or ``failed``."""
        if self.error is None:
            return "ok"
        return "refused" if self.error.refusal else "failed"

    @property
    def extent(self) -> Estimate | None:
        """Geographic extent, if scored."""
        return self.severity.extent if self.severity else None

    @property
    def opacity(self) -> Estimate | None:
        """Degree of opacity, if scored."""
        return self.severity.opacity if self.severity else None

    def raise_for_status(self) -> SeverityResult:
        """Return this result, or raise the error that it holds."""
        if self.error is not None:
            raise self.error
        return self

    def to_json(self, files: dict[str, str] | None = None) -> dict[str, Any]:
        """The result as an object of `SCHEMA`, ready for `json.dumps`.

        Args:
            files: What was written beside it: kind (``heatmap``) -> file name.
        """
        severity = self.severity
        return {
            "schema": SCHEMA,
            "source": self.source,
            "status": self.status,
            "error": None if self.error is None else {"code": self.error.code, "message": self.error.message},
            "extent": None if severity is None else _estimate(severity.extent),
            "opacity": None if severity is None else _estimate(severity.opacity),
            "pathologies": {}
            if severity is None
            else {k: round(v, 6) for k, v in severity.pathologies.items()},
            "appearance": {k: round(v, 6) for k, v in self.appearance.items()},
            "quality": [asdict(finding) for finding in self.quality],
            "forced": self.forced,
            "bundle": asdict(self.bundle),
            "engine": asdict(self.engine),
            "timing_ms": {stage: round(value, 3) for stage, value in self.timing_ms.items()},
            "machine": None if self.machine is None else self.machine.to_json(),
            "files": files or {},
            "notice": NOTICE,
        }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {
        "value": round(estimate.value, 4),
        "low": round(estimate.low, 4),
        "high": round(estimate.high, 4),
        "scale": list(estimate.scale),
        "level": estimate.level,
        "method": estimate.method,
        "head": estimate.head,
        "intervals": [
            {
                "level": span.level,
                "low": round(span.low, 4),
                "high": round(span.high, 4),
                "factor": round(span.factor, 4),
            }
            for span in estimate.intervals
        ],
        "wider_for": [asdict(cause) for cause in estimate.causes],
    }
