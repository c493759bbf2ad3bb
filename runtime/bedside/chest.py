"""A chest made of ellipsoids, healthy or with pulmonary opacities of known volume.

    chest_phantom("severe").phantom      the bodies, for `bedside.phantom.Phantom.hu` or for a projection
    chest_phantom("severe").truth        what there is to find: ml and shares for each lung, and the scores

The proportions are those of an adult and the HU are textbook values (lung -870, ground glass about -550,
consolidation about +30, muscle 50, fat -90, bone 250 to 600). It is a drawing for tests and demonstrations:
no patient, and no model of any patient. Not for clinical use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import cos, pi, radians, sin, sqrt
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from bedside.phantom import AIR_HU, Body, Detector, Phantom
from bedside.solids import Ellipsoid, Slab, Solid, Vector, are_apart

__all__ = ["CASES", "LUNGS", "Chest", "LungTruth", "Opacity", "chest_phantom", "measure_truth", "select"]

Array: TypeAlias = npt.NDArray[np.float64]
Side: TypeAlias = Literal["right lung", "left lung"]
Kind: TypeAlias = Literal["ground glass", "consolidation"]

LUNGS: Final[tuple[Side, Side]] = ("right lung", "left lung")

_SOFT, _MUSCLE, _FAT, _LUNG, _RIB = 40, 50, -90, -870, 800
_TOUCH_MM = 1e-3
"""A chord is there from this length on: sums of chords that cancel leave rounding, 1e-10 mm at most."""
_HAZE: Final[Mapping[Kind, tuple[tuple[float, int], ...]]] = MappingProxyType(
    {
        "ground glass": ((1.0, -780), (0.88, -700), (0.7, -630)),
        "consolidation": ((1.0, -740), (0.88, -600), (0.74, -450)),
    }
)
"""Concentric layers of ground glass, outermost first: share of the semi-axes, HU."""
_PATCH: Final[Mapping[Kind, tuple[tuple[float, int], ...]]] = MappingProxyType(
    {"ground glass": ((1.0, -560), (0.7, -510)), "consolidation": ((1.0, -200), (0.75, 10))}
)
"""The same of the denser patches in it."""


@dataclass(frozen=True, slots=True)
class Opacity:
    """One ellipsoid of diseased lung, wholly inside aerated lung: ground glass with denser patches in it."""

    lung: Side
    """The lung that holds it."""
    kind: Kind
    """Of the patches; what lies between them is ground glass."""
    centre: Vector
    """Patient coordinates, mm."""
    semi_axes: Vector
    """Half the length of each axis (x, y, z), mm."""

    @property
    def outline(self) -> Ellipsoid:
        """All of it; its volume is 4/3 pi abc."""
        return Ellipsoid(self.centre, self.semi_axes)

    @property
    def consolidation_ml(self) -> float:
        """The consolidated patches; 0 for ground glass."""
        return sum(patch.volume_ml for patch in self.patches()) if self.kind == "consolidation" else 0.0

    def patches(self) -> list[Ellipsoid]:
        """The denser patches: inside the outline, apart from each other, and always the same ones.

        In the coordinates in which the outline is the unit ball, patches are balls. Places follow the R3
        low-discrepancy sequence (Roberts 2018); each gets the largest ball that fits, up to 0.3 and down to
        0.16, below which it is left out.
        """
        steps = 1 / 1.2207440846057596 ** np.arange(1, 4)
        points = 2 * ((0.5 + np.arange(1, 200)[:, None] * steps) % 1) - 1
        room = np.minimum(0.97 - np.linalg.norm(points, axis=1), 0.3)
        found = []
        for index, point in enumerate(points):
            radius = float(room[index])
            if radius >= 0.16:
                room = np.minimum(room, np.linalg.norm(points - point, axis=1) - radius)
                x, y, z = (
                    float(c + s * p) for c, s, p in zip(self.centre, self.semi_axes, point, strict=True)
                )
                found.append(_scaled(Ellipsoid((x, y, z), self.semi_axes), radius))
        return found

    def bodies(self) -> list[Body]:
        """Haze and patches in painter's order."""
        haze: Kind = "ground glass"
        layers = [(haze, hu, _scaled(self.outline, scale)) for scale, hu in _HAZE[self.kind]]
        layers += [
            (self.kind, hu, _scaled(p, scale)) for p in self.patches() for scale, hu in _PATCH[self.kind]
        ]
        return [Body(f"{kind}, {self.lung}", hu, (solid,), self.lung, kind) for kind, hu, solid in layers]


