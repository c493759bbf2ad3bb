"""Whether what was found in a scan is an answer, and what makes it doubtful."""

from __future__ import annotations

from typing import Final

from bedside.errors import RefusedError
from bedside.manifest import Manifest
from bedside.opacification import Opacification
from bedside.radiograph import Finding
from bedside.tiles import TilePlan

__all__ = ["check_found", "check_tile"]

NO_LUNGS_ML: Final = 50.0
"""Less lung than this is none: a newborn's lungs hold about 100 mL (functional residual capacity about 30 mL/kg;
Fletcher et al. 2000)."""
CUT_SHARE: Final = 0.15
"""Area of lung in the first or last slice, of the largest one, from which the scan does not cover the lungs."""


def check_found(found: Opacification) -> tuple[Finding, ...]:
    """Look at what was found.

    Raises:
        RefusedError: ``no-lungs``.
    """
    lung_ml = found.both.lung_ml
    if lung_ml < NO_LUNGS_ML:
        raise RefusedError(
            "no-lungs",
            f"{lung_ml:.0f} mL of lung were found, which is none; check that this is a CT of the chest",
        )
    notes = []
    largest = max(point.lung_cm2 for point in found.curve)
    for end, point in (("feet", found.curve[0]), ("head", found.curve[-1])):
        if point.lung_cm2 > CUT_SHARE * largest:
            text = f"the scan ends inside the lungs towards the {end}: the volumes are of the part that it covers"
            notes.append(Finding("lungs-cut", text))
    for name, region, other in (("left", found.left, found.right), ("right", found.right, found.left)):
        if region.lung_ml < 0.1 * other.lung_ml:
            notes.append(Finding("one-lung", f"next to no {name} lung was found: it may be missing or white"))
    return tuple(notes)


def check_tile(plan: TilePlan, manifest: Manifest) -> tuple[Finding, ...]:
    """Note tiles that are smaller than what export tried."""
    tried = manifest.tiling.size if manifest.tiling else plan.tile
    enough = [min(side, voxels) for side, voxels in zip(tried, plan.shape[-len(tried) :], strict=True)]
    if all(side >= least for side, least in zip(plan.tile, enough, strict=True)):
        return ()
    sizes = ["x".join(map(str, each)) for each in (plan.tile, tried)]
    return (
        Finding(
            "small-tiles", f"tiles of {sizes[0]} in place of {sizes[1]}, for the memory's sake: less exact"
        ),
    )
