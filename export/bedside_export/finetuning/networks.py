"""Networks to fine-tune: any that ``ct-opacity`` exports, from a checkpoint, or the built-in one from its bundle.

The built-in bundle holds the network as it runs: batch norms folded into the convolutions. It is trained on as it is,
and exported by the factories ``sided_folded`` and ``plain_folded`` of this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from bedside.bundle import Bundle, built_in
from bedside.contract import Tissue
from bedside_export.ct_checkpoint import fill
from bedside_export.ct_models import build_network
from bedside_export.ct_rules import RULES, TISSUES, Window
from bedside_export.errors import ExportError
from bedside_export.recipes.ct.network import PIXEL_MM, SIDES, STRIDE, WINDOW_HU, OpacityNetwork
from bedside_export.weights import read_weights

__all__ = ["BUILT_IN", "Learner", "Wanted", "open_learner", "plain", "plain_folded", "sided", "sided_folded"]

BUILT_IN: Final = "built-in"
"""Name of the built-in CT network."""
BUILT_IN_WINDOW: Final = Window(*WINDOW_HU, mean=sum(WINDOW_HU) / 2, std=(WINDOW_HU[1] - WINDOW_HU[0]) / 2)
"""Its input rule: the ends of the window are -1 and 1."""
_IN_GRAPH: Final = "network."
"""In front of the network's names in an exported graph (`ct_models.TissueNetwork`)."""
_HEAD: Final = ("classify.", "sides.")
"""What of the built-in network depends on the classes."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asks for; None stands for what suits the network."""

    source: str
    """A checkpoint; or for the built-in network also a bundle, by name or path."""
    network: str
    """`BUILT_IN`, or as `bedside_export.ct_models.build_network` takes it."""
    tissues: tuple[Tissue, ...] | None = None
    """The classes."""
    window: Window | None = None
    """The input rule."""
    spacing_mm: tuple[float, float] | None = None
    """``(y, x)`` that the network is trained at."""
    tile: tuple[int, int] | None = None
    """``(H, W)``."""
    context: int | None = None
    """Neighbouring slices on each side that go in as channels."""
    prefix: str | None = None
    """In front of the network's names in the checkpoint; None to find it."""


@dataclass(frozen=True, slots=True)
class Learner:
    """A network with its first weights, and what a bundle of it has to say."""

    network: nn.Module
    """``(N, 2 context + 1, H, W)`` -> logits ``(N, K, H, W)``."""
    arch: str
    """As ``ct-opacity --arch`` takes what comes of it."""
    text: str
    """For people."""
    tissues: tuple[Tissue, ...]
    """The classes."""
    window: Window
    """The input rule."""
    spacing_mm: tuple[float, float] | None
    """``(y, x)``; None for a scan's own."""
    tile: tuple[int, int]
    """``(H, W)``."""
    multiple: int
    """Sides of a tile are multiples of this."""
    context: int = 0
    """Neighbouring slices on each side that go in as channels."""
    note: str = ""
    """What the user has to know, if anything."""

    def prepare(self, hu: Tensor) -> Tensor:
        """HU to what the network takes."""
        return (hu.clamp(self.window.low, self.window.high) - self.window.mean) / self.window.std


def open_learner(wanted: Wanted) -> Learner:
    """The network that is asked for, with the weights of the source.

    Raises:
        ExportError: There is no such network, or the source does not hold it.
        BundleError: The source is a bundle, and broken.
        MissingExtraError: segmentation-models-pytorch is not installed.
    """
    if wanted.network == BUILT_IN:
        return _open_built_in(wanted)
    path = Path(wanted.source)
    if not path.is_file() or path.suffix == ".zip":
        raise ExportError(
            "no checkpoint: give the file that torch.save wrote; bundles are taken with --network built-in alone"
        )
    tissues = wanted.tissues or TISSUES["l3-groups"]
    tensors = read_weights(path)
    context = wanted.context or 0
    found = build_network(wanted.network, channels=2 * context + 1, classes=len(tissues), keys=tensors.keys())
    fill(found.network, tensors, prefix=wanted.prefix)
    return Learner(
        network=found.network.requires_grad_(True),
        arch=wanted.network,
        text=found.text,
        tissues=tissues,
        window=wanted.window or RULES["l3-unet"],
        spacing_mm=wanted.spacing_mm,
        tile=_checked(wanted.tile or (512, 512), found.multiple),
        multiple=found.multiple,
        context=context,
    )


def _checked(tile: tuple[int, int], multiple: int) -> tuple[int, int]:
    if any(side % multiple or side < 2 * multiple for side in tile):
        raise ExportError(
            f"sides of a tile must be multiples of {multiple}, at least {2 * multiple}; choose --tile anew"
        )
    return tile


