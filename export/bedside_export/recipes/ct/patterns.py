"""The six patterns of opacity, learnt from labels that name them.

    python -m bedside_export.recipes.ct.patterns --masks FOLDER --out DIR
    python -m bedside_export.recipes.ct.patterns --phantoms --out DIR

``FOLDER`` holds scans and label maps with the published classes (Lensink et al. 2020): 0 background, 1 left lung, 2
right lung, 3 pleural effusion, 4 lymphadenopathy, 5 pure ground glass, 6 ground glass with smooth interlobular septal
thickening, 7 crazy paving, 8 organizing pneumonia, 9 atoll sign, 10 consolidation (`bedside_export.recipes.ct.cases`
says how files are named). No such labels are public, so no bundle of it ships. Some patients are held out; the report
tells how patterns, and the published groups of them, are told apart there, lesion by lesion and voxel by voxel. Scans
with several readings are learnt from all of them. Patterns are small and some are rare: each weighs as much as any
other in what is drawn and in the loss, and nothing makes one look like another (`bedside_export.recipes.ct.evenness`).
``--phantoms`` shows that the training can do it, on drawings; how well it does on patients is not known. Not for
clinical use.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import nn

from bedside.results import write_bytes
from bedside_export.ct_rules import TISSUES
from bedside_export.errors import ExportError
from bedside_export.recipes.ct.augment import Distortion, Kinds
from bedside_export.recipes.ct.cases import HELD_OUT, TRAIN, list_cases, split_cases
from bedside_export.recipes.ct.inference import find_shares
from bedside_export.recipes.ct.masks import Rules, check_apart, read_masked
from bedside_export.recipes.ct.network import PIXEL_MM, STRIDE, to_input
from bedside_export.recipes.ct.phantoms import PATTERNS, make_specimen
from bedside_export.recipes.ct.soft import Read, SoftRecipe, build_started, train_soft
from bedside_export.recipes.ct.soft_readers import Reader, majority, read_specimen
from bedside_export.recipes.progress import tell_progress

log = logging.getLogger(__name__)

CLASSES: Final = TISSUES["l3-classes"]
"""The published classes."""
FIRST: Final = 5
"""Class of the first pattern."""
GROUPS: Final = (0, 1, 1, 0, 0, 2, 3, 3, 4, 4, 4)
"""Published group of each class."""
RECIPE: Final = SoftRecipe(overlap_of_kinds=1.0, even=True)
"""For scans; tried on no patients, for want of labels."""
PHANTOM_RECIPE: Final = SoftRecipe(
    steps=600,
    batch=6,
    rate=2e-3,
    overlap=0.5,
    overlap_of_kinds=1.0,
    even=True,
    view=(96, 128),
    distortion=Distortion(
        shift=0.05,
        scale=0.1,
        crop=0.0,
        density=0.0,
        sharpness=0.0,
        noise=15.0,
        consolidation=0.0,
        bedding=0.0,
        nonsense=0.0,
    ),
)
"""For phantoms. The overlap of each kind is what teaches them: the loss of all opacity together hardly feels which
pattern a lesion is."""
PHANTOMS, JUDGED = range(36), range(200, 224)
"""Seeds of the phantoms to learn from and of those to judge by; the recipe was chosen on others (100 to 123)."""


def make_phantoms(seeds: Sequence[int]) -> list[Read]:
    """Phantoms with every pattern, read by one who knows them all."""
    classes = {name: FIRST + k for k, name in enumerate(PATTERNS)}
    made = []
    for seed in seeds:
        specimen = make_specimen(seed, lesions=(5, 8))
        chance = np.random.Generator(np.random.PCG64((2, seed)))
        readings = read_specimen(specimen, [Reader()], classes, chance)
        made.append(Read(torch.from_numpy(specimen.hu), torch.from_numpy(readings)))
    return made


def measure(network: nn.Module, cases: Sequence[Read]) -> dict[str, Any]:
    """How patterns are told apart.

    Args:
        network: As `ct.soft.train_soft` returns it.
        cases: None of whom it learned from.

    Returns:
        ``confusion``, voxels by true (row) and found (column) class; Dice of each pattern and group; and of lesions,
        connected voxels of one pattern: how many there are, and the share whose most frequent found pattern is right,
        of all and of each pattern, and how many of each pattern (row) were found to be which (column), the last
        column for those that were mostly found to be no opacity, which counts as wrong.
    """
    kinds = len(CLASSES)
    confusion = np.zeros((kinds, kinds), np.int64)
    lesions: list[tuple[int, int]] = []
    for case in cases:
        shares = torch.cat(list(find_shares(network, case.hu, to_input, multiple=STRIDE)))
        found = shares.argmax(1).numpy().astype(np.int64)
        truth = majority(case.readings.numpy(), kinds)[:, 0].astype(np.int64)
        confusion += np.bincount((truth * kinds + found).ravel(), minlength=kinds**2).reshape(kinds, kinds)
        lesions += _read_lesions(truth, found)
    return {
        "classes": [tissue.name for tissue in CLASSES],
        "confusion": confusion.tolist(),
        "dice": {CLASSES[k].name: _dice(confusion, [k]) for k in range(1, kinds)},
        "dice_of_groups": {
            str(group): _dice(confusion, [k for k in range(kinds) if GROUPS[k] == group])
            for group in range(1, 5)
        },
        "lesions": _count(lesions),
    }


def _read_lesions(truth: npt.NDArray[np.int64], found: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """True and found class of each lesion of a scan; 0 where most of it was not found to be opacity."""
    pairs = []
    for k in range(FIRST, len(CLASSES)):
        parts, count = ndimage.label(truth == k)
        for part in range(1, count + 1):
            votes = np.bincount(found[parts == part], minlength=len(CLASSES))
            seen = 2 * votes[FIRST:].sum() > votes.sum()
            pairs.append((k, FIRST + int(votes[FIRST:].argmax()) if seen else 0))
    return pairs


def _count(lesions: Sequence[tuple[int, int]]) -> dict[str, Any]:
    by_pattern = {}
    named = [*range(FIRST, len(CLASSES)), 0]
    for k in range(FIRST, len(CLASSES)):
        own = [found for true, found in lesions if true == k]
        by_pattern[CLASSES[k].name] = {
            "lesions": len(own),
            "right": sum(found == k for found in own) / len(own) if own else None,
        }
    right = sum(true == found for true, found in lesions)
    return {
        "lesions": len(lesions),
        "right": right / len(lesions) if lesions else None,
        "by_pattern": by_pattern,
        "confusion": [[lesions.count((true, found)) for found in named] for true in named[:-1]],
    }


def _dice(confusion: npt.NDArray[np.int64], classes: Sequence[int]) -> float | None:
    total = int(confusion[classes].sum() + confusion[:, classes].sum())
    return 2 * int(confusion[np.ix_(classes, classes)].sum()) / total if total else None


def train(learn: Sequence[Read], recipe: SoftRecipe) -> nn.Module:
    """A network that tells patterns apart, in evaluation mode; it starts from the built-in bundle's weights.

    Raises:
        ExportError: Labels name no pattern, or but one.
    """
    named = {int(k) for case in learn for k in case.readings.unique() if int(k) >= FIRST}
    if len(named) < 2:
        raise ExportError(
            f"the labels name {len(named)} of the six patterns (classes {FIRST} to {len(CLASSES) - 1}), and telling "
            "them apart wants two or more; give labels that name patterns"
        )
    torch.manual_seed(recipe.seed)
    return train_soft(build_started(CLASSES), learn, Kinds.of(CLASSES), recipe)


def read_folder(masks: Path, table: Path | None = None) -> dict[str, list[Read]]:
    """Scans of a folder by what they are for.

    Raises:
        ExportError: As `ct.cases.list_cases`, `ct.cases.split_cases`, `ct.masks.read_masked` and
            `ct.masks.check_apart`.
    """
    rules = Rules(CLASSES, (PIXEL_MM, PIXEL_MM))
    cases = [read_masked(entry, rules) for entry in split_cases(list_cases(masks, table), share=0.25, seed=0)]
    check_apart(cases)
    return {
        part: [Read(case.hu, case.readings) for case in cases if case.entry.part == part]
        for part in (TRAIN, HELD_OUT)
    }


@click.command(help="Train the light network on labels of the six patterns.")
@click.option("--masks", type=click.Path(path_type=Path), help="Folder of scans with labels of patterns.")
@click.option("--table", type=click.Path(path_type=Path), help="CSV: case, source, patient, part.")
@click.option("--phantoms", is_flag=True, help="Drawings with a texture for each pattern instead.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder for weights and measurements."
)
@click.option("--threads", default=2, show_default=True, help="Threads of the training.")
def main(masks: Path | None, table: Path | None, out: Path, threads: int, *, phantoms: bool) -> None:
    """The command line of the module's text."""
    tell_progress()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    if phantoms == (masks is not None):
        raise click.UsageError("give one of --masks FOLDER and --phantoms")
    try:
        if masks is None:
            recipe = PHANTOM_RECIPE
            learn, judge = make_phantoms(PHANTOMS), make_phantoms(JUDGED)
        else:
            recipe = RECIPE
            cases = read_folder(masks, table)
            learn, judge = cases[TRAIN], cases[HELD_OUT]
        network = train(learn, recipe)
    except ExportError as error:
        raise click.ClickException(str(error)) from error
    measured = measure(network, judge)
    out.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), out / "network.pt")
    write_bytes(out / "metrics.json", (json.dumps(measured, indent=2) + "\n").encode())
    for line in describe(measured):
        click.echo(line)


def describe(measured: dict[str, Any]) -> list[str]:
    """What `measure` found as a table: of each pattern its lesions, and what they were found as."""
    lesions = measured["lesions"]
    heads = "".join(f"{k:4}" for k in range(FIRST, len(CLASSES)))
    rows = [f"{'lesions, right, Dice of voxels; found as':60}{heads}  none"]
    for k, found in enumerate(lesions["confusion"], FIRST):
        name = CLASSES[k].name
        told, dice = lesions["by_pattern"][name], measured["dice"][name]
        right = "n/a" if told["right"] is None else f"{told['right']:.0%}"
        overlap = "n/a" if dice is None else f"{dice:.2f}"
        counts = "".join(f"{count:4}" for count in found[:-1])
        rows.append(f"{k:2} {name:36}{told['lesions']:7}{right:>7}{overlap:>7}{counts}{found[-1]:6}")
    rows.append(f"{'   all':39}{lesions['lesions']:7}{lesions['right'] or 0:7.0%}; by chance 17%")
    return rows


if __name__ == "__main__":
    main()
