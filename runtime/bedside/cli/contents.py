"""A bundle's contents, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bedside.bundle import Bundle, Output, Score
from bedside.cli.console import field
from bedside.cli.detail import describe_licence
from bedside.contract import Input, Tiling, Tissue
from bedside.errors import BundleError
from bedside.manifest import Manifest

__all__ = ["contents_of", "describe_contents"]


def contents_of(bundle: Bundle) -> dict[str, Any]:
    """The manifest as an object, with the bundle's ``digest``, ``location``, and what its models hold (``onnx``)."""
    onnx = {}
    for precision in bundle.manifest.models:
        model = bundle.onnx(precision)
        onnx[precision] = {
            "ir_version": model.ir_version,
            "opsets": dict(model.opsets),
            "operators": dict(model.operators),
        }
    return {**asdict(bundle.manifest), "digest": bundle.digest, "location": bundle.location, "onnx": onnx}


def describe_contents(bundle: Bundle) -> str:
    """The same, a line a fact."""
    return "\n".join(field(label, value) for label, value in _facts(bundle))


def _facts(bundle: Bundle) -> Iterator[tuple[str, str]]:
    manifest = bundle.manifest
    inside = Path(bundle.location).is_dir()
    yield "bundle", f"{manifest.name} {manifest.version}: {manifest.title}"
    yield "task", manifest.task
    yield "sha256", bundle.digest
    yield "location", bundle.location
    yield "licence", f"{describe_licence(manifest.licence)} ({manifest.licence.notice})"
    yield (
        "model card",
        str(Path(bundle.location) / manifest.model_card) if inside else f"{manifest.model_card} in the zip",
    )
    for score in manifest.scores:
        yield f"score {score.name}", _describe_score(score)
        yield from (("", line) for line in _describe_intervals(score))
    yield "input", f"{manifest.input.name} float32 {_describe_shape(manifest.input.shape)}"
    yield "", _describe_input(manifest.input)
    yield from _scan_facts(manifest)
    for output in manifest.outputs:
        yield f"output {output.name}", _describe_output(output)
    for precision, name in manifest.models.items():
        model = bundle.onnx(precision)
        opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in model.opsets.items())
        yield f"model {precision}", f"{name}, ONNX IR {model.ir_version}, operator set {opsets}"
        yield "", ", ".join(f"{count} {operator}" for operator, count in sorted(model.operators.items()))
    for precision, limits in manifest.tolerances.items():
        yield f"tolerance {precision}", ", ".join(f"{what} {limit:g}" for what, limit in limits.items())
    if manifest.thresholds:
        yield "thresholds", ", ".join(f"{name} {limit:g}" for name, limit in manifest.thresholds.items())
    yield "golden vectors", manifest.golden.source
    yield from _parity_facts(bundle)
    for number, (name, stored) in enumerate(sorted(manifest.files.items())):
        yield "" if number else "files", f"{stored.bytes:>12,} bytes  {stored.sha256[:12]}  {name}"


def _scan_facts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """What only a bundle for CT says."""
    if manifest.tiling is not None:
        yield "tiles", _describe_tiling(manifest.tiling, manifest.input)
    for label, tissue in enumerate(manifest.tissues):
        yield f"tissue {label}", _describe_tissue(tissue)
    interval = manifest.volume_interval
    if interval is not None:
        yield (
            "opacity interval",
            f"{interval.level:.0%} from {interval.low:g} to {interval.high:g} times the volume, {interval.method}",
        )
    for tissue, row in zip(manifest.tissues, manifest.confusion, strict=False):
        shares = (
            f"{share:.0%} {other.name}" for other, share in zip(manifest.tissues, row, strict=True) if share
        )
        yield f"{tissue.name} is", ", ".join(shares)


