"""Whether a change is more than noise, by what the bundle says of how well a score repeats itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bedside import Bundle
from bedside.errors import BundleError
from bedside.manifest import Manifest
from bedside.trend.noise import Noise, noise_of
from bedside.trend.studies import Engine
from followed import OWN, PEOPLE, changes, codes, follow, x_ray
from tiny_bundle import Network, make_bundle, manifest_of, read_manifest, write_manifest

MEASURED = {"sd": 0.2, "smallest_change": 0.7, "level": 0.95, "method": "made up: each picture twice"}
READERS = {"sd": 0.8, "smallest_change": 2.2, "level": 0.95, "method": "made up: two readers"}


def measured_manifest(folder: Path, **changed: Any) -> Manifest:
    """Of a bundle that says how well its extent repeats itself."""
    scores = manifest_of(Network())["scores"]
    scores[0] |= {"repeatability": MEASURED, "observers": READERS, **changed}
    return Bundle.open(make_bundle(folder, scores=scores)).manifest


@pytest.mark.parametrize(
    ("values", "verdict", "beyond"),
    [
        ((4.0, 4.7), "within-noise", False),
        ((4.0, 4.75), "worse", False),
        ((4.0, 3.25), "better", False),
        ((4.0, 3.4), "within-noise", False),
        ((4.0, 6.3), "worse", True),
        ((4.0, 1.7), "better", True),
    ],
)
def test_change_counts_where_it_is_over_the_smallest(
    tmp_path: Path, values: tuple[float, float], verdict: str, beyond: bool
) -> None:
    records = [x_ray(f"{number}.png", value) for number, value in enumerate(values)]
    (_, change) = changes(follow(records, [0, 1], measured_manifest(tmp_path / "bundle")))
    assert change is not None
    assert (change.verdict, change.beyond_observers, change.smallest_change) == (verdict, beyond, 0.7)


def test_without_a_measurement_there_is_no_verdict() -> None:
    trend = follow([x_ray("a.png", 1), x_ray("b.png", 8)], [0, 1])
    (_, change) = changes(trend)
    assert change is not None
    assert (change.verdict, change.smallest_change, change.beyond_observers) == ("unknown", None, None)
    assert "bundle-absent" in codes(trend)


def test_bundle_that_was_never_measured_says_so(tmp_path: Path) -> None:
    manifest = Bundle.open(make_bundle(tmp_path / "bundle")).manifest
    trend = follow([x_ray("a.png", 1), x_ray("b.png", 8)], [0, 1], manifest)
    (_, change) = changes(trend)
    assert change is not None
    assert change.verdict == "unknown"
    assert "noise-unknown" in codes(trend)


def test_score_without_a_measurement_has_no_verdict_beside_one_that_has(tmp_path: Path) -> None:
    trend = follow([x_ray("a.png", 1), x_ray("b.png", 8)], [0, 1], measured_manifest(tmp_path / "bundle"))
    verdicts = {
        course.quantity.name: point.since_last.verdict
        for course in trend.courses
        for point in course.points
        if point.since_last is not None
    }
    assert verdicts == {"extent": "worse", "opacity": "unknown"}
    assert "noise-unknown" in codes(trend)


FP32, BF16 = Engine("onnxruntime", "fp32"), Engine("openvino", "bf16")


@pytest.mark.parametrize(
    ("first", "second", "smallest"),
    [
        (FP32, FP32, 0.7),
        (FP32, Engine("openvino", "fp32"), 0.72),
        (FP32, BF16, 0.81),
        (BF16, BF16, 0.9),
        (FP32, Engine("openvino", "int8"), None),
    ],
)
def test_other_engines_widen_noise_by_the_tolerances_of_the_bundle(
    first: Engine, second: Engine, smallest: float | None
) -> None:
    noise = Noise(OWN, PEOPLE, {"fp32": 0.01, "bf16": 0.1})
    found = noise.smallest_change(first, second)
    assert found == (None if smallest is None else pytest.approx(smallest))
    assert found == noise.smallest_change(second, first)


def test_several_engines_are_told(tmp_path: Path) -> None:
    records = [x_ray("a.png", 1), x_ray("b.png", 2)]
    records[1]["engine"] = {**records[1]["engine"], "precision": "bf16"}
    trend = follow(records, [0, 1], measured_manifest(tmp_path / "bundle"))
    (_, change) = changes(trend)
    assert change is not None
    assert change.smallest_change == pytest.approx(0.7 + 0.01 + 0.1)
    assert "several-engines" in codes(trend)


def test_noise_is_read_from_the_bundle(tmp_path: Path) -> None:
    manifest = measured_manifest(tmp_path / "bundle")
    noise = noise_of(manifest, "extent")
    assert noise is not None
    assert (noise.own, noise.observers) == (OWN, PEOPLE)
    assert noise_of(manifest, "opacity") is None


@pytest.mark.parametrize(
    "changed",
    [
        {"repeatability": {**MEASURED, "sd": -0.1}},
        {"repeatability": {**MEASURED, "smallest_change": 0.1}},
        {"observers": {**READERS, "level": 1.0}},
        {"observers": {**READERS, "unit": "points"}},
        {"repeatability": {"sd": 0.2}},
    ],
)
def test_improper_repeatability_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(BundleError) as caught:
        measured_manifest(tmp_path / "bundle", **changed)
    assert caught.value.code == "bundle-broken"


def test_manifest_without_repeatability_is_one(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    assert "repeatability" not in str(read_manifest(folder))
    write_manifest(folder, read_manifest(folder))
    assert Bundle.open(folder).manifest.scores[0].repeatability is None
