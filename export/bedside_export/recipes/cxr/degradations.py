"""How much worse the scores get on poor pictures: real ones, spoilt on purpose.

    python -m bedside_export.recipes.cxr.degradations --data ../shared/data --measured DIR

``DIR`` is what `cxr.severity`'s ``evaluate`` wrote: its splits' networks score the pictures of the patients that they
never saw, as they are and degraded in every way of `DEGRADATIONS`, after the runtime has read and noted them as it
does any file; what the runtime would refuse is left out. `cxr.widening` makes factors of ``DIR/degraded.csv``.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy import ndimage
from skimage.transform import resize

from bedside import cxr, quality
from bedside.bundle import Bundle, Manifest
from bedside.errors import RefusedError
from bedside.reading import read_radiograph
from bedside_export.recipes.cxr.data import (
    Collection,
    Float,
    Split,
    read_collection,
    read_thumbnails,
    split,
)
from bedside_export.recipes.cxr.network import SeverityNetwork
from bedside_export.recipes.cxr.quality.network import CheckedNetwork, QualityNetwork
from bedside_export.recipes.cxr.report import predictions_of
from bedside_export.recipes.cxr.trials import AS_TAKEN, TABLE, Trial, write_trials
from bedside_export.recipes.progress import tell_progress

__all__ = ["DEGRADATIONS", "score_degraded"]

log = logging.getLogger(__name__)

Answer = Callable[[npt.NDArray[np.float32]], Mapping[str, npt.NDArray[np.float32]]]
"""A split's network: its input ``(1, 1, S, S)`` to ``severity``, ``cam`` and ``lungs``, as the bundle's graph."""
_Way = Callable[[Float, np.random.Generator], npt.NDArray[np.floating]]


def _bend(gamma: float) -> _Way:
    return lambda grey, _: grey**gamma


def _clip(black: float, white: float) -> _Way:
    """Push these shares of the pixels to the ends of the range."""

    def window(grey: Float, _: np.random.Generator) -> npt.NDArray[np.floating]:
        low, high = np.quantile(grey, (black, 1 - white))
        return np.asarray((grey - low) / max(high - low, 1 / 255))

    return window


def _blur(share: float) -> _Way:
    return lambda grey, _: np.asarray(ndimage.gaussian_filter(grey, share * min(grey.shape)))


def _noise(sd: float) -> _Way:
    return lambda grey, generator: grey + generator.normal(0, sd, grey.shape)


def _shrink(side: int) -> _Way:
    def fewer(grey: Float, _: np.random.Generator) -> Float:
        scale = side / min(grey.shape)
        return np.asarray(resize(grey, [max(side, round(n * scale)) for n in grey.shape], anti_aliasing=True))

    return fewer


def _turn(degrees: float) -> _Way:
    return lambda grey, _: ndimage.rotate(grey, degrees, order=1, reshape=degrees % 90 == 0)


def _cut(top: float, bottom: float, left: float) -> _Way:
    """Leave these shares of the sides out."""

    def cut(grey: Float, _: np.random.Generator) -> Float:
        height, width = grey.shape
        return grey[round(top * height) : round((1 - bottom) * height), round(left * width) :]

    return cut


def _frame(share: float) -> _Way:
    """Black all around, as of a wide collimation or a photographed screen."""
    return lambda grey, _: np.pad(grey, [(round(share * n), round(share * n)) for n in grey.shape])


DEGRADATIONS: Final[Mapping[str, _Way]] = MappingProxyType(
    {
        AS_TAKEN: lambda grey, _: grey,
        "gamma 0.4": _bend(0.4),
        "gamma 2.5": _bend(2.5),
        "25% white": _clip(0.0, 0.25),
        "45% white": _clip(0.0, 0.45),
        "45% black": _clip(0.45, 0.0),
        "60% black": _clip(0.6, 0.0),
        "darkest tenth": lambda grey, _: grey * 0.09,
        "little contrast": lambda grey, _: 0.45 + 0.1 * grey,
        "inverted": lambda grey, _: 1 - grey,
        "blur 1%": _blur(0.01),
        "blur 2.5%": _blur(0.025),
        "noise 0.1": _noise(0.1),
        "noise 0.25": _noise(0.25),
        "160 pixels": _shrink(160),
        "80 pixels": _shrink(80),
        "turned 15": _turn(15),
        "turned 90": _turn(90),
        "turned 180": _turn(180),
        "cut above": _cut(0.3, 0.0, 0.0),
        "cut below": _cut(0.0, 0.35, 0.0),
        "cut left": _cut(0.0, 0.0, 0.35),
        "framed": _frame(0.5),
        "framed widely": _frame(1.2),
    }
)
"""Name -> what it does to a grey picture ``(H, W)``, 0 to 1. Strengths from what still happens in practice to what a
person would send back; shares of pixels stand around the limits of `bedside.quality`, so that its notes come up."""


def score_degraded(
    collection: Collection, halves: Sequence[Split], answers: Mapping[int, Answer], manifest: Manifest
) -> Iterator[Trial]:
    """Score held-out pictures with every degradation, each by the networks that its patient was held out from.

    Args:
        collection: All pictures.
        halves: The splits.
        answers: Seed -> that split's network.
        manifest: Of a bundle with the same input, and the limits of the notes.
    """
    scored = [p for p in collection.pictures if p.severity is not None or p.zones is not None]
    holders = {p.name: [h.seed for h in halves if p in h.held_out] for p in scored}
    with tempfile.TemporaryDirectory(prefix="bedside-degraded-") as folder:
        for number, picture in enumerate(scored):
            if not holders[picture.name]:
                continue
            grey = collection.grey(picture)
            for way, degrade in DEGRADATIONS.items():
                degraded = degrade(grey, np.random.default_rng(number)).clip(0, 1)
                path = Path(folder) / "picture.png"
                Image.fromarray(np.rint(degraded * 255).astype(np.uint8)).save(path, compress_level=1)
                for seed in holders[picture.name]:
                    found = _score(path, answers[seed], manifest)
                    if found is not None:
                        notes, severity = found
                        yield Trial(way, notes, predictions_of([picture], severity, seed)[0])


def _score(
    path: Path, answer: Answer, manifest: Manifest
) -> tuple[tuple[str, ...], npt.NDArray[np.float32]] | None:
    """The notes' codes and the scores ``(1, 2)``, or None where the runtime refuses."""
    try:
        radiograph = read_radiograph(path)
        findings = [*radiograph.findings, *quality.check_pixels(radiograph)]
        outputs = answer(cxr.preprocess(radiograph, manifest.input))
        severity = cxr.interpret(outputs, _without_missing(manifest, outputs))
        findings += quality.check_appearance(severity.appearance, manifest)
        findings += quality.check_severity(severity, manifest)
    except RefusedError:
        return None
    return tuple(dict.fromkeys(finding.code for finding in findings)), outputs["severity"]


