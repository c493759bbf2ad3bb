"""Preprocess and interpret a CT: arrays in, arrays out, no I/O.

normalise        HU -> what the network takes
Tally            what each slice holds of each tissue
interpret        a tally -> `bedside.opacification.Opacification`
sampling         a volume from some of the slices
quality          whether what was found is an answer
"""

from __future__ import annotations

from bedside.ct.interpretation import interpret
from bedside.ct.tally import AERATED_HU, Tally, normalise

__all__ = ["AERATED_HU", "Tally", "interpret", "normalise"]
