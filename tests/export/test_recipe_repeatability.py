"""How well scores repeat themselves: retakes, their spread, and what a bundle says of it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from bedside.bundle import Interval, Score
from bedside_export.recipes.cxr.changes import Change, changes_of, measure_changes
from bedside_export.recipes.cxr.data import Collection, DataError, Picture, read_collection
from bedside_export.recipes.cxr.network import SeverityNetwork
from bedside_export.recipes.cxr.repeatability import (
    Series,
    main,
    measure_observers,
    measure_repeatability,
    repeat,
)
from bedside_export.recipes.cxr.repeatability_report import (
    FILE,
    describe,
    read_repeatability,
    with_repeatability,
)
from bedside_export.recipes.cxr.retake import Retake, retake
from bedside_export.recipes.spread import LEVEL, measure_spread

STILL = Retake(crop=0, rotation=0, gamma=0, window=0, noise=0, resolution=1)
PATIENTS = 8


def smooth(seed: int, shape: tuple[int, int] = (90, 120)) -> npt.NDArray[np.float32]:
    noise = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(seed))
    grey = torch.nn.functional.avg_pool2d(noise, 9, 1, 4)[0, 0].numpy()
    return np.asarray((grey - grey.min()) / (grey.max() - grey.min()), dtype=np.float32)


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder of a picture for each of eight patients, four of them read by two radiologists."""
    root = tmp_path / "data" / "cxr"
    (root / "images").mkdir(parents=True)
    names = [f"{number}.jpg" for number in range(PATIENTS)]
    for number, name in enumerate(names):
        Image.fromarray((smooth(number) * 255).astype(np.uint8)).save(root / "images" / name)
    write_table(
        root / "metadata.csv",
        [
            {"image": n, "filename": n, "patientid": f"p{i}", "view": "PA", "offset": ""}
            for i, n in enumerate(names)
        ],
    )
    write_table(root / "severity.csv", [{"image": n, "geographic_mean": 4, "opacity_mean": 3} for n in names])
    zones = {f"{who}-{zone}": 1 for who in "SJ" for zone in "ABCDEF"}
    write_table(
        root / "brixia.csv",
        [{"image": n, **zones, "S-Global": 6 + i, "J-Global": 6} for i, n in enumerate(names[:4])],
    )
    return tmp_path / "data"


@pytest.fixture
def collection(data: Path) -> Collection:
    return read_collection(data)


def brightness(squares: torch.Tensor) -> npt.NDArray[np.float32]:
    """A network whose scores are how bright a picture is, on its scale and beyond."""
    mean = squares.mean((1, 2, 3)).numpy()
    return np.stack([16 * mean, 6 * mean], axis=1).astype(np.float32)


