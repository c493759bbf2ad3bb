"""What the node logs: one line an event, to standard error, without patient data. Not for clinical use."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from typing import Final

from bedside.errors import InternalError

__all__ = ["set_up_logs"]

_FOREIGN: Final = ("pynetdicom", "pydicom", "urllib3")
"""Libraries that log values and addresses."""


def set_up_logs(*, verbose: bool) -> None:
    """Set up the logging of this process.

    Args:
        verbose: Whether to log also what went well.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("bedside").setLevel(logging.INFO if verbose else logging.WARNING)
    for name in _FOREIGN:
        foreign = logging.getLogger(name)
        foreign.setLevel(logging.CRITICAL + 1)
        foreign.propagate = False
    warnings.simplefilter("ignore")  # pydicom's hold values
    threading.excepthook = _tell_end


class _Formatter(logging.Formatter):
    """Without tracebacks: they hold the messages of exceptions, and those hold values."""

    def formatException(self, ei: object) -> str:  # noqa: N802, ARG002 - of logging
        """Nothing of an exception but what the line says."""
        return ""

    def formatStack(self, stack_info: str) -> str:  # noqa: N802, ARG002 - of logging
        """Nothing of the stack."""
        return ""


def _tell_end(ended: threading.ExceptHookArgs) -> None:
    """Say that a thread ended by itself: what and where, but not with which values."""
    if isinstance(ended.exc_value, Exception) and ended.exc_value.__traceback__ is not None:
        logging.getLogger("bedside").error("%s", InternalError.of(ended.exc_value).message)
