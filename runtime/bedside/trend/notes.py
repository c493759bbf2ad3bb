"""What to know of studies and of a trend as a whole, in one line each. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from bedside.manifest import Manifest
from bedside.provenance import BundleRef
from bedside.radiograph import Finding
from bedside.trend.moments import Moment
from bedside.trend.noise import Noise
from bedside.trend.occasions import Dated
from bedside.trend.studies import Study

__all__ = ["note_noise", "note_patients", "note_scale", "note_time", "note_view", "projection"]

PROJECTIONS: Final = ("AP", "PA")
"""What the first word of a view position may be, where two are compared."""


def projection(view: str) -> str:
    """``AP`` or ``PA``; empty where a view position says neither."""
    word = view.replace(",", " ").split()[:1]
    return word[0] if word and word[0] in PROJECTIONS else ""


def note_view(view: str, before: str) -> Iterable[Finding]:
    """On a projection that is not that of the study before; both as of `projection`."""
    if view and before and view != before:
        yield Finding(
            "view-changed", f"{view}, and the one before it {before}: that alone changes how lungs look"
        )


def note_time(each: Dated, moment: Moment, all_of_them: Sequence[Moment]) -> Iterable[Finding]:
    """On what makes the time of a study doubtful."""
    if each.clock == "study":
        yield Finding("study-time", "the time is when the study began: the file gives none of the exposure")
    if sum(other.days == moment.days for other in all_of_them) > 1:
        yield Finding("same-time", "another study has the same time: which came first is not known")


def note_scale(study: Study) -> Iterable[Finding]:
    """On scores that can't go further up."""
    for name, reading in study.readings.items():
        if reading.scale is not None and reading.value >= reading.scale[1]:
            yield Finding(
                "top-of-scale", f"{name} is at the top of its scale: it can't show that things get worse"
            )


def note_patients(dated: Sequence[Dated], chosen: Sequence[Dated], *, same_patient: bool) -> list[Finding]:
    """On whose studies they are.

    Args:
        dated: All of them.
        chosen: Those that are followed.
        same_patient: Whether somebody said that they are of one.
    """
    notes = []
    if len(chosen) < len(dated):
        others = len(dated) - len(chosen)
        notes.append(
            Finding("others", f"{others} more studies are not of this patient, or don't say whose they are")
        )
    unknown = sum(each.patient is None for each in chosen)
    if same_patient:
        notes.append(Finding("same-patient", "taken as one patient's, as asked, whatever their headers say"))
    elif unknown and len(chosen) > 1:
        notes.append(
            Finding(
                "patient-unknown",
                f"{unknown} of {len(chosen)} studies don't say whose they are: taken as one patient's",
            )
        )
    return notes


def note_noise(
    kind: str,
    bundle: BundleRef,
    manifest: Manifest | None,
    noises: Mapping[str, Noise | None],
    studies: Sequence[Study],
) -> Iterable[Finding]:
    """On what is not known of noise, and what widens it.

    Args:
        kind: Of the studies.
        bundle: What answered on them.
        manifest: What it says of itself; None where it is not at hand.
        noises: Of each quantity, where it is known.
        studies: All of that kind.
    """
    named = f"{bundle.name} {bundle.version} (sha256 {bundle.digest[:12]})"
    if manifest is None:
        yield Finding(
            "bundle-absent",
            f"the bundle {named} is not at hand, so noise can't be told from change: give it with --bundle",
        )
    elif any(noise is None for noise in noises.values()):
        yield Finding(
            "noise-unknown",
            f"the bundle {named} does not say how well its answers repeat themselves, so noise can't be told from "
            "change: look at the intervals",
        )
    engines = list(dict.fromkeys(f"{study.engine.backend} {study.engine.precision}" for study in studies))
    if len(engines) > 1:
        widened = (
            ""
            if all(noise is None for noise in noises.values())
            else ("; what is taken for noise is widened by how far the bundle lets them differ")
        )
        yield Finding("several-engines", f"{kind} studies were answered by {', '.join(engines)}{widened}")
