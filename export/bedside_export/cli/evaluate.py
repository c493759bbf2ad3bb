"""``bedside-export evaluate``: measure networks by the protocols of the papers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bedside_export.cli.console import PATH, say

if TYPE_CHECKING:
    from bedside_export.evaluation.methods import Method, Outcome
    from bedside_export.evaluation.splits import Halves
    from bedside_export.scores import ScoreTable

__all__ = ["evaluate"]


_WORD: Final = (
    "Held-out predictions are taken from a file: that their networks were not trained on these patients is the word of "
    "the recipe that wrote it."
)


@dataclass(frozen=True, slots=True)
class CxrRequest:
    """The options of ``evaluate cxr``."""

    weights: str | None
    weights_kind: str | None
    cache: Path | None
    bundle: tuple[str, ...]
    predictions: Path | None
    data: Path | None
    csv: Path | None
    images: Path | None
    image_column: str
    patient_column: str
    extent_column: str
    opacity_column: str
    opacity_scale: float
    splits: Path | None
    seeds: int
    out: Path
    force: bool


@click.group("evaluate")
def evaluate() -> None:
    """Measure networks against experts, by the protocols of the papers. Not for clinical use."""


@evaluate.command("cxr")
@click.option(
    "--weights",
    metavar="NAME|FILE|random:SEED",
    help="torchxrayvision's DenseNet: its name for weights (downloaded), a checkpoint file, or random for tests.",
)
@click.option("--weights-kind", metavar="NAME", help="For a file: torchxrayvision's name of the weights.")
@click.option("--cache", type=PATH, metavar="DIR", help="Folder for downloads. [default: torchxrayvision's]")
@click.option(
    "--bundle", multiple=True, metavar="NAME|DIR|ZIP", help="A bundle, measured as it is; may be repeated."
)
@click.option(
    "--predictions",
    type=PATH,
    metavar="CSV",
    help="predictions.csv of the X-ray recipe's evaluation: what networks said of patients they were not trained on.",
)
@click.option(
    "--data", type=PATH, metavar="DIR", help="Scored X-rays: severity.csv, metadata.csv and images/."
)
@click.option("--csv", type=PATH, metavar="FILE", help="Instead of --data: any table of scored X-rays.")
@click.option("--images", type=PATH, metavar="DIR", help="Folder of the pictures in --csv.")
@click.option("--image-column", default="image", show_default=True, help="Of --csv: the picture's file.")
@click.option("--patient-column", default="patientid", show_default=True, help="Of --csv: whose it is.")
@click.option(
    "--extent-column", default="geographic_mean", show_default=True, help="Of --csv: extent, 0 to 8."
)
@click.option("--opacity-column", default="opacity_mean", show_default=True, help="Of --csv: opacity.")
@click.option(
    "--opacity-scale",
    type=click.FloatRange(min=0, min_open=True),
    default=6.0,
    show_default=True,
    help="Of --csv: upper end of the scale of opacity; 8 for RALO.",
)
@click.option(
    "--splits", type=PATH, metavar="CSV", help="Own splits: columns split, image, part (train or test)."
)
@click.option(
    "--seeds", type=click.IntRange(1, 1000), default=50, show_default=True, help="Number of random halves."
)
@click.option("--out", type=PATH, required=True, metavar="DIR", help="Folder for the results.")
@click.option("--force", is_flag=True, help="Write into a folder that holds something.")
def evaluate_cxr(**options: Any) -> None:
    """Severity scores by the protocol of Cohen et al. 2020 (arXiv 2005.11856).

    \b
    bedside-export evaluate cxr --weights densenet121-res224-all --data DIR --out results
    bedside-export evaluate cxr --bundle my-bundle --csv scores.csv --images pictures --out results

    Random halves of the patients; regressions on one output, 4, 18 and the features, a bundle's own scores, and the
    mean of the training half. Writes table.md, results.json, predictions.csv and plots. Not for clinical use.
    """  # noqa: D301 - the escape is click's mark for lines that are not to be wrapped
    click.echo(_evaluate_cxr(CxrRequest(**options)))


def _evaluate_cxr(request: CxrRequest) -> str:
    _check(request)
    from bedside.agreement import require_libraries  # noqa: PLC0415 - what is slow to import, --help does not need

    require_libraries("matplotlib")
    from bedside_export.evaluation.documents import prepare_output  # noqa: PLC0415

    table = _read_table(request)
    splits = _read_splits(request, table)
    folder = prepare_output(request.out, force=request.force)
    methods, notes, about = _methods(request, table)
    others, more = _others(request, table)
    from bedside_export.evaluation.documents import (  # noqa: PLC0415
        as_json,
        render_table,
        to_predictions,
        to_results,
        write_files,
    )
    from bedside_export.evaluation.plots import draw_evaluation  # noqa: PLC0415
    from bedside_export.evaluation.protocol import evaluate as measure  # noqa: PLC0415

    say(f"measuring {len(splits)} splits")
    notes += more
    for note in notes:
        say(f"note: {note}")
    evaluation = measure(table, splits, methods, others=others, notes=notes)
    text = render_table(evaluation)
    files = {
        "table.md": text.encode(),
        "results.json": as_json(to_results(evaluation, about)),
        "predictions.csv": to_predictions(evaluation).encode(),
        **draw_evaluation(evaluation),
    }
    write_files(folder, files)
    return f"{text}\nwritten: {request.out}"


def _check(request: CxrRequest) -> None:
    """Refuse options that don't go together, before anything slow."""
    if request.weights is None and not request.bundle and request.predictions is None:
        raise click.UsageError("there is nothing to measure: give --weights, --bundle or --predictions")
    if (request.data is None) == (request.csv is None):
        raise click.UsageError("give either --data DIR, or --csv FILE with --images DIR")
    if (request.csv is None) != (request.images is None):
        raise click.UsageError("--csv FILE and --images DIR go together; give both")
    if request.weights is None and (request.weights_kind or request.cache):
        raise click.UsageError("--weights-kind and --cache go with --weights; add it, or leave them out")