def _scaled(solid: Ellipsoid, scale: float) -> Ellipsoid:
    a, b, c = solid.semi_axes
    return Ellipsoid(solid.centre, (a * scale, b * scale, c * scale), solid.rotation)


@dataclass(frozen=True, slots=True)
class LungTruth:
    """What is known of one lung."""

    lung_ml: float
    """Aerated lung, its vessels and its opacities, ml; by quadrature of exact chords, which a fine voxelising
    confirms to 0.5 %."""
    opacity_ml: float
    """Ground glass and consolidation, ml; exact: 4/3 pi abc of ellipsoids apart from each other."""
    consolidation_ml: float
    """The consolidated part of it, ml; exact."""
    area_share: float
    """Share of the lung's outline, seen from the front by parallel rays, that opacities cover."""
    consolidation_share: float
    """The same for consolidation alone."""

    @property
    def percent(self) -> float:
        """Opacities in percent of the lung's volume."""
        return 100 * self.opacity_ml / self.lung_ml

    @property
    def extent(self) -> int:
        """Geographic extent 0-4 (Cohen et al. 2020): none, under 25, 25-50, 50-75, over 75 % of the area."""
        return (
            0
            if self.area_share == 0
            else 1 + int(np.searchsorted((0.25, 0.5, 0.75), self.area_share, "right"))
        )

    @property
    def opacity(self) -> int:
        """Degree of opacity 0-3 (Cohen et al. 2020): none, ground glass, consolidation, white-out.

        White-out is taken here as consolidation over 90 % of the area.
        """
        if self.consolidation_share > 0:
            return 3 if self.consolidation_share > 0.9 else 2
        return int(self.opacity_ml > 0)


@dataclass(frozen=True, slots=True)
class Chest:
    """A phantom and what there is to find in it."""

    phantom: Phantom
    """The bodies."""
    opacities: tuple[Opacity, ...]
    """What was put into the lungs."""


CASES: Final[Mapping[str, tuple[Opacity, ...]]] = MappingProxyType(
    {
        "healthy": (),
        "mild": (Opacity("right lung", "ground glass", (-84, 18, -42), (33, 42, 36)),),
        "moderate": (
            Opacity("right lung", "ground glass", (-82, 10, -36), (36, 46, 42)),
            Opacity("left lung", "consolidation", (102, 14, -36), (19, 36, 40)),
        ),
        "severe": (
            Opacity("right lung", "consolidation", (-82, 8, -32), (38, 50, 46)),
            Opacity("right lung", "consolidation", (-70, 10, 58), (36, 48, 43)),
            Opacity("right lung", "ground glass", (-60, 22, 118), (19, 24, 16)),
            Opacity("left lung", "consolidation", (98, 19, -36), (20, 36, 43)),
            Opacity("left lung", "ground glass", (76, 8, 62), (32, 44, 45)),
            Opacity("left lung", "ground glass", (56, 56, -20), (23, 18, 37)),
        ),
    }
)
"""Named cases, from none to severe."""


def chest_phantom(opacities: str | tuple[Opacity, ...] = "healthy") -> Chest:
    """Build the chest.

    Args:
        opacities: One of `CASES`, or any ellipsoids that lie wholly in aerated lung, apart from each other.

    Raises:
        ValueError: No such case; an opacity reaches out of its lung or meets another one.
    """
    if isinstance(opacities, str):
        if opacities not in CASES:
            raise ValueError(f"no such phantom: choose one of {', '.join(CASES)}")
        opacities = CASES[opacities]
    healthy = Phantom((*_trunk(), *_lungs(), *_mediastinum(), *_bones()))
    for index, opacity in enumerate(opacities):
        top = healthy.top_at(_surface(opacity.outline))
        if any(healthy.bodies[body].region != opacity.lung for body in set(top.flat)):
            raise ValueError(
                f"opacity {index + 1} reaches out of the {opacity.lung}: move it or make it smaller"
            )
        if not all(are_apart(opacity.outline, other.outline) for other in opacities[:index]):
            raise ValueError(f"opacity {index + 1} meets another one: move it or make it smaller")
    diseased = tuple(body for opacity in opacities for body in opacity.bodies())
    return Chest(Phantom(healthy.bodies + diseased), opacities)


def _surface(solid: Ellipsoid) -> Array:
    """A thousand points spread evenly (a Fibonacci sphere) over the surface, ``(1000, 3)`` mm."""
    height = (2 * np.arange(1000) + 1) / 1000 - 1
    turn = np.arange(1000) * pi * (3 - sqrt(5))
    flat = np.sqrt(1 - height**2)
    ball = np.stack([flat * np.cos(turn), flat * np.sin(turn), height], axis=1)
    return np.asarray(ball @ solid.axes.T + np.array(solid.centre))


