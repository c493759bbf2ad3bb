"""A bundle's scores of many pictures, and whether it may have learnt from them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bedside.bundle import built_in
from bedside.cxr import Estimate
from bedside.scorer import open_cxr
from bedside_export.errors import ExportError
from bedside_export.heads import SCORES

__all__ = ["Scored", "describe", "score_table"]


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What a bundle says of each picture."""

    name: str
    """The bundle's."""
    version: str
    """The bundle's."""
    digest: str
    """Names it exactly."""
    scales: tuple[tuple[float, float], ...]
    """Its own scales of extent and opacity."""
    bounds: tuple[tuple[float, float], ...]
    """The scales of `scores`."""
    scores: npt.NDArray[np.float64]
    """``(N, 2)``: extent and opacity, clipped to their scales as a result gives them."""
    forced: int
    """Pictures that it would have refused, had it not been told to score them."""

    def label(self, taken: Collection[str]) -> str:
        """Name and version, and some of the digest where another bundle has these."""
        name = f"{self.name} {self.version}"
        return f"{name} ({self.digest[:8]})" if name in taken else name


def score_table(
    bundle: str,
    images: Sequence[Path],
    bounds: Sequence[tuple[float, float]],
    *,
    what: str = "the table of scores",
) -> Scored:
    """Score pictures on the reference engine.

    Args:
        bundle: A folder, a zip file, or a built-in bundle's name.
        images: Picture files, in the order of a table's rows.
        bounds: Scales to map the bundle's own to, linearly: 6/8 of RALO compares to the older scale of opacity.
        what: Which table, for messages.

    Raises:
        BundleError: The bundle is not there, broken, or for another task.
        ExportError: A picture can't be scored; the message says which row of the table.
    """
    rows, forced = [], 0
    with open_cxr(bundle) as scorer:
        manifest, digest = scorer.bundle.manifest, scorer.bundle.digest
        for number, image in enumerate(images, 2):  # the header is line 1
            result = scorer.score(image, force=True)
            if result.extent is None or result.opacity is None:
                why = "it was not scored" if result.error is None else result.error.message
                raise ExportError(f"{what}, row {number}: {why}")
            forced += result.forced
            pairs = zip((result.extent, result.opacity), bounds, strict=True)
            rows.append([_rescale(estimate, limits) for estimate, limits in pairs])
    scale = {score.name: (score.low, score.high) for score in manifest.scores}
    return Scored(
        manifest.name,
        manifest.version,
        digest,
        (scale["extent"], scale["opacity"]),
        tuple(bounds),
        np.array(rows),
        forced,
    )


def describe(scored: Scored, *, scores: Sequence[str] = SCORES) -> list[str]:
    """What a reader of its figures has to know; of scales, those of the scores that are used."""
    notes = []
    if scored.name in built_in():
        notes.append(
            f"WARNING: {scored.name} was trained on covid-chestxray-dataset, severity and Brixia scores included. On "
            "pictures of that collection its figures are of patients that it knows, and say nothing of new ones: its "
            "model card has those, and --predictions measures them."
        )
    else:
        notes.append(
            f"Whether {scored.name} was trained on some of these patients is not known here: if so, its figures say "
            "nothing of new ones. See its model card."
        )
    for name, own, wanted in zip(SCORES, scored.scales, scored.bounds, strict=True):
        if name in scores and own != wanted:
            notes.append(
                f"{scored.name} gives {name} from {own[0]:g} to {own[1]:g}; it is mapped linearly to "
                f"{wanted[0]:g} to {wanted[1]:g}."
            )
    if scored.forced:
        notes.append(
            f"{scored.name} would have refused {scored.forced} of the pictures; they count all the same."
        )
    return notes


def _rescale(estimate: Estimate, limits: tuple[float, float]) -> float:
    low, high = estimate.scale
    return limits[0] + (estimate.value - low) / (high - low) * (limits[1] - limits[0])