def _read_table(request: CxrRequest) -> ScoreTable:
    from bedside_export.evaluation.layouts import check_patients, read_layout  # noqa: PLC0415
    from bedside_export.scores import Columns, read_scores  # noqa: PLC0415

    if request.csv is not None and request.images is not None:
        columns = Columns(
            request.image_column, request.extent_column, request.opacity_column, request.patient_column
        )
        bounds = ((0.0, 8.0), (0.0, request.opacity_scale))
        table = read_scores(request.csv, request.images, columns=columns, bounds=bounds)
    else:
        table = read_layout(request.data or Path())
    check_patients(table)
    return table


def _read_splits(request: CxrRequest, table: ScoreTable) -> tuple[Halves, ...]:
    from bedside_export.evaluation.splits import halve, read_splits  # noqa: PLC0415

    if request.splits is not None:
        return read_splits(request.splits, table)
    return halve(table.patients, count=request.seeds)


def _methods(
    request: CxrRequest, table: ScoreTable
) -> tuple[list[Method], list[str], dict[str, dict[str, Any]]]:
    """What is compared, notes on it, and what it is."""
    methods: list[Method] = []
    notes: list[str] = []
    about: dict[str, dict[str, Any]] = {"weights": {}, "bundles": {}}
    if request.weights is not None:
        say("loading PyTorch and the weights")
        from bedside_export.evaluation.methods import methods_of_network  # noqa: PLC0415
        from bedside_export.models import load_classifier  # noqa: PLC0415

        classifier = load_classifier(request.weights, kind=request.weights_kind, cache=request.cache)
        say(f"features of {len(table.images)} pictures")
        found, said = methods_of_network(classifier, table)
        methods += found
        notes += said
        about["weights"] = {"weights": classifier.weights, "kind": classifier.kind}
        if classifier.random:
            notes.append("The weights are random: nothing that is measured of them means anything.")
    for name in request.bundle:
        from bedside_export.evaluation.methods import methods_of_bundle  # noqa: PLC0415
        from bedside_export.evaluation.scoring import describe, score_table  # noqa: PLC0415

        say(f"scores of {len(table.images)} pictures by a bundle")
        scored = score_table(name, table.images, table.bounds)
        label = scored.label(about["bundles"])
        methods += methods_of_bundle(label, scored.scores)
        notes += describe(scored)
        about["bundles"][label] = {"digest": scored.digest, "refused_but_scored": scored.forced}
    return methods, notes, about