def measure_truth(chest: Chest) -> dict[Side, LungTruth]:
    """What there is to find, for each lung. Takes a second or two."""
    detector = Detector((460, 340), 1.0, (0.0, 0.0, 0.0))
    truth: dict[Side, LungTruth] = {}
    for lung in LUNGS:
        own = [opacity for opacity in chest.opacities if opacity.lung == lung]
        outline, diseased, consolidated = (
            int(np.count_nonzero(chest.phantom.path_mm(detector, selected) > _TOUCH_MM))
            for selected in (
                select(lung),
                select(lung, "ground glass", "consolidation"),
                select(lung, "consolidation"),
            )
        )
        truth[lung] = LungTruth(
            lung_ml=chest.phantom.volume_ml(select(lung), step_mm=1.0),
            opacity_ml=sum(opacity.outline.volume_ml for opacity in own),
            consolidation_ml=sum(opacity.consolidation_ml for opacity in own),
            area_share=diseased / outline,
            consolidation_share=consolidated / outline,
        )
    return truth


def select(lung: Side, *kinds: Kind) -> Callable[[Body], bool]:
    """Whether a body counts to a lung, and to one of the kinds of opacity, if any is given."""
    return lambda body: body.region == lung and (not kinds or body.opacity in kinds)


def _turned(centre: Vector, semi_axes: Vector, *, x: float = 0, y: float = 0, z: float = 0) -> Ellipsoid:
    """An ellipsoid turned about the x, then the y, then the z axis, degrees, right-handed."""
    (cx, sx), (cy, sy), (cz, sz) = ((cos(radians(angle)), sin(radians(angle))) for angle in (x, y, z))
    turn = (
        np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    )
    rows = tuple((float(row[0]), float(row[1]), float(row[2])) for row in turn)
    return Ellipsoid(centre, semi_axes, (rows[0], rows[1], rows[2]))


def _trunk() -> list[Body]:
    """Skin and fat, muscle, the ribs' cage with its ribs, and the soft tissue inside."""
    outer = Ellipsoid((0, 5, -50), (144, 102, 249))
    inner = Ellipsoid((0, 5, -50), (136, 94, 241))
    tilt = radians(27)
    bodies = [
        Body("trunk", _FAT, (Ellipsoid((0, 5, -110), (172, 122, 480)),)),
        Body("shoulders", _FAT, (Ellipsoid((0, 22, 140), (250, 74, 78)),)),
        Body("neck", _FAT, (Ellipsoid((0, 14, 250), (64, 60, 130)),)),
        Body("muscle of the trunk", _MUSCLE, (Ellipsoid((0, 5, -110), (160, 110, 470)),)),
        Body("muscle of the shoulders", _MUSCLE, (Ellipsoid((0, 22, 140), (242, 64, 66)),)),
        Body("muscle of the neck", _MUSCLE, (Ellipsoid((0, 14, 250), (58, 54, 124)),)),
    ]
    for number in range(11):
        middle = 112 - 25.0 * number
        band = Slab((0.0, -sin(tilt), cos(tilt)), middle * cos(tilt) - 5.5, middle * cos(tilt) + 5.5)
        bodies.append(Body(f"rib {number + 1}", _RIB, (outer, band)))
    bodies.append(Body("costal cartilage", 70, (outer, Ellipsoid((0, -95, -80), (84, 56, 230)))))
    bodies.append(Body("inside of the ribs", _SOFT, (inner,)))
    return bodies


def _lungs() -> list[Body]:
    cavity = Ellipsoid((0, 5, -50), (130, 88, 235))
    above = Slab((0.0, 0.0, 1.0), low=-172)
    bodies = []
    for lung, side in zip(LUNGS, (-1, 1), strict=True):
        whole: tuple[Solid, ...] = (cavity, _turned((66 * side, 8, -48), (67, 95, 198), y=-2 * side), above)
        bodies.append(Body(lung, _LUNG, whole, region=lung))
        hilum = np.array([38 * side, 14, 8 if side < 0 else 16])
        bodies += [
            Body(f"vessel, {lung}", _SOFT, (vessel, *whole), region=lung) for vessel in _vessels(hilum, side)
        ]
    return bodies


def _vessels(hilum: Array, side: int) -> list[Ellipsoid]:
    """Trunks that fan out from the hilum and fork twice, ever thinner."""
    vessels: list[Ellipsoid] = []
    for angle, lean in (
        (80, 18),
        (58, -28),
        (38, 22),
        (18, -10),
        (-4, 30),
        (-26, -24),
        (-46, 14),
        (-66, -12),
    ):
        start = hilum + 13 * _towards(side, angle, lean)
        _grow(vessels, start, side, (angle, lean), (46.0, 3.8))
    return vessels


