"""Following a patient: scores and volumes of several studies in order of time, and which change is more than noise.

    follow_up   results of ``bedside score`` and ``bedside segment`` in, `Trend` out
    Trend       the studies, and the course of each quantity; `write_document` and `rows` write it down

    moments     when a study was
    studies     what a result says of one
    occasions   when each study was and of whom, from its DICOM file
    noise       what a bundle says of its own repeatability, and that there is but one
    notes       what to know of studies and of the whole
    courses     changes from study to study
    slope       a straight line through a course
    document    a trend as JSON and as a table
    page        a trend as a picture

A change counts where it is over the smallest change that the bundle states, each by itself: of many comparisons,
some go over it by chance. Nothing here needs an engine or an extra. Not for clinical use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bedside.dicom import Marks, Patient
from bedside.errors import InputError, RefusedError
from bedside.manifest import Manifest
from bedside.provenance import BundleRef
from bedside.radiograph import Finding
from bedside.trend.courses import Course, Placed, follow
from bedside.trend.noise import Noise, noise_of, require_one_bundle
from bedside.trend.notes import note_noise, note_patients, note_scale, note_time, note_view, projection
from bedside.trend.occasions import Dated, Told, choose_patient, date_studies, may_be_of
from bedside.trend.studies import QUANTITIES, Study, read_study

__all__ = ["LeftOut", "Request", "Trend", "follow_up"]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A result that is not followed."""

    source: str
    """The input, as the result names it."""
    reason: str
    """Why: a status with its code, or that it has no time."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a person says of the studies."""

    told: Told = ()
    """Times; see `bedside.trend.occasions.Told`."""
    patient: int | Patient | None = None
    """Which patient, where there are several; see `bedside.trend.occasions.choose_patient`."""
    same_patient: bool = False
    """Whether all studies are one patient's, whatever their headers say."""
    marks: Marks = field(default_factory=Marks)
    """Made the mark of `patient`, if that is one."""


@dataclass(frozen=True, slots=True)
class Trend:
    """What became of one patient, as far as studies tell."""

    studies: tuple[Placed, ...]
    """In order of time; those of one time in the order in which they were given."""
    courses: tuple[Course, ...]
    """Of each quantity that a study gives."""
    left_out: tuple[LeftOut, ...]
    """Results that are not followed."""
    notes: tuple[Finding, ...]
    """What to know of the whole."""


def follow_up(
    records: Iterable[Mapping[str, Any]],
    request: Request | None = None,
    *,
    manifest_of: Callable[[BundleRef], Manifest | None],
) -> Trend:
    """Follow one patient through results.

    Args:
        records: What ``to_json`` of `SeverityResult` and `OpacificationResult` gives; of several with one source (and
            series) the last counts.
        request: What is said of them.
        manifest_of: The manifest of the bundle that answered, for what it says of noise; None where it is not at hand.

    Raises:
        InputError: ``not-results``; ``bad-attribute`` for a time that fits no study.
        RefusedError: ``mixed-bundles``, ``several-patients``, ``no-studies``; ``not-comparable`` where some times are
            dates and some numbers of days, or scores are on different scales.
    """
    request = request or Request()
    studies, left_out = _read(records)
    dated = date_studies(studies, request.told, request.marks, others=[each.source for each in left_out])
    chosen = dated if request.same_patient else choose_patient(dated, request.patient)
    notes = note_patients(dated, chosen, same_patient=request.same_patient)
    if len(chosen) < len(dated):
        patients = [each.patient for each in chosen if each.patient is not None]
        left_out = [each for each in left_out if may_be_of(each.source, patients, request.marks)]
    chosen, twice = _without_copies(chosen)
    left_out += twice + [
        LeftOut(
            each.study.source, "no time: its DICOM file does not tell it or is not there; give it with --at"
        )
        for each in chosen
        if each.moment is None
    ]
    placed = _place(chosen)
    if not placed:
        said = f" ({left_out[0].reason})" if left_out else ""
        raise RefusedError(
            "no-studies", f"no study can be followed{said}; give results with a score and a time"
        )
    courses = []
    for kind in dict.fromkeys(each.study.kind for each in placed):
        own = [each.study for each in placed if each.study.kind == kind]
        bundle = require_one_bundle(own)
        _check_scales(own)
        manifest = manifest_of(bundle)
        noises: dict[str, Noise | None] = {}
        for quantity in QUANTITIES:
            if quantity.kind == kind:
                noises[quantity.name] = None if manifest is None else noise_of(manifest, quantity.name)
                course = follow(quantity, placed, bundle, noises[quantity.name])
                courses += [] if course is None else [course]
        if len(own) > 1:
            notes += note_noise(kind, bundle, manifest, noises, own)
    if all(len(course.points) < 2 for course in courses):
        notes.insert(0, Finding("no-trend", "one study of a kind is no trend: nothing can be told of change"))
    return Trend(tuple(placed), tuple(courses), tuple(left_out), tuple(notes))


def _read(records: Iterable[Mapping[str, Any]]) -> tuple[list[Study], list[LeftOut]]:
    last: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for record in records:
        try:
            key = (str(record["schema"]), str(record["source"]), str(record.get("series", "")))
        except (LookupError, AttributeError, TypeError) as error:
            raise InputError("not-results", "what was given holds no results of bedside") from error
        last.pop(key, None)
        last[key] = record
    studies, left_out = [], []
    for (_, source, _), record in last.items():
        study = read_study(record)
        if isinstance(study, str):
            left_out.append(LeftOut(source, study))
        else:
            studies.append(study)
    return studies, left_out


def _without_copies(dated: Sequence[Dated]) -> tuple[list[Dated], list[LeftOut]]:
    """Each picture once, where files tell that they are of one."""
    seen: set[tuple[str, bytes]] = set()
    kept, left_out = [], []
    for each in dated:
        key = (each.study.kind, each.picture)
        if each.picture and key in seen:
            left_out.append(LeftOut(each.study.source, "the same picture as an earlier one"))
        else:
            kept.append(each)
            seen.add(key)
    return kept, left_out


def _place(chosen: Sequence[Dated]) -> list[Placed]:
    """In order of time, with the notes that only this order gives."""
    timed = [(each.moment, each) for each in chosen if each.moment is not None]
    if len({moment.dated for moment, _ in timed}) > 1:
        raise RefusedError(
            "not-comparable", "some times are dates and some are numbers of days; give all of them alike"
        )
    timed.sort(key=lambda pair: pair[0].days)
    views: dict[str, str] = {}
    placed = []
    for moment, each in timed:
        view, before = projection(each.view), views.get(each.study.kind, "")
        views[each.study.kind] = view or before
        notes = (
            *each.study.notes,
            *note_time(each, moment, [other for other, _ in timed]),
            *note_view(view, before),
            *note_scale(each.study),
        )
        study = replace(each.study, notes=notes)
        placed.append(Placed(study, moment, each.clock))
    return placed


def _check_scales(studies: Sequence[Study]) -> None:
    for quantity in QUANTITIES:
        scales = {study.readings[quantity.name].scale for study in studies if quantity.name in study.readings}
        if len(scales) > 1:
            raise RefusedError(
                "not-comparable",
                f"the {quantity.title} is on different scales; score all pictures with one bundle",
            )
