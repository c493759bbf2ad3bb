"""Run every benchmark, one after the other, into one folder, for `results.py`.

    python benchmarks/all.py --out run --densenet densenet.pt --unet unet.pt --torch-python monai/bin/python
    python benchmarks/all.py --out small --small

Each step is a command of its own, whose figures go into a JSON file and whose output goes into a log beside it. A step
whose JSON file is there already is not repeated, so that the same command goes on where it was interrupted; to have one
again, remove its file. A step that fails, or takes four times as long as it should, is told, and the others go on.

The minutes of the steps come to under an hour on two cores of a server, once the networks of the comparisons are made
(the first two steps), and ``run.json`` says what they took. ``--small`` takes the fewest rounds that each step allows
on a few small phantoms with random weights: its figures say only that all of it works. What the steps need, they say
themselves. Not for clinical use.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from pictures import draw_phantoms
from steps import Choice, Inputs, Step, list_steps

from bedside.sample_ct import write_series
from bedside.scan import Grid

__all__ = ["Journal", "run_step"]

HERE: Final = Path(__file__).parent
RANDOM: Final = "random:0"
"""Weights where none are given."""
SMALL_SLICES: Final = 96
"""Of a small run's chest: about as few as leave enough that differ to calibrate on, and as many to compare on."""
PATIENCE: Final = 4
"""Times the minutes of a step that it may take."""
LEAST_S: Final = 900
"""Least time that a step may take: a machine may be slow, and a first start compiles."""
LOOK_S: Final = 3.0
"""How long is looked at what else runs, before and after each step."""
FAREWELL_S: Final = 30
"""From being asked to end to being ended."""


@dataclass(slots=True)
class Journal:
    """What ran, when and how: ``run.json`` in the folder of the run."""

    folder: Path
    told: dict[str, Any]

    @classmethod
    def open(cls, folder: Path, *, small: bool) -> Journal:
        """The folder's own, else a new one.

        Raises:
            click.UsageError: The folder's is of a run of another length.
        """
        path = folder / "run.json"
        if path.is_file():
            told = json.loads(path.read_text("utf-8"))
            if told["small"] != small:
                raise click.UsageError(
                    f"--out holds a run {'with' if told['small'] else 'without'} --small; give another"
                )
            return cls(folder, told)
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder, {"small": small, "steps": {}})

    def note(self, step: Step, found: dict[str, Any]) -> None:
        """Keep what came of a step."""
        self.told["steps"][step.name] = {"command": step.shown, "estimated_minutes": step.minutes, **found}
        part = self.folder / "run.json.part"
        part.write_text(json.dumps(self.told, indent=1) + "\n", "utf-8")
        part.replace(self.folder / "run.json")


