"""The answer on one CT, as Python, the command line and the files give it alike."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside.backends.base import EngineInfo
from bedside.device import Machine
from bedside.errors import BedsideError
from bedside.provenance import NOTICE, BundleRef
from bedside.radiograph import Finding
from bedside.scan import Entry

__all__ = [
    "SCHEMA",
    "Confusion",
    "CurvePoint",
    "Opacification",
    "OpacificationResult",
    "Picture",
    "Range",
    "Region",
    "TissueVolume",
]

SCHEMA: Final = "bedside.opacification/1"
"""Version of the JSON; its schema is ``schemas/opacification-1.schema.json``."""


@dataclass(frozen=True, slots=True)
class Range:
    """An interval for the opacified volume."""

    low: float
    """Lower end, mL."""
    high: float
    """Upper end, mL."""
    level: float | None
    """Share of truths inside, as it was measured; None where that was never measured."""
    method: str
    """What it rests on, in one line."""


@dataclass(frozen=True, slots=True)
class Region:
    """Both lungs, or one. Volumes in mL."""

    lung_ml: float
    """Volume of the lung with its opacities, by the labels."""
    opacity_ml: float
    """Opacified volume, by the labels."""
    opacity_ml_expected: float
    """Opacified volume as the sum of the probabilities."""
    aerated_ml: float
    """Well-aerated lung: its voxels from -950 to -700 HU."""
    mean_hu: float | None
    """Mean of the lung with its opacities, HU; None without a lung."""

    @property
    def opacity_percent(self) -> float | None:
        """Opacified share of the lung, percent; None without a lung."""
        return 100 * self.opacity_ml / self.lung_ml if self.lung_ml > 0 else None

    @property
    def aerated_percent(self) -> float | None:
        """Well-aerated share of the lung, percent; None without a lung."""
        return 100 * self.aerated_ml / self.lung_ml if self.lung_ml > 0 else None


@dataclass(frozen=True, slots=True)
class TissueVolume:
    """One class of the segmentation, over all slices."""

    label: int
    """Its value in the label file."""
    name: str
    """As in the bundle."""
    opacity: bool
    """Counts to the opacified volume."""
    lung: bool
    """Counts to the lung."""
    ml: float
    """Volume by the labels, mL."""
    ml_expected: float
    """Volume as the sum of the probabilities, mL."""
    ml_left: float
    """Of `ml`, what lies in the patient's left half."""
    ml_right: float
    """Of `ml`, what lies in the patient's right half."""
    percent_of_lung: float | None
    """`ml` in percent of the lungs; None for what is not lung, and without lungs."""
    mean_hu: float | None
    """Mean HU; None where there is none of it."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One slice that was read."""

    index: int
    """Slice of the label file, from the feet."""
    z_mm: float
    """Patient coordinate towards the head, mm."""
    lung_cm2: float
    """Area of lung, cm2."""
    opacity_cm2: float
    """Area of opacity, cm2."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """How much of what the network names so experts would call otherwise, where the bundle knows it."""

    name: str
    """The tissue as the network names it."""
    ml: float
    """Its volume by the labels, mL."""
    experts_ml: dict[str, float]
    """Tissue as experts would name it -> expected volume, mL; adds up to `ml`."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One slice to be shown; not part of the JSON."""

    index: int
    """Slice of the label file, from the feet."""
    z_mm: float
    """Patient coordinate towards the head, mm."""
    hu: npt.NDArray[np.float32]
    """``(Y, X)`` float32, HU; rows to the back, columns to the patient's left."""
    labels: npt.NDArray[np.uint8]
    """``(Y, X)`` uint8, of the bundle's tissues."""
    spacing_mm: tuple[float, float]
    """Distance between rows and between columns, mm."""


@dataclass(frozen=True, slots=True)
class Opacification:
    """What was measured in a scan."""

    both: Region
    """Both lungs."""
    left: Region
    """The patient's left lung."""
    right: Region
    """The patient's right lung."""
    interval: Range
    """For the opacified volume: all that is known to make it uncertain, together."""
    sampling: Range | None
    """The part of `interval` that comes of slices not read; None where all were."""
    sides: str
    """How left and right were told apart: ``network``, or ``sagittal plane at x = ... mm``."""
    tissues: tuple[TissueVolume, ...]
    """Every class, in the order of the labels."""
    curve: tuple[CurvePoint, ...]
    """Every slice that was read, from the feet to the head."""
    confusion: tuple[Confusion, ...]
    """Disagreement between patterns, where the bundle knows it."""
    read_share: float
    """Share of the slices that were read: 1 without a deadline."""


