"""Opacity that experts drew: read in the input square's coordinates, and learnt from where it is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from bedside_export.recipes.cxr.augment import Distortion, distorted_grid
from bedside_export.recipes.cxr.data import Collection, DataError, Picture, Split
from bedside_export.recipes.cxr.learnt import severity_pictures, severity_targets
from bedside_export.recipes.cxr.network import MAP_SIZE, SeverityNetwork, sampling_grid
from bedside_export.recipes.cxr.opacity import OpacityHeads, features_of, opacity_of, read_opacity_masks
from bedside_export.recipes.cxr.targets import Arrays


class TestMasks:
    @staticmethod
    def collection(root: Path, *, mask_size: tuple[int, int] = (240, 160)) -> Collection:
        """Three pictures of 240x160: one with a mask of its upper half, one of lungs without opacity, one without."""
        for folder in ("images", "masks"):
            (root / folder).mkdir()
        for name in "abc":
            Image.new("L", (240, 160), 90).save(root / "images" / f"{name}.jpg")
        for name in "ab":
            Image.new("L", (240, 160), 255).save(root / "masks" / f"{name}-lung.png")
        drawn = Image.new("L", mask_size)
        drawn.paste(255, (0, 0, mask_size[0], mask_size[1] // 2))
        drawn.save(root / "masks" / "a-ggo.png")
        return Collection(root, tuple(Picture(f"{n}.jpg", n, "PA") for n in "abc"))

    def test_masks_are_shares_of_the_input_squares_cells(self, tmp_path: Path) -> None:
        masks = read_opacity_masks(self.collection(tmp_path))
        assert masks.keys() == {"a.jpg", "b.jpg"}
        # 40 rows of black above the picture of 240x160, then 80 opaque: of 80 cells, 13 1/3 to 40
        assert masks["a.jpg"].mean(1)[[12, 13, 14, 39, 40]].tolist() == pytest.approx(
            [0, 2 / 3, 1, 1, 0], abs=0.01
        )
        assert masks["b.jpg"].max() == 0

    def test_mask_of_another_size_is_refused_without_its_name(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="not of its picture's size") as caught:
            read_opacity_masks(self.collection(tmp_path, mask_size=(120, 80)))
        assert "a-ggo" not in str(caught.value)

    def test_masks_follow_the_mirrored_crop(self) -> None:
        masks = torch.rand(1, 1, MAP_SIZE, MAP_SIZE, generator=torch.Generator().manual_seed(0))
        still = Distortion(shift=0, scale=0, rotation=0)
        box = torch.tensor([[0.0, 0.0, 0.8, 0.8]])
        plain, mirrored = (
            opacity_of(
                masks,
                distorted_grid(sampling_grid(224), box, torch.tensor([flip]), still, torch.Generator())[
                    :, 2:, 2:
                ],
            )
            for flip in (False, True)
        )
        assert plain.shape == (1, 1, 56, 56)
        assert torch.nn.functional.l1_loss(plain[..., 1:].flip(3), mirrored[..., :-1]) < 0.1
        assert torch.nn.functional.l1_loss(plain, mirrored) > 0.2


class TestHeads:
    def test_pictures_without_masks_teach_nothing(self) -> None:
        heads, generator = OpacityHeads(), torch.Generator().manual_seed(3)
        features = (
            torch.rand(2, 112, 14, 14, generator=generator),
            torch.rand(2, 1280, 7, 7, generator=generator),
        )
        truth = torch.ones(2, 1, 56, 56)
        nobody = heads.loss(features, truth, torch.zeros(2))
        one = heads.loss(features, truth, torch.tensor([1.0, 0.0]))
        same = heads.loss(
            features, truth * torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1), torch.tensor([1.0, 0.0])
        )
        assert nobody == 0 < one
        assert torch.equal(one, same)

    def test_features_half_way_are_those_of_the_network(self) -> None:
        torch.manual_seed(4)
        network = SeverityNetwork().eval()
        crop = torch.rand(1, 3, 224, 224) * 4 - 2
        with torch.no_grad():
            middle, features = features_of(network, crop, frozen=3, half=False)
            assert torch.allclose(features, network.features(crop), atol=1e-4)
        assert middle.shape == (1, 112, 14, 14)

    def test_a_picture_with_masks_alone_is_learnt_from(self) -> None:
        masked, unknown = Picture("m.jpg", "m", "PA"), Picture("u.jpg", "u", "PA")
        opacity = torch.stack([torch.zeros(1, MAP_SIZE, MAP_SIZE), torch.full((1, MAP_SIZE, MAP_SIZE), -1.0)])
        squares = torch.zeros(2, 1, 320, 320)
        arrays = Arrays(("m.jpg", "u.jpg"), squares, torch.zeros(2, 2, MAP_SIZE, MAP_SIZE), opacity)
        assert severity_pictures(Split(0, (masked, unknown), ()), arrays) == [masked]
        targets = severity_targets([masked], 1.0)
        assert targets.severity_weight.item() == targets.zones_weight.item() == 0