class TestRetake:
    def test_nothing_changes_where_nothing_may(self) -> None:
        grey = smooth(0)
        again = retake(grey, STILL, torch.Generator().manual_seed(0))
        np.testing.assert_allclose(again, grey, atol=1e-5)

    def test_same_chance_gives_the_same_picture_and_other_chance_another(self) -> None:
        first, again, other = (
            retake(smooth(0), Retake(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(first, again)
        assert first.shape != other.shape

    def test_values_stay_those_of_a_picture(self) -> None:
        for seed in range(5):
            again = retake(smooth(seed), Retake(), torch.Generator().manual_seed(seed))
            assert again.dtype == np.float32
            assert 0 <= again.min() < again.max() <= 1

    def test_crop_takes_the_edges_and_keeps_the_rest_in_place(self) -> None:
        grey = smooth(0, (100, 100))
        again = retake(grey, replace(STILL, crop=0.2), torch.Generator().manual_seed(3))
        height, width = again.shape
        assert 60 <= min(height, width) < max(height, width) < 100
        # where it lies in the picture, found by the closest match of its middle
        part = again[height // 2 - 5 : height // 2 + 5, width // 2 - 5 : width // 2 + 5]
        gaps = [
            (float(np.abs(grey[y : y + 10, x : x + 10] - part).mean()), y, x)
            for y in range(90)
            for x in range(90)
        ]
        gap, y, x = min(gaps)
        assert gap < 0.02
        assert abs(y + 5 - 50) <= 11
        assert abs(x + 5 - 50) <= 11

    def test_turning_keeps_the_middle(self) -> None:
        grey = np.zeros((101, 101), np.float32)
        grey[48:53, 48:53] = 1
        grey[10:15, 48:53] = 1
        again = retake(grey, replace(STILL, rotation=30), torch.Generator().manual_seed(1))
        assert again[50, 50] > 0.9
        assert again[12, 50] < 0.5

    def test_exposure_keeps_the_order_of_greys(self) -> None:
        ramp = np.linspace(0.2, 0.8, 4096, dtype=np.float32).reshape(64, 64)
        again = retake(ramp, replace(STILL, gamma=0.3, window=0.1), torch.Generator().manual_seed(0))
        assert (np.diff(again.ravel()) > 0).all()
        assert float(np.abs(again - ramp).max()) > 0.01


class TestSpread:
    def test_standard_error_is_that_within_the_pairs(self) -> None:
        found = measure_spread([("a", np.array([0.0, 2.0])), ("b", np.array([1.0, 1.0]))])
        assert found["sd"] == pytest.approx(1.0)
        assert found["by_formula"] == pytest.approx(1.96 * np.sqrt(2), rel=1e-4)
        assert (found["patients"], found["series"]) == (2, 2)

    def test_patients_weigh_the_same_however_many_pictures_they_have(self) -> None:
        rare = ("a", np.array([0.0, 2.0]))
        often = ("b", np.array([1.0, 1.0]))
        assert measure_spread([rare] + [often] * 9)["sd"] == measure_spread([rare, often])["sd"]

    def test_normal_errors_keep_the_formula_nearly(self) -> None:
        chance = np.random.default_rng(0)
        repeated = [(str(n), 4 + 0.3 * chance.normal(size=8)) for n in range(600)]
        found = measure_spread(repeated)
        assert found["sd"] == pytest.approx(0.3, rel=0.03)
        assert found["held_by_formula"] == pytest.approx(LEVEL, abs=0.01)
        assert found["smallest_change"] == pytest.approx(found["by_formula"], rel=0.06)
        assert found["sd_interval"][0] < 0.3 < found["sd_interval"][1]

    def test_smallest_change_holds_where_the_errors_are_largest(self) -> None:
        chance = np.random.default_rng(0)
        noise = {2.0: 0.1, 4.0: 0.6, 6.0: 0.1}
        repeated = [
            (f"{level} {n}", level + sd * chance.normal(size=8))
            for level, sd in noise.items()
            for n in range(100)
        ]
        found = measure_spread(repeated)
        assert [part["held_by_formula"] < LEVEL for part in found["thirds"]] == [False, True, False]
        assert all(part["held"] >= LEVEL - 1e-9 for part in found["thirds"])  # sums of floats
        assert found["smallest_change"] > found["by_formula"]

    def test_one_patient_is_too_few(self) -> None:
        with pytest.raises(DataError, match="two patients"):
            measure_spread([("a", np.array([0.0, 2.0]))])


class TestRepeat:
    def test_retakes_of_a_picture_do_not_depend_on_the_others(self, collection: Collection) -> None:
        alone = repeat(brightness, collection, collection.pictures[2:3], Retake(), repeats=3)
        among = repeat(brightness, collection, collection.pictures, Retake(), repeats=3)
        np.testing.assert_array_equal(alone[0].scores, among[2].scores)
        assert len(among) == PATIENTS

    def test_scores_are_kept_within_their_scales(self, collection: Collection) -> None:
        for one in repeat(brightness, collection, collection.pictures, Retake(), repeats=2):
            assert one.scores.shape == (2, 2)
            assert (one.scores >= 0).all()
            assert (one.scores <= (8, 6)).all()

    def test_picture_of_nobody_known_is_left_out(self, collection: Collection) -> None:
        unknown = replace(collection.pictures[0], patient=None)
        assert repeat(brightness, collection, [unknown], Retake(), repeats=2) == []

    def test_pictures_that_do_not_change_have_no_spread(self, collection: Collection) -> None:
        series = repeat(brightness, collection, collection.pictures, STILL, repeats=3)
        found = measure_repeatability(series)
        assert found["extent"]["sd"] == pytest.approx(0, abs=1e-6)

    def test_each_score_has_its_own(self) -> None:
        scores = np.array([[1.0, 1.0], [3.0, 1.0]])
        found = measure_repeatability([Series("a", scores), Series("b", scores)])
        assert found["extent"]["sd"] == pytest.approx(np.sqrt(2))
        assert found["opacity"]["sd"] == 0


class TestObservers:
    def test_radiologists_are_put_on_the_scale_of_extent(self, data: Path) -> None:
        found = measure_observers(data)
        assert found.keys() == {"extent"}
        differences = np.array([0, 1, 2, 3]) * 8 / 18
        assert found["extent"]["sd"] == pytest.approx(np.sqrt((differences**2).mean() / 2))

    def test_score_out_of_its_scale_is_refused(self, data: Path) -> None:
        path = data / "cxr" / "brixia.csv"
        path.write_text(path.read_text("utf-8").replace(",9,6", ",19,6"), "utf-8")
        with pytest.raises(DataError, match="out of 0 to 18"):
            measure_observers(data)


def picture(name: str, patient: str, extent: float, brixia: float | None = None) -> Picture:
    zones = None if brixia is None else (brixia / 6,) * 6
    return Picture(name, patient, "PA", (extent, 1.0), zones)


class TestChanges:
    @pytest.fixture
    def followed(self, tmp_path: Path) -> Collection:
        """Patient a on days 0, 4 and 2, with two pictures of day 4; patient b on one known day."""
        days = {"a0": "0", "a4": "4", "a2": "2", "a4b": "4", "b0": "7", "b1": "", "b2": "?"}
        write_table(tmp_path / "metadata.csv", [{"image": n, "offset": day} for n, day in days.items()])
        return Collection(tmp_path, tuple(picture(name, name[0], 1) for name in sorted(days)))

    def test_are_between_consecutive_days_of_one_patient(self, followed: Collection) -> None:
        scores = np.array([[float(number), 0.0] for number in range(len(followed.pictures))])
        found = changes_of(followed, [(followed.pictures, scores)])
        assert [(each.first.name, each.second.name) for each in found] == [("a0", "a2"), ("a2", "a4")]
        assert [each.scores.tolist() for each in found] == [
            [1, 0],
            [1, 0],
        ]  # a0, a2, a4, a4b in order of names

    def test_are_the_mean_over_the_networks_that_never_saw_the_patient(self, followed: Collection) -> None:
        pictures = followed.pictures[:2]
        first, second = np.array([[0.0, 0.0], [1.0, 2.0]]), np.array([[0.0, 0.0], [3.0, -2.0]])
        (found,) = changes_of(followed, [(pictures, first), (pictures, second)])
        assert found.scores.tolist() == [2, 0]

    def test_are_counted_by_the_way_that_the_experts_went(self) -> None:
        ours = (2.0, -2.0, 2.0, 0.1, 2.0)
        theirs = (3.0, 1.0, 0.0, 4.0, 1.0)
        changes = [
            Change(picture("x", "a", 2), picture("y", "a", 2 + up), np.array([moved, 0.0]))
            for moved, up in zip(ours, theirs, strict=True)
        ]
        (found,) = measure_changes(changes, {"extent": 0.5, "opacity": 0.5})["extent"]
        assert found["experts"] == "severity"
        assert (found["pairs"], found["patients"], found["beyond"]) == (5, 1, 4)
        assert (found["same_way"], found["other_way"], found["unchanged"]) == (2, 1, 1)
        assert found["rms_of_experts"] == pytest.approx(np.sqrt((9 + 1 + 0 + 16 + 1) / 5))

    def test_of_brixia_stand_for_the_extent_alone(self) -> None:
        change = Change(picture("x", "a", 2, 0), picture("y", "a", 2, 9), np.array([4.0, 3.0]))
        found = measure_changes([change], {"extent": 0.5, "opacity": 0.5})
        assert [each["experts"] for each in found["extent"]] == ["severity", "brixia"]
        assert found["extent"][1]["rms_error"] == pytest.approx(0)
        assert [each["experts"] for each in found["opacity"]] == ["severity"]


def drafted(name: str) -> Score:
    return Score(name, name, 0, 8, "a head", Interval(0.8, 1, 1, "made up"))


def save_network(folder: Path) -> None:
    torch.manual_seed(0)
    network = SeverityNetwork()
    torch.nn.init.normal_(network.head.linear.weight, std=0.2)
    folder.mkdir(parents=True)
    torch.save(network.state_dict(), folder / "network.pt")


def test_command_measures_each_split_and_a_bundle_says_so(data: Path, tmp_path: Path) -> None:
    for seed in (0, 3):
        save_network(tmp_path / "splits" / f"split-{seed}")
    arguments = [
        "--data",
        str(data),
        "--splits",
        str(tmp_path / "splits"),
        "--repeats",
        "2",
        "--threads",
        "1",
    ]
    main(arguments)
    measured = read_repeatability(tmp_path / "splits")
    assert measured == json.loads((tmp_path / "splits" / FILE).read_text("utf-8"))
    assert measured["seeds"] == [0, 3]
    assert (
        measured["repeatability"]["extent"]["series"] == PATIENTS
    )  # half of the patients in each of two splits
    extent, opacity = (with_repeatability(drafted(name), measured) for name in ("extent", "opacity"))
    assert extent.repeatability is not None
    assert extent.observers is not None
    assert extent.repeatability.smallest_change >= measured["repeatability"]["extent"]["smallest_change"]
    assert f"{PATIENTS} pictures" in extent.repeatability.method
    assert opacity.repeatability is not None
    assert opacity.observers is None
    card = describe(measured)
    assert f"{measured['repeatability']['extent']['sd']:.2f}" in card
    assert "not measured" in card


def test_score_of_which_nothing_was_measured_says_nothing(tmp_path: Path) -> None:
    assert read_repeatability(tmp_path) == {}
    assert with_repeatability(drafted("extent"), {}) == drafted("extent")
    assert describe({}) == ""


def test_folder_without_networks_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--splits"):
        main(["--data", str(data), "--splits", str(tmp_path)])


def test_one_repeat_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--splits", str(tmp_path), "--repeats", "1"])
    assert "2 or more" in capsys.readouterr().err
