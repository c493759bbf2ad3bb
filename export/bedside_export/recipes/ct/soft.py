"""Training on what several readers drew, and whether its probabilities are theirs.

    python -m bedside_export.recipes.ct.soft --masks FOLDER --out DIR
    python -m bedside_export.recipes.ct.soft --phantoms --out DIR

``FOLDER`` holds scans with two readings or more each (`bedside_export.recipes.ct.cases`). The network learns from the
share of readers for each class at each voxel, and for comparison, on the same scans with the same seed, from the
majority's answer. Patients who are held out tell how well each is calibrated (calibration error), whether its answers
vary as readers do (generalised energy distance), and how far the expected volume is from the readers' mean.
``--phantoms`` does it on drawings whose readers disagree in known ways. Training starts from the built-in bundle's
weights: scans that it was trained on are no test of it. Not for clinical use.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, Final

import click
import numpy as np
import torch
from torch import Tensor, nn

from bedside.contract import Tissue
from bedside.results import write_bytes
from bedside_export.ct_rules import read_tissues
from bedside_export.errors import ExportError
from bedside_export.finetuning.networks import BUILT_IN, Wanted, open_learner
from bedside_export.recipes.ct import soft_report as report
from bedside_export.recipes.ct.augment import Distortion, Kinds
from bedside_export.recipes.ct.cases import HELD_OUT, TRAIN, list_cases, split_cases
from bedside_export.recipes.ct.evenness import even_weights, keep_kinds, overlap_of_kinds
from bedside_export.recipes.ct.inference import find_shares
from bedside_export.recipes.ct.masks import Masked, Rules, check_apart, read_masked
from bedside_export.recipes.ct.network import PIXEL_MM, STRIDE, to_input
from bedside_export.recipes.ct.phantoms import make_specimen
from bedside_export.recipes.ct.soft_readers import Reader, majority, read_specimen
from bedside_export.recipes.ct.trainer import (
    Course,
    Scans,
    Trainer,
    draw,
    make_groups,
    soft_loss,
    to_shares,
)
from bedside_export.recipes.progress import tell_progress

log = logging.getLogger(__name__)

LABELS: Final = ("soft", "majority")
"""What can be learnt from: the share of readers, or the answer of most."""
PHANTOM_TISSUES: Final = (
    Tissue("background"),
    Tissue("lung", lung=True),
    Tissue("ground glass", opacity=True, lung=True),
    Tissue("consolidation", opacity=True, lung=True),
)
"""Of the phantoms."""
PANEL: Final = (
    Reader(3.0, 2.0, 0.05, {"pure ground glass": {"pure ground glass": 1.0}}),
    Reader(0.0, 2.0, 0.15, {"organizing pneumonia": {"organizing pneumonia": 0.3, "consolidation": 0.7}}),
    Reader(-3.0, 2.0, 0.30, {"organizing pneumonia": {"organizing pneumonia": 0.8, "consolidation": 0.2}}),
)
"""Three readers, generous to sparing; organizing pneumonia is ground glass to one and consolidation to another."""
_PATTERNS: Final = {"pure ground glass": 2, "organizing pneumonia": 2, "consolidation": 3}
_JUDGES: Final = 4
"""Times that the panel reads a held-out phantom: more readings than were learnt from, for a truth with less chance."""


@dataclass(frozen=True, slots=True)
class SoftRecipe:
    """Every choice of the training."""

    steps: int = 500
    """Batches."""
    batch: int = 8
    """Slices a batch."""
    rate: float = 1.5e-3
    """Greatest learning rate of parts named in `slow`; of the others twice that, as in the built-in recipe."""
    slow: tuple[str, ...] = ("stem", "levels")
    """Beginnings of the names of parameters that were trained before; empty for all at one rate."""
    weight_decay: float = 0.01
    """AdamW's."""
    average: float = 0.985
    """Decay of the running average of the weights."""
    overlap: float = 0.0
    """Weight of the overlap beside the cross-entropy; over 0 it costs calibration (`ct.trainer.soft_loss`)."""
    overlap_of_kinds: float = 0.0
    """Weight of the overlap of each kind of opacity, at the same cost (`ct.evenness.overlap_of_kinds`)."""
    even: bool = False
    """Whether kinds of opacity are seen about equally often (`ct.evenness.even_weights`)."""
    view: tuple[int, int] = (192, 192)
    """Height and width of what is cut out of slices."""
    seed: int = 0
    """Of chance."""
    distortion: Distortion = field(default_factory=lambda: Distortion(consolidation=0.0))
    """How far slices are distorted; never denser, which would change what readers had said, and with several kinds of
    opacity never fainter either (`ct.evenness.keep_kinds`)."""


