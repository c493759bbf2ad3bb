"""The parts of a bundle's manifest, and the words that it may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from bedside.errors import BundleError

__all__ = [
    "APPEARANCES",
    "CONFUSION_ROUNDING",
    "CROPS",
    "CT_LIMITS",
    "MANIFEST",
    "MAX_CONTEXT_MM",
    "MAX_SIDE",
    "MAX_TISSUES",
    "MEANINGS",
    "PRECISIONS",
    "RUNS",
    "SCHEMA",
    "SIDES",
    "SKIPS",
    "TASKS",
    "TILE_WEIGHTS",
    "VIEWS",
    "WIDENING_NOTES",
    "Golden",
    "Input",
    "Interval",
    "Licence",
    "Output",
    "Repeatability",
    "Score",
    "Stored",
    "Tiling",
    "Tissue",
    "VolumeInterval",
    "Widening",
]

SCHEMA: Final = "bedside.bundle/1"
"""The one schema that this runtime reads."""
MANIFEST: Final = "bundle.json"
"""Name of the manifest inside a bundle."""
TASKS: Final = ("cxr-severity", "ct-opacity")
"""What a bundle may be for."""
PRECISIONS: Final = ("fp32", "fp16", "int8")
"""Precisions that a bundle can hold as files."""
RUNS: Final[Mapping[str, str]] = MappingProxyType(
    {"fp32": "fp32", "bf16": "fp32", "fp16": "fp16", "int8": "int8", "int8-bf16": "int8", "int8-fp16": "int8"}
)
"""Every precision that can be asked for -> the precision of the file that it runs, and of the tolerance that holds for
it if it has none of its own. ``bf16`` is a way to run the fp32 file; ``int8-bf16`` and ``int8-fp16`` say in what the
part of an int8 network that is not quantised runs, which is float32 in ``int8``."""
MEANINGS: Final = ("severity", "pathologies", "activation-map", "lungs", "appearance", "tissues")
"""What an output may be."""
APPEARANCES: Final = ("frontal", "turned-left", "turned-right", "upside-down", "inverted", "partial", "other")
"""What a picture may look like: a whole, upright frontal chest X-ray; one turned a quarter anticlockwise or clockwise;
one with the feet up; one with black and white exchanged; a part of one; anything else."""
CROPS: Final = ("centre-square", "pad-square")
"""How the network's square is taken of a picture."""
TILE_WEIGHTS: Final = ("gaussian", "flat")
"""How overlapping tiles are weighted."""
SKIPS: Final = ("constant", "body")
"""Which tiles may be left out: those of one value after clipping, or also those without a voxel of the body."""
WIDENING_NOTES: Final = (
    "dark-image",
    "low-resolution",
    "clipped-white",
    "clipped-black",
    "inverted-looking",
    "frontal-doubtful",
    "lungs-not-found",
    "paediatric",
)
"""Codes of the notes (`Finding.code`) on pictures that an interval may be too narrow for."""
VIEWS: Final = ("PA", "AP", "AP SUPINE")
"""Projections that an interval is measured on; of ``AP`` the patient may sit or lie."""
SIDES: Final = ("", "left", "right")
"""Of which lung a tissue is; empty where it is not told."""
CT_LIMITS: Final = ("dice_loss", "volume_percent")
"""Tolerances of a ``ct-opacity`` bundle: 1 - Dice of each tissue, and the opacified volume in percent of it."""
MAX_SIDE: Final = 4096
"""Largest side of a network's input, in pixels: no network here comes near, and a wrong one must not eat all memory."""
MAX_CONTEXT_MM: Final = 50.0
"""Greatest distance of a neighbouring slice that goes in with one: beyond it, it shows another part of the lung."""
MAX_TISSUES: Final = 255
"""Most classes: labels are 8-bit, and 255 says that a slice was not read."""
CONFUSION_ROUNDING: Final = 1e-3
"""How far a row of the confusion may be from 1, for the digits that it was written with."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One file of the bundle."""

    bytes: int
    """Its exact size."""
    sha256: str
    """Its SHA-256, 64 lower-case hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Licence:
    """Under what terms the weights may be used."""

    spdx: str
    """SPDX expression, e.g. ``CC-BY-NC-SA-4.0``."""
    file: str
    """The licence text's file in the bundle."""
    commercial_use: bool
    """False where a licence of the training data forbids it."""
    notice: str
    """One line on where the terms come from."""


