"""From a bundle to a bundle with more precisions, each measured before it goes in.

Options          how
Quantised        what came of it
add_precisions   all of it
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bedside.bundle import Bundle
from bedside.contract import RUNS
from bedside.manifest import Manifest
from bedside_export.errors import ExportError
from bedside_export.precision.extremes import extreme_inputs
from bedside_export.precision.gauge import ask
from bedside_export.precision.makers import MAKERS, PRECISIONS, SEARCH_IMAGES, Bench, Options, Say
from bedside_export.precision.material import Material
from bedside_export.precision.report import EngineTrial, describe_material, merge
from bedside_export.precision.trials import try_engines
from bedside_export.precision.workbench import ENGINES, Contents, open_engine, stage
from bedside_export.writer import disk_errors

__all__ = ["PRECISIONS", "TOLERANCES", "Options", "Quantised", "add_precisions", "check_asked"]

TOLERANCES: Final[dict[str, dict[str, float | dict[str, float]]]] = {
    "cxr-severity": {"bf16": 0.1, "fp16": 0.1, "int8": 0.25},
    "ct-opacity": {
        "bf16": {"dice_loss": 0.005, "volume_percent": 0.5},
        "fp16": {"dice_loss": 0.005, "volume_percent": 0.5},
        "int8": {"dice_loss": 0.02, "volume_percent": 1.5},
    },
}
"""Task -> precision -> what is allowed, where the bundle does not say it. Of a score, in its own units, whatever its
scale: scores are read to a tenth."""


@dataclass(frozen=True, slots=True)
class Quantised:
    """What came of it."""

    contents: Contents
    """The bundle to write, with its parity report."""
    trials: tuple[EngineTrial, ...]
    """Each engine at each precision."""
    left_out: tuple[str, ...] = ()
    """Precisions whose file is not added, since no engine runs it within its tolerance."""


def add_precisions(
    bundle: Bundle,
    calibration: Material,
    validation: Material,
    options: Options,
    *,
    say: Say = lambda _: None,
) -> Quantised:
    """Make the precisions that are asked for, and try every engine at every precision.

    Args:
        bundle: With its fp32 model.
        calibration: What ranges are taken from, and searches look at.
        validation: What engines are compared on; none of it is in ``calibration``.
        options: What is asked for.
        say: Told what is being done.

    Raises:
        ExportError: The bundle has the precision already; its network can't be converted; the reference engine
            breaks.
        OutputError: ``disk-full`` or ``output-not-writable`` where trials are written to a temporary folder.
        MissingExtraError: ONNX Runtime or NNCF is not installed.
    """
    contents = _prepare(bundle, options)
    manifest = contents.manifest
    size = calibration.images[0].shape[2:]
    extremes = tuple(image[None] for image in extreme_inputs(manifest.input, size))
    with disk_errors(), tempfile.TemporaryDirectory(prefix="bedside-precision-") as place:
        folder = Path(place) / "bundle"
        say("asking the reference engine")
        original = stage(contents, folder)
        with open_engine(original, *ENGINES[0]) as engine:
            searched = ask(manifest, engine, calibration.spread(SEARCH_IMAGES))
            compared = ask(manifest, engine, validation)
        bench = Bench(folder, calibration, searched, extremes, options, say)
        for precision in PRECISIONS:
            if precision in options.precisions:
                say(f"making {precision}")
                contents = MAKERS[precision](bench, contents)
        trials = try_engines(stage(contents, folder), compared, extremes, say=say)
        left_out: list[str] = []
        for precision in ("fp16", "int8"):
            failing = precision in options.precisions and not any(
                trial.status == "passed" for trial in trials if RUNS[trial.precision] == precision
            )
            if failing and not options.keep_failing:
                left_out.append(precision)
                contents = contents.without_model(precision)
                trials = [trial for trial in trials if RUNS[trial.precision] != precision]
    sections = {
        "calibration": describe_material(calibration),
        "validation": describe_material(validation),
        "real_reference": "onnxruntime fp32",
        "made": bench.notes,
        "left_out": left_out,
    }
    before = json.loads(bundle.read(manifest.parity))
    report = merge(before, trials, sections)
    text = (json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    contents = replace(contents, files={**contents.files, manifest.parity: text})
    return Quantised(contents, tuple(trials), tuple(left_out))


def check_asked(manifest: Manifest, options: Options) -> None:
    """Refuse a precision that can't be added, or that the bundle has already.

    Raises:
        ExportError: So it is.
    """
    if unknown := set(options.precisions) - set(PRECISIONS):
        raise ExportError(f"no precision {min(unknown)!r} to add; choose from: {', '.join(PRECISIONS)}")
    have = set(manifest.models) | set(manifest.float32_nodes)
    if (there := have & set(options.precisions)) and not options.force:
        raise ExportError(
            f"the bundle has {', '.join(sorted(there))} already; add --force to make it anew, or leave it out"
        )


def _prepare(bundle: Bundle, options: Options) -> Contents:
    """What the bundle holds, with a tolerance for each precision, and without what is to be made anew."""
    manifest = bundle.manifest
    check_asked(manifest, options)
    tolerances = {key: dict(value) for key, value in manifest.tolerances.items()}
    for precision in options.precisions:
        tolerances.setdefault(precision, _tolerance(manifest, precision))
    contents = replace(Contents.of(bundle), manifest=replace(manifest, tolerances=tolerances))
    for precision in options.precisions:
        contents = contents.with_nodes(precision, ()) if precision != "int8" else contents
    return contents


def _tolerance(manifest: Manifest, precision: str) -> dict[str, float]:
    allowed = TOLERANCES[manifest.task][precision]
    return dict(allowed) if isinstance(allowed, dict) else {score.name: allowed for score in manifest.scores}
