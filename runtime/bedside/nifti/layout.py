"""The order of the axes in a file, and the canonical order of `bedside.scan`: permuted and flipped, not resampled."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import numpy.typing as npt

from bedside.scan import Grid

__all__ = ["Layout", "find_layout"]


@dataclass(frozen=True, slots=True)
class Layout:
    """How canonical axes ``(z, y, x)`` lie in an array of a file, whose axes ``(k, j, i)`` go from slow to fast."""

    axes: tuple[int, int, int] = (0, 1, 2)
    """For z, y and x: which of the file's axes it is; 0 is the slowest, k."""
    flips: tuple[bool, bool, bool] = (False, False, False)
    """For z, y and x: whether the file counts it the other way."""

    def __post_init__(self) -> None:
        """Refuse what is no order of three axes."""
        if sorted(self.axes) != [0, 1, 2] or len(self.flips) != 3:
            raise ValueError(f"improper layout {self.axes}, {self.flips}")

    @property
    def by_slices(self) -> bool:
        """Whether a canonical slice lies in one piece in the file."""
        return self.axes[0] == 0

    def canonical_grid(self, shape: tuple[int, int, int], affine: npt.NDArray[np.float64]) -> Grid:
        """The canonical grid of a file's array.

        Args:
            shape: Of the file's array, ``(K, J, I)``.
            affine: ``(4, 4)``, index ``(k, j, i, 1)`` -> patient coordinates LPS, mm.
        """
        lengths = (shape[self.axes[0]], shape[self.axes[1]], shape[self.axes[2]])
        return Grid(lengths, affine @ self._matrix(lengths))

    def stored_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Shape of the file's array, ``(K, J, I)``, for a canonical one ``(Z, Y, X)``."""
        k, j, i = (shape[self.axes.index(axis)] for axis in range(3))
        return k, j, i

    def stored_affine(self, grid: Grid) -> npt.NDArray[np.float64]:
        """``(4, 4)``: index ``(k, j, i, 1)`` of the file's array -> patient coordinates LPS, mm."""
        return np.asarray(grid.affine @ np.linalg.inv(self._matrix(grid.shape)))

    def stored_index(self, index: int, slices: int) -> int:
        """Which of the file's slices is the canonical ``index``, of ``slices``; and the other way round."""
        return slices - 1 - index if self.flips[0] else index

    def to_canonical(self, plane: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """A view of one slice or several in the order ``(..., Y, X)``, of one as the file has its two axes.

        The file's two axes are those that z is not, the slower first.
        """
        _, y, x = self.axes
        turned = plane if y < x else plane.swapaxes(-1, -2)
        return turned[..., :: -1 if self.flips[1] else 1, :: -1 if self.flips[2] else 1]

    def to_stored(self, plane: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """The inverse of `to_canonical`, a view too."""
        _, y, x = self.axes
        flipped = plane[..., :: -1 if self.flips[1] else 1, :: -1 if self.flips[2] else 1]
        return flipped if y < x else flipped.swapaxes(-1, -2)

    def _matrix(self, shape: tuple[int, int, int]) -> npt.NDArray[np.float64]:
        """``(4, 4)``: canonical index ``(z, y, x, 1)``, of a grid of ``shape``, -> the file's ``(k, j, i, 1)``."""
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1
        for canonical, (axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            matrix[axis, canonical] = -1 if flip else 1
            matrix[axis, 3] = shape[canonical] - 1 if flip else 0
        return matrix


def find_layout(affine: npt.NDArray[np.float64]) -> Layout:
    """The layout whose axes follow the body best: the largest sum of cosines between axes and body.

    Args:
        affine: ``(4, 4)``, index ``(k, j, i, 1)`` -> patient coordinates LPS, mm; not singular.
    """
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    body = (2, 1, 0)  # z, y and x are rows 2, 1 and 0 of the affine
    axes = max(
        permutations(range(3)),
        key=lambda order: sum(abs(directions[row, axis]) for row, axis in zip(body, order, strict=True)),
    )
    z, y, x = axes
    return Layout(
        (z, y, x), (bool(directions[2, z] < 0), bool(directions[1, y] < 0), bool(directions[0, x] < 0))
    )