@dataclass(frozen=True, slots=True)
class Input:
    """What the network takes, and how a picture or a slice becomes that."""

    name: str
    """Name of the graph's input."""
    shape: tuple[int | None, ...]
    """``(N, C, H, W)``, or ``(N, C, D, H, W)`` for a network of volumes; None where dynamic."""
    low: float
    """Value that black (display value 0, or the lower end of `hu_window`) is mapped to."""
    high: float
    """Value that white (display value 1, or the upper end of `hu_window`) is mapped to."""
    crop: str = ""
    """X-ray: ``centre-square``, the largest square in the middle; ``pad-square``, the smallest square around."""
    outside: float = 0.0
    """Value, on the scale of `low` and `high`, of what lies outside the picture: of padding, and of the
    border that anti-aliasing reaches over."""
    hu_window: tuple[float, float] | None = None
    """CT: HU are clipped to this before they are mapped to `low` and `high`."""
    spacing_mm: tuple[float, float] | None = None
    """CT: distance between rows and between columns that the network was trained at, mm; None where it takes a
    scan's own. Along the body a network of volumes always takes the scan's own."""

    @property
    def size(self) -> tuple[int, int]:
        """``(H, W)`` where the manifest fixes them, as it does for X-rays."""
        height, width = self.shape[-2:]
        if height is None or width is None:
            raise BundleError("bundle-broken", f"{MANIFEST}: input.shape has no fixed height and width")
        return height, width


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a scan is cut for the network."""

    size: tuple[int, ...]
    """The tile that export tried: ``(H, W)`` or ``(D, H, W)``, voxels of the network's spacing."""
    overlap: float
    """Least share of a tile that neighbours have in common, 0 to 0.9."""
    weights: str
    """One of `TILE_WEIGHTS`."""
    multiple: int = 1
    """Sides of a tile are multiples of this, where `Input.shape` leaves them open."""
    smallest: int = 1
    """Least side that the network answers rightly at, where `Input.shape` leaves it open."""
    context: int = 0
    """Neighbouring slices to each side that go in as channels (2.5-D): ``C = 2 * context + 1``."""
    context_mm: float = 0.0
    """Distance from a slice to the nearest of its context, mm: of the slices there are, the ones closest to it go in,
    and where those are off by more than half of it, the slice itself in their place. 0: the next slices, however far
    they are, so that the answer follows the scan's spacing."""
    skip: str = "constant"
    """One of `SKIPS`; the cost of ``body`` stands in the parity report."""


@dataclass(frozen=True, slots=True)
class Tissue:
    """One class of a segmentation; its place in the list is its channel and its label."""

    name: str
    """For people, e.g. ``ground glass``."""
    opacity: bool = False
    """Counts to the opacified volume."""
    lung: bool = False
    """Counts to the lung; an opacity always does."""
    side: str = ""
    """One of `SIDES`: the patient's."""


@dataclass(frozen=True, slots=True)
class VolumeInterval:
    """How far the true opacified volume may lie from the answer, as it was measured."""

    level: float
    """Share of truths inside, e.g. 0.8."""
    low: float
    """Lower end, as a factor of the hard volume; at most 1."""
    high: float
    """Upper end, as a factor of the hard volume; at least 1."""
    method: str
    """What error it was taken from, in one line."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output of the graph."""

    name: str
    """Name of the graph's output."""
    meaning: str
    """One of `MEANINGS`."""
    labels: tuple[str, ...] = ()
    """What each channel is; for ``severity`` and ``activation-map``, names of scores; for ``tissues`` (probabilities
    that sum to 1 over the channels), those of `Manifest.tissues`."""
    trained: tuple[bool, ...] = ()
    """For ``pathologies``: which labels the network was trained on; the others are never reported."""


@dataclass(frozen=True, slots=True)
class Widening:
    """How much farther the truth lies from the score on one kind of picture, as it was measured."""

    factor: float
    """What both ends' distances from the score are multiplied by; at least 1."""
    pictures: int
    """How many pictures of that kind it was measured on."""


@dataclass(frozen=True, slots=True)
class Interval:
    """How far the truth may lie from a score, as it was measured."""

    level: float
    """Share of truths inside, e.g. 0.8."""
    below: float
    """Distance from the score down to the lower end, at least 0, in score units."""
    above: float
    """Distance from the score up to the upper end, at least 0, in score units."""
    method: str
    """What error it was taken from, in one line."""
    wider: dict[str, Widening] = field(default_factory=dict)
    """Note (one of `WIDENING_NOTES`) -> how much wider it is on pictures with it. A note that was measured on too few
    pictures to say is not in it."""
    views: dict[str, Widening] = field(default_factory=dict)
    """Projection (one of `VIEWS`; PA and AP at least, or none at all) -> the same. A picture of unknown projection
    has the widest of them."""


@dataclass(frozen=True, slots=True)
class Repeatability:
    """How far a score moves where nothing has changed in the patient, as it was measured."""

    sd: float
    """Standard deviation of repeated measurements of one patient (the standard error of measurement), score units."""
    smallest_change: float
    """Smallest detectable change: two measurements differ by more only by a change in the patient, at `level`."""
    level: float
    """Share of pairs of such measurements that differ by no more than `smallest_change`, e.g. 0.95."""
    method: str
    """What was repeated, in one line."""


@dataclass(frozen=True, slots=True)
class Score:
    """A clinical score that the bundle gives."""

    name: str
    """``extent`` or ``opacity``."""
    title: str
    """For people, e.g. ``geographic extent``."""
    low: float
    """Lower bound of its scale."""
    high: float
    """Upper bound of its scale."""
    head: str
    """What turns features into this score, and where it comes from."""
    interval: Interval
    """Its uncertainty."""
    further: tuple[Interval, ...] = ()
    """The same at other levels, e.g. 0.9, in rising order."""
    repeatability: Repeatability | None = None
    """How well it repeats itself on other pictures of an unchanged patient; None where that was never measured."""
    observers: Repeatability | None = None
    """How well two people repeat each other on one picture, on this scale; None where that was never measured."""


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs with the outputs that the fp32 reference gave, to try an engine on."""

    inputs: str
    """``.npy`` file, ``(N, C, H, W)`` float32: network inputs."""
    outputs: str
    """``.npz`` file, from the PyTorch network: output name -> array; for CT ``labels`` ``(N, H, W)`` uint8 and
    ``expected`` ``(N, K)`` float64, the sums of each tissue's probability."""
    source: str
    """What the pictures are."""
