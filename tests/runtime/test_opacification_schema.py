from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bedside import InputError, OutputError, RefusedError
from bedside.backends import PRECISIONS
from bedside.errors import CODES
from bedside.opacification import SCHEMA, OpacificationResult
from bedside.scan import DECISIONS, Entry
from made_scans import segmented, unsegmented
from schemas import make_validator, read_schema

DOCUMENT = read_schema("opacification-1")
VALIDATOR = make_validator("opacification-1")

LEDGER = (Entry("gantry-tilt", "refused", "the gantry is tilted and slices lie unevenly; scan again", 0.0),)
OK = segmented()
EARLY = segmented(every=3, memory_budget_mib=768.0)
REFUSED = unsegmented(
    "ct", RefusedError("improper-geometry", "the slices make no volume; see the ledger"), LEDGER
)
FAILED = unsegmented("broken", InputError("truncated-pixels", "the pixel data ends early; copy it again"))
ALL = {"ok": OK, "early": EARLY, "refused": REFUSED, "failed": FAILED}

FILES = {
    "result": "a-result.json",
    "labels": "a-labels.nii.gz",
    "report": "a-report.png",
    "probability-3": "a-probability-3.nii.gz",
}

# What the product promises at the least, from its requirements.
PROMISED: dict[str, list[str] | None] = {
    "schema": None,
    "source": None,
    "status": None,
    "error": None,
    "volumes": [
        "lung_ml",
        "opacity_ml",
        "opacity_ml_expected",
        "opacity_ml_low",
        "opacity_ml_high",
        "opacity_percent",
        "left",
        "right",
    ],
    "classes": ["label", "name", "opacity", "lung", "ml"],
    "files": None,
    "ledger": ["finding", "decision", "volume_error_percent"],
    "read_share": None,
    "peak_memory_mib": None,
    "bundle": None,
    "engine": None,
    "timing_ms": None,
}


def transported(result: OpacificationResult, kinds: dict[str, str] | None = None) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(json.dumps(result.to_json(kinds), allow_nan=False))
    return record


@pytest.mark.parametrize("name", ALL)
def test_result_keeps_to_the_schema(name: str) -> None:
    VALIDATOR.validate(transported(ALL[name]))
    VALIDATOR.validate(transported(ALL[name], {"result": "a-result.json"}))


def test_result_with_files_keeps_to_the_schema() -> None:
    VALIDATOR.validate(transported(OK, FILES))


def test_healthy_and_lungless_scans_keep_to_the_schema() -> None:
    VALIDATOR.validate(transported(segmented("healthy")))
    assert OK.opacification is not None
    empty = replace(OK.opacification.both, lung_ml=0.0, opacity_ml=0.0, aerated_ml=0.0, mean_hu=None)
    found = replace(OK.opacification, both=empty, left=empty, right=empty, confusion=())
    record = transported(replace(OK, opacification=found))
    VALIDATOR.validate(record)
    assert record["volumes"]["opacity_percent"] is None


@pytest.mark.parametrize("name", ALL)
def test_result_has_the_promised_keys(name: str) -> None:
    record = transported(ALL[name])
    assert PROMISED.keys() <= record.keys()
    for key, parts in PROMISED.items():
        held = record[key] if isinstance(record[key], list) else [record[key]]
        for each in held if parts is not None else []:
            assert each is None or set(parts or ()) <= each.keys()


def test_promised_keys_are_required() -> None:
    assert PROMISED.keys() <= set(DOCUMENT["required"])
    for key, name in (("volumes", "volumes"), ("classes", "class"), ("ledger", "entry")):
        assert set(PROMISED[key] or ()) <= set(DOCUMENT["$defs"][name]["required"])


def test_numbers_are_those_of_the_result() -> None:
    found = OK.opacification
    assert found is not None
    volumes = transported(OK)["volumes"]
    assert volumes["opacity_ml"] == pytest.approx(found.both.opacity_ml, abs=5e-4)
    assert volumes["opacity_ml_low"] == pytest.approx(found.interval.low, abs=5e-4)
    assert volumes["left"]["lung_ml"] == pytest.approx(found.left.lung_ml, abs=5e-4)
    assert volumes["right"]["opacity_percent"] == pytest.approx(
        100 * found.right.opacity_ml / found.right.lung_ml, abs=5e-4
    )
    assert transported(EARLY)["read_share"] == pytest.approx(1 / 3, abs=1e-6)


