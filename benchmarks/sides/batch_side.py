"""One engine of bedside at one size of batch: reads a number of runs on standard input, answers a JSON line.

Pictures are the bundle's golden inputs, over and over: a phantom's. The network alone is timed.
"""

import io
import json
import sys
import time

import numpy as np

from bedside import Bundle
from bedside.backends import Tuning, open_backend
from bedside.errors import BedsideError


def main() -> None:
    """Measure until standard input ends."""
    source, backend, precision, threads, batch, hint = sys.argv[1:7]
    bundle = Bundle.open(source)
    golden = np.load(io.BytesIO(bundle.read(bundle.manifest.golden.inputs)))
    pictures = np.resize(golden, (int(batch), *golden.shape[1:])).astype(np.float32)
    try:
        engine = open_backend(
            backend,
            bundle,
            precision=precision,
            threads=int(threads),
            tuning=Tuning(hint=hint, batch=int(batch), tile=golden.shape[2:]),
        )
    except BedsideError as error:
        sys.exit(f"{type(error).__name__}: {error.message}")
    inputs = {bundle.manifest.input.name: pictures}
    for line in sys.stdin:
        runs = []
        for _ in range(int(line)):
            begin = time.perf_counter()
            engine.run(inputs)
            runs.append(time.perf_counter() - begin)
        print(json.dumps({"runs": runs, "shape": pictures.shape}), flush=True)


if __name__ == "__main__":
    main()
