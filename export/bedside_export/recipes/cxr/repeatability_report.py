"""What was measured of repeatability, in a bundle's manifest and on its card; no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil, exp
from pathlib import Path
from typing import Any, Final

from bedside.bundle import Score
from bedside.contract import Repeatability
from bedside_export.recipes.spread import LEVEL

__all__ = ["FILE", "describe", "read_repeatability", "with_repeatability"]

FILE: Final = "repeatability.json"
"""What the command writes beside ``metrics.json``, and `read_repeatability` reads."""
_OWN: Final = (
    "{series} pictures of {patients} patients not trained on, each taken again {repeats} times by computation: crop, "
    "turn, exposure, noise, resolution; breath, posture and projection are not in it"
)
_PEOPLE: Final = "global Brixia scores of {series} pictures by two radiologists, over 18 * 8"

_EXPERTS: Final = {"severity": "severity", "brixia": "Brixia"}


def with_repeatability(score: Score, measured: Mapping[str, Any]) -> Score:
    """A score that says what was measured of it; unchanged where nothing was.

    Args:
        score: As drafted.
        measured: What `measure` gives, or nothing.
    """
    if not measured:
        return score
    own, people = measured["repeatability"].get(score.name), measured["observers"].get(score.name)
    return replace(
        score,
        repeatability=None
        if own is None
        else _entry(own, _OWN.format(**own, **measured) + _say_changes(measured["changes"][score.name])),
        observers=None if people is None else _entry(people, _PEOPLE.format(**people)),
    )


def _say_changes(changes: Sequence[Mapping[str, Any]]) -> str:
    """How many of the changes beyond the smallest were the experts' too."""
    return "".join(
        f"; of {one['beyond']} changes beyond it between days of patients not trained on, {one['same_way']} went the "
        f"way of the experts' {_EXPERTS[one['experts']]} scores, {one['other_way']} the other way"
        for one in changes
    )


def read_repeatability(trained: Path) -> dict[str, Any]:
    """What the command wrote into a folder; empty where it was not run there."""
    path = trained / FILE
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _entry(measured: Mapping[str, Any], method: str) -> Repeatability:
    return Repeatability(
        sd=round(measured["sd"], 4),
        smallest_change=ceil(measured["smallest_change"] * 1e4) / 1e4,
        level=measured["level"],
        method=method,
    )


def describe(measured: Mapping[str, Any]) -> str:
    """What was measured, for the model card; empty where nothing was."""
    if not measured:
        return ""
    rows = [
        f"| {name}, {who} | {one['series']} | {one['sd']:.2f} | {one['sd_interval'][0]:.2f} to "
        f"{one['sd_interval'][1]:.2f} | {one['by_formula']:.2f} | {one['held_by_formula']:.1%} | "
        f"{one['smallest_change']:.2f} |"
        for part, who in (("repeatability", "this network"), ("observers", "two radiologists"))
        for name, one in measured[part].items()
    ]
    how = measured["retake"]
    changes = [
        f"| {name} | {_EXPERTS[one['experts']]} | {one['pairs']} of {one['patients']} | {one['rms_of_experts']:.2f} | "
        f"{one['rms_error']:.2f} | {one['beyond']} | {one['same_way']} | {one['other_way']} | {one['unchanged']} |"
        for name, compared in measured["changes"].items()
        for one in compared
    ]
    return f"""\
## Repeatability

Each picture of patients not trained on, taken again {measured["repeats"]} times by computation: up to
{how["crop"]:.0%} cut off at each edge, turned by up to {how["rotation"]:g} degrees, gamma from
{exp(-how["gamma"]):.2f} to {exp(how["gamma"]):.2f}, black and white moved by up to {how["window"]:.0%} of the range,
noise of up to {how["noise"]:.0%} of it, resolution down to {how["resolution"]:.0%}. That was assumed: how far real
retakes differ was not measured, and breath, posture and projection are not in it, so that the true noise is larger.

| score | series | standard error | {LEVEL:.0%} interval | 1.96 sqrt(2) of it | held of pairs | smallest change |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

The smallest change is widened until it holds {LEVEL:.0%} of the pairs in each third of the pictures, by their score.
Radiologists: global Brixia scores of one picture, over 18 * 8.

Beyond it does not mean that a change is the patient's. Between consecutive days of patients not trained on:

| score | experts' | pairs of patients | their RMS | RMS of our error | beyond | their way | other way | they saw none |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(changes)}
"""
