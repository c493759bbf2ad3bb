"""How far the chest X-ray scores move where nothing changed in the patient, and how far two radiologists differ.

    python -m bedside_export.recipes.cxr.repeatability --data ../shared/data --splits DIR

``DIR`` holds ``split-SEED/network.pt`` of `cxr.severity`'s ``evaluate``, and gets ``repeatability.json``, which
`cxr.bundle` puts into the manifest. Each picture of a patient whom a network was not trained on is taken again several
times, as a second exposure minutes later would show it (`Retake`); the spread of its scores is the error of
measurement (`spread`).

How far a real retake differs was not measured: `Retake` says what was assumed. Breath, posture and projection are not
in it, so that the true noise is larger. How many changes beyond it go the experts' way is measured too
(`cxr.changes`), and told with it.
"""

from __future__ import annotations

import argparse
import json
import logging
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bedside_export.recipes.cxr.changes import changes_of, measure_changes
from bedside_export.recipes.cxr.data import (
    Collection,
    DataError,
    Picture,
    read_collection,
    read_table,
    read_thumbnails,
    split,
)
from bedside_export.recipes.cxr.network import SeverityNetwork
from bedside_export.recipes.cxr.repeatability_report import FILE
from bedside_export.recipes.cxr.report import MAXIMA, SCORES
from bedside_export.recipes.cxr.retake import Retake, retake
from bedside_export.recipes.cxr.severity import predict
from bedside_export.recipes.cxr.targets import input_square
from bedside_export.recipes.progress import tell_progress
from bedside_export.recipes.spread import measure_spread

__all__ = [
    "Series",
    "measure",
    "measure_observers",
    "measure_repeatability",
    "repeat",
]

log = logging.getLogger(__name__)

REPEATS: Final = 8
"""Retakes of each picture."""
BRIXIA_MAXIMUM: Final = 18
"""Of the global Brixia score: six zones of 0 to 3."""

Predict = Callable[[Tensor], npt.NDArray[np.float32]]
"""Input squares ``(P, 1, 320, 320)`` to severity ``(P, 2)``, unclipped."""


@dataclass(frozen=True, slots=True)
class Series:
    """One picture's scores over its retakes, by a network that never saw the patient."""

    patient: str
    """Whose picture it is."""
    scores: npt.NDArray[np.float64]
    """``(repeats, 2)``, within the scales."""


def repeat(
    predict: Predict,
    collection: Collection,
    pictures: Sequence[Picture],
    how: Retake,
    *,
    repeats: int = REPEATS,
    seed: int = 0,
) -> list[Series]:
    """Scores of each picture, taken again.

    Args:
        predict: A network.
        collection: Where the pictures lie.
        pictures: Of patients that it was not trained on; those of no known patient are left out.
        how: How far retakes differ.
        repeats: How many of each, two or more.
        seed: Every picture has its own chance, so that its retakes don't depend on which others there are.
    """
    found = []
    for picture in pictures:
        if picture.patient is None:
            continue
        generator = torch.Generator().manual_seed(seed << 32 | zlib.crc32(picture.name.encode()))
        grey = collection.grey(picture)
        squares = np.stack([input_square(retake(grey, how, generator)) for _ in range(repeats)])
        scores = predict(torch.from_numpy(squares).unsqueeze(1))
        found.append(Series(picture.patient, _clipped(scores)))
    return found


