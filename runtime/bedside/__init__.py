"""bedside: an edge inference runtime for chest imaging. Not for clinical use.

Each name is imported when it is first used, so that ``bedside --help`` does not wait for numpy.
"""

import importlib as _importlib
import typing as _typing

from bedside.version import __version__

if _typing.TYPE_CHECKING:
    from bedside.bundle import Bundle
    from bedside.engines import Auto
    from bedside.errors import (
        BackendError,
        BedsideError,
        BundleError,
        InputError,
        InternalError,
        LimitError,
        MissingExtraError,
        NodeError,
        OutputError,
        RefusedError,
    )
    from bedside.guard import Guard
    from bedside.opacification import OpacificationResult
    from bedside.scorer import CxrScorer, open_cxr
    from bedside.segmentation import Request
    from bedside.segmenter import CtSegmenter, open_ct
    from bedside.severity import SeverityResult

__all__ = [
    "Auto",
    "BackendError",
    "BedsideError",
    "Bundle",
    "BundleError",
    "CtSegmenter",
    "CxrScorer",
    "Guard",
    "InputError",
    "InternalError",
    "LimitError",
    "MissingExtraError",
    "NodeError",
    "OpacificationResult",
    "OutputError",
    "RefusedError",
    "Request",
    "SeverityResult",
    "__version__",
    "open_ct",
    "open_cxr",
]

_HOMES = {
    "Auto": "engines",
    "Bundle": "bundle",
    "CtSegmenter": "segmenter",
    "CxrScorer": "scorer",
    "Guard": "guard",
    "OpacificationResult": "opacification",
    "Request": "segmentation",
    "SeverityResult": "severity",
    "open_ct": "segmenter",
    "open_cxr": "scorer",
}
"""Name -> the module it comes from; all others are errors."""


if not _typing.TYPE_CHECKING:  # a checker would take any name

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(_importlib.import_module(f"bedside.{_HOMES.get(name, 'errors')}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
