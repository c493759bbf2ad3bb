"""Fine-tuning: new masks, perhaps old ones mixed in, until the held-out patients gain no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from bedside_export.errors import ExportError
from bedside_export.finetuning import report
from bedside_export.finetuning.networks import Learner
from bedside_export.finetuning.plan import Plan
from bedside_export.finetuning.run import OLD, Run
from bedside_export.finetuning.state import fingerprint, load_state, save_state, save_weights
from bedside_export.recipes.ct.augment import Kinds
from bedside_export.recipes.ct.cases import HELD_OUT, TRAIN
from bedside_export.recipes.ct.masks import Masked, check_apart

__all__ = ["WEIGHTS", "Outcome", "adapt"]

WEIGHTS: Final = "network.pt"
"""What comes of it: a state dict."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    rows: list[dict[str, Any]]
    """As of `report.summarise`."""
    cases: list[dict[str, Any]]
    """Each measured case: number, source, part, before, after."""
    steps: int
    """Steps taken."""
    best_step: int
    """The step whose weights were kept; 0 where nothing was better than the first ones."""
    history: list[dict[str, float]]
    """Steps, mean loss, and score of the held-out patients."""


def adapt(
    learner: Learner,
    cases: Sequence[Masked],
    plan: Plan,
    folder: Path,
    *,
    old: Sequence[Masked] = (),
    told: Callable[[int, float | None], None] = lambda _step, _score: None,
) -> Outcome:
    """Fine-tune a network and write its weights to ``folder``; goes on where an interrupted call was.

    Args:
        learner: The network; trained in place.
        cases: The user's, each with its part.
        plan: Choices.
        folder: Is there. Gets `WEIGHTS`, and `state.STATE`, which the caller removes once all is written: until then
            a further call ends at once with the same outcome.
        old: Cases of what the network knows already, mixed in against forgetting; their sources are called
            ``old: ...``.
        told: Called with the steps taken, and the held-out patients' score where it was just found.

    Raises:
        ExportError: A scan is on both sides, nothing is there to learn from or to hold out, no training mask holds
            opacity, or the folder holds another training.
        OutputError: ``disk-full``; ``output-not-writable``.
    """
    old = [replace(case, entry=replace(case.entry, source=f"{OLD}{case.entry.source}")) for case in old]
    everyone = [*cases, *old]
    check_apart(everyone)
    kinds = _kinds(learner)
    _check_parts(cases, kinds)
    print_ = _fingerprint(learner, plan, everyone)
    state = load_state(folder, print_)
    measured = [case for case in everyone if case.entry.part != TRAIN]
    if state is None:
        before = [report.measure_case(learner.network, case, learner) for case in measured]
    else:
        before = state["before"]
    run = Run(learner, everyone, plan, kinds)
    score = run.look() if state is None else run.restore(state)
    told(run.done, score)
    while not run.finished:
        run.step()
        if run.due:
            score = run.look()
            save_state(folder, {"fingerprint": print_, "before": before, **run.state()})
            told(run.done, score)
        else:
            told(run.done, None)
    learner.network.load_state_dict(run.best.weights)
    after = [report.measure_case(learner.network, case, learner) for case in measured]
    save_weights(folder / WEIGHTS, run.best.weights)
    found = list(zip(measured, before, after, strict=True))
    return Outcome(
        rows=report.summarise(
            [(case.entry.source, case.entry.part, first, last) for case, first, last in found]
        ),
        cases=[
            {
                "number": case.entry.number,
                "source": case.entry.source,
                "part": case.entry.part,
                "before": first,
                "after": last,
            }
            for case, first, last in found
        ],
        steps=run.done,
        best_step=run.best.step,
        history=run.history,
    )


def _kinds(learner: Learner) -> Kinds:
    try:
        return Kinds.of(learner.tissues)
    except ValueError as error:
        raise ExportError(str(error)) from error


def _check_parts(cases: Sequence[Masked], kinds: Kinds) -> None:
    opacity = torch.tensor(kinds.opacity)
    for part, purpose in ((TRAIN, "learn from"), (HELD_OUT, "hold out")):
        own = [case for case in cases if case.entry.part == part]
        if not own:
            raise ExportError(f"there is no case to {purpose}; fine-tuning needs two patients or more")
        if not any(bool(opacity[case.readings.unique().long()].any()) for case in own):
            raise ExportError(
                f"the labels of the cases to {purpose} hold no opacity ({len(own)} cases); give masks that hold some"
            )


def _fingerprint(learner: Learner, plan: Plan, cases: Sequence[Masked]) -> str:
    return fingerprint(
        {
            "plan": asdict(plan),
            "arch": learner.arch,
            "tissues": [asdict(tissue) for tissue in learner.tissues],
            "window": asdict(learner.window),
            "tile": learner.tile,
            "context": learner.context,
            "weights": [float(value.double().sum()) for value in learner.network.state_dict().values()],
            "cases": [[case.digest, case.entry.part, case.entry.source] for case in cases],
        }
    )
