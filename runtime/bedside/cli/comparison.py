"""What ``bedside compare`` prints: a table of the cases, then the agreement over all of them."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite

from bedside.agreement import BlandAltman, Interval
from bedside.cli.console import columns, printable
from bedside.comparison import Comparison, PartAgreement
from bedside.comparison.quantities import Quantity
from bedside.measure import Overlap, SurfaceDistance
from bedside.provenance import NOTICE

__all__ = ["describe"]

ABSENT = "-"
"""What is not defined."""
EMPTY = {"": "", "first": "reference has none", "second": "reader has none", "both": "neither has any"}
"""`Overlap.empty`, in words."""
SHOWN = 3
"""Quantities of results whose values are printed for each case; the agreement is printed on all."""


def describe(comparison: Comparison) -> str:
    """All that is printed, as one text."""
    names = [reader.name for reader in comparison.readers]
    blocks = [f"reference: {printable(names[0])}; against it: {printable(', '.join(names[1:]))}"]
    blocks += _assumptions(comparison, names)
    if comparison.overlaps:
        blocks += [columns(_case_rows(comparison, names)), columns(_part_rows(comparison.parts, names))]
        blocks.append(_voxels(comparison, names))
    else:
        blocks.append(columns(_value_rows(comparison, names)))
    blocks.append(columns(_agreement_rows(comparison.quantities, names)))
    blocks.append("\n".join(_all_readers(comparison)))
    return "\n\n".join([*blocks, NOTICE])


def _assumptions(comparison: Comparison, names: list[str]) -> list[str]:
    taken: dict[str, set[int]] = {}
    for case in comparison.overlaps:
        for name, label in zip(names, case.assumed, strict=True):
            if label is not None:
                taken.setdefault(name, set()).add(label)
    said = [f"{printable(name)} (label {', '.join(map(str, sorted(of)))})" for name, of in taken.items()]
    if not said:
        return []
    return [
        f"taken as masks of opacity, as they hold one label and nothing says what it is: {'; '.join(said)}"
    ]


def _case_rows(comparison: Comparison, names: list[str]) -> Iterable[list[str]]:
    head = ["CASE", "READER", "PART", "DICE", "IOU", "REFERENCE mL", "READER mL", "DIFFERENCE mL", "%"]
    yield [*head, "SURFACE mm, mean", "95 %", "MAX", ""]
    for case in comparison.overlaps:
        for pair in case.pairs:
            for part, overlap in pair.overlaps.items():
                yield [
                    case.case,
                    names[pair.reader],
                    part,
                    *_ratios(overlap),
                    f"{overlap.first_ml:.1f}",
                    f"{overlap.second_ml:.1f}",
                    f"{overlap.difference_ml:+.1f}",
                    _number(overlap.difference_percent, "+.1f"),
                    *_distances(pair.surfaces[part]),
                    EMPTY[overlap.empty],
                ]


def _part_rows(parts: Iterable[PartAgreement], names: list[str]) -> Iterable[list[str]]:
    head = ["ALL CASES", "PART", "CASES", "DICE, mean", "IOU, mean", "DICE, pooled", "IOU, pooled"]
    yield [*head, "SURFACE mm, mean", "95 %", "MAX"]
    for part in parts:
        yield [
            names[part.reader],
            part.part,
            str(part.defined),
            _number(part.dice_mean, ".3f"),
            _number(part.iou_mean, ".3f"),
            *_ratios(part.pooled),
            *_distances(part.surface_mean),
        ]


def _voxels(comparison: Comparison, names: list[str]) -> str:
    voxels = comparison.voxels
    if voxels is None:
        return ""
    where = (
        "the voxels in any reader's lungs" if voxels.within_lung else "all voxels (so it grows with the grid)"
    )
    kappas = [f"{printable(name)} {_number(voxels.cohen(i), '.3f')}" for i, name in enumerate(names) if i]
    text = f"Cohen's kappa on opacity, over {where}: {', '.join(kappas)}"
    return (
        text if voxels.fleiss is None else f"{text}; Fleiss' kappa of all {len(names)}: {voxels.fleiss:.3f}"
    )


def _value_rows(comparison: Comparison, names: list[str]) -> Iterable[list[str]]:
    yield ["CASE", "QUANTITY", *names]
    shown = comparison.quantities[:SHOWN]
    for case in comparison.cases:
        for quantity in shown:
            if case in quantity.cases:
                row = quantity.values[quantity.cases.index(case)]
                yield [case, f"{quantity.name}, {quantity.unit}", *(f"{value:.2f}" for value in row)]


def _agreement_rows(quantities: Iterable[Quantity], names: list[str]) -> Iterable[list[str]]:
    scored = any(pair.kappa is not None for quantity in quantities for pair in quantity.pairs)
    head = [
        "AGREEMENT ON",
        "READER",
        "CASES",
        "BIAS [95 % CI]",
        "LIMITS OF AGREEMENT [95 % CI]",
        "MEAN ABSOLUTE",
    ]
    yield [*head, *(["QUADRATIC KAPPA [95 % CI]"] if scored else [])]
    for quantity in quantities:
        for pair in quantity.pairs:
            yield [
                f"{quantity.name}, {quantity.unit}",
                names[pair.reader],
                str(len(quantity.cases)),
                *_bland_altman(pair.bland_altman),
                f"{pair.mean_absolute:.2f}",
                *([ABSENT if pair.kappa is None else _interval(pair.kappa, ".3f")] if scored else []),
            ]


def _all_readers(comparison: Comparison) -> Iterable[str]:
    of = "both" if len(comparison.readers) == 2 else f"all {len(comparison.readers)}"
    for quantity in comparison.quantities:
        if quantity.icc is None:
            why = (
                "needs two cases or more"
                if len(quantity.cases) < 2
                else "is not defined: the cases do not differ"
            )
            yield f"{quantity.name}, {quantity.unit}: intraclass correlation {why}"
            continue
        text = (
            f"{quantity.name}, {quantity.unit}: ICC(2,1) of {of} {_interval(quantity.icc['ICC(2,1)'], '.3f')}"
        )
        if quantity.fleiss is not None:
            text += f"; Fleiss' kappa of whole points {quantity.fleiss:.3f}"
        yield text


def _ratios(overlap: Overlap) -> list[str]:
    return [_number(overlap.dice, ".3f"), _number(overlap.iou, ".3f")]


def _distances(distance: SurfaceDistance | None) -> list[str]:
    if distance is None:
        return [ABSENT] * 3
    return [f"{distance.mean_mm:.2f}", f"{distance.hausdorff95_mm:.2f}", f"{distance.hausdorff_mm:.2f}"]


def _bland_altman(found: BlandAltman | None) -> list[str]:
    if found is None:
        return [f"{ABSENT} (needs two cases)", ABSENT]
    return [
        _interval(found.bias, "+.2f"),
        f"{_interval(found.lower, '+.2f')} to {_interval(found.upper, '+.2f')}",
    ]


def _interval(interval: Interval, form: str) -> str:
    low = format(interval.low, form) if isfinite(interval.low) else "-inf"
    return f"{interval.value:{form}} [{low}, {interval.high:{form}}]"


def _number(value: float | None, form: str) -> str:
    return ABSENT if value is None else format(value, form)
