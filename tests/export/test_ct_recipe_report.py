"""What the CT recipe measures of a network, on synthetic slices and on the scans of ct/lung-field."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bedside_export.recipes.ct import report
from bedside_export.recipes.ct.augment import MIRRORED
from bedside_export.recipes.ct.data import Case
from bedside_export.recipes.ct.lungs import CLASSES, LEFT, LEFT_OPACITY, RIGHT, RIGHT_OPACITY
from bedside_export.recipes.ct.network import OpacityNetwork, build_network
from bedside_export.recipes.ct.opacity import measure_field

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(
    not (SHARED / "ct" / "lung-field").is_dir(), reason="no ../shared/data/ct/lung-field"
)


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def network() -> OpacityNetwork:
    torch.manual_seed(0)
    return build_network().eval()


class DarkInside(nn.Module):
    """Calls right lung what is dark and away from the edge, and opacity what is half dark."""

    context = 0

    def forward(self, picture: Tensor) -> Tensor:
        inside = torch.zeros_like(picture[:, 0], dtype=torch.bool)
        inside[:, 60:-60, 60:-60] = True
        hu = picture[:, 0] * 600 - 400
        logits = torch.zeros(len(picture), len(CLASSES), *picture.shape[2:])
        logits[:, RIGHT] = (inside & (hu < -500)).float() * 9
        logits[:, RIGHT_OPACITY] = (inside & (hu < -500) & (hu > -700)).float() * 18
        return logits


class TestReport:
    @staticmethod
    def case() -> tuple[Case, np.ndarray]:
        labels = np.zeros((2, 256, 256), np.uint8)
        labels[:, 60:200, 150:200], labels[:, 60:200, 60:110] = LEFT, RIGHT
        labels[0, 160:200, 150:200] = LEFT_OPACITY
        return Case("001", np.zeros((2, 256, 256), np.float32), labels[:, ::2, ::2] >= LEFT_OPACITY), labels

    def test_truth_measures_as_perfect(self) -> None:
        case, truth = self.case()
        coarse = truth[:, ::2, ::2]
        found = report.Found(truth, coarse, (coarse >= LEFT_OPACITY).astype(np.float32))
        measured = report.measure_case(case, truth, found)
        ones = (
            "opacity_dice",
            "lung_dice",
            "left_lung_dice",
            "hard_volume_over_true",
            "expected_volume_over_true",
        )
        assert [measured[k] for k in ones] == [1.0] * len(ones)
        assert measured["wrong_side_share"] == 0
        assert measured["opacity_in_slices_without_share"] == {"slices": 1, "of_their_lung": 0.0}

    def test_half_of_the_opacity_found(self) -> None:
        case, truth = self.case()
        half = truth.copy()
        half[0, 180:200, 150:200] = LEFT
        coarse = half[:, ::2, ::2]
        found = report.Found(half, coarse, np.where(case.opacity, np.float32(0.25), np.float32(0)))
        measured = report.measure_case(case, truth, found)
        assert measured["opacity_dice"] == pytest.approx(2 / 3)
        assert measured["hard_volume_over_true"] == pytest.approx(0.5)
        assert measured["expected_volume_over_true"] == pytest.approx(0.25)
        assert measured["lung_dice"] == 1

    def test_swapped_sides_are_counted(self) -> None:
        case, truth = self.case()
        swapped = np.asarray(MIRRORED, np.uint8)[truth]
        found = report.Found(swapped, swapped[:, ::2, ::2], case.opacity.astype(np.float32))
        measured = report.measure_case(case, truth, found)
        assert measured["wrong_side_share"] == 1
        assert measured["lung_dice"] == 1
        assert measured["left_lung_dice"] == 0

    def test_empty_masks_have_no_dice(self) -> None:
        nothing = np.zeros((1, 2, 2), bool)
        assert report.dice(nothing, nothing) is None
        assert report.dice(nothing, ~nothing) == 0

    def test_interval_is_the_extremes_with_the_level_that_so_many_support(self) -> None:
        found = report.interval([0.5, 0.8, 1.25, 1.0, 1.0, 1.0, 1.0], "measured")
        assert (found["low"], found["high"], found["level"]) == (0.8, 2.0, 0.75)
        # Seven draws and an eighth of the same kind: it is neither least nor greatest in 6 of 8 orders.
        draws = np.random.default_rng(0).normal(size=(4000, 8))
        inside = (draws[:, 7] > draws[:, :7].min(1)) & (draws[:, 7] < draws[:, :7].max(1))
        assert inside.mean() == pytest.approx(found["level"], abs=0.03)

    def test_interval_takes_in_the_answer_itself(self) -> None:
        found = report.interval([0.5, 0.8], "measured")
        assert (found["low"], found["high"]) == (1.0, 2.0)

    def test_confusion_and_reliability_count_voxels(self) -> None:
        truth, found = np.array([0, 0, 4, 4], np.uint8), np.array([0, 2, 4, 2], np.uint8)
        counts = report.cross_tabulate(truth, found)
        assert counts.sum() == 4
        assert (counts[0, 0], counts[0, 2], counts[4, 2], counts[4, 4]) == (1, 1, 1, 1)
        rows = report.share_rows(counts.T)
        assert rows[2] == [0.5, 0, 0, 0, 0.5]
        assert rows[1] == [0, 1, 0, 0, 0]
        bins = report.reliability(np.array([0.05, 0.95, 1.0], np.float32), np.array([False, True, False]))
        assert bins[0].tolist() == [1, 0]
        assert bins[9].tolist() == [2, 1]

    def test_what_is_found_does_not_depend_on_how_slices_are_grouped(self, network: OpacityNetwork) -> None:
        hu = torch.rand(9, 64, 64, generator=chance()) * 1200 - 1000
        whole = report.find(network, hu)
        assert whole.labels.shape == (9, 64, 64)
        assert whole.coarse.shape == whole.opacity.shape == (9, 32, 32)
        alone = report.find(network, hu[8:])
        assert np.allclose(whole.opacity[8:], alone.opacity, atol=1e-5)


def test_metrics_can_be_written_as_json(tmp_path: Path) -> None:
    case, truth = TestReport.case()
    coarse = truth[:, ::2, ::2]
    found = report.Found(truth, coarse, case.opacity.astype(np.float32))
    measured = [{**report.measure_case(case, truth, found), "case": n} for n in ("001", "002")]
    summary = report.summarise(
        measured, report.cross_tabulate(truth, truth), report.reliability(found.opacity, case.opacity)
    )
    (tmp_path / "metrics.json").write_text(json.dumps(summary), encoding="utf-8")
    assert summary["over_cases"]["opacity_dice"]["mean"] == 1
    assert np.allclose(np.sum(summary["confusion"]["true_given_found"], axis=1), 1)


@needs_data
def test_field_is_measured_at_the_networks_pixels() -> None:
    measured = measure_field(SHARED, DarkInside())  # type: ignore[arg-type]
    assert measured.keys() == {"id001", "id002"}
    for scan in measured.values():
        assert 0.5 < scan["lung_dice"] < 0.95
        assert 0 < scan["opacity_share_of_lung"] < 0.2
        assert 0 < scan["lung_around_the_body_share"] < 0.5  # it calls dark air around the body lung, too
