"""Comparing readers: label maps or results of several, case by case, and how well they agree over all cases.

    compare       paths in, `Comparison` out
    Comparison    what was compared, each case, and the agreement; `Comparison.to_json` writes it down
    draw          the same as a picture

Needs the extra ``stats``. The first reader is the reference. Not for clinical use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bedside.agreement import require_libraries
from bedside.comparison.charts import draw
from bedside.comparison.document import write_document
from bedside.comparison.maps import CaseOverlap, PairOverlap, VoxelVotes, compare_maps
from bedside.comparison.quantities import Quantity, measure_agreement, quantities_of_results
from bedside.comparison.readers import LABELS, Reader, Readers, open_readers
from bedside.measure import Overlap, SurfaceDistance

__all__ = ["Comparison", "PartAgreement", "compare", "draw"]

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class PartAgreement:
    """One reader's labels of one part over the reference's, over all cases."""

    reader: int
    """Place among the readers; 0 is the reference."""
    part: str
    """``opacity``, ``lung`` or a class."""
    defined: int
    """Cases with a Dice: those where either has some of it. The means are over them."""
    dice_mean: float | None
    """Mean Dice of the cases; None where none has one."""
    iou_mean: float | None
    """Mean IoU."""
    pooled: Overlap
    """All cases taken together: their Dice weighs a case by its volume."""
    surfaces: int
    """Cases where both have some of it, so that there is a distance. The next is over them."""
    surface_mean: SurfaceDistance | None
    """Means of the cases' distances; None where none has one."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of comparing readers."""

    kind: str
    """``labels``, ``opacification`` or ``severity``: see `bedside.comparison.readers`."""
    readers: tuple[Reader, ...]
    """The reference first."""
    cases: tuple[str, ...]
    """Those that were compared."""
    left_out: Mapping[str, str]
    """Case -> why it was not."""
    overlaps: tuple[CaseOverlap, ...]
    """Of label maps, each case; else empty."""
    parts: tuple[PartAgreement, ...]
    """Of label maps, each reader and part over all cases; else empty."""
    voxels: VoxelVotes | None
    """Of label maps, the voxels of all cases; else None."""
    quantities: tuple[Quantity, ...]
    """Volumes or scores, with the agreement on them."""

    def to_json(self) -> dict[str, Any]:
        """All of it as an object of schema ``bedside.comparison/1``, ready for `json.dumps`."""
        return write_document(self)


def compare(
    paths: Sequence[Path],
    opacity_labels: Sequence[frozenset[int]] = (),
    *,
    progress: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> Comparison:
    """Compare what lies under two or more paths; the first is the reference.

    Args:
        paths: See `bedside.comparison.readers.open_readers`.
        opacity_labels: See there.
        progress: Goes through the names of the cases of label maps, as each is taken up; may show how far it is.

    Raises:
        InputError: Something can't be read.
        RefusedError: ``not-comparable``.
        MissingExtraError: The extra ``stats`` is not installed.
    """
    require_libraries()
    found = open_readers(paths, opacity_labels)
    if found.kind != LABELS:
        return _comparison(found, (), quantities_of_results(found))
    overlaps = tuple(compare_maps(case, found.readers) for case in progress(found.cases))
    return _comparison(found, overlaps, tuple(_volumes(overlaps)))


def _comparison(
    found: Readers, overlaps: tuple[CaseOverlap, ...], quantities: tuple[Quantity, ...]
) -> Comparison:
    voxels = None
    for case in overlaps:
        voxels = case.voxels if voxels is None else voxels + case.voxels
    return Comparison(
        found.kind,
        found.readers,
        found.cases,
        found.left_out,
        overlaps,
        tuple(_sum_up(overlaps, len(found.readers))),
        voxels,
        quantities,
    )


def _sum_up(overlaps: Sequence[CaseOverlap], readers: int) -> Iterable[PartAgreement]:
    for reader in range(1, readers):
        pairs: list[PairOverlap] = [case.pairs[reader - 1] for case in overlaps]
        for part in _shared_parts(overlaps):
            each = [pair.overlaps[part] for pair in pairs]
            dices = _defined(overlap.dice for overlap in each)
            distances = _defined(pair.surfaces[part] for pair in pairs)
            pooled = each[0]
            for overlap in each[1:]:
                pooled += overlap
            yield PartAgreement(
                reader,
                part,
                len(dices),
                _mean(dices),
                _mean(_defined(overlap.iou for overlap in each)),
                pooled,
                len(distances),
                _mean_distance(distances),
            )


def _shared_parts(overlaps: Sequence[CaseOverlap]) -> list[str]:
    if not overlaps:
        return []
    return [part for part in overlaps[0].volumes_ml if all(part in case.volumes_ml for case in overlaps)]


def _volumes(overlaps: Sequence[CaseOverlap]) -> Iterable[Quantity]:
    """The volume of each part, and the opacity in percent of the lung where maps tell the lung."""
    names = [case.case for case in overlaps]
    parts = _shared_parts(overlaps)
    for part in parts:
        yield measure_agreement(part, "mL", names, [case.volumes_ml[part] for case in overlaps])
        if part == "opacity" and "lung" in parts:
            shares = [
                [
                    100 * opacity / lung if lung > 0 else None
                    for opacity, lung in zip(case.volumes_ml["opacity"], case.volumes_ml["lung"], strict=True)
                ]
                for case in overlaps
            ]
            quantity = measure_agreement("opacity of lung", "%", names, shares)
            if quantity.cases:
                yield quantity


def _mean_distance(distances: Sequence[SurfaceDistance]) -> SurfaceDistance | None:
    if not distances:
        return None
    count = len(distances)
    return SurfaceDistance(
        sum(each.mean_mm for each in distances) / count,
        sum(each.hausdorff_mm for each in distances) / count,
        sum(each.hausdorff95_mm for each in distances) / count,
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _defined(values: Iterable[Value | None]) -> list[Value]:
    return [value for value in values if value is not None]
