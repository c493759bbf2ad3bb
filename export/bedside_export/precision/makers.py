"""How each precision is made: what is searched for, and what it is measured by.

Options  how, as it is asked for
Bench    what precisions are made with
MAKERS   precision -> who makes it
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from bedside.errors import BackendError, MissingExtraError
from bedside.verification import verify_golden
from bedside_export.errors import ExportError
from bedside_export.precision.gauge import Reference, ask, measure
from bedside_export.precision.graph import find_candidates, find_layers, parse, restore, serialise
from bedside_export.precision.half import to_half
from bedside_export.precision.islands import TRIALS, Aim, Islands, find_islands
from bedside_export.precision.material import Material, split
from bedside_export.precision.quantisation import CALIBRATIONS, quantise
from bedside_export.precision.ranges import find_unfit, measure_ranges
from bedside_export.precision.workbench import ENGINES, Contents, open_engine, stage

__all__ = ["MAKERS", "PRECISIONS", "SEARCH_IMAGES", "Bench", "Options", "Say"]

PRECISIONS: Final = ("bf16", "fp16", "int8")
"""What can be added: nodes that stay float32 for bf16, and files for the others."""
SEARCHED: Final = {
    "bf16": ("openvino",),
    "fp16": ("openvino", "onnxruntime"),
    "int8": ("openvino", "onnxruntime"),
}
"""Precision -> the engines that a search measures on, the first that can. OpenVINO computes in float16 itself where
the processor can; ONNX Runtime on a CPU widens to float32 in between."""
SEARCH_IMAGES: Final = 64
"""Most inputs that a search looks at in each trial."""
RANGE_IMAGES: Final = 8
"""Real inputs, beside the extreme ones, that ranges are taken from."""
MARGINS: Final = {"bf16": 0.3, "fp16": 0.6, "int8": 0.6}
"""Precision -> share of what is allowed that a search aims at: it sees fewer pictures than the comparison after it.
int8: 0.75 of the tolerance on 64 pictures was 1.05 of it on those of 300 other patients (built-in X-ray network).
bf16: 0.60 was 1.04 (built-in CT network), and a longer beginning in float32 costs little."""
_TELL: Final = 20
"""Trials between two lines that tell of them."""

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
class Bench:
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


def _make_bf16(bench: Bench, contents: Contents) -> Contents:
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
        aim=Aim(bench.options.margins["bf16"], beginnings=True, most=bench.options.trials),
    )
    _note(bench, "bf16", backend, islands)
    return contents.with_nodes("bf16", islands.nodes)


def _make_fp16(bench: Bench, contents: Contents) -> Contents:
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
        aim=Aim(bench.options.margins["fp16"], most=bench.options.trials),
    )
    reasons |= dict.fromkeys(set(islands.nodes) - required, "without it the answer leaves its tolerance")
    _note(bench, "fp16", backend, islands, {name: reasons[name] for name in islands.nodes})
    return build(frozenset(islands.nodes))


def _make_int8(bench: Bench, contents: Contents) -> Contents:
    """Choose ranges, and layers that stay float32, by one half of the pictures; then calibrate on all.

    Ranges are taken from the other half: on what it was calibrated on, a network's answers are at their best.
    """
    model = parse(contents.files[contents.manifest.models["fp32"]])
    seen, unseen = split(bench.calibration)
    with open_engine(stage(contents, bench.folder), *ENGINES[0]) as engine:
        reference = ask(contents.manifest, engine, unseen.spread(SEARCH_IMAGES))
    judge = replace(bench, reference=reference)

    def hold(quantised: onnx.ModelProto) -> Contents:
        return contents.with_model("int8", serialise(quantised))

    backend: str | None = None
    shares, halves = {}, {}
    for calibration in CALIBRATIONS:
        bench.say(f"calibrating on {len(seen)} inputs, to compare ways: {calibration}")
        halves[calibration] = quantise(model, seen.images, calibration=calibration)
        backend = backend or bench.engine_for(hold(halves[calibration]), "int8")
        if backend is None:
            raise ExportError(
                "no engine here runs int8, so what it costs can't be measured; install openvino"
            )
        shares[calibration] = judge.difference(hold(halves[calibration]), backend, "int8")
    best = min(shares, key=lambda calibration: shares[calibration])

    def difference(quantised: onnx.ModelProto) -> float:
        return judge.difference(hold(quantised), str(backend), "int8")

    layers = find_layers(model)
    margin = bench.options.margins["int8"]
    islands = find_islands(
        lambda kept: difference(restore(halves[best], model, kept)),
        layers,
        aim=Aim(margin, enough=margin, most=bench.options.trials),
    )
    kept = islands.nodes
    anew = False
    if 0 < len(kept) < len(layers):
        bench.say(f"calibrating again, with {len(kept)} of {len(layers)} layers in float32")
        again = difference(quantise(model, seen.images, kept, calibration=best))
        anew = again < islands.difference  # its biases fit what is quantised; mostly, not always, better
        islands = replace(islands, difference=min(again, islands.difference))
    images = bench.calibration.images
    bench.say(f"calibrating on {len(images)} inputs: {best}")
    made = quantise(model, images, kept if anew else (), calibration=best)
    _note(bench, "int8", str(backend), islands)
    bench.notes["int8"] |= {
        "ranges": str(best),
        "share_of_tolerance_by_ranges": {str(each): _finite(share) for each, share in shares.items()},
    }
    return hold(made if anew else restore(made, model, frozenset(kept)))


def _note(
    bench: Bench, precision: str, backend: str, islands: Islands, reasons: dict[str, str] | None = None
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


MAKERS: Final[dict[str, Callable[[Bench, Contents], Contents]]] = {
    "bf16": _make_bf16,
    "fp16": _make_fp16,
    "int8": _make_int8,
}
"""Precision -> the bundle with it, from the bundle without."""
