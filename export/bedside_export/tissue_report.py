"""What came of comparing engines with PyTorch on a network that segments: the parity report of a CT bundle.

TissueGap      one tissue
TissueReport   one engine at one precision
TissueParity   all of them
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from bedside_export.errors import ParityError
from bedside_export.parity import SCHEMA

__all__ = ["TissueGap", "TissueParity", "TissueReport"]


@dataclass(frozen=True, slots=True)
class TissueGap:
    """How far an engine's answer is from PyTorch's in one tissue, over all tiles."""

    dice_loss: float
    """1 - Dice; of a tissue of few voxels, as `bedside.tissue_counts` has it."""
    limit: float
    """Greatest that is allowed."""
    voxels: int
    """By PyTorch."""
    ml: float
    """By PyTorch, mL."""
    ml_difference: float
    """The engine's minus that, mL."""
    note: str = ""
    """``absent`` where neither has it, ``few voxels`` where it has under `bedside.tissue_counts.FEW_VOXELS`."""


@dataclass(frozen=True, slots=True)
class TissueReport:
    """One engine at one precision."""

    backend: str
    """Name of the backend."""
    precision: str
    """Precision asked for."""
    status: str
    """``passed``, ``failed``, or ``not-run`` where this machine doesn't have the engine or the precision."""
    version: str = ""
    """Version of the engine's library."""
    reason: str = ""
    """Why it failed or did not run, in one line."""
    tissues: dict[str, TissueGap] = field(default_factory=dict)
    """Tissue -> difference."""
    volume_percent: float | None = None
    """Difference of the opacified volume, the larger of hard and expected, in percent of PyTorch's."""
    volume_limit: float | None = None
    """Greatest that is allowed."""
    opacity_ml: float | None = None
    """Opacified volume by PyTorch, mL."""
    opacity_ml_difference: float | None = None
    """The engine's minus that, mL."""
    probability: float | None = None
    """Largest difference of a probability."""
    probability_other_size: float | None = None
    """The same on a tile of another size, where sides are dynamic."""


@dataclass(frozen=True, slots=True)
class TissueParity:
    """The report that goes into the bundle."""

    images: int
    """Number of tiles."""
    voxel_ml: float
    """Volume that a voxel is counted with, mL."""
    reference: str
    """What the engines were compared with."""
    engines: tuple[TissueReport, ...]
    """One for each engine and precision."""
    skip: dict[str, Any] = field(default_factory=dict)
    """What leaving tiles out costs, where the bundle leaves more out than constant ones."""
    schema: str = SCHEMA
    """Schema of the report."""

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)

    def require(self) -> None:
        """Insist on the reference engine.

        Raises:
            ParityError: It failed; the message says by how much.
        """
        first = self.engines[0]
        if first.status != "passed":
            raise ParityError(
                f"{first.backend} {first.precision} does not answer as PyTorch does ({first.reason}); no bundle is "
                "written"
            )
