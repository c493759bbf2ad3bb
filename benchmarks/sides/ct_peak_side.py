"""What the processor can do: reads a precision on standard input, answers with the speed of a large matrix product.

The product is PyTorch's, which hands it to oneDNN or MKL: vector units in fp32, AMX tiles in bf16 and fp16 where there
are any.
"""

import json
import sys
import time

import torch

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SIDE = 4096
"""Of square matrices: 64 MiB each in fp32, so that arithmetic and not memory is the limit."""
TIMES = 4
"""Products each time; the fastest counts."""


def main() -> None:
    """Multiply until standard input ends."""
    torch.set_num_threads(int(sys.argv[1]))
    torch.manual_seed(0)
    for line in sys.stdin:
        left, right = (torch.randn(SIDE, SIDE).to(TYPES[line.strip()]) for _ in range(2))
        product = left @ right  # warm-up: the kernel is chosen, the memory touched
        seconds = []
        for _ in range(TIMES):
            begin = time.perf_counter()
            torch.mm(left, right, out=product)
            seconds.append(time.perf_counter() - begin)
        print(json.dumps({"gflops": 2 * SIDE**3 / min(seconds) / 1e9}), flush=True)


if __name__ == "__main__":
    main()
