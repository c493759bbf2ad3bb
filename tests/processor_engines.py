"""The engines that need no GPU."""

from __future__ import annotations

ENGINES = ["onnxruntime", "openvino"]
"""Those of `bedside.backends.BACKENDS` that run on any machine."""
