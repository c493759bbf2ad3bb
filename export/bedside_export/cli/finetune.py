"""``bedside-export finetune``: a CT network learns from a user's own masks, and becomes a bundle."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bedside_export.cli.console import PATH, say
from bedside_export.cli.options import (
    check_terms,
    check_window,
    make_naming,
    make_window,
    naming_options,
    parse_pair,
    window_options,
)
from bedside_export.errors import ExportError

if TYPE_CHECKING:
    from bedside_export.finetuning import Learner, Outcome, Plan, Wanted
    from bedside_export.recipes.ct.masks import Masked

__all__ = ["finetune"]

INTERRUPTED = 130
"""Exit code, as of a shell."""
REPORT = "report.json"
TISSUES = "tissues.json"


@click.command("finetune")
@click.argument("source", metavar="CHECKPOINT|BUNDLE")
@click.option(
    "--network",
    required=True,
    metavar="NAME",
    help="built-in; l3-unet2d; smp:ARCH:ENCODER; or module:factory, which is imported.",
)
@click.option(
    "--masks",
    type=PATH,
    required=True,
    metavar="DIR",
    help="NAME.nii.gz beside NAME-labels.nii.gz, or folders of 0000.png beside 0000-opacity.png; a folder for each "
    "scanner, or all in one.",
)
@click.option("--table", type=PATH, metavar="CSV", help="Columns case, and source, patient, part if wanted.")
@click.option(
    "--labels",
    type=click.Choice(["tissues", "opacity"]),
    default="tissues",
    show_default=True,
    help="Values of NIfTI labels: places in the table of tissues; or opacity alone, lungs are found then.",
)
@click.option(
    "--old", type=PATH, metavar="DIR", help="Scans that the network knows, mixed in against forgetting."
)
@click.option("--old-table", type=PATH, metavar="CSV", help="As --table, of --old.")
@click.option(
    "--old-share",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.25,
    show_default=True,
    help="Of each batch, drawn from --old.",
)
@click.option(
    "--held-out",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.25,
    show_default=True,
    help="Share of a source's patients to hold out, at least one of two.",
)
@click.option("--tissues", metavar="NAME|JSON", help="As of ct-opacity. [default: of the network]")
@window_options(default="the built-in network's, else l3-unet")
@click.option(
    "--spacing",
    callback=parse_pair(float, alone=True),
    metavar="Y[,X]",
    help="Pixels to train at, mm. [default: the network's, or a scan's own]",
)
@click.option(
    "--tile", callback=parse_pair(int, alone=True), metavar="H[,W]", help="[default: the network's]"
)
@click.option(
    "--context",
    type=click.IntRange(0, 16),
    help="Neighbouring slices to each side. [default: the built-in network's own, else 0]",
)
@click.option("--prefix", metavar="TEXT", help="In front of the network's names in the checkpoint.")
@click.option("--steps", type=click.IntRange(1), default=300, show_default=True, help="Batches at most.")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Slices a batch.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), default=3e-4, show_default=True)
@click.option(
    "--every", type=click.IntRange(1), default=25, show_default=True, help="Steps between two looks."
)
@click.option(
    "--patience",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Looks without gain before it stops.",
)
@click.option(
    "--freeze", multiple=True, metavar="PART", help="Part that stays as it is, e.g. encoder; repeatable."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of chance.")
@click.option("--threads", type=click.IntRange(1), help="Of PyTorch. [default: its own choice]")
@click.option("--out", type=PATH, required=True, metavar="DIR", help="Weights, report and tissues.")
@click.option("--restart", is_flag=True, help="Forget an interrupted or finished training in --out.")
@click.option("--bundle", type=PATH, metavar="DIR|FILE.zip", help="Write the bundle at once, too.")
@naming_options(name="network", terms="Terms of the new weights. [default: unknown]")
def finetune(**options: Any) -> None:
    """Fine-tune a CT network on your own masks; measure each source before and after.

    \b
    bedside-export finetune ct-opacity-lite --network built-in --masks scans --out tuned
    bedside-export finetune unet.ckpt --network l3-unet2d --masks scans --table scans.csv
        --freeze inc --freeze down1 --out tuned --bundle my-bundle

    Some patients of each source are held out; training stops when they gain no more, and continues where it was if
    it is interrupted. Their figures choose the weights, so they flatter: cases with part `test` in the table are
    measured and choose nothing. Not for clinical use.
    """  # noqa: D301 - the escape is click's mark for lines that are not to be wrapped
    _check_options(options)
    say("loading PyTorch")
    import torch  # noqa: PLC0415 - PyTorch takes seconds; --help does not

    from bedside.results import prepare_folder, write_bytes  # noqa: PLC0415 - the same
    from bedside_export.finetuning import Plan, open_learner, report  # noqa: PLC0415
    from bedside_export.finetuning.adaptation import WEIGHTS  # noqa: PLC0415
    from bedside_export.finetuning.state import STATE  # noqa: PLC0415
    from bedside_export.writer import check_free  # noqa: PLC0415

    if options["threads"]:
        torch.set_num_threads(options["threads"])
    out: Path = options["out"]
    if options["bundle"] is not None:
        check_free(options["bundle"], force=False)
    plan = Plan(
        steps=options["steps"],
        batch=options["batch"],
        rate=options["rate"],
        every=options["every"],
        patience=options["patience"],
        frozen=options["freeze"],
        rehearsal=options["old_share"],
        seed=options["seed"],
    )
    learner = open_learner(_wanted(options))
    if learner.note:
        say(f"note: {learner.note}")
    cases, old = _read(options, learner)
    prepare_folder(out)
    if options["restart"]:
        for name in (STATE, WEIGHTS, REPORT, TISSUES):
            (out / name).unlink(missing_ok=True)
    outcome = _train(learner, (cases, old), plan, out)
    command = _export_command(learner, out)
    tissues = [{key: value for key, value in _plain(tissue).items() if value} for tissue in learner.tissues]
    write_bytes(out / TISSUES, _json(tissues))
    write_bytes(out / REPORT, _json(_report(outcome, plan, learner, command)))
    (out / STATE).unlink(missing_ok=True)
    for line in report.describe(outcome.rows):
        click.echo(line)
    click.echo(_tell_best(outcome))
    click.echo(f"written: {out}")
    if options["bundle"] is None:
        click.echo(f"a bundle of it: {command}")
        return
    _write_bundle(options, learner)
    click.echo(f"written: {options['bundle']}")


def _check_options(options: dict[str, Any]) -> None:
    check_terms(options)
    check_window(options)
    if options["old_table"] is not None and options["old"] is None:
        raise click.UsageError("--old-table goes with --old")
    if (options["out"] / REPORT).exists() and not options["restart"]:
        raise ExportError(
            "the output folder holds a finished training; choose another, or start anew with --restart"
        )


def _wanted(options: dict[str, Any]) -> Wanted:
    from bedside_export.ct_rules import read_tissues  # noqa: PLC0415
    from bedside_export.finetuning import Wanted  # noqa: PLC0415

    return Wanted(
        options["source"],
        options["network"],
        tissues=None if options["tissues"] is None else read_tissues(options["tissues"]),
        window=make_window(options),
        spacing_mm=options["spacing"],
        tile=options["tile"],
        context=options["context"],
        prefix=options["prefix"],
    )


def _read(options: dict[str, Any], learner: Learner) -> tuple[list[Masked], list[Masked]]:
    from bedside_export.recipes.ct.cases import list_cases, split_cases  # noqa: PLC0415
    from bedside_export.recipes.ct.masks import Rules, read_masked  # noqa: PLC0415

    rules = Rules(learner.tissues, learner.spacing_mm, options["labels"])
    listed = []
    for folder, table in ((options["masks"], options["table"]), (options["old"], options["old_table"])):
        entries = list_cases(folder, table) if folder is not None else ()
        listed.append(
            split_cases(entries, share=options["held_out"], seed=options["seed"]) if entries else ()
        )
    read: list[list[Masked]] = []
    bar = _bar("reading", sum(map(len, listed)))
    for entries in listed:
        read.append([])
        for entry in entries:
            read[-1].append(read_masked(entry, rules))
            bar.update()
    bar.close()
    return read[0], read[1]


def _train(learner: Learner, cases: tuple[list[Masked], list[Masked]], plan: Plan, out: Path) -> Outcome:
    from bedside_export.finetuning import adapt  # noqa: PLC0415

    learnt = sum(case.entry.part == "train" for case in cases[0])
    say(f"training {learner.text} on {learnt} {'case' if learnt == 1 else 'cases'}")
    with _bar("training", plan.steps) as bar:

        def told(step: int, score: float | None) -> None:
            bar.update(step - bar.n)
            if score is not None:
                bar.set_postfix(score=f"{score:.3f}")

        try:
            return adapt(learner, cases[0], plan, out, old=cases[1], told=told)
        except KeyboardInterrupt as stop:
            bar.close()
            say("interrupted; the same command goes on from the last look at the held-out patients")
            raise click.exceptions.Exit(INTERRUPTED) from stop


def _bar(what: str, total: int) -> Any:
    from tqdm import tqdm  # noqa: PLC0415 - only here

    return tqdm(desc=what, total=total, file=sys.stderr, leave=False, disable=not sys.stderr.isatty())


def _tell_best(outcome: Outcome) -> str:
    if outcome.best_step == 0:
        return f"no step of {outcome.steps} was better for the held-out patients: these are the first weights"
    return f"weights after {outcome.best_step} of {outcome.steps} steps, the best for the held-out patients"


def _report(outcome: Outcome, plan: Plan, learner: Learner, command: str) -> dict[str, Any]:
    import torch  # noqa: PLC0415

    from bedside.version import __version__  # noqa: PLC0415

    return {
        "notice": "Not for clinical use.",
        "chosen_by": "the held-out cases chose the step: their figures after it flatter; those of part test do not",
        "dice": "pooled over the volume, at the network's pixels; means over cases",
        "sources": outcome.rows,
        "cases": outcome.cases,
        "steps": outcome.steps,
        "best_step": outcome.best_step,
        "history": outcome.history,
        "plan": _plain(plan),
        "network": learner.text,
        "export": command,
        "versions": {"bedside": __version__, "torch": torch.__version__},
    }


def _export_command(learner: Learner, out: Path) -> str:
    window = learner.window
    parts = [
        *("bedside-export", "ct-opacity", "--arch", learner.arch, "--checkpoint", str(out / "network.pt")),
        *("--tissues", str(out / TISSUES), f"--window={window.low:g},{window.high:g}"),
        *(
            f"--mean={window.mean:g}",
            "--std",
            f"{window.std:g}",
            "--tile",
            f"{learner.tile[0]},{learner.tile[1]}",
        ),
    ]
    if learner.context:
        parts += ["--context", str(learner.context)]
    if learner.spacing_mm is not None:
        parts += ["--spacing", f"{learner.spacing_mm[0]:g},{learner.spacing_mm[1]:g}"]
    return shlex.join([*parts, "--out", "BUNDLE"])


def _write_bundle(options: dict[str, Any], learner: Learner) -> None:
    from bedside_export.ct_opacity import Request, export_ct  # noqa: PLC0415

    request = Request(
        arch=learner.arch,
        checkpoint=str(options["out"] / "network.pt"),
        tissues=learner.tissues,
        window=learner.window,
        tile=learner.tile,
        context=learner.context,
        spacing_mm=learner.spacing_mm,
        naming=make_naming(options),
    )
    export_ct(request, out=options["bundle"], say=say)


def _plain(value: Any) -> dict[str, Any]:
    from dataclasses import asdict  # noqa: PLC0415

    return asdict(value)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
