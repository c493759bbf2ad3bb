"""bedside's side of the X-ray comparison: reads paths on standard input, answers a JSON line for each."""

import json
import sys
import time

import bedside


def main() -> None:
    """Score until standard input ends."""
    bundle, backend, precision, threads = sys.argv[1:5]
    with bedside.open_cxr(bundle, backend, precision=precision, threads=int(threads)) as scorer:
        for line in sys.stdin:
            start = time.perf_counter()
            result = scorer.score(line.rstrip("\n")).raise_for_status()
            seconds = time.perf_counter() - start
            scores = [score.value for score in (result.extent, result.opacity) if score]
            print(
                json.dumps({"seconds": seconds, "scores": scores, "stages_ms": result.timing_ms}), flush=True
            )


if __name__ == "__main__":
    main()
