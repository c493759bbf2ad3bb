"""The networks of the comparisons are trained as said: rounding, resuming, targets, and whose patients are held out."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import torch
from torch import Tensor, nn

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DATA = BENCHMARKS.parents[1] / "shared" / "data"

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 1, 1)

    def forward(self, picture: Tensor) -> Tensor:
        answer: Tensor = self.last(self.norm(self.first(picture)).relu())
        return answer


def draw(network: nn.Module, generator: torch.Generator) -> Tensor:
    picture = torch.rand(2, 1, 8, 8, generator=generator)
    loss: Tensor = (network(picture) - picture.square()).square().mean()
    return loss


def make(load: Load, **changes: Any) -> tuple[Small, Any, Any]:
    torch.manual_seed(0)
    network = Small()
    rounding = load("training.rounding")
    plan = replace(load("training.fitting").Plan(steps=12, batch=2, rate=0.02), **changes)
    places = [rounding.Place([network.first]), rounding.Place([network.last])]
    return network, plan, rounding.Rounding(network, places)


def test_rounding_puts_weights_and_inputs_on_8_bit_steps_and_gives_weights_back(load: Load) -> None:
    network, _, rounding = make(load)
    before = network.first.weight.detach().clone()
    seen: list[Tensor] = []
    network.last.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].detach()))
    network.train()
    with rounding.active():
        weight = network.first.weight.detach()
        steps = weight / weight.abs().amax((1, 2, 3), keepdim=True) * 127
        assert torch.allclose(steps, steps.round(), atol=1e-3)
        assert not torch.equal(weight, before)
        draw(network, torch.Generator().manual_seed(0)).backward()
    # of an input that is never negative: 0 to 127, where the mean of the pictures' greatest values is 127
    peak = seen[0].amax()
    assert len(seen[0].unique()) <= 128
    assert torch.allclose(seen[0] / peak * 127, (seen[0] / peak * 127).round(), atol=1e-2)
    assert torch.equal(network.first.weight, before)
    assert network.first.weight.grad is not None
    assert float(network.first.weight.grad.abs().sum()) > 0


def test_rounding_leaves_the_network_as_it_was_where_the_step_fails(load: Load) -> None:
    network, _, rounding = make(load)
    picture, before = torch.rand(1, 1, 8, 8), network.eval().state_dict()
    answer = network(picture)
    with pytest.raises(ZeroDivisionError), rounding.active():
        raise ZeroDivisionError
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(network(picture), answer)


def test_modules_with_one_range_are_rounded_by_the_greatest_of_theirs(load: Load) -> None:
    small, large = nn.Identity(), nn.Identity()
    place = load("training.rounding").Place([small, large])
    place.round(large, (torch.full((1, 1, 2), 127.0),))
    (rounded,) = place.round(small, (torch.tensor([[[0.4, 0.6]]]),))
    assert rounded.flatten().tolist() == [0.0, 1.0]


def test_interrupted_training_goes_on_and_ends_the_same(tmp_path: Path, load: Load) -> None:
    fit = load("training.fitting").fit
    network, plan, rounding = make(load, rounded=0.0)
    whole = fit(network, draw, plan, rounding=rounding, checkpoint=tmp_path / "whole", every=4)

    network, plan, rounding = make(load, rounded=0.0)
    left = 9

    def interrupt(network: nn.Module, generator: torch.Generator) -> Tensor:
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        return draw(network, generator)

    checkpoint = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        fit(network, interrupt, plan, rounding=rounding, checkpoint=checkpoint, every=4)
    network, plan, rounding = make(load, rounded=0.0)
    steps = 0

    def count(network: nn.Module, generator: torch.Generator) -> Tensor:
        nonlocal steps
        steps += 1
        return draw(network, generator)

    resumed = fit(network, count, plan, rounding=rounding, checkpoint=checkpoint, every=4)
    assert steps == 4
    for name, value in whole.state_dict().items():
        assert torch.allclose(resumed.state_dict()[name].float(), value.float(), atol=1e-6), name


def test_checkpoint_of_another_plan_is_not_taken(tmp_path: Path, load: Load) -> None:
    fit = load("training.fitting").fit
    for seed in (0, 1):
        network, plan, rounding = make(load, seed=seed)
        steps: list[int] = []

        def count(network: nn.Module, generator: torch.Generator, steps: list[int] = steps) -> Tensor:
            steps.append(1)
            return draw(network, generator)

        fit(network, count, plan, rounding=rounding, checkpoint=tmp_path / "one", every=4)
        assert len(steps) == plan.steps


def test_trained_weights_lie_on_8_bit_steps_and_norms_hold_what_is_in_use(tmp_path: Path, load: Load) -> None:
    fitting = load("training.fitting")
    network, plan, rounding = make(load)
    trained = fitting.fit(network, draw, plan, rounding=rounding, checkpoint=tmp_path / "one")
    weight = trained.first.weight
    steps = weight / weight.abs().amax((1, 2, 3), keepdim=True) * 127
    assert torch.allclose(steps, steps.round(), atol=1e-3)
    pictures = [torch.rand(4, 1, 8, 8) for _ in range(3)]
    fitting.settle_norms(trained, pictures)
    passed = torch.cat([trained.first(picture) for picture in pictures])
    assert torch.allclose(trained.norm.running_mean, passed.mean((0, 2, 3)), atol=0.01)
    assert torch.allclose(trained.norm.running_var, passed.var((0, 2, 3)), rtol=0.05)
    assert not trained.training


def test_kinds_of_opacity_go_by_its_own_hu_and_the_rest_by_sides(load: Load) -> None:
    slices = load("training.slices")
    # background, lungs, opacity of three densities, each beside soft tissue that must not count
    sides = torch.tensor([0, 1, 2, 3, 0, 4, 0, 3]).repeat_interleave(20).expand(1, 40, -1)
    hu = torch.tensor([-1000.0, -850, -850, -700, 40, -400, 40, 0]).repeat_interleave(20).expand(1, 1, 40, -1)
    groups = slices.group(hu, sides)
    assert groups[0, 20, 10::20].tolist() == [0, 1, 1, 2, 0, 3, 0, 4]
    assert groups[0, :, 60:80].unique().tolist() == [2]
    assert groups[0, :, 100:120].unique().tolist() == [3]


def test_unknown_targets_do_not_count(load: Load) -> None:
    densenet, xrays = load("training.densenet"), load("training.xrays")
    missing = float("nan")
    pictures = torch.zeros(2, 1, 8, 8)
    known = xrays.Batch(
        pictures, torch.tensor([3.0, missing]), torch.full((2, 3), missing), torch.full((2, 6), missing),
        torch.full((2, 7, 7), missing),
    )  # fmt: skip
    for other in (0.0, 100.0):
        answers = torch.tensor([5.0, other]), torch.zeros(2, 3), torch.zeros(2, 6), torch.zeros(2, 7, 7)
        assert float(densenet.measure_loss(answers, known)) == pytest.approx(1.5)  # smooth L1 of 2 points


def test_every_layer_of_the_densenet_reads_rounded_numbers(load: Load) -> None:
    densenet, rounding = load("training.densenet"), load("training.rounding")
    network = densenet.Trainee().network
    places = densenet.list_places(network)
    modules = [module for place in places for module in place.modules]
    assert len({id(module) for module in modules}) == len(modules)
    direct = {id(module) for module in modules}
    names = {id(module): name for name, module in network.named_modules()}
    unread = [names[id(layer)] for layer in rounding.list_layers(network) if id(layer) not in direct]
    # what 1x1 convolutions read is rounded in front of their norm, where blocks are joined
    assert all(name.endswith("conv1") for name in unread)
    assert len(unread) == 58


@pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data")
def test_patients_that_are_scored_are_not_learnt_from(load: Load) -> None:
    from bedside_export.recipes.cxr.data import read_collection

    pictures, xrays = load("pictures"), load("training.xrays")
    split = xrays.split_patients(read_collection(DATA))
    scored = {path.name for path in pictures.choose_images(DATA / "cxr" / "images", pictures.COUNT)}
    assert scored <= {picture.name for picture in split.held_out}
    theirs = {picture.patient for picture in split.held_out if picture.patient}
    assert theirs.isdisjoint(picture.patient for picture in split.training)
    assert len(split.training) > 400


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data")
def test_densenet_is_trained_into_a_file_that_torchxrayvision_and_export_read(
    tmp_path: Path, load: Load
) -> None:
    import torchxrayvision

    from bedside_export.models import ALL, load_classifier

    densenet = load("training.densenet")
    out = tmp_path / "densenet.pt"
    told = densenet.train_densenet(DATA, out, replace(densenet.PLAN, steps=2, batch=2))
    assert told["extent_mae"] >= 0
    network = torchxrayvision.models.DenseNet(
        weights=None, num_classes=18, in_channels=1, op_threshs=None, apply_sigmoid=False
    )
    network.load_state_dict(torch.load(out, weights_only=True))
    classifier = load_classifier(str(out), kind=ALL)
    picture = torch.rand(1, 1, 224, 224) * 2048 - 1024
    pooled = classifier.features(picture).relu().mean((2, 3))
    assert torch.allclose(network.eval()(picture), classifier.logits(pooled), atol=1e-3)


def test_weights_are_told_as_random_or_trained(tmp_path: Path, load: Load) -> None:
    networks = load("networks")
    assert networks.describe_weights("random:3") == {"trained": False, "source": "random:3"}
    file = tmp_path / "net.pt"
    file.write_bytes(b"weights")
    (tmp_path / "net.json").write_text('{"dice_opacity": 0.5}')
    told = networks.describe_weights(str(file))
    assert told["trained"]
    assert told["training"] == {"dice_opacity": 0.5}
    assert networks.summarise_weights(told) == f"weights: trained, sha256 {told['sha256'][:12]}"
    with pytest.raises(click.UsageError, match="no weights at"):
        networks.describe_weights(str(tmp_path / "absent.pt"))


def test_kept_folder_of_other_weights_is_refused(tmp_path: Path, load: Load) -> None:
    networks = load("networks")
    one, other = ({"trained": False, "source": f"random:{seed}"} for seed in (0, 1))
    networks.claim(tmp_path / "kept", one)
    networks.claim(tmp_path / "kept", one)
    with pytest.raises(click.UsageError, match="something else"):
        networks.claim(tmp_path / "kept", other)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "weights.pt").touch()
    with pytest.raises(click.UsageError, match="something else"):
        networks.claim(tmp_path / "old", one)
