"""Ellipsoids and slabs, the rays that cross them, and painter's order as a sum of line integrals.

Everything is in patient coordinates: millimetres, LPS (+x to the patient's left, +y to the back, +z to the
head), as in DICOM PS3.3 C.7.6.2.1.1.

The one idea: a scene painted in order (a later body hides an earlier one) is also a signed sum of
intersections of convex bodies, ``value(p) = sum(weight[t] for t if p in every solid of t)``. A straight ray
meets an intersection of convex bodies in one interval, known in closed form, so line integrals through any
overlap of bodies are exact, and need neither sampling along the ray nor sorting.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf, pi
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Ellipsoid", "Rays", "Slab", "Solid", "Term", "are_apart", "compose"]

Array: TypeAlias = npt.NDArray[np.float64]
Vector: TypeAlias = tuple[float, float, float]
Box: TypeAlias = tuple[float, float, float, float]

_IDENTITY: tuple[Vector, Vector, Vector] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
_NEVER_ZERO = 1e-12


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """A solid ellipsoid."""

    centre: Vector
    """Patient coordinates, mm."""
    semi_axes: Vector
    """Half the length of each axis, mm."""
    rotation: tuple[Vector, Vector, Vector] = _IDENTITY
    """Rows of the rotation matrix; column ``i`` is the direction of axis ``i``."""

    def __post_init__(self) -> None:
        """Refuse axes that are not positive and matrices that are not rotations."""
        turn = np.array(self.rotation)
        if min(self.semi_axes) <= 0 or not np.allclose(turn @ turn.T, np.eye(3), atol=1e-9):
            raise ValueError("an ellipsoid needs positive semi-axes and an orthogonal rotation")

    @property
    def volume_ml(self) -> float:
        """4/3 pi abc, in millilitres."""
        a, b, c = self.semi_axes
        return 4 / 3 * pi * a * b * c / 1000

    @property
    def axes(self) -> Array:
        """``(3, 3)``; column ``i`` is semi-axis ``i`` as a vector in mm: maps the unit ball to this body."""
        return np.asarray(np.array(self.rotation) * np.array(self.semi_axes))

    @property
    def to_ball(self) -> Array:
        """``(3, 3)``, 1/mm; maps an offset from the centre to unit-ball coordinates."""
        return np.asarray((np.array(self.rotation) / np.array(self.semi_axes)).T)

    def reach_mm(self, normal: npt.ArrayLike) -> float:
        """How far the body reaches from its centre along the unit vector ``normal``, mm."""
        return float(np.linalg.norm(self.axes.T @ np.asarray(normal, dtype=np.float64)))

    def contains(self, points: Array) -> npt.NDArray[np.bool_]:
        """Whether each of ``points``, ``(..., 3)`` mm, lies inside."""
        ball = (points - np.array(self.centre)) @ self.to_ball.T
        return np.asarray((ball * ball).sum(axis=-1) <= 1)


@dataclass(frozen=True, slots=True)
class Slab:
    """The space between two parallel planes, ``low <= normal . p <= high``; a half-space if one is infinite."""

    normal: Vector
    """Unit normal."""
    low: float = -inf
    """Lower bound of ``normal . p``, mm."""
    high: float = inf
    """Upper bound of ``normal . p``, mm."""

    def __post_init__(self) -> None:
        """Refuse an empty slab and a normal that is not of unit length."""
        if not self.low < self.high or abs(np.linalg.norm(self.normal) - 1) > 1e-9:
            raise ValueError("a slab needs low < high and a unit normal")

    def contains(self, points: Array) -> npt.NDArray[np.bool_]:
        """Whether each of ``points``, ``(..., 3)`` mm, lies inside."""
        along = points @ np.array(self.normal)
        return np.asarray((along >= self.low) & (along <= self.high))


Solid: TypeAlias = Ellipsoid | Slab


@dataclass(frozen=True, slots=True)
class Term:
    """One summand of a painted scene."""

    solids: tuple[Solid, ...]
    """The convex body is their intersection; ellipsoids first, at least one."""
    weight: float
    """What each point of the body adds."""


@lru_cache(maxsize=32)
def compose(bodies: tuple[tuple[Solid, ...], ...], weights: tuple[float, ...]) -> tuple[Term, ...]:
    """Rewrite painter's order as a signed sum.

    Painting a body B of value w over a scene f gives ``f + (w - f) 1_B``: with f already a sum over
    intersections, each of its terms is taken back inside B, and w is added there. Pairs known to be nested
    or apart are simplified, so that a scene of nested and separate bodies stays as short as it was.

    Args:
        bodies: The solids of each body (their intersection), first painted first.
        weights: The value of each body; what is not painted is 0.

    Returns:
        Terms whose weights sum, at any point, to the value of the topmost body there.
    """
    distinct = {solid for body in bodies for solid in body}
    solids = tuple(sorted(distinct, key=lambda solid: (isinstance(solid, Slab), repr(solid))))
    number = {solid: index for index, solid in enumerate(solids)}
    inside, apart = _relate(solids)
    sums: dict[frozenset[int], float] = {}
    for body, weight in zip(bodies, weights, strict=True):
        own = frozenset(number[solid] for solid in body)
        untouched = frozenset().union(*(apart[i] for i in own))
        change: dict[frozenset[int], float] = {}
        for members, value in [*sums.items(), (own, -weight)]:
            if untouched.isdisjoint(members):
                common = _drop_containers(members | own, inside)
                change[common] = change.get(common, 0.0) - value
        for members, value in change.items():
            total = sums.get(members, 0.0) + value
            if total == 0:
                sums.pop(members, None)
            else:
                sums[members] = total
    return tuple(Term(tuple(solids[i] for i in sorted(m)), value) for m, value in sums.items())


def _drop_containers(members: frozenset[int], inside: Sequence[frozenset[int]]) -> frozenset[int]:
    """The same intersection without the members that contain another one."""
    return members - frozenset().union(*(inside[i] & members for i in members))


@lru_cache(maxsize=32)
def _relate(solids: tuple[Solid, ...]) -> tuple[tuple[frozenset[int], ...], tuple[frozenset[int], ...]]:
    """For each solid, the ones that surely contain it, and the ones it surely does not touch.

    Both are sufficient tests: a pair that is missed costs time, never correctness.
    """
    boxes = np.array([_bounds(solid) for solid in solids])  # (N, 2, 3)
    low, high = boxes[:, 0], boxes[:, 1]
    meets = np.asarray(((low[:, None] < high[None]) & (low[None] < high[:, None])).all(axis=2))
    nested = np.asarray(((low[:, None] >= low[None]) & (high[:, None] <= high[None])).all(axis=2))
    np.fill_diagonal(nested, val=False)
    inside: list[set[int]] = [set() for _ in solids]
    for i, j in np.argwhere(nested).tolist():
        if _is_inside(solids[i], solids[j]):
            inside[i].add(j)
    apart = [{int(j) for j in np.flatnonzero(~row)} for row in meets]
    for i, j in np.argwhere(np.triu(meets, 1)).tolist():
        if are_apart(solids[i], solids[j]):
            apart[i].add(j)
            apart[j].add(i)
    return tuple(map(frozenset, inside)), tuple(map(frozenset, apart))


def _span(solid: Ellipsoid, normal: Iterable[float]) -> tuple[float, float]:
    """Lowest and highest ``normal . p`` over the body."""
    direction = np.array(tuple(normal))
    middle, reach = float(direction @ solid.centre), solid.reach_mm(direction)
    return middle - reach, middle + reach


def _bounds(solid: Solid) -> Array:
    """Lower and upper corner of a box that holds the solid, ``(2, 3)`` mm."""
    if isinstance(solid, Slab):
        return np.array([[-inf] * 3, [inf] * 3])
    reach = np.linalg.norm(solid.axes, axis=1)
    return np.array([np.array(solid.centre) - reach, np.array(solid.centre) + reach])


def _is_inside(one: Solid, other: Solid) -> bool:
    if isinstance(one, Slab):
        return (
            isinstance(other, Slab)
            and one.normal == other.normal
            and one.low >= other.low
            and one.high <= other.high
        )
    if isinstance(other, Slab):
        low, high = _span(one, other.normal)
        return low >= other.low and high <= other.high
    # S-procedure (Boyd and Vandenberghe, Convex Optimization, appendix B.2): in the outer body's unit-ball
    # coordinates the inner is centre + M w, |w| <= 1, and lies inside if for some multiplier m above the
    # largest singular value squared: m + |centre|^2 + sum((M^T centre)_i^2 / (m - s_i^2)) <= 1.
    centre = other.to_ball @ (np.array(one.centre) - np.array(other.centre))
    _, singular, right = np.linalg.svd(other.to_ball @ one.axes)
    pull = (right @ ((other.to_ball @ one.axes).T @ centre)) ** 2
    least, most = float(singular[0] ** 2), 1 - float(centre @ centre)
    if least >= most:
        return False
    multiplier = np.linspace(least, most, 66)[1:-1]
    return bool(np.any(multiplier + (pull / (multiplier[:, None] - singular**2)).sum(axis=1) <= most))


def are_apart(one: Solid, other: Solid) -> bool:
    """Whether the two surely do not overlap; False also where this simple test can't tell."""
    if isinstance(one, Slab) and isinstance(other, Slab):
        return one.normal == other.normal and (one.high <= other.low or other.high <= one.low)
    if isinstance(one, Slab):
        return are_apart(other, one)
    if isinstance(other, Slab):
        low, high = _span(one, other.normal)
        return high <= other.low or low >= other.high
    between = np.array(other.centre) - np.array(one.centre)
    if not between.any():
        return False
    candidates = (between, one.to_ball.T @ one.to_ball @ between, other.to_ball.T @ other.to_ball @ between)
    for candidate in candidates:
        normal = candidate / np.linalg.norm(candidate)
        if normal @ between >= one.reach_mm(normal) + other.reach_mm(normal):
            return True
    return False