def _parity_facts(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """How far each engine was from the reference at export: on real pictures where it was tried on any."""
    try:
        report = json.loads(bundle.read(bundle.manifest.parity))
        for each in report.get("engines", []):
            label = f"parity {each['backend']} {each['precision']}"
            yield (
                label,
                ": ".join(filter(None, (each["status"], _describe_gaps(each) or each.get("reason", "")))),
            )
        seen = report.get("validation")
        if seen:
            yield (
                "",
                f"on {seen['images']} real pictures or tiles, sha256 {seen['sha256'][:12]}; the rest in parity.json",
            )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BundleError("bundle-broken", "the parity report is not one; export the bundle again") from error


def _describe_gaps(engine: dict[str, Any]) -> str:
    """The gaps on real pictures, or else on golden inputs; of the tissues' Dice the largest alone."""
    gaps = engine.get("real") or engine.get("golden") or {}
    dice = {name: gap for name, gap in gaps.items() if name.startswith("Dice loss")}
    usual = {name: gap for name, gap in gaps.items() if name not in dice}
    if dice:
        usual["largest Dice loss"] = max(dice.values(), key=_usual_gap)
    return ", ".join(
        f"{name} {'p99 ' if 'p99' in gap else ''}{_usual_gap(gap):.2g}"
        + (f", worst {gap['worst']:.2g}" if "worst" in gap else "")
        + f" (at most {gap['limit']:g})"
        for name, gap in usual.items()
    )


def _usual_gap(gap: dict[str, float]) -> float:
    """The 99th percentile over pictures, or what all slices give together, or the largest over golden inputs."""
    return next(gap[key] for key in ("p99", "all", "difference") if key in gap)


def _describe_input(spec: Input) -> str:
    if spec.hu_window is None:
        return (
            f"black {spec.low:g}, white {spec.high:g}, outside the picture {spec.outside:g}, crop {spec.crop}"
        )
    low, high = spec.hu_window
    spacing = (
        "the scan's own"
        if spec.spacing_mm is None
        else " x ".join(f"{mm:g}" for mm in spec.spacing_mm) + " mm"
    )
    return f"HU from {low:g} to {high:g} as {spec.low:g} to {spec.high:g}, spacing in the slice {spacing}"


def _describe_tiling(tiling: Tiling, spec: Input) -> str:
    size = " x ".join(map(str, tiling.size))
    if None in spec.shape[2:]:
        size += f" (or multiples of {tiling.multiple} from {tiling.smallest} on)"
    slices = f", {2 * tiling.context + 1} neighbouring slices" if tiling.context else ""
    if tiling.context_mm:
        slices += f" about {tiling.context_mm:g} mm apart"
    skip = {"constant": "of one value", "body": "of one value or without body"}[tiling.skip]
    return (
        f"{size}{slices}, overlap {tiling.overlap:.0%}, {tiling.weights} weights; those {skip} are left out"
    )


def _describe_tissue(tissue: Tissue) -> str:
    kind = "opacity" if tissue.opacity else "lung" if tissue.lung else "not lung"
    return f"{tissue.name}: {kind}{f', {tissue.side}' if tissue.side else ''}"


def _describe_score(score: Score) -> str:
    return f"{score.title}, {score.low:g} to {score.high:g}, by {score.head}"


def _describe_intervals(score: Score) -> Iterator[str]:
    """One line an interval, and one for what makes it wider."""
    for interval in (score.interval, *score.further):
        ends = f"-{interval.below:g} +{interval.above:g}"
        yield f"{interval.level:.0%} interval {ends}, from {interval.method}"
        for kind, widenings in (("views", interval.views), ("notes", interval.wider)):
            if widenings:
                told = (f"{name} x{w.factor:g} ({w.pictures} pictures)" for name, w in widenings.items())
                yield f"  by {kind}: {', '.join(told)}"
    for what, measured in (("smallest change", score.repeatability), ("of two observers", score.observers)):
        if measured is not None:
            yield f"{what} {measured.smallest_change:g} at {measured.level:.0%}, {measured.method}"


def _describe_shape(shape: tuple[int | None, ...]) -> str:
    return " x ".join(
        str(size) if size is not None else "any" if axis else "N" for axis, size in enumerate(shape)
    )


def _describe_output(output: Output) -> str:
    trained = output.trained or (True,) * len(output.labels)
    labels = (label if known else f"({label})" for label, known in zip(output.labels, trained, strict=True))
    note = "; in brackets: not trained, never reported" if not all(trained) else ""
    return f"{output.meaning}: {', '.join(labels) or 'one channel'}{note}"
