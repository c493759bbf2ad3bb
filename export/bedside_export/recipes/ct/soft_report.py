"""How honest the probabilities of a segmentation are, measured against several readers.

Reliability       probability against the share of readers, for each class; calibration errors
energy_distance   whether the network's readings vary as the readers' do
expected_volume   the volume that the probabilities promise, against the mean of the readers'
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = [
    "Reliability",
    "energy_distance",
    "expected_volume",
    "find_region",
    "sample_readings",
]

Shares = npt.NDArray[np.float32]
Classes = npt.NDArray[np.uint8]

BINS: Final = 15
"""As of Guo et al. 2017, "On Calibration of Modern Neural Networks", ICML."""
SAMPLES: Final = 16
"""Readings drawn of a network, as many as Kohl et al. 2018 show in their figures."""
_AROUND: Final = 2
"""Pixels around what any reader takes for lung that count, so that what is found outside of it does."""


def find_region(readings: Classes) -> npt.NDArray[np.bool_]:
    """Where probabilities are measured: what any reader counts to lung or opacity, and a little around.

    All else is sure to be background, and would drown every error.

    Args:
        readings: ``(Z, R, Y, X)`` classes, 0 the background.

    Returns:
        ``(Z, Y, X)``.
    """
    around = ndimage.generate_binary_structure(2, 1)[None]
    return np.asarray(ndimage.binary_dilation((readings > 0).any(1), around, iterations=_AROUND), np.bool_)


class Reliability:
    """Counts of voxels by probability.

    Args:
        classes: Names in the order of channels.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        shape = (len(self.classes) + 1, BINS)  # the last row is the most probable class, whichever it is
        self._voxels, self._promised, self._true = (np.zeros(shape) for _ in range(3))

    def add(self, shares: Shares, readers: Shares, region: npt.NDArray[np.bool_]) -> None:
        """Take in a scan.

        Args:
            shares: ``(Z, K, Y, X)`` the network's probabilities.
            readers: ``(Z, K, Y, X)`` share of the readers for each class.
            region: ``(Z, Y, X)`` which voxels count.
        """
        found, true = (np.moveaxis(each, 1, 0)[:, region] for each in (shares, readers))  # (K, n)
        top = found.argmax(0)
        places = np.arange(found.shape[1])
        rows = [*zip(found, true, strict=True), (found[top, places], true[top, places])]
        for place, (promised, share) in enumerate(rows):
            bins = np.minimum((promised * BINS).astype(np.intp), BINS - 1)
            self._voxels[place] += np.bincount(bins, minlength=BINS)
            self._promised[place] += np.bincount(bins, promised, BINS)
            self._true[place] += np.bincount(bins, share, BINS)

    def errors(self) -> dict[str, Any]:
        """Calibration errors and the curves behind them.

        ``ece`` is of the most probable class (Guo et al. 2017): mean over voxels of how far the probability is from
        the share of readers who agree, in bins of it. ``by_class`` is the same of each class's own probability, and
        ``classwise_ece`` its mean (Kull et al. 2019, "Beyond temperature scaling", NeurIPS).
        """
        gaps = np.abs(self._promised - self._true).sum(1) / np.maximum(self._voxels.sum(1), 1)
        return {
            "ece": float(gaps[-1]),
            "classwise_ece": float(gaps[:-1].mean()),
            "by_class": dict(zip(self.classes, map(float, gaps[:-1]), strict=True)),
            "reliability": {
                name: [
                    {"voxels": int(n), "promised": float(p / n), "share_of_readers": float(t / n)}
                    for n, p, t in zip(self._voxels[k], self._promised[k], self._true[k], strict=True)
                    if n
                ]
                for k, name in enumerate(self.classes)
            },
        }


def sample_readings(shares: Shares, count: int = SAMPLES) -> Classes:
    """Readings that a network stands for: from the most generous reader to the most sparing.

    At each voxel the class is the quantile of the probabilities at one level for the whole scan, the last class
    counting as the most: single voxels vary together, as a reader's edge does, and each has the network's
    probabilities.

    Args:
        shares: ``(Z, K, Y, X)``.
        count: How many; their levels are evenly spread.

    Returns:
        ``(Z, count, Y, X)`` classes.
    """
    at_least = np.cumsum(shares[:, ::-1], axis=1)[:, ::-1]  # probability of this class or a later one
    levels = (np.arange(count) + 0.5) / count
    drawn = [(at_least[:, 1:] > level).sum(1) for level in levels]
    return np.asarray(np.stack(drawn, 1), np.uint8)


def energy_distance(samples: Classes, readings: Classes, classes: Sequence[int]) -> float:
    """Squared generalised energy distance of two sets of readings, with 1 - IoU as their distance.

    2 E d(S, Y) - E d(S, S') - E d(Y, Y') (Kohl et al. 2018, "A Probabilistic U-Net for Segmentation of Ambiguous
    Images", NeurIPS, after Szekely and Rizzo 2013). The distance is the mean over the classes; of two empty masks it
    is 0.

    Args:
        samples: ``(Z, S, Y, X)`` of the network; one where it gives but one answer.
        readings: ``(Z, R, Y, X)`` of the readers.
        classes: Which count.
    """
    both = np.concatenate([samples, readings], axis=1)
    flat = np.moveaxis(both, 1, 0).reshape(both.shape[1], -1)
    distance = np.zeros((len(flat),) * 2)
    for k in classes:
        masks = (flat == k)[:, (flat == k).any(0)].astype(np.float32)
        common = masks @ masks.T
        sizes = np.diag(common)
        union = sizes[:, None] + sizes[None] - common
        distance += 1 - np.divide(common, union, out=np.ones_like(common), where=union > 0)
    distance /= max(len(classes), 1)
    n = samples.shape[1]
    return float(2 * distance[:n, n:].mean() - distance[:n, :n].mean() - distance[n:, n:].mean())


def expected_volume(shares: Shares, readings: Classes, classes: Sequence[int]) -> dict[str, float | None]:
    """Volumes of some classes together.

    Args:
        shares: ``(Z, K, Y, X)`` the network's probabilities.
        readings: ``(Z, R, Y, X)`` of the readers.
        classes: Which count.

    Returns:
        ``readers``, their mean in voxels; ``expected``, the sum of probabilities, and ``hard``, the voxels whose most
        probable class counts, each over the readers' mean; None where that is 0.
    """
    wanted = np.asarray(classes)
    mean = float(np.isin(readings, wanted).sum() / readings.shape[1])
    expected = float(shares[:, wanted].sum(dtype=np.float64))
    hard = float(np.isin(shares.argmax(1), wanted).sum())
    return {
        "readers": mean,
        "expected": expected / mean if mean else None,
        "hard": hard / mean if mean else None,
    }
