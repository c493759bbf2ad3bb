"""``bedside-export ct-opacity``: a network that segments CT slices becomes a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from bedside.contract import MAX_CONTEXT_MM
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

if TYPE_CHECKING:
    from bedside_export.ct_opacity import Request
    from bedside_export.tissue_report import TissueReport

__all__ = ["export_opacity"]


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
@window_options(default="l3-unet, unless --window is given")
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
    "--context-mm",
    type=click.FloatRange(0, MAX_CONTEXT_MM),
    default=0.0,
    metavar="MM",
    help="How far apart they were in training; where a scan has none about there, the slice itself stands for them. "
    "[default: the next slices, however far]",
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
@naming_options(name="network", terms="Terms of the weights. [default: unknown, no commercial use]")
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
    check_terms(options)
    check_window(options)
    if options["context_mm"] and not options["context"]:
        raise click.UsageError("--context-mm goes with --context; add it, or leave both out")
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
    from bedside_export.ct_rules import RULES, read_tissues  # noqa: PLC0415

    return Request(
        arch=options["arch"],
        checkpoint=options["checkpoint"],
        prefix=options["prefix"],
        tissues=read_tissues(options["tissues"]),
        window=make_window(options) or RULES["l3-unet"],
        tile=options["tile"],
        overlap=options["overlap"],
        context=options["context"],
        context_mm=options["context_mm"],
        spacing_mm=options["spacing"],
        skip=options["skip"],
        multiple=options["multiple"],
        fixed=options["fixed"],
        naming=make_naming(options),
    )


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
