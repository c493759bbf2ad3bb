"""Learning from several readers: more honest probabilities and volumes than from the majority's answer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bedside_export.ct_rules import TISSUES
from bedside_export.recipes.ct.augment import MIRRORED, SIDES, Distortion, Kinds, distort
from bedside_export.recipes.ct.soft import (
    PHANTOM_RECIPE,
    PHANTOM_TISSUES,
    Read,
    build_started,
    compare,
    describe,
    main,
    make_phantoms,
    to_majority,
)
from bedside_export.recipes.ct.trainer import soft_loss, to_shares
from made_masks import make_scan, write_nifti


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestLoss:
    kinds = Kinds.of(PHANTOM_TISSUES)

    def logits(self, shares: torch.Tensor) -> torch.Tensor:
        return shares.clamp(1e-6).log()

    @pytest.mark.parametrize("overlap", [0.0, 0.5])
    def test_readers_own_shares_are_best(self, overlap: float) -> None:
        readings = torch.randint(0, 4, (2, 3, 16, 16), generator=chance())
        shares = to_shares(readings, 4)
        best = float(soft_loss(self.logits(shares), shares, self.kinds, overlap=overlap))
        for seed in range(1, 6):
            other = self.logits(shares) + 0.5 * torch.randn(shares.shape, generator=chance(seed))
            assert float(soft_loss(other, shares, self.kinds, overlap=overlap)) > best

    def test_one_reader_is_the_usual_cross_entropy_and_soft_dice(self) -> None:
        labels = torch.randint(0, 4, (2, 16, 16), generator=chance())
        logits = torch.randn(2, 4, 16, 16, generator=chance(1))
        entropy = torch.nn.functional.cross_entropy(logits, labels)
        assert float(soft_loss(logits, to_shares(labels, 4), self.kinds, overlap=0)) == pytest.approx(
            float(entropy), rel=1e-5
        )
        losses = []
        for group in ([2, 3], [1, 2, 3]):
            p, t = logits.softmax(1)[:, group].sum(1), torch.isin(labels, torch.tensor(group)).float()
            losses.append(1 - (2 * (p * t).sum() + 100) / (p.sum() + t.sum() + 100))
        expected = float(entropy + 0.5 * sum(losses) / 2)
        assert float(soft_loss(logits, to_shares(labels, 4), self.kinds, overlap=0.5)) == pytest.approx(
            expected, rel=1e-4
        )


class TestReadings:
    def test_all_readings_of_a_slice_are_moved_alike(self) -> None:
        hu = torch.rand(3, 64, 64, generator=chance()) * 1000 - 900
        labels = torch.randint(0, 5, (3, 64, 64), generator=chance(1)).byte()
        both = torch.stack([labels, labels], 1)
        how = replace(Distortion(), nonsense=0.0)
        views, classes = distort(hu, labels, (64, 64), how, chance(2))
        again, pair = distort(hu, both, (64, 64), how, chance(2))
        assert torch.equal(views, again)
        assert torch.equal(pair[:, 0], classes)
        assert torch.equal(pair[:, 1], classes)

    def test_kinds_of_the_built_in_classes_are_its_own(self) -> None:
        assert Kinds.of(TISSUES["sides"]) == SIDES
        assert Kinds.of(TISSUES["l3-classes"]).mirrored == (0, 2, 1, 3, 4, 5, 6, 7, 8, 9, 10)
        assert SIDES.mirrored == MIRRORED

    def test_majority_is_one_reading(self) -> None:
        readings = torch.tensor([1, 2, 2], dtype=torch.uint8).reshape(1, 3, 1, 1)
        assert to_majority(Read(torch.zeros(1, 1, 1), readings), 4).readings.tolist() == [[[[2]]]]


@pytest.mark.slow
def test_soft_labels_are_better_calibrated_in_each_class_and_promise_the_readers_volume() -> None:
    """No better in the calibration of the likeliest class alone, mostly the background's (0.009, the majority's 0.005),
    nor in energy distance (0.258 and 0.251)."""
    learn, judge = make_phantoms(range(16)), make_phantoms(range(100, 104), times=4)
    measured, _ = compare(
        learn,
        judge,
        PHANTOM_TISSUES,
        replace(PHANTOM_RECIPE, steps=300),
        partial(build_started, PHANTOM_TISSUES),
    )
    soft, majority = measured["soft"], measured["majority"]
    assert soft["calibration"]["classwise_ece"] < 0.75 * majority["calibration"]["classwise_ece"]
    for kind in ("opacity", "consolidation"):
        assert soft["volume"][kind]["expected_off"] < majority["volume"][kind]["expected_off"]
    assert "calibration error (ECE)" in describe(measured)[1]


class TestCommand:
    def test_wants_phantoms_or_a_folder(self, tmp_path: Path) -> None:
        done = CliRunner().invoke(main, ["--out", str(tmp_path)])
        assert done.exit_code == 2
        assert "one of --masks FOLDER and --phantoms" in done.output

    def test_scans_with_one_reading_are_refused(self, tmp_path: Path) -> None:
        for seed, name in enumerate(("one", "two")):
            hu, labels = make_scan(seed)
            write_nifti(tmp_path / f"{name}.nii", hu)
            write_nifti(tmp_path / f"{name}-labels.nii", np.minimum(labels, 4))
        done = CliRunner().invoke(main, ["--masks", str(tmp_path), "--out", str(tmp_path / "out")])
        assert done.exit_code == 1
        assert "case 1 has one reading (2 such cases)" in done.output
