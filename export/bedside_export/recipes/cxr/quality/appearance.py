"""How the network that tells a frontal chest X-ray from everything else was trained, and what it refuses.

    R="python -m bedside_export.recipes.cxr.quality.appearance --data ../shared/data --others DIR"
    $R --out DIR evaluate
    $R --out DIR train

``--others`` holds downloaded packages that ship pictures: `bedside_export.recipes.cxr.quality.packages` lists them.
``evaluate`` trains five networks, each without a fifth of the patients and without some kinds of pictures, and writes
``quality-metrics.json``; ``train`` trains the final one, ``quality.pt``. `cxr.bundle` takes both.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from bedside_export.recipes.cxr.quality.data import FOLDS, HELD_OUT, Chests, Others, read_chests, read_others
from bedside_export.recipes.cxr.quality.network import POOL, QualityNetwork
from bedside_export.recipes.cxr.quality.report import FRONTAL, HANDLED, PHANTOM, Answers, summarise
from bedside_export.recipes.cxr.quality.training import DETAIL, Recipe, shrink, train_network
from bedside_export.recipes.cxr.quality.warp import MILD, PLAIN, SPOILS, show
from bedside_export.recipes.progress import tell_progress

__all__ = ["METRICS", "WEIGHTS", "answer_fold", "collect", "evaluate", "train"]

log = logging.getLogger(__name__)

METRICS: Final = "quality-metrics.json"
"""What ``evaluate`` writes."""
WEIGHTS: Final = "quality.pt"
"""What ``train`` writes: a state dict of `QualityNetwork`."""
KEPT: Final = ("chests.npz", "others.npz")
"""Pictures, kept for the next run."""

ANSWERS: Final = "answers.npz"
"""What the folds' networks answered, for a closer look."""

_TOGETHER: Final = 4
"""Pictures that are put together in the same wrong order."""

PROTOCOL: Final = (
    "Five folds. A fold's network has seen no picture of the fold's patients (nor one that nearly equals one of "
    "theirs, nor the fold's phantom), and no picture of the kinds that the fold holds out: whether photographs are "
    "refused is asked of a network that has never seen one. It is also asked about the fold's chest X-rays turned, "
    "inverted, cut and otherwise spoilt, which it has learnt on other patients' (but for two beside each other in one "
    "fold). The "
    "threshold that refuses a fold's pictures comes from the other folds' chest X-rays; the bundle's from all of them. "
    "The final network has learnt from everything, and is not measured itself. Frontal chest X-rays, CT and one leg "
    "were at hand: lateral X-rays and those of other parts of the body are stood in for by projections of CT and by "
    "drawings."
)


@torch.no_grad()
def answer_fold(network: QualityNetwork, chests: Chests, others: Others, *, fold: int) -> Answers:
    """What a fold's network says of what it has not seen.

    Args:
        network: In evaluation mode.
        chests: All chest X-rays.
        others: All other pictures.
        fold: Number of the fold.
    """
    held_out = chests.folds == fold
    patients, phantoms = ((held_out & (chests.phantoms == of)).nonzero()[:, 0] for of in (False, True))
    kinds: list[str] = []
    looks: list[Tensor] = []

    def ask(kind: str, pictures: Tensor) -> None:
        kinds.extend([kind] * len(pictures))
        looks.extend(network.judge(part).softmax(1) for part in pictures.split(64))

    ask(FRONTAL, shrink(chests.squares[patients], POOL))
    if len(phantoms):
        ask(PHANTOM, shrink(chests.squares[phantoms], POOL))
    generator = torch.Generator().manual_seed(1000 + fold)
    halves, extents = shrink(chests.squares[patients], 2), chests.extents[patients]
    ask(HANDLED, show(halves, extents, "frontal", MILD, generator))
    for spoil in list(SPOILS)[1:]:
        for part in torch.arange(len(patients)).split(_TOGETHER):  # each part is cut to other pieces
            squares = chests.squares[patients[part]].float() / 255 if spoil == DETAIL else halves[part]
            ask(spoil, show(squares, extents[part], spoil, PLAIN, generator))
    rows = others.unseen(fold)
    for kind in HELD_OUT[fold]:
        chosen = rows[torch.tensor([others.kinds[row] == kind for row in rows.tolist()], dtype=torch.bool)]
        if len(chosen):
            ask(kind, shrink(others.squares[chosen], POOL))
    return Answers(tuple(kinds), (fold,) * len(kinds), torch.cat(looks).numpy())


