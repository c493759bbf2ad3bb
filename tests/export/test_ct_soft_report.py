"""Calibration errors, energy distance and expected volumes against values known by hand or by a library."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from bedside_export.recipes.ct.phantoms import PATTERNS, make_specimen
from bedside_export.recipes.ct.soft_readers import Reader, majority, read_specimen
from bedside_export.recipes.ct.soft_report import (
    BINS,
    Reliability,
    energy_distance,
    expected_volume,
    find_region,
    sample_readings,
)

CLASSES = {name: 3 + k for k, name in enumerate(PATTERNS)}


def shares_of(opacity: np.ndarray) -> np.ndarray:
    """Probabilities ``(1, 2, 1, n)`` of background and opacity."""
    return np.stack([1 - opacity, opacity])[None, :, None].astype(np.float32)


class TestReliability:
    def test_curve_is_that_of_scikit_learn(self) -> None:
        chance = np.random.default_rng(0)
        p = chance.uniform(0.01, 0.99, 4000)
        true = chance.uniform(size=4000) < p**2
        found = Reliability(("none", "opacity"))
        found.add(shares_of(p), shares_of(true.astype(float)), np.ones((1, 1, 4000), bool))
        curve = found.errors()["reliability"]["opacity"]
        share, promised = calibration_curve(true, p.astype(np.float32), n_bins=BINS)
        assert [bin_["share_of_readers"] for bin_ in curve] == pytest.approx(share.tolist())
        assert [bin_["promised"] for bin_ in curve] == pytest.approx(promised.tolist())
        voxels = np.array([bin_["voxels"] for bin_ in curve])
        by_hand = float((voxels * np.abs(share - promised)).sum() / voxels.sum())
        assert found.errors()["by_class"]["opacity"] == pytest.approx(by_hand)

    def test_shares_of_the_readers_themselves_have_no_error(self) -> None:
        p = np.random.default_rng(0).choice([0, 1 / 3, 2 / 3, 1], 900)
        found = Reliability(("none", "opacity"))
        found.add(shares_of(p), shares_of(p), np.ones((1, 1, 900), bool))
        assert found.errors()["ece"] == pytest.approx(0, abs=1e-6)
        assert found.errors()["classwise_ece"] == pytest.approx(0, abs=1e-6)

    def test_being_sure_where_readers_are_split_is_an_error(self) -> None:
        found = Reliability(("none", "opacity"))
        found.add(shares_of(np.ones(90)), shares_of(np.full(90, 2 / 3)), np.ones((1, 1, 90), bool))
        assert found.errors()["ece"] == pytest.approx(1 / 3)

    def test_only_the_region_counts(self) -> None:
        found = Reliability(("none", "opacity"))
        region = np.arange(90)[None, None] < 30
        found.add(shares_of(np.ones(90)), shares_of((np.arange(90) < 30).astype(float)), region)
        assert found.errors()["ece"] == 0

    def test_region_is_the_lungs_of_any_reader_and_a_little_around(self) -> None:
        readings = np.zeros((1, 2, 20, 20), np.uint8)
        readings[0, 1, 8:12, 8:12] = 1
        region = find_region(readings)[0]
        assert region[8:12, 6:14].all()
        assert not region[:, :6].any()


class TestEnergyDistance:
    def test_same_readings_are_at_no_distance(self) -> None:
        readings = np.random.default_rng(0).integers(0, 3, (2, 4, 8, 8)).astype(np.uint8)
        assert energy_distance(readings, readings, [1, 2]) == pytest.approx(0, abs=1e-6)

    def test_two_readers_and_one_answer_by_hand(self) -> None:
        readings, answer = np.zeros((1, 2, 1, 4), np.uint8), np.zeros((1, 1, 1, 4), np.uint8)
        readings[0, 0, 0, :2] = readings[0, 1, 0, :4] = answer[0, 0, 0, :2] = 1
        # d(S, Y) = 0 and 1/2; d(Y, Y') = 0, 1/2, 1/2, 0
        assert energy_distance(answer, readings, [1]) == pytest.approx(2 * 0.25 - 0 - 0.25)

    def test_empty_masks_are_alike(self) -> None:
        nothing = np.zeros((1, 2, 4, 4), np.uint8)
        assert energy_distance(nothing, nothing, [1]) == 0

    def test_answers_that_vary_as_readers_do_are_nearer_than_the_majority(self) -> None:
        share = np.linspace(1, 0, 60)
        readings = np.stack([np.arange(60) < n for n in (10, 30, 50)])[None, :, None].astype(np.uint8)
        drawn = sample_readings(shares_of(share))
        assert energy_distance(drawn, readings, [1]) < energy_distance(majority(readings, 2), readings, [1])

    def test_samples_have_the_networks_probabilities(self) -> None:
        p = np.random.default_rng(0).dirichlet(np.ones(4), (2, 5, 5)).transpose(0, 3, 1, 2).astype(np.float32)
        drawn = sample_readings(p, 1000)
        for k in range(4):
            assert np.abs((drawn == k).mean(1) - p[:, k]).max() < 2e-3


class TestVolume:
    def test_expected_and_hard_volume_over_the_readers_mean(self) -> None:
        readings = np.zeros((1, 2, 1, 100), np.uint8)
        readings[0, 0, 0, :60] = readings[0, 1, 0, :20] = 1
        found = expected_volume(shares_of(np.r_[np.full(60, 0.4), np.zeros(40)]), readings, [1])
        assert found["readers"] == 40
        assert found["expected"] == pytest.approx(0.6)
        assert found["hard"] == 0

    def test_no_opacity_has_no_ratio(self) -> None:
        found = expected_volume(shares_of(np.zeros(5)), np.zeros((1, 2, 1, 5), np.uint8), [1])
        assert (found["expected"], found["hard"]) == (None, None)


class TestReaders:
    def test_true_reader_draws_what_is_there(self) -> None:
        specimen = make_specimen(0)
        readings = read_specimen(specimen, [Reader()], CLASSES, np.random.default_rng(0))
        expected = specimen.lungs.copy()
        for lesion in specimen.lesions:
            expected[lesion.where] = CLASSES[lesion.pattern]
        assert np.array_equal(readings[:, 0], expected)

    def test_generous_reader_draws_more_and_sparing_reader_less(self) -> None:
        panel = [Reader(4.0), Reader(), Reader(-4.0)]
        readings = read_specimen(make_specimen(0), panel, CLASSES, np.random.default_rng(0))
        large, true, small = ((readings[:, k] > 2) for k in range(3))
        assert large.sum() > 1.2 * true.sum() > 1.4 * small.sum()
        assert not (true & ~large).any()
        assert not (small & ~true).any()

    def test_missing_and_confusion_have_their_probabilities(self) -> None:
        specimen = make_specimen(0)
        swap = {name: {"consolidation": 0.3, name: 0.7} for name in PATTERNS if name != "consolidation"}
        panel = [Reader(missed=0.4, confusion=swap)] * 600
        readings = read_specimen(specimen, panel, CLASSES, np.random.default_rng(0))
        lesion = next(each for each in specimen.lesions if each.pattern != "consolidation")
        voxel = tuple(np.argwhere(lesion.where)[0])
        said = readings[voxel[0], :, voxel[1], voxel[2]]
        assert (said <= 2).mean() == pytest.approx(0.4, abs=0.07)
        assert (said == CLASSES["consolidation"]).mean() == pytest.approx(0.6 * 0.3, abs=0.06)

    def test_majority_takes_what_most_say(self) -> None:
        readings = np.array([[0, 1], [2, 1], [2, 0]], np.uint8).reshape(1, 3, 1, 2)
        assert majority(readings, 3).ravel().tolist() == [2, 1]

    @pytest.mark.parametrize(
        "changed", [{"missed": 1.2}, {"spread_mm": -1.0}, {"confusion": {"a": {"a": 0.5}}}]
    )
    def test_what_are_no_probabilities_is_refused(self, changed: dict[str, object]) -> None:
        with pytest.raises(ValueError, match="must"):
            Reader(**changed)  # type: ignore[arg-type]


class TestPhantoms:
    def test_same_seed_same_phantom_and_other_seed_another(self) -> None:
        one, same, other = (make_specimen(seed) for seed in (3, 3, 4))
        assert np.array_equal(one.hu, same.hu)
        assert not np.array_equal(one.hu, other.hu)

    def test_lesions_lie_in_one_lung_each_and_apart(self) -> None:
        specimen = make_specimen(5, lesions=(6, 8))
        assert len(specimen.lesions) > 1
        assert all(len(np.unique(specimen.lungs[lesion.where])) == 1 for lesion in specimen.lesions)
        assert np.sum([lesion.where for lesion in specimen.lesions], axis=0).max() == 1

    def test_nets_are_seen_in_every_lesion_and_are_finer_in_crazy_paving(self) -> None:
        dense = {}
        for pattern in PATTERNS[:3]:
            specimen = make_specimen(7, patterns=(pattern,), lesions=(5, 8))
            shares = [float((specimen.hu[lesion.where] > -400).mean()) for lesion in specimen.lesions]
            assert len(shares) > 1
            dense[pattern] = min(shares), max(shares)
        (_, glass), (least, most), (paved, _) = dense.values()
        assert glass < 0.02
        assert least > 0.1
        assert paved > 1.3 * most