@dataclass(frozen=True, slots=True)
class OpacificationResult:
    """What came of one scan: volumes, or why there are none."""

    source: str
    """The input, as it was given."""
    bundle: BundleRef
    """What answered, or would have."""
    engine: EngineInfo
    """What ran it."""
    series: str = ""
    """Series Instance UID, where the input has one."""
    opacification: Opacification | None = None
    """The volumes; None unless `status` is ``ok``."""
    error: BedsideError | None = None
    """Why there are none; None if `status` is ``ok``."""
    ledger: tuple[Entry, ...] = ()
    """What was found in the geometry."""
    quality: tuple[Finding, ...] = ()
    """Doubts about the scan and the answer."""
    shape: tuple[int, int, int] | None = None
    """Voxels of the labels, ``(Z, Y, X)``."""
    spacing_mm: tuple[float, float, float] | None = None
    """Distance between them along ``(z, y, x)``, mm."""
    peak_memory_mib: float | None = None
    """Greatest proportional set size of this process and its children that was seen, MiB."""
    predicted_memory_mib: float | None = None
    """What the plan said before, MiB."""
    memory_budget_mib: float | None = None
    """The budget that was given; None without one."""
    timing_ms: dict[str, float] = field(default_factory=dict)
    """Stage -> milliseconds of work in it (stages overlap), and ``total``, by the wall."""
    machine: Machine | None = None
    """How the device fared; None where nobody looked."""
    pictures: tuple[Picture, ...] = field(default=(), repr=False)
    """Slices for the report, where they were to be kept; not part of the JSON."""

    @property
    def status(self) -> str:
        """``ok``; ``refused`` (readable, but not to be segmented); or ``failed``."""
        if self.error is None:
            return "ok"
        return "refused" if self.error.refusal else "failed"

    def raise_for_status(self) -> OpacificationResult:
        """Return this result, or raise the error that it holds."""
        if self.error is not None:
            raise self.error
        return self

    def to_json(self, files: dict[str, str] | None = None) -> dict[str, Any]:
        """The result as an object of `SCHEMA`, ready for `json.dumps`.

        Args:
            files: What was written beside it: kind (``labels``, ``report``, ...) -> file name.
        """
        found = self.opacification
        return {
            "schema": SCHEMA,
            "source": self.source,
            "series": self.series,
            "status": self.status,
            "error": None if self.error is None else {"code": self.error.code, "message": self.error.message},
            "volumes": None if found is None else _volumes(found),
            "classes": [] if found is None else [_tissue(tissue) for tissue in found.tissues],
            "curve": [] if found is None else [_rounded(asdict(point)) for point in found.curve],
            "confusion": [] if found is None else [_rounded(asdict(each)) for each in found.confusion],
            "files": files or {},
            "ledger": [_rounded(asdict(entry)) for entry in self.ledger],
            "quality": [asdict(finding) for finding in self.quality],
            "shape": None if self.shape is None else list(self.shape),
            "spacing_mm": None if self.spacing_mm is None else [round(mm, 6) for mm in self.spacing_mm],
            "read_share": 0.0 if found is None else round(found.read_share, 6),
            "peak_memory_mib": _round(self.peak_memory_mib),
            "predicted_memory_mib": _round(self.predicted_memory_mib),
            "memory_budget_mib": _round(self.memory_budget_mib),
            "bundle": asdict(self.bundle),
            "engine": asdict(self.engine),
            "timing_ms": {stage: round(value, 3) for stage, value in self.timing_ms.items()},
            "machine": None if self.machine is None else self.machine.to_json(),
            "notice": NOTICE,
        }


def _volumes(found: Opacification) -> dict[str, Any]:
    return {
        **_region(found.both),
        "opacity_ml_low": _round(found.interval.low),
        "opacity_ml_high": _round(found.interval.high),
        "interval": {"level": found.interval.level, "method": found.interval.method},
        "sampling": None if found.sampling is None else _rounded(asdict(found.sampling)),
        "left": _region(found.left),
        "right": _region(found.right),
        "sides": found.sides,
    }


def _region(region: Region) -> dict[str, Any]:
    return {
        "lung_ml": _round(region.lung_ml),
        "opacity_ml": _round(region.opacity_ml),
        "opacity_ml_expected": _round(region.opacity_ml_expected),
        "opacity_percent": _round(region.opacity_percent),
        "aerated_percent": _round(region.aerated_percent),
        "mean_hu": _round(region.mean_hu),
    }


def _tissue(tissue: TissueVolume) -> dict[str, Any]:
    record: dict[str, Any] = _rounded(asdict(tissue))
    return record


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return _round(value)
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return value


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
