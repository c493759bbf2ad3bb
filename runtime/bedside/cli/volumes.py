"""A segmented scan as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from bedside.bundle import Manifest
from bedside.cli.console import columns, field, printable
from bedside.cli.detail import describe_licence
from bedside.opacification import Opacification, OpacificationResult
from bedside.provenance import NOTICE
from bedside.report.wording import (
    bundle_line,
    confusion_line,
    engine_line,
    hu_text,
    interval_line,
    interval_text,
    ledger_line,
    ml_text,
    percent_text,
    sampling_line,
    share_line,
    sides_line,
    tissue_text,
)

__all__ = ["describe", "describe_row", "head_rows"]

ROW: Final = "{:<26}{:<10}{:<12}{:<12}{:<9}{}"
INDENT: Final = "  "


def describe(result: OpacificationResult, manifest: Manifest, files: Mapping[str, str]) -> str:
    """One segmented scan: its volumes with their uncertainty, and all that they rest on.

    Args:
        result: One with status ``ok``; the error of any other is raised.
        manifest: Of the bundle that answered.
        files: What was written: kind (``labels``, ``report``, ...) -> path.
    """
    found = _found(result)
    lines = [printable(result.source)]
    if result.series:
        lines.append(field("series", result.series))
    lines += [
        field("opacity", f"{_with_share(found)}; {interval_text(found.interval)}"),
        field("interval from", interval_line(found.interval)),
        field("slices", share_line(result, found)),
    ]
    if found.sampling is not None:
        lines.append(field("slices not read", sampling_line(found.sampling)))
    lines += ["", _table(_regions(found), names=1), "", _table(_tissues(found), names=2), ""]
    lines.append(field("left and right", f"told apart {sides_line(found)}"))
    lines += _fields("disagreement", [confusion_line(each) for each in found.confusion])
    lines += _fields("geometry", [ledger_line(entry) for entry in result.ledger] or ["nothing to tell"])
    lines += _fields("doubts", [f"{each.code}: {each.text}" for each in result.quality] or ["none"])
    lines.append(field("bundle", bundle_line(result)))
    lines.append(field("licence", describe_licence(manifest.licence)))
    lines.append(field("engine", engine_line(result)))
    if result.peak_memory_mib is not None:
        lines.append(field("memory", _memory(result)))
    lines.append(field("time", _time(result)))
    lines += [field(kind, path) for kind, path in files.items()]
    lines.append(NOTICE)
    return "\n".join(lines)


def head_rows() -> str:
    """The heading of `describe_row`."""
    return ROW.format("opacity, mL (interval)", "% of lung", "right, mL", "left, mL", "read", "source")


def describe_row(result: OpacificationResult) -> str:
    """One segmented scan on one line; the error of any other result is raised."""
    found = _found(result)
    interval = found.interval
    notes = [finding.code for finding in result.quality]
    notes += [entry.finding for entry in result.ledger if entry.decision == "mended"]
    told = f"  [{', '.join(dict.fromkeys(notes))}]" if notes else ""
    return ROW.format(
        f"{ml_text(found.both.opacity_ml)} ({ml_text(interval.low)} to {ml_text(interval.high)})",
        percent_text(found.both.opacity_percent),
        ml_text(found.right.opacity_ml),
        ml_text(found.left.opacity_ml),
        f"{100 * found.read_share:.0f} %",
        printable(result.source) + told,
    )


def _found(result: OpacificationResult) -> Opacification:
    found = result.raise_for_status().opacification
    if found is None:
        raise ValueError("a result without an error has volumes")
    return found


def _with_share(found: Opacification) -> str:
    share = found.both.opacity_percent
    return f"{ml_text(found.both.opacity_ml)} mL" + (
        "" if share is None else f", {percent_text(share)} % of the lungs"
    )


def _regions(found: Opacification) -> list[list[str]]:
    head = ["", "lung mL", "opacity mL", "expected mL", "opacity %", "aerated %", "mean HU"]
    regions = {"both lungs": found.both, "right lung": found.right, "left lung": found.left}
    return [head] + [
        [
            name,
            ml_text(region.lung_ml),
            ml_text(region.opacity_ml),
            ml_text(region.opacity_ml_expected),
            percent_text(region.opacity_percent),
            percent_text(region.aerated_percent),
            hu_text(region.mean_hu),
        ]
        for name, region in regions.items()
    ]


def _tissues(found: Opacification) -> list[list[str]]:
    head = ["label", "tissue", "mL", "expected mL", "right mL", "left mL", "% of lung", "mean HU"]
    return [head] + [
        [
            str(tissue.label),
            tissue_text(tissue),
            ml_text(tissue.ml),
            ml_text(tissue.ml_expected),
            ml_text(tissue.ml_right),
            ml_text(tissue.ml_left),
            percent_text(tissue.percent_of_lung),
            hu_text(tissue.mean_hu),
        ]
        for tissue in found.tissues
        if tissue.label or tissue.lung
    ]


def _fields(label: str, lines: list[str]) -> list[str]:
    return [field("" if number else label, line) for number, line in enumerate(lines)]


def _table(rows: Sequence[Sequence[str]], *, names: int) -> str:
    """Rows in columns, all but the first ``names`` of them ending at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [
        [
            cell if number < names else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
    return "\n".join(INDENT + line for line in columns(cells).splitlines())


def _memory(result: OpacificationResult) -> str:
    parts = [f"peak {result.peak_memory_mib:.0f} MiB"]
    if result.predicted_memory_mib is not None:
        parts.append(f"{result.predicted_memory_mib:.0f} predicted")
    if result.memory_budget_mib is not None:
        parts.append(f"{result.memory_budget_mib:.0f} allowed")
    return ", ".join(parts)


def _time(result: OpacificationResult) -> str:
    spent = dict(result.timing_ms)
    total = spent.pop("total", None)
    stages = ", ".join(f"{stage} {value / 1000:.2f}" for stage, value in spent.items())
    return ("" if total is None else f"{total / 1000:.2f} s: ") + stages
