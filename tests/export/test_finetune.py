"""Fine-tuning: it learns, stops, forgets little, goes on after an interruption, and says before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bedside.contract import Tissue
from bedside_export.ct_rules import TISSUES as KNOWN
from bedside_export.ct_rules import Window
from bedside_export.errors import ExportError
from bedside_export.finetuning import Learner, Plan, Wanted, adapt, open_learner, report
from bedside_export.finetuning.adaptation import WEIGHTS
from bedside_export.finetuning.networks import plain, sided, sided_folded
from bedside_export.finetuning.plan import freeze, views
from bedside_export.finetuning.run import Run
from bedside_export.finetuning.state import STATE
from bedside_export.recipes.ct.augment import Distortion, Kinds
from bedside_export.recipes.ct.cases import HELD_OUT, TEST, TRAIN, Entry
from bedside_export.recipes.ct.masks import Masked
from bedside_export.recipes.ct.network import to_input
from made_masks import TISSUES, Small, make_scan

STILL = Distortion(
    shift=0.02, scale=0, stretch=0, rotation=0, mirror=0.5, crop=0, level=5, contrast=0, density=0, sharpness=0,
    noise=0, consolidation=0, faint=0, bedding=0, nonsense=0,
)  # fmt: skip
PLAN = Plan(steps=40, batch=6, rate=3e-2, every=10, patience=4, average=0.8, distortion=STILL)


def learner(seed: int = 0, tissues: tuple[Tissue, ...] = TISSUES) -> Learner:
    torch.manual_seed(seed)
    return Learner(
        network=Small(1, len(tissues)),
        arch="made_masks:build",
        text="a small network",
        tissues=tissues,
        window=Window(-1000, 200, -400, 600),
        spacing_mm=None,
        tile=(64, 64),
        multiple=32,
    )


def case(number: int, part: str, *, source: str = "A", haze_hu: float = -450.0) -> Masked:
    hu, labels = make_scan(number, haze_hu=haze_hu)
    entry = Entry(number, f"case{number}", source, f"patient{number}", Path("none"), (), part)
    return Masked(
        entry,
        torch.from_numpy(hu.astype(np.int16)),
        torch.from_numpy(labels[:, None]),
        0.2,
        digest=f"{number} {haze_hu}",
    )


def cases(*, source: str = "A", haze_hu: float = -450.0, first: int = 0) -> list[Masked]:
    parts = (TRAIN, TRAIN, TRAIN, HELD_OUT, TEST)
    return [case(first + k, part, source=source, haze_hu=haze_hu) for k, part in enumerate(parts)]


def row_of(rows: Sequence[dict[str, Any]], source: str, part: str) -> dict[str, Any]:
    (found,) = (row for row in rows if (row["source"], row["part"]) == (source, part))
    return found


class PulledPlugError(Exception):
    """Stands for a pulled plug."""


class TestAdapting:
    def test_network_learns_a_scanner_and_says_before_and_after(self, tmp_path: Path) -> None:
        outcome = adapt(learner(), cases(), PLAN, tmp_path)
        for part in (HELD_OUT, TEST):
            row = row_of(outcome.rows, "A", part)
            assert row["cases"] == 1
            assert row["opacity_dice_after"] > row["opacity_dice_before"] + 0.5
            assert row["lung_dice_after"] > row["lung_dice_before"] + 0.2
        assert outcome.best_step > 0
        kept = torch.load(tmp_path / WEIGHTS, weights_only=True)
        again = learner().network
        again.load_state_dict(kept)
        measured = report.measure_case(again, case(4, TEST), learner())
        assert measured["opacity_dice"] == row_of(outcome.rows, "A", TEST)["opacity_dice_after"]
        assert adapt(learner(), cases(), PLAN, tmp_path) == outcome

    def test_network_with_neighbours_is_trained_and_measured_with_them(self, tmp_path: Path) -> None:
        wide = replace(learner(), network=Small(3, len(TISSUES)), context=1)
        outcome = adapt(wide, cases(), replace(PLAN, steps=2, every=2), tmp_path)
        assert outcome.steps == 2
        weight = wide.network.state_dict()["first.0.weight"]
        assert (weight[:, [0, 2]] != Small(3, len(TISSUES)).state_dict()["first.0.weight"][:, [0, 2]]).all()

    def test_same_seed_same_weights(self, tmp_path: Path) -> None:
        found = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            adapt(learner(), cases(), replace(PLAN, steps=10), tmp_path / name)
            found.append(torch.load(tmp_path / name / WEIGHTS, weights_only=True))
        assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])

    def test_interrupted_training_ends_as_if_it_had_not_been(self, tmp_path: Path) -> None:
        plan = replace(PLAN, steps=20, every=5)
        for name in ("whole", "cut"):
            (tmp_path / name).mkdir()
        whole = adapt(learner(), cases(), plan, tmp_path / "whole")

        def pull(step: int, _score: float | None) -> None:
            if step == 12:
                raise PulledPlugError

        with pytest.raises(PulledPlugError):
            adapt(learner(), cases(), plan, tmp_path / "cut", told=pull)
        steps: list[int] = []
        cut = adapt(learner(), cases(), plan, tmp_path / "cut", told=lambda step, _score: steps.append(step))
        assert steps[:2] == [10, 11]
        assert cut == whole
        ours, theirs = (torch.load(tmp_path / n / WEIGHTS, weights_only=True) for n in ("cut", "whole"))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    def test_interrupted_training_with_other_options_is_refused(self, tmp_path: Path) -> None:
        def pull(step: int, _score: float | None) -> None:
            if step == 11:
                raise PulledPlugError

        with pytest.raises(PulledPlugError):
            adapt(learner(), cases(), PLAN, tmp_path, told=pull)
        with pytest.raises(ExportError, match="with other options, weights or masks"):
            adapt(learner(), cases(), replace(PLAN, rate=1e-3), tmp_path)
        with pytest.raises(ExportError, match="with other options, weights or masks"):
            adapt(learner(1), cases(), PLAN, tmp_path)
        (tmp_path / STATE).write_bytes(b"PK\x03\x04 and no more")
        with pytest.raises(ExportError, match="can't be read; start anew with --restart"):
            adapt(learner(), cases(), PLAN, tmp_path)

    def test_training_stops_when_the_held_out_gain_no_more(self, tmp_path: Path) -> None:
        idle = replace(PLAN, rate=1e-12, every=5, patience=2, frozen=("first", "second"))
        outcome = adapt(learner(), cases(), idle, tmp_path)
        assert (outcome.steps, outcome.best_step) == (10, 0)
        assert [entry["step"] for entry in outcome.history] == [0, 5, 10]

    def test_rehearsal_keeps_what_was_known(self, tmp_path: Path) -> None:
        old, new = cases(), cases(source="B", haze_hu=-150.0, first=10)
        taught = learner()
        adapt(taught, old, PLAN, tmp_path)
        found = {}
        for share in (0.0, 0.5):
            again = learner()
            again.network.load_state_dict(torch.load(tmp_path / WEIGHTS, weights_only=True))
            (tmp_path / f"{share}").mkdir()
            outcome = adapt(again, new, replace(PLAN, rehearsal=share), tmp_path / f"{share}", old=old)
            found[share] = {source: row_of(outcome.rows, source, TEST) for source in ("B", "old: A")}
        assert found[0.5]["B"]["opacity_dice_after"] > found[0.5]["B"]["opacity_dice_before"] + 0.3
        assert found[0.5]["old: A"]["opacity_dice_after"] > 0.8

    def test_case_on_both_sides_is_refused(self, tmp_path: Path) -> None:
        twice = [*cases(), case(0, HELD_OUT)]
        with pytest.raises(ExportError, match="are the same scan, on both sides"):
            adapt(learner(), twice, PLAN, tmp_path)

    def test_old_scan_among_the_held_out_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ExportError, match="are the same scan, on both sides"):
            adapt(learner(), cases(), PLAN, tmp_path, old=[case(3, TRAIN)])

    @pytest.mark.parametrize(("part", "purpose"), [(TRAIN, "learn from"), (HELD_OUT, "hold out")])
    def test_masks_without_opacity_are_refused(self, tmp_path: Path, part: str, purpose: str) -> None:
        empty = [
            replace(each, readings=each.readings.clamp(max=1)) if each.entry.part == part else each
            for each in cases()
        ]
        with pytest.raises(ExportError, match=f"to {purpose} hold no opacity"):
            adapt(learner(), empty, PLAN, tmp_path)

    def test_table_whose_sides_differ_is_refused(self, tmp_path: Path) -> None:
        odd = (
            Tissue("rest"),
            Tissue("left", lung=True, side="left"),
            Tissue("haze", opacity=True, lung=True),
        )
        with pytest.raises(ExportError, match="left lung and of the right must match"):
            adapt(learner(tissues=odd), cases(), PLAN, tmp_path)


class TestPlan:
    def test_frozen_parts_stay_as_they_are_with_their_statistics(self) -> None:
        start, taught = learner().network.state_dict(), learner()
        run = Run(taught, cases(), replace(PLAN, frozen=("first",)), Kinds.of(TISSUES))
        run.step()
        run.step()
        now = taught.network.state_dict()
        moved = {name for name in start if not torch.equal(start[name], now[name])}
        assert {name.partition(".")[0] for name in moved} == {"second", "last"}
        assert "second.1.running_mean" in moved

    def test_unknown_part_to_freeze_names_those_there_are(self) -> None:
        with pytest.raises(
            ExportError, match="no part 'encoder' to freeze; its parts are first, second, last"
        ):
            freeze(Small(1, 3), ("encoder",))

    def test_freezing_all_is_refused(self) -> None:
        with pytest.raises(ExportError, match="all parts of the network are frozen"):
            freeze(Small(1, 3), ("first", "second", "last"))

    def test_old_data_gets_its_share_of_a_batch(self) -> None:
        assert Plan(batch=8, rehearsal=0.25).shares(old=True) == (6, 2)
        assert Plan(batch=8, rehearsal=0.25).shares(old=False) == (8, 0)
        assert Plan(batch=8, rehearsal=0.01).shares(old=True) == (7, 1)
        assert Plan(batch=8, rehearsal=0.99).shares(old=True) == (1, 7)
        assert Plan(batch=1).shares(old=True) == (1, 0)

    def test_views_fit_the_network(self) -> None:
        assert views((256, 192), 32) == ((256, 192), (192, 128))
        assert views((64, 64), 32) == ((64, 64), (64, 64))

    @pytest.mark.parametrize("changed", [{"steps": 0}, {"rate": 0.0}, {"rehearsal": 1.0}, {"patience": 0}])
    def test_numbers_that_make_no_training_are_refused(self, changed: dict[str, Any]) -> None:
        with pytest.raises(ExportError):
            Plan(**changed)


class TestNetworks:
    def test_built_in_bundle_is_taken_with_its_weights(self) -> None:
        found = open_learner(Wanted("ct-opacity-lite", "built-in"))
        assert found.tissues == KNOWN["sides"]
        assert (found.spacing_mm, found.tile, found.multiple, found.note) == ((1.4, 1.4), (256, 256), 32, "")
        assert found.arch.endswith(":sided_folded")
        from bedside.backends import open_backend
        from bedside.bundle import Bundle

        channels = 2 * found.context + 1
        hu = torch.rand(1, channels, 64, 96, generator=torch.Generator().manual_seed(0)) * 1400 - 1100
        assert torch.allclose(found.prepare(hu), to_input(hu), atol=1e-6)
        engine = open_backend("onnxruntime", Bundle.open("ct-opacity-lite"))
        expected = engine.run({"slice": to_input(hu).numpy()})["tissues"]
        engine.close()
        with torch.no_grad():
            ours = found.network.eval()(found.prepare(hu)).softmax(1).numpy()
        assert np.abs(ours - expected).max() < 1e-4

    def test_other_classes_get_a_new_last_layer(self) -> None:
        found = open_learner(Wanted("ct-opacity-lite", "built-in", tissues=KNOWN["l3-classes"]))
        assert "last layer is new" in found.note
        assert found.arch.endswith(":plain_folded")
        with torch.no_grad():
            assert found.network(torch.zeros(1, 2 * found.context + 1, 64, 64)).shape == (1, 11, 64, 64)

    @pytest.mark.parametrize("build", [sided, sided_folded, plain])
    def test_checkpoint_of_the_built_in_network_comes_back(self, tmp_path: Path, build: Any) -> None:
        torch.manual_seed(1)
        network: nn.Module = build(1, 5)
        torch.save(
            {"state_dict": {f"net.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "a.pt"
        )
        tissues = KNOWN["sides"] if build is not plain else KNOWN["l3-groups"]
        found = open_learner(Wanted(str(tmp_path / "a.pt"), "built-in", tissues=tissues))
        assert found.arch.endswith(f":{build.__name__}")
        assert not found.note
        ours = found.network.state_dict()
        assert all(torch.equal(value, ours[name]) for name, value in network.state_dict().items())

    def test_built_in_network_with_neighbours_says_how_many(self, tmp_path: Path) -> None:
        torch.save(sided(3, 5).state_dict(), tmp_path / "a.pt")
        assert open_learner(Wanted(str(tmp_path / "a.pt"), "built-in")).context == 1
        with pytest.raises(ExportError, match="1 neighbouring slices on each side; leave out --context"):
            open_learner(Wanted(str(tmp_path / "a.pt"), "built-in", context=2))
        with pytest.raises(ExportError, match="as many neighbours on each side"):
            sided(2, 5)

    def test_any_network_may_take_neighbours(self, tmp_path: Path) -> None:
        torch.save(Small(3, 3).state_dict(), tmp_path / "small.pt")
        source = str(tmp_path / "small.pt")
        found = open_learner(Wanted(source, "made_masks:build", tissues=TISSUES, tile=(64, 96), context=1))
        assert found.context == 1

    def test_any_network_is_taken_from_its_checkpoint(self, tmp_path: Path) -> None:
        torch.manual_seed(1)
        network = Small(1, 3)
        torch.save(network.state_dict(), tmp_path / "small.pt")
        wanted = Wanted(str(tmp_path / "small.pt"), "made_masks:build", tissues=TISSUES, tile=(64, 96))
        found = open_learner(wanted)
        assert all(parameter.requires_grad for parameter in found.network.parameters())
        assert torch.equal(found.network.state_dict()["last.weight"], network.last.weight)

    def test_what_is_no_source_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ExportError, match="no such checkpoint or bundle"):
            open_learner(Wanted("nothing", "built-in"))
        with pytest.raises(ExportError, match="bundles are taken with --network built-in alone"):
            open_learner(Wanted("ct-opacity-lite", "l3-unet2d"))
        torch.save(Small(1, 3).state_dict(), tmp_path / "small.pt")
        with pytest.raises(ExportError, match="multiples of 32"):
            open_learner(
                Wanted(str(tmp_path / "small.pt"), "made_masks:build", tissues=TISSUES, tile=(64, 80))
            )


class TestReport:
    def test_dice_and_volumes_of_what_is_found(self) -> None:
        class Fixed(nn.Module):
            """Finds lung everywhere that is not soft tissue or air, and no haze."""

            def __init__(self) -> None:
                super().__init__()
                self.unused = nn.Parameter(torch.zeros(1))

            def forward(self, image: torch.Tensor) -> torch.Tensor:
                lung = ((image > -0.95) & (image < 0.5)).float() * 20
                return torch.cat([torch.full_like(image, 10.0), lung, torch.zeros_like(image)], 1)

        measured = report.measure_case(Fixed(), case(0, TEST), learner())
        assert measured["opacity_dice"] == 0
        assert measured["volume_over_true"] == 0
        assert measured["lung_dice"] > 0.7

    def test_score_counts_each_source_alike(self) -> None:
        def measured(dice: float) -> dict[str, Any]:
            return {"opacity_dice": dice, "lung_dice": dice, "tissues": {"haze": dice}}

        assert report.score([("A", measured(1.0))] * 3 + [("B", measured(0.0))]) == pytest.approx(0.5)
        nothing = {"opacity_dice": None, "lung_dice": None, "tissues": {"haze": None}}
        assert report.score([("A", measured(0.8)), ("B", nothing)]) == pytest.approx(0.8)

    def test_table_shows_before_and_after(self) -> None:
        names = ("opacity_dice", "lung_dice", "volume_over_true", "expected_over_true", "opacity_of_lung")
        before, after = (dict.fromkeys(names, value) for value in (0.25, 0.75))
        (row,) = report.summarise([("A", TEST, before, {**after, "volume_over_true": None})])
        lines = report.describe([row])
        assert "0.250 -> 0.750" in lines[1]
        assert "0.250 -> n/a" in lines[1]


@pytest.mark.gpu
def test_a_gpu_trains_as_well(tmp_path: Path) -> None:
    outcome = adapt(learner(), cases(), PLAN, tmp_path)
    assert row_of(outcome.rows, "A", TEST)["opacity_dice_after"] > 0.8
