"""``bedside trend``: from results or pictures to table, JSON, CSV and picture."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from bedside import Bundle
from bedside.provenance import NOTICE
from bedside.trend.document import HEADER, SCHEMA
from command_line import draw, invoke
from dicom_files import write_pixels
from followed import ct, x_ray
from schemas import make_validator
from tiny_bundle import Network, make_bundle, manifest_of

VALIDATOR = make_validator("trend-1")
CANARY = "CANARY-7731"
REPEATED = {"sd": 0.2, "smallest_change": 0.7, "level": 0.95, "method": "made up: each picture twice"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that says how well its scores repeat themselves."""
    scores = manifest_of(Network())["scores"]
    for score in scores:
        score["repeatability"] = REPEATED
    scores[0]["observers"] = {**REPEATED, "smallest_change": 2.2}
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny", scores=scores)


def write_results(folder: Path, records: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records), "utf-8")
    return folder


def times(*days: float) -> list[str]:
    """Options that give 0.png and on their days."""
    return [option for number, day in enumerate(days) for option in ("--at", f"{number}.png={day:g}")]


@pytest.fixture
def results(tmp_path: Path, bundle: Path) -> Path:
    """Results of the bundle: extents of 2, 2.5, 5 and 1."""
    digest = Bundle.open(bundle).digest
    records = [x_ray(f"{number}.png", extent) for number, extent in enumerate((2, 2.5, 5, 1))]
    for record in records:
        record["bundle"] = {**record["bundle"], "digest": digest}
    return write_results(tmp_path / "results", records)


def document(done: Result) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(done.stdout)
    VALIDATOR.validate(record)
    return record


def changed(record: dict[str, Any], **parts: Any) -> dict[str, Any]:
    return {**record, **parts}


def test_table_tells_scores_intervals_changes_and_verdicts(results: Path, bundle: Path) -> None:
    done = invoke("trend", results, *times(0, 3, 7, 9), "--bundle", bundle)
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "geographic extent, 0 to 8"
    body = [line.split("  ") for line in lines[2:6]]
    shown = [[cell.strip() for cell in line if cell.strip()] for line in body]
    assert shown[0][:6] == ["day 0", "0.0", "2.0", "1.0 to 3.0", "-", "-"]
    assert shown[1][4:6] == ["+0.5 no change beyond noise"] * 2
    assert shown[2][4:6] == ["+2.5 worse", "+3.0 worse"]
    assert shown[3][4:6] == ["-4.0 better", "-1.0 better, within observers"]
    flat = " ".join(done.stdout.split())
    assert "smallest change 0.70 points: 95% of pairs without a change differ by no more; made up" in flat
    assert lines[-1] == NOTICE


def test_json_keeps_to_the_schema(results: Path, bundle: Path) -> None:
    record = document(invoke("trend", results, *times(0, 3, 7, 9), "--bundle", bundle, "--json"))
    assert record["schema"] == SCHEMA
    assert [course["quantity"] for course in record["courses"]] == ["extent", "opacity"]
    verdicts = [
        point["since_last"] and point["since_last"]["verdict"] for point in record["courses"][0]["points"]
    ]
    assert verdicts == [None, "within-noise", "worse", "better"]


def test_json_of_both_kinds_with_what_is_left_out_keeps_to_the_schema(tmp_path: Path) -> None:
    error = {"code": "wrong-view", "message": "lateral"}
    records = [x_ray(f"{number}.png", number) for number in range(6)]
    records += [ct("6.png", 10.0), ct("7.png", 0.0, percent=None), x_ray("8.png", 8)]
    records[3] = changed(records[3], status="refused", error=error)
    folder = write_results(tmp_path / "results", records)
    done = invoke("trend", folder, *times(*range(9)), "--json")
    assert done.exit_code == 1
    record = document(done)
    assert record["left_out"] == [{"source": "3.png", "reason": "refused [wrong-view]"}]
    assert record["courses"][0]["slope"] is not None
    assert {course["kind"] for course in record["courses"]} == {"x-ray", "ct"}


