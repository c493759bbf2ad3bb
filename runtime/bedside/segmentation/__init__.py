"""One scan's way from slices to volumes, within a budget of memory and of time.

network        the network's grid, its tiles, and back to the scan's grid
budget         how large tiles and slabs may be
job            reading, predicting and measuring, all at once
"""

from __future__ import annotations

from bedside.segmentation.budget import Warm
from bedside.segmentation.job import UNREAD, Job, LabelSink, Progress, Request
from bedside.segmentation.network import Segmentor, fit_grid, list_tiles

__all__ = ["UNREAD", "Job", "LabelSink", "Progress", "Request", "Segmentor", "Warm", "fit_grid", "list_tiles"]
