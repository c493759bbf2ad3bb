"""OpenVINO's own benchmark_app on a model: reads a number of runs on standard input, answers a JSON line for each.

Each question starts it anew. It times the network alone, on random numbers, and gives no answer that could be compared;
the file and the engine are those of bedside's OpenVINO. ``p99`` after the number asks for that percentile.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import openvino.tools.benchmark  # noqa: F401 - where it is missing, this side can't run

RUN = "import sys; from openvino.tools.benchmark.main import main; sys.exit(main())"


def main() -> None:
    """Measure until standard input ends."""
    model, threads, precision, shape = sys.argv[1:5]
    hint = ["-hint", "latency"]
    if int(threads) != os.cpu_count():  # it takes a number of threads only without a hint
        hint = ["-hint", "none", "-api", "sync", "-nstreams", "1", "-nthreads", threads]
    for line in sys.stdin:
        runs, _, percentile = line.strip().partition(" p")
        with tempfile.TemporaryDirectory() as folder:
            options = ["-m", model, "-d", "CPU", "-niter", runs, *hint]
            options += ["-infer_precision", precision, "-shape", f"[{shape}]"]
            options += ["-latency_percentile", percentile or "50"]
            options += ["-json_stats", "-report_type", "no_counters", "-report_folder", folder]
            done = subprocess.run(
                [sys.executable, "-c", RUN, *options], capture_output=True, text=True, check=False
            )
            report = Path(folder) / "benchmark_report.json"
            if not report.is_file():
                sys.exit((done.stdout + done.stderr).strip().splitlines()[-1])
            found = json.loads(report.read_text())["execution_results"]
        ms = next(float(value) for name, value in found.items() if name.startswith("latency ("))
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(json.dumps({"seconds": ms / 1e3, "stages_ms": {}, "peak_mib": peak}), flush=True)


if __name__ == "__main__":
    main()
