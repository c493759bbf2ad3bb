"""What is to be built: in which precision, for which GPUs and shapes, within which bounds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bedside.backends.base import Tuning
from bedside.backends.tensorrt.library import Library
from bedside.contract import MAX_SIDE, Tiling
from bedside.errors import BackendError
from bedside.manifest import Manifest

__all__ = ["PRECISIONS", "TURING", "Profile", "Recipe", "list_profiles"]

PRECISIONS: Final = ("fp32", "fp16", "int8")
"""Precisions that can be built: networks are strongly typed, so that each needs a file that has it in its graph."""
TURING: Final = "7.5"
"""Compute capability for which TensorRT for RTX has neither int8 (its support matrix; seen in its layers) nor float32
matrix products."""
_LARGEST: Final = 2
"""Sides of a tile that are beyond the one that is tuned for reach up to so many times that, as a whole slice may
(`bedside.segmentation.network.MAX_WHOLE`)."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Shapes that an engine takes: ``(N, C, H, W)`` or ``(N, C, D, H, W)`` between two bounds."""

    smallest: tuple[int, ...]
    """The least of each side, and of the batch."""
    usual: tuple[int, ...]
    """What it is tuned for."""
    largest: tuple[int, ...]
    """The most of each."""

    @property
    def batches(self) -> tuple[int, int]:
        """Least and most pictures or tiles in one run."""
        return self.smallest[0], self.largest[0]

    def takes(self, sides: Iterable[int]) -> bool:
        """Whether pictures of these sides, without the batch, fit."""
        bounds = zip(self.smallest[1:], sides, self.largest[1:], strict=True)
        return all(low <= side <= high for low, side, high in bounds)

    def covers(self, other: Profile) -> bool:
        """Whether whatever the other takes fits."""
        lower = zip(self.smallest, other.smallest, strict=True)
        upper = zip(self.largest, other.largest, strict=True)
        return all(mine <= its for mine, its in lower) and all(mine >= its for mine, its in upper)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is to be built."""

    precision: str
    """One of `PRECISIONS`."""
    profiles: tuple[Profile, ...]
    """Shapes, the one that matters most first."""
    capabilities: tuple[str, ...] = ()
    """Compute capabilities of GPUs, e.g. ``8.6``; empty for the GPU that is here."""
    workspace_bytes: int | None = None
    """Most scratch memory of a layer; None leaves it to TensorRT."""
    dla: int | None = None
    """Core of the deep learning accelerator; what it can't run falls to the GPU."""
    version_compatible: bool = False
    """Whether later versions of TensorRT of the same major number may run it."""

    def check(self, library: Library) -> None:
        """Refuse what a package does not have.

        Raises:
            BackendError: ``engine-unsupported``.
        """
        if self.precision not in PRECISIONS:
            raise BackendError(
                "engine-unsupported",
                f"{library.backend} has no {self.precision}: its networks are strongly typed, and no file of a bundle "
                f"has that in its graph; ask for {', '.join(PRECISIONS)}",
            )
        if self.dla is not None:
            self._check_dla(library)
        if self.version_compatible and library.rtx:
            raise BackendError(
                "engine-unsupported",
                "tensorrt-rtx builds no version-compatible engines: it comes without NVIDIA's lean runtime; leave it "
                "out, or build with the backend tensorrt",
            )
        known = library.capabilities()
        if self.capabilities and not known:
            raise BackendError(
                "engine-unsupported",
                "tensorrt builds for the GPU that it runs on and for no other; build on the device, or with the "
                "backend tensorrt-rtx",
            )
        for capability in self.capabilities:
            if capability == TURING and self.precision == "int8":
                raise BackendError(
                    "engine-unsupported",
                    f"{library.backend} computes int8 networks in float32 on compute capability {TURING}; ask for fp16",
                )
            if capability not in known:
                raise BackendError(
                    "engine-unsupported",
                    f"{library.backend} {library.version} does not build for compute capability {capability[:20]!r}; "
                    f"it does for {', '.join(known)}",
                )

    def _check_dla(self, library: Library) -> None:
        if library.rtx:
            raise BackendError(
                "engine-unsupported",
                "tensorrt-rtx has no DLA; use the backend tensorrt on a Jetson, or leave the DLA out",
            )
        if self.precision == "fp32":
            raise BackendError("engine-unsupported", "the DLA computes in fp16 and int8; ask for one of them")


def list_profiles(manifest: Manifest, tuning: Tuning) -> tuple[Profile, ...]:
    """Shapes that an engine of a bundle is built for.

    Where the manifest leaves sides open, the first profile is for tiles of exactly one size, whose kernels know it,
    and the second for whatever else a scan may be cut into. A DLA knows one shape alone.

    Raises:
        BackendError: ``engine-unsupported`` if the tile is none that the network takes.
    """
    spec = manifest.input
    channels = spec.shape[1]
    if channels is None:
        raise BackendError("engine-unsupported", "the network's channels are open; TensorRT has to know them")
    most = tuning.batch if spec.shape[0] is None else 1
    usual = most if tuning.hint == "throughput" else 1
    sides = _tile(manifest, tuning.tile)
    if tuning.dla is not None:
        shape = (most, channels, *sides)
        return (Profile(shape, shape, shape),)
    exact = Profile((1, channels, *sides), (usual, channels, *sides), (most, channels, *sides))
    if None not in spec.shape[2:] or manifest.tiling is None:
        return (exact,)
    low, high = _reach(manifest.tiling, spec.shape[2:], sides)
    return exact, Profile((1, channels, *low), exact.usual, (most, channels, *high))


def _tile(manifest: Manifest, asked: tuple[int, ...] | None) -> tuple[int, ...]:
    open_sides = manifest.input.shape[2:]
    tiling = manifest.tiling
    default = tiling.size if tiling is not None else tuple(side or 0 for side in open_sides)
    tile = default if asked is None else asked
    multiple, least = (tiling.multiple, tiling.smallest) if tiling is not None else (1, 1)
    fits = len(tile) == len(open_sides) and all(
        side == fixed if fixed is not None else least <= side <= MAX_SIDE and side % multiple == 0
        for side, fixed in zip(tile, open_sides, strict=True)
    )
    if not fits:
        raise BackendError(
            "engine-unsupported",
            f"the network takes no tile of {_times(tile)}; give one like {_times(default)}"
            + (f", of multiples of {multiple} from {least} up" if multiple > 1 else ""),
        )
    return tile


def _reach(
    tiling: Tiling, fixed: tuple[int | None, ...], sides: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The least and the most of each side; along the body a tile is always as deep as it is."""
    least = math.ceil(tiling.smallest / tiling.multiple) * tiling.multiple
    low, high = list(sides), list(sides)
    for axis in (-2, -1):
        if fixed[axis] is None:
            low[axis] = min(least, sides[axis])
            high[axis] = min(_LARGEST * sides[axis], MAX_SIDE)
    return tuple(low), tuple(high)


def _times(sides: tuple[int, ...]) -> str:
    return " x ".join(map(str, sides))
