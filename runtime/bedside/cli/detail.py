"""A result as text for people."""

from __future__ import annotations

from typing import Final

from bedside.batch import Output, Scored
from bedside.bundle import Licence, Manifest
from bedside.cli.console import field, printable
from bedside.cxr import Estimate
from bedside.severity import SeverityResult

__all__ = ["describe", "describe_licence", "describe_row", "head_rows"]

USUAL: Final = "voi"
"""Code of the note that nearly every DICOM file has: which window was taken. Left out of rows."""
ROW = "{:<20}{:<20}{}"


def describe(scored: Scored, manifest: Manifest, output: Output | None) -> str:
    """One scored result, a line a fact."""
    result = scored.result
    severity = result.raise_for_status().severity
    if severity is None:
        raise ValueError("a result without an error has scores")
    lines = [printable(result.source)]
    estimates = (severity.extent, severity.opacity)
    lines += [field(estimate.title, _with_interval(estimate)) for estimate in estimates]
    methods = dict.fromkeys(estimate.method for estimate in estimates)
    lines.append(field("intervals from", "; ".join(methods)))
    ranked = sorted(severity.pathologies.items(), key=lambda item: -item[1])
    lines += [
        field("" if number else "pathologies", f"{p:.2f} {label}") for number, (label, p) in enumerate(ranked)
    ]
    notes = [f"{finding.code}: {finding.text}" for finding in result.quality] or ["none"]
    lines += [field("" if number else "notes", note) for number, note in enumerate(notes)]
    bundle, engine, spent = result.bundle, result.engine, dict(result.timing_ms)
    lines.append(field("bundle", f"{bundle.name} {bundle.version}, sha256 {bundle.digest[:12]}"))
    lines.append(field("licence", describe_licence(manifest.licence)))
    lines.append(field("engine", engine.line))
    total = spent.pop("total")
    stages = ", ".join(f"{stage} {value:.1f}" for stage, value in spent.items())
    lines.append(field("time", f"{total:.1f} ms: {stages}"))
    if output is not None:
        lines += [field(kind, str(output.folder / name)) for kind, name in scored.files.items()]
    return "\n".join(lines)


def describe_licence(licence: Licence) -> str:
    """A bundle's licence, and whether it may be used commercially."""
    return licence.spdx if licence.commercial_use else f"{licence.spdx}: not for commercial use"


def head_rows(manifest: Manifest) -> str:
    """The heading of `describe_row`."""
    scales = {score.name: f"{score.name} ({score.low:g} to {score.high:g})" for score in manifest.scores}
    return ROW.format(scales["extent"], scales["opacity"], "source")


def describe_row(result: SeverityResult) -> str:
    """One scored result on one line."""
    cells = [
        "" if e is None else f"{e.value:.1f} ({e.low:.1f} to {e.high:.1f})"
        for e in (result.extent, result.opacity)
    ]
    notes = ", ".join(dict.fromkeys(f.code for f in result.quality if f.code != USUAL))
    return ROW.format(*cells, printable(result.source) + (f"  [{notes}]" if notes else ""))


def _with_interval(estimate: Estimate) -> str:
    low, high = estimate.scale
    interval = f"{estimate.level:.0%} interval {estimate.low:.1f} to {estimate.high:.1f}"
    further = "".join(f", {span.level:.0%} {span.low:.1f} to {span.high:.1f}" for span in estimate.further)
    return f"{estimate.value:.1f} on a scale of {low:g} to {high:g}; {interval}{further}"
