"""What an engine's library says of a model that it can't take, and a system of a cache, in one line."""

from __future__ import annotations

import re
from typing import Final

from bedside.disk import CACHE, trouble
from bedside.errors import OutputError
from bedside.onnxfile import OnnxFile

__all__ = ["explain", "explain_cache", "shorten"]

_LONGEST: Final = 200
"""Most characters of a library's own words."""
_UNSUPPORTED: Final = re.compile(
    r"No Op registered|not a registered function|Could not find an implementation"  # ONNX Runtime
    r"|No conversion rule|does not support the following",  # OpenVINO
)
"""How the libraries say that they lack an operator."""
_NOISE: Final = re.compile(
    r"Exception from \S+:\s*|Check '.*?' failed at \S+:\s*|\[ONNXRuntimeError\] : \d+ : "
)
"""Where in their sources libraries say that they are."""
_WORD: Final = re.compile(r"\w+")


def explain(error: Exception, onnx: OnnxFile) -> str:
    """Why a library can't take a model: operators that it lacks by name and node, or else its own words."""
    text = str(error)
    if _UNSUPPORTED.search(text):
        words = set(_WORD.findall(text))
        for operator in sorted(onnx.operators.keys() & words):
            names = [name for name, node in onnx.nodes.items() if node.operator == operator]
            where = next((f"node {name[:60]!r}" for name in names), "in a part of the graph")
            return f"it has no operator {operator[:60]!r}: {where}"
    return shorten(error)


def shorten(error: Exception) -> str:
    """What an error of a library says, on one line."""
    return " ".join(_NOISE.sub("", str(error)).split())[:_LONGEST] or type(error).__name__


def explain_cache(error: OSError) -> OutputError:
    """What to raise where something compiled can't be kept: ``disk-full`` or ``cache-not-writable``."""
    return trouble(error, CACHE)
