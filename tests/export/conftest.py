"""Small networks of torchxrayvision's own making, and phantom pictures for them."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

if find_spec("torch") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import torch

    from bedside_export.golden import phantom_radiographs
    from bedside_export.models import ALL, Classifier

    SIZE = 64

    @pytest.fixture(scope="session")
    def xrv() -> ModuleType:
        """torchxrayvision; importing it switches warnings off for the whole process unless kept from it."""
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            import torchxrayvision

        module: ModuleType = torchxrayvision
        return module

    @pytest.fixture(scope="session")
    def small_densenet(xrv: ModuleType) -> torch.nn.Module:
        """torchxrayvision's DenseNet, small enough for many tests, its logits within a few units."""
        torch.manual_seed(3)
        network = xrv.models.DenseNet(
            growth_rate=4, block_config=(1, 2, 1, 1), num_init_features=8, num_classes=18
        )
        with torch.no_grad():
            network.features.norm0.running_var.fill_(1e5)
            network.classifier.weight.normal_(std=0.3)
            network.classifier.bias.normal_(std=1.0)
        module: torch.nn.Module = network.eval().requires_grad_(False)
        return module

    @pytest.fixture(scope="session")
    def classify(xrv: ModuleType, small_densenet: Any) -> Callable[..., Classifier]:
        """Make a `Classifier` of the small network that poses as one of torchxrayvision's weights."""

        def make(kind: str = ALL) -> Classifier:
            return Classifier(
                features=small_densenet.features,
                logits=small_densenet.classifier,
                labels=tuple(small_densenet.targets),
                thresholds=tuple(float(value) for value in xrv.models.model_urls[kind]["op_threshs"]),
                input_size=SIZE,
                weights="random:3",
                kind=kind,
            )

        return make

    @pytest.fixture(scope="session")
    def pictures() -> npt.NDArray[np.float32]:
        """Network inputs ``(N, 1, 64, 64)`` from the phantom."""
        from bedside.bundle import Input
        from bedside.cxr import preprocess

        spec = Input("image", (None, 1, SIZE, SIZE), low=-1024.0, high=1024.0, crop="centre-square")
        small = [
            replace(one, pixels=np.ascontiguousarray(one.pixels[::4, ::4]))
            for one in phantom_radiographs()[::2]
        ]
        return np.concatenate([preprocess(one, spec) for one in small])
