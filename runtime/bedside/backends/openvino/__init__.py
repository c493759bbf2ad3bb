"""OpenVINO on the CPU, at exactly the precision that was asked for.

    leaf       OpenVinoBackend: from arrays to arrays
    building   Builder: the bundle's model compiled for one shape, or taken from the cache
    islands    keep_float32: nodes that stay float32 where the rest runs in half precision
    beginning  cut_beginning: those at the beginning, as a model of its own
    blobs      Blobs: the cache

Only this package imports OpenVINO.
"""

from __future__ import annotations

from bedside.backends.openvino.leaf import OpenVinoBackend

__all__ = ["OpenVinoBackend"]
