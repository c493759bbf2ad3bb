"""bedside's side of the X-ray comparison: reads paths on standard input, answers a JSON line for each."""

import json
import sys
import time

# user
import bedside

# end user


def main() -> None:
    """Score until standard input ends."""
    bundle, backend, precision, threads = sys.argv[1:5]
    # user
    with bedside.open_cxr(bundle, backend, precision=precision, threads=int(threads)) as scorer:
        # end user
        for line in sys.stdin:
            path = line.rstrip("\n")
            start = time.perf_counter()
            # user
            result = scorer.score(path).raise_for_status()
            # end user
            seconds = time.perf_counter() - start
            # user
            scores = [score.value for score in (result.extent, result.opacity) if score]
            # end user
            print(
                json.dumps({"seconds": seconds, "scores": scores, "stages_ms": result.timing_ms}), flush=True
            )


if __name__ == "__main__":
    main()
