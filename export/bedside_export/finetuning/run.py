"""One fine-tuning from its first look at the held-out patients to its last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, Final

import torch
from torch import Tensor, nn

from bedside_export.finetuning import report
from bedside_export.finetuning.networks import Learner
from bedside_export.finetuning.plan import Plan, freeze, views
from bedside_export.recipes.ct.augment import Kinds
from bedside_export.recipes.ct.cases import HELD_OUT, TRAIN
from bedside_export.recipes.ct.evenness import keep_kinds
from bedside_export.recipes.ct.masks import Masked
from bedside_export.recipes.ct.trainer import Course, Scans, Trainer, draw, make_groups, soft_loss

__all__ = ["Best", "Run"]

OLD: Final = "old: "
"""In front of the source of old data."""


@dataclass(frozen=True, slots=True)
class Best:
    """The best weights so far."""

    step: int
    """After how many steps."""
    score: float
    """As of `report.score`."""
    weights: dict[str, Tensor]
    """A state dict."""


class Run:
    """Steps, looks at the held-out patients, and the best weights.

    Args:
        learner: The network; trained in place.
        cases: All of them; those whose source begins with `OLD` are old data.
        plan: Choices.
        kinds: What the classes are.
    """

    def __init__(self, learner: Learner, cases: Sequence[Masked], plan: Plan, kinds: Kinds) -> None:
        self._learner, self._plan, self._kinds = learner, plan, kinds
        self._held_out = [case for case in cases if case.entry.part == HELD_OUT]
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(plan.seed)
        self._generator = torch.Generator().manual_seed(plan.seed)
        network = learner.network.to(self._device)
        freeze(network, plan.frozen)
        groups = make_groups(network, rate=plan.rate, decay=plan.weight_decay)
        self._trainer = Trainer(network, groups, Course(plan.steps, average=plan.average))
        self._sources = self._gather([case for case in cases if case.entry.part == TRAIN])
        self._views = views(learner.tile, learner.multiple)
        self._distortion = keep_kinds(plan.distortion, kinds)
        self._losses: list[float] = []
        self.best = Best(0, -1.0, {})
        self.history: list[dict[str, float]] = []

    @property
    def done(self) -> int:
        """Steps taken."""
        return self._trainer.done

    @property
    def due(self) -> bool:
        """Whether the held-out patients are to be looked at."""
        return self.done % self._plan.every == 0 or self.done == self._plan.steps

    @property
    def finished(self) -> bool:
        """Whether all steps are taken, or the last looks found nothing better."""
        looks = sum(entry["step"] > self.best.step for entry in self.history)
        return self.done >= self._plan.steps or looks >= self._plan.patience

    def step(self) -> None:
        """Learn from one batch."""
        views, shares = draw(
            self._sources,
            self._views[self.done % len(self._views)],
            self._distortion,
            self._kinds,
            self._generator,
            context=self._learner.context,
        )
        inputs, target = self._learner.prepare(views).to(self._device), shares.to(self._device)

        def find_loss(network: nn.Module) -> Tensor:
            return soft_loss(network(inputs), target, self._kinds, overlap=self._plan.overlap)

        self._losses.append(self._trainer.step(find_loss))

    def look(self) -> float:
        """Measure the held-out patients on some slices, and keep the weights if they are the best."""
        average = self._trainer.average
        found = report.score(
            [
                (case.entry.source, report.measure_case(average, case, self._learner, most=report.SPREAD))
                for case in self._held_out
            ]
        )
        entry: dict[str, float] = {"step": self.done, "score": found}
        if self._losses:
            entry["loss"] = mean(self._losses)
        self.history.append(entry)
        self._losses.clear()
        if found > self.best.score:
            weights = {name: value.detach().cpu().clone() for name, value in average.state_dict().items()}
            self.best = Best(self.done, found, weights)
        return found

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, taken just after a look."""
        return {
            "trainer": self._trainer.state(),
            "slices": self._generator.get_state(),
            "chance": torch.get_rng_state(),
            "best": {"step": self.best.step, "score": self.best.score, "weights": self.best.weights},
            "history": self.history,
        }

    def restore(self, state: dict[str, Any]) -> float:
        """Go on where `state` was taken; returns the last score."""
        self._trainer.restore(state["trainer"])
        self._generator.set_state(state["slices"])
        torch.set_rng_state(state["chance"])
        self.best = Best(**state["best"])
        self.history = list(state["history"])
        return self.history[-1]["score"]

    def _gather(self, cases: Sequence[Masked]) -> list[tuple[Scans, int]]:
        """New and old scans, and how many slices of a batch are drawn of each."""
        old = [case for case in cases if case.entry.source.startswith(OLD)]
        new = [case for case in cases if not case.entry.source.startswith(OLD)]
        counts = self._plan.shares(old=bool(old))
        return [
            (Scans.of([case.hu for case in own], [case.readings for case in own], self._kinds), count)
            for own, count in zip((new, old), counts, strict=True)
            if count
        ]
