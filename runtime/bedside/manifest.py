"""What a bundle says of itself: the contract between the training side and the bedside.

Whatever a result depends on stands in ``bundle.json``, and `read_manifest` refuses what it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from bedside.contract import (
    APPEARANCES,
    CONFUSION_ROUNDING,
    CROPS,
    CT_LIMITS,
    MANIFEST,
    MAX_CONTEXT_MM,
    MAX_SIDE,
    MAX_TISSUES,
    MEANINGS,
    PRECISIONS,
    RUNS,
    SCHEMA,
    SIDES,
    SKIPS,
    TASKS,
    TILE_WEIGHTS,
    VIEWS,
    WIDENING_NOTES,
    Golden,
    Input,
    Interval,
    Licence,
    Output,
    Repeatability,
    Score,
    Stored,
    Tiling,
    Tissue,
    VolumeInterval,
    Widening,
)
from bedside.errors import BundleError
from bedside.records import build, parse

__all__ = [
    "CROPS",
    "MANIFEST",
    "MEANINGS",
    "PRECISIONS",
    "SCHEMA",
    "TASKS",
    "Golden",
    "Input",
    "Interval",
    "Licence",
    "Manifest",
    "Output",
    "Repeatability",
    "Score",
    "Stored",
    "Tiling",
    "Tissue",
    "VolumeInterval",
    "Widening",
    "read_manifest",
]

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,31}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """``bundle.json``, checked."""

    schema: str
    """`SCHEMA`."""
    name: str
    """Lower-case, e.g. ``cxr-severity-lite``."""
    version: str
    """Version of the bundle, e.g. ``1.0.0``."""
    task: str
    """One of `TASKS`."""
    title: str
    """One line on what it does."""
    licence: Licence
    """Terms of the weights."""
    model_card: str
    """Markdown file: data, protocol, errors, limits."""
    parity: str
    """JSON file: the parity report that export wrote."""
    models: dict[str, str]
    """Precision (one of `PRECISIONS`; fp32 always) -> ONNX file."""
    input: Input
    """What the network takes."""
    outputs: tuple[Output, ...]
    """What it gives."""
    scores: tuple[Score, ...]
    """Clinical scores, in the order of the ``severity`` output's channels."""
    golden: Golden
    """Test vectors."""
    tolerances: dict[str, dict[str, float]]
    """Precision (one of `RUNS`) -> score, or one of `CT_LIMITS` -> greatest allowed difference from the reference."""
    files: dict[str, Stored]
    """Every file of the bundle but the manifest."""
    thresholds: dict[str, float] = field(default_factory=dict)
    """Named limits that quality notes use, e.g. ``lung_area_min``."""
    tiling: Tiling | None = None
    """CT: how a scan is cut."""
    tissues: tuple[Tissue, ...] = ()
    """CT: the classes, in the order of the ``tissues`` output's channels; the first is the background."""
    volume_interval: VolumeInterval | None = None
    """CT: uncertainty of the opacified volume, where it was measured."""
    confusion: tuple[tuple[float, ...], ...] = ()
    """CT: where it is known, for each tissue that the network names (row), the shares of what experts called those
    voxels (column); each row sums to 1."""
    float32_nodes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Precision (``bf16`` or ``fp16``) -> names of the fp32 graph's nodes that stay in float32 where an engine runs it
    at that precision: those that would take the answer out of its tolerance."""

    def __post_init__(self) -> None:
        """Check what types alone do not say."""
        for check in (_naming, _files, _input, _scores, _tissues, _outputs, _limits):
            for problem in check(self):
                raise BundleError("bundle-broken", f"{MANIFEST}: {problem}; export the bundle again")

    def tolerance(self, precision: str) -> dict[str, float]:
        """What is allowed at ``precision``, one of `RUNS`: its own tolerance, else that of the file that it runs.

        Raises:
            BundleError: ``bundle-precision`` if neither is stated.
        """
        for name in (precision, "" if precision == "bf16" else RUNS[precision]):
            if name in self.tolerances:
                return self.tolerances[name]
        stated = ", ".join(sorted(self.tolerances))
        raise BundleError(
            "bundle-precision", f"the bundle states no tolerance for {precision}; it does for {stated}"
        )


def read_manifest(text: bytes) -> Manifest:
    """``bundle.json`` as a checked value.

    Raises:
        BundleError: ``bundle-schema`` for another schema; ``bundle-broken`` for anything malformed, unknown,
            missing or contradictory.
    """
    try:
        raw = parse(text)
    except ValueError as error:
        raise BundleError(
            "bundle-broken", f"{MANIFEST} is not proper JSON ({error}); copy the bundle again"
        ) from error
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if not isinstance(schema, str):
        raise BundleError("bundle-broken", f"{MANIFEST} has no schema; this is not a bundle of bedside")
    if schema != SCHEMA:
        raise BundleError(
            "bundle-schema",
            f"the bundle is of schema {schema[:40]!r} and this runtime reads {SCHEMA!r}; update bedside, or "
            "export the bundle with the version that runs here",
        )
    try:
        return build(Manifest, raw)
    except BundleError:
        raise
    except ValueError as error:
        raise BundleError("bundle-broken", f"{MANIFEST}: {error}; export the bundle again") from error


def _naming(manifest: Manifest) -> Iterator[str]:
    if not _NAME.fullmatch(manifest.name):
        yield "name must be at most 64 lower-case letters, digits, '.' and '-'"
    if not _VERSION.fullmatch(manifest.version):
        yield "version must be 1 to 32 letters, digits, '.', '+' and '-'"
    if manifest.task not in TASKS:
        yield f"task must be one of {', '.join(TASKS)}"


def _files(manifest: Manifest) -> Iterator[str]:
    if "fp32" not in manifest.models:
        yield "models has no fp32, the reference"
    if unknown := set(manifest.models) - set(PRECISIONS):
        yield f"models has unknown precision {min(unknown)[:40]!r}"
    golden = manifest.golden
    named = {manifest.licence.file, manifest.model_card, manifest.parity, golden.inputs, golden.outputs}
    if missing := (named | set(manifest.models.values())) - set(manifest.files):
        yield f"{min(missing)[:100]!r} is named and not listed under files"
    for name, stored in manifest.files.items():
        if name == MANIFEST or stored.bytes < 0 or not _SHA256.fullmatch(stored.sha256):
            yield f"files: {name[:100]!r} has no proper size and sha256"


def _input(manifest: Manifest) -> Iterator[str]:
    spec = manifest.input
    if len(spec.shape) not in (4, 5) or any(
        size is not None and not 1 <= size <= MAX_SIDE for size in spec.shape
    ):
        yield f"input.shape must be (N, C, H, W) or (N, C, D, H, W), each from 1 to {MAX_SIDE}"
    elif spec.shape[0] not in (None, 1) or spec.shape[1] is None:
        yield "input.shape must be (null or 1, C, ...)"
    elif manifest.task == "cxr-severity" and (
        len(spec.shape) != 4 or None in spec.shape[1:] or spec.shape[1] != 1 or spec.shape[2] != spec.shape[3]
    ):
        yield "input.shape must be one channel of a square for cxr-severity"
    if manifest.task == "cxr-severity" and spec.crop not in CROPS:
        yield f"input.crop must be one of {', '.join(CROPS)}"
    if not spec.low < spec.high:
        yield "input.low must be under input.high"
    if manifest.task == "ct-opacity":
        yield from _scan_input(manifest)


def _scan_input(manifest: Manifest) -> Iterator[str]:
    spec, tiling = manifest.input, manifest.tiling
    if spec.hu_window is None or not spec.hu_window[0] < spec.hu_window[1]:
        yield "input.hu_window must be given for ct-opacity, its lower end first"
    sides = spec.shape[2:]
    if spec.spacing_mm is not None and min(spec.spacing_mm) <= 0:
        yield "input.spacing_mm must be over 0"
    if tiling is None:
        yield "tiling must be given for ct-opacity"
        return
    if len(tiling.size) != len(sides) or any(
        side < 1 or side > MAX_SIDE or fixed not in (None, side)
        for side, fixed in zip(tiling.size, sides, strict=False)
    ):
        yield "tiling.size must be a tile that input.shape takes"
    elif any(
        fixed is None and (side % tiling.multiple or side < tiling.smallest)
        for side, fixed in zip(tiling.size, sides, strict=True)
        if tiling.multiple > 0
    ):
        yield "tiling.size must be of tiling.multiple and at least tiling.smallest"
    if tiling.multiple < 1 or tiling.smallest < 1 or not 0 <= tiling.overlap <= 0.9:
        yield "tiling.multiple and .smallest must be at least 1, and .overlap from 0 to 0.9"
    if tiling.weights not in TILE_WEIGHTS or tiling.skip not in SKIPS:
        yield f"tiling.weights must be one of {', '.join(TILE_WEIGHTS)}, and .skip of {', '.join(SKIPS)}"
    if tiling.context < 0 or (len(sides) == 3 and tiling.context) or spec.shape[1] != 2 * tiling.context + 1:
        yield "input.shape must have 2 * tiling.context + 1 channels"
    if tiling.context_mm and not (tiling.context and 0 < tiling.context_mm <= MAX_CONTEXT_MM):
        yield f"tiling.context_mm must be over 0 and at most {MAX_CONTEXT_MM:g}, and needs a tiling.context"


def _tissues(manifest: Manifest) -> Iterator[str]:
    tissues = manifest.tissues
    if manifest.task != "ct-opacity":
        return
    names = tuple(tissue.name for tissue in tissues)
    if not 2 <= len(tissues) <= MAX_TISSUES or len(set(names)) != len(names):
        yield f"tissues must be 2 to {MAX_TISSUES}, each of another name"
    if not any(tissue.opacity for tissue in tissues) or not any(
        tissue.lung and not tissue.opacity for tissue in tissues
    ):
        yield "tissues must have an opacity, and a lung that is none"
    if any(tissue.side not in SIDES or (tissue.opacity and not tissue.lung) for tissue in tissues):
        yield "tissues: an opacity counts to the lung, and a side is left or right"
    if tissues and (tissues[0].lung or tissues[0].opacity):
        yield "tissues: the first must be the background"
    if [output.labels for output in manifest.outputs if output.meaning == "tissues"] != [names]:
        yield "outputs must have one tissues output with the tissues' names as labels"
    interval = manifest.volume_interval
    if interval is not None and not (0 < interval.level < 1 and 0 <= interval.low <= 1 <= interval.high):
        yield "volume_interval must have a level and low <= 1 <= high"
    if manifest.confusion and (
        len(manifest.confusion) != len(tissues)
        or any(
            len(row) != len(tissues) or min(row) < 0 or abs(sum(row) - 1) > CONFUSION_ROUNDING
            for row in manifest.confusion
        )
    ):
        yield "confusion must give each tissue a row of shares that sum to 1"


def _scores(manifest: Manifest) -> Iterator[str]:
    scores = tuple(score.name for score in manifest.scores)
    if manifest.task == "cxr-severity":
        if set(scores) != {"extent", "opacity"} or len(scores) != 2:
            yield "scores must be extent and opacity"
        if [output.labels for output in manifest.outputs if output.meaning == "severity"] != [scores]:
            yield "outputs must have one severity output with the scores' names as labels"
    for score in manifest.scores:
        if not score.low < score.high:
            yield f"scores: {score.name[:40]!r} has an empty scale"
        yield from (f"scores: {score.name[:40]!r} {problem}" for problem in _intervals(score))
        for repeated in (score.repeatability, score.observers):
            if repeated is not None and not (
                0 < repeated.level < 1 and 0 <= repeated.sd <= repeated.smallest_change
            ):
                yield f"scores: {score.name[:40]!r} has an improper repeatability"


def _intervals(score: Score) -> Iterator[str]:
    intervals = (score.interval, *score.further)
    if any(not 0 < each.level < 1 or min(each.below, each.above) < 0 for each in intervals):
        yield "has an improper interval"
    levels = [each.level for each in score.further]
    if levels != sorted(set(levels) - {score.interval.level}):
        yield "has further intervals whose levels do not rise, or one level twice"
    ordered = sorted(intervals, key=lambda each: each.level)
    if any(high.below < low.below or high.above < low.above for low, high in pairwise(ordered)):
        yield "has an interval that is narrower than one at a lower level"
    for each in intervals:
        if unknown := set(each.wider) - set(WIDENING_NOTES):
            yield f"has an interval wider for {min(unknown)[:40]!r}, which is no note of this version"
        if unknown := set(each.views) - set(VIEWS):
            yield f"has an interval for view {min(unknown)[:40]!r}, which is not one of {', '.join(VIEWS)}"
        if each.views and not {"PA", "AP"} <= set(each.views):
            yield "has an interval for some views, and not for PA and AP"
        widenings = (*each.wider.values(), *each.views.values())
        if any(widening.factor < 1 or widening.pictures < 1 for widening in widenings):
            yield "has an interval with a factor under 1, or one measured on no picture"


def _outputs(manifest: Manifest) -> Iterator[str]:
    names = [output.name for output in manifest.outputs]
    meanings = [output.meaning for output in manifest.outputs]
    if unknown := set(meanings) - set(MEANINGS):
        yield f"outputs has unknown meaning {min(unknown)[:40]!r}"
    if len(set(names)) != len(names) or len(set(meanings)) != len(meanings):
        yield "outputs has two of one name or of one meaning"
    scores = {score.name for score in manifest.scores}
    for output in manifest.outputs:
        name = output.name[:40]
        if len(set(output.labels)) != len(output.labels):
            yield f"outputs: {name!r} has one label twice"
        if output.trained and len(output.trained) != len(output.labels):
            yield f"outputs: {name!r} has {len(output.labels)} labels and {len(output.trained)} trained"
        if output.meaning == "pathologies" and not output.labels:
            yield f"outputs: {name!r} has no labels"
        if output.meaning == "activation-map" and not (output.labels and set(output.labels) <= scores):
            yield f"outputs: {name!r} must have names of scores as labels"


def _limits(manifest: Manifest) -> Iterator[str]:
    scores = {score.name for score in manifest.scores} if manifest.task == "cxr-severity" else set(CT_LIMITS)
    if missing := {"fp32", *manifest.models} - set(manifest.tolerances):
        yield f"tolerances has no {min(missing)}"
    for precision, limits in manifest.tolerances.items():
        if precision not in RUNS:
            yield f"tolerances has unknown precision {precision[:40]!r}"
        if set(limits) != scores or any(limit <= 0 for limit in limits.values()):
            yield f"tolerances: {precision} must give each of {', '.join(sorted(scores))} a limit over 0"
    if unknown := set(manifest.float32_nodes) - {"bf16", "fp16"}:
        yield f"float32_nodes has precision {min(unknown)[:40]!r}, which is not bf16 or fp16"
    yield from _appearance(manifest)
    if "lung_area_min" in manifest.thresholds and "lung_probability" not in manifest.thresholds:
        yield "thresholds has lung_area_min without lung_probability"


def _appearance(manifest: Manifest) -> Iterator[str]:
    """What is refused for its appearance hangs on a limit, and the limit on the output."""
    given = [output.labels for output in manifest.outputs if output.meaning == "appearance"]
    least, sure = (manifest.thresholds.get(f"frontal_probability_{name}") for name in ("min", "sure"))
    if given and (set(given[0]) - set(APPEARANCES) or given[0][:1] != APPEARANCES[:1]):
        yield f"outputs: the labels of an appearance must be frontal, then others of {', '.join(APPEARANCES)}"
    if bool(given) != (least is not None) or (least is None and sure is not None):
        yield "an appearance among outputs and thresholds.frontal_probability_min go together"
    if least is not None and not 0 < least <= (least if sure is None else sure) < 1:
        yield "thresholds must have 0 < frontal_probability_min <= frontal_probability_sure < 1"
