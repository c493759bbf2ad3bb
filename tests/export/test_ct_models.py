"""Networks that segment slices, and the checkpoints that fill them."""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bedside_export.ct_checkpoint import fill, settle
from bedside_export.ct_models import L3UNet, TissueNetwork, build_network
from bedside_export.errors import ExportError
from bedside_export.weights import read_weights


def small(seed: int = 0, **options: Any) -> L3UNet:
    """The published U-Net, an eighth as wide, with batch norms that do something."""
    torch.manual_seed(seed)
    network = L3UNet(1, 5, width=8, **options)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            value.normal_()
    return network.eval().requires_grad_(False)


def test_the_published_u_net_has_the_published_size_and_names() -> None:
    found = build_network("l3-unet2d", channels=1, classes=5)
    # facts of UBC-CIC/COVID19-L3-Net: 13.39 M parameters, 247 GFLOP at 512x512, keys
    assert sum(parameter.numel() for parameter in found.network.parameters()) == 13_394_437
    assert "13.39 M" in found.text
    keys = set(found.network.state_dict())
    for stem in ("inc", "down4.maxpool_conv.1", "up1.conv", "up4.conv"):
        assert {f"{stem}.double_conv.{place}.weight" for place in (0, 1, 3, 4)} <= keys
    assert {"outc.conv.weight", "outc.conv.bias"} <= keys
    widths = [
        found.network.state_dict()[f"{stem}.double_conv.0.weight"].shape[0]
        for stem in (
            "inc",
            *(f"down{n}.maxpool_conv.1" for n in (1, 2, 3, 4)),
            *(f"up{n}.conv" for n in (1, 2, 3, 4)),
        )
    ]
    assert widths == [64, 128, 256, 512, 512, 256, 128, 64, 64]
    assert (found.multiple, found.fixed) == (16, False)


def test_the_published_u_net_takes_247_gflop_at_512() -> None:
    multiplications = 0

    def count(module: torch.nn.Module, _: Any, answer: Tensor) -> None:
        nonlocal multiplications
        if isinstance(module, torch.nn.Conv2d):
            multiplications += (
                answer.numel() * module.in_channels * module.kernel_size[0] * module.kernel_size[1]
            )

    with torch.device("meta"):  # shapes alone
        network = L3UNet(1, 5)
        for module in network.modules():
            module.register_forward_hook(count)
        network.eval()(torch.empty(1, 1, 512, 512))
    assert 2 * multiplications / 1e9 == pytest.approx(247, abs=0.5)


@pytest.mark.parametrize("size", [(48, 64), (50, 67)])
def test_the_u_net_answers_any_size_voxel_by_voxel(size: tuple[int, int]) -> None:
    assert small()(torch.zeros(1, 1, *size)).shape == (1, 5, *size)


def test_probabilities_sum_to_one_and_keep_the_most_probable() -> None:
    network, image = small(), torch.randn(2, 1, 32, 32)
    probabilities = TissueNetwork(network)(image)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2, 32, 32))
    assert torch.equal(probabilities.argmax(1), network(image).argmax(1))


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_probabilities_are_the_softmax_however_large_the_logits(classes: int) -> None:
    logits = torch.randn(2, classes, 6, 10, generator=torch.Generator().manual_seed(3))
    for scale in (1.0, 30.0, 1e4, 1e38):
        given = logits * scale
        torch.testing.assert_close(TissueNetwork(torch.nn.Identity())(given), given.softmax(1))


@pytest.mark.parametrize("bias", [True, False])
def test_a_checkpoint_without_convolution_biases_makes_a_network_without(bias: bool) -> None:
    keys = small(bias=bias).state_dict().keys()
    found = build_network("l3-unet2d", channels=1, classes=5, keys=[f"model.{key}" for key in keys])
    assert set(found.network.state_dict()) == set(keys)


@pytest.mark.parametrize(
    ("arch", "complaint"),
    [
        ("unet", "no architecture 'unet'; give l3-unet2d, smp:ARCH:ENCODER"),
        ("smp:Unet", "can't be imported"),
        ("smp:Unet:resnet18:x", "no architecture"),
        ("smp:Nothing:resnet18", "has no architecture 'Nothing'; it has: DPT, DeepLabV3"),
        ("smp:Unet:nothing", "has no encoder 'nothing'"),
        ("no.such.module:build", "no.such.module:build can't be imported (No module named 'no'"),
        ("ct_networks:missing", "can't be imported"),
        ("ct_networks:build_nothing", "gave a str, not a torch.nn.Module"),
        ("math:sqrt", "can't be called as factory(in_channels=1, classes=5)"),
    ],
)
def test_what_is_no_network_is_told(arch: str, complaint: str) -> None:
    with pytest.raises(ExportError) as caught:
        build_network(arch, channels=1, classes=5)
    assert complaint in str(caught.value)