def _grow(
    vessels: list[Ellipsoid], start: Array, side: int, heading: tuple[float, float], size: tuple[float, float]
) -> None:
    """One vessel of a length and a thickness, mm, that forks into two of three quarters of both."""
    (angle, lean), (length, thick) = heading, size
    along = _towards(side, angle, lean)
    vessels.append(_rod(start + along * length / 2, along, length / 2 + 3, thick))
    if thick > 2:
        for spread in (13, -15):
            _grow(
                vessels,
                start + along * length,
                side,
                (angle + spread, lean - spread * 1.5),
                (length * 0.75, thick * 0.66),
            )


def _towards(side: int, angle: float, lean: float) -> Array:
    """Unit vector away from the middle, ``angle`` degrees up and ``lean`` degrees to the back."""
    up, back = radians(angle), radians(lean)
    return np.array([side * cos(up) * cos(back), sin(back), sin(up) * cos(back)])


def _rod(centre: Array, along: Array, half: float, thick: float) -> Ellipsoid:
    """A thin ellipsoid along a unit vector."""
    across = np.cross(along, (0.0, 1.0, 0.0) if abs(along[1]) < 0.9 else (1.0, 0.0, 0.0))
    across /= np.linalg.norm(across)
    turn = np.stack([along, across, np.cross(along, across)], axis=1)
    rows = [(float(r[0]), float(r[1]), float(r[2])) for r in turn]
    middle = (float(centre[0]), float(centre[1]), float(centre[2]))
    return Ellipsoid(middle, (half, thick, thick), (rows[0], rows[1], rows[2]))


def _mediastinum() -> list[Body]:
    """Heart, great vessels, hila, diaphragm, airways, and gas in the stomach."""
    soft = {
        "heart": _turned((26, -22, -58), (70, 48, 52), y=32),
        "right atrium": Ellipsoid((-14, -15, -50), (30, 36, 44)),
        "mediastinum": Ellipsoid((-2, 4, 60), (29, 46, 130)),
        "behind the heart": Ellipsoid((3, 46, -70), (19, 30, 125)),
        "aortic arch": Ellipsoid((24, 12, 76), (20, 30, 19)),
        "descending aorta": _turned((21, 48, -20), (13, 13, 105), y=-2),
        "right hilum": Ellipsoid((-36, 12, 8), (15, 16, 21)),
        "left hilum": Ellipsoid((38, 14, 18), (15, 16, 19)),
        "middle of the diaphragm": Ellipsoid((6, -2, -170), (62, 104, 68)),
        "right diaphragm": Ellipsoid((-64, -8, -176), (77, 108, 97)),
        "left diaphragm": Ellipsoid((68, -8, -186), (74, 106, 92)),
    }
    gas = {
        "gas in the stomach": Ellipsoid((78, -14, -136), (26, 24, 15)),
        "trachea": _turned((-2, 22, 140), (8.5, 8.5, 78), x=-6),
        "right main bronchus": _turned((-16, 18, 52), (6.5, 6.5, 24), y=32),
        "left main bronchus": _turned((18, 18, 50), (5.5, 5.5, 28), y=-46),
    }
    return [
        *(Body(name, _SOFT, (solid,)) for name, solid in soft.items()),
        *(Body(name, AIR_HU, (solid,)) for name, solid in gas.items()),
    ]


def _bones() -> list[Body]:
    column = Ellipsoid((0, 66, -40), (18, 16, 420))
    bodies = [Body("discs", 80, (column,))]
    for number in range(18):
        middle = 235 - 25.0 * number
        bodies.append(
            Body(f"vertebra {number + 1}", 240, (column, Slab((0.0, 0.0, 1.0), middle - 10, middle + 10)))
        )
    bodies.append(Body("sternum", 180, (Ellipsoid((0, -86, 20), (19, 6, 78)),)))
    for name, side in (("right", -1), ("left", 1)):
        bodies += [
            Body(
                f"{name} clavicle",
                600,
                (_turned((84 * side, -44, 136), (72, 6.5, 6.5), y=-13 * side, z=18 * side),),
            ),
            Body(
                f"{name} scapula",
                450,
                (_turned((128 * side, 68, 84), (38, 5, 74), y=12 * side, z=-34 * side),),
            ),
            Body(f"{name} humerus", 350, (Ellipsoid((190 * side, 26, 150), (24, 24, 26)),)),
        ]
    return bodies
