"""Wider intervals for pictures that scores err more on: poor ones, and other projections than those learnt from.

How much wider is measured, and stands in the bundle (`Interval.wider`, `Interval.views`); where it says nothing, the
intervals stay as they are. Not for clinical use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from bedside.contract import WIDENING_NOTES, Interval, Score, Widening
from bedside.cxr import Cause, Estimate, Severity, Span, span_of
from bedside.manifest import Manifest
from bedside.radiograph import Finding

__all__ = ["VIEW_UNKNOWN", "view_of", "widen"]

VIEW_UNKNOWN: Final = "view unknown"
"""`Cause.name` where the header does not tell the projection."""
_PA: Final = frozenset({"PA", "POSTEROANTERIOR"})
_AP: Final = frozenset({"AP", "ANTEROPOSTERIOR"})
_SUPINE: Final = frozenset({"SUPINE"})


def view_of(view_position: str) -> str:
    """The projection that a View Position (0018,5101) tells: one of `bedside.contract.VIEWS`, or empty.

    A word for lying counts as AP, which such pictures are. ``AP`` alone says nothing of sitting or lying; both
    projections at once, and anything else, say nothing at all.
    """
    words = frozenset(re.findall("[A-Z]+", view_position.upper().replace(".", "")))
    if words & _PA:
        return "" if words & (_AP | _SUPINE) else "PA"
    if words & _SUPINE:
        return "AP SUPINE"
    return "AP" if words & _AP else ""


def widen(
    severity: Severity, manifest: Manifest, view_position: str, findings: Sequence[Finding]
) -> tuple[Severity, tuple[Finding, ...]]:
    """Widen a picture's intervals by what is known of it.

    Of several notes the one with the largest factor counts, since poor pictures have many at once; the projection's
    factor comes on top. An interval holds those of lower levels.

    Args:
        severity: The scores, as `bedside.cxr.interpret` gives them.
        manifest: What the bundle says.
        view_position: The header's, empty where it is silent.
        findings: What was noted on the picture.

    Returns:
        The scores with their intervals, and what to tell of it: ``interval-wider``, and ``interval-unmeasured`` for
        a note that nobody knows the factor of.
    """
    codes = tuple(dict.fromkeys(finding.code for finding in findings))
    wider = [
        _widen(estimate, score, view_of(view_position), codes)
        for score in manifest.scores
        for estimate in (severity.extent, severity.opacity)
        if estimate.name == score.name
    ]
    by_name = {estimate.name: estimate for estimate in wider}
    told = (*_tell_wider(wider), *_tell_unmeasured(manifest, codes))
    return replace(severity, extent=by_name["extent"], opacity=by_name["opacity"]), told


def _widen(estimate: Estimate, score: Score, view: str, codes: Sequence[str]) -> Estimate:
    spans: list[Span] = []
    causes = _causes(score.interval, view, codes)
    for interval in sorted((score.interval, *score.further), key=lambda each: each.level):
        factor = 1.0
        for cause in _causes(interval, view, codes):
            factor *= cause.factor
        span = span_of(score, interval, estimate.value, factor)
        inner = spans[-1] if spans else span
        spans.append(replace(span, low=min(span.low, inner.low), high=max(span.high, inner.high)))
    own = next(span for span in spans if span.level == estimate.level)
    return replace(
        estimate,
        low=own.low,
        high=own.high,
        factor=own.factor,
        further=tuple(span for span in spans if span is not own),
        causes=causes,
    )


def _causes(interval: Interval, view: str, codes: Sequence[str]) -> tuple[Cause, ...]:
    """What widens this interval: at most one note and one projection."""
    noted = _widest({code: interval.wider[code] for code in codes if code in interval.wider})
    name, views = view or VIEW_UNKNOWN, interval.views
    # a picture of a lying patient is an AP picture, which is what is known where too few of them were measured
    known = next((each for each in (view, "AP" if view == "AP SUPINE" else "") if each in views), None)
    projected = _widest(views if known is None else {known: views[known]})
    found = (noted, None if projected is None else replace(projected, name=name))
    return tuple(cause for cause in found if cause is not None and cause.factor > 1)


def _widest(widenings: Mapping[str, Widening]) -> Cause | None:
    if not widenings:
        return None
    name, widening = max(widenings.items(), key=lambda item: item[1].factor)
    return Cause(name, widening.factor, widening.pictures)


def _tell_wider(estimates: Sequence[Estimate]) -> Iterator[Finding]:
    causes = [(estimate, cause) for estimate in estimates for cause in estimate.causes]
    for name in dict.fromkeys(cause.name for _, cause in causes):
        parts = [
            f"{estimate.name} {cause.factor:.2g} times at {estimate.level:.0%}, measured on {cause.pictures} pictures"
            for estimate, cause in causes
            if cause.name == name
        ]
        taken = " (taken for the widest view)" if name == VIEW_UNKNOWN else ""
        yield Finding("interval-wider", f"{name}{taken}: interval wider, {'; '.join(parts)}")


def _tell_unmeasured(manifest: Manifest, codes: Sequence[str]) -> Iterator[Finding]:
    intervals = [score.interval for score in manifest.scores]
    if not any(interval.wider or interval.views for interval in intervals):
        return
    for code in codes:
        if code == "forced" or (
            code in WIDENING_NOTES and not all(code in interval.wider for interval in intervals)
        ):
            text = f"{code}: how much wider the intervals have to be on such pictures was not measured"
            yield Finding("interval-unmeasured", text)
