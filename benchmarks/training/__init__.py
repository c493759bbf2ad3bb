"""How the networks of the comparisons are trained, so that what lower precision costs them means something.

fitting      the loop: learning rate, running average, checkpoints
rounding     8-bit steps while training
slices       chest CT for the U-Net, in the scale of a scanner's slices
unet         the U-Net of `benchmarks/ct.py`
xrays        X-rays and what is known of them, as torchxrayvision names it
densenet     the DenseNet-121 of `benchmarks/cxr.py`

Not for clinical use.
"""

from __future__ import annotations
