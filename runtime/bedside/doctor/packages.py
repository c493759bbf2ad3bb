"""Which packages are installed, without importing any."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec

__all__ = ["find_distribution", "find_version", "is_installed"]


def is_installed(package: str) -> bool:
    """Whether a module is there, with code in it: what an uninstalled one left behind is none."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def find_distribution(name: str) -> metadata.Distribution | None:
    """What pip installed under a name; None if it did not."""
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def find_version(name: str) -> str | None:
    """Version of what pip installed under a name; None if it did not."""
    found = find_distribution(name)
    return None if found is None else found.version