@dataclass(frozen=True, slots=True)
class Read:
    """A scan and its readers."""

    hu: Tensor
    """``(Z, Y, X)`` int16 HU."""
    readings: Tensor
    """``(Z, R, Y, X)`` uint8 classes."""


def train_soft(network: nn.Module, cases: Sequence[Read], kinds: Kinds, recipe: SoftRecipe) -> nn.Module:
    """Train a network on the shares of readers.

    Args:
        network: ``(N, 1, h, w)`` -> logits; trained in place. Takes HU by `ct.network.to_input`.
        cases: To learn from; for the majority's answer, with that as their only reading.
        kinds: What the classes are.
        recipe: Choices.

    Returns:
        The running average of the network, in evaluation mode.
    """
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.train().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    scans = Scans.of([case.hu for case in cases], [case.readings for case in cases], kinds)
    if recipe.even:
        scans = replace(scans, weights=even_weights(scans.readings, kinds, scans.weights))
    how = keep_kinds(recipe.distortion, kinds)
    groups = make_groups(network, rate=recipe.rate, decay=recipe.weight_decay, slow=recipe.slow)
    trainer = Trainer(network, groups, Course(recipe.steps, average=recipe.average))
    for step in range(recipe.steps):
        views, shares = draw([(scans, recipe.batch)], recipe.view, how, kinds, generator)
        inputs = to_input(views).to(device).contiguous(memory_format=torch.channels_last)
        loss = trainer.step(
            partial(_look, inputs=inputs, shares=shares.to(device), kinds=kinds, recipe=recipe)
        )
        if step % 50 == 49:
            log.info("step %d of %d, loss %.4f", step + 1, recipe.steps, loss)
    return trainer.average.eval()


def _look(network: nn.Module, *, inputs: Tensor, shares: Tensor, kinds: Kinds, recipe: SoftRecipe) -> Tensor:
    return find_loss(network(inputs), shares, kinds, recipe)


def find_loss(logits: Tensor, shares: Tensor, kinds: Kinds, recipe: SoftRecipe) -> Tensor:
    """What a training goes down: `ct.trainer.soft_loss`, and the overlap of each kind of opacity by its weight."""
    loss = soft_loss(logits, shares, kinds, overlap=recipe.overlap)
    if recipe.overlap_of_kinds:
        loss = loss + recipe.overlap_of_kinds * overlap_of_kinds(logits, shares, kinds)
    return loss


def to_majority(case: Read, classes: int) -> Read:
    """The same scan with the answer of most readers as its only reading."""
    return Read(case.hu, torch.from_numpy(majority(case.readings.numpy(), classes)))


