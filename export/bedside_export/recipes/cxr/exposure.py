"""What the chest X-ray network's features see of a crop: its detail at any exposure, and its greys as they are."""

from __future__ import annotations

from typing import Final, cast

import torch
from torch import Tensor, nn


class Equalise(nn.Module):
    """Histogram equalisation by sums of ramps, with a limit on contrast; smooth, and a matrix product in ONNX.

    The picture is first scaled to its mean and standard deviation; the share of pixels in each of `BINS` bins,
    smoothed over three, at most `LIMIT` times the even share, is that bin's share of the output.
    """

    BINS: Final = 16
    LIMIT: Final = 3.0
    DEVIATIONS: Final = 2.5
    """The bins span this many standard deviations on each side of the mean."""

    smooth: Tensor
    first: Tensor

    def __init__(self) -> None:
        super().__init__()
        ramp = nn.Conv2d(1, self.BINS, 1)
        ramp.weight.data.fill_(float(self.BINS))
        ramp.bias = nn.Parameter(-torch.arange(self.BINS, dtype=torch.float32))
        # networks were trained and stored with it as a layer
        self.ramp = ramp.requires_grad_(False)
        smooth = torch.zeros(self.BINS, self.BINS)
        for i in range(self.BINS):
            if i:
                smooth[i - 1, i] = 0.5
            if i + 1 < self.BINS:
                smooth[i + 1, i] = -0.5
        self.register_buffer("smooth", smooth, persistent=False)
        first = torch.zeros(1, self.BINS)
        first[0, 0] = 0.5
        self.register_buffer("first", first, persistent=False)

    def forward(self, crop: Tensor) -> Tensor:
        """``(N, 1, h, w)`` of any scale to the same shape, 0 to 1."""
        mean = crop.mean((2, 3), keepdim=True)
        deviation = ((crop - mean).pow(2).mean((2, 3), keepdim=True) + 1e-6).sqrt()
        scaled = (crop - mean) / (deviation * (2 * self.DEVIATIONS)) + 0.5
        # what the layer computes, on flat pixels: as a convolution engines store it channels last, and turn it round
        slope, starts = self.ramp.weight[:1, :, 0], cast("Tensor", self.ramp.bias).reshape(1, -1, 1)
        ramps = (scaled.flatten(2) * slope + starts).clamp(0.0, 1.0)  # (N, bins, h * w)
        share = ramps.mean(2) @ self.smooth + self.first  # (N, bins)
        share = share.clamp(0.0, self.LIMIT / self.BINS)
        share = share / share.sum(1, keepdim=True)
        return (share.unsqueeze(1) @ ramps).reshape(crop.shape)


class Colours(nn.Module):
    """What the features see: a crop equalised, as it is, and half and half.

    Equalising shows detail whatever the exposure, and takes away even haze over both lungs, which the crop as it is
    still has.
    """

    grey_share: Tensor

    def __init__(self) -> None:
        super().__init__()
        # kept with the weights, so that those of a network that saw other colours are refused
        self.register_buffer("grey_share", torch.tensor([0.0, 0.5, 1.0]).reshape(1, 3, 1, 1))

    def forward(self, equalised: Tensor, grey: Tensor) -> Tensor:
        """Two ``(N, 1, h, w)``, 0 to 1, to ``(N, 3, h, w)``, -2 to 2."""
        return (equalised + (grey - equalised) * self.grey_share) * 4 - 2
