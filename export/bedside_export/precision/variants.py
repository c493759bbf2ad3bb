"""From a bundle to a bundle with more precisions, each measured before it goes in.

Options          how
Quantised        what came of it
add_precisions   all of it
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from bedside.bundle import Bundle
from bedside.contract import RUNS
from bedside.errors import BackendError, MissingExtraError
from bedside.manifest import Manifest
from bedside.verification import verify_golden
from bedside_export.errors import ExportError
from bedside_export.precision.extremes import extreme_inputs
from bedside_export.precision.gauge import Reference, ask, measure
from bedside_export.precision.graph import find_candidates, find_layers, parse, restore, serialise
from bedside_export.precision.half import to_half
from bedside_export.precision.islands import TRIALS, Islands, find_islands
from bedside_export.precision.material import Material
from bedside_export.precision.quantisation import quantise
from bedside_export.precision.ranges import find_unfit, measure_ranges
from bedside_export.precision.report import EngineTrial, describe_material, merge
from bedside_export.precision.trials import try_engines
from bedside_export.precision.workbench import ENGINES, Contents, open_engine, stage
from bedside_export.writer import disk_errors

__all__ = ["PRECISIONS", "TOLERANCES", "Options", "Quantised", "add_precisions", "check_asked"]

PRECISIONS: Final = ("bf16", "fp16", "int8")
"""What can be added: nodes that stay float32 for bf16, and files for the others."""
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
SEARCHED: Final = {
    "bf16": ("openvino",),
    "fp16": ("openvino", "onnxruntime"),
    "int8": ("openvino", "onnxruntime"),
}
"""Precision -> the engines that a search measures on, the first that can. OpenVINO computes in float16 itself where
the processor can; ONNX Runtime on a CPU widens to float32 in between."""
MARGINS: Final = {"bf16": 0.3, "fp16": 0.6, "int8": 0.6}
"""Precision -> share of what is allowed that a search aims at: it sees fewer pictures than the comparison after it.
int8: 0.75 of the tolerance on 64 pictures was 1.05 of it on those of 300 other patients (built-in X-ray network).
bf16: 0.60 was 1.04 (built-in CT network), and a longer beginning in float32 costs little."""
SEARCH_IMAGES: Final = 64
"""Most inputs that a search looks at in each trial."""
RANGE_IMAGES: Final = 8
"""Real inputs, beside the extreme ones, that ranges are taken from."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How precisions are added."""

    precisions: tuple[str, ...]
    """Of `PRECISIONS`."""
    force: bool = False
    """Make anew what the bundle has already."""
    keep_failing: bool = False
    """Add a file also where no engine runs it within its tolerance."""
    margins: Mapping[str, float] = field(default_factory=lambda: MARGINS)
    """As `MARGINS`."""
    trials: int = TRIALS
    """Most sets of nodes that are tried in float32; 1 tries none, and quantises whatever can be."""


@dataclass(frozen=True, slots=True)
class Quantised:
    """What came of it."""

    contents: Contents
    """The bundle to write, with its parity report."""
    trials: tuple[EngineTrial, ...]
    """Each engine at each precision."""
    left_out: tuple[str, ...] = ()
    """Precisions whose file is not added, since no engine runs it within its tolerance."""


@dataclass(frozen=True, slots=True)
class _Bench:
    """What the precisions are made with."""

    folder: Path
    calibration: Material
    reference: Reference
    """Of what a search looks at."""
    extremes: tuple[np.ndarray[Any, np.dtype[np.float32]], ...]
    options: Options
    say: Say
    notes: dict[str, Any] = field(default_factory=dict)
    """Precision -> what the report says of it."""
    tried: list[str] = field(default_factory=list)
    """The precision of each trial so far."""

    def difference(self, contents: Contents, backend: str, precision: str) -> float:
        """Of an engine on the searched and the golden inputs, in parts of what is allowed."""
        self.tried.append(precision)
        if len(self.tried) % _TELL == 0:
            self.say(f"tried {len(self.tried)} times what stays float32")
        try:
            bundle = stage(contents, self.folder)
            with open_engine(bundle, backend, precision) as engine:
                gaps = measure(bundle.manifest, engine, self.reference, bundle.manifest.tolerance(precision))
                verdict = verify_golden(bundle, engine)
        except BackendError:
            return math.inf
        golden = [each.difference / each.tolerance for each in verdict.agreements]
        return max([*(gap.share for gap in gaps), *golden])

    def engine_for(self, contents: Contents, precision: str) -> str | None:
        """The engine that a search measures on; None where none runs here."""
        bundle = stage(contents, self.folder)
        for backend in SEARCHED[precision]:
            try:
                with open_engine(bundle, backend, precision):
                    return backend
            except (BackendError, MissingExtraError) as error:
                self.say(f"{backend} {precision} can't be measured here: {error.message}")
        return None


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
        bench = _Bench(folder, calibration, searched, extremes, options, say)
        for precision in PRECISIONS:
            if precision in options.precisions:
                say(f"making {precision}")
                contents = _MAKERS[precision](bench, contents)
        say("trying every engine at every precision")
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


