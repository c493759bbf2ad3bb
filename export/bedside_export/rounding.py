"""A network whose weights take half the room in a wheel: batch norms folded, then rounded.

round_weights   a network with weights of fewer significant bits
"""

from __future__ import annotations

from typing import Final

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

__all__ = ["WEIGHT_BITS", "round_weights"]

WEIGHT_BITS: Final = 11
"""Significant bits of a float16. A float32 file of such weights compresses to two thirds, and its float16 twin holds
the very same weights."""


def round_weights(network: nn.Module, bits: int = WEIGHT_BITS) -> nn.Module:
    """Fold batch norms into their convolutions, and round what has more than one axis to ``bits`` significant bits.

    Args:
        network: In evaluation mode, and traceable by `torch.fx`; stays as it is. Biases, and buffers that are not
            part of its state, are not rounded.
        bits: Significant bits that are kept, to the nearest, half to even.

    Returns:
        A network that answers the same but for the rounding: the reference of what is exported.
    """
    folded: nn.Module = fuse(network)
    with torch.no_grad():
        for weights in folded.state_dict().values():
            if weights.is_floating_point() and weights.ndim > 1:
                fraction, exponent = torch.frexp(weights)
                weights.copy_(
                    torch.ldexp(torch.round(torch.ldexp(fraction, torch.tensor(bits))), exponent - bits)
                )
    return folded.eval()
