"""What of a change may be noise: what a bundle says of its own repeatability, and of people's. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bedside.contract import RUNS, Repeatability
from bedside.errors import BundleError, RefusedError
from bedside.manifest import Manifest
from bedside.provenance import BundleRef
from bedside.trend.studies import Engine, Study

__all__ = ["Noise", "noise_of", "require_one_bundle"]

REFERENCE = "fp32"
"""Precision that repeatability is measured at."""
COMMANDS: Mapping[str, str] = {"x-ray": "score", "ct": "segment"}
"""Kind of study -> the command that makes its results."""


@dataclass(frozen=True, slots=True)
class Noise:
    """How far a quantity moves without a change in the patient."""

    own: Repeatability
    """Of the bundle's answers, at fp32."""
    observers: Repeatability | None
    """Of people who read one picture; None where that is not known."""
    tolerances: Mapping[str, float]
    """Precision -> how far its answers may be from the reference's, as was checked; in the quantity's unit."""

    def smallest_change(self, first: Engine, second: Engine) -> float | None:
        """Change between two studies from which on it is more than noise; None at a precision that was never checked.

        Two answers at fp32 of one backend add nothing to what was measured. Any other precision, and another backend,
        adds as much as the bundle lets either answer be off: a bound, whatever the picture.
        """
        if first == second and first.precision == REFERENCE:
            return self.own.smallest_change
        if not {first.precision, second.precision} <= self.tolerances.keys():
            return None
        return self.own.smallest_change + sum(self.tolerances[each.precision] for each in (first, second))


def noise_of(manifest: Manifest, name: str) -> Noise | None:
    """What a bundle says of the noise of a score; None where that was never measured, as for volumes."""
    for score in manifest.scores:
        if score.name == name and score.repeatability is not None:
            return Noise(score.repeatability, score.observers, _tolerances(manifest, name))
    return None


def require_one_bundle(studies: Sequence[Study]) -> BundleRef:
    """The bundle that answered on all studies of one kind.

    Raises:
        RefusedError: ``mixed-bundles``.
    """
    bundles = {study.bundle.digest: study.bundle for study in studies}
    if len(bundles) > 1:
        said = ", ".join(
            f"{each.name} {each.version} (sha256 {each.digest[:12]})" for each in bundles.values()
        )
        command = COMMANDS[studies[0].kind]
        raise RefusedError(
            "mixed-bundles",
            f"results of {len(bundles)} bundles are no trend: {said}; make all again with one: bedside {command} "
            "--bundle BUNDLE --out FOLDER PATH..., then bedside trend FOLDER",
        )
    return studies[0].bundle


def _tolerances(manifest: Manifest, name: str) -> dict[str, float]:
    found = {}
    for precision in RUNS:
        try:
            found[precision] = manifest.tolerance(precision)[name]
        except BundleError:  # the bundle can't be run so
            continue
    return found