def _without_missing(manifest: Manifest, outputs: Mapping[str, object]) -> Manifest:
    """The manifest without what the network does not answer: appearance and its limits, without a quality network."""
    return replace(
        manifest,
        outputs=tuple(output for output in manifest.outputs if output.name in outputs),
        thresholds={
            name: limit
            for name, limit in manifest.thresholds.items()
            if "appearance" in outputs or not name.startswith("frontal_")
        },
    )


def _load(weights: Path, checker: Path | None) -> Answer:
    severity = SeverityNetwork()
    severity.load_state_dict(torch.load(weights, weights_only=True))
    network: torch.nn.Module = severity
    if checker is not None:
        seen = QualityNetwork()
        seen.load_state_dict(torch.load(checker, weights_only=True))
        network = CheckedNetwork(severity, seen)
    network.eval()
    names = ("severity", "cam", "lungs", "appearance")

    def answer(image: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[np.float32]]:
        with torch.no_grad():
            outputs = network(torch.from_numpy(image))
        return {name: output.numpy() for name, output in zip(names, outputs, strict=False)}

    return answer


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of the module's text."""
    parser = argparse.ArgumentParser(prog="cxr.degradations", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that holds cxr/")
    parser.add_argument("--measured", type=Path, required=True, help="folder with split-SEED/network.pt")
    parser.add_argument(
        "--quality",
        type=Path,
        help="weights of cxr.quality.appearance: what they refuse is left out, as the built-in bundle does",
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of the networks")
    given = parser.parse_args(arguments)
    tell_progress()
    torch.set_num_threads(given.threads)
    weights = {int(p.parent.name.split("-")[1]): p for p in given.measured.glob("split-*/network.pt")}
    if not weights:
        parser.error("--measured has no split-SEED/network.pt; run cxr.severity evaluate first")
    collection = read_collection(given.data)
    thumbnails = read_thumbnails(collection)
    halves = [split(collection, thumbnails, seed=seed) for seed in sorted(weights)]
    manifest = Bundle.open("cxr-severity-lite").manifest
    answers = {seed: _load(path, given.quality) for seed, path in weights.items()}
    trials = list(score_degraded(collection, halves, answers, manifest))
    write_trials(given.measured / TABLE, trials)
    log.info("%d scores of %d pictures", len(trials), len({t.prediction.image for t in trials}))


if __name__ == "__main__":
    main()