def _others(request: CxrRequest, table: ScoreTable) -> tuple[list[Outcome], list[str]]:
    if request.predictions is None:
        return [], []
    from bedside_export.evaluation.methods import outcome_of_recipe  # noqa: PLC0415

    return [outcome_of_recipe(request.predictions, table)], [_WORD]


@dataclass(frozen=True, slots=True)
class ObserversRequest:
    """The options of ``evaluate observers``."""

    data: Path
    bundle: tuple[str, ...]
    predictions: Path | None
    out: Path
    force: bool


@evaluate.command("observers")
@click.option(
    "--data",
    type=PATH,
    required=True,
    metavar="DIR",
    help="X-rays that two radiologists scored: brixia.csv, metadata.csv and images/.",
)
@click.option(
    "--bundle",
    multiple=True,
    metavar="NAME|DIR|ZIP",
    help="A bundle whose extent is a third observer; may be repeated.",
)
@click.option(
    "--predictions",
    type=PATH,
    metavar="CSV",
    help="predictions.csv of the X-ray recipe's evaluation: what networks said of patients they were not trained on.",
)
@click.option("--out", type=PATH, required=True, metavar="DIR", help="Folder for the results.")
@click.option("--force", is_flag=True, help="Write into a folder that holds something.")
def evaluate_observers(**options: Any) -> None:
    """Two radiologists' Brixia scores of the same X-rays, and a network's place among them.

    \b
    bedside-export evaluate observers --data DIR --predictions predictions.csv --out results

    Kappa zone by zone, Bland and Altman of the global score, by view; a network's extent / 8 beside Brixia / 18. Writes
    table.md, results.json and plots. Not for clinical use.
    """  # noqa: D301 - the escape is click's mark for lines that are not to be wrapped
    click.echo(_evaluate_observers(ObserversRequest(**options)))


def _evaluate_observers(request: ObserversRequest) -> str:
    from bedside.agreement import require_libraries  # noqa: PLC0415 - what is slow to import, --help does not need

    require_libraries("matplotlib")
    from bedside_export.evaluation.documents import as_json, prepare_output, write_files  # noqa: PLC0415
    from bedside_export.evaluation.observer_documents import (  # noqa: PLC0415
        Observers,
        draw_observers,
        render_observers,
        to_observer_results,
    )
    from bedside_export.evaluation.observers import (  # noqa: PLC0415
        compare_readers,
        place_network,
        read_extents,
        read_readings,
    )
    from bedside_export.evaluation.scoring import describe, score_table  # noqa: PLC0415

    readings = read_readings(request.data)
    folder = prepare_output(request.out, force=request.force)
    zones, groups = compare_readers(readings)
    observers = Observers(readings, zones, groups, {}, [])
    digests = {}
    if request.predictions is not None:
        extents = read_extents(request.predictions, readings)
        name = "held-out predictions"
        observers.networks[name] = (extents, place_network(name, extents, readings))
        observers.notes.append(_WORD)
    for bundle in request.bundle:
        say(f"scores of {len(readings.images)} pictures by a bundle")
        scored = score_table(bundle, readings.images, ((0.0, 8.0), (0.0, 8.0)), what="brixia.csv")
        name = scored.label(observers.networks)
        digests[name] = scored.digest
        extents = scored.scores[:, 0]
        observers.networks[name] = (extents, place_network(name, extents, readings))
        observers.notes.extend(describe(scored, scores=("extent",)))
    for note in observers.notes:
        say(f"note: {note}")
    text = render_observers(observers)
    files = {
        "table.md": text.encode(),
        "results.json": as_json(to_observer_results(observers, {"bundles": digests})),
        **draw_observers(observers),
    }
    write_files(folder, files)
    return f"{text}\nwritten: {request.out}"
