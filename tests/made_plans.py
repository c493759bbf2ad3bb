"""A tuned plan, made by hand, for a key; and all that makes another key of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bedside.tuning import Plan, PlanKey, Planned

KEY = PlanKey(
    "a" * 64,
    "0.1.0",
    {"onnxruntime": "1.31.1"},
    "some-device-0123",
    None,
    "latency",
    1,
    None,
    None,
    None,
    None,
)
HALF = Planned("openvino", "2026.4", "bf16", None, "extent", 0.05, 0.1, 9.5)
FULL = Planned("onnxruntime", "1.31.1", "fp32", None, "extent", 1e-6, 0.01, 30.25)
PLAN = Plan(KEY, "2026-11-22T00:44:49+00:00", (HALF, FULL))
OTHERS: dict[str, dict[str, Any]] = {
    "bundle": {"bundle": "b" * 64},
    "device or driver": {"device": "some-device-4567"},
    "onnxruntime was 1.31.1 and is 1.32.0 now": {"engines": {"onnxruntime": "1.32.0"}},
    "onnxruntime 1.31.1 is no longer installed": {"engines": {}},
    "openvino 2026.4 was not installed then": {"engines": {"onnxruntime": "1.31.1", "openvino": "2026.4"}},
    "bedside was 0.1.0 and is 0.2.0 now": {"bedside": "0.2.0"},
    "threads as the engine chooses, not 4": {"threads": 4},
    "hint latency, not throughput": {"hint": "throughput"},
    "batch 1, not 4": {"batch": 4},
    "tile": {"tile": (512, 512)},
    "pinned": {"pinned": True},
    "workspace": {"workspace_bytes": 1 << 30},
    "dla": {"dla": 0},
}
"""What is told of a difference, and the field that differs."""


def files_in(folder: Path) -> list[str]:
    """Paths of all files below."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
