"""Intervals at several levels, wider where the bundle says so, and told in every form of a result."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bedside import Bundle, BundleError, CxrScorer
from bedside.backends import FakeBackend
from bedside.contract import WIDENING_NOTES, Interval, Widening
from bedside.cxr import Severity, interpret
from bedside.intervals import VIEW_UNKNOWN, view_of, widen
from bedside.manifest import Manifest
from bedside.radiograph import Finding
from bedside.tables import csv_header, csv_row
from command_line import invoke
from schemas import make_validator
from tiny_bundle import Network, make_bundle, read_manifest, seal

VALIDATOR = make_validator("severity-1")
VIEWS = {"PA": Widening(1.0, 48), "AP": Widening(1.5, 29), "AP SUPINE": Widening(2.0, 18)}
NOTES = {"clipped-white": Widening(1.25, 40), "inverted-looking": Widening(3.0, 60)}
NARROW = Interval(0.8, 0.5, 0.75, "made up", NOTES, VIEWS)
WIDE = Interval(0.9, 1.0, 1.0, "made up", NOTES, VIEWS)


def widened(manifest: Manifest, narrow: Interval = NARROW, wide: Interval = WIDE) -> Manifest:
    """The manifest with these intervals for both scores."""
    return replace(
        manifest,
        scores=tuple(replace(score, interval=narrow, further=(wide,)) for score in manifest.scores),
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return Bundle.open(make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")).manifest


@pytest.fixture(scope="module")
def manifest(plain: Manifest) -> Manifest:
    return widened(plain)


def severity_of(manifest: Manifest, extent: float = 4.0) -> Severity:
    outputs = {
        "severity": np.array([[extent, 3.0]], np.float32),
        "cam": np.zeros((1, 2, 4, 4), np.float32),
        "pathologies": np.full((1, 3), 0.5, np.float32),
        "lungs": np.ones((1, 1, 4, 4), np.float32),
    }
    return interpret({o.name: outputs[o.name] for o in manifest.outputs}, manifest)


def notes(*codes: str) -> tuple[Finding, ...]:
    return tuple(Finding(code, "made up") for code in codes)


@pytest.mark.parametrize(
    ("view_position", "view"),
    [
        ("PA", "PA"),
        ("pa", "PA"),
        ("P.A.", "PA"),
        ("POSTERO-ANTERIOR", ""),
        ("POSTEROANTERIOR", "PA"),
        ("AP", "AP"),
        ("AP PORTABLE", "AP"),
        ("AP SUPINE", "AP SUPINE"),
        ("SUPINE", "AP SUPINE"),
        ("PA SUPINE", ""),
        ("AP/PA", ""),
        ("FRONTAL", ""),
        ("PORTABLE", ""),
        ("", ""),
    ],
)
def test_projection_is_told_by_the_header_s_words(view_position: str, view: str) -> None:
    assert view_of(view_position) == view


def test_ordinary_picture_keeps_both_intervals(manifest: Manifest) -> None:
    severity, told = widen(severity_of(manifest), manifest, "PA", notes("voi"))
    extent = severity.extent
    assert [(s.level, s.low, s.high, s.factor) for s in extent.intervals] == [
        (0.8, 3.5, 4.75, 1.0),
        (0.9, 3.0, 5.0, 1.0),
    ]
    assert (extent.causes, told) == ((), ())


@pytest.mark.parametrize(
    ("view", "codes", "factor", "causes"),
    [
        ("AP", (), 1.5, [("AP", 29)]),
        ("AP SUPINE", (), 2.0, [("AP SUPINE", 18)]),
        ("", (), 2.0, [(VIEW_UNKNOWN, 18)]),
        ("PA", ("clipped-white",), 1.25, [("clipped-white", 40)]),
        ("PA", ("clipped-white", "inverted-looking"), 3.0, [("inverted-looking", 60)]),
        ("AP", ("clipped-white",), 1.875, [("clipped-white", 40), ("AP", 29)]),
    ],
)
def test_intervals_widen_by_projection_and_widest_note(
    view: str, codes: tuple[str, ...], factor: float, causes: list[tuple[str, int]], manifest: Manifest
) -> None:
    severity, told = widen(severity_of(manifest), manifest, view, notes(*codes))
    extent = severity.extent
    assert (extent.low, extent.high) == (4 - 0.5 * factor, 4 + 0.75 * factor)
    assert (extent.factor, extent.value) == (factor, 4)
    assert [(cause.name, cause.pictures) for cause in extent.causes] == causes
    assert [finding.code for finding in told] == ["interval-wider"] * len(causes)
    for finding, (name, pictures) in zip(told, causes, strict=True):
        assert finding.text.startswith(name)
        assert f"measured on {pictures} pictures" in finding.text


def test_lying_patients_count_as_ap_where_too_few_were_measured(plain: Manifest) -> None:
    some = {"PA": Widening(1.0, 48), "AP": Widening(1.5, 47)}
    manifest = widened(plain, replace(NARROW, views=some), replace(WIDE, views=some))
    extent = widen(severity_of(manifest), manifest, "AP SUPINE", ())[0].extent
    assert [(cause.name, cause.factor, cause.pictures) for cause in extent.causes] == [("AP SUPINE", 1.5, 47)]


def test_note_that_was_not_measured_is_told(manifest: Manifest) -> None:
    severity, told = widen(severity_of(manifest), manifest, "PA", notes("dark-image", "forced", "voi"))
    assert severity.extent.factor == 1
    assert [(finding.code, finding.text.split(":")[0]) for finding in told] == [
        ("interval-unmeasured", "dark-image"),
        ("interval-unmeasured", "forced"),
    ]


def test_bundle_that_says_nothing_of_it_stays_as_it_was(plain: Manifest) -> None:
    severity = severity_of(plain)
    assert widen(severity, plain, "AP", notes(*WIDENING_NOTES)) == (severity, ())
    assert [(s.level, s.low, s.high) for s in severity.extent.intervals] == [(0.8, 3.5, 4.75)]


def test_interval_holds_that_of_a_lower_level_whatever_their_factors(plain: Manifest) -> None:
    manifest = widened(
        plain, NARROW, replace(WIDE, views={"PA": Widening(1, 9), "AP": Widening(1, 9)}, wider={})
    )
    extent = widen(severity_of(manifest), manifest, "AP", notes("inverted-looking"))[0].extent
    narrow, wide = extent.intervals
    assert (narrow.low, narrow.high) == (4 - 0.5 * 4.5, 4 + 0.75 * 4.5)
    assert (wide.low, wide.high) == (narrow.low, narrow.high)


def test_primary_interval_may_be_the_widest(plain: Manifest) -> None:
    manifest = widened(plain, WIDE, NARROW)
    extent = widen(severity_of(manifest), manifest, "AP", ())[0].extent
    assert [span.level for span in extent.intervals] == [0.8, 0.9]
    assert (extent.level, extent.low, extent.high) == (0.9, 2.5, 5.5)


@given(
    st.floats(-20, 20, width=32),
    st.sampled_from(["", "PA", "AP", "AP SUPINE", "LL"]),
    st.sets(st.sampled_from([*WIDENING_NOTES, "forced"])),
)
def test_every_interval_stays_in_the_scale_holds_the_score_and_the_lower_levels(
    manifest: Manifest, raw: float, view: str, codes: set[str]
) -> None:
    extent = widen(severity_of(manifest, raw), manifest, view, notes(*codes))[0].extent
    narrow, wide = extent.intervals
    assert 0 <= wide.low <= narrow.low <= extent.value <= narrow.high <= wide.high <= 8


# The manifest.


def rewritten(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    raw = read_manifest(folder)
    change(raw["scores"][0])
    raw.pop("files")
    return seal(folder, raw)


FURTHER = {"level": 0.9, "below": 1.0, "above": 1.0, "method": "made up"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny")


def test_manifest_with_levels_notes_and_views_is_read(folder: Path) -> None:
    def change(score: dict[str, Any]) -> None:
        score["interval"] |= {
            "wider": {"dark-image": {"factor": 1.5, "pictures": 20}},
            "views": {"PA": {"factor": 1, "pictures": 48}, "AP": {"factor": 1.2, "pictures": 47}},
        }
        score["further"] = [FURTHER]

    rewritten(folder, change)
    score = Bundle.open(folder).manifest.scores[0]
    assert score.interval.wider == {"dark-image": Widening(1.5, 20)}
    assert score.interval.views["AP"] == Widening(1.2, 47)
    assert [each.level for each in score.further] == [0.9]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s["interval"].update(level=1.0), "improper interval"),
        (lambda s: s["interval"].update(level=0), "improper interval"),
        (lambda s: s.update(further=[FURTHER | {"level": 1.5}]), "improper interval"),
        (lambda s: s.update(further=[FURTHER | {"below": -0.1}]), "improper interval"),
        (lambda s: s.update(further=[FURTHER | {"level": 0.8}]), "levels do not rise"),
        (lambda s: s.update(further=[FURTHER | {"level": 0.95}, FURTHER]), "levels do not rise"),
        (lambda s: s.update(further=[FURTHER | {"above": 0.5}]), "narrower than one at a lower level"),
        (lambda s: s["interval"].update(wider={"blurred": {"factor": 2, "pictures": 9}}), "'blurred'"),
        (lambda s: s["interval"].update(wider={"dark-image": {"factor": 0.9, "pictures": 9}}), "under 1"),
        (lambda s: s["interval"].update(wider={"dark-image": {"factor": 2, "pictures": 0}}), "no picture"),
        (lambda s: s["interval"].update(wider={"dark-image": 2}), "must be an object"),
        (lambda s: s["interval"].update(views={"PA": {"factor": 1, "pictures": 9}}), "not for PA and AP"),
        (lambda s: s["interval"].update(views={"LL": {"factor": 1, "pictures": 9}}), "'LL'"),
    ],
)
def test_manifest_with_an_improper_interval_is_refused(
    change: Callable[[dict[str, Any]], object], told: str, folder: Path
) -> None:
    rewritten(folder, change)
    with pytest.raises(BundleError, match=told) as caught:
        Bundle.open(folder)
    assert caught.value.code == "bundle-broken"


# From a file to JSON, table and terminal.


@pytest.fixture
def wide_folder(folder: Path) -> Path:
    raw = read_manifest(folder)
    views = {"PA": {"factor": 1, "pictures": 48}, "AP": {"factor": 1.5, "pictures": 47}}
    wider = {"low-resolution": {"factor": 2.0, "pictures": 62}}
    for score in raw["scores"]:
        score["interval"] |= {"below": 0.25, "above": 0.25, "views": views, "wider": wider}
        score["further"] = [FURTHER | {"below": 0.5, "above": 0.5, "views": views, "wider": wider}]
    raw.pop("files")
    return seal(folder, raw)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Grey noise of few pixels, which has no header."""
    noise = np.random.default_rng(0).integers(64, 192, (100, 120), np.uint8)
    Image.fromarray(noise).save(tmp_path / "chest.png")
    return tmp_path / "chest.png"