def run_step(step: Step, folder: Path) -> dict[str, Any]:
    """Run one; returns when, how long, and why it failed, which is empty where it did not.

    Raises:
        KeyboardInterrupt: After the step's processes are gone.
    """
    part = folder / f"{step.name}.part.json"
    part.unlink(missing_ok=True)
    before = measure_others()
    begun = datetime.now(timezone.utc).isoformat(timespec="seconds")
    start = time.monotonic()
    with (folder / f"{step.name}.log").open("wb") as log:
        process = subprocess.Popen(
            step.command(part),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        limit = max(LEAST_S, PATIENCE * step.minutes * 60)
        failed = ""
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            failed = f"it took over {limit / 60:.0f} minutes"
        finally:
            end_group(process)
    if not failed and code not in (0, *step.also):
        failed = f"it ended with {code}: {last_line(folder / f'{step.name}.log')}"
    if not failed:
        failed = keep(part, folder / f"{step.name}.json") if step.figures else ""
    return {
        "begun": begun,
        "minutes": round((time.monotonic() - start) / 60, 2),
        "failed": failed,
        "busy_before": before,
        "busy_after": measure_others(),
        **describe_tree(),
    }


def measure_others() -> float | None:
    """Share of the processors that is at work while nothing of this run is; None where Linux does not tell.

    The mean of waiting processes would not do: it still holds the step before.
    """
    try:
        one = _read_ticks()
        time.sleep(LOOK_S)
        ticks = [now - was for now, was in zip(_read_ticks(), one, strict=True)]
    except OSError:
        return None
    return round(1 - sum(ticks[3:5]) / max(1, sum(ticks)), 3)  # idle, and idle while a disk is waited for


def _read_ticks() -> list[int]:
    """Of all processors since the start: user, nice, system, idle, iowait, irq, softirq, steal (proc(5))."""
    return [int(word) for word in Path("/proc/stat").read_text("utf-8").split("\n", 1)[0].split()[1:9]]


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a step and all that it started, politely and then not."""
    for sign, wait_s in ((signal.SIGINT, FAREWELL_S), (signal.SIGKILL, FAREWELL_S)):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            return
        try:
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            continue


def keep(part: Path, path: Path) -> str:
    """Give a step's figures their name; returns what is wrong with them."""
    try:
        told = json.loads(part.read_text("utf-8"))
    except FileNotFoundError:
        return "it wrote no figures"
    except ValueError:
        return "its figures are no JSON"
    if not isinstance(told, dict):
        return "its figures are no JSON object"
    part.replace(path)
    return ""


def last_line(path: Path) -> str:
    """Of a log, for one line; its whole stands there."""
    lines = path.read_text("utf-8", "replace").strip().splitlines()
    return lines[-1][:200] if lines else "it said nothing"


def describe_tree() -> dict[str, Any]:
    """The commit that is measured, and whether files differ from it; None where git does not tell."""

    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", HERE, *words],  # noqa: S607 - whichever git made the checkout
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit, changes = ask("rev-parse", "HEAD"), ask("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": None if changes is None else bool(changes)}


def draw_inputs(inputs: Inputs) -> None:
    """Draw those of a small run, unless they are there."""
    if not inputs.images.is_dir():
        inputs.images.parent.mkdir(parents=True, exist_ok=True)
        draw_phantoms(inputs.images)
    if not inputs.series.is_dir():
        affine = np.array(
            [[0, 0, 6.25, -197], [0, 6.25, 0, -192], [3.75, 0, 0, -195], [0, 0, 0, 1]], np.float64
        )
        write_series(inputs.series, grid=Grid((SMALL_SLICES, 64, 64), affine))


def run_all(steps: Sequence[Step], journal: Journal) -> list[str]:
    """Run those that are missing; returns the names of those that failed."""
    failed = []
    begun = time.monotonic()
    for number, step in enumerate(steps, 1):
        title = f"[{number}/{len(steps)}] {step.name}"
        if step.is_done(journal.folder):
            click.echo(f"{title}: is there already")
            continue
        left = sum(each.minutes for each in steps[number - 1 :] if not each.is_done(journal.folder))
        click.echo(
            f"{title}: about {step.minutes:g} min, {left:g} with those after it; {(time.monotonic() - begun) / 60:.1f} "
            f"min so far\n    {step.shown}"
        )
        found = run_step(step, journal.folder)
        journal.note(step, found)
        if found["failed"]:
            failed.append(step.name)
            click.echo(
                f"    FAILED after {found['minutes']:.1f} min, {found['failed']}; see {step.name}.log",
                err=True,
            )
        else:
            click.echo(f"    {found['minutes']:.1f} min")
    return failed


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of the run; made, or gone on with.",
)
@click.option("--small", is_flag=True, help="As little of each as it allows, to see that it works.")
@click.option(
    "--densenet",
    default=RANDOM,
    show_default=True,
    metavar="FILE|random:SEED",
    help="Weights, as train.py writes them.",
)
@click.option(
    "--unet", default=RANDOM, show_default=True, metavar="FILE|random:SEED", help="The same of the U-Net."
)
@click.option(
    "--networks",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the networks made of the weights, cxr and ct in it.  [default: networks in --out]",
)
@click.option(
    "--torch-python",
    default=sys.executable,
    metavar="FILE",
    help="As of peers.py, for CT.  [default: this one]",
)
@click.option("--only", multiple=True, metavar="STEP", help="Only this step; can be given several times.")
@click.option("--list", "is_list", is_flag=True, help="Print the steps and their minutes, and run nothing.")
def main(  # noqa: PLR0913 - click hands over each option
    *,
    out: Path,
    small: bool,
    densenet: str,
    unet: str,
    networks: Path | None,
    torch_python: str,
    only: tuple[str, ...],
    is_list: bool,
) -> None:
    """Run every benchmark into one folder, going on where it was interrupted."""
    if small and (densenet, unet) != (RANDOM, RANDOM):
        raise click.UsageError(
            "--small has random weights: trained ones find no lungs in its phantoms; leave them out"
        )
    inputs = Inputs(out / "inputs" / "xrays", out / "inputs" / "chest") if small else None
    steps = list_steps(Choice(densenet, unet, networks or out / "networks", torch_python, inputs))
    if unknown := set(only) - {step.name for step in steps}:
        raise click.UsageError(
            f"no step {min(unknown)!r}; there are: {', '.join(step.name for step in steps)}"
        )
    steps = [step for step in steps if not only or step.name in only]
    if is_list:
        for step in steps:
            click.echo(f"{step.minutes:>5g} min  {step.name:<16}  {step.shown}")
        click.echo(f"{sum(step.minutes for step in steps):>5g} min in all")
        return
    journal = Journal.open(out, small=small)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its steps are not to go on without it
    if inputs is not None:
        draw_inputs(inputs)
    try:
        failed = run_all(steps, journal)
    except KeyboardInterrupt:
        click.echo("stopped; the finished steps are kept, and the same command goes on from there", err=True)
        sys.exit(130)
    click.echo(f"next: python benchmarks/results.py {out}")
    if failed:
        click.echo(f"failed: {', '.join(failed)}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
