"""What the chest X-ray recipe learns: scores, zones, and squares of pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bedside_export.recipes.cxr.augment import Distortion, distorted_grid, flip_zones
from bedside_export.recipes.cxr.data import Collection, Picture, read_collection
from bedside_export.recipes.cxr.learnt import derive_severity, relate_severity, severity_targets
from bedside_export.recipes.cxr.network import SCALES, SeverityNetwork
from bedside_export.recipes.cxr.targets import input_square, place
from cxr_networks import SHARED, needs_data, smooth_pictures, untrained


@pytest.fixture(scope="module")
def network() -> SeverityNetwork:
    return untrained()


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return smooth_pictures()


@pytest.fixture(scope="module")
def collection() -> Collection:
    return read_collection(SHARED)


class TestTargets:
    def test_flip_swaps_right_and_left_zones(self) -> None:
        rows = torch.tensor([[1.0, 2, 3, 4, 5, 6]])
        assert flip_zones(rows).tolist() == [[2, 1, 4, 3, 6, 5]]
        assert torch.equal(flip_zones(flip_zones(rows)), rows)

    def test_flipped_crop_is_the_mirror_image(self, network: SeverityNetwork, pictures: torch.Tensor) -> None:
        still = Distortion(shift=0, scale=0, rotation=0)
        box = torch.tensor([[0.1, -0.1, 0.6, 0.5]]).repeat(3, 1)
        crops = [
            torch.nn.functional.grid_sample(
                pictures,
                distorted_grid(network.crop_grid, box, torch.full((3,), flip), still, torch.Generator()),
                align_corners=False,
            )
            for flip in (False, True)
        ]
        assert torch.allclose(crops[0], network.crop(pictures, box), atol=1e-5)
        assert torch.allclose(crops[0].flip(3), crops[1], atol=1e-4)

    def test_zones_follow_the_features_when_flipped(self, network: SeverityNetwork) -> None:
        features = torch.rand(2, 1280, 7, 7, generator=torch.Generator().manual_seed(2))
        seen, mirrored = network.head(features), network.head(features.flip(3))
        assert torch.allclose(flip_zones(seen.zones), mirrored.zones, atol=1e-5)
        assert torch.allclose(seen.severity, mirrored.severity, atol=1e-4)

    def test_experts_outweigh_derived_scores(self) -> None:
        scored = [Picture(f"{i}.jpg", str(i), "PA", (i / 2, i / 4), (i / 4,) * 6) for i in range(1, 5)]
        brixia_only = Picture("b.jpg", "b", "AP", None, (2.0,) * 6)
        targets = severity_targets([*scored, brixia_only], 0.5)
        assert targets.severity_weight.ravel().tolist() == [1, 1, 1, 1, 0.5]
        assert targets.severity[-1].tolist() == pytest.approx([4 / SCALES[0], 2 / SCALES[1]], abs=1e-5)
        assert targets.zones[-1].tolist() == pytest.approx([2 / 3] * 6)

    def test_derived_scores_come_from_the_pictures_given(self) -> None:
        line = derive_severity(
            [Picture(str(i), str(i), "PA", (i, 2.0 * i), (i / 2,) * 6) for i in range(1, 4)]
        )
        assert np.allclose(line, ((1 / 3, 0), (2 / 3, 0)), atol=1e-9)

    def test_major_axis_is_steeper_than_least_squares_and_through_the_mean(self) -> None:
        noisy = [
            Picture(str(i), str(i), "PA", (extent, extent / 2), (zone,) * 6)
            for i, (zone, extent) in enumerate([(0.0, 1.0), (1.0, 0.0), (2.0, 6.0), (3.0, 5.0)])
        ]
        for (slope, intercept), (flat, base), mean in zip(
            relate_severity(noisy), derive_severity(noisy), (3.0, 1.5), strict=True
        ):
            # covariance 13.5, deviations sqrt(45) and sqrt(6.5): least squares is flatter by the correlation
            assert flat / slope == pytest.approx(13.5 / np.sqrt(45 * 6.5))
            assert slope * 9 + intercept == pytest.approx(flat * 9 + base) == pytest.approx(mean)

    def test_too_few_pictures_with_both_scores_fall_back_to_the_scales(self) -> None:
        alone = [Picture("a", "a", "PA", (1.0, 1.0), None), Picture("b", "b", "PA", None, (1.0,) * 6)]
        assert relate_severity(alone) == derive_severity(alone) == ((8 / 18, 0), (6 / 18, 0))

    def test_odd_padding_goes_right_and_below(self) -> None:
        square = place(np.ones((2, 5), dtype=np.float32))
        assert square.sum(1).tolist() == [0, 5, 5, 0, 0]

    @needs_data
    def test_square_of_a_picture(self, collection: Collection) -> None:
        square = input_square(collection.grey(collection.pictures[0]))
        assert square.shape == (320, 320)
        assert square.dtype == np.float32
        assert 0 <= square.min() < square.max() <= 1
