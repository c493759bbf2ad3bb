"""The CT recipe's network, distortions and training, on synthetic slices."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner

from bedside.bundle import Input
from bedside_export.onnx import to_onnx
from bedside_export.recipes.ct import report
from bedside_export.recipes.ct.augment import MIRRORED, Distortion, consolidate, distort, fade, place
from bedside_export.recipes.ct.data import AIR_HU, DataError, Fold
from bedside_export.recipes.ct.inference import find_shares
from bedside_export.recipes.ct.lungs import CLASSES, LEFT, LEFT_OPACITY, RIGHT, RIGHT_OPACITY
from bedside_export.recipes.ct.neighbours import gather_neighbours
from bedside_export.recipes.ct.network import STRIDE, WINDOW_HU, OpacityNetwork, build_network, to_input
from bedside_export.recipes.ct.opacity import Store, main, train_fold
from bedside_export.recipes.ct.surroundings import find_surroundings, lay_bedding
from bedside_export.recipes.ct.training import Arrays, Recipe, draw_weights, overlap_loss, train_network

STILL = Distortion(
    shift=0,
    scale=0,
    stretch=0,
    rotation=0,
    mirror=0,
    crop=0,
    level=0,
    contrast=0,
    density=0,
    sharpness=0,
    noise=0,
    consolidation=0,
    faint=0,
    bedding=0,
    nonsense=0,
)


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def slices() -> tuple[torch.Tensor, torch.Tensor]:
    """HU and classes ``(4, 256, 256)``: two lungs, opacity low in both."""
    hu, labels = torch.full((4, 256, 256), 40.0), torch.zeros(4, 256, 256, dtype=torch.uint8)
    for lung, dense, left in ((RIGHT, RIGHT_OPACITY, 60), (LEFT, LEFT_OPACITY, 150)):
        hu[:, 60:200, left : left + 50], labels[:, 60:200, left : left + 50] = -850, lung
        hu[:, 160:200, left : left + 50], labels[:, 160:200, left : left + 50] = -400, dense
    hu[:, :30] = hu[:, 230:] = AIR_HU
    return hu, labels


@pytest.fixture(scope="module")
def network() -> OpacityNetwork:
    torch.manual_seed(0)
    return build_network().eval()


class TestDistortion:
    def test_without_distortion_a_whole_view_is_the_slice(
        self, slices: tuple[torch.Tensor, torch.Tensor]
    ) -> None:
        views, classes = place(*slices, (256, 256), STILL, chance())
        assert torch.allclose(views[:, 0], slices[0], atol=0.1)
        assert torch.equal(classes, slices[1].long())

    def test_mirrored_slice_swaps_the_sides(self, slices: tuple[torch.Tensor, torch.Tensor]) -> None:
        views, classes = place(*slices, (256, 256), replace(STILL, mirror=1), chance())
        assert torch.allclose(views[:, 0], slices[0].flip(2), atol=0.1)
        assert torch.equal(classes, torch.tensor(MIRRORED)[slices[1].long()].flip(2))
        columns = torch.arange(256.0).expand(4, 256, 256)
        assert columns[classes == LEFT].mean() > columns[classes == RIGHT].mean()

    def test_outside_the_slice_is_air_and_background(self, slices: tuple[torch.Tensor, torch.Tensor]) -> None:
        hu, labels = torch.full_like(slices[0], 40), torch.full_like(slices[1], LEFT)
        views, classes = place(hu, labels, (256, 256), replace(STILL, shift=0.5), chance(1))
        assert (classes == 0).any()
        assert (views[:, 0][classes == 0] < 40).all()
        assert (views[:, 0] == AIR_HU).any()

    def test_labels_stay_on_their_tissue(self, slices: tuple[torch.Tensor, torch.Tensor]) -> None:
        how = replace(Distortion(), level=0, contrast=0, density=0, noise=0, nonsense=0, consolidation=0)
        views, classes = place(*slices, (192, 192), how, chance(2))
        for of, hu in ((0, 40), (LEFT, -850), (RIGHT, -850), (LEFT_OPACITY, -400), (RIGHT_OPACITY, -400)):
            values = views[:, 0][classes == of]
            near = ((values - hu).abs() < 30).float().mean()
            assert near > (0.5 if of == 0 else 0.9)  # air is background, too

    def test_consolidation_touches_opacity_only_and_makes_it_denser(
        self, slices: tuple[torch.Tensor, torch.Tensor]
    ) -> None:
        hu, labels = slices[0][:, None], slices[1].long()
        denser = consolidate(hu, labels, replace(STILL, consolidation=1), chance())
        opacity = labels >= LEFT_OPACITY
        assert torch.equal(denser[:, 0][~opacity], hu[:, 0][~opacity])
        change = (denser - hu)[:, 0][opacity]
        assert change.min() >= 0
        assert change.mean() > 50
        assert denser[:, 0][opacity].max() <= 40 + 1e-3

    def test_fading_touches_opacity_only_and_makes_it_fainter_but_not_clearer_than_lung(
        self, slices: tuple[torch.Tensor, torch.Tensor]
    ) -> None:
        hu, labels = slices
        faded = fade(hu[:, None], labels.long(), Distortion(faint=1.0), chance(3))[:, 0]
        opacity = labels >= LEFT_OPACITY
        assert torch.equal(faded[~opacity], hu[~opacity])
        assert (faded <= hu + 1e-3).all()
        assert faded[opacity].mean() < hu[opacity].mean() - 20
        clear = hu[(labels > 0) & ~opacity & (hu < -600)].mean()
        assert faded[opacity].mean() > clear

    def test_fading_leaves_vessels_in_ground_glass(self) -> None:
        hu = torch.full((1, 1, 64, 64), -850.0)
        hu[..., 16:48, 16:48] = -500.0
        hu[..., 30:33, 16:48] = 0.0  # three pixels thick
        labels = torch.ones((1, 64, 64), dtype=torch.long)
        labels[:, 16:48, 16:48] = LEFT_OPACITY
        faded = fade(hu, labels, Distortion(faint=1.0), chance(1))
        taken = (hu - faded)[0, 0]
        assert taken[24, 32] > 10
        assert float(taken[31, 32]) == pytest.approx(float(taken[25, 32]), rel=0.25)
        assert faded[0, 0, 31, 32] - faded[0, 0, 24, 32] == pytest.approx(500, rel=0.2)

    def test_nonsense_has_no_lung(self, slices: tuple[torch.Tensor, torch.Tensor]) -> None:
        _, classes = distort(*slices, (192, 256), replace(STILL, nonsense=1), chance())
        assert not classes.any()

    def test_same_seed_same_slices(self, slices: tuple[torch.Tensor, torch.Tensor]) -> None:
        first, second = (distort(*slices, (192, 256), Distortion(), chance(3)) for _ in range(2))
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])


class TestNetwork:
    def test_window_maps_to_its_ends(self) -> None:
        hu = torch.tensor([-2000.0, WINDOW_HU[0], sum(WINDOW_HU) / 2, WINDOW_HU[1], 3000.0])
        assert to_input(hu).tolist() == pytest.approx([-1, -1, 0, 1, 1])

    def test_is_small(self, network: OpacityNetwork) -> None:
        assert sum(p.numel() for p in network.parameters()) * 4 < 10e6

    @pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's exporter and its own deprecation
    def test_onnx_equals_torch_at_any_size(self, network: OpacityNetwork) -> None:
        spec = Input("slices", (None, 1, None, None), low=-1.0, high=1.0, outside=-1.0, hu_window=WINDOW_HU)
        model = to_onnx(network, spec, ("logits",), tile=(64, 64), multiple=STRIDE)
        assert len(model) < 10e6
        kinds = {n.op_type for n in onnx.load_from_string(model).graph.node}
        assert kinds <= {
            "Conv",
            "Clip",
            "Relu",
            "Add",
            "Resize",
            "Pad",
            "Concat",
            "Shape",
            "Gather",
            "Constant",
        }
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        for shape in ((1, 1, 64, 96), (3, 1, 96, 64)):
            x = torch.rand(shape, generator=chance()) * 2 - 1
            (found,) = session.run(None, {"slices": x.numpy()})
            assert found.shape == (shape[0], len(CLASSES), *shape[2:])
            with torch.no_grad():
                assert np.abs(network(x).numpy() - found).max() < 1e-4

    def test_side_is_one_question_for_lung_and_opacity(self, network: OpacityNetwork) -> None:
        with torch.no_grad():
            y = network(torch.rand(1, 1, 64, 64, generator=chance()))
        assert torch.allclose(y[:, LEFT] - y[:, RIGHT], y[:, LEFT_OPACITY] - y[:, RIGHT_OPACITY], atol=1e-5)


class TestSurroundings:
    def test_air_is_seen_from_a_side_and_lungs_are_not(
        self, slices: tuple[torch.Tensor, torch.Tensor]
    ) -> None:
        hu, labels = slices
        seen = find_surroundings(hu[:, None])[:, 0]
        assert torch.equal(seen, hu == AIR_HU)
        assert not seen[labels > 0].any()

    def test_bedding_is_painted_around_the_body_alone(
        self, slices: tuple[torch.Tensor, torch.Tensor]
    ) -> None:
        hu, labels = slices
        painted = lay_bedding(hu[:, None].expand(-1, 3, -1, -1), labels.long(), 1.0, chance(2))
        air = (hu == AIR_HU)[:, None].expand_as(painted)
        assert torch.equal(painted[~air], hu[:, None].expand_as(painted)[~air])
        assert (painted[air] >= AIR_HU).all()
        for picture, around in zip(painted, air, strict=True):
            assert -990 < float(picture[around].max()) < 0

    def test_lung_that_the_picture_cuts_is_not_painted_over(
        self, slices: tuple[torch.Tensor, torch.Tensor]
    ) -> None:
        hu, labels = (each[:, 60:200, 60:110] for each in slices)  # nothing but a lung
        assert find_surroundings(hu[:, None]).any()
        assert torch.equal(lay_bedding(hu[:, None], labels.long(), 1.0, chance())[:, 0], hu)

    def test_share_says_how_many_slices_are_painted(self, slices: tuple[torch.Tensor, torch.Tensor]) -> None:
        hu, labels = (each[:1].expand(200, -1, -1)[:, ::8, ::8] for each in slices)
        painted = lay_bedding(hu[:, None], labels.long(), 0.25, chance())
        assert 30 < int((painted[:, 0] != hu).flatten(1).any(1).sum()) < 70


class TestNeighbours:
    def test_slices_at_the_ends_stand_in_for_those_beyond(self) -> None:
        hu = torch.arange(4.0)[:, None, None].expand(4, 2, 2)
        found = gather_neighbours(hu, torch.tensor([0, 2, 3]), 1)
        assert found.shape == (3, 3, 2, 2)
        assert found[:, :, 0, 0].tolist() == [[0, 0, 1], [1, 2, 3], [2, 3, 3]]

    def test_cases_in_a_row_keep_to_themselves_and_steps_are_in_slices(self) -> None:
        hu = torch.arange(6.0)[:, None, None]
        ends = torch.tensor([0, 0, 3]), torch.tensor([2, 2, 5])
        rows, steps = torch.tensor([1, 2, 3]), torch.tensor([0, 2, 1])
        found = gather_neighbours(hu, rows, 1, steps=steps, ends=ends)
        assert found[:, :, 0, 0].tolist() == [[1, 1, 1], [0, 2, 2], [3, 3, 4]]

    def test_neighbours_are_distorted_alike(self, slices: tuple[torch.Tensor, torch.Tensor]) -> None:
        hu, labels = slices
        how = replace(Distortion(), noise=0, bedding=0)
        stacks = hu[:, None].expand(-1, 3, -1, -1)
        views, classes = distort(stacks, labels, (96, 96), how, chance(5))
        assert views.shape == (4, 3, 96, 96)
        assert classes.shape == (4, 96, 96)
        assert torch.allclose(views[:, 0], views[:, 2])

    def test_network_alone_answers_as_with_itself_for_neighbours(self) -> None:
        torch.manual_seed(1)
        network = build_network(2).eval()
        slices = torch.rand(2, 1, 64, 96) * 2 - 1
        alone = network.alone()
        assert (network.context, alone.context, build_network().alone().context) == (2, 0, 0)
        assert torch.allclose(alone(slices), network(slices.expand(-1, 5, -1, -1)), atol=1e-4)

    def test_network_learns_with_neighbours_and_finds_with_them(
        self, slices: tuple[torch.Tensor, torch.Tensor]
    ) -> None:
        mine = Arrays(slices[0].short(), slices[1])
        recipe = replace(Recipe(), steps=1, batch=2, context=1)
        network = train_network(Fold(("001",), None), {"001": mine}, recipe, imagenet=False)
        found = report.find(network, mine.hu[:2].float())
        assert found.labels.shape == (2, 256, 256)
        assert network.context == 1
        shares = torch.cat(list(find_shares(network, mine.hu[:3], to_input, multiple=STRIDE, context=1)))
        some = find_shares(network, mine.hu[:3], to_input, multiple=STRIDE, context=1, rows=torch.tensor([2]))
        assert torch.allclose(shares[2:], next(some), atol=1e-5)


class TestTraining:
    def test_overlap_loss_of_the_truth_is_nought(self, slices: tuple[torch.Tensor, torch.Tensor]) -> None:
        labels = slices[1].long()
        logits = 50.0 * torch.nn.functional.one_hot(labels, len(CLASSES)).permute(0, 3, 1, 2).float()
        assert float(overlap_loss(logits, labels)) < 1e-3
        assert float(overlap_loss(-logits, labels)) > 0.5

    def test_cases_are_drawn_equally_often_however_many_slices_they_have(self) -> None:
        few, many = torch.ones(2, 4, 4), torch.ones(30, 4, 4)
        weights = draw_weights([few, many], Recipe(even=True))
        assert float(weights[:2].sum()) == pytest.approx(float(weights[2:].sum()))
        assert float(draw_weights([few, many], Recipe(even=False))[:2].sum()) == 2.0

    def test_a_step_learns_only_from_the_fold_and_repeats(
        self, slices: tuple[torch.Tensor, torch.Tensor]
    ) -> None:
        mine = Arrays(slices[0].short(), slices[1])
        recipe = replace(Recipe(), steps=2, batch=2)
        first, second = (
            train_network(Fold(("001",), "002"), {"001": mine}, recipe, imagenet=False) for _ in range(2)
        )
        assert not first.training
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
        start = build_network()
        assert torch.equal(first.sides.weight, start.sides.weight)

    def test_fold_that_is_there_by_the_same_recipe_is_not_trained_again(self, tmp_path: Path) -> None:
        recipe = replace(Recipe(), context=1)
        torch.save(build_network().state_dict(), tmp_path / "network.pt")
        notes = {"recipe": json.loads(json.dumps(asdict(recipe))), "seconds": 7.0}
        (tmp_path / "training.json").write_text(json.dumps(notes))
        nothing = Store(tmp_path / "no data")
        network, seconds = train_fold(Fold(("001",), "002"), nothing, tmp_path, recipe)
        assert (network.context, seconds) == (0, 7.0)
        with pytest.raises(DataError):
            train_fold(Fold(("001",), "002"), nothing, tmp_path, replace(recipe, steps=1))


class TestCommand:
    def test_needs_a_folder_to_write_to(self) -> None:
        done = CliRunner().invoke(main, ["train"])
        assert done.exit_code == 2
        assert "--out" in done.output

    def test_refuses_a_case_that_is_not_there(self) -> None:
        assert CliRunner().invoke(main, ["evaluate", "--cases", "008"]).exit_code == 2
