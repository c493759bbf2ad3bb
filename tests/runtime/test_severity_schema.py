from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bedside import Bundle, CxrScorer, InputError, OutputError, RefusedError
from bedside.backends import PRECISIONS, FakeBackend
from bedside.errors import CODES
from bedside.severity import SCHEMA, SeverityResult
from made_results import scored, unscored
from schemas import make_validator, read_schema
from tiny_bundle import Network, make_bundle

DOCUMENT = read_schema("severity-1")
VALIDATOR = make_validator("severity-1")

REFUSED = unscored("ct.dcm", RefusedError("wrong-modality", "the modality is CT; give an X-ray"))
FAILED = unscored("broken.dcm", InputError("truncated-pixels", "the pixel data ends early; copy it again"))

# What the product promises at the least, from its requirements.
PROMISED: dict[str, Any] = {
    "schema": None,
    "source": None,
    "status": None,
    "error": None,
    "extent": ["value", "low", "high", "scale"],
    "opacity": ["value", "low", "high", "scale"],
    "pathologies": None,
    "quality": None,
    "bundle": ["name", "version", "digest"],
    "engine": ["backend", "precision", "device"],
    "timing_ms": None,
}


def transported(result: SeverityResult, kinds: dict[str, str] | None = None) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(json.dumps(result.to_json(kinds), allow_nan=False))
    return record


@pytest.mark.parametrize("result", [scored(), scored(forced=True), REFUSED, FAILED], ids=lambda r: r.status)
def test_result_keeps_to_the_schema(result: SeverityResult) -> None:
    VALIDATOR.validate(transported(result))


def test_result_with_files_keeps_to_the_schema() -> None:
    VALIDATOR.validate(transported(scored(), {"heatmap": "study-0123-heatmap.png"}))


@pytest.mark.parametrize("result", [scored(), REFUSED, FAILED], ids=lambda r: r.status)
def test_result_has_the_promised_keys(result: SeverityResult) -> None:
    record = transported(result)
    assert PROMISED.keys() <= record.keys()
    for key, parts in PROMISED.items():
        if parts is not None and record[key] is not None:
            assert set(parts) <= record[key].keys()


def test_promised_keys_are_required() -> None:
    assert PROMISED.keys() <= set(DOCUMENT["required"])


def test_scales_are_told() -> None:
    record = transported(scored())
    assert record["extent"]["scale"] == [0, 8]
    assert record["opacity"]["scale"] == [0, 6]


def test_unscored_results_hold_no_number_that_looks_like_a_score() -> None:
    for result in (REFUSED, FAILED):
        record = transported(result)
        assert record["extent"] is record["opacity"] is None
        assert record["pathologies"] == {}
        assert record["error"] == {"code": result.error.code, "message": result.error.message}  # type: ignore[union-attr]


def spoil(change: Callable[[dict[str, Any]], object], result: SeverityResult) -> dict[str, Any]:
    record = transported(result)
    change(record)
    return record


@pytest.mark.parametrize(
    ("change", "result"),
    [
        (lambda r: r.update(extra=1), scored()),
        (lambda r: r["extent"].update(extra=1), scored()),
        (lambda r: r["engine"].update(extra=1), scored()),
        (lambda r: r["timing_ms"].update(extra=1), scored()),
        (lambda r: r["timing_ms"].update(total=-1), scored()),
        (lambda r: r["timing_ms"].pop("total"), scored()),
        (lambda r: r["files"].update(heatmap="../elsewhere.png"), scored()),
        (lambda r: r["pathologies"].update(Effusion=1.5), scored()),
        (lambda r: r["extent"].pop("scale"), scored()),
        (lambda r: r["extent"].update(scale=[0]), scored()),
        (lambda r: r.update(extent=None), scored()),
        (lambda r: r.update(schema="bedside.severity/2"), scored()),
        (lambda r: r.update(status="fine"), scored()),
        (lambda r: r.pop("notice"), scored()),
        (lambda r: r.update(error={"code": "not-found", "message": "no such file"}), scored()),
        (lambda r: r.update(error=None), REFUSED),
        (lambda r: r.update(extent=transported(scored())["extent"]), REFUSED),
        (lambda r: r.update(pathologies={"Effusion": 0.5}), FAILED),
        (lambda r: r["error"].update(message="two\nlines"), FAILED),
        (lambda r: r["error"].update(code="Not A Code"), FAILED),
    ],
)
def test_schema_refuses(change: Callable[[dict[str, Any]], object], result: SeverityResult) -> None:
    assert not VALIDATOR.is_valid(spoil(change, result))


def test_schema_speaks_of_this_version() -> None:
    properties = DOCUMENT["properties"]
    assert properties["schema"]["const"] == SCHEMA
    assert tuple(DOCUMENT["$defs"]["engine"]["properties"]["precision"]["enum"]) == PRECISIONS


def test_every_error_code_passes() -> None:
    for code in CODES:
        VALIDATOR.validate(transported(unscored("study.dcm", OutputError(code, "what is wrong; what to do"))))


@pytest.fixture
def scorer(tmp_path: Path) -> CxrScorer:
    bundle = Bundle.open(make_bundle(tmp_path / "bundle"))
    return CxrScorer(bundle, FakeBackend(lambda inputs: dict(Network().run(inputs["image"]))))


def test_scored_file_keeps_to_the_schema(scorer: CxrScorer, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 120), np.uint8)
    Image.fromarray(noise).save(tmp_path / "chest.png")
    with scorer:
        record = transported(scorer.score(tmp_path / "chest.png"))
    VALIDATOR.validate(record)
    assert record["status"] == "ok"
    assert record["pathologies"].keys() == {"Lung Opacity", "Effusion"}


def test_unreadable_and_refused_files_keep_to_the_schema(scorer: CxrScorer, tmp_path: Path) -> None:
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "text.dcm").write_text("no image\n")
    Image.new("L", (100, 100), 128).save(tmp_path / "flat.png")
    with scorer:
        records = [
            transported(scorer.score(tmp_path / name))
            for name in ("absent.dcm", "empty.dcm", "text.dcm", "flat.png")
        ]
    for record in records:
        VALIDATOR.validate(record)
    assert [record["error"]["code"] for record in records] == [
        "not-found",
        "empty-file",
        "not-an-image",
        "constant-image",
    ]
    assert [record["status"] for record in records] == ["failed", "failed", "failed", "refused"]


def test_network_that_answers_nan_gives_no_score(tmp_path: Path) -> None:
    def respond(inputs: Any) -> dict[str, Any]:
        return {name: np.full_like(array, np.nan) for name, array in Network().run(inputs["image"]).items()}

    noise = np.random.default_rng(0).integers(0, 256, (100, 120), np.uint8)
    Image.fromarray(noise).save(tmp_path / "chest.png")
    with CxrScorer(Bundle.open(make_bundle(tmp_path / "bundle")), FakeBackend(respond)) as scorer:
        record = transported(scorer.score(tmp_path / "chest.png"))
    VALIDATOR.validate(record)
    assert (record["status"], record["error"]["code"]) == ("failed", "not-finite")