def evaluate(
    data: Path,
    packages: Path,
    out: Path,
    *,
    recipe: Recipe | None = None,
    folds: Sequence[int] = range(FOLDS),
) -> dict[str, Any]:
    """Measures the recipe on what its networks have not seen; see `PROTOCOL`.

    Args:
        data: The folder that holds ``cxr/``, ``ct/`` and ``dicom/``.
        packages: The folder of downloaded packages.
        out: Where to write; a fold that is there with the same recipe is not trained again.
        recipe: Choices of the training; the defaults are the built-in bundle's.
        folds: Which are trained; if not all, nothing is measured: a way to train them beside each other.

    Returns:
        What was written to ``out/quality-metrics.json``; empty if not all folds are asked for.
    """
    recipe = recipe or Recipe()
    chests, others = collect(data, packages, out)
    networks = {
        fold: _fold_network(chests, others, out / f"fold-{fold}", recipe, fold=fold) for fold in folds
    }
    if networks.keys() != set(range(FOLDS)):
        return {}
    answers = [answer_fold(network, chests, others, fold=fold) for fold, network in networks.items()]
    together = Answers(
        tuple(kind for each in answers for kind in each.kinds),
        tuple(fold for each in answers for fold in each.folds),
        np.concatenate([each.looks for each in answers]),
    )
    np.savez(out / ANSWERS, kinds=together.kinds, folds=together.folds, looks=together.looks)
    metrics = {
        "protocol": PROTOCOL,
        "folds": FOLDS,
        "held_out": [list(kinds) for kinds in HELD_OUT],
        **summarise(together),
        "recipe": asdict(recipe),
        "versions": _versions(),
    }
    (out / METRICS).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return metrics


def train(data: Path, packages: Path, out: Path, *, recipe: Recipe | None = None) -> Path:
    """Trains the final network on everything.

    Args:
        data: As in `evaluate`.
        packages: As in `evaluate`.
        out: Gets ``quality.pt``.
        recipe: Choices of the training; the defaults are the built-in bundle's.

    Returns:
        The weights.
    """
    chests, others = collect(data, packages, out)
    network = train_network(chests, others, recipe or Recipe(), fold=-1)
    torch.save(network.state_dict(), out / WEIGHTS)
    return out / WEIGHTS


def collect(data: Path, packages: Path, out: Path) -> tuple[Chests, Others]:
    """All pictures, as the network sees them; read once, and kept in ``out`` for the next run.

    Args:
        data: As in `evaluate`.
        packages: As in `evaluate`.
        out: Folder, made if it is not there.

    Raises:
        DataError: A package is not there, or holds none of its pictures.
    """
    out.mkdir(parents=True, exist_ok=True)
    chests, others = (out / name for name in KEPT)
    return read_chests(data, keep=chests), read_others(data, packages, keep=others)


def _fold_network(
    chests: Chests, others: Others, folder: Path, recipe: Recipe, *, fold: int
) -> QualityNetwork:
    """The network of a fold: an earlier run's, if that had the same recipe."""
    made, weights = folder / "recipe.json", folder / WEIGHTS
    if weights.is_file() and json.loads(made.read_text(encoding="utf-8")) == asdict(recipe):
        network = QualityNetwork()
        network.load_state_dict(torch.load(weights, weights_only=True))
        return network.eval()
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    network = train_network(chests, others, recipe, fold=fold)
    log.info("fold %d took %.0f s", fold, time.monotonic() - started)
    torch.save(network.state_dict(), weights)
    made.write_text(json.dumps(asdict(recipe)) + "\n", encoding="utf-8")
    return network


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of the module's text."""
    parser = argparse.ArgumentParser(
        prog="cxr.quality.appearance", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder that holds cxr/, ct/"
    )
    parser.add_argument("--others", type=Path, required=True, help="folder of downloaded packages")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and measurements")
    parser.add_argument("--threads", type=int, default=2, help="threads of the training")
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)), help="parts of evaluate")
    parser.add_argument("command", choices=("evaluate", "train"))
    given = parser.parse_args(arguments)
    tell_progress()
    torch.set_num_threads(given.threads)
    if given.command == "evaluate":
        evaluate(given.data, given.others, given.out, folds=given.folds)
    else:
        train(given.data, given.others, given.out)


if __name__ == "__main__":
    main()
