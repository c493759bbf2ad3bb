"""What can go wrong in exporting, beside bedside's own errors."""

from __future__ import annotations

__all__ = ["ExportError", "ParityError"]


class ExportError(ValueError):
    """What was asked for can't be exported; the message says why and what to do, in one line."""


class ParityError(ExportError):
    """An engine answers otherwise than PyTorch, so no bundle is written."""
