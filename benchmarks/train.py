"""Train the networks of the comparisons: random weights would tell nothing of what lower precision costs.

    python benchmarks/train.py densenet --data ../shared/data --out densenet.pt
    python benchmarks/train.py unet --data ../shared/data --out unet.pt
    python benchmarks/cxr.py --weights densenet.pt
    python benchmarks/ct.py --weights unet.pt

Each goes on where it was interrupted. The last steps see 8-bit weights and activations (`training.rounding`), so that
the networks can be quantised whole. What a network reaches on patients that it has not seen is printed and stands in a
JSON file beside it: it is enough for its numbers to be those of a network that looks at chests, and no more.

Needs the extra ``export``. Not for clinical use.
"""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from training.fitting import Plan

DATA = click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder that holds ct/ and cxr/.",
)
OUT = click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="State dict to write."
)
STEPS = click.option("--steps", type=click.IntRange(min=2), help="Batches.  [default: as long as it takes]")
THREADS = click.option(
    "--threads", default=os.cpu_count() or 1, type=click.IntRange(min=1), show_default=True
)


@click.group()
def main() -> None:
    """Train the networks of the comparisons."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")


@main.command()
@DATA
@OUT
@STEPS
@THREADS
def densenet(*, data: Path, out: Path, steps: int | None, threads: int) -> None:
    """The DenseNet-121 of cxr.py, on X-rays with the experts' scores."""
    from training.densenet import PLAN, train_densenet

    torch.set_num_threads(threads)
    begun = time.monotonic()
    finish(out, train_densenet(data, out, shorten(PLAN, steps)), begun)


@main.command()
@DATA
@OUT
@STEPS
@THREADS
def unet(*, data: Path, out: Path, steps: int | None, threads: int) -> None:
    """The U-Net of ct.py, on chest CT with the experts' opacity."""
    from training.unet import PLAN, train_unet

    torch.set_num_threads(threads)
    begun = time.monotonic()
    finish(out, train_unet(data, out, shorten(PLAN, steps)), begun)


def shorten(plan: Plan, steps: int | None) -> Plan:
    """The plan with another number of steps, if one is given."""
    return plan if steps is None else replace(plan, steps=steps)


def finish(out: Path, told: dict[str, Any], begun: float) -> None:
    """Print what a network reaches, and keep it beside the network."""
    text = json.dumps({**told, "seconds": round(time.monotonic() - begun)}, indent=2)
    out.with_suffix(".json").write_text(text + "\n")
    click.echo(text)


if __name__ == "__main__":
    main()
