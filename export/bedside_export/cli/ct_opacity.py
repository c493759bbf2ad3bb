"""``bedside-export ct-opacity``: a network that segments CT slices becomes a bundle."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bedside_export.cli.console import PATH, read_text, say

if TYPE_CHECKING:
    from bedside_export.ct_opacity import Request
    from bedside_export.ct_rules import Window
    from bedside_export.tissue_report import TissueReport

__all__ = ["export_opacity", "parse_pair"]


def parse_pair(kind: Callable[[str], float], *, alone: bool) -> Callable[..., tuple[float, float] | None]:
    """What makes two numbers with a comma, or one for both if ``alone``, of an option."""

    def parse(_ctx: click.Context, _option: click.Parameter, value: str | None) -> tuple[float, float] | None:
        if value is None:
            return None
        try:
            numbers = [kind(part) for part in value.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) == 1 and alone:
            numbers *= 2
        if len(numbers) != 2 or not all(math.isfinite(number) for number in numbers):
            one = "one number, or " if alone else ""
            raise click.BadParameter(f"{value!r} is not {one}two with a comma")
        return numbers[0], numbers[1]

    return parse


@click.command("ct-opacity")
@click.option(
    "--arch",
    required=True,
    metavar="NAME",
    help="l3-unet2d; smp:ARCH:ENCODER of segmentation-models-pytorch; or module:factory, which is imported.",
)
@click.option(
    "--checkpoint", required=True, metavar="FILE|random:SEED", help="PyTorch or Lightning; random for tests."
)
@click.option(
    "--prefix", metavar="TEXT", help="In front of the network's names in the checkpoint. [default: found]"
)
@click.option(
    "--tissues",
    default="l3-groups",
    show_default=True,
    metavar="NAME|JSON",
    help="The classes: l3-groups, l3-classes, sides, or a file with a list of name, opacity, lung, side.",
)
@click.option(
    "--input",
    "rule",
    type=click.Choice(["l3-unet", "lung-window"]),
    help="Input rule of a published network. [default: l3-unet, unless --window is given]",
)
@click.option(
    "--window", callback=parse_pair(float, alone=False), metavar="LOW,HIGH", help="HU are clipped to this."
)
@click.option("--mean", type=float, metavar="HU", help="With --window: subtracted after clipping.")
@click.option("--std", type=float, metavar="HU", help="With --window: divided by.")
@click.option(
    "--tile",
    callback=parse_pair(int, alone=True),
    default="512",
    show_default=True,
    metavar="H[,W]",
    help="Pixels.",
)
@click.option(
    "--overlap", type=click.FloatRange(0, 0.9), default=0.25, show_default=True, help="Share of a tile."
)
@click.option(
    "--context",
    type=click.IntRange(0, 16),
    default=0,
    show_default=True,
    help="Neighbouring slices to each side.",
)
@click.option(
    "--spacing",
    callback=parse_pair(float, alone=True),
    metavar="Y[,X]",
    help="Pixels that the network was trained at, mm. [default: a scan's own]",
)
@click.option(
    "--skip",
    type=click.Choice(["constant", "body"]),
    default="constant",
    show_default=True,
    help="Tiles to leave out: of one value, or also those without a voxel of the body; what that costs is measured.",
)
@click.option(
    "--multiple", type=click.IntRange(1, 256), help="Sides of a tile are multiples. [default: the network's]"
)
@click.option("--fixed", is_flag=True, help="Make the graph for this tile only.")
@click.option("--out", type=PATH, required=True, metavar="DIR|FILE.zip", help="The bundle to write.")
@click.option("--force", is_flag=True, help="Replace a bundle that is there.")
@click.option("--name", help="Name of the bundle. [default: after the network]")
@click.option("--version", default="1.0.0", show_default=True, help="Version of the bundle.")
@click.option("--licence", metavar="SPDX", help="Terms of the weights. [default: unknown, no commercial use]")
@click.option("--licence-text", type=PATH, metavar="FILE", help="The terms in full; needs --licence.")
@click.option("--commercial-use", is_flag=True, help="The terms allow commercial use; needs --licence.")
def export_opacity(**options: Any) -> None:
    """Export a CT bundle: tissues of slices, from which lung and opacity are measured.

    \b
    bedside-export ct-opacity --arch l3-unet2d --checkpoint unet.ckpt --out my-bundle
    bedside-export ct-opacity --arch smp:PSPNet:inceptionresnetv2 --checkpoint psp.ckpt
        --input lung-window --tile 384 --out psp-bundle
    bedside-export ct-opacity --arch mine.networks:build --checkpoint mine.pt --tissues mine.json
        --window -1000,200 --mean -500 --std 300 --out own-bundle

    Every engine installed here is compared with PyTorch before the bundle is written. Not for clinical use.
    """  # noqa: D301 - the escape is click's mark for lines that are not to be wrapped
    if options["licence"] is None and (options["licence_text"] is not None or options["commercial_use"]):
        raise click.UsageError("--licence-text and --commercial-use go with --licence SPDX; add it")
    own = (options["window"], options["mean"], options["std"])
    if own != (None, None, None) and (None in own or options["rule"] is not None):
        raise click.UsageError("--window, --mean and --std go together, and without --input")
    say("loading PyTorch")
    from bedside_export.ct_opacity import export_ct  # noqa: PLC0415 - PyTorch takes seconds; --help does not

    parity = export_ct(_request(options), out=options["out"], force=options["force"], say=say)
    for report in parity.engines:
        for line in _describe(report):
            click.echo(line)
    if parity.skip:
        click.echo(f"skipping tiles without body: {parity.skip['text']}")
    click.echo(f"written: {options['out']}")


def _request(options: dict[str, Any]) -> Request:
    from bedside_export.ct_opacity import Request  # noqa: PLC0415
    from bedside_export.ct_rules import read_tissues  # noqa: PLC0415
    from bedside_export.severity import Naming  # noqa: PLC0415

    text_file: Path | None = options["licence_text"]
    return Request(
        arch=options["arch"],
        checkpoint=options["checkpoint"],
        prefix=options["prefix"],
        tissues=read_tissues(options["tissues"]),
        window=_window(options),
        tile=options["tile"],
        overlap=options["overlap"],
        context=options["context"],
        spacing_mm=options["spacing"],
        skip=options["skip"],
        multiple=options["multiple"],
        fixed=options["fixed"],
        naming=Naming(
            options["name"],
            options["version"],
            options["licence"],
            None if text_file is None else read_text(text_file),
            options["commercial_use"],
        ),
    )


def _window(options: dict[str, Any]) -> Window:
    from bedside_export.ct_rules import RULES, Window  # noqa: PLC0415

    if options["window"] is None:
        return RULES[options["rule"] or "l3-unet"]
    low, high = options["window"]
    return Window(low, high, options["mean"], options["std"])


def _describe(report: TissueReport) -> Iterator[str]:
    parts = []
    if report.volume_percent is not None:
        parts = [f"opacity volume off by {report.volume_percent:g} % of {report.volume_limit:g} %"]
        parts += [f"probability by {report.probability:g}"]
    detail = "; ".join(part for part in (", ".join(parts), report.reason) if part)
    yield f"{report.backend} {report.precision}: {report.status}  {detail}"
    for name, gap in report.tissues.items():
        note = f" ({gap.note})" if gap.note else ""
        yield (
            f"    {name}: Dice loss {gap.dice_loss:.2g} of {gap.limit:g}, {gap.ml:g} mL, off by "
            f"{gap.ml_difference:g} mL{note}"
        )