def measure(
    network: nn.Module, cases: Sequence[Read], tissues: Sequence[Tissue], *, multiple: int = STRIDE
) -> dict[str, Any]:
    """How well a network's probabilities are the readers'.

    Args:
        network: As `train_soft` returns it.
        cases: None of whom it learned from.
        tissues: The classes.
        multiple: Of which the network's sides have to be.

    Returns:
        Calibration errors over all cases, and means over cases of the energy distance and of the volumes' errors.
    """
    reliability = report.Reliability([tissue.name for tissue in tissues])
    opacity = [k for k, tissue in enumerate(tissues) if tissue.opacity]
    groups = {"opacity": opacity} | ({tissues[k].name: [k] for k in opacity} if len(opacity) > 1 else {})
    distances: dict[str, list[float]] = {"of_quantiles": [], "of_the_answer": []}
    volumes: dict[str, list[dict[str, float | None]]] = {name: [] for name in groups}
    for case in cases:
        shares = torch.cat(list(find_shares(network, case.hu, to_input, multiple=multiple))).numpy()
        readings = case.readings.numpy()
        mean_readers = to_shares(case.readings.long(), len(tissues)).numpy()
        reliability.add(shares, mean_readers, report.find_region(readings))
        answer = np.asarray(shares.argmax(1)[:, None], np.uint8)
        for name, samples in (("of_quantiles", report.sample_readings(shares)), ("of_the_answer", answer)):
            distances[name].append(report.energy_distance(samples, readings, opacity))
        for name, group in groups.items():
            volumes[name].append(report.expected_volume(shares, readings, group))
    return {
        "cases": len(cases),
        "calibration": reliability.errors(),
        "energy_distance": {name: mean(values) for name, values in distances.items()},
        "volume": {name: _volume(found) for name, found in volumes.items()},
    }