def _make_bf16(bench: _Bench, contents: Contents) -> Contents:
    backend = bench.engine_for(contents, "bf16")
    if backend is None:
        bench.notes["bf16"] = {"searched": "no, as no engine here has it"}
        return contents
    model = parse(contents.files[contents.manifest.models["fp32"]])

    def difference(kept: frozenset[str]) -> float:
        return bench.difference(contents.with_nodes("bf16", _ordered(kept, candidates)), backend, "bf16")

    candidates = _known_to_openvino(contents, find_candidates(model))
    islands = find_islands(
        difference,
        candidates,
        margin=bench.options.margins["bf16"],
        beginnings=True,
        most=bench.options.trials,
    )
    _note(bench, "bf16", backend, islands)
    return contents.with_nodes("bf16", islands.nodes)


def _make_fp16(bench: _Bench, contents: Contents) -> Contents:
    model = parse(contents.files[contents.manifest.models["fp32"]])
    bench.say("looking for values that float16 can't hold")
    images = [*bench.extremes, *bench.calibration.spread(RANGE_IMAGES).images]
    unfit = find_unfit(model, measure_ranges(model, images))
    order = [node.name for node in model.graph.node]

    def build(kept: frozenset[str]) -> Contents:
        nodes = _ordered(kept, order)
        return contents.with_model("fp16", serialise(to_half(model, nodes))).with_nodes("fp16", nodes)

    required = frozenset(unfit)
    made = build(required)
    backend = bench.engine_for(made, "fp16")
    reasons = {name: unfit[name] for name in unfit}
    if backend is None:
        bench.notes["fp16"] = {"searched": "no, as no engine here has it", "float32_nodes": reasons}
        return made
    islands = find_islands(
        lambda kept: bench.difference(build(kept), backend, "fp16"),
        find_candidates(model),
        required=required,
        margin=bench.options.margins["fp16"],
        most=bench.options.trials,
    )
    reasons |= dict.fromkeys(set(islands.nodes) - required, "without it the answer leaves its tolerance")
    _note(bench, "fp16", backend, islands, {name: reasons[name] for name in islands.nodes})
    return build(frozenset(islands.nodes))


def _make_int8(bench: _Bench, contents: Contents) -> Contents:
    model = parse(contents.files[contents.manifest.models["fp32"]])
    bench.say(f"calibrating on {len(bench.calibration)} inputs")
    quantised = quantise(model, bench.calibration.images)

    def build(kept: frozenset[str]) -> Contents:
        return contents.with_model("int8", serialise(restore(quantised, model, kept)))

    made = build(frozenset())
    backend = bench.engine_for(made, "int8")
    if backend is None:
        raise ExportError("no engine here runs int8, so what it costs can't be measured; install openvino")
    layers = find_layers(model)
    islands = find_islands(
        lambda kept: bench.difference(build(kept), backend, "int8"),
        layers,
        margin=bench.options.margins["int8"],
        most=bench.options.trials,
    )
    if 0 < len(islands.nodes) < len(layers):
        made = build(frozenset(islands.nodes))
        bench.say(f"calibrating again, with {len(islands.nodes)} of {len(layers)} layers in float32")
        again = contents.with_model(
            "int8", serialise(quantise(model, bench.calibration.images, islands.nodes))
        )
        difference = bench.difference(again, backend, "int8")
        if (
            difference < islands.difference
        ):  # biases that fit what is quantised now; mostly, and not always, better
            made, islands = again, replace(islands, difference=difference)
    _note(bench, "int8", backend, islands)
    return made


_TELL: Final = 20
"""Trials between two lines that tell of them."""
_MAKERS: Final[dict[str, Callable[[_Bench, Contents], Contents]]] = {
    "bf16": _make_bf16,
    "fp16": _make_fp16,
    "int8": _make_int8,
}


def _note(
    bench: _Bench, precision: str, backend: str, islands: Islands, reasons: dict[str, str] | None = None
) -> None:
    bench.notes[precision] = {
        "searched_on": backend,
        "trials": islands.trials,
        "share_of_tolerance_without": _finite(islands.without),
        "share_of_tolerance": _finite(islands.difference),
        "float32_nodes": reasons if reasons is not None else list(islands.nodes),
    }
    bench.say(
        f"{precision} on {backend}: {islands.difference:.2f} of its tolerance with {len(islands.nodes)} nodes in "
        f"float32, {islands.without:.2f} with none ({islands.trials} trials)"
    )


def _ordered(kept: frozenset[str], order: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in order if name in kept)


def _known_to_openvino(contents: Contents, names: Sequence[str]) -> list[str]:
    """Those nodes that OpenVINO has under their name, or under that of an output: it merges some into others."""
    import openvino  # noqa: PLC0415 - an engine that need not be installed

    data = contents.files[contents.manifest.models["fp32"]]
    layers = openvino.Core().read_model(model=data).get_ordered_ops()
    known = {
        layer.get_friendly_name()
        for layer in layers
        if layer.get_type_name() not in ("Constant", "Parameter")
    }
    for layer in layers:
        if layer.get_type_name() in ("Constant", "Parameter"):
            continue
        for output in layer.outputs():
            known |= output.get_names()
    outputs = {node.name: set(node.output) for node in parse(data).graph.node}
    return [name for name in names if name in known or not known.isdisjoint(outputs[name])]


def _finite(value: float) -> float | None:
    return float(f"{value:.3g}") if math.isfinite(value) else None