def test_results_without_volumes_hold_no_number_that_looks_like_one() -> None:
    for result in (REFUSED, FAILED):
        record = transported(result)
        assert record["volumes"] is None
        assert record["classes"] == record["curve"] == record["confusion"] == []
        assert record["read_share"] == 0


def spoil(change: Callable[[dict[str, Any]], object], result: OpacificationResult) -> dict[str, Any]:
    record = transported(result)
    change(record)
    return record


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda r: r.update(extra=1), "ok"),
        (lambda r: r["volumes"].update(extra=1), "ok"),
        (lambda r: r["volumes"]["left"].update(extra=1), "ok"),
        (lambda r: r["classes"][0].update(extra=1), "ok"),
        (lambda r: r["ledger"][0].update(extra=1), "ok"),
        (lambda r: r["curve"][0].update(extra=1), "ok"),
        (lambda r: r["confusion"][0].update(extra=1), "ok"),
        (lambda r: r["files"].update(extra="a.png"), "ok"),
        (lambda r: r["files"].update(report="../elsewhere.png"), "ok"),
        (lambda r: r["volumes"].pop("opacity_ml_low"), "ok"),
        (lambda r: r["volumes"].update(opacity_ml=-1), "ok"),
        (lambda r: r["volumes"].update(opacity_percent=101), "ok"),
        (lambda r: r["volumes"]["interval"].update(level=1), "ok"),
        (lambda r: r["classes"][0].update(label=255), "ok"),
        (lambda r: r["ledger"][0].update(decision="ignored"), "ok"),
        (lambda r: r["ledger"][0].update(decision="refused"), "ok"),
        (lambda r: r["ledger"][0].update(volume_error_percent=-1), "ok"),
        (lambda r: r.update(shape=[1, 2]), "ok"),
        (lambda r: r.update(shape=None), "ok"),
        (lambda r: r.update(spacing_mm=[0, 1, 1]), "ok"),
        (lambda r: r.update(read_share=1.5), "ok"),
        (lambda r: r.update(read_share=0), "ok"),
        (lambda r: r.update(volumes=None), "ok"),
        (lambda r: r.update(curve=[]), "ok"),
        (lambda r: r.update(schema="bedside.opacification/2"), "ok"),
        (lambda r: r.update(status="fine"), "ok"),
        (lambda r: r.pop("notice"), "ok"),
        (lambda r: r["timing_ms"].pop("total"), "ok"),
        (lambda r: r["timing_ms"].update(total=-1), "ok"),
        (lambda r: r.update(error={"code": "not-found", "message": "no such file"}), "ok"),
        (lambda r: r["volumes"]["sampling"].pop("method"), "early"),
        (lambda r: r.update(error=None), "refused"),
        (lambda r: r.update(volumes=transported(OK)["volumes"]), "refused"),
        (lambda r: r.update(classes=transported(OK)["classes"]), "refused"),
        (lambda r: r.update(read_share=0.5), "failed"),
        (lambda r: r["files"].update(report="a-report.png"), "failed"),
        (lambda r: r["error"].update(message="two\nlines"), "failed"),
    ],
)
def test_schema_refuses(change: Callable[[dict[str, Any]], object], name: str) -> None:
    assert not VALIDATOR.is_valid(spoil(change, ALL[name]))


def test_schema_speaks_of_this_version() -> None:
    properties = DOCUMENT["properties"]
    assert properties["schema"]["const"] == SCHEMA
    assert tuple(DOCUMENT["$defs"]["engine"]["properties"]["precision"]["enum"]) == PRECISIONS
    assert tuple(DOCUMENT["$defs"]["entry"]["properties"]["decision"]["enum"]) == DECISIONS


def test_parts_that_x_rays_have_too_are_the_same() -> None:
    severity = read_schema("severity-1")
    for name in ("error", "finding", "bundle", "engine", "milliseconds"):
        assert DOCUMENT["$defs"][name] == severity["$defs"][name]


def test_every_error_code_passes() -> None:
    for code in CODES:
        VALIDATOR.validate(transported(unsegmented("scan", OutputError(code, "what is wrong; what to do"))))