def _volume(found: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    """Means over cases of how far volumes are off, in parts of the readers' mean."""
    told: dict[str, float | None] = {}
    for kind in ("expected", "hard"):
        ratios = [value for each in found if (value := each[kind]) is not None]
        told[f"{kind}_off"] = mean(abs(ratio - 1) for ratio in ratios) if ratios else None
        told[f"{kind}_over_readers"] = mean(ratios) if ratios else None
    return told


def make_phantoms(seeds: Sequence[int], *, times: int = 1, panel: Sequence[Reader] = PANEL) -> list[Read]:
    """Phantoms as the panel reads them, each reader ``times`` times."""
    made = []
    for seed in seeds:
        specimen = make_specimen(seed, patterns=tuple(_PATTERNS), lesions=(5, 8))
        chance = np.random.Generator(np.random.PCG64((1, seed)))
        readings = read_specimen(specimen, tuple(panel) * times, _PATTERNS, chance, sides=(1, 1))
        made.append(Read(torch.from_numpy(specimen.hu), torch.from_numpy(readings)))
    return made


def compare(
    learn: Sequence[Read],
    judge: Sequence[Read],
    tissues: Sequence[Tissue],
    recipe: SoftRecipe,
    build: Callable[[], nn.Module],
) -> tuple[dict[str, Any], dict[str, nn.Module]]:
    """Both ways of learning, measured on the same held-out scans.

    Args:
        learn: Scans to learn from.
        judge: Held-out scans.
        tissues: The classes.
        recipe: Choices of both.
        build: A network with its first weights; called once for each way, after the same seed.

    Returns:
        The measurements and the networks by `LABELS`.
    """
    kinds = Kinds.of(tissues)
    networks = {}
    for labels in LABELS:
        torch.manual_seed(recipe.seed)
        cases = learn if labels == "soft" else [to_majority(case, len(tissues)) for case in learn]
        networks[labels] = train_soft(build(), cases, kinds, recipe)
    measured = {labels: measure(network, judge, tissues) for labels, network in networks.items()}
    used = replace(recipe, distortion=keep_kinds(recipe.distortion, kinds))
    return {**measured, "recipe": asdict(used), "readers": judge[0].readings.shape[1]}, networks


def _read_folder(masks: Path, table: Path | None, tissues: tuple[Tissue, ...]) -> dict[str, list[Read]]:
    entries = split_cases(list_cases(masks, table), share=0.25, seed=0)
    lonely = [entry.number for entry in entries if len(entry.readings) < 2]
    if lonely:
        raise ExportError(
            f"case {lonely[0]} has one reading ({len(lonely)} such cases); soft labels want two or more of each scan, "
            "NAME-labels-1.nii.gz and NAME-labels-2.nii.gz"
        )
    rules = Rules(tissues, (PIXEL_MM, PIXEL_MM))
    cases: list[Masked] = [read_masked(entry, rules) for entry in entries]
    check_apart(cases)
    return {
        part: [Read(case.hu, case.readings) for case in cases if case.entry.part == part]
        for part in (TRAIN, HELD_OUT)
    }


def build_started(tissues: tuple[Tissue, ...]) -> nn.Module:
    """The built-in network with the weights of its bundle, and a new last layer where the classes are others."""
    return open_learner(Wanted(START, BUILT_IN, tissues=tissues)).network


START: Final = "ct-opacity-lite"
"""The bundle whose weights training starts from."""
PHANTOM_RECIPE: Final = SoftRecipe(
    steps=100,
    batch=4,
    rate=1e-3,
    average=0.9,
    view=(96, 128),
    distortion=Distortion(
        shift=0.05, scale=0.1, crop=0, density=0, sharpness=0, noise=15, consolidation=0, nonsense=0
    ),
)
"""Enough for phantoms."""


@click.command(help="Train on several readers' labels and measure calibration, energy distance and volume.")
@click.option("--masks", type=click.Path(path_type=Path), help="Folder of scans with readings.")
@click.option("--table", type=click.Path(path_type=Path), help="CSV: case, source, patient, part.")
@click.option("--phantoms", is_flag=True, help="Drawings instead of scans, and a small network.")
@click.option(
    "--tissues", default="sides", show_default=True, help="Classes, as of bedside-export ct-opacity."
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder for weights and measurements."
)
@click.option("--threads", default=2, show_default=True, help="Threads of the training.")
def main(
    masks: Path | None, table: Path | None, out: Path, tissues: str, threads: int, *, phantoms: bool
) -> None:
    """The command line of the module's text."""
    tell_progress()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    if phantoms == (masks is not None):
        raise click.UsageError("give one of --masks FOLDER and --phantoms")
    try:
        if masks is None:
            known: tuple[Tissue, ...] = PHANTOM_TISSUES
            learn, judge = make_phantoms(range(16)), make_phantoms(range(100, 108), times=_JUDGES)
            measured, networks = compare(learn, judge, known, PHANTOM_RECIPE, partial(build_started, known))
        else:
            known = read_tissues(tissues)
            cases = _read_folder(masks, table, known)
            measured, networks = compare(
                cases[TRAIN],
                cases[HELD_OUT],
                known,
                SoftRecipe(),
                partial(build_started, known),
            )
    except ExportError as error:
        raise click.ClickException(str(error)) from error
    out.mkdir(parents=True, exist_ok=True)
    torch.save(networks["soft"].state_dict(), out / "network.pt")
    write_bytes(out / "metrics.json", (json.dumps(measured, indent=2) + "\n").encode())
    for line in describe(measured):
        click.echo(line)


def describe(measured: dict[str, Any]) -> list[str]:
    """The comparison as a table."""
    rows = [f"{'':34}" + "".join(f"{labels:>10}" for labels in LABELS)]

    def row(name: str, find: Callable[[dict[str, Any]], float | None]) -> None:
        values = [find(measured[labels]) for labels in LABELS]
        rows.append(f"{name:34}" + "".join("       n/a" if v is None else f"{v:10.4f}" for v in values))

    row("calibration error (ECE)", lambda m: m["calibration"]["ece"])
    row("classwise calibration error", lambda m: m["calibration"]["classwise_ece"])
    for name in measured["soft"]["calibration"]["by_class"]:
        row(f"  {name}"[:34], lambda m, name=name: m["calibration"]["by_class"][name])  # type: ignore[misc]
    row("energy distance, quantiles", lambda m: m["energy_distance"]["of_quantiles"])
    row("energy distance, the one answer", lambda m: m["energy_distance"]["of_the_answer"])
    for name in measured["soft"]["volume"]:
        row(f"expected volume off, {name}"[:34], lambda m, name=name: m["volume"][name]["expected_off"])  # type: ignore[misc]
        row(f"hard volume off, {name}"[:34], lambda m, name=name: m["volume"][name]["hard_off"])  # type: ignore[misc]
    return rows


if __name__ == "__main__":
    main()
