"""The network of the chest X-ray recipe: a graph that says what it should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from bedside_export.onnx import to_onnx
from bedside_export.recipes.cxr.data import Picture, Split
from bedside_export.recipes.cxr.exposure import Colours, Equalise
from bedside_export.recipes.cxr.network import MAP_SIZE, LungBox, SeverityNetwork, sampling_grid
from bedside_export.recipes.cxr.targets import INPUT, Arrays
from bedside_export.recipes.cxr.training import Recipe, train_network
from bedside_export.rounding import round_weights
from cxr_networks import smooth_pictures, untrained


@pytest.fixture(scope="module")
def network() -> SeverityNetwork:
    return untrained()


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return smooth_pictures()


class TestLungBox:
    def test_finds_a_synthetic_pair_of_lungs(self) -> None:
        mask = torch.zeros(1, 1, MAP_SIZE, MAP_SIZE)
        mask[..., 20:60, 16:34] = 1
        mask[..., 20:60, 46:64] = 1
        x, y, half_width, half_height = LungBox()(mask)[0].tolist()
        assert (x, y) == pytest.approx((0, 0), abs=0.01)
        assert half_width == pytest.approx(24 / 40 * 1.06, rel=0.03)
        assert half_height == pytest.approx(20 / 40 * 1.06, rel=0.03)

    def test_ignores_stray_cells(self) -> None:
        mask = torch.zeros(2, 1, MAP_SIZE, MAP_SIZE)
        mask[..., 30:60, 10:40] = 1
        mask[1, :, :3, -3:] = 1
        clean, stray = LungBox()(mask)
        assert torch.allclose(clean, stray, atol=0.03)

    @pytest.mark.parametrize("level", [0.0, 0.02, 1.0])
    def test_without_lungs_the_box_is_central(self, level: float) -> None:
        box = LungBox()(torch.full((1, 1, MAP_SIZE, MAP_SIZE), level))[0]
        assert torch.isfinite(box).all()
        assert box[:2].abs().max() < 0.01
        assert 0.7 < box[2:].min() <= box[2:].max() < 1.1


class TestNetwork:
    def test_equalised_picture_ignores_exposure(self, pictures: torch.Tensor) -> None:
        equalise = Equalise()
        out = equalise(pictures)
        assert out.min() >= 0
        assert out.max() <= 1 + 1e-5
        assert torch.allclose(out, equalise(pictures * 0.3 + 0.4), atol=0.02)

    def test_equalising_sums_ramps_as_its_layer_gives_them(self, pictures: torch.Tensor) -> None:
        equalise = Equalise()
        equalise.ramp.get_parameter("bias").data += 0.2  # not what it begins with
        scaled = (pictures - pictures.mean((2, 3), keepdim=True)) / 5
        scaled = scaled / pictures.std((2, 3), keepdim=True, correction=0) + 0.5
        ramps = equalise.ramp(scaled).clamp(0, 1)  # (N, bins, h, w)
        share = (ramps.mean((2, 3)) @ equalise.smooth + equalise.first).clamp(0, 3 / 16)
        expected = (ramps * (share / share.sum(1, keepdim=True))[..., None, None]).sum(1, keepdim=True)
        assert torch.allclose(equalise(pictures), expected, atol=1e-3)

    def test_haze_that_equalising_hides_is_still_seen(self, pictures: torch.Tensor) -> None:
        colours, equalise = Colours(), Equalise()
        clear, hazy = pictures, pictures * 0.4 + 0.5
        seen = [colours(equalise(p), p) for p in (clear, hazy)]
        assert torch.allclose(seen[0][:, 0], seen[1][:, 0], atol=0.1)
        assert torch.allclose(seen[1][:, 2], hazy[:, 0] * 4 - 2, atol=1e-5)
        assert torch.allclose(seen[0][:, 1], (seen[0][:, 0] + seen[0][:, 2]) / 2, atol=1e-5)

    def test_weights_of_other_colours_are_refused(self, network: SeverityNetwork) -> None:
        old = {k: v for k, v in network.state_dict().items() if "grey_share" not in k}
        with pytest.raises(RuntimeError, match="grey_share"):
            SeverityNetwork().load_state_dict(old)

    def test_blended_severity_is_the_mean_of_both_ways(self) -> None:
        torch.manual_seed(5)
        head = SeverityNetwork().head
        torch.nn.init.normal_(head.linear.weight, std=0.1)
        features = torch.rand(2, 1280, 7, 7)
        lines = ((0.47, 0.28), (0.28, 0.53))
        with torch.no_grad():
            before = head(features)
            head.blend(lines)
            after = head(features)
        brixia = before.zones.sum(1) * 3
        by_zones = torch.stack([brixia * slope + intercept for slope, intercept in lines], 1)
        assert torch.allclose(after.severity, (before.severity + by_zones) / 2, atol=1e-4)
        assert torch.allclose(after.crop_cam.mean((2, 3)) + head.bias, after.severity, atol=1e-4)
        assert torch.equal(after.zones, before.zones)

    def test_stretched_severity_keeps_its_place_on_the_line(self) -> None:
        torch.manual_seed(7)
        head = SeverityNetwork().head
        torch.nn.init.normal_(head.linear.weight, std=0.1)
        features = torch.rand(2, 1280, 7, 7, generator=torch.Generator().manual_seed(6))
        flat, steep = ((0.4, 0.5), (0.25, 0.6)), ((0.5, 0.1), (0.3, 0.4))
        with torch.no_grad():
            before = head(features)
            head.stretch(flat, steep)
            after = head(features)
        for i in range(2):
            brixia = (before.severity[:, i] - flat[i][1]) / flat[i][0]
            assert torch.allclose(after.severity[:, i], brixia * steep[i][0] + steep[i][1], atol=1e-4)
        assert torch.equal(after.zones, before.zones)

    def test_cam_averages_to_severity_less_bias(
        self, network: SeverityNetwork, pictures: torch.Tensor
    ) -> None:
        box = torch.tensor([[0.0, 0.0, 0.7, 0.6]]).repeat(3, 1)
        with torch.no_grad():
            seen = network.look(network.crop(pictures, box))
        assert torch.allclose(seen.crop_cam.mean((2, 3)), seen.severity - network.head.bias, atol=1e-4)

    def test_cam_is_zero_outside_the_box(self, network: SeverityNetwork) -> None:
        cam = network.uncrop(torch.ones(1, 2, 7, 7), torch.tensor([[0.0, 0.0, 0.5, 0.25]]))
        expected = torch.zeros_like(cam)
        expected[..., 30:50, 20:60] = 1
        assert torch.allclose(cam, expected, atol=1e-5)

    def test_uncropped_map_is_sampled_bilinearly_and_fades_at_the_edge(
        self, network: SeverityNetwork
    ) -> None:
        generator = torch.Generator().manual_seed(4)
        cam = torch.randn(64, 2, 7, 7, generator=generator)
        box = torch.rand(64, 4, generator=generator) * 1.2 - 0.6  # also partly outside the picture
        box[:, 2:] = box[:, 2:].abs().clamp(0.15)
        centre, half = box[:, None, None, :2], box[:, None, None, 2:]
        where = (sampling_grid(MAP_SIZE) - centre) / half
        inside = (0.5 + (1 - where.abs()) * half * (MAP_SIZE / 2)).clamp(0, 1).prod(3)
        sampled = torch.nn.functional.grid_sample(cam, where, padding_mode="border", align_corners=False)
        assert torch.allclose(network.uncrop(cam, box), sampled * inside.unsqueeze(1), atol=1e-5)

    def test_crop_is_sampled_bilinearly_and_black_outside(
        self, network: SeverityNetwork, pictures: torch.Tensor
    ) -> None:
        box = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.4, -0.3, 0.9, 0.5], [-0.2, 0.6, 0.15, 1.05]])
        affine = torch.cat([box[:, 2:].diag_embed(), box[:, :2, None]], 2)  # (N, 2, 3)
        grid = torch.nn.functional.affine_grid(affine, [3, 1, 224, 224], align_corners=False)
        expected = torch.nn.functional.grid_sample(pictures, grid, align_corners=False)
        assert torch.allclose(network.crop(pictures, box), expected, atol=1e-4)
        assert (expected[2] == 0).any()

    def test_crop_and_uncrop_agree_on_where_things_are(self, network: SeverityNetwork) -> None:
        box = torch.tensor([[0.2, -0.1, 0.5, 0.6]])
        spot = torch.tensor([[[[3, 5]]]]) / 3.5 - 6 / 7  # centre of column 3, row 5 of a 7x7 map
        marked = torch.zeros(1, 1, 7, 7)
        marked[0, 0, 5, 3] = 1
        row, column = divmod(int(network.uncrop(marked, box).argmax()), MAP_SIZE)
        there = spot[0, 0, 0] * box[0, 2:] + box[0, :2]
        found = sampling_grid(MAP_SIZE)[0, row, column]
        assert torch.allclose(found, there, atol=2 / MAP_SIZE)

    def test_folding_batch_norms_keeps_the_answer(
        self, network: SeverityNetwork, pictures: torch.Tensor
    ) -> None:
        folded = round_weights(network, bits=24)  # all that a float32 has
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
        with torch.no_grad():
            for ours, theirs in zip(network(pictures), folded(pictures), strict=True):
                assert torch.allclose(ours, theirs, atol=1e-3)

    @pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's exporter and its own deprecation
    def test_onnx_equals_torch_for_any_batch(
        self,
        network: SeverityNetwork,
        pictures: torch.Tensor,
    ) -> None:
        model = to_onnx(network, INPUT, ("severity", "cam", "lungs"))
        assert len(model) < 20e6
        assert {n.domain for n in onnx.load_from_string(model).graph.node} == {""}
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        assert [o.name for o in session.get_outputs()] == ["severity", "cam", "lungs"]
        with torch.no_grad():
            expected = network(pictures)
        for n in (1, 3):
            outputs = session.run(None, {"image": pictures[:n].numpy()})
            for ours, theirs, tolerance in zip(expected, outputs, (0.01, 0.05, 1e-4), strict=True):
                assert theirs.dtype == np.float32
                assert np.abs(ours[:n].numpy() - theirs).max() < tolerance

    def test_a_step_of_training_runs(self, pictures: torch.Tensor) -> None:
        learnt = tuple(Picture(f"{i}.jpg", str(i), "PA", (2.0, 1.0), (1.0,) * 6) for i in range(2))
        cells = torch.ones(2, 2, MAP_SIZE, MAP_SIZE)
        arrays = Arrays(("0.jpg", "1.jpg"), pictures[:2], cells, cells[:, :1] / 2)
        recipe = replace(Recipe(), finder_epochs=1, epochs=1, batch=2, imagenet=False)
        trained = train_network(Split(0, learnt, ()), arrays, recipe)
        again = train_network(Split(0, learnt, ()), arrays, recipe)
        assert not trained.training
        assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), again.parameters(), strict=True))
