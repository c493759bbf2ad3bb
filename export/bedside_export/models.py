"""torchxrayvision's DenseNet, and the severity network made of it.

    load_classifier("densenet121-res224-all")   by name: torchxrayvision downloads the file
    load_classifier("weights.pt")               a local file, read by `bedside_export.weights`
    load_classifier("random:0")                 seeded random weights, for tests and benchmarks
    SeverityDenseNet(classifier, head)          (N, 1, S, S) -> severity, cam, pathologies

What an output was trained on is carried as a mask: torchxrayvision answers 0.5 where it was not.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final, cast

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

from bedside.errors import MissingExtraError
from bedside_export.errors import ExportError
from bedside_export.heads import Head
from bedside_export.weights import read_weights

__all__ = ["ALL", "Classifier", "PathologyDenseNet", "SeverityDenseNet", "load_classifier"]

ALL: Final = "densenet121-res224-all"
"""The weights that the published head belongs to."""
_RANDOM: Final = re.compile(r"random:(\d{1,9})")
_LOGIT_SPREAD: Final = 1.5
"""Standard deviation that random weights give their logits over noise pictures."""


@dataclass(frozen=True, slots=True)
class Classifier:
    """A network that turns a picture into pooled features, and these into logits of pathologies."""

    features: nn.Module
    """``(N, 1, S, S)`` in -1024 to 1024 -> ``(N, C, h, w)``, before the last ReLU."""
    logits: nn.Linear
    """``(N, C)`` pooled features -> ``(N, labels)``."""
    labels: tuple[str, ...]
    """What each logit is; an output that was never trained has a label all the same."""
    thresholds: tuple[float, ...]
    """Operating point of each output as a probability; NaN where the output was never trained."""
    input_size: int
    """S, pixels."""
    weights: str
    """What the weights are, for people: torchxrayvision's name, ``random:SEED``, or ``a local file``."""
    kind: str
    """torchxrayvision's name of the weights whose labels and thresholds these are."""

    @property
    def trained(self) -> tuple[bool, ...]:
        """Which outputs were trained."""
        return tuple(not math.isnan(threshold) for threshold in self.thresholds)

    @property
    def random(self) -> bool:
        """True for seeded random weights, which know nothing of X-rays."""
        return self.weights.startswith("random:")


class PathologyDenseNet(nn.Module):
    """Features and pathologies, without a severity.

    Args:
        classifier: Features and logits.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.features = classifier.features
        self.logits = classifier.logits
        known = torch.tensor(classifier.trained)
        self.register_buffer("known", known)
        self.register_buffer(
            "thresholds", torch.tensor(classifier.thresholds).where(known, torch.tensor(0.5))
        )

    def probabilities(self, pooled: Tensor) -> Tensor:
        """As torchxrayvision gives them: the sigmoid, its operating point moved to 0.5; 0.5 for those never trained.

        Args:
            pooled: ``(N, C)``.

        Returns:
            ``(N, labels)``.
        """
        point = cast("Tensor", self.thresholds)
        raw = torch.sigmoid(self.logits(pooled))
        below, above = raw / (2 * point), 1 - (1 - raw) / (2 * (1 - point))
        half = torch.full_like(raw, 0.5)
        return torch.where(cast("Tensor", self.known), torch.where(raw < point, below, above), half)


class SeverityDenseNet(PathologyDenseNet):
    """Severity, its class-activation map, and pathologies, in one graph.

    Severity is linear in the spatially averaged features, so the same linear map before the averaging is the
    exact activation map: its spatial mean plus the head's constant is the severity.

    Args:
        classifier: Features and logits.
        head: What makes scores of them; folded into one linear map of the features.
    """

    def __init__(self, classifier: Classifier, head: Head) -> None:
        super().__init__(classifier)
        self.severity = head.fold(classifier.logits, classifier.labels)
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Severity ``(N, 2)``, cam ``(N, 2, h, w)``, pathologies ``(N, labels)`` of ``(N, 1, S, S)``.

        Severity is in score units, unclipped.
        """
        features = F.relu(self.features(image))
        pooled = features.mean((2, 3))
        cam = F.conv2d(features, self.severity.weight[:, :, None, None])
        return self.severity(pooled), cam, self.probabilities(pooled)


