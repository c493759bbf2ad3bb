"""``bedside-export cxr-severity``: a chest X-ray network becomes a bundle."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bedside_export.cli.console import PATH, say
from bedside_export.cli.options import check_terms, make_naming, naming_options
from bedside_export.errors import ExportError

if TYPE_CHECKING:
    from torch import nn

    from bedside_export.heads import Head, SeverityHead
    from bedside_export.models import Classifier
    from bedside_export.parity import Parity

__all__ = ["export_severity"]


@dataclass(frozen=True, slots=True)
class Request:
    """The options of ``cxr-severity``."""

    weights: str
    weights_kind: str | None
    cache: Path | None
    head: str
    extent_head: Path | None
    opacity_head: Path | None
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


@click.command("cxr-severity")
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
@click.option("--cache", type=PATH, metavar="DIR", help="Folder for downloads. [default: torchxrayvision's]")
@click.option(
    "--head",
    type=click.Choice(["v1", "v2", "fit"]),
    default="v1",
    show_default=True,
    help="v1: the published line on the Lung Opacity logit; opacity 0 to 6. v2: the published perceptrons in "
    "--extent-head and --opacity-head; both scores 0 to 8. fit: a regression fitted to --scores.",
)
@click.option(
    "--extent-head",
    type=PATH,
    metavar="FILE",
    help="For v2: mlp_geo.pkl of mlmed/covid-severity. Nothing in the file is run.",
)
@click.option("--opacity-head", type=PATH, metavar="FILE", help="For v2: mlp_opa.pkl, the same way.")
@click.option(
    "--scores",
    type=PATH,
    metavar="CSV",
    help="For fit: columns image, geographic_mean, opacity_mean and patientid.",
)
@click.option("--images", type=PATH, metavar="DIR", help="For fit: folder of the pictures in --scores.")
@click.option(
    "--inputs",
    type=click.Choice(["one", "four", "eighteen", "features"]),
    default="four",
    show_default=True,
    help="For fit: what the regression reads.",
)
@click.option("--out", type=PATH, required=True, metavar="DIR|FILE.zip", help="The bundle to write.")
@click.option("--force", is_flag=True, help="Replace a bundle that is there.")
@naming_options(name="weights", terms="Terms of the bundle. [default: those of the weights]")
def export_severity(**options: Any) -> None:
    """Export a chest X-ray severity bundle: score, activation map and pathologies in one network.

    \b
    bedside-export cxr-severity --weights densenet121-res224-all --out my-bundle
    bedside-export cxr-severity --weights random:0 --out test-bundle.zip
    bedside-export cxr-severity --weights densenet121-res224-all --head v2
        --extent-head mlp_geo.pkl --opacity-head mlp_opa.pkl --out v2-bundle
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
    say("loading PyTorch and the weights")
    from bedside_export.golden import golden_inputs  # noqa: PLC0415 - PyTorch takes seconds; --help does not
    from bedside_export.models import load_classifier  # noqa: PLC0415
    from bedside_export.severity import draft_severity  # noqa: PLC0415
    from bedside_export.writer import check_free, write_bundle  # noqa: PLC0415

    check_free(request.out, force=request.force)
    naming = make_naming(asdict(request))
    classifier = load_classifier(request.weights, kind=request.weights_kind, cache=request.cache)
    head, network = _make_network(request, classifier)
    draft = draft_severity(classifier, head, naming)
    say("making test pictures from the phantom")
    images = golden_inputs(draft.input)
    say("exporting, and comparing every engine with PyTorch")
    return write_bundle(draft, network, images, out=request.out, force=request.force)


def _check(request: Request) -> None:
    """Refuse options that don't go together, before anything slow."""
    fit = request.head == "fit"
    if fit and (request.scores is None or request.images is None):
        raise click.UsageError("--head fit needs --scores CSV and --images DIR")
    if not fit and (request.scores is not None or request.images is not None):
        raise click.UsageError("--scores and --images go with --head fit; add it, or leave them out")
    files = (request.extent_head, request.opacity_head)
    if request.head == "v2" and None in files:
        raise click.UsageError("--head v2 needs --extent-head FILE and --opacity-head FILE")
    if request.head != "v2" and any(files):
        raise click.UsageError(
            "--extent-head and --opacity-head go with --head v2; add it, or leave them out"
        )
    check_terms(asdict(request))


def _make_network(request: Request, classifier: Classifier) -> tuple[SeverityHead, nn.Module]:
    from bedside_export.models import ALL, SeverityDenseNet  # noqa: PLC0415

    if request.head == "fit":
        fitted = _fit(request, classifier)
        return fitted, SeverityDenseNet(classifier, fitted)
    if classifier.kind != ALL:
        raise ExportError(
            f"the head {request.head} was fitted to {ALL!r} and means nothing on others; take --head fit"
        )
    if request.head == "v2":
        return _read_perceptrons(request, classifier)
    from bedside_export.heads import published_head  # noqa: PLC0415

    published = published_head()
    return published, SeverityDenseNet(classifier, published)


def _read_perceptrons(request: Request, classifier: Classifier) -> tuple[SeverityHead, nn.Module]:
    from bedside_export.perceptrons import (  # noqa: PLC0415
        PerceptronDenseNet,
        PerceptronHead,
        read_perceptron,
        unmeasured_intervals,
    )

    perceptrons = []
    for option, path in (("--extent-head", request.extent_head), ("--opacity-head", request.opacity_head)):
        if path is None:
            raise click.UsageError(f"--head v2 needs {option} FILE")
        try:
            perceptrons.append(read_perceptron(path))
        except ExportError as error:
            raise ExportError(f"{option}: {error}") from error
    head = PerceptronHead(perceptrons[0], perceptrons[1], unmeasured_intervals())
    return head, PerceptronDenseNet(classifier, head)


def _fit(request: Request, classifier: Classifier) -> Head:
    from bedside_export.fitting import fit_head, input_labels, measure_inputs  # noqa: PLC0415
    from bedside_export.scores import read_scores  # noqa: PLC0415
    from bedside_export.severity import input_rule  # noqa: PLC0415

    if request.scores is None or request.images is None:
        raise click.UsageError("--head fit needs --scores CSV and --images DIR")
    labels = input_labels(request.inputs, classifier)
    table = read_scores(request.scores, request.images)
    if not table.grouped:
        say(
            "note: no column patientid, so each picture counts as a patient and the intervals may be too narrow"
        )
    say(f"reading {len(table.images)} pictures")
    inputs = measure_inputs(classifier, table.images, input_rule(classifier), labels=labels)
    fit = fit_head(inputs, table, labels=labels)
    for score, error, alpha in zip(fit.head.scores, fit.errors, fit.alphas, strict=True):
        say(f"{score.title}: mean absolute error {error:.2f} on patients not seen (ridge {alpha:g})")
    return fit.head
