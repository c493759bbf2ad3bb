"""Two radiologists and a network: agreement against scikit-learn's, and what is refused."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import cohen_kappa_score

from bedside_export import cli
from bedside_export.errors import ExportError

pytest.importorskip("matplotlib", reason="needs the extra stats")
pytest.importorskip("statsmodels", reason="needs the extra stats")

from bedside_export.evaluation.observers import (
    ZONES,
    Readings,
    compare_readers,
    group_views,
    place_network,
    read_extents,
    read_readings,
)

COUNT = 16
VIEWS = ("PA", "AP", "")


def _write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _rows() -> list[dict[str, object]]:
    random = np.random.default_rng(1)
    rows: list[dict[str, object]] = []
    for i in range(COUNT):
        senior = random.integers(0, 4, 6)
        junior = np.clip(senior + random.integers(-1, 2, 6), 0, 3)
        row: dict[str, object] = {"image": f"{i}.png"}
        for name, zones in (("S", senior), ("J", junior)):
            row |= {f"{name}-{zone}": int(score) for zone, score in zip(ZONES, zones, strict=True)}
            row[f"{name}-Global"] = int(zones.sum())
        rows.append(row)
    return rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    noise = np.random.default_rng(0)
    for i in range(COUNT):
        pixels = noise.integers(40, 200, (64, 64)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    known = [
        {"image": f"{i}.png", "patientid": i // 2 if i else "", "view": VIEWS[i % 3]} for i in range(COUNT)
    ]
    _write_csv(tmp_path / "metadata.csv", known)
    _write_csv(tmp_path / "brixia.csv", _rows())
    return tmp_path


def _readings(zones: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Readings:
    count = len(zones)
    return Readings(
        tuple(Path(f"{i}.png") for i in range(count)),
        zones,
        ("PA",) * count,
        tuple(str(i) for i in range(count)),
    )


def test_the_tables_are_read_with_views_and_patients(folder: Path) -> None:
    readings = read_readings(folder)
    assert readings.zones.shape == (COUNT, 2, 6)
    first = _rows()[3]
    assert readings.zones[3, 1].tolist() == [first[f"J-{zone}"] for zone in ZONES]
    assert readings.sums[3].tolist() == [first["S-Global"], first["J-Global"]]
    assert readings.views[:3] == ("PA", "AP", "not stated")
    assert readings.patients[:4] == ("alone 2", "0", "1", "1")


def test_the_shared_readings_are_whole(shared: Path) -> None:
    readings = read_readings(shared / "data" / "cxr")
    counts = {group: int(inside.sum()) for group, inside in group_views(readings.views).items()}
    assert counts == {"all": 167, "PA": 108, "AP": 29, "AP Supine": 18, "not stated": 12}
    zones, groups = compare_readers(readings)
    for place, zone in enumerate(zones[:-1]):
        wanted = cohen_kappa_score(*readings.zones[:, :, place].T, weights="quadratic")
        assert zone.kappa is not None
        assert zone.kappa.value == pytest.approx(wanted)
        assert zone.same == pytest.approx(float((zone.table.diagonal().sum()) / 167))
    assert zones[-1].ratings == 6 * 167
    sums = readings.sums.astype(float)
    pair = groups[0].quantity.pairs[0]
    assert pair.bland_altman is not None
    assert pair.bland_altman.bias.value == pytest.approx(float((sums[:, 1] - sums[:, 0]).mean()))
    assert pair.kappa is not None
    assert pair.kappa.value == pytest.approx(
        cohen_kappa_score(*readings.sums.T, labels=range(19), weights="quadratic")
    )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"S-B": 4}, "row 4: zones of S must be 0, 1, 2 or 3"),
        ({"J-B": 1.5}, "row 4: zones of J must be 0, 1, 2 or 3"),
        ({"J-F": ""}, "row 4: zones of J must be"),
        ({"S-Global": 19}, "row 4: S-Global must be the sum of the six zones"),
        ({"image": "gone.png"}, "row 4: no such picture in images/"),
        ({"image": "../metadata.csv"}, "row 4: no such picture in images/"),
        ({"image": "0.png"}, "row 4: this picture stands there before"),
    ],
)
def test_bad_rows_are_told(change: dict[str, object], complaint: str, folder: Path) -> None:
    rows = _rows()
    rows[2] = {**rows[2], **change}
    _write_csv(folder / "brixia.csv", rows)
    with pytest.raises(ExportError, match=rf"brixia\.csv, {complaint}"):
        read_readings(folder)


class TestNetwork:
    def test_a_network_that_copies_a_reader_stands_between_them(self) -> None:
        zones = np.random.default_rng(3).integers(0, 4, (40, 2, 6))
        readings = _readings(zones)
        extents = readings.sums[:, 0] / 18 * 8
        place = place_network("copy", extents, readings)[0]
        assert place.to_senior == 0
        assert place.to_junior == pytest.approx(place.between_readers)
        assert place.to_mean == pytest.approx(place.between_readers / 2)
        assert place.ratio is not None
        assert (place.ratio.value, place.ratio.low, place.ratio.high) == pytest.approx((0.5, 0.5, 0.5))

    def test_a_third_reader_as_noisy_as_the_others_has_a_ratio_about_1(self) -> None:
        random = np.random.default_rng(5)
        true = random.uniform(2, 16, (400, 1))
        noisy = np.clip(true + random.normal(0, 1.5, (400, 3)), 0, 18)
        zones = np.zeros((400, 2, 6), np.int64)
        for reader in (0, 1):
            whole = np.rint(noisy[:, reader]).astype(int)
            for zone in range(6):
                zones[:, reader, zone] = np.clip(whole - 3 * zone, 0, 3)
        place = place_network("third", noisy[:, 2] / 18 * 8, _readings(zones))[0]
        assert place.ratio is not None
        assert place.ratio.low < 1 < place.ratio.high
        assert place.ratio.high - place.ratio.low < 0.3

    def test_pictures_without_an_extent_are_left_out(self) -> None:
        readings = _readings(np.random.default_rng(3).integers(0, 4, (40, 2, 6)))
        extents = readings.sums[:, 0] / 18 * 8
        extents[5:] = np.nan
        assert [place.pictures for place in place_network("few", extents, readings)] == [5, 5]
        assert place_network("none", np.full(40, np.nan), readings) == []

    def test_readers_that_never_differ_give_no_ratio(self) -> None:
        zones = np.repeat(np.random.default_rng(3).integers(0, 4, (9, 1, 6)), 2, axis=1)
        assert place_network("x", np.zeros(9), _readings(zones))[0].ratio is None

    def test_held_out_extents_are_clipped_and_averaged_over_splits(self, folder: Path) -> None:
        readings = read_readings(folder)
        rows: list[dict[str, object]] = [
            {"seed": 0, "image": "1.png", "extent": 9.5},
            {"seed": 1, "image": "1.png", "extent": 4},
            {"seed": 1, "image": "2.png", "extent": -1},
            {"seed": 1, "image": "elsewhere.png", "extent": 2},
        ]
        extents = read_extents(_write_csv(folder / "predictions.csv", rows), readings)
        assert extents[1:3].tolist() == [6, 0]
        assert np.isnan(extents[[0, *range(3, COUNT)]]).all()
        with pytest.raises(ExportError, match="names no picture of brixia"):
            read_extents(_write_csv(folder / "predictions.csv", rows[3:]), readings)
        with pytest.raises(ExportError, match="row 2: extent must be a number"):
            read_extents(_write_csv(folder / "predictions.csv", [{**rows[0], "extent": "x"}]), readings)


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["bedside-export", "evaluate", "observers", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_the_command_runs_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, object]] = [{"seed": 0, "image": f"{i}.png", "extent": i / 2} for i in range(COUNT)]
    predictions = _write_csv(folder / "predictions.csv", rows)
    out = folder / "out"
    arguments = ("--data", folder, "--out", out)
    assert _run(monkeypatch, *arguments, "--predictions", predictions, "--bundle", "cxr-severity-lite") == 0
    printed = capsys.readouterr()
    assert "WARNING: cxr-severity-lite was trained on" in printed.err
    text = (out / "table.md").read_text()
    assert text in printed.out
    assert "| held-out predictions | all | 16 |" in text
    assert "| cxr-severity-lite 1" in text
    assert "Not for clinical use." in text
    results = json.loads((out / "results.json").read_text())
    assert results["schema"] == "bedside.evaluation-observers/1"
    assert [zone["zone"] for zone in results["zones"]] == [*ZONES, "all"]
    assert {place["network"] for place in results["networks"]} >= {"held-out predictions"}
    for name in ("zones", "global", "network-1", "network-2"):
        with Image.open(out / f"{name}.png") as picture:
            picture.load()
            assert picture.text["Disclaimer"] == "Not for clinical use."  # type: ignore[attr-defined]
    assert _run(monkeypatch, *arguments) == 2
    assert "there is something in the output folder already" in capsys.readouterr().err
    assert _run(monkeypatch, *arguments, "--force") == 0
    assert "Networks among" not in (out / "table.md").read_text()


def test_a_missing_table_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "--data", tmp_path, "--out", tmp_path / "out") == 2
    assert "error: metadata.csv can't be read as CSV" in capsys.readouterr().err
    assert _run(monkeypatch, "--data", tmp_path / "none", "--out", tmp_path / "out") == 2
    assert "no such folder of data" in capsys.readouterr().err
