"""What a bundle says of itself: the contract between the training side and the bedside.

Whatever a result depends on stands in ``bundle.json``, and `read_manifest` refuses what it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

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
    "Score",
    "Stored",
    "read_manifest",
]

SCHEMA: Final = "bedside.bundle/1"
"""The one schema that this runtime reads."""
MANIFEST: Final = "bundle.json"
"""Name of the manifest inside a bundle."""
TASKS: Final = ("cxr-severity", "ct-opacity")
"""What a bundle may be for."""
PRECISIONS: Final = ("fp32", "fp16", "int8")
"""Precisions that a bundle can hold as files; bf16 is a way to run the fp32 file."""
MEANINGS: Final = ("severity", "pathologies", "activation-map", "lungs")
"""What an output may be."""
CROPS: Final = ("centre-square", "pad-square")
"""How the network's square is taken of a picture."""
MAX_SIDE: Final = 4096
"""Largest side of a network's input, in pixels: no network here comes near, and a wrong one must not eat all memory."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,31}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Stored:
    """One file of the bundle."""

    bytes: int
    """Its exact size."""
    sha256: str
    """Its SHA-256, 64 lower-case hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Licence:
    """Under what terms the weights may be used."""

    spdx: str
    """SPDX expression, e.g. ``CC-BY-NC-SA-4.0``."""
    file: str
    """The licence text's file in the bundle."""
    commercial_use: bool
    """False where a licence of the training data forbids it."""
    notice: str
    """One line on where the terms come from."""


@dataclass(frozen=True, slots=True)
class Input:
    """What the network takes, and how a picture becomes that."""

    name: str
    """Name of the graph's input."""
    shape: tuple[int | None, ...]
    """``(N, C, H, W)``; None where dynamic."""
    low: float
    """Value that black (display value 0) is mapped to."""
    high: float
    """Value that white (display value 1) is mapped to."""
    crop: str
    """``centre-square``: the largest square in the middle; ``pad-square``: the smallest square around."""
    outside: float = 0.0
    """Value, on the scale of `low` and `high`, of what lies outside the picture: of padding, and of the
    border that anti-aliasing reaches over."""

    @property
    def size(self) -> tuple[int, int]:
        """``(H, W)``, which a checked manifest always fixes."""
        height, width = self.shape[2:]
        if height is None or width is None:
            raise BundleError("bundle-broken", f"{MANIFEST}: input.shape has no fixed height and width")
        return height, width


@dataclass(frozen=True, slots=True)
class Output:
    """One output of the graph."""

    name: str
    """Name of the graph's output."""
    meaning: str
    """One of `MEANINGS`."""
    labels: tuple[str, ...] = ()
    """What each channel is; for ``severity`` and ``activation-map``, names of scores."""
    trained: tuple[bool, ...] = ()
    """For ``pathologies``: which labels the network was trained on; the others are never reported."""


@dataclass(frozen=True, slots=True)
class Interval:
    """How far the truth may lie from a score, as it was measured."""

    level: float
    """Share of truths inside, e.g. 0.8."""
    below: float
    """Distance from the score down to the lower end, at least 0, in score units."""
    above: float
    """Distance from the score up to the upper end, at least 0, in score units."""
    method: str
    """What error it was taken from, in one line."""


@dataclass(frozen=True, slots=True)
class Score:
    """A clinical score that the bundle gives."""

    name: str
    """``extent`` or ``opacity``."""
    title: str
    """For people, e.g. ``geographic extent``."""
    low: float
    """Lower bound of its scale."""
    high: float
    """Upper bound of its scale."""
    head: str
    """What turns features into this score, and where it comes from."""
    interval: Interval
    """Its uncertainty."""


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs with the outputs that the fp32 reference gave, to try an engine on."""

    inputs: str
    """``.npy`` file, ``(N, C, H, W)`` float32: network inputs."""
    outputs: str
    """``.npz`` file: output name -> array, from the PyTorch network."""
    source: str
    """What the pictures are."""


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
    """Precision (with ``bf16``) -> score -> greatest allowed difference from the reference, in score units."""
    files: dict[str, Stored]
    """Every file of the bundle but the manifest."""
    thresholds: dict[str, float] = field(default_factory=dict)
    """Named limits that quality notes use, e.g. ``lung_area_min``."""

    def __post_init__(self) -> None:
        """Check what types alone do not say."""
        for check in (_naming, _files, _input, _scores, _outputs, _limits):
            for problem in check(self):
                raise BundleError("bundle-broken", f"{MANIFEST}: {problem}; export the bundle again")


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
    if len(spec.shape) != 4 or any(size is not None and not 1 <= size <= MAX_SIDE for size in spec.shape):
        yield f"input.shape must be (N, C, H, W), each from 1 to {MAX_SIDE}"
    elif spec.shape[0] not in (None, 1) or None in spec.shape[1:]:
        yield "input.shape must be (null or 1, C, H, W)"
    elif manifest.task == "cxr-severity" and (spec.shape[1] != 1 or spec.shape[2] != spec.shape[3]):
        yield "input.shape must be one channel of a square for cxr-severity"
    if spec.crop not in CROPS:
        yield f"input.crop must be one of {', '.join(CROPS)}"
    if not spec.low < spec.high:
        yield "input.low must be under input.high"


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
        if not 0 < score.interval.level < 1 or min(score.interval.below, score.interval.above) < 0:
            yield f"scores: {score.name[:40]!r} has an improper interval"


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
    scores = {score.name for score in manifest.scores}
    if missing := {"fp32", *manifest.models} - set(manifest.tolerances):
        yield f"tolerances has no {min(missing)}"
    for precision, limits in manifest.tolerances.items():
        if precision not in (*PRECISIONS, "bf16"):
            yield f"tolerances has unknown precision {precision[:40]!r}"
        if set(limits) != scores or any(limit <= 0 for limit in limits.values()):
            yield f"tolerances: {precision} must give each score a limit over 0"
    if "lung_area_min" in manifest.thresholds and "lung_probability" not in manifest.thresholds:
        yield "thresholds has lung_area_min without lung_probability"
