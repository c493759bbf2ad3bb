"""Networks that segment the slices of a CT, with logits of tissues as their answer.

build_network("l3-unet2d", ...)                 the published U-Net, see `L3UNet`
build_network("smp:UNet:resnet34", ...)         an architecture and encoder of segmentation-models-pytorch
build_network("package.module:factory", ...)    called as ``factory(in_channels=C, classes=K)``
TissueNetwork(network)                          probabilities instead of logits: what is exported
"""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

from bedside.errors import MissingExtraError
from bedside_export.errors import ExportError

__all__ = ["L3_UNET", "L3UNet", "SliceNetwork", "TissueNetwork", "build_network"]

L3_UNET: Final = "l3-unet2d"
"""Name of the published U-Net."""
_OWN_MULTIPLE: Final = 32
"""Sides of a tile for a network that does not say: five halvings, the most that is usual."""


@dataclass(frozen=True, slots=True)
class SliceNetwork:
    """A network and what its tiles have to be."""

    network: nn.Module
    """``(N, C, H, W)`` -> logits ``(N, K, H, W)``; in eval mode."""
    arch: str
    """As it was asked for."""
    text: str
    """For people, e.g. ``U-Net of 13.39 M parameters``."""
    multiple: int
    """Sides of a tile are multiples of this."""
    fixed: bool
    """Whether the exported graph has to be for one size: it pools to a fixed number of bins over 1."""


class TissueNetwork(nn.Module):
    """Probabilities of the tissues.

    Args:
        network: ``(N, C, H, W)`` -> logits ``(N, K, H, W)``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities ``(N, K, H, W)`` that sum to 1 over K."""
        return _share_out(self.network(image))


def _share_out(logits: Tensor) -> Tensor:
    """The softmax over the second axis, written out.

    ONNX Runtime calls its own once a pixel, for a handful of classes, which is slow beside a light network; the parts
    run plane by plane. OpenVINO puts them together again, at fp16 too if the pixels are one axis.

    Args:
        logits: ``(N, K, H, W)``.
    """
    flat = logits.flatten(2)  # (N, K, H * W)
    parts = (flat - flat.amax(1, keepdim=True)).exp()
    return (parts / parts.sum(1, keepdim=True)).reshape(logits.shape)


