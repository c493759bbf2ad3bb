"""The recipe's intervals: exact on small cases, right on many, and never calibrated on whom they are tried on."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from bedside.bundle import Bundle
from bedside.contract import WIDENING_NOTES, Widening
from bedside_export.recipes.cxr import intervals
from bedside_export.recipes.cxr.conformal import (
    KINDS,
    Errors,
    calibrate,
    compare_kinds,
    cover,
    errors_of,
    offset,
)
from bedside_export.recipes.cxr.data import (
    ZONES,
    Collection,
    DataError,
    Picture,
    Split,
    read_collection,
    read_thumbnails,
    split,
)
from bedside_export.recipes.cxr.degradations import DEGRADATIONS, score_degraded
from bedside_export.recipes.cxr.report import Prediction, write_predictions
from bedside_export.recipes.cxr.trials import AS_TAKEN, Trial, read_trials, write_trials
from bedside_export.recipes.cxr.widening import FEWEST, measure_notes, measure_views, needed


def prediction(
    number: int, error: float = 0.0, *, seed: int = 0, view: str = "PA", truth: float = 3.0
) -> Prediction:
    """One whose experts' scores lie ``error`` over the predicted ones."""
    score = truth - error
    return Prediction(seed, f"{number}.jpg", view, score, score, truth, truth, None)


