"""What every result says of where it comes from, and what it is not for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["NOTICE", "BundleRef"]

NOTICE: Final = "Not for clinical use."
"""Stands in every result."""


@dataclass(frozen=True, slots=True)
class BundleRef:
    """Names exactly the bundle that answered."""

    name: str
    version: str
    digest: str
    """SHA-256 of its manifest."""
