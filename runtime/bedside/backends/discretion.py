"""Keeps engines from reporting their use to their makers, which some do unless they are told not to.

ONNX Runtime for Linux, from 1.29, sends names and hashes of the graphs that it loads; OpenVINO sends an event when it
is imported, through its package ``openvino_telemetry``. Both also leave an identifier in the user's home.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Final, cast

__all__ = ["without_telemetry"]

_SWITCH: Final = "ORT_DISABLE_TELEMETRY"
"""Read by ONNX Runtime when it is loaded, and the only switch that comes before its first event."""
_SENDER: Final = "openvino_telemetry"
"""Without this module OpenVINO takes a stub of its own, which sends nothing."""


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Import engines in this ``with`` block. One that was imported before stays as it was."""
    os.environ.setdefault(_SWITCH, "1")
    modules = cast("dict[str, ModuleType | None]", sys.modules)
    hidden = _SENDER not in modules
    if hidden:
        modules[_SENDER] = None  # an import of it fails from here on
    try:
        yield
    finally:
        if hidden:
            modules.pop(_SENDER, None)
