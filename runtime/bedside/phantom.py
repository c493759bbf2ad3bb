"""A phantom: bodies of known shape and HU, painted in order, seen by a CT or by an X-ray detector.

    Body, Phantom      what there is; `Phantom.hu` voxelises it, `Phantom.transmission` projects it
    Detector           where the X-ray picture is taken

Nothing here is anatomy (`bedside.chest` is), and nothing here is random. Patient coordinates in mm, LPS.
Not for clinical use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bedside.solids import Ellipsoid, Rays, Solid, Term, Vector, compose

__all__ = ["AIR_HU", "MU_WATER_PER_MM", "Body", "Detector", "Phantom"]

Select: TypeAlias = Callable[["Body"], bool]

AIR_HU = -1000
"""HU of air, and of all that no body covers: by the definition of the Hounsfield scale."""

MU_WATER_PER_MM = 0.01937
"""Linear attenuation of water at 70 keV, 1/mm: NIST tables (Hubbell and Seltzer, NISTIR 5632, water, liquid:
0.2059 cm2/g at 60 keV, 0.1837 cm2/g at 80 keV), interpolated log-log to 0.1937 cm2/g, at 1 g/cm3."""

_BAND_ROWS = 128
"""Detector rows worked on at once, so that the arrays of a term stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Body:
    """A convex piece of one material."""

    name: str
    """What it is, e.g. ``right lung``."""
    hu: int
    """Hounsfield units, the same throughout."""
    solids: tuple[Solid, ...]
    """The body is the intersection of these; at least one ellipsoid."""
    region: str = ""
    """The organ that it counts to, e.g. ``right lung`` for a vessel or an opacity in it; empty for none."""
    opacity: str = ""
    """``ground glass`` or ``consolidation``; empty for anything else."""

    def __post_init__(self) -> None:
        """Refuse an unbounded body and a HU below that of air."""
        if not any(isinstance(solid, Ellipsoid) for solid in self.solids) or self.hu < AIR_HU:
            raise ValueError(f"body {self.name!r} needs an ellipsoid and at least {AIR_HU} HU")


@dataclass(frozen=True, slots=True)
class Detector:
    """A flat detector in a coronal plane, behind the patient; the X-rays come from the front (AP)."""

    shape: tuple[int, int]
    """Rows (head to feet) and columns (patient's right to left)."""
    spacing_mm: float
    """Distance between pixel centres, mm."""
    centre: Vector
    """Centre of the detector, patient coordinates, mm."""
    distance_mm: float | None = None
    """Source to detector along the normal through the centre, mm; None for parallel rays."""

    def rays(self) -> Rays:
        """One ray through the centre of each pixel, from the source to the detector."""
        rows, columns = self.shape
        u = (np.arange(columns, dtype=np.float64) - (columns - 1) / 2) * self.spacing_mm
        v = (np.arange(rows, dtype=np.float64) - (rows - 1) / 2) * self.spacing_mm
        right, down, back = np.array([1.0, 0, 0]), np.array([0, 0, -1.0]), np.array([0, 1.0, 0])
        still = np.zeros(3)
        if self.distance_mm is None:
            return Rays((np.array(self.centre), right, down), (back, still, still), u, v)
        source = np.array(self.centre) - self.distance_mm * back
        return Rays((source, still, still), (self.distance_mm * back, right, down), u, v)