def test_a_factory_is_called_and_its_bins_are_seen() -> None:
    plain = build_network("ct_networks:build", channels=3, classes=2, multiple=4)
    assert (plain.multiple, plain.fixed) == (4, False)
    assert plain.network(torch.zeros(1, 3, 8, 8)).shape == (1, 2, 8, 8)
    assert build_network("ct_networks:build_pooled", channels=1, classes=5).fixed


def test_library_networks_say_their_multiple_and_whether_they_pool_to_bins() -> None:
    unet = build_network("smp:Unet:resnet18", channels=1, classes=5)
    pspnet = build_network("smp:PSPNet:resnet18", channels=1, classes=5)
    assert (unet.multiple, unet.fixed) == (32, False)
    assert (pspnet.multiple, pspnet.fixed) == (8, True)


WRAPPINGS: dict[str, Any] = {
    "plain": lambda state: state,
    "Lightning": lambda state: {
        "epoch": 3,
        "state_dict": {f"model.{key}": value for key, value in state.items()},
        "hyper_parameters": {
            "lr": 1e-3,
            "args": argparse.Namespace(data=Path("x")),
            "more": defaultdict(list, a=[1]),
        },
        "callbacks": {"ModelCheckpoint": {"best": torch.tensor(0.5)}},
    },
    "Lightning with a loss": lambda state: {
        "state_dict": {f"net.{key}": value for key, value in state.items()} | {"loss.weight": torch.ones(5)}
    },
    "DataParallel in a module": lambda state: {f"model.module.{key}": value for key, value in state.items()},
    "older, without counters": lambda state: {
        key: value for key, value in state.items() if not key.endswith("num_batches_tracked")
    },
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_checkpoints_load_whatever_is_around_them(wrapping: str, tmp_path: Path) -> None:
    trained = small(seed=1)
    torch.save(WRAPPINGS[wrapping](trained.state_dict()), tmp_path / "unet.ckpt")
    network = small(seed=2)
    image = torch.randn(1, 1, 32, 32)
    assert not torch.equal(network(image), trained(image))
    others = fill(network, read_weights(tmp_path / "unet.ckpt"))
    assert torch.equal(network(image), trained(image))
    assert others == (("loss.weight",) if wrapping == "Lightning with a loss" else ())


def test_a_checkpoint_that_does_not_fit_is_told_by_its_keys() -> None:
    state = {f"net.{key}": value for key, value in small().state_dict().items()}
    for key in ("net.outc.conv.weight", "net.inc.double_conv.0.weight"):
        del state[key]
    state["net.aux.weight"] = torch.ones(1)
    state["net.outc.conv.bias"] = torch.ones(11)
    with pytest.raises(ExportError) as caught:
        fill(small(), state)
    told = str(caught.value)
    assert "under the prefix 'net.' lacks inc.double_conv.0.weight, outc.conv.weight (2 in all)" in told
    assert "holds besides aux.weight (1 in all)" in told
    assert "has other shapes in outc.conv.bias (11,) instead of (5,) (1 in all)" in told


def test_of_many_missing_keys_the_first_are_named_and_the_rest_counted() -> None:
    with pytest.raises(ExportError, match=r"lacks .*, .*, .* and \d+ more \(\d+ in all\)"):
        fill(small(), {"encoder.weight": torch.ones(1)})


def test_of_two_networks_in_a_checkpoint_one_is_to_be_chosen() -> None:
    first, second = small(seed=1), small(seed=2)
    state = {
        f"{name}.{key}": v
        for name, n in (("model", first), ("ema", second))
        for key, v in n.state_dict().items()
    }
    with pytest.raises(
        ExportError, match=r"holds 2 such networks, under 'ema\.', 'model\.'; choose with --prefix"
    ):
        fill(small(), state)
    network = small(seed=3)
    fill(network, state, prefix="ema.")
    assert torch.equal(network.outc.conv.weight, second.outc.conv.weight)


def test_weights_that_are_not_finite_are_refused() -> None:
    state = dict(small().state_dict())
    state["outc.conv.bias"] = torch.full((5,), torch.nan)
    with pytest.raises(ExportError, match="NaN or infinity"):
        fill(small(), state)


def test_random_weights_are_settled_to_find_what_they_are_shown() -> None:
    torch.manual_seed(0)
    image = torch.rand(2, 1, 4, 4).round().repeat_interleave(16, 2).repeat_interleave(16, 3)  # squares
    labels = image[:, 0].long() * 2
    network = L3UNet(1, 5).eval().requires_grad_(False)
    settle(network, image, labels)
    found = network(image).argmax(1)
    assert (found == labels).double().mean() > 0.95
    assert not any(module.training for module in network.modules())