def load_classifier(weights: str, *, kind: str | None = None, cache: Path | None = None) -> Classifier:
    """Load torchxrayvision's DenseNet-121.

    Args:
        weights: torchxrayvision's name of weights (downloaded unless cached), ``random:SEED``, or a file.
        kind: For a file or random weights: torchxrayvision's name of the weights that it holds, which gives
            labels, trained mask and thresholds. A file that carries torchxrayvision's own name needs none;
            random weights pose as `ALL`.
        cache: Folder for downloads; None for torchxrayvision's own.

    Raises:
        ExportError: Unknown name, no such file, a file that is not a DenseNet-121, or no network.
        MissingExtraError: torchxrayvision is not installed.
    """
    library = _import_library()
    known = {
        name: spec for name, spec in library.models.model_urls.items() if name.startswith("densenet121-")
    }
    if kind is not None and kind not in known:
        raise ExportError(f"torchxrayvision has no DenseNet weights {kind!r}; it has: {', '.join(known)}")
    random = _RANDOM.fullmatch(weights)
    if weights in known:
        if kind not in (None, weights):
            raise ExportError(f"the weights {weights!r} can't pose as {kind!r}; leave that option out")
        kind, source, path = weights, weights, _download(library, weights, cache)
    elif random:
        kind, source, path = kind or ALL, weights, None
    else:
        path = Path(weights)
        if not path.is_file():
            raise ExportError(
                f"no weights: neither a file, nor random:SEED, nor one of torchxrayvision's: {', '.join(known)}"
            )
        kind = kind or _kind_by_file_name(path, known)
        source = f"a local file of {kind}"
    labels = tuple(library.models.DenseNet.targets)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(int(random[1]) if random else 0)
        network = library.models.DenseNet(num_classes=len(labels))
        if path is None:
            _settle(network)
        else:
            _fill(network, read_weights(path))
    network.eval().requires_grad_(False)
    _pool_before_mixing(network.features)
    return Classifier(
        features=network.features,
        logits=network.classifier,
        labels=labels,
        thresholds=tuple(float(value) for value in known[kind]["op_threshs"]),
        input_size=int(known[kind]["input_resolution"]),
        weights=source,
        kind=kind,
    )


def _import_library() -> ModuleType:
    """torchxrayvision, kept from changing the process' warning filters and from printing."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            import torchxrayvision  # noqa: PLC0415 - takes seconds, and only this needs it
    except ModuleNotFoundError as error:
        raise MissingExtraError.of("torchxrayvision", "export", "a torchxrayvision network") from error
    return cast("ModuleType", torchxrayvision)


def _download(library: ModuleType, name: str, cache: Path | None) -> Path:
    """Path of torchxrayvision's file, downloaded by its own code unless it is there."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return Path(library.models.get_weights(name, None if cache is None else str(cache)))
    except OSError as error:  # requests' exceptions are OSErrors too
        url = library.models.model_urls[name]["weights_url"]
        raise ExportError(
            f"the weights {name!r} can't be downloaded ({type(error).__name__}); fetch {url} on a machine with "
            "network and give the file to --weights"
        ) from error


def _kind_by_file_name(path: Path, known: dict[str, dict[str, str]]) -> str:
    for name, spec in known.items():
        if spec["weights_url"].rpartition("/")[2] == path.name:
            return name
    raise ExportError(
        "the weights file doesn't tell which outputs were trained; say which of torchxrayvision's weights it is "
        f"with --weights-kind, one of: {', '.join(known)}"
    )


def _fill(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load a checkpoint's tensors, all of them and no others."""
    wanted = network.state_dict()
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}
    given = {name: value for name, value in tensors.items() if name != "op_threshs"}
    problem = next(
        (f"it lacks {name!r}" for name in wanted if name not in given and name not in counters),
        next((f"it holds {name[:80]!r}" for name in given if name not in wanted), None),
    ) or next(
        (
            f"{name!r} has shape {tuple(given[name].shape)}, not {tuple(value.shape)}"
            for name, value in wanted.items()
            if name in given and given[name].shape != value.shape
        ),
        None,
    )
    if problem:
        raise ExportError(
            f"the weights are not those of torchxrayvision's DenseNet-121 ({problem}); give another file"
        )
    if not all(bool(torch.isfinite(value).all()) for value in given.values() if value.is_floating_point()):
        raise ExportError("the weights hold NaN or infinity; download the file again")
    network.load_state_dict(given, strict=False)


def _pool_before_mixing(features: nn.Module) -> None:
    """Average before the 1x1 convolution of each transition, on a quarter of the pixels, instead of after it.

    Both are linear, one over pixels and one over channels, so they commute: the same numbers but for rounding, with
    a twelfth of the network's multiplications less.
    """
    for name, transition in features.named_children():
        if name.startswith("transition"):
            parts = ((part, transition.get_submodule(part)) for part in ("norm", "relu", "pool", "conv"))
            setattr(features, name, nn.Sequential(OrderedDict(parts)))


def _settle(network: nn.Module) -> None:
    """Give random weights the manners of a trained network, on seeded noise pictures of several exposures.

    Batch norms divide by the root mean square of what they get, and the last layer is scaled so that logits vary
    by `_LOGIT_SPREAD` around 0: untouched, activations grow from block to block and scores leave their scale.
    """
    count, size = 6, 96
    clouds = [F.interpolate(torch.rand(count, 1, n, n), size=(size, size), mode="bilinear") for n in (5, 24)]
    noise = clouds[0] * 0.6 + clouds[1] * 0.3 + torch.rand(count, 1, size, size) * 0.1
    gamma = torch.linspace(0.4, 3, count).reshape(-1, 1, 1, 1)
    pictures = (noise**gamma * 2 - 1) * 1024

    def adapt(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        norm.running_var = inputs[0].square().mean((0, 2, 3)) + 1e-3

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    classifier = cast("nn.Linear", network.classifier)
    network.eval()
    with torch.no_grad():
        hooks = [norm.register_forward_pre_hook(adapt) for norm in norms]
        spread = network(pictures).std(0)
        for hook in hooks:
            hook.remove()
        classifier.weight.mul_((_LOGIT_SPREAD / spread.clamp(min=1e-6))[:, None])
        classifier.bias.sub_(network(pictures).mean(0))
