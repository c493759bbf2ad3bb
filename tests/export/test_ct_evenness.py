"""Several kinds of opacity: a rare one counts as much as a common one, and stays what it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from bedside_export.recipes.ct.augment import SIDES, Distortion, Kinds
from bedside_export.recipes.ct.evenness import even_weights, keep_kinds, overlap_of_kinds
from bedside_export.recipes.ct.network import to_input
from bedside_export.recipes.ct.patterns import CLASSES, FIRST
from bedside_export.recipes.ct.soft import PHANTOM_TISSUES, Read, SoftRecipe, find_loss, train_soft
from bedside_export.recipes.ct.trainer import soft_loss, to_shares

KINDS = Kinds.of(CLASSES)
COMMON, RARE = FIRST, FIRST + 1
PLAIN = Distortion(
    0, 0, 0, 0, 0, 0, level=0, contrast=0, density=0, sharpness=0, noise=0, bedding=0, nonsense=0
)


def certain(labels: torch.Tensor) -> torch.Tensor:
    """Logits of a network that is sure of these classes."""
    return 30 * to_shares(labels, len(CLASSES))


def two_lesions() -> torch.Tensor:
    """A common kind with 400 pixels and a rare one with 100."""
    labels = torch.ones(1, 64, 64, dtype=torch.int64)
    labels[0, 4:24, 4:24] = COMMON
    labels[0, 40:50, 40:50] = RARE
    return labels


class TestOverlap:
    def test_rare_kind_under_another_name_costs_nearly_as_much_as_a_common_one(self) -> None:
        labels = two_lesions()
        shares = to_shares(labels, len(CLASSES))
        losses = []
        for kind in (COMMON, RARE):
            found = torch.where(labels == kind, torch.tensor(FIRST + 5), labels)
            losses.append(float(overlap_of_kinds(certain(found), shares, KINDS)))
            pooled = soft_loss(certain(found), shares, KINDS, overlap=1) - soft_loss(
                certain(found), shares, KINDS, overlap=0
            )
            assert float(pooled) == pytest.approx(0, abs=1e-5)
        assert losses == [pytest.approx(0.5 * 400 / 420), pytest.approx(0.5 * 100 / 120)]
        assert float(overlap_of_kinds(certain(labels), shares, KINDS)) == pytest.approx(0, abs=1e-5)

    def test_readers_own_shares_are_best(self) -> None:
        chance = torch.Generator().manual_seed(0)
        shares = to_shares(torch.randint(0, len(CLASSES), (2, 3, 16, 16), generator=chance), len(CLASSES))
        own = shares.clamp(1e-6).log()
        best = float(overlap_of_kinds(own, shares, KINDS))
        for _ in range(5):
            other = own + 0.5 * torch.randn(own.shape, generator=chance)
            assert float(overlap_of_kinds(other, shares, KINDS)) > best

    def test_kinds_that_nobody_drew_cost_nothing(self) -> None:
        labels = torch.ones(1, 8, 8, dtype=torch.int64)
        logits = torch.zeros(1, len(CLASSES), 8, 8, requires_grad=True)
        loss = overlap_of_kinds(logits, to_shares(labels, len(CLASSES)), KINDS)
        loss.backward()
        assert float(loss.detach()) == 0
        assert logits.grad is not None
        assert not logits.grad.any()

    def test_recipe_says_how_much_it_weighs_in_training(self) -> None:
        shares = to_shares(two_lesions(), len(CLASSES))
        logits = torch.randn(shares.shape, generator=torch.Generator().manual_seed(0))
        recipe = SoftRecipe(overlap=0.5, overlap_of_kinds=2.0)
        pooled = float(soft_loss(logits, shares, KINDS, overlap=0.5))
        each = float(overlap_of_kinds(logits, shares, KINDS))
        assert float(find_loss(logits, shares, KINDS, recipe)) == pytest.approx(pooled + 2 * each)
        plain = replace(recipe, overlap_of_kinds=0.0)
        assert float(find_loss(logits, shares, KINDS, plain)) == pytest.approx(pooled)


class TestWeights:
    def test_rare_kind_is_drawn_as_often_as_a_common_one(self) -> None:
        readings = torch.ones(12, 2, 4, 4, dtype=torch.uint8)
        readings[:9, :, 0, 0] = COMMON
        readings[9, 1, 0, 0] = RARE  # one reader of two
        own = torch.tensor([1.5] * 10 + [1.0, 0.6])
        weights = even_weights([readings[:4], readings[4:]], KINDS, own)
        assert float(weights[9]) == pytest.approx(float(weights[:9].sum()))
        assert float(weights[:10].sum()) == pytest.approx(15)
        assert torch.equal(weights[10:], own[10:])

    def test_slices_without_opacity_stay_as_they_were(self) -> None:
        own = torch.tensor([1.0, 0.6])
        assert torch.equal(even_weights([torch.ones(2, 1, 4, 4)], KINDS, own), own)


class TestDistortion:
    @pytest.mark.parametrize("kinds", [KINDS, Kinds.of(PHANTOM_TISSUES)])
    def test_several_kinds_are_made_neither_denser_nor_fainter(self, kinds: Kinds) -> None:
        kept = keep_kinds(Distortion(), kinds)
        assert (kept.consolidation, kept.faint) == (0, 0)
        assert kept.noise == Distortion().noise

    def test_one_kind_of_opacity_on_a_side_may_be(self) -> None:
        how = Distortion()
        assert keep_kinds(how, SIDES) is how


def promise_rare(labels: torch.Tensor, recipe: SoftRecipe) -> float:
    """The probability, on average over its pixels, of a rare kind that is denser than the common one."""
    chance = torch.Generator().manual_seed(0)
    rare = labels == RARE
    hu = (-500 + 100 * torch.randn(labels.shape, generator=chance) + 200 * rare)[:, 0].to(torch.int16)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 16, 1), nn.ReLU(), nn.Conv2d(16, len(CLASSES), 1))
    trained = train_soft(network, [Read(hu, labels)], KINDS, recipe)
    with torch.no_grad():
        shares = trained(to_input(hu[:, None].float())).softmax(1)
    return float(shares[:, RARE][rare[:, 0]].mean())


SHORT = SoftRecipe(steps=40, batch=2, rate=3e-2, view=(32, 32), distortion=PLAIN, average=0.8, slow=())


def test_even_draws_teach_a_kind_in_few_slices() -> None:
    labels = torch.full((12, 1, 32, 32), COMMON, dtype=torch.uint8)
    labels[0] = RARE
    plain = promise_rare(labels, SHORT)
    assert promise_rare(labels, replace(SHORT, even=True)) > 2 * plain
