"""``bedside-export quantize``: a bundle gets more precisions, each measured in clinical units."""

from __future__ import annotations

from pathlib import Path

import click

from bedside_export.cli.console import PATH, say

__all__ = ["quantize"]

PRECISIONS = ("bf16", "fp16", "int8")
"""As `bedside_export.precision.variants.PRECISIONS`, which ``--help`` does not import; a test holds them alike."""


def _split(_ctx: click.Context, _option: click.Parameter, value: str) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(part.strip() for part in value.split(",")))
    if unknown := [part for part in wanted if part not in PRECISIONS]:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(PRECISIONS)}")
    return wanted


@click.command("quantize")
@click.argument("bundle")
@click.option(
    "--precision",
    "precisions",
    required=True,
    callback=_split,
    metavar="NAME[,NAME]",
    help="fp16, int8: files of their own. bf16: which nodes of the fp32 file stay float32 where an engine has bf16.",
)
@click.option(
    "--calibration",
    type=PATH,
    required=True,
    metavar="DIR",
    help="Real pictures (DICOM, PNG, JPEG, TIFF) or CT scans (series, NIfTI), as the network will see them.",
)
@click.option(
    "--validation",
    type=PATH,
    metavar="DIR",
    help="Others to compare the engines on. [default: half of --calibration]",
)
@click.option(
    "--out",
    type=PATH,
    metavar="DIR|FILE.zip",
    help="The bundle to write. [default: the bundle's name and -quantised, in the working folder]",
)
@click.option(
    "--force",
    is_flag=True,
    help="Replace a bundle that is there, and make anew the precisions that BUNDLE has.",
)
@click.option(
    "--keep-failing", is_flag=True, help="Add a file also where no engine runs it within its tolerance."
)
@click.option(
    "--no-search",
    is_flag=True,
    help="Keep nothing in float32 for the answer's sake: minutes faster, and as far off as it may be.",
)
def quantize(  # noqa: PLR0913 - one argument an option, as click has it
    *,
    bundle: str,
    precisions: tuple[str, ...],
    calibration: Path,
    validation: Path | None,
    out: Path | None,
    force: bool,
    keep_failing: bool,
    no_search: bool,
) -> None:
    """Write BUNDLE anew with more precisions.

    \b
    bedside-export quantize my-bundle --precision fp16,int8 --calibration pictures
    bedside-export quantize ct-opacity-lite --precision int8 --calibration scans --validation others --out new

    Ranges are taken from the pictures, and the layers that cost too much of the answer stay float32. Every engine
    here is then compared with the reference on pictures that were not calibrated on; what no engine runs within the
    bundle's tolerance is left out. The bundle keeps a hash of the pictures, and neither them nor their names.
    Not for clinical use.
    """  # noqa: D301 - the escape is click's mark for lines that are not to be wrapped
    from bedside_export.precision.islands import TRIALS  # noqa: PLC0415 - slow, as the next
    from bedside_export.precision.process import Request, quantise_bundle  # noqa: PLC0415 - slow; --help is not
    from bedside_export.precision.variants import Options  # noqa: PLC0415 - the same

    target = out or Path(f"{Path(bundle).stem}-quantised")
    trials = 1 if no_search else TRIALS
    options = Options(precisions, force=force, keep_failing=keep_failing, trials=trials)
    request = Request(bundle, calibration, target, options, validation)
    quantised = quantise_bundle(request, force=force, say=say)
    for trial in quantised.trials:
        click.echo(trial.describe())
    for precision in quantised.left_out:
        click.echo(
            f"{precision} is left out: no engine here runs it within the bundle's tolerance; --keep-failing adds it"
        )
    click.echo(f"written: {target}")
