"""The chest X-ray recipe: who may be learnt from, and a graph that says what it should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from bedside_export.onnx import to_onnx
from bedside_export.recipes.cxr import report
from bedside_export.recipes.cxr.augment import Distortion, distorted_grid, flip_zones
from bedside_export.recipes.cxr.data import (
    NEAR_DUPLICATE,
    OTHER_HALF,
    Collection,
    DataError,
    Float,
    LeakError,
    Picture,
    Split,
    group_shuffle_split,
    held_out_patients,
    mend_patient,
    read_collection,
    read_thumbnails,
    split,
)
from bedside_export.recipes.cxr.exposure import Colours, Equalise
from bedside_export.recipes.cxr.learnt import derive_severity, relate_severity, severity_targets
from bedside_export.recipes.cxr.network import (
    MAP_SIZE,
    SCALES,
    LungBox,
    SeverityNetwork,
    sampling_grid,
)
from bedside_export.recipes.cxr.targets import INPUT, Arrays, input_square, place
from bedside_export.recipes.cxr.training import (
    Recipe,
    train_finder,
    train_network,
    train_severity,
)
from bedside_export.rounding import round_weights

SHARED = Path(__file__).parents[3] / "shared" / "data"

needs_data = pytest.mark.skipif(not (SHARED / "cxr").is_dir(), reason="needs ../shared/data/cxr")


@pytest.fixture(scope="module")
def network() -> SeverityNetwork:
    """An untrained network whose outputs are far from 0."""
    torch.manual_seed(0)
    network = SeverityNetwork()
    torch.nn.init.normal_(network.head.linear.weight, std=0.5)
    return network.eval()


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """Three smooth pictures ``(3, 1, 320, 320)``, 0 to 1."""
    noise = torch.rand(3, 1, 320, 320, generator=torch.Generator().manual_seed(1))
    smooth = torch.nn.functional.avg_pool2d(noise, 21, 1, 10)
    return (smooth - smooth.min()) / (smooth.max() - smooth.min())


@pytest.fixture(scope="module")
def collection() -> Collection:
    return read_collection(SHARED)


@pytest.fixture(scope="module")
def thumbnails(collection: Collection) -> dict[str, Float]:
    return read_thumbnails(collection)


class TestPatients:
    def test_mends_what_the_tables_have_wrong(self) -> None:
        assert mend_patient("16660_1_1.jpg", "178") == mend_patient("x.jpg", "97") == "97"
        assert mend_patient("case_72_RX-TORACE1.jpg", "201") == mend_patient("x.jpg", "78") == "78"
        assert mend_patient("4-x-day13.jpg", None) == mend_patient("extubation-13.jpg", "196") == "196"

    def test_unknown_stays_unknown(self) -> None:
        assert mend_patient("immagine.jpg", None) is None
        assert mend_patient("immagine.jpg", "") is None

    def test_shuffles_groups_as_scikit_learn_does(self) -> None:
        # GroupShuffleSplit(1, train_size=0.5, random_state=0) of scikit-learn 1.7 on five groups:
        # RandomState(0).permutation(5) is [2, 0, 1, 3, 4]; the first three test, the next two train.
        train, test = group_shuffle_split(["a", "b", "c", "d", "e", "a"], train_size=0.5, seed=0)
        assert (train, test) == (["d", "e"], ["a", "b", "c"])

    @needs_data
    def test_scored_pictures_have_patients(self, collection: Collection) -> None:
        assert len(collection.scored) == 66
        assert all(p.patient and p.view == "PA" for p in collection.scored)
        assert not {p.patient for p in collection.pictures} & {"178", "201"}

    def test_missing_table_names_itself(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"metadata\.csv"):
            read_collection(tmp_path)

    @pytest.mark.parametrize(
        ("table", "column", "score"),
        [
            ("severity", "opacity_mean", "6.5"),
            ("severity", "geographic_mean", "-1"),
            ("brixia", "J-F", "nan"),
        ],
    )
    def test_score_outside_its_scale_is_refused(
        self, tmp_path: Path, table: str, column: str, score: str
    ) -> None:
        rows = {
            "metadata": {"image": "a.jpg", "patientid": "1", "view": "PA"},
            "severity": {"image": "a.jpg", "geographic_mean": "1", "opacity_mean": "1"},
            "brixia": {"image": "a.jpg"} | {f"{s}-{z}": "1" for s in "SJ" for z in "ABCDEF"},
        }
        (tmp_path / "cxr" / "images").mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "cxr" / "images" / "a.jpg")

        def read() -> Collection:
            for name, row in rows.items():
                text = ",".join(row) + "\n" + ",".join(row.values()) + "\n"
                (tmp_path / "cxr" / f"{name}.csv").write_text(text, encoding="utf-8")
            return read_collection(tmp_path)

        assert read().pictures[0].severity == (1, 1)
        rows[table][column] = score
        with pytest.raises(DataError, match=column):
            read()


@needs_data
class TestSplits:
    @pytest.mark.parametrize("seed", range(5))
    def test_no_patient_and_no_copy_on_both_sides(
        self, collection: Collection, thumbnails: dict[str, Float], seed: int
    ) -> None:
        halves = split(collection, thumbnails, seed=seed)
        assert not {p.patient for p in halves.training} & {p.patient for p in halves.held_out}
        theirs = np.stack([thumbnails[p.name] for p in halves.held_out])
        ours = np.stack([thumbnails[p.name] for p in halves.training])
        assert float((ours @ theirs.T).max()) < NEAR_DUPLICATE
        assert all(p.patient for p in halves.held_out)

    def test_finds_the_known_copies(self, thumbnails: dict[str, Float]) -> None:
        first, second = thumbnails["4-x-day4.jpg"], thumbnails["extubation-4.jpg"]
        assert float(first @ second) > NEAR_DUPLICATE

    @pytest.mark.parametrize("seed", range(5))
    def test_exchanged_halves_measure_every_scored_patient_once(
        self, collection: Collection, thumbnails: dict[str, Float], seed: int
    ) -> None:
        one, other = (
            {p.name for p in split(collection, thumbnails, seed=s).held_out if p.severity}
            for s in (seed, seed + OTHER_HALF)
        )
        assert not one & other
        assert one | other == {p.name for p in collection.scored}

    def test_five_splits_hold_out_every_portable_picture(self, collection: Collection) -> None:
        held_out = set().union(*(held_out_patients(collection, seed=s) for s in range(5)))
        portable = {
            p.patient for p in collection.pictures if p.zones and p.view in ("AP", "AP Supine") and p.patient
        }
        assert portable - held_out <= {p.patient for p in collection.scored}


class TestLeaks:
    """Every stage refuses a picture of a held-out patient."""

    @staticmethod
    def leaky() -> tuple[Split, Arrays]:
        mine = [Picture(f"{i}.jpg", str(i), "PA", (1.0, 1.0), (1.0,) * 6) for i in range(4)]
        theirs = Picture("theirs.jpg", "0", "PA", (1.0, 1.0), (1.0,) * 6)
        everybody = (*mine, theirs)
        arrays = Arrays(
            tuple(p.name for p in everybody),
            torch.rand(5, 1, 320, 320),
            torch.rand(5, 2, MAP_SIZE, MAP_SIZE),
            torch.rand(5, 1, MAP_SIZE, MAP_SIZE),
        )
        return Split(0, tuple(mine), (theirs,)), arrays

    def test_check_refuses_a_held_out_patient(self) -> None:
        halves, _ = self.leaky()
        with pytest.raises(LeakError):
            halves.check(halves.training)

    def test_check_refuses_a_picture_from_outside_the_split(self) -> None:
        halves = Split(0, (Picture("a.jpg", "a", "PA"),), ())
        with pytest.raises(LeakError):
            halves.check([Picture("b.jpg", None, "PA")])

    @pytest.mark.parametrize("stage", [train_finder, train_severity])
    def test_stages_refuse(self, network: SeverityNetwork, stage: object) -> None:
        halves, arrays = self.leaky()
        with pytest.raises(LeakError):
            stage(network, halves, arrays, Recipe())  # type: ignore[operator]

    def test_message_names_no_patient(self) -> None:
        halves = Split(0, (Picture("a.jpg", "patient-7", "PA"),), (Picture("b.jpg", "patient-7", "PA"),))
        with pytest.raises(LeakError) as caught:
            halves.check(halves.training)
        assert "patient-7" not in str(caught.value)


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


class TestReport:
    PREDICTIONS = tuple(
        report.Prediction(s, f"{i}.jpg", "PA", i + 0.5 * s, i / 2, float(i), i / 2, 2.0 * i)
        for s in range(2)
        for i in range(8)
    )

    def test_predictions_survive_the_file(self, tmp_path: Path) -> None:
        rows = [*self.PREDICTIONS, report.Prediction(0, "n.jpg", "AP", 1, 1, None, None, 3.0)]
        report.write_predictions(tmp_path / "p.csv", rows)
        assert report.read_predictions(tmp_path / "p.csv") == rows

    def test_agreement_of_a_constant_offset(self) -> None:
        second = [p for p in self.PREDICTIONS if p.seed == 1]
        measured = report.agreement(second, (3.5, 1.75))
        assert measured["extent"]["mae"] == pytest.approx(0.5)
        assert measured["extent"]["mae_of_training_mean"] == pytest.approx(2.0)
        assert measured["opacity"]["r2"] == pytest.approx(1.0)
