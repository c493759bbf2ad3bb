"""What shape of input an engine is set up for before the first comes."""

from __future__ import annotations

from bedside.backends.base import Tuning
from bedside.errors import BackendError
from bedside.manifest import Manifest

__all__ = ["expected_shape"]


def expected_shape(manifest: Manifest, tuning: Tuning) -> tuple[int, ...]:
    """Shape ``(1, C, ...)`` of one picture or tile as it will most likely come.

    Raises:
        BackendError: ``engine-unsupported`` if `Tuning.tile` has another number of sides than the network's input.
    """
    _, channels, *sides = manifest.input.shape
    tile = tuning.tile or (manifest.tiling.size if manifest.tiling else ())
    if None in sides and len(tile) != len(sides):
        raise BackendError(
            "engine-unsupported", f"a tile has {len(sides)} sides for this bundle, not {len(tile)}"
        )
    return (1, channels or 1, *(fixed or tile[axis] for axis, fixed in enumerate(sides)))