def test_csv_has_a_row_for_each_score_of_each_study(results: Path, bundle: Path) -> None:
    done = invoke("trend", results, *times(0, 3, 7, 9), "--bundle", bundle, "--csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert tuple(rows[0]) == HEADER
    assert [row["quantity"] for row in rows] == ["extent"] * 4 + ["opacity"] * 4
    assert [row["verdict_since_last"] for row in rows[:4]] == ["", "within-noise", "worse", "better"]
    assert [row["beyond_observers"] for row in rows[:4]] == ["", "false", "true", "true"]
    assert {row["notice"] for row in rows} == {NOTICE}


def test_cell_that_a_spreadsheet_would_run_is_text(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "results", [x_ray("=cmd()", 2)])
    done = invoke("trend", folder, "--at", "=cmd()=1", "--csv")
    assert next(csv.DictReader(io.StringIO(done.stdout)))["source"] == "'=cmd()"


def test_plot_is_a_picture_that_says_what_it_is(results: Path, bundle: Path, tmp_path: Path) -> None:
    plot = tmp_path / "trend.png"
    done = invoke("trend", results, *times(0, 3, 7, 9), "--bundle", bundle, "--plot", plot)
    assert done.exit_code == 0
    with Image.open(plot) as picture:
        picture.load()
        assert picture.width == 1600
        assert picture.info["Disclaimer"] == NOTICE


def test_one_study_says_that_there_is_no_trend(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "results", [x_ray("0.png", 2)])
    done = invoke("trend", folder, *times(0))
    assert done.exit_code == 0
    assert "no-trend" in done.stdout


def test_bundle_without_a_measurement_gives_intervals_and_no_verdict(tmp_path: Path) -> None:
    plain = make_bundle(tmp_path / "plain")
    digest = Bundle.open(plain).digest
    records = [x_ray(f"{number}.png", extent) for number, extent in enumerate((1, 8))]
    records = [changed(each, bundle={**each["bundle"], "digest": digest}) for each in records]
    folder = write_results(tmp_path / "results", records)
    done = invoke("trend", folder, *times(0, 1), "--bundle", plain)
    assert "noise-unknown" in done.stdout
    assert "+7.0" in done.stdout
    assert "worse" not in done.stdout


def test_bundle_that_is_not_at_hand_is_asked_for(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "results", [x_ray("0.png", 2), x_ray("1.png", 7)])
    done = invoke("trend", folder, *times(0, 1))
    assert done.exit_code == 0
    assert "give it with --bundle" in " ".join(done.stdout.split())


def test_results_of_two_bundles_are_refused_with_the_way_out(tmp_path: Path) -> None:
    other = {"name": "tiny", "version": "1.0.1", "digest": "a" * 64}
    folder = write_results(
        tmp_path / "results", [x_ray("0.png", 2), changed(x_ray("1.png", 7), bundle=other)]
    )
    done = invoke("trend", folder, *times(0, 1))
    assert (done.exit_code, done.stdout) == (2, "")
    assert "[mixed-bundles]" in done.stderr
    assert "sha256 0123456789ab" in done.stderr
    assert "sha256 aaaaaaaaaaaa" in done.stderr
    assert "bedside score --bundle" in done.stderr


def test_table_of_times_is_taken(results: Path, bundle: Path, tmp_path: Path) -> None:
    table = tmp_path / "times.csv"
    table.write_text(
        "source,time\n0.png,2020-03-01\n1.png,2020-03-02\n2.png,2020-03-05\n3.png,2020-03-06\n", "utf-8"
    )
    record = document(invoke("trend", results, "--times", table, "--bundle", bundle, "--json"))
    assert [study["day"] for study in record["studies"]] == [0, 1, 4, 5]
    assert record["studies"][0]["time"] == "2020-03-01"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--at", "0.png"], "FILE=TIME"),
        (["--at", "0.png=soon"], "[bad-attribute]"),
        (["--at", "9.png=1"], "names no study"),
        (["--times", "absent.csv"], "[not-found]"),
        (["--patient", "absent.dcm"], "[not-found]"),
        (["--patient", "1", "--same-patient"], "--same-patient"),
        (["--patient", "1"], "[no-studies]"),
        ([], "[no-studies]"),
    ],
)
def test_wrong_use_is_told(results: Path, arguments: list[str], said: str) -> None:
    done = invoke("trend", results, *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr


def test_json_file_without_results_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text("{}", "utf-8")
    done = invoke("trend", path)
    assert done.exit_code == 2
    assert "[not-results]" in done.stderr


def test_study_without_a_time_is_left_out_and_told(results: Path, bundle: Path) -> None:
    done = invoke("trend", results, *times(0, 3, 7), "--bundle", bundle)
    assert done.exit_code == 1
    assert done.stderr.startswith("3.png: left out: no time")


# Pictures.


def picture(path: Path, brightness: float, **header: Any) -> Path:
    """A DICOM picture of noise about a brightness, 0 to 1: the tiny network scores that."""
    noise = np.random.default_rng(0).uniform(-0.02, 0.02, (96, 96))
    attributes: dict[str, Any] = {
        "PatientID": CANARY,
        "PatientName": f"{CANARY}^Name",
        "ViewPosition": "AP",
        "BodyPartExamined": "CHEST",
        "WindowCenter": 2048,
        "WindowWidth": 4096,
        **header,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_pixels(path, ((brightness + noise) * 4095).clip(0, 4095).astype(np.uint16), **attributes)


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """Two patients: one who gets worse, one with a single study."""
    pytest.importorskip("onnxruntime", reason="needs the extra cpu")
    folder = tmp_path / "ward"
    for number, (day, brightness) in enumerate((("0309", 0.9), ("0301", 0.3), ("0303", 0.32))):
        stamp = {"AcquisitionDate": f"2020{day}", "AcquisitionTime": "0830"}
        picture(folder / f"{number}.dcm", brightness, SOPInstanceUID=f"1.2.{number}", **stamp)
    picture(folder / "9.dcm", 0.5, PatientID="OTHER", SOPInstanceUID="1.3", AcquisitionDate="20200301")
    return folder


def test_pictures_are_scored_and_followed_by_their_own_dates(ward: Path, bundle: Path) -> None:
    done = invoke("trend", ward, "--patient", ward / "1.dcm", "--bundle", bundle, "--json")
    assert done.exit_code == 0
    record = document(done)
    assert [study["time"] for study in record["studies"]] == [
        "2020-03-01 08:30",
        "2020-03-03 08:30",
        "2020-03-09 08:30",
    ]
    assert [study["time_from"] for study in record["studies"]] == ["acquisition"] * 3
    extents = record["courses"][0]["points"]
    assert [point["since_last"] and point["since_last"]["verdict"] for point in extents] == [
        None,
        "within-noise",
        "worse",
    ]


def test_two_patients_are_refused_and_no_identifier_is_told(ward: Path, bundle: Path, tmp_path: Path) -> None:
    done = invoke("trend", ward, "--bundle", bundle)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "[several-patients]" in done.stderr
    plot = tmp_path / "trend.png"
    told = invoke("trend", ward, "--bundle", bundle, "--patient", "1", "--plot", plot)
    assert told.exit_code == 0
    both = [
        invoke("trend", ward, "--bundle", bundle, "--patient", "1", form).stdout
        for form in ("--json", "--csv")
    ]
    for text in (done.stderr, told.stdout, told.stderr, *both, plot.read_bytes().decode("latin-1")):
        assert CANARY not in text


def test_results_of_score_are_followed_as_the_pictures_are(ward: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert invoke("score", ward, "--bundle", bundle, "--out", out).exit_code == 0
    options = ("--bundle", bundle, "--patient", ward / "0.dcm", "--json")
    assert document(invoke("trend", out, *options)) == document(invoke("trend", ward, *options))


def test_pictures_without_dates_are_told_theirs(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra cpu")
    paths = [draw(tmp_path / f"{number}.png", seed=number) for number in range(2)]
    done = invoke("trend", *paths, *times(0, 2), "--bundle", bundle, "--json")
    assert done.exit_code == 0
    record = document(done)
    assert [study["time"] for study in record["studies"]] == ["day 0", "day 2"]
    assert [note["code"] for note in record["notes"]] == ["patient-unknown"]


# The schema.


def _change(record: dict[str, Any]) -> dict[str, Any]:
    change: dict[str, Any] = record["courses"][0]["points"][1]["since_last"]
    return change


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r.update(extra=1),
        lambda r: r.update(studies=[]),
        lambda r: r.update(schema="bedside.trend/2"),
        lambda r: r.pop("notice"),
        lambda r: r["studies"][0].update(patient="somebody"),
        lambda r: r["studies"][0].update(time_from="guess"),
        lambda r: r["courses"][0].update(unit="mm"),
        lambda r: r["courses"][0]["bundle"].update(digest="short"),
        lambda r: _change(r).update(verdict="fine"),
        lambda r: _change(r).update(verdict="unknown"),
        lambda r: _change(r).update(smallest_change=None),
    ],
)
def test_schema_refuses(spoil: Any, results: Path, bundle: Path) -> None:
    record = document(invoke("trend", results, *times(0, 3, 7, 9), "--bundle", bundle, "--json"))
    spoil(record)
    assert not VALIDATOR.is_valid(record)
