"""The network of the chest X-ray recipe before it has learnt, pictures for it, and where the real ones lie."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bedside_export.recipes.cxr.network import SeverityNetwork

SHARED = Path(__file__).parents[3] / "shared" / "data"

needs_data = pytest.mark.skipif(not (SHARED / "cxr").is_dir(), reason="needs ../shared/data/cxr")


def untrained() -> SeverityNetwork:
    """An untrained network whose outputs are far from 0."""
    torch.manual_seed(0)
    network = SeverityNetwork()
    torch.nn.init.normal_(network.head.linear.weight, std=0.5)
    return network.eval()


def smooth_pictures() -> torch.Tensor:
    """Three smooth pictures ``(3, 1, 320, 320)``, 0 to 1."""
    noise = torch.rand(3, 1, 320, 320, generator=torch.Generator().manual_seed(1))
    smooth = torch.nn.functional.avg_pool2d(noise, 21, 1, 10)
    return (smooth - smooth.min()) / (smooth.max() - smooth.min())
