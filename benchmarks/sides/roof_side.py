"""What the processor can do at most: reads a question on standard input, answers a JSON line.

``product fp32``   speed of a large matrix product in that precision
``triad 256``      bandwidth of a = b + s * c over arrays that hold so many MiB together (McCalpin's STREAM)

Asked of PyTorch, which hands a product to oneDNN or MKL, or of OpenVINO, which has kernels of its own for some. int8 is
unsigned by signed to 32 bits or to float32, as in a quantised network.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

TIMES = 4
"""Repetitions; the fastest counts."""
TRIAD_S = 0.1
"""Arrays that a cache holds are gone over so long each time, so that the clock's step does not matter."""


def main() -> None:
    """Measure until standard input ends."""
    library, threads, side = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    multiply: Callable[[str, int], Callable[[], Any]]
    if library == "torch":
        import torch

        torch.set_num_threads(threads)
        multiply = prepare_torch
    else:
        import openvino

        core = openvino.Core()
        core.set_property("CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"})

        def multiply(precision: str, side: int) -> Callable[[], Any]:
            return prepare_openvino(core, precision, side)

    for line in sys.stdin:
        what, of = line.split()
        try:
            if what == "product":
                answer = {"gflops": 2 * side**3 / fastest(multiply(of, side)) / 1e9}
            else:
                answer = {"gb_per_s": measure_triad(float(of))}
        except (RuntimeError, NotImplementedError) as error:
            print(json.dumps({"why_not": str(error).strip().splitlines()[0][:120]}), flush=True)
            continue
        print(json.dumps(answer), flush=True)


def fastest(run: Callable[[], Any]) -> float:
    """Seconds of the fastest of some calls; one more warms up."""
    run()
    seconds = []
    for _ in range(TIMES):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def prepare_torch(precision: str, side: int) -> Callable[[], Any]:
    """A product of square matrices in PyTorch."""
    import torch

    torch.manual_seed(0)
    if precision == "int8":
        left, right = (torch.randint(-127, 127, (side, side), dtype=torch.int8) for _ in range(2))
        return lambda: torch._int_mm(left, right)  # noqa: SLF001 - PyTorch has no other of 8 bits
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    one, other = (torch.randn(side, side).to(kind) for _ in range(2))
    made = one @ other
    return lambda: torch.mm(one, other, out=made)


def prepare_openvino(core: Any, precision: str, side: int) -> Callable[[], Any]:
    """A product with a constant square matrix in OpenVINO."""
    import openvino
    from openvino import opset13

    hint = {"bf16": openvino.Type.bf16, "fp16": openvino.Type.f16}.get(precision, openvino.Type.f32)
    random = np.random.Generator(np.random.PCG64(0))
    if precision == "int8":
        source = opset13.parameter([side, side], openvino.Type.u8)
        weights = opset13.constant(random.integers(-127, 127, (side, side), np.int8))
        scaled = [
            opset13.multiply(opset13.convert(each, "f32"), opset13.constant(np.float32(0.01)))
            for each in (source, weights)
        ]
        product = opset13.matmul(*scaled, transpose_a=False, transpose_b=False)
    else:
        source = opset13.parameter([side, side], hint)
        weights = opset13.constant(random.standard_normal((side, side), np.float32))
        product = opset13.matmul(
            opset13.convert(source, "f32"), weights, transpose_a=False, transpose_b=False
        )
    model = openvino.Model([product], [source])
    request = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint}).create_infer_request()
    run: Callable[[], Any] = request.infer
    return run


def measure_triad(mib: float) -> float:
    """GB/s of ``a = b + s * c``, two read and one written; what a write reads first is not counted, as in STREAM."""
    import torch

    count = int(mib * 2**20 / 3 / 4)
    b, c = torch.ones(count), torch.ones(count)
    a = torch.empty(count)
    times = 1

    def go() -> None:
        for _ in range(times):
            torch.add(b, c, alpha=3.0, out=a)

    times = max(1, int(TRIAD_S / fastest(go)))
    return 12 * count * times / fastest(go) / 1e9


if __name__ == "__main__":
    main()
