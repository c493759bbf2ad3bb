"""The geometry ledger: what is found, what is decided, and how wrong a volume may be for it.

The bounds are for a body of `REFERENCE_MM` from top to bottom whose cross-section A(z) grows from nothing to a
largest value A0 and shrinks again, at no height faster than that of an ellipsoid of that height H:
``|A'| <= 4 A0 / H``, ``|A''| <= 8 A0 / H^2``, volume ``V = 2 A0 H / 3``. An adult's lung is taller than that;
for a body of height h, a bound linear in 1/H grows by H / h and one in 1/H^2 by its square. The volume that is
measured is the sum of A over the slices, times their distance. They bound what the finding adds, not how
accurately a body is outlined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from bedside.errors import RefusedError
from bedside.scan import Entry

__all__ = [
    "GeometryError",
    "Ledger",
    "bound_ends",
    "bound_jitter",
    "bound_missing",
    "bound_pixel_spacing",
    "bound_resampling",
    "bound_sampling",
]

REFERENCE_MM: Final = 200.0
"""Height H of the body that the bounds are for: an adult's lung in a supine CT is about 200 to 300 mm tall."""


class GeometryError(RefusedError):
    """The slices make no volume.

    Args:
        code: One of `bedside.errors.CODES`.
        message: One line: what is wrong, and what to do.
        ledger: What was found up to there; the last entry is the refusal.
    """

    def __init__(self, code: str, message: str, ledger: tuple[Entry, ...] = ()) -> None:
        super().__init__(code, message)
        self.ledger = ledger


@dataclass(slots=True)
class Ledger:
    """Collects entries, in order."""

    entries: list[Entry] = field(default_factory=list)
    """What was found so far."""

    def accept(self, finding: str, text: str, *, error_percent: float = 0.0, count: int = 1) -> None:
        """Something worth telling that needs nothing done."""
        self.entries.append(Entry(finding, "accepted", text, error_percent, count))

    def mend(self, finding: str, text: str, *, error_percent: float = 0.0, count: int = 1) -> None:
        """A defect that was mended."""
        self.entries.append(Entry(finding, "mended", text, error_percent, count))

    def refuse(
        self, finding: str, text: str, *, count: int = 1, code: str = "improper-geometry"
    ) -> GeometryError:
        """A defect that can't be mended; the caller raises what comes back."""
        entry = Entry(finding, "refused", text, count=count)
        return GeometryError(code, text, (*self.entries, entry))


def bound_missing(runs: Sequence[int], gap_mm: float) -> float:
    """Bound for slices that are interpolated between their neighbours, percent.

    A blend of two slices lies, at every pixel, between them, so its cross-section lies between theirs, A and B,
    if one outline holds the other; so does the true one where A(z) is monotone in the gap. A run of k slices is
    then wrong by at most ``k s |A - B|``, with s the distance of slices. By the slope, ``|A - B| <= 4 A0 (k + 1)
    s / H``: relative to V that is ``6 k (k + 1) (s / H)^2`` for each run. By the whole rise and fall, the sum of
    ``|A - B|`` over all runs is at most 2 A0: relative to V that is ``3 max(k) s / H``. The lesser of the two
    holds.

    Args:
        runs: How many slices are missing in each gap.
        gap_mm: Distance of neighbouring slices.
    """
    steep = sum(6 * run * (run + 1) * (gap_mm / REFERENCE_MM) ** 2 for run in runs)
    return 100 * min(steep, 3 * max(runs, default=0) * gap_mm / REFERENCE_MM)


def bound_ends(slices: int, gap_mm: float) -> float:
    """Bound for slices that are lost at the ends of the scan, percent.

    Nothing is known of them, so each may have held A0: ``k s A0 / V = 1.5 k s / H``.
    """
    return 100 * 1.5 * slices * gap_mm / REFERENCE_MM


def bound_jitter(offset_mm: float) -> float:
    """Bound for slices that lie up to ``offset_mm`` from where a uniform grid has them, percent.

    With offsets d, the sum is wrong by ``sum d_i (A_(i+1) - A_(i-1)) / 2``, at most the largest offset times
    the whole rise and fall of A, which is 2 A0: relative to V, ``3 d / H``.
    """
    return 100 * 3 * offset_mm / REFERENCE_MM


def bound_resampling(step_mm: float, widest_mm: float) -> float:
    """Bound for slices blended to a uniform grid of ``step_mm`` from neighbours up to ``widest_mm`` apart, percent.

    An outline in a blend changes over from one neighbour's to the other's somewhere between them; on the grid
    that point is off by up to half a step, which moves the sum by at most half a step times the rise and fall
    of 2 A0: ``1.5 step / H``. To this adds what neighbours so far apart leave unknown: `bound_sampling`.
    """
    return 100 * 1.5 * step_mm / REFERENCE_MM + bound_sampling(widest_mm)


def bound_sampling(gap_mm: float) -> float:
    """Bound for what lies unseen between slices ``gap_mm`` apart, percent.

    Between the ends, the trapezoidal rule is off by ``g^3 / 12 |A''|`` for each of H / g gaps: relative to V,
    ``(g / H)^2``. Each tip of the body lies somewhere in a gap, where A is at most ``4 A0 g / H``, and adds at
    most ``g`` times that: ``6 (g / H)^2`` each.
    """
    return 100 * 13 * (gap_mm / REFERENCE_MM) ** 2


def bound_pixel_spacing(deviation: float) -> float:
    """Bound for pixels whose sides are off by a share of up to ``deviation``, percent: areas go with the square."""
    return 100 * ((1 + deviation) ** 2 - 1)
