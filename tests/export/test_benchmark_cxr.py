"""The comparison with torchxrayvision runs whole, and both sides give the same scores."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bedside_export.golden import phantom_radiographs

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cxr.py"


@pytest.mark.slow
def test_comparison_writes_its_ratios_and_the_sides_agree(tmp_path: Path) -> None:
    from PIL import Image

    for number, radiograph in enumerate(phantom_radiographs()[:2]):
        Image.fromarray((radiograph.pixels * 255).astype("uint8")).save(tmp_path / f"{number}.png")
    report = tmp_path / "report.json"
    options = ["--images", tmp_path, "--count", "2", "--rounds", "2", "--starts", "1", "--json", report]
    done = subprocess.run(
        [sys.executable, SCRIPT, *map(str, options)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(report.read_text())
    wanted = {"warm_onnxruntime_fp32", "cold_start", "peak_memory", "installed_size"}
    assert wanted <= told["ratios"].keys()
    assert all(ratio > 0 for ratio in told["ratios"].values())
    assert told["sides"]["onnxruntime fp32"]["max_score_difference"] < 0.01
    assert told["weights"] == {"trained": False, "source": "random:0"}
    assert told["parity_at_export"]["onnxruntime fp32"]["status"] == "passed"
    assert told["machine"]["cores"] >= 1
    assert {"before", "after", "hottest_c", "throttled"} <= told["machine"].keys()
