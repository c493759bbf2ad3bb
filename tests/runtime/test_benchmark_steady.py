"""The benchmark of steady latency runs whole, and tells what it found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import draw
from tiny_bundle import make_bundle

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "steady.py"


def test_benchmark_tells_hot_idle_and_first_scores_of_both_places(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    bundle = make_bundle(tmp_path / "b")
    (tmp_path / "in").mkdir()
    draw(tmp_path / "in" / "a.png")
    report = tmp_path / "report.json"
    few = ["--short", "--hot", "3", "--turns", "2", "--starts", "1", "--threads", "1"]
    engines = ["--engine", "onnxruntime fp32", "--engine", "onnxruntime int8"]
    done = subprocess.run(
        [
            sys.executable,
            SCRIPT,
            "--bundle",
            bundle,
            "--images",
            tmp_path / "in",
            *engines,
            *few,
            "--json",
            report,
        ],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(report.read_text())
    assert set(told["sides"]) == {"onnxruntime fp32, in process", "onnxruntime fp32, isolated"}
    for side in told["sides"].values():
        assert {when: found["n"] for when, found in side["latency"].items()} == {"hot": 3, "1 s": 2}
        assert all(found["max_ms"] >= found["median_ms"] > 0 for found in side["latency"].values())
        assert side["first_score_ms"] > 0
        assert side["run"]["n"] == 8
    assert told["isolation"]["onnxruntime fp32"]["ratio"] > 0
    assert "no int8 model" in told["left_out"]["onnxruntime int8"]
    assert "onnxruntime fp32, isolated" in done.stdout
