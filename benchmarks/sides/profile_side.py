"""Where an engine spends a run of a bundle's network: reads a number of runs on standard input, answers a JSON line.

The engine is set up as bedside sets it up, but for its own profile being on. Each layer that it runs is told with the
names that the ONNX graph has for what is in it, its median time, and what it is run by.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bedside import Bundle
from bedside.backends import Tuning, open_backend
from bedside.backends.shapes import expected_shape
from bedside.errors import BedsideError

WARM_UPS = 3
"""Runs that don't count."""


def main() -> None:
    """Profile until standard input ends."""
    source, backend, precision, threads = sys.argv[1:5]
    bundle = Bundle.open(source)
    shape = expected_shape(bundle.manifest, Tuning())
    random = np.random.Generator(np.random.PCG64(0))
    spec = bundle.manifest.input
    inputs = {spec.name: random.uniform(spec.low, spec.high, shape).astype(np.float32)}
    try:
        # first as it is, then with its profile on, which costs time itself
        engine = open_backend(backend, bundle, precision=precision, threads=int(threads))
        profile = PROFILES[backend](bundle, precision, int(threads))
    except BedsideError as error:
        sys.exit(f"{type(error).__name__}: {error.message}")
    for line in sys.stdin:
        runs = int(line)
        seconds = [time_run(lambda: engine.run(inputs)) for _ in range(WARM_UPS + runs)]
        whole = statistics.median(seconds[WARM_UPS:]) * 1e3
        layers = profile(inputs, runs)
        print(json.dumps({"shape": shape, "run_ms": whole, "layers": layers}), flush=True)


def time_run(run: Any) -> float:
    """Seconds of a call."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def profile_openvino(bundle: Bundle, precision: str, threads: int) -> Any:
    """OpenVINO's own counters, on the model that bedside compiles."""
    from bedside.backends.openvino.beginning import ChainedRequest
    from bedside.backends.openvino.building import DEVICE, Builder, open_core

    open_core().set_property(DEVICE, {"PERF_COUNT": True})
    parts = Builder(bundle, precision=precision, threads=threads, tuning=Tuning()).build(
        expected_shape(bundle.manifest, Tuning())
    )
    told = {}
    for operation in (each for part in parts for each in part.get_runtime_model().get_ordered_ops()):
        info = operation.get_rt_info()
        told[operation.get_friendly_name()] = {
            key: info[key].astype(str)
            for key in ("originalLayersNames", "runtimePrecision", "layerType")
            if key in info
        }
    requests = [part.create_infer_request() for part in parts]
    if len(parts) > 1:
        chained = ChainedRequest(*parts)
        requests = [chained._beginning, chained._rest]  # noqa: SLF001 - their counters

    def run(inputs: dict[str, Any], runs: int) -> list[dict[str, Any]]:
        spent: dict[str, list[float]] = {}
        kinds = {}
        for number in range(WARM_UPS + runs):
            requests[0].get_input_tensor().data[:] = next(iter(inputs.values()))
            for request in requests:
                request.infer()
            if number < WARM_UPS:
                continue
            for layer in (each for request in requests for each in request.profiling_info):
                if layer.status == layer.Status.EXECUTED:
                    spent.setdefault(layer.node_name, []).append(layer.real_time.total_seconds() * 1e3)
                    kinds[layer.node_name] = layer.exec_type
        return [
            {
                "name": name,
                "ms": statistics.median(times),
                "runs_by": kinds[name],
                "type": told.get(name, {}).get("layerType", ""),
                "precision": told.get(name, {}).get("runtimePrecision", ""),
                "nodes": [
                    part for part in told.get(name, {}).get("originalLayersNames", "").split(",") if part
                ],
            }
            for name, times in spent.items()
        ]

    return run


def profile_onnxruntime(bundle: Bundle, precision: str, threads: int) -> Any:
    """ONNX Runtime's profile, of a session as bedside's `bedside.backends.onnxruntime` opens it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_profiling = True

    def run(inputs: dict[str, Any], runs: int) -> list[dict[str, Any]]:
        with tempfile.TemporaryDirectory() as folder:
            options.profile_file_prefix = str(Path(folder) / "profile")
            data = bundle.read(bundle.model(precision))
            session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            for _ in range(WARM_UPS + runs):
                session.run(None, inputs)
            events = json.loads(Path(session.end_profiling()).read_text())
        spent: dict[str, list[float]] = {}
        kinds = {}
        for event in events:
            if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
                name = event["name"].removesuffix("_kernel_time")
                spent.setdefault(name, []).append(event["dur"] / 1e3)
                kinds[name] = event["args"]["op_name"]
        return [
            {
                "name": name,
                "ms": statistics.median(times[WARM_UPS:]),
                "runs_by": kinds[name],
                "type": kinds[name],
                "precision": "",
                "nodes": [name.removesuffix("_nchwc")],
            }
            for name, times in spent.items()
        ]

    return run


PROFILES = {"onnxruntime": profile_onnxruntime, "openvino": profile_openvino}
"""Backend -> what prepares its profile."""


if __name__ == "__main__":
    main()
