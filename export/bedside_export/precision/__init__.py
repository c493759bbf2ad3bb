"""The same network at lower precision, measured in clinical units before it goes into a bundle.

    material      pictures and scans of a folder, as the network sees them: to calibrate on, and to compare on
    extremes      inputs that no scanner makes and a network has to survive
    graph         what is changed in an ONNX graph, and what is checked of it
    half          float16 inside, float32 at the borders
    ranges        what float16 can't hold, by measurement
    quantisation  8-bit integers, by NNCF
    islands       the few nodes that have to stay float32, found by trying
    gauge         how far an engine's answers are from the reference's
    workbench     a bundle under trial, and engines that run it
    trials        every engine at every precision, on what no calibration has seen
    makers        how each precision is made
    variants      all of it, from a bundle to a bundle
    report        what came of it: the parity report

Not for clinical use.
"""

from __future__ import annotations
