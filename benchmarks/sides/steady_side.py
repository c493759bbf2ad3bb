"""bedside's side of the benchmark of steady latency.

It answers a line of JSON to each line: to a path, the seconds from file to score; to a number, the seconds of that many
runs of the network alone.
"""

import json
import sys
import time

import numpy as np

import bedside
from bedside.engines import EngineRequest, open_engine
from bedside.guard import Guard

WATCHED_S = 300.0
"""Long enough never to matter: it is what watching costs that is measured."""


def main() -> None:
    """Serve until standard input ends."""
    source, backend, precision, threads, place = sys.argv[1:6]
    bundle = bedside.Bundle.open(source)
    guard = Guard(WATCHED_S if place == "isolated" else None)
    begin = time.perf_counter()
    request = EngineRequest(backend, precision, int(threads), guard)
    engine = open_engine(bundle, request)
    opened_s = time.perf_counter() - begin
    answer: dict[str, object]
    black = np.full((1, *(side or 1 for side in bundle.manifest.input.shape[1:])), 0.0, np.float32)
    with bedside.CxrScorer(bundle, engine) as scorer:
        for line in sys.stdin:
            word = line.rstrip("\n")
            if word.isdigit():
                runs = []
                for _ in range(int(word)):
                    begin = time.perf_counter()
                    engine.run({bundle.manifest.input.name: black})
                    runs.append(time.perf_counter() - begin)
                answer = {"runs": runs}
            else:
                begin = time.perf_counter()
                scorer.score(word).raise_for_status()
                answer = {"seconds": time.perf_counter() - begin, "opened_s": opened_s}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