def simulated(
    seed: int, patients: int = 400, splits: int = 6
) -> tuple[list[Prediction], dict[int, frozenset[str]]]:
    """Half splits whose networks each have a bias of their own, and patients of whom some are harder."""
    generator = np.random.default_rng(seed)
    noise = generator.standard_t(5, patients) * 0.4
    predictions, training = [], {}
    for split_seed in range(splits):
        held_out = generator.permutation(patients)[: patients // 2]
        bias = generator.normal(0, 0.2)
        predictions += [prediction(i, noise[i] + bias, seed=split_seed) for i in held_out]
        training[split_seed] = frozenset(f"{i}.jpg" for i in set(range(patients)) - set(held_out.tolist()))
    return predictions, training


class TestConformal:
    @pytest.mark.parametrize(
        ("errors", "confidence", "reach"),
        [
            ([1, 2, 3], 0.5, 2),
            ([1, -2, 3], 0.5, 2),
            ([7, 6, 5, 4, 3, 2, 1], 0.75, 6),  # the ceil(0.75 (7 + 1)) = 6th of 7
            ([0.5] * 20, 0.9, 0.5),
        ],
    )
    def test_offset_is_the_conformal_quantile_of_absolute_errors(
        self, errors: list[float], confidence: float, reach: float
    ) -> None:
        assert offset(errors, confidence) == reach

    def test_offset_of_too_few_errors_is_infinite(self) -> None:
        assert offset([1.0, 2.0], 0.9) == float("inf")

    def test_errors_are_against_the_clipped_score_and_of_scored_pictures_alone(self) -> None:
        rows = [
            replace(prediction(0), extent=9.5, true_extent=8.0),
            replace(prediction(1), true_extent=None),
            prediction(2, 0.5),
        ]
        errors = errors_of(rows, "extent")
        assert errors.images.tolist() == ["0.jpg", "2.jpg"]
        assert errors.errors.tolist() == [0.0, 0.5]
        assert errors.pictures == 2

    def test_truth_out_of_its_scale_is_refused(self) -> None:
        with pytest.raises(ValueError, match="true opacity is not from 0 to 6"):
            errors_of([replace(prediction(0), true_opacity=7.0)], "opacity")

    def test_table_without_truths_is_refused(self) -> None:
        with pytest.raises(ValueError, match="nothing to calibrate on"):
            errors_of([replace(prediction(0), true_extent=None)], "extent")

    @pytest.mark.parametrize("kind", KINDS)
    def test_split_is_tried_with_other_splits_errors_on_its_own_patients(self, kind: str) -> None:
        # Split 0 holds pictures 0 to 29 out and errs there by 1; split 1 holds the others out and errs by 0.1.
        rows = [prediction(i, (-1) ** i * (1.0 if i < 30 else 0.1), seed=int(i >= 30)) for i in range(60)]
        training = {seed: frozenset(p.image for p in rows if p.seed != seed) for seed in (0, 1)}
        errors = errors_of(rows, "extent")
        inside, width = cover(errors, training, 0.8, kind)
        assert not inside[errors.seeds == 0].any()
        assert inside[errors.seeds == 1].all()
        assert (width[errors.seeds == 0] < width[errors.seeds == 1]).all()

    def test_picture_on_both_sides_of_a_split_is_refused(self) -> None:
        rows = [prediction(0), prediction(1, seed=1)]
        with pytest.raises(ValueError, match="split 0 is to be calibrated on a picture that it holds out"):
            cover(errors_of(rows, "extent"), {0: frozenset({"0.jpg", "1.jpg"}), 1: frozenset()}, 0.8)

    def test_split_without_other_errors_is_refused(self) -> None:
        rows = [prediction(0), prediction(1, seed=1)]
        with pytest.raises(ValueError, match="give more seeds"):
            cover(errors_of(rows, "extent"), {0: frozenset({"2.jpg"}), 1: frozenset({"0.jpg"})}, 0.8)

    def test_levels_are_covered_nested_and_told(self) -> None:
        predictions, training = simulated(1)
        found = calibrate(predictions, training)
        low, high = found["extent"]
        assert (low["level"], high["level"], found["splits"]) == (0.8, 0.9, 6)
        assert low["offset"] < high["offset"]
        for each in (low, high):
            assert each["coverage"] >= each["level"] <= each["confidence"]
            assert len(each["coverage_of_splits"]) == 6
            assert (each["residuals"], each["pictures"]) == (1200, len({p.image for p in predictions}))

    def test_intervals_cover_new_patients_of_a_new_network_at_their_level(self) -> None:
        """Over many repetitions, as a bundle's are: patients and networks that nothing was calibrated on."""
        generator = np.random.default_rng(0)
        covered = {0.8: [], 0.9: []}  # type: dict[float, list[float]]
        for repetition in range(6):
            found = calibrate(*simulated(repetition, patients=120))["extent"]
            errors = generator.standard_t(5, (200, 50)) * 0.4 + generator.normal(0, 0.2, (200, 1))
            for each in found:
                covered[each["level"]].append(float((np.abs(errors) <= each["offset"]).mean()))
        for level, shares in covered.items():
            assert level - 0.03 <= np.mean(shares) <= level + 0.06

    def test_comparison_tells_every_kind_at_both_levels_for_both_scores(self) -> None:
        lines = compare_kinds(*simulated(2, patients=60, splits=3)).splitlines()
        assert len(lines) == 2 + 2 * 2 * len(KINDS)
        assert lines[2].startswith("| extent | 80% | symmetric |")

    def test_rows_keep_their_scale(self) -> None:
        errors = Errors(
            np.array([0, 1]), np.array(["a", "b"]), np.array([1.0, 2.0]), np.array([0.1, 0.2]), 8.0
        )
        chosen = errors.rows(np.array([False, True]))
        assert (len(chosen), chosen.images.tolist(), chosen.maximum) == (1, ["b"], 8.0)


def by_brixia(view: str, error: float, count: int, first: int = 0) -> list[Prediction]:
    """Predictions whose extent errs by ``error`` against Brixia 9, and whose opacity does by its line (Brixia / 3)."""
    return [
        Prediction(0, f"{first + i}.jpg", view, 4.0 - error, 3.0 - error, None, 3.0, 9.0)
        if i % 2
        else Prediction(0, f"{first + i}.jpg", view, 8.0 / 3 - error, 2.0 - error, None, 2.0, 6.0)
        for i in range(count)
    ]


class TestWidening:
    def test_projections_err_as_measured_against_pa(self) -> None:
        rows = [
            *by_brixia("PA", 0.5, 30),
            *by_brixia("AP", 1.0, 20, 30),
            *by_brixia("AP Supine", 1.5, 20, 50),
        ]
        found = measure_views(rows)
        assert [found[name]["pictures"] for name in ("PA", "AP", "AP SUPINE")] == [30, 40, 20]
        for level in ("0.8", "0.9"):
            assert found["PA"]["extent"][level]["factor"] == pytest.approx(1)
            assert found["AP SUPINE"]["extent"][level]["factor"] == pytest.approx(3)
            assert found["AP SUPINE"]["opacity"][level]["factor"] == pytest.approx(3)
            assert found["AP"]["extent"][level]["factor"] == pytest.approx(3)  # 20 of 40 lie, and err so

    def test_smaller_error_makes_nothing_narrower(self) -> None:
        found = measure_views([*by_brixia("PA", 1.0, 30), *by_brixia("AP", 0.5, 20, 30)])
        assert found["AP"]["extent"]["0.8"]["ratio"] == pytest.approx(0.5)
        assert found["AP"]["extent"]["0.8"]["factor"] == 1

    def test_too_few_pictures_say_nothing(self) -> None:
        found = measure_views([*by_brixia("PA", 0.5, 30), *by_brixia("AP Supine", 1.0, FEWEST - 1, 30)])
        assert found["AP SUPINE"] == {"pictures": FEWEST - 1}

    def test_level_that_needs_more_pictures_takes_the_factor_of_the_one_under_it(self) -> None:
        assert (needed(0.8), needed(0.9)) == (9, 19)
        some = by_brixia("AP Supine", 1.0, 18, 30)
        some[0] = replace(some[0], extent=-20.0)  # one outlier would be the whole 90 % interval of 18
        found = measure_views([*by_brixia("PA", 0.5, 30), *some])["AP SUPINE"]["extent"]
        assert found["0.9"]["factor"] == found["0.8"]["factor"] == pytest.approx(2)
        assert found["0.9"]["measured_at"] == 0.8

    def test_table_without_brixia_scores_says_nothing_of_projections(self) -> None:
        assert measure_views([prediction(0)]) == {}

    def test_notes_are_compared_with_the_same_pictures_before(self) -> None:
        hard, easy = range(20), range(20, 40)
        trials = [Trial(AS_TAKEN, (), prediction(i, 1.0 if i in hard else 0.1)) for i in (*hard, *easy)]
        trials += [Trial("45% white", ("clipped-white", "voi"), prediction(i, 1.5)) for i in hard]
        trials += [Trial("blur 1%", (), prediction(i, 0.4)) for i in easy]
        found = measure_notes(trials)
        assert found.keys() == {"clipped-white", ""}
        assert found["clipped-white"]["pictures"] == 20
        assert found["clipped-white"]["extent"]["0.9"]["factor"] == pytest.approx(1.5)
        assert found[""]["opacity"]["0.8"]["factor"] == pytest.approx(4)

    def test_trial_with_two_notes_counts_to_the_wider_one(self) -> None:
        trials = [Trial(AS_TAKEN, (), prediction(i, 0.5)) for i in range(20)]
        trials += [Trial("a", ("clipped-black",), prediction(i, 0.75)) for i in range(20)]
        trials += [Trial("b", ("clipped-black", "lungs-not-found"), prediction(i, 2.0)) for i in range(20)]
        found = measure_notes(trials)
        assert found["lungs-not-found"]["extent"]["0.8"]["factor"] == pytest.approx(4)
        assert found["clipped-black"]["extent"]["0.8"]["factor"] == pytest.approx(1.5)


class TestManifest:
    def measured(self) -> dict[str, object]:
        predictions, training = simulated(1, patients=80)
        rows = [*by_brixia("PA", 0.5, 30, 1000), *by_brixia("AP", 1.0, 20, 1030)]
        trials = [Trial(AS_TAKEN, (), prediction(i, 0.5)) for i in range(20)]
        trials += [Trial("a", ("dark-image",), prediction(i, 0.75)) for i in range(20)]
        trials += [Trial("b", ("clipped-black",), prediction(i, 0.75)) for i in range(FEWEST - 1)]
        found = intervals.measure_intervals(predictions, training, trials)
        return {**found, "views": measure_views(rows)}

    def test_bundle_takes_what_was_measured(self) -> None:
        measured = json.loads(json.dumps(self.measured()))
        interval, further = intervals.intervals_of(measured, "extent")
        assert (interval.level, further.level) == (0.8, 0.9)
        assert interval.below == interval.above == round(measured["extent"][0]["offset"], 4)
        pictures = measured["extent"][0]["pictures"]
        assert f"{pictures} pictures of patients not trained on, in 6 splits; held 8" in interval.method
        assert interval.wider == {"dark-image": Widening(1.5, 20)}
        assert interval.views == {"PA": Widening(1.0, 30), "AP": Widening(2.0, 20)}
        manifest = Bundle.open("cxr-severity-lite").manifest
        scores = tuple(
            replace(score, interval=first, further=tuple(rest))
            for score in manifest.scores
            for first, *rest in [intervals.intervals_of(measured, score.name)]
        )
        assert replace(manifest, scores=scores).scores[0].further == (further,)

    def test_projections_are_left_out_where_ap_was_not_measured(self) -> None:
        measured = {**self.measured(), "views": measure_views(by_brixia("PA", 0.5, 30))}
        assert intervals.intervals_of(measured, "extent")[0].views == {}

    def test_card_tells_levels_factors_and_what_was_not_measured(self) -> None:
        told = intervals.describe(self.measured())
        assert "| extent | 80% | ± " in told
        assert "| AP | 20 | 2.00 and 2.00 | 2.00 and 2.00 |" in told
        assert "| dark-image | 20 | 1.50 and 1.50 | 1.50 and 1.50 |" in told
        assert f"| clipped-black | {FEWEST - 1} | too few | too few |" in told
        assert (
            f"too few pictures (under {FEWEST}) to say: low-resolution, clipped-white, clipped-black" in told
        )


def write_data(root: Path, count: int = 12) -> None:
    """A data folder of phantoms, each of a patient of its own, all with experts' and Brixia's scores."""
    (root / "cxr" / "images").mkdir(parents=True)
    names = [f"{i:02}.jpg" for i in range(count)]
    generator = np.random.default_rng(0)
    for name in names:
        noise = generator.integers(0, 256, (160, 140)).astype(np.uint8)
        Image.fromarray(noise).save(root / "cxr" / "images" / name)
    tables: dict[str, tuple[Sequence[str], list[Sequence[object]]]] = {
        "metadata.csv": (("image", "patientid", "view"), [(n, f"p{i}", "PA") for i, n in enumerate(names)]),
        "severity.csv": (("image", "geographic_mean", "opacity_mean"), [(n, 3, 2) for n in names]),
        "brixia.csv": (
            ("image", *(f"{reader}-{zone}" for reader in "SJ" for zone in ZONES)),
            [(n, *[1] * 12) for n in names],
        ),
    }
    for name, (header, rows) in tables.items():
        with (root / "cxr" / name).open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([header, *rows])


@pytest.fixture(scope="module")
def grey() -> npt.NDArray[np.float32]:
    """A ramp with noise, which reaches neither end of the range."""
    ramp = np.linspace(0.1, 0.8, 120)[:, None] * np.linspace(0.5, 1, 100)
    return (ramp + np.random.default_rng(0).normal(0, 0.02, ramp.shape)).clip(0.01, 0.99).astype(np.float32)


class TestDegradations:
    @pytest.mark.parametrize("name", DEGRADATIONS)
    def test_every_degradation_leaves_a_picture(self, name: str, grey: npt.NDArray[np.float32]) -> None:
        degraded = DEGRADATIONS[name](grey, np.random.default_rng(0)).clip(0, 1)
        assert degraded.ndim == 2
        assert np.isfinite(degraded).all()
        assert (degraded.shape == grey.shape and np.array_equal(degraded, grey)) == (name == AS_TAKEN)

    def test_networks_score_whom_they_never_saw_and_notes_are_the_runtime_s(self, tmp_path: Path) -> None:
        write_data(tmp_path, 3)
        collection = read_collection(tmp_path)
        first, second, _ = collection.pictures
        halves = [Split(seed, (), held_out) for seed, held_out in ((0, (first,)), (1, (first, second)))]

        def answer(image: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
            mean = float(image.mean())
            return {
                "severity": np.array([[mean, 2 * mean]], np.float32),
                "cam": np.zeros((1, 2, 80, 80), np.float32),
                "lungs": np.full((1, 1, 80, 80), image.mean() > 0.1, np.float32),
            }

        manifest = Bundle.open("cxr-severity-lite").manifest
        trials = list(score_degraded(collection, halves, {0: answer, 1: answer}, manifest))
        assert {(t.prediction.seed, t.prediction.image) for t in trials} == {
            (0, first.name),
            (1, first.name),
            (1, second.name),
        }
        of = {t.degradation: t for t in trials if t.prediction.image == first.name}
        assert of.keys() == DEGRADATIONS.keys()
        assert of[AS_TAKEN].prediction.true_extent == 3.0
        assert of[AS_TAKEN].prediction.opacity == pytest.approx(2 * of[AS_TAKEN].prediction.extent)
        assert "clipped-white" in of["45% white"].notes
        assert "clipped-black" in of["60% black"].notes
        assert {"dark-image", "lungs-not-found"} <= set(of["darkest tenth"].notes)
        assert "low-resolution" in of["160 pixels"].notes
        assert of["inverted"].prediction.extent != of[AS_TAKEN].prediction.extent

    def test_refused_pictures_are_left_out(self, tmp_path: Path) -> None:
        write_data(tmp_path, 1)
        Image.new("L", (96, 80), 128).save(tmp_path / "cxr" / "images" / "00.jpg")
        collection = read_collection(tmp_path)
        halves = [Split(0, (), collection.pictures)]
        manifest = Bundle.open("cxr-severity-lite").manifest

        def answer(image: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
            maps = np.ones((1, 2, 80, 80), np.float32)
            return {"severity": np.ones((1, 2), np.float32), "cam": maps, "lungs": maps[:, :1]}

        ways = {t.degradation for t in score_degraded(collection, halves, {0: answer}, manifest)}
        assert AS_TAKEN not in ways  # of one grey value throughout
        assert "noise 0.1" in ways

    def test_trials_survive_the_file(self, tmp_path: Path) -> None:
        trials = [
            Trial(AS_TAKEN, (), prediction(0, 0.5)),
            Trial("45% white", ("voi", "clipped-white"), replace(prediction(1), true_extent=None)),
        ]
        write_trials(tmp_path / "t.csv", trials)
        assert read_trials(tmp_path / "t.csv") == trials

    def test_table_without_its_columns_is_refused(self, tmp_path: Path) -> None:
        write_predictions(tmp_path / "t.csv", [prediction(0)])
        with pytest.raises(DataError, match="degradation"):
            read_trials(tmp_path / "t.csv")


def test_command_writes_and_prints_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path, 16)
    collection: Collection = read_collection(tmp_path)
    thumbnails = read_thumbnails(collection)
    held_out: dict[int, tuple[Picture, ...]] = {
        seed: split(collection, thumbnails, seed=seed).held_out for seed in range(4)
    }
    generator = np.random.default_rng(0)
    rows = [
        Prediction(
            seed, p.name, p.view, 3 + float(generator.normal()), 2 + float(generator.normal()), 3, 2, p.brixia
        )
        for seed, pictures in held_out.items()
        for p in pictures
    ]
    write_predictions(tmp_path / "predictions.csv", rows)
    intervals.main(["--data", str(tmp_path), "--measured", str(tmp_path)])
    written = json.loads((tmp_path / intervals.FILE).read_text(encoding="utf-8"))
    assert [each["level"] for each in written["opacity"]] == [0.8, 0.9]
    told = capsys.readouterr().out
    assert intervals.describe(written) in told
    assert "| extent | 90% | mondrian |" in told
    assert all(code in told for code in WIDENING_NOTES)