def _open_built_in(wanted: Wanted) -> Learner:
    tissues = wanted.tissues or TISSUES["sides"]
    tensors = _read_built_in(wanted)
    folded = "stem.1.bias" in tensors
    channels = tensors["stem.1.weight"].shape[1] if "stem.1.weight" in tensors else 1
    if wanted.context is not None and 2 * wanted.context + 1 != channels:
        raise ExportError(
            f"this network takes {(channels - 1) // 2} neighbouring slices on each side; leave out --context"
        )
    known = (len(TISSUES["sides"]), len(SIDES[0]))
    own = [(each.opacity, each.lung, each.side) for each in tissues] == [
        (each.opacity, each.lung, each.side) for each in TISSUES["sides"]
    ]
    questions = tuple(tensors["sides.weight"].shape[:2]) if "sides.weight" in tensors else ()
    as_was = questions == known if own else questions == (len(tissues),) * 2
    sided_head = own and (as_was or questions != (len(tissues),) * 2)
    factory = FACTORIES[sided_head, folded]
    network = factory(channels, len(tissues))
    note = ""
    if not as_was:
        fresh = network.state_dict()
        tensors = {name: value for name, value in tensors.items() if not name.startswith(_HEAD)}
        tensors |= {name: value for name, value in fresh.items() if name.startswith(_HEAD)}
        note = "the last layer is new, for these are other classes than the weights were trained on"
    fill(network, tensors)
    return Learner(
        network=network,
        arch=f"{__name__}:{factory.__name__}",
        text=f"the built-in network{' with folded batch norms' if folded else ''}",
        tissues=tissues,
        window=wanted.window or BUILT_IN_WINDOW,
        spacing_mm=wanted.spacing_mm or (PIXEL_MM, PIXEL_MM),
        tile=_checked(wanted.tile or (256, 256), STRIDE),
        multiple=STRIDE,
        context=(channels - 1) // 2,
        note=note,
    )


def _read_built_in(wanted: Wanted) -> dict[str, Tensor]:
    path = Path(wanted.source)
    if path.is_file() and path.suffix != ".zip":
        tensors = read_weights(path)
        prefix = next(
            (name[: -len("stem.1.weight")] for name in tensors if name.endswith("stem.1.weight")), ""
        )
        prefix = prefix if wanted.prefix is None else wanted.prefix
        return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
    if not path.exists() and wanted.source not in built_in():
        raise ExportError(
            f"no such checkpoint or bundle; give a file, a bundle's folder, or one of {', '.join(built_in())}"
        )
    bundle = Bundle.open(wanted.source)
    graph = onnx.load_from_string(bundle.read(bundle.model("fp32"))).graph
    tensors = {
        each.name[len(_IN_GRAPH) :].replace("weight_bias", "bias"): torch.from_numpy(
            numpy_helper.to_array(each).copy()
        )
        for each in graph.initializer
        if each.name.startswith(_IN_GRAPH)
    }
    if "stem.1.bias" not in tensors:
        raise ExportError(
            "the bundle does not hold the built-in network; give the checkpoint that it was exported from"
        )
    return tensors


def sided(in_channels: int, classes: int) -> nn.Module:
    """The built-in network as it is trained, whose classes share one question of the side."""
    return _build(in_channels, classes, SIDES)


def sided_folded(in_channels: int, classes: int) -> nn.Module:
    """The same with folded batch norms, as it is in the built-in bundle."""
    return _fold(sided(in_channels, classes))


def plain(in_channels: int, classes: int) -> nn.Module:
    """The built-in network for any classes."""
    sums = tuple(tuple(map(float, row)) for row in np.eye(classes))
    return _build(in_channels, classes, sums)


def plain_folded(in_channels: int, classes: int) -> nn.Module:
    """The same with folded batch norms."""
    return _fold(plain(in_channels, classes))


FACTORIES: Final[Mapping[tuple[bool, bool], Callable[[int, int], nn.Module]]] = {
    (True, False): sided,
    (True, True): sided_folded,
    (False, False): plain,
    (False, True): plain_folded,
}
"""Whether classes share the question of the side, and whether batch norms are folded -> what builds it."""


def _build(in_channels: int, classes: int, sums: tuple[tuple[float, ...], ...]) -> OpacityNetwork:
    if in_channels % 2 == 0 or classes != len(sums):
        raise ExportError(
            f"the built-in network takes a slice and as many neighbours on each side, and has {len(sums)} classes, "
            f"not {classes}"
        )
    return OpacityNetwork(context=(in_channels - 1) // 2, sums=sums)


def _fold(network: nn.Module) -> nn.Module:
    folded: nn.Module = fuse(network.eval())
    return folded
