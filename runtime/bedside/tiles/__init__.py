"""Cutting a scan into tiles, and joining what a network answers on them, in bounded memory.

Knows no DICOM, no bundle and no engine: takes arrays and any callable. Arrays run ``(Z, Y, X)``.

    plan      where the tiles lie, how many slices and tiles go at once, and the bytes that this takes
    Blender   slices in, as they are read; joined answers out, slice by slice
"""

from __future__ import annotations

from bedside.tiles.blender import Blender
from bedside.tiles.mosaic import Predict, Tally
from bedside.tiles.plan import Network, TilePlan, least_memory, plan

__all__ = ["Blender", "Network", "Predict", "Tally", "TilePlan", "least_memory", "plan"]
