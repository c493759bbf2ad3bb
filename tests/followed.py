"""Results over time, made by hand, for the tests of what follows a patient."""

from __future__ import annotations

from typing import Any

from bedside.contract import Repeatability
from bedside.manifest import Manifest
from bedside.provenance import BundleRef
from bedside.trend import Request, Trend, follow_up
from bedside.trend.courses import Change
from bedside.trend.moments import parse_moment
from made_results import scored

OWN = Repeatability(0.2, 0.7, 0.95, "made up: each picture twice")
PEOPLE = Repeatability(0.8, 2.2, 0.95, "made up: two readers")


def x_ray(source: str, extent: float, **changed: Any) -> dict[str, Any]:
    """What ``bedside score`` writes of a picture."""
    return {**scored(source, extent=extent).to_json(), **changed}


def ct(source: str, ml: float, *, percent: float | None = 12.5, **changed: Any) -> dict[str, Any]:
    """What ``bedside segment`` writes of a scan, as far as it is followed."""
    volumes = {
        "opacity_ml": ml,
        "opacity_ml_low": 0.8 * ml,
        "opacity_ml_high": 1.2 * ml,
        "opacity_percent": percent,
        "interval": {"level": None, "method": "made up"},
    }
    return {
        "schema": "bedside.opacification/1",
        "source": source,
        "series": "",
        "status": "ok",
        "error": None,
        "volumes": volumes,
        "classes": [],
        "quality": [],
        "ledger": [],
        "read_share": 1.0,
        "bundle": {"name": "tiny-ct", "version": "1.0.0", "digest": "fedcba9876543210" * 4},
        "engine": {"backend": "fake", "precision": "fp32"},
        **changed,
    }


def unknown(_ref: BundleRef) -> Manifest | None:
    """No bundle is at hand."""
    return None


def followed(*values: float, days: tuple[float, ...] | None = None, **changed: Any) -> Trend:
    """X-rays with these extents, a day apart unless told otherwise."""
    days = days or tuple(map(float, range(len(values))))
    records = [x_ray(f"{number}.png", value, **changed) for number, value in enumerate(values)]
    told = [(f"{number}.png", parse_moment(f"{day:g}")) for number, day in enumerate(days)]
    return follow_up(records, Request(told), manifest_of=unknown)


def follow(records: list[dict[str, Any]], days: list[float], manifest: Manifest | None = None) -> Trend:
    """The trend of results, told on which day each was made."""
    told = [
        (str(record["source"]), parse_moment(f"{day:g}")) for record, day in zip(records, days, strict=True)
    ]
    return follow_up(records, Request(told), manifest_of=lambda _ref: manifest)


def changes(trend: Trend, quantity: str = "extent") -> list[Change | None]:
    """Of each study of a course since the one before it."""
    (course,) = (course for course in trend.courses if course.quantity.name == quantity)
    return [point.since_last for point in course.points]


def codes(trend: Trend) -> list[str]:
    """Of what is noted of the whole."""
    return [note.code for note in trend.notes]


def study_codes(trend: Trend) -> list[set[str]]:
    """Of what is noted of each study."""
    return [{note.code for note in placed.study.notes} for placed in trend.studies]