class L3UNet(nn.Module):
    """The U-Net of COVID19-L3-Net (Lensink et al. 2020), from its description; its state-dict keys are the same.

    Four halvings; widths 64, 128, 256, 512, 512 down and 256, 128, 64, 64 up; double 3x3 convolutions, each with
    batch norm and ReLU; bilinear upsampling with align_corners, padded to the skip's size.

    Args:
        channels: Of the input.
        classes: Tissues.
        width: Of the first level; the published network's is 64.
        bias: Whether convolutions before a batch norm have a bias.
    """

    def __init__(self, channels: int, classes: int, *, width: int = 64, bias: bool = True) -> None:
        super().__init__()
        self.inc = _DoubleConv(channels, width, bias)
        self.down1 = _Down(width, 2 * width, bias)
        self.down2 = _Down(2 * width, 4 * width, bias)
        self.down3 = _Down(4 * width, 8 * width, bias)
        self.down4 = _Down(8 * width, 8 * width, bias)
        self.up1 = _Up(16 * width, 4 * width, bias)
        self.up2 = _Up(8 * width, 2 * width, bias)
        self.up3 = _Up(4 * width, width, bias)
        self.up4 = _Up(2 * width, width, bias)
        self.outc = _Last(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``(N, K, H, W)`` of ``(N, C, H, W)``."""
        first = self.inc(image)
        second = self.down1(first)
        third = self.down2(second)
        fourth = self.down3(third)
        joined = self.up1(self.down4(fourth), fourth)
        joined = self.up4(self.up3(self.up2(joined, third), second), first)
        return cast("Tensor", self.outc(joined))


class _DoubleConv(nn.Module):
    def __init__(self, before: int, after: int, bias: bool) -> None:  # noqa: FBT001 - private, one meaning
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1, bias=bias),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, padding=1, bias=bias),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        )

    def forward(self, image: Tensor) -> Tensor:
        return cast("Tensor", self.double_conv(image))


class _Down(nn.Module):
    def __init__(self, before: int, after: int, bias: bool) -> None:  # noqa: FBT001 - the same
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), _DoubleConv(before, after, bias))

    def forward(self, image: Tensor) -> Tensor:
        return cast("Tensor", self.maxpool_conv(image))


class _Up(nn.Module):
    def __init__(self, before: int, after: int, bias: bool) -> None:  # noqa: FBT001 - the same
        super().__init__()
        self.conv = _DoubleConv(before, after, bias)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """Join ``below``, enlarged twice, to ``skip``."""
        large = F.interpolate(below, scale_factor=2.0, mode="bilinear", align_corners=True)
        # what is exported takes multiples of 16 only, for which nothing is to be padded
        if not torch.compiler.is_exporting():
            rows, columns = (skip.shape[axis] - large.shape[axis] for axis in (-2, -1))
            large = F.pad(large, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        return cast("Tensor", self.conv(torch.cat([skip, large], dim=1)))


class _Last(nn.Module):
    def __init__(self, before: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        return cast("Tensor", self.conv(image))


def build_network(
    arch: str, *, channels: int, classes: int, multiple: int | None = None, keys: Collection[str] = ()
) -> SliceNetwork:
    """An untrained network.

    Args:
        arch: ``l3-unet2d``, ``smp:ARCH:ENCODER``, or ``module:factory``, which is imported and so runs its code.
        channels: Of the input.
        classes: Tissues.
        multiple: What sides of a tile have to be multiples of; None for what the network says, or 32.
        keys: Names in the checkpoint that is to be loaded, where variants of one network differ in them.

    Raises:
        ExportError: No such network.
        MissingExtraError: segmentation-models-pytorch is not installed.
    """
    kind, *rest = arch.split(":")
    if arch == L3_UNET:
        bias = not keys or any(key.endswith("inc.double_conv.0.bias") for key in keys)
        network: nn.Module = L3UNet(channels, classes, bias=bias)
        found = 16  # four halvings
    elif kind == "smp" and len(rest) == 2:
        network, found = _from_library(*rest, channels=channels, classes=classes)
    elif len(rest) == 1 and kind and rest[0]:
        network, found = _from_factory(kind, rest[0], channels=channels, classes=classes), _OWN_MULTIPLE
    else:
        raise ExportError(
            f"no architecture {arch[:80]!r}; give {L3_UNET}, smp:ARCH:ENCODER (e.g. smp:Unet:resnet34) or "
            "module:factory"
        )
    network.eval().requires_grad_(False)
    size = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    text = f"{type(network).__name__} ({arch}), {size:.2f} M parameters"
    return SliceNetwork(network, arch, text, multiple or found, fixed=_pools_to_bins(network))


def _from_library(arch: str, encoder: str, *, channels: int, classes: int) -> tuple[nn.Module, int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import segmentation_models_pytorch as library  # noqa: PLC0415 - takes seconds, and only this needs it
    except ModuleNotFoundError as error:
        raise MissingExtraError.of(
            "segmentation-models-pytorch", "export", "a network of that library"
        ) from error
    base = library.base.SegmentationModel
    known = {
        name: value
        for name, value in vars(library).items()
        if isinstance(value, type) and issubclass(value, base)
    }
    if arch not in known:
        raise ExportError(
            f"segmentation-models-pytorch has no architecture {arch[:40]!r}; it has: {', '.join(sorted(known))}"
        )
    if not encoder.startswith("tu-") and encoder not in library.encoders.get_encoder_names():
        raise ExportError(
            f"segmentation-models-pytorch has no encoder {encoder[:40]!r}; see its list of encoders, or take one of "
            "timm's as tu-NAME"
        )
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            network = known[arch](encoder, encoder_weights=None, in_channels=channels, classes=classes)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ExportError(
            f"{arch} with {encoder} can't be built ({_line(error)}); take another pair"
        ) from error
    return network, int(network.encoder.output_stride)


def _from_factory(module: str, name: str, *, channels: int, classes: int) -> nn.Module:
    try:
        factory: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ExportError(
            f"{module[:80]}:{name[:80]} can't be imported ({_line(error)}); install it, or mind PYTHONPATH"
        ) from error
    try:
        network = factory(in_channels=channels, classes=classes)
    except TypeError as error:
        raise ExportError(
            f"{module}:{name} can't be called as factory(in_channels={channels}, classes={classes}) "
            f"({_line(error)}); write one that can"
        ) from error
    if not isinstance(network, nn.Module):
        raise ExportError(
            f"{module}:{name} gave a {type(network).__name__}, not a torch.nn.Module; return that"
        )
    return network


def _pools_to_bins(network: nn.Module) -> bool:
    """Whether a layer pools to several bins, whose edges depend on the size of the tile."""
    for module in network.modules():
        if isinstance(module, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)):
            size = module.output_size
            bins = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
            if any(count != 1 for count in bins):
                return True
    return False


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