@dataclass(frozen=True, slots=True)
class Phantom:
    """Bodies in painter's order: where two overlap, the later one counts."""

    bodies: tuple[Body, ...]
    """First painted first. What none covers is air."""

    def top_at(self, points: npt.ArrayLike) -> npt.NDArray[np.intp]:
        """Which body counts at single points, straight from painter's order.

        Args:
            points: ``(..., 3)`` patient coordinates, mm.

        Returns:
            ``(...)`` index into `bodies`; -1 for air.
        """
        at = np.asarray(points, dtype=np.float64)
        top = np.full(at.shape[:-1], -1, dtype=np.intp)
        for index, body in enumerate(self.bodies):
            top[np.logical_and.reduce([solid.contains(at) for solid in body.solids])] = index
        return top

    def hu_at(self, points: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """HU at single points, ``(..., 3)`` patient coordinates in mm."""
        return np.array([*(body.hu for body in self.bodies), AIR_HU])[self.top_at(points)]

    def hu(
        self, shape: tuple[int, int, int], affine: npt.ArrayLike, *, supersampling: int = 2
    ) -> npt.NDArray[np.float32]:
        """Voxelise in HU, with partial volumes.

        Args:
            shape: Voxels, ``(Z, Y, X)``.
            affine: ``(4, 4)``; maps the index ``(z, y, x, 1)``, in the array's own order, of a voxel's centre
                to patient coordinates in mm.
            supersampling: Rays for each voxel along y and z each. Along x the share of a voxel that a body
                covers is exact.

        Returns:
            ``(Z, Y, X)`` float32 HU. `slabs` gives the same a few slices at a time.
        """
        volume = np.empty(shape, dtype=np.float32)
        start = 0
        for slab in self.slabs(shape, affine, supersampling=supersampling):
            volume[start : start + len(slab)] = slab
            start += len(slab)
        return volume

    def slabs(
        self, shape: tuple[int, int, int], affine: npt.ArrayLike, *, depth: int = 16, supersampling: int = 2
    ) -> Iterator[npt.NDArray[np.float32]]:
        """`hu`, ``depth`` slices at a time: memory does not grow with the number of slices.

        Yields:
            Arrays ``(depth, Y, X)`` float32 HU, in order of z; the last may be shorter.
        """
        terms = self._terms(lambda body: body.hu - AIR_HU)
        yield from (
            slab + np.float32(AIR_HU) for slab in _voxelise(terms, shape, affine, depth, supersampling)
        )

    def coverage(
        self, select: Select, shape: tuple[int, int, int], affine: npt.ArrayLike, *, supersampling: int = 2
    ) -> npt.NDArray[np.float32]:
        """Share of each voxel that the selected bodies cover and no later body hides.

        Returns:
            ``(Z, Y, X)`` float32 from 0 to 1; arguments as of `hu`.
        """
        terms = self._terms(lambda body: float(select(body)))
        found = np.concatenate(list(_voxelise(terms, shape, affine, 16, supersampling)))
        return np.clip(found, 0, 1, out=found)

    def volume_ml(self, select: Select, *, step_mm: float = 0.5) -> float:
        """Volume of what is visible of the selected bodies, in ml.

        Chords along the y axis are exact; they are summed over a grid of ``step_mm`` in x and z.
        """
        terms = self._terms(lambda body: float(select(body)))
        ellipsoids = [solid for term in terms for solid in term.solids if isinstance(solid, Ellipsoid)]
        if not ellipsoids:
            return 0.0
        middle = np.array([e.centre for e in ellipsoids])[:, [0, 2]]
        reach = np.array([[e.reach_mm((1, 0, 0)), e.reach_mm((0, 0, 1))] for e in ellipsoids])
        low, high = (middle - reach).min(axis=0), (middle + reach).max(axis=0)
        columns, rows = (int(n) for n in np.ceil((high - low) / step_mm))
        centre = (low + high) / 2
        detector = Detector((rows, columns), step_mm, (float(centre[0]), 0.0, float(centre[1])))
        return float(_integrate(terms, detector.rays()).sum()) * step_mm**2 / 1000

    def path_mm(self, detector: Detector, select: Select) -> npt.NDArray[np.float64]:
        """How far each ray runs through what is visible of the selected bodies: ``(rows, columns)`` mm."""
        return _integrate(self._terms(lambda body: float(select(body))), detector.rays())

    def water_mm(self, detector: Detector) -> npt.NDArray[np.float64]:
        """Water of the same attenuation along each ray: ``(rows, columns)`` mm. Exact for these bodies.

        By the definition of HU, attenuation is ``MU_WATER_PER_MM * (1 + HU / 1000)``.

        Raises:
            ValueError: A body reaches behind the detector.
        """
        ellipsoids = [s for body in self.bodies for s in body.solids if isinstance(s, Ellipsoid)]
        if any(e.centre[1] + e.reach_mm((0, 1, 0)) > detector.centre[1] for e in ellipsoids):
            raise ValueError("the detector must be behind every body: move its centre towards +y")
        return _integrate(self._terms(lambda body: body.hu - AIR_HU), detector.rays()) / 1000

    def transmission(self, detector: Detector) -> npt.NDArray[np.float64]:
        """Share of the photons that reach each pixel unscattered, by Beer and Lambert: ``(rows, columns)``."""
        return np.exp(-MU_WATER_PER_MM * self.water_mm(detector))

    def _terms(self, weight: Callable[[Body], float]) -> tuple[Term, ...]:
        return compose(
            tuple(body.solids for body in self.bodies), tuple(float(weight(b)) for b in self.bodies)
        )


def _integrate(terms: tuple[Term, ...], rays: Rays) -> npt.NDArray[np.float64]:
    """Sum of weight times chord over all terms, for each ray: ``(rows, columns)`` in weight x mm."""
    windows = rays.windows(terms)
    total = np.zeros((len(rays.v), len(rays.u)))
    for top in range(0, len(rays.v), _BAND_ROWS):
        for term, rows, columns in windows:
            band = slice(max(rows.start, top), min(rows.stop, top + _BAND_ROWS))
            if band.start < band.stop:
                enter, leave = rays.interval(term, band, columns)
                leave -= enter
                leave *= term.weight
                total[band, columns] += leave
        band = slice(top, top + _BAND_ROWS)
        total[band] *= rays.length_mm(band, slice(None))
    return np.maximum(total, 0, out=total)


def _voxelise(
    terms: tuple[Term, ...],
    shape: tuple[int, int, int],
    affine: npt.ArrayLike,
    depth: int,
    supersampling: int,
) -> Iterator[npt.NDArray[np.float32]]:
    """Mean over each voxel of the sum of the terms, ``depth`` slices at a time.

    One ray runs along x for each sub-row. A term covers an interval of it, whose two ends are written as
    differences between neighbouring voxels; one running sum along x then gives the covered shares.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    depth_all, height, width = shape
    if matrix.shape != (4, 4) or min(shape) < 1 or min(depth, supersampling) < 1:
        raise ValueError("voxelising needs a 4x4 affine, a positive shape, depth and supersampling")
    along_z, along_y, along_x, origin = (matrix[:3, i].copy() for i in range(4))
    still = np.zeros(3)
    sub = (np.arange(supersampling) + 0.5) / supersampling - 0.5
    u = (np.arange(height)[:, None] + sub).ravel()
    for start in range(0, depth_all, depth):
        slices = min(depth, depth_all - start)
        v = (np.arange(start, start + slices)[:, None] + sub).ravel()
        rays = Rays((origin, along_y, along_z), (along_x, still, still), u, v)
        places: list[npt.NDArray[np.int64]] = []
        shares: list[npt.NDArray[np.float64]] = []
        for term, rows, columns in rays.windows(terms):
            line = (np.arange(rows.start, rows.stop) // supersampling)[:, None] * height
            line = (line + np.arange(columns.start, columns.stop) // supersampling) * (width + 2)
            enter, leave = rays.interval(term, rows, columns)
            hit = leave > enter
            for end, sign in ((enter[hit], term.weight), (leave[hit], -term.weight)):
                place = np.clip(end + 0.5, 0, width)
                voxel = place.astype(np.int64)
                part = (place - voxel) * sign
                places += [line[hit] + voxel, line[hit] + voxel + 1]
                shares += [sign - part, part]
        steps = np.zeros(slices * height * (width + 2))
        if places:
            steps += np.bincount(np.concatenate(places), np.concatenate(shares), minlength=len(steps))
        steps /= supersampling**2
        yield np.cumsum(steps.reshape(slices, height, width + 2), axis=2)[:, :, :width].astype(np.float32)
