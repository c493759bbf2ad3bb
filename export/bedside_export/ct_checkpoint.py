"""Weights for a network that segments slices: from a checkpoint, or random for trials.

fill     the tensors of a checkpoint into the network, all of them, under whatever prefix
settle   manners for random weights, and a last layer fitted to the phantom
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

from bedside_export.errors import ExportError

__all__ = ["fill", "settle"]

_NAMED = 3
"""Keys that a message names before it counts the rest."""
_RIDGE = 0.1
"""Weight of the penalty on the fitted last layer, in parts of the mean square of its inputs."""
_SHARPNESS = 12.0
"""What the fitted one-hot answer is multiplied with: probabilities of over 0.9 where it is sure."""


def fill(network: nn.Module, tensors: Mapping[str, Tensor], *, prefix: str | None = None) -> tuple[str, ...]:
    """Load a checkpoint's tensors.

    Args:
        network: Takes them.
        tensors: Of the checkpoint, their names with or without a prefix.
        prefix: In front of the network's names; None to find it.

    Returns:
        Names outside of the prefix, which belong to something else than the network, e.g. the loss.

    Raises:
        ExportError: A tensor is missing, unexpected or of another shape (the message names them), or holds NaN or
            infinity; or two networks in the checkpoint fit.
    """
    wanted = network.state_dict()
    needed = {name for name in wanted if not name.endswith("num_batches_tracked")}
    if prefix is None:
        prefix = _find_prefix(needed, tensors)
    own = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
    problems = [
        *_listed("lacks", (name for name in needed if name not in own)),
        *_listed("holds besides", (name for name in own if name not in wanted)),
        *_listed(
            "has other shapes in",
            (
                f"{name} {tuple(own[name].shape)} instead of {tuple(value.shape)}"
                for name, value in wanted.items()
                if name in own and own[name].shape != value.shape
            ),
        ),
    ]
    if problems:
        under = f" under the prefix {prefix!r}" if prefix else ""
        raise ExportError(
            f"the checkpoint{under} {'; it '.join(problems)}; give the checkpoint of this network, or the network of "
            "this checkpoint"
        )
    if not all(bool(torch.isfinite(value).all()) for value in own.values() if value.is_floating_point()):
        raise ExportError("the checkpoint holds NaN or infinity; download it again")
    network.load_state_dict(own, strict=False)
    network.eval()
    return tuple(name for name in tensors if not name.startswith(prefix))


def _find_prefix(needed: Collection[str], tensors: Collection[str]) -> str:
    """The prefix under which most of the needed names are found; the shortest of equals."""
    given = set(tensors)
    marker = min(needed, key=lambda name: (-name.count("."), name))  # a deep name: the least ambiguous
    candidates = {""} | {name[: -len(marker)] for name in given if name.endswith(marker)}
    candidates = {prefix for prefix in candidates if not prefix or prefix.endswith((".", "_"))}
    hits = {prefix: sum(prefix + name in given for name in needed) for prefix in candidates}
    best = max(hits.values())
    found = sorted(
        (prefix for prefix, count in hits.items() if count == best), key=lambda each: (len(each), each)
    )
    if best == len(needed) and len(found) > 1:
        raise ExportError(
            f"the checkpoint holds {len(found)} such networks, under {', '.join(map(repr, found))}; choose with "
            "--prefix"
        )
    return found[0]


def _listed(what: str, names: Iterable[str]) -> list[str]:
    found = sorted(names)
    if not found:
        return []
    rest = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return [f"{what} {', '.join(name[:120] for name in found[:_NAMED])}{rest} ({len(found)} in all)"]


def settle(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Give random weights the manners of a trained network, so that speed and engines can be tried on them.

    Batch norms take their statistics from the images, and the last convolution is fitted to the labels by ridge
    regression: it then finds the phantom's tissues somehow, and knows nothing of patients.

    Args:
        network: Logits of ``(N, C, H, W)``; changed in place.
        images: ``(N, C, H, W)``.
        labels: ``(N, H, W)`` int64, classes.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001 - no public base
    for norm in norms:
        norm.momentum = 1.0  # the statistics of this batch alone
        norm.train()
    last = [module for module in network.modules() if isinstance(module, nn.Conv2d)][-1]
    taken: list[Tensor] = []
    with torch.no_grad():
        network(images)
        network.eval()
        for norm in norms:
            norm.running_var.clamp_(min=1e-3)  # type: ignore[union-attr]
        hook = last.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
        network(images)
        hook.remove()
        if last.kernel_size[0] % 2 and last.groups == 1 and last.stride == (1, 1):
            _fit(last, taken[-1], labels)
    for norm in norms:
        norm.momentum = 0.1


def _fit(layer: nn.Conv2d, inputs: Tensor, labels: Tensor) -> None:
    """Ridge regression of one-hot labels on the layer's inputs ``(N, C, h, w)``."""
    classes = layer.out_channels
    columns = F.unfold(inputs, layer.kernel_size, padding=layer.kernel_size[0] // 2)
    features = columns.movedim(1, 0).flatten(1).double()  # (C k k, N h w)
    features = torch.cat([features, torch.ones(1, features.shape[1], dtype=torch.float64)])
    hot = F.one_hot(labels, classes).movedim(-1, 1).float()  # (N, H, W) -> (N, K, H, W)
    target = (
        F.adaptive_avg_pool2d(hot, (inputs.shape[-2], inputs.shape[-1])).movedim(1, 0).flatten(1).double()
    )
    count = target.sum(1).clamp(min=1)
    weight = (1 / count.sqrt()) @ target  # rare tissues count as much as common ones
    weighted = features * weight
    gram = weighted @ features.T
    gram.diagonal().add_(_RIDGE * float(gram.diagonal().mean()))
    solved = torch.linalg.solve(gram, weighted @ target.T).T * _SHARPNESS  # (K, C k k + 1)
    layer.weight.copy_(solved[:, :-1].reshape(layer.weight.shape))
    if layer.bias is not None:
        layer.bias.copy_(solved[:, -1])