def test_result_of_a_file_tells_its_intervals_and_why_they_are_wider(
    wide_folder: Path, picture: Path
) -> None:
    backend = FakeBackend(lambda inputs: dict(Network().run(inputs["image"])))
    with CxrScorer(Bundle.open(wide_folder), backend) as scorer:
        record = json.loads(json.dumps(scorer.score(picture).to_json()))
    VALIDATOR.validate(record)
    extent = record["extent"]
    narrow, wide = extent["intervals"]
    assert (narrow["level"], narrow["factor"], wide["level"], wide["factor"]) == (0.8, 3.0, 0.9, 3.0)
    assert (narrow["low"], narrow["high"]) == (extent["low"], extent["high"])
    assert (extent["value"] - extent["low"], wide["high"] - extent["value"]) == pytest.approx(
        (0.75, 1.5), abs=1e-3
    )
    assert extent["wider_for"] == [
        {"name": "low-resolution", "factor": 2.0, "pictures": 62},
        {"name": "view unknown", "factor": 1.5, "pictures": 47},
    ]
    assert [note["code"] for note in record["quality"]].count("interval-wider") == 2
    row = csv_row(record)
    assert tuple(row) == csv_header()
    assert (row["extent_level"], row["extent_factor"]) == ("0.8", "3.0")
    assert row["extent_further"] == f"0.9={wide['low']} to {wide['high']}"


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e.pop("intervals"),
        lambda e: e.update(intervals=[]),
        lambda e: e["intervals"][0].update(factor=0.5),
        lambda e: e["intervals"][0].update(level=1),
        lambda e: e["wider_for"][0].update(factor=1),
        lambda e: e["wider_for"][0].update(pictures=0),
    ],
)
def test_schema_refuses_an_improper_interval(
    change: Callable[[dict[str, Any]], object], wide_folder: Path, picture: Path
) -> None:
    backend = FakeBackend(lambda inputs: dict(Network().run(inputs["image"])))
    with CxrScorer(Bundle.open(wide_folder), backend) as scorer:
        record = json.loads(json.dumps(scorer.score(picture).to_json()))
    change(record["extent"])
    assert not VALIDATOR.is_valid(record)


def test_command_line_prints_both_intervals_and_why(wide_folder: Path, picture: Path) -> None:
    done = invoke("score", "--bundle", wide_folder, picture)
    assert (done.exit_code, done.stderr) == (0, "")
    told = " ".join(done.stdout.split())
    assert "80% interval" in told
    assert ", 90% " in told
    assert (
        "interval-wider: view unknown (taken for the widest view): interval wider, extent 1.5 times at 80%, "
        "measured on 47 pictures; opacity 1.5 times at 80%, measured on 47 pictures" in told
    )
    assert "interval-wider: low-resolution: interval wider, extent 2 times at 80%" in told


def test_inspect_tells_levels_and_factors(wide_folder: Path) -> None:
    told = " ".join(invoke("inspect", wide_folder).stdout.split())
    assert (
        "80% interval -0.25 +0.25, from made up for tests by views: PA x1 (48 pictures), AP x1.5 (47" in told
    )
    assert "by notes: low-resolution x2 (62 pictures)" in told
    assert "90% interval -0.5 +0.5, from made up" in told
