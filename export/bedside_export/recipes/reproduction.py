"""Whether a recipe gave the bundle that ships again, or by how much it moved.

to_text     what a recipe measured, as its bundle keeps it
reproduce   a new bundle beside the one that ships
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bedside.bundle import Bundle
from bedside.golden import load_golden, load_tissue_golden
from bedside_export.draft import METRICS_FILE
from bedside_export.precision.workbench import open_engine

__all__ = ["Move", "Reproduction", "reproduce", "to_text"]

_OF_A_RUN: Final = frozenset({"seconds"})
"""What differs between two runs that learn the same."""


@dataclass(frozen=True, slots=True)
class Move:
    """One figure, as it ships and as it came out now."""

    name: str
    """Path in ``metrics.json``, e.g. ``summary.extent.mae_mean``."""
    before: float
    """In the bundle that ships."""
    after: float
    """In the new one."""

    def describe(self) -> str:
        """In one line."""
        return f"{self.name}: {self.before:.4g} -> {self.after:.4g} ({self.after - self.before:+.2g})"


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A new bundle beside the one that ships."""

    shipped: str
    """Digest of the one."""
    made: str
    """Digest of the other."""
    files: tuple[str, ...]
    """Files that differ, or that one of them lacks."""
    moves: tuple[Move, ...]
    """Figures of the summary that differ."""
    answers: Mapping[str, float]
    """Output -> greatest difference of the fp32 networks' answers to the golden inputs that ship."""

    def describe(self) -> list[str]:
        """As lines."""
        if self.made == self.shipped:
            return [f"the same bundle as ships, byte for byte: {self.made[:12]}"]
        lines = [f"another bundle ({self.made[:12]}) than ships ({self.shipped[:12]}); files that differ:"]
        lines += [f"    {name}" for name in self.files]
        lines += [
            f"{name} of the golden inputs: off by {gap:.3g} at most" for name, gap in self.answers.items()
        ]
        lines += [move.describe() for move in self.moves] or ["no figure of the summary moved"]
        return lines


def to_text(metrics: Mapping[str, Any]) -> str:
    """What a recipe measured, less what differs from run to run, as JSON."""
    return json.dumps(_lasting(metrics), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def reproduce(made: Bundle, shipped: Bundle) -> Reproduction:
    """Compare a bundle that a recipe has made with the one that ships.

    Args:
        made: The new one.
        shipped: The built-in one, of the same task.

    Raises:
        BackendError: ONNX Runtime can't run one of them.
    """
    if made.digest == shipped.digest:
        return Reproduction(shipped.digest, made.digest, (), (), {})
    ours, theirs = made.manifest.files, shipped.manifest.files
    files = tuple(name for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name))
    before, after = (_figures(bundle) for bundle in (shipped, made))
    moves = tuple(
        Move(name, before[name], after[name])
        for name in before
        if name in after and not math.isclose(before[name], after[name], rel_tol=1e-9)
    )
    return Reproduction(shipped.digest, made.digest, files, moves, _compare_answers(made, shipped))


def _compare_answers(made: Bundle, shipped: Bundle) -> dict[str, float]:
    load = load_tissue_golden if shipped.manifest.task == "ct-opacity" else load_golden
    images = load(shipped).images
    answers = []
    for bundle in (made, shipped):
        with open_engine(bundle, "onnxruntime", "fp32") as engine:
            answers.append([engine.run({bundle.manifest.input.name: image[None]}) for image in images])
    names = [output.name for output in shipped.manifest.outputs if output.name in answers[0][0]]
    return {
        name: max(float(abs(new[name] - old[name]).max()) for new, old in zip(*answers, strict=True))
        for name in names
    }


def _figures(bundle: Bundle) -> dict[str, float]:
    if METRICS_FILE not in bundle.manifest.files:
        return {}
    metrics = json.loads(bundle.read(METRICS_FILE))
    return dict(_flatten(metrics.get("summary", {}), "summary"))


def _flatten(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(inner, f"{name}.{key}")
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _flatten(inner, f"{name}.{place}")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield name, float(value)


def _lasting(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _lasting(inner) for key, inner in value.items() if key not in _OF_A_RUN}
    if isinstance(value, list):
        return [_lasting(inner) for inner in value]
    return value
