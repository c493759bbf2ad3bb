"""What runs in the process of a trial: see `bedside.doctor.trials`."""

from __future__ import annotations

import base64
import importlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from typing import Any, Final, TextIO

from bedside.errors import BackendError, BedsideError, BundleError

__all__ = ["KINDS", "main"]


def main(order: str) -> None:
    """Try what the order (JSON) says, and write a line of JSON before and after each item."""
    wanted = json.loads(order)
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what an engine prints is no answer
    attempt = KINDS[wanted["kind"]]
    for item in wanted["items"]:
        _write(out, {"begin": item})
        error, code, facts = None, "", {}
        try:
            facts = attempt(item, wanted["options"])
        except BedsideError as problem:
            error, code = problem.message, problem.code
        except Exception as problem:  # noqa: BLE001 - whatever a broken package raises is the answer
            error = " ".join(f"{type(problem).__name__}: {problem}".split())
            code = "exception"
        _write(out, {"end": item, "error": error, "code": code, "facts": facts})


def _write(out: TextIO, message: Mapping[str, Any]) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()


def _import(item: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Import a package, and ask it what it has."""
    from bedside.backends.discretion import without_telemetry  # noqa: PLC0415 - see `_run_engine`

    del options
    with without_telemetry():
        module = importlib.import_module(item)
    facts: dict[str, Any] = {"version": str(module.__version__).partition("-")[0]}
    if item == "onnxruntime":
        facts["providers"] = list(module.get_available_providers())
        with suppress(ImportError):  # versions before about 1.20 have none
            build = importlib.import_module("onnxruntime.capi.build_and_package_info")
            facts["cuda"] = getattr(build, "cuda_version", None) or None
    elif item == "openvino":
        core = module.Core()
        facts["devices"] = list(core.available_devices)
        facts["capabilities"] = sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    return facts


def _run_engine(item: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Open a backend in one precision on the first bundle that holds it, and run it once."""
    import numpy as np  # noqa: PLC0415 - the import of a package is tried without it

    from bedside.backends import open_backend  # noqa: PLC0415 - the same
    from bedside.bundle import Bundle  # noqa: PLC0415 - the same

    lacking: BundleError | None = None
    for name in options["bundles"]:
        bundle = Bundle.open(name)
        spec = bundle.manifest.input
        sides = [64 if side is None else side for side in spec.shape[2:]]
        if bundle.manifest.tiling is not None:
            sides = list(bundle.manifest.tiling.size)
        channels = spec.shape[1] or 1
        try:
            with closing(open_backend(options["backend"], bundle, precision=item)) as engine:
                answers = engine.run({spec.name: np.zeros((1, channels, *sides), np.float32)})
                if not all(np.isfinite(answer).all() for answer in answers.values()):
                    raise BackendError("not-finite", "it answered with NaN or infinity")
                return {"device": engine.info.device, "bundle": name}
        except BundleError as problem:
            if problem.code != "bundle-precision":
                raise
            lacking = problem
    if lacking is None:
        raise BundleError("bundle-not-found", "no built-in bundle is whole, so nothing could be tried")
    raise lacking


def _decode(item: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Decode a sample of a codec, and look whether it is what was encoded."""
    from bedside.codestream import read_codestream  # noqa: PLC0415 - numpy and pillow may be what is broken
    from bedside.decoders import decode_codestream  # noqa: PLC0415 - the same

    sample = options["samples"][item]
    frame = base64.b64decode(sample["frame"])
    found = decode_codestream(frame, read_codestream(frame))
    first, last = sample["corners"]
    if (int(found[0, 0]), int(found[-1, -1])) != (first, last):
        raise ValueError("a sample does not decode to what was encoded")
    return {}


KINDS: Final[dict[str, Callable[[str, Mapping[str, Any]], dict[str, Any]]]] = {
    "import": _import,
    "engine": _run_engine,
    "codec": _decode,
}
"""Kind of trial -> what tries one item and returns what it learnt."""
