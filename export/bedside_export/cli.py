"""``bedside-export``: turn networks into bundles. Wires, no logic. Not for clinical use."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bedside.errors import BedsideError, MissingExtraError
from bedside.version import __version__
from bedside_export.errors import ExportError, ParityError

if TYPE_CHECKING:
    from bedside_export.heads import Head
    from bedside_export.models import Classifier
    from bedside_export.parity import Parity

__all__ = ["main"]

REFUSED: Final = 1
"""Exit code where an engine disagrees with PyTorch."""
USAGE: Final = 2
"""Exit code of wrong usage or set-up."""
_PATH: Final = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True)
class Request:
    """The options of ``cxr-severity``."""

    weights: str
    weights_kind: str | None
    cache: Path | None
    head: str
    scores: Path | None
    images: Path | None
    inputs: str
    out: Path
    force: bool
    name: str | None
    version: str
    licence: str | None
    licence_text: Path | None
    commercial_use: bool


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bedside-export")
def cli() -> None:
    """Turn networks into bundles that bedside runs. Not for clinical use."""


@cli.command("cxr-severity")
@click.option(
    "--weights",
    required=True,
    metavar="NAME|FILE|random:SEED",
    help="torchxrayvision's DenseNet: its name for weights (downloaded), a checkpoint file, or random for tests.",
)
@click.option(
    "--weights-kind",
    metavar="NAME",
    help="For a file: torchxrayvision's name of the weights, if its own name is lost.",
)
@click.option("--cache", type=_PATH, metavar="DIR", help="Folder for downloads. [default: torchxrayvision's]")
@click.option(
    "--head",
    type=click.Choice(["v1", "fit"]),
    default="v1",
    show_default=True,
    help="v1: the published line on the Lung Opacity logit. fit: a regression fitted to --scores.",
)
@click.option(
    "--scores",
    type=_PATH,
    metavar="CSV",
    help="For fit: columns image, geographic_mean, opacity_mean and patientid.",
)
@click.option("--images", type=_PATH, metavar="DIR", help="For fit: folder of the pictures in --scores.")
@click.option(
    "--inputs",
    type=click.Choice(["one", "four", "eighteen", "features"]),
    default="four",
    show_default=True,
    help="For fit: what the regression reads.",
)
@click.option("--out", type=_PATH, required=True, metavar="DIR|FILE.zip", help="The bundle to write.")
@click.option("--force", is_flag=True, help="Replace a bundle that is there.")
@click.option("--name", help="Name of the bundle. [default: after the weights]")
@click.option("--version", default="1.0.0", show_default=True, help="Version of the bundle.")
@click.option("--licence", metavar="SPDX", help="Terms of the bundle. [default: those of the weights]")
@click.option("--licence-text", type=_PATH, metavar="FILE", help="The terms in full; needs --licence.")
@click.option("--commercial-use", is_flag=True, help="The terms allow commercial use; needs --licence.")
def export_severity(**options: Any) -> None:
    """Export a chest X-ray severity bundle: score, activation map and pathologies in one network.

    \b
    bedside-export cxr-severity --weights densenet121-res224-all --out my-bundle
    bedside-export cxr-severity --weights random:0 --out test-bundle.zip
    bedside-export cxr-severity --weights densenet121-res224-all --head fit
        --scores severity.csv --images images --out fitted-bundle

    Every engine installed here is compared with PyTorch before the bundle is written. Not for clinical use.
    """  # noqa: D301 - the escape is click's mark for lines that are not to be wrapped
    parity = _export(Request(**options))
    for report in parity.engines:
        gaps = ", ".join(f"{name} {gap.max:.2g} of {gap.limit:g}" for name, gap in report.scores.items())
        detail = "; ".join(part for part in (gaps, report.reason) if part)
        click.echo(f"{report.backend} {report.precision}: {report.status}  {detail}")
    click.echo(f"written: {options['out']}")


def _export(request: Request) -> Parity:
    _check(request)
    _say("loading PyTorch and the weights")
    from bedside_export.golden import golden_inputs  # noqa: PLC0415 - PyTorch takes seconds; --help does not
    from bedside_export.models import SeverityDenseNet, load_classifier  # noqa: PLC0415
    from bedside_export.severity import Naming, draft_severity  # noqa: PLC0415
    from bedside_export.writer import check_free, write_bundle  # noqa: PLC0415

    check_free(request.out, force=request.force)
    text = None if request.licence_text is None else _read_text(request.licence_text)
    classifier = load_classifier(request.weights, kind=request.weights_kind, cache=request.cache)
    head = _make_head(request, classifier)
    naming = Naming(request.name, request.version, request.licence, text, request.commercial_use)
    draft = draft_severity(classifier, head, naming)
    network = SeverityDenseNet(classifier, head)
    _say("making test pictures from the phantom")
    images = golden_inputs(draft.input)
    _say("exporting, and comparing every engine with PyTorch")
    return write_bundle(draft, network, images, out=request.out, force=request.force)


def _check(request: Request) -> None:
    """Refuse options that don't go together, before anything slow."""
    fit = request.head == "fit"
    if fit and (request.scores is None or request.images is None):
        raise click.UsageError("--head fit needs --scores CSV and --images DIR")
    if not fit and (request.scores is not None or request.images is not None):
        raise click.UsageError("--scores and --images go with --head fit; add it, or leave them out")
    if request.licence is None and (request.licence_text is not None or request.commercial_use):
        raise click.UsageError("--licence-text and --commercial-use go with --licence SPDX; add it")


def _make_head(request: Request, classifier: Classifier) -> Head:
    from bedside_export.heads import published_head  # noqa: PLC0415
    from bedside_export.models import ALL  # noqa: PLC0415

    if request.head == "v1":
        if classifier.kind != ALL:
            raise ExportError(
                f"the head v1 was fitted to {ALL!r} and means nothing on others; take --head fit"
            )
        return published_head()
    return _fit(request, classifier)


def _fit(request: Request, classifier: Classifier) -> Head:
    from bedside_export.fitting import fit_head, input_labels, measure_inputs  # noqa: PLC0415
    from bedside_export.scores import read_scores  # noqa: PLC0415
    from bedside_export.severity import input_rule  # noqa: PLC0415

    if request.scores is None or request.images is None:
        raise click.UsageError("--head fit needs --scores CSV and --images DIR")
    labels = input_labels(request.inputs, classifier)
    table = read_scores(request.scores, request.images)
    if not table.grouped:
        _say(
            "note: no column patientid, so each picture counts as a patient and the intervals may be too narrow"
        )
    _say(f"reading {len(table.images)} pictures")
    inputs = measure_inputs(classifier, table.images, input_rule(classifier), labels=labels)
    fit = fit_head(inputs, table, labels=labels)
    for score, error, alpha in zip(fit.head.scores, fit.errors, fit.alphas, strict=True):
        _say(f"{score.title}: mean absolute error {error:.2f} on patients not seen (ridge {alpha:g})")
    return fit.head


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError("the licence text can't be read as UTF-8; give a text file") from error


def _say(line: str) -> None:
    click.echo(line, err=True)


def main() -> None:
    """Run the command; every refusal is one line on stderr and an exit code."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Exit as signal:
        sys.exit(signal.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(USAGE)
    except click.Abort:
        click.echo("interrupted; nothing was written", err=True)
        sys.exit(130)
    except ModuleNotFoundError as error:
        missing = MissingExtraError.of(str(error.name), "export", "bedside-export")
        click.echo(f"error: {missing.message}", err=True)
        sys.exit(USAGE)
    except ParityError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(REFUSED)
    except (ExportError, BedsideError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(USAGE)
