"""pydicom without its warnings: they quote values, which may be the patient's."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]


@contextmanager
def quiet() -> Iterator[None]:
    """Neither warn nor log within the ``with`` block what pydicom finds wrong with values."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"pydicom\.")
            warnings.filterwarnings("ignore", module=r"bedside\.results\.dicom\.")
            yield
    finally:
        logger.disabled = before
