"""Weights of fewer bits: as near as they can be, exact in float16, and the network answers almost as before."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bedside_export.golden import golden_inputs
from bedside_export.recipes.cxr.network import SeverityNetwork
from bedside_export.recipes.cxr.targets import INPUT
from bedside_export.rounding import WEIGHT_BITS, round_weights


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    norm = network[1]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.running_mean = torch.randn(4)
    norm.running_var = torch.rand(4) + 0.5
    return network.eval()


@pytest.mark.parametrize("bits", [4, 8, 11, 16])
def test_a_weight_is_off_by_half_a_step_at_most(bits: int) -> None:
    network = nn.Sequential(nn.Conv2d(8, 8, 3))
    rounded = round_weights(network.eval(), bits)
    before, after = (each.state_dict()["0.weight"] for each in (network, rounded))
    relative = ((after - before) / before).abs().max().item()
    assert 0 < relative <= 2.0**-bits
    fraction, _ = torch.frexp(after)
    steps = fraction * 2**bits
    assert torch.equal(steps, steps.round())


def test_weights_of_a_half_are_exact_in_float16() -> None:
    rounded = round_weights(make_network())
    assert WEIGHT_BITS == 11
    for weights in rounded.state_dict().values():
        if weights.ndim > 1:
            assert torch.equal(weights.half().float(), weights)


def test_batch_norms_are_folded_and_the_network_that_was_given_stays_as_it_is() -> None:
    network = make_network()
    before = copy.deepcopy(network.state_dict())
    image = torch.randn(2, 1, 8, 8)
    rounded = round_weights(network, 20)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in rounded.modules())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    with torch.inference_mode():
        torch.testing.assert_close(rounded(image), network(image), rtol=1e-4, atol=1e-4)


def test_the_severity_network_can_be_folded_and_rounded() -> None:
    torch.manual_seed(1)
    network = SeverityNetwork().eval()
    image = torch.from_numpy(golden_inputs(INPUT)[:2])
    with torch.inference_mode():  # where the lungs are: the scores of a new network are constant
        before, after = network(image)[2], round_weights(network)(image)[2]
    assert not torch.equal(before, after)
    torch.testing.assert_close(before, after, rtol=0.02, atol=0.02)
