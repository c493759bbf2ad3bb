"""What recipes tell while they run."""

from __future__ import annotations

import logging
from typing import Final

__all__ = ["tell_progress"]

_OURS: Final = ("bedside", "__main__")
"""Beginnings of the names of the loggers that tell of progress; ``__main__`` is a recipe that is run as a module."""


def tell_progress() -> None:
    """Log to stderr, with the time, what recipes tell, and of other libraries warnings alone.

    Those that convert and quantise tell of each node of a network.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    handler.addFilter(_is_worth_telling)
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _is_worth_telling(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.startswith(_OURS)