@dataclass(frozen=True, slots=True)
class Rays:
    """A grid of rays ``origin(u, v) + t direction(u, v)``, both linear in u and v.

    Either the origin or the direction is the same for all rays: a cone beam or a parallel one.
    """

    origin: tuple[Array, Array, Array]
    """Constant part, and what one step of u and of v adds, each ``(3,)`` mm."""
    direction: tuple[Array, Array, Array]
    """Constant part, and what one step of u and of v adds, each ``(3,)`` mm for each unit of t."""
    u: Array
    """Rising coordinates of the columns, ``(columns,)``."""
    v: Array
    """Rising coordinates of the rows, ``(rows,)``."""

    def length_mm(self, rows: slice, columns: slice) -> Array:
        """Length of one unit of t for each ray, broadcastable to ``(rows, columns)``, mm."""
        return np.sqrt(_dot(self.direction, self.direction, self.u[columns], self.v[rows]))

    def windows(self, terms: Iterable[Term]) -> list[tuple[Term, slice, slice]]:
        """The terms that some ray meets, each with rows and columns that hold every such ray."""
        camera = self._camera()
        found = []
        for term in terms:
            box = _term_shadow(camera, term)
            if box is not None:
                columns = slice(
                    int(np.searchsorted(self.u, box[0])), int(np.searchsorted(self.u, box[1], "right"))
                )
                rows = slice(
                    int(np.searchsorted(self.v, box[2])), int(np.searchsorted(self.v, box[3], "right"))
                )
                if rows.start < rows.stop and columns.start < columns.stop:
                    found.append((term, rows, columns))
        return found

    def _camera(self) -> Array:
        """``(3, 4)``; maps homogeneous patient coordinates to homogeneous (u, v)."""
        if self.origin[1].any() or self.origin[2].any():
            inverse = np.linalg.inv(np.stack([self.origin[1], self.origin[2], self.direction[0]], axis=1))
            camera = np.zeros((3, 4))
            camera[:2, :3] = inverse[:2]
            camera[:2, 3] = -inverse[:2] @ self.origin[0]
            camera[2, 3] = 1
            return camera
        inverse = np.linalg.inv(np.stack([self.direction[1], self.direction[2], self.direction[0]], axis=1))
        return np.concatenate([inverse, (-inverse @ self.origin[0])[:, None]], axis=1)

    def interval(self, term: Term, rows: slice, columns: slice) -> tuple[Array, Array]:
        """Where each ray enters and leaves the term, in units of t; equal where it misses.

        Returns:
            Two arrays ``(rows, columns)`` float64, owned.
        """
        u, v = self.u[columns], self.v[rows]
        enter: Array | None = None
        leave: Array | None = None
        for solid in term.solids:
            low, high = self._ball(solid, u, v) if isinstance(solid, Ellipsoid) else self._slab(solid, u, v)
            if enter is None or leave is None:
                enter, leave = low, high
            else:
                enter, leave = np.maximum(enter, low), np.minimum(leave, high)
        if enter is None or leave is None:
            raise ValueError("a term needs at least one solid")
        return enter, np.maximum(enter, leave)

    def _ball(self, solid: Ellipsoid, u: Array, v: Array) -> tuple[Array, Array]:
        to_ball = solid.to_ball
        start = (
            to_ball @ (self.origin[0] - np.array(solid.centre)),
            to_ball @ self.origin[1],
            to_ball @ self.origin[2],
        )
        step = (to_ball @ self.direction[0], to_ball @ self.direction[1], to_ball @ self.direction[2])
        square = _dot(step, step, u, v)
        middle = -_dot(start, step, u, v)
        root = middle * middle - square * (_dot(start, start, u, v) - 1)
        np.maximum(root, 0, out=root)
        np.sqrt(root, out=root)
        root = root / square
        middle = middle / square
        return middle - root, middle + root

    def _slab(self, solid: Slab, u: Array, v: Array) -> tuple[Array, Array]:
        normal = np.array(solid.normal)
        start, su, sv = (float(normal @ part) for part in self.origin)
        step, du, dv = (float(normal @ part) for part in self.direction)
        at = (start + su * u)[None, :] + (sv * v)[:, None]
        slope = (step + du * u)[None, :] + (dv * v)[:, None]
        slope = np.where(np.abs(slope) < _NEVER_ZERO, _NEVER_ZERO, slope)
        one, two = (solid.low - at) / slope, (solid.high - at) / slope
        return np.minimum(one, two), np.maximum(one, two)


