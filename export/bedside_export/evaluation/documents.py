"""An evaluation as files: the table in the paper's form, all numbers as JSON, and every prediction as CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from bedside.disk import told
from bedside.errors import OutputError
from bedside.provenance import NOTICE
from bedside.results.files import checked, prepare_folder, write_bytes
from bedside.version import __version__
from bedside_export.evaluation.protocol import PROTOCOL, Evaluation, Row
from bedside_export.evaluation.statistics import Measured
from bedside_export.heads import SCORES, TITLES

__all__ = [
    "SCHEMA",
    "as_json",
    "prepare_output",
    "render_table",
    "to_predictions",
    "to_results",
    "write_files",
]

SCHEMA: Final = "bedside.evaluation-cxr/1"
_HEADS: Final = (
    "Features",
    "# parameters",
    "Correlation",
    "R²",
    "MAE",
    "MSE",
    "MAE of the mean's",
    "MAE, 95 %",
)


_LEGEND: Final = (
    "Deviations are of the splits. *MAE of the mean's*: MAE over that of answering each picture with the training "
    "half's mean, on the same splits: under 1 is better than knowing no picture. *MAE, 95 %*: patients drawn again, "
    "2,000 times. Error by score and agreement are of each picture's mean prediction over the splits that held it out; "
    "the intervals of agreement take pictures as independent. A constant has correlation 0."
)


def render_table(evaluation: Evaluation) -> str:
    """``table.md``: for each score the paper's table, then errors by range and limits of agreement."""
    table = evaluation.table
    lines = [
        "# Severity of chest X-rays against experts",
        "",
        f"**{NOTICE}** {_count(evaluation)} {PROTOCOL}",
        "",
        *(f"> {note}\n" for note in evaluation.notes),
    ]
    for name, title, (low, high) in zip(SCORES, TITLES, table.bounds, strict=True):
        rows = evaluation.rows[name]
        lines += [f"## {title.capitalize()} ({low:g} to {high:g})", "", *_paper_table(rows), ""]
        lines += [f"### {title.capitalize()}: error by the experts' score", "", *_range_table(rows), ""]
        lines += [f"### {title.capitalize()}: agreement", "", *_limits_table(rows), ""]
    lines += [
        _LEGEND,
        "",
    ]
    return "\n".join(lines)


def _count(evaluation: Evaluation) -> str:
    table = evaluation.table
    splits = sorted({row.splits for rows in evaluation.rows.values() for row in rows})
    return (
        f"{len(table.images)} pictures of {len(set(table.patients))} patients; splits: "
        f"{' and '.join(map(str, splits))}."
    )


def _paper_table(rows: Sequence[Row]) -> list[str]:
    lines = [f"| {' | '.join(_HEADS)} |", "|---" * len(_HEADS) + "|"]
    for row in rows:
        of = row.summary.metrics
        cells = [_deviation(of[name]) for name in ("correlation", "r2", "mae", "mse")]
        mae = of["mae"]
        ratio = row.summary.ratio
        lines.append(
            f"| {row.method} | {row.parameters or '-'} | {' | '.join(cells)} | {_two(ratio.mean)} "
            f"({_two(ratio.low)} to {_two(ratio.high)}) | {_two(mae.low)} to {_two(mae.high)} |"
        )
    return lines


def _range_table(rows: Sequence[Row]) -> list[str]:
    ranges = rows[0].ranges
    heads = [f"{each.low:g} to {each.high:g}" for each in ranges]
    lines = [f"| MAE (bias) | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for row in rows:
        cells = [
            "-"
            if each.mae is None or each.bias is None
            else f"{each.mae:.2f} ({each.bias:+.2f}), {each.pictures}"
            for each in row.ranges
        ]
        lines.append(f"| {row.method} | {' | '.join(cells)} |")
    return [*lines, "", "MAE, bias in brackets, and the number of pictures."]


def _limits_table(rows: Sequence[Row]) -> list[str]:
    lines = ["| prediction less experts | bias | limits of agreement (95 %) |", "|---|---|---|"]
    for row in rows:
        if row.limits is not None:
            bias = row.limits.bias
            lines.append(
                f"| {row.method} | {bias.value:+.2f} ({bias.low:+.2f} to {bias.high:+.2f}) | "
                f"{row.limits.lower.value:+.2f} to {row.limits.upper.value:+.2f} |"
            )
    return lines


def _deviation(measured: Measured) -> str:
    return f"{_two(measured.mean)}±{_two(measured.sd)}" if math.isfinite(measured.sd) else _two(measured.mean)


def _two(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"


def to_results(evaluation: Evaluation, about: Mapping[str, Any]) -> dict[str, Any]:
    """``results.json``.

    Args:
        evaluation: What was measured.
        about: What it was measured of: weights, bundles, versions.
    """
    table = evaluation.table
    return {
        "schema": SCHEMA,
        "protocol": PROTOCOL,
        "pictures": len(table.images),
        "patients": len(set(table.patients)),
        "scales": {name: list(bounds) for name, bounds in zip(SCORES, table.bounds, strict=True)},
        "notes": evaluation.notes,
        "scores": {name: [asdict(row) for row in rows] for name, rows in evaluation.rows.items()},
        **about,
        "bedside": __version__,
        "notice": NOTICE,
    }


def to_predictions(evaluation: Evaluation) -> str:
    """``predictions.csv``: each method's mean prediction of each picture over the splits that held it out."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["image", "method", "splits", *(f"true_{name}" for name in SCORES), *SCORES])
    for outcome in evaluation.outcomes:
        means = [evaluation.mean_prediction(outcome, score) for score in range(len(SCORES))]
        counts = np.isfinite(outcome.predicted[:, :, 0]).sum(axis=0)
        for place, image in enumerate(evaluation.table.images):
            truth = evaluation.table.scores[place]
            if counts[place]:
                given = (f"{value:.6g}" for value in (*truth, *(of[place] for of in means)))
                writer.writerow([image.name, outcome.name, int(counts[place]), *given])
    return stream.getvalue()


def as_json(value: Any) -> bytes:
    """JSON for people and programs; what is not a number is null."""
    return (json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def prepare_output(folder: Path, *, force: bool) -> Path:
    """The folder, made and found writable, before anything slow.

    Raises:
        OutputError: ``output-exists`` where something is in it, unless ``force``; ``output-not-writable``;
            ``disk-full``.
    """
    path = checked(folder)
    with told():
        filled = path.is_dir() and any(path.iterdir())
    if filled and not force:
        raise OutputError(
            "output-exists", "there is something in the output folder already; choose another, or add --force"
        )
    return prepare_folder(path)


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write each file whole.

    Raises:
        OutputError: ``disk-full``; ``output-not-writable``.
    """
    for name, data in files.items():
        write_bytes(folder / name, data)