def _clipped(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Severity ``(P, 2)`` within the scales."""
    return np.clip(np.asarray(scores, np.float64), 0, MAXIMA)


def measure_repeatability(series: Sequence[Series], *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Standard error of measurement and smallest change of each score; every patient weighs the same.

    Raises:
        DataError: fewer than two patients.
    """
    return {
        name: measure_spread([(one.patient, one.scores[:, column]) for one in series], seed=seed)
        for column, name in enumerate(SCORES)
    }


def measure_observers(data: Path, *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """The same of two radiologists who read one picture: global Brixia scores, over 18 * 8, as extent.

    Nobody read a patient's opacity twice, so that there is none for it.

    Args:
        data: The folder that holds ``cxr/``.
        seed: Of the interval.

    Raises:
        DataError: the table is missing, or a score is out of its scale.
    """
    pairs = []
    for row in read_table(data / "cxr" / "brixia.csv", ("image", "S-Global", "J-Global")):
        values = np.array([float(row["S-Global"]), float(row["J-Global"])])
        if not ((values >= 0) & (values <= BRIXIA_MAXIMUM)).all():
            raise DataError(f"brixia.csv has a global score out of 0 to {BRIXIA_MAXIMUM}")
        pairs.append((row["image"], values * (MAXIMA[0] / BRIXIA_MAXIMUM)))
    return {SCORES[0]: measure_spread(pairs, seed=seed)}


def measure(
    data: Path, splits: Path, *, how: Retake | None = None, repeats: int = REPEATS, seed: int = 0
) -> dict[str, Any]:
    """Measures the networks of all splits that are there, each on the patients whom it was not trained on.

    Args:
        data: The folder that holds ``cxr/``.
        splits: Has ``split-SEED/network.pt``.
        how: How far retakes differ; None for the defaults.
        repeats: Retakes of each picture.
        seed: Of all chance.

    Returns:
        What is written to `FILE`.

    Raises:
        DataError: there is no network.
    """
    how = how or Retake()
    collection = read_collection(data)
    thumbnails = read_thumbnails(collection)
    series: list[Series] = []
    scored: list[tuple[Sequence[Picture], npt.NDArray[np.float64]]] = []
    seeds = sorted(int(path.parent.name.removeprefix("split-")) for path in splits.glob("split-*/network.pt"))
    if not seeds:
        raise DataError("--splits has no split-*/network.pt; run cxr.severity evaluate first")
    for number in seeds:
        network = SeverityNetwork()
        weights = torch.load(splits / f"split-{number}" / "network.pt", weights_only=True)
        network.load_state_dict(weights)
        held_out = split(collection, thumbnails, seed=number).held_out
        series += repeat(partial(predict, network), collection, held_out, how, repeats=repeats, seed=seed)
        squares = torch.from_numpy(np.stack([input_square(collection.grey(each)) for each in held_out]))
        scored.append((held_out, _clipped(predict(network, squares.unsqueeze(1)))))
        log.info("split %d: %d pictures", number, len(held_out))
    own = measure_repeatability(series, seed=seed)
    smallest = {name: one["smallest_change"] for name, one in own.items()}
    return {
        "retake": asdict(how),
        "repeats": repeats,
        "seed": seed,
        "seeds": seeds,
        "repeatability": own,
        "observers": measure_observers(data, seed=seed),
        "changes": measure_changes(changes_of(collection, scored), smallest),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of the module's text."""
    parser = argparse.ArgumentParser(prog="cxr.repeatability", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that holds cxr/")
    parser.add_argument("--splits", type=Path, required=True, help="folder of cxr.severity's evaluate")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="retakes of each picture, 2 or more")
    parser.add_argument("--seed", type=int, default=0, help="of all chance")
    parser.add_argument("--threads", type=int, default=2, help="threads of the networks")
    given = parser.parse_args(arguments)
    if given.repeats < 2:
        parser.error("--repeats must be 2 or more: a spread needs two")
    tell_progress()
    torch.set_num_threads(given.threads)
    found = measure(given.data, given.splits, repeats=given.repeats, seed=given.seed)
    (given.splits / FILE).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for name, one in found["repeatability"].items():
        log.info(
            "%s: sd %.3f, smallest change %.3f, by the formula %.3f, which held %.1f %% of pairs",
            name,
            *(one[key] for key in ("sd", "smallest_change", "by_formula")),
            100 * one["held_by_formula"],
        )
    for name, one in found["observers"].items():
        log.info(
            "%s of two radiologists: sd %.3f, smallest change %.3f", name, one["sd"], one["smallest_change"]
        )


if __name__ == "__main__":
    main()
