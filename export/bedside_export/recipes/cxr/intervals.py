"""The manifest's intervals: calibrated on patients not trained on, and wider where the network errs more.

    python -m bedside_export.recipes.cxr.intervals --data ../shared/data --measured DIR

``DIR`` is what `cxr.severity`'s ``evaluate`` wrote, with ``degraded.csv`` of `cxr.degradations` if it is there. Writes
``DIR/intervals.json``, and prints what it found with the comparison of methods. The calibration is `cxr.conformal`'s
and the factors are `cxr.widening`'s; here they become what the bundle says.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bedside.contract import WIDENING_NOTES, Interval, Widening
from bedside_export.recipes.cxr.conformal import LEVELS, calibrate, compare_kinds
from bedside_export.recipes.cxr.data import read_collection, read_thumbnails, split
from bedside_export.recipes.cxr.report import SCORES, Prediction, read_predictions
from bedside_export.recipes.cxr.trials import TABLE, Trial, read_trials
from bedside_export.recipes.cxr.widening import FEWEST, measure_notes, measure_views

__all__ = ["FILE", "describe", "intervals_of", "measure_intervals"]

FILE: Final = "intervals.json"
"""What the command writes beside ``metrics.json``."""


def measure_intervals(
    predictions: Sequence[Prediction],
    training: Mapping[int, frozenset[str]],
    trials: Sequence[Trial] = (),
    *,
    levels: Sequence[float] = LEVELS,
) -> dict[str, Any]:
    """Calibrate the intervals of both scores, and measure what makes them wider.

    Args:
        predictions: Of all splits, on their held-out pictures.
        training: Seed -> the pictures of the patients that this split did not hold out.
        trials: What `cxr.degradations` wrote; without them, nothing is said of poor pictures.
        levels: Shares of truths inside, rising; results state the first beside a score.

    Returns:
        What ``intervals.json`` holds: `cxr.conformal.calibrate`'s findings, with ``views`` and ``notes`` of
        `cxr.widening`.

    Raises:
        ValueError: As `cxr.conformal.calibrate`.
    """
    return {
        **calibrate(predictions, training, levels),
        "views": measure_views(predictions, levels),
        "notes": measure_notes(trials, levels),
    }


def intervals_of(measured: Mapping[str, Any], score: str) -> tuple[Interval, ...]:
    """What the manifest says of a score: its intervals at all levels, the primary one first.

    Args:
        measured: What `measure_intervals` found.
        score: ``extent`` or ``opacity``.
    """
    views = (
        measured["views"] if all(score in measured["views"].get(name, ()) for name in ("PA", "AP")) else {}
    )
    return tuple(
        Interval(
            level=each["level"],
            below=round(each["offset"], 4),
            above=round(each["offset"], 4),
            method=f"conformal, from errors on {each['pictures']} pictures of patients not trained on, in "
            f"{measured['splits']} splits; held {each['coverage']:.0%} of the truths of patients that it was not "
            "calibrated on",
            wider=_widenings(measured["notes"], score, each["level"]),
            views=_widenings(views, score, each["level"]),
        )
        for each in measured[score]
    )


def _widenings(kinds: Mapping[str, Any], score: str, level: float) -> dict[str, Widening]:
    """Kind of picture -> how much wider, of those measured on enough pictures."""
    return {
        kind: Widening(round(found[score][f"{level:g}"]["factor"], 2), found["pictures"])
        for kind, found in kinds.items()
        if kind and score in found
    }


def describe(measured: Mapping[str, Any]) -> str:
    """What was found, as the model card tells it: Markdown."""
    levels = [f"{level:.0%}" for level in measured["levels"]]
    lines = [
        "| score | level | interval | coverage of other patients | mean width |",
        "|---|---|---|---|---|",
        *(
            f"| {score} | {each['level']:.0%} | ± {each['offset']:.2f} | {each['coverage']:.1%} "
            f"| {each['mean_width']:.2f} |"
            for score in SCORES
            for each in measured[score]
        ),
        "",
        f"Factors of the error at {' and '.join(levels)}; an interval is made wider by those over 1:",
        "",
        "| kind of picture | pictures | extent | opacity |",
        "|---|---|---|---|",
        *_describe_kinds(measured["views"]),
        *_describe_kinds(measured["notes"]),
    ]
    silent = [
        code for code in WIDENING_NOTES if not any(s in measured["notes"].get(code, ()) for s in SCORES)
    ]
    if silent:
        lines += ["", f"Not measured, or on too few pictures (under {FEWEST}) to say: {', '.join(silent)}."]
    return "\n".join(lines)


def _describe_kinds(kinds: Mapping[str, Any]) -> Iterator[str]:
    for kind, found in kinds.items():
        cells = (
            " and ".join(f"{each['ratio']:.2f}" for each in found[score].values())
            if score in found
            else "too few"
            for score in SCORES
        )
        yield f"| {kind or 'degraded, and not noted'} | {found['pictures']} | {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of the module's text."""
    parser = argparse.ArgumentParser(prog="cxr.intervals", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that holds cxr/")
    parser.add_argument("--measured", type=Path, required=True, help="folder with predictions.csv")
    given = parser.parse_args(arguments)
    predictions = read_predictions(given.measured / "predictions.csv")
    degraded = given.measured / TABLE
    trials = read_trials(degraded) if degraded.is_file() else []
    collection = read_collection(given.data)
    thumbnails = read_thumbnails(collection)
    training = {
        seed: frozenset(p.name for p in split(collection, thumbnails, seed=seed).training)
        for seed in sorted({p.seed for p in predictions})
    }
    measured = measure_intervals(predictions, training, trials)
    (given.measured / FILE).write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    print(describe(measured), compare_kinds(predictions, training), sep="\n\n")  # noqa: T201 - what it is run for


if __name__ == "__main__":
    main()
