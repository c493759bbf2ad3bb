"""What a bundle is to say of itself, before it is written: the manifest but for its files.

Draft           for either task
texts           the files that it says itself
make_manifest   a draft and the files, as `bedside.bundle.Manifest`
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bedside.bundle import SCHEMA, Golden, Input, Licence, Manifest, Output, Score, Stored
from bedside.manifest import Tiling, Tissue, VolumeInterval
from bedside_export.golden import SOURCE

__all__ = [
    "CARD_FILE",
    "INPUTS_FILE",
    "LICENCE_FILE",
    "METRICS_FILE",
    "MODEL_FILE",
    "OUTPUTS_FILE",
    "PARITY_FILE",
    "TOLERANCES",
    "Draft",
    "make_manifest",
    "texts",
]

MODEL_FILE: Final = "model.onnx"
CARD_FILE: Final = "MODEL_CARD.md"
LICENCE_FILE: Final = "LICENSE.txt"
"""Where `Draft.licence_text` goes; the name that a wheel's licence collection finds."""
PARITY_FILE: Final = "parity.json"
INPUTS_FILE: Final = "golden-inputs.npy"
OUTPUTS_FILE: Final = "golden-outputs.npz"
METRICS_FILE: Final = "metrics.json"
"""What a recipe measured, where it made the bundle."""
_FILES: Final = (MODEL_FILE, CARD_FILE, LICENCE_FILE, PARITY_FILE, INPUTS_FILE, OUTPUTS_FILE)
TOLERANCES: Final[Mapping[str, float]] = {"fp32": 0.01, "bf16": 0.1, "fp16": 0.1}
"""Precision -> greatest difference of a score from PyTorch's, in score units. Scores are read to a tenth."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What a bundle is to say of itself; see `bedside.bundle.Manifest` for the meaning of each.

    Raises:
        BundleError: ``bundle-broken`` if no manifest can say that.
    """

    name: str
    """Lower-case."""
    version: str
    """E.g. ``1.0.0``."""
    title: str
    """One line on what it does."""
    licence: Licence
    """Terms of the weights; its ``file`` is `LICENCE_FILE`."""
    licence_text: str
    """The terms in full."""
    card: str
    """The model card, Markdown."""
    input: Input
    """What the network takes."""
    outputs: tuple[Output, ...]
    """What it gives, in the order in which the PyTorch network returns them."""
    scores: tuple[Score, ...]
    """Clinical scores, in the order of the ``severity`` output's channels."""
    task: str = "cxr-severity"
    """One of `bedside.bundle.TASKS`."""
    thresholds: dict[str, float] = field(default_factory=dict)
    """Limits that quality notes use."""
    golden_source: str = SOURCE
    """What the golden pictures are."""
    tolerances: dict[str, dict[str, float]] | None = None
    """As in the manifest; None for `TOLERANCES` of each score."""
    tiling: Tiling | None = None
    """CT: how a scan is cut."""
    tissues: tuple[Tissue, ...] = ()
    """CT: the classes, in the order of the ``tissues`` output's channels."""
    volume_interval: VolumeInterval | None = None
    """CT: uncertainty of the opacified volume, where it was measured."""
    metrics: str = ""
    """What a recipe measured, as JSON: `METRICS_FILE`, unless it is empty."""
    confusion: tuple[tuple[float, ...], ...] = ()
    """CT: shares of what experts called each tissue, where they are known."""

    def __post_init__(self) -> None:
        """Refuse early what the manifest would refuse in the end."""
        make_manifest(self, dict.fromkeys(_FILES, b""))


def texts(draft: Draft) -> dict[str, bytes]:
    """The files that a draft itself says: card, licence, and metrics where there are some."""
    said = {CARD_FILE: draft.card, LICENCE_FILE: draft.licence_text, METRICS_FILE: draft.metrics}
    return {name: text.encode() for name, text in said.items() if text or name != METRICS_FILE}


def make_manifest(draft: Draft, files: Mapping[str, bytes]) -> Manifest:
    """The manifest of a draft with these files (name -> content).

    Raises:
        BundleError: ``bundle-broken`` if no manifest can say that.
    """
    tolerances = draft.tolerances
    if tolerances is None:
        tolerances = {
            precision: {score.name: limit for score in draft.scores}
            for precision, limit in TOLERANCES.items()
        }
    return Manifest(
        schema=SCHEMA,
        name=draft.name,
        version=draft.version,
        task=draft.task,
        title=draft.title,
        licence=draft.licence,
        model_card=CARD_FILE,
        parity=PARITY_FILE,
        models={"fp32": MODEL_FILE},
        input=draft.input,
        outputs=draft.outputs,
        scores=draft.scores,
        golden=Golden(INPUTS_FILE, OUTPUTS_FILE, draft.golden_source),
        tolerances=tolerances,
        files={
            name: Stored(len(data), hashlib.sha256(data).hexdigest()) for name, data in sorted(files.items())
        },
        thresholds=draft.thresholds,
        tiling=draft.tiling,
        tissues=draft.tissues,
        volume_interval=draft.volume_interval,
        confusion=draft.confusion,
    )