def _term_shadow(camera: Array, term: Term) -> Box | None:
    """A box in (u, v) that holds the image of the term; None where it is empty."""
    boxes: list[Box] = []
    for ellipsoid in term.solids:
        if isinstance(ellipsoid, Slab):
            continue
        boxes.append(_shadow(camera, np.array(ellipsoid.centre), ellipsoid.axes))
        for slab in term.solids:
            if isinstance(slab, Slab):
                box = _cut_shadow(camera, ellipsoid, slab)
                if box is None:
                    return None
                boxes.append(box)
    left, right, top, bottom = zip(*boxes, strict=True)
    return max(left), min(right), max(top), min(bottom)


def _shadow(camera: Array, centre: Array, axes: Array) -> Box:
    """Bounding box in (u, v) of the image of ``centre + axes w, |w| <= 1``, from the dual conic of its outline."""
    spread = camera[:, :3] @ axes
    image = camera[:, :3] @ centre + camera[:, 3]
    dual = np.outer(image, image) - spread @ spread.T
    middle = dual[:2, 2] / dual[2, 2]
    half = np.sqrt(np.maximum(middle**2 - np.diag(dual)[:2] / dual[2, 2], 0))
    low, high = middle - half, middle + half
    return float(low[0]), float(high[0]), float(low[1]), float(high[1])


def _cut_shadow(camera: Array, ellipsoid: Ellipsoid, slab: Slab) -> Box | None:
    """Shadow of a cylinder that holds the slice of the ellipsoid, or None where there is none."""
    normal = ellipsoid.axes.T @ np.array(slab.normal)
    size = float(np.linalg.norm(normal))
    offset = float(np.dot(slab.normal, ellipsoid.centre))
    low, high = max(-1.0, (slab.low - offset) / size), min(1.0, (slab.high - offset) / size)
    if low >= high:
        return None
    nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    normal /= size
    disc = ellipsoid.axes @ (np.eye(3) - np.outer(normal, normal)) * np.sqrt(1 - nearest**2)
    ends = [
        _shadow(camera, np.array(ellipsoid.centre) + ellipsoid.axes @ normal * at, disc) for at in (low, high)
    ]
    left, right, top, bottom = zip(*ends, strict=True)
    return min(left), max(right), min(top), max(bottom)


def _dot(one: Sequence[Array], two: Sequence[Array], u: Array, v: Array) -> Array:
    """Dot product of two vectors that are linear in u and v, ``(v, u)`` or ``(1, 1)`` where it is constant."""
    constant, across = float(one[0] @ two[0]), float(one[1] @ two[2] + one[2] @ two[1])
    once_u, twice_u = float(one[0] @ two[1] + one[1] @ two[0]), float(one[1] @ two[1])
    once_v, twice_v = float(one[0] @ two[2] + one[2] @ two[0]), float(one[2] @ two[2])
    if not (across or once_u or twice_u or once_v or twice_v):
        return np.full((1, 1), constant)
    total = np.add.outer((once_v + twice_v * v) * v, constant + (once_u + twice_u * u) * u)
    if across:
        total += np.multiply.outer(across * v, u)
    return np.asarray(total)
