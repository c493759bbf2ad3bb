"""The phantom: painter's order, voxels, projection, and the truth about what is in its lungs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import exp, pi, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.chest import CASES, LUNGS, Kind, LungTruth, Opacity, Side, chest_phantom, measure_truth, select
from bedside.phantom import AIR_HU, MU_WATER_PER_MM, Body, Detector, Phantom
from bedside.solids import Ellipsoid, Slab, are_apart, compose

TURN = ((0.8, -0.6, 0.0), (0.6, 0.8, 0.0), (0.0, 0.0, 1.0))


def make_affine(origin: tuple[float, float, float], spacing: tuple[float, float, float]) -> np.ndarray:
    """Index (z, y, x, 1) to patient mm, axis-aligned; spacing in the order z, y, x."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = spacing
    affine[:3, 3] = origin
    affine[3, 3] = 1
    return affine


def named(name: str) -> Callable[[Body], bool]:
    return lambda body: body.name == name


def points_of(shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    index = np.stack([*np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), np.ones(shape)], axis=-1)
    return np.asarray(index @ affine.T[:, :3])


@pytest.fixture(scope="module")
def severe() -> Phantom:
    return chest_phantom("severe").phantom


@pytest.fixture(scope="module")
def truths() -> dict[str, dict[Side, LungTruth]]:
    return {case: measure_truth(chest_phantom(case)) for case in CASES}


solids = st.builds(
    Ellipsoid,
    st.tuples(*[st.floats(-20, 20)] * 3),
    st.tuples(*[st.floats(3, 30)] * 3),
    st.sampled_from([TURN, ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))]),
)
slabs = st.builds(
    lambda normal, middle, half: Slab(normal, middle - half, middle + half),
    st.sampled_from([(0.0, 0.0, 1.0), (0.6, 0.0, 0.8)]),
    st.floats(-20, 20),
    st.floats(1, 20),
)
scenes = st.lists(
    st.builds(
        lambda hu, ball, cuts: Body("any", hu, (ball, *cuts)),
        st.integers(-1000, 1000),
        solids,
        st.lists(slabs, max_size=1),
    ),
    min_size=1,
    max_size=5,
).map(lambda bodies: Phantom(tuple(bodies)))


@settings(deadline=None, max_examples=30)
@given(scenes, st.integers(0, 2**32 - 1))
def test_the_signed_sum_says_the_same_as_painters_order(scene: Phantom, seed: int) -> None:
    points = np.random.default_rng(seed).uniform(-50, 50, (2000, 3))
    total = np.full(len(points), float(AIR_HU))
    for term in compose(
        tuple(b.solids for b in scene.bodies), tuple(float(b.hu - AIR_HU) for b in scene.bodies)
    ):
        total += term.weight * np.logical_and.reduce([solid.contains(points) for solid in term.solids])
    np.testing.assert_array_equal(total, scene.hu_at(points))


@settings(deadline=None, max_examples=10)
@given(scenes, st.sampled_from([None, 300.0]))
def test_the_projection_is_the_integral_of_hu_along_each_ray(scene: Phantom, distance: float | None) -> None:
    detector = Detector((7, 9), 9.0, (3.0, 90.0, -2.0), distance)
    rays = detector.rays()
    u, v = np.meshgrid(rays.u, rays.v)
    start, step = (
        parts[0] + u[..., None] * parts[1] + v[..., None] * parts[2]
        for parts in (rays.origin, rays.direction)
    )
    step = step / np.linalg.norm(step, axis=-1, keepdims=True)
    first = -90.0 - start[..., 1]
    along = first[..., None] / step[..., 1:2] + (np.arange(2000) + 0.5) * 0.1  # 200 mm from y = -90 on
    hu = scene.hu_at(start[..., None, :] + along[..., None] * step[..., None, :])
    numeric = (1 + hu / 1000).sum(axis=-1) * 0.1
    # Each of at most 5 x 2 boundaries moves the sum by at most half a step of 0.1 mm times 2 (air to 1000 HU).
    np.testing.assert_allclose(scene.water_mm(detector), numeric, atol=5 * 2 * 0.05 * 2)


def test_a_ray_through_the_centre_of_an_ellipsoid_sees_its_whole_axis() -> None:
    phantom = Phantom((Body("water", 0, (Ellipsoid((10, 0, -20), (30, 40, 50)),)),))
    parallel = Detector((1, 1), 1.0, (10.0, 60.0, -20.0))
    cone = Detector((1, 1), 1.0, (10.0, 60.0, -20.0), 1000.0)
    for detector in (parallel, cone):
        assert phantom.water_mm(detector)[0, 0] == pytest.approx(80, rel=1e-12)
        assert phantom.transmission(detector)[0, 0] == pytest.approx(exp(-80 * MU_WATER_PER_MM), rel=1e-12)


def test_attenuation_is_that_of_the_nist_tables_at_70_kev() -> None:
    at_60, at_80 = 0.2059, 0.1837  # cm2/g, NISTIR 5632, water, liquid
    share = np.log(70 / 60) / np.log(80 / 60)
    assert pytest.approx(at_60 ** (1 - share) * at_80**share / 10, rel=5e-4) == MU_WATER_PER_MM


def test_a_cone_beam_magnifies_and_a_parallel_one_does_not() -> None:
    ball = Phantom((Body("ball", 0, (Ellipsoid((0, 0, 0), (20, 20, 20)),)),))
    centre = (0.0, 100.0, 0.0)
    for distance, radius in ((None, 20.0), (500.0, 500 * 20 / sqrt(400**2 - 20**2))):
        seen = ball.water_mm(Detector((401, 401), 0.25, centre, distance)) > 0
        assert seen.sum() * 0.25**2 == pytest.approx(pi * radius**2, rel=0.005)


def test_rows_run_to_the_feet_and_columns_to_the_patients_left() -> None:
    ball = Phantom((Body("left shoulder", 0, (Ellipsoid((40, 0, 60), (10, 10, 10)),)),))
    rows, columns = np.nonzero(ball.water_mm(Detector((200, 200), 1.0, (0.0, 50.0, 0.0))))
    assert (rows.mean(), columns.mean()) == (pytest.approx(99.5 - 60), pytest.approx(99.5 + 40))


def test_a_detector_inside_the_patient_is_refused(severe: Phantom) -> None:
    with pytest.raises(ValueError, match="behind every body"):
        severe.water_mm(Detector((2, 2), 1.0, (0.0, 0.0, 0.0)))


def test_voxels_are_the_mean_of_painters_order(severe: Phantom) -> None:
    shape = (1, 12, 25)
    coarse = make_affine((-130.0, -60.0, -40.0), (8.0, 6.0, 6.0))
    inner = make_affine((-130 - 3 + 0.125, -60 - 3 + 0.75, -40 - 4 + 1.0), (2.0, 1.5, 0.25))
    dense = severe.hu_at(points_of((4, 12 * 4, 25 * 24), inner))
    mean = dense.reshape(1, 4, 12, 4, 25, 24).mean(axis=(1, 3, 5))
    found = severe.hu(shape, coarse, supersampling=4)
    assert found.shape == shape
    assert found.dtype == np.float32
    # The rays are the same; along x the reference takes 24 samples where `hu` is exact, which is off by up to
    # 1/48 of the step at a boundary, at most that from lung to bone, with two boundaries in a voxel.
    assert np.abs(found - mean).max() < 2 * 1670 / 48
    assert np.abs(found - mean).mean() < 2
    assert np.ptp(found) > 1500


def test_slabs_put_together_are_the_volume(severe: Phantom) -> None:
    shape, affine = (11, 30, 40), make_affine((-150.0, -90.0, -120.0), (20.0, 6.0, 7.5))
    slabs = list(severe.slabs(shape, affine, depth=4))
    assert [len(slab) for slab in slabs] == [4, 4, 3]
    np.testing.assert_array_equal(np.concatenate(slabs), severe.hu(shape, affine))


def test_an_oblique_and_flipped_affine_reads_the_same_points(severe: Phantom) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.array(TURN) @ np.array([[0, 0, -2.0], [0, 2.0, 0], [2.5, 0, 0]])
    affine[:3, 3] = (60.0, -20.0, 10.0)
    found = severe.hu((4, 20, 30), affine, supersampling=1)
    points = points_of((4, 20, 30), affine)
    steps = np.linspace(-0.5, 0.5, 21)[:, None, None, None, None] * affine[:3, 2]
    flat = np.ptp(severe.hu_at(points + steps), axis=0) == 0
    assert flat.mean() > 0.5
    np.testing.assert_allclose(found[flat], severe.hu_at(points)[flat], atol=20)


def test_voxelising_refuses_what_is_no_grid(severe: Phantom) -> None:
    with pytest.raises(ValueError, match="4x4 affine"):
        severe.hu((2, 2, 2), np.eye(3))
    with pytest.raises(ValueError, match="positive shape"):
        severe.hu((2, 0, 2), np.eye(4))


def test_the_volume_of_an_ellipsoid_is_found_to_a_tenth_of_a_percent() -> None:
    whole = Ellipsoid((5, 0, 0), (20, 30, 40), TURN)
    phantom = Phantom((Body("whole", 0, (whole,)), Body("half", 100, (whole, Slab((0.0, 0.0, 1.0), low=0)))))
    assert whole.volume_ml == pytest.approx(4 / 3 * pi * 24)
    for name in ("whole", "half"):
        volume = phantom.volume_ml(named(name))
        assert volume == pytest.approx(whole.volume_ml / 2, rel=1e-3)


@pytest.mark.parametrize("case", ["mild", "severe"])
def test_opacities_have_the_volume_that_is_promised(
    case: str, truths: dict[str, dict[Side, LungTruth]]
) -> None:
    phantom = chest_phantom(case).phantom
    shape, affine = (100, 74, 100), make_affine((-149.0, -99.0, -178.0), (3.3, 3.0, 3.0))
    for lung in LUNGS:
        kinds: tuple[Kind, ...]
        for promised, kinds in (
            (truths[case][lung].opacity_ml, ("ground glass", "consolidation")),
            (truths[case][lung].consolidation_ml, ("consolidation",)),
            (truths[case][lung].lung_ml, ()),
        ):
            share = phantom.coverage(select(lung, *kinds), shape, affine)
            volume = share.sum(dtype=np.float64) * 3.3 * 3.0 * 3.0 / 1000
            assert volume == pytest.approx(promised, rel=0.005, abs=1e-6)


def test_the_cases_grow_worse_and_scores_follow_the_published_thresholds(
    truths: dict[str, dict[Side, LungTruth]],
) -> None:
    percents = [sum(lung.percent for lung in truths[case].values()) for case in CASES]
    assert percents == sorted(percents)
    assert percents[0] == 0
    totals = [
        (sum(x.extent for x in t.values()), sum(x.opacity for x in t.values())) for t in truths.values()
    ]
    assert totals == sorted(totals)
    assert totals[:2] == [(0, 0), (1, 1)]
    assert [lung.opacity for lung in truths["moderate"].values()] == [1, 2]
    assert [lung.opacity for lung in truths["severe"].values()] == [2, 2]


def test_lungs_are_of_an_adults_size_and_the_right_one_is_larger(
    truths: dict[str, dict[Side, LungTruth]],
) -> None:
    truth = truths["healthy"]
    right, left = truth["right lung"].lung_ml, truth["left lung"].lung_ml
    assert left < right
    assert 3000 < left + right < 7000  # total lung capacity of adults is about 4 to 7 l


def test_the_heart_lies_to_the_left_and_gas_under_the_left_diaphragm(severe: Phantom) -> None:
    names = [
        severe.bodies[index].name
        for index in severe.top_at([(80, -30, -70), (78, -14, -136), (-78, -14, -136)])
    ]
    assert names == ["heart", "gas in the stomach", "right diaphragm"]


def test_patches_lie_inside_their_opacity_and_apart_from_each_other() -> None:
    opacity = Opacity("right lung", "consolidation", (-82, 8, -32), (38, 50, 46))
    scale = np.array(opacity.semi_axes)
    balls = [
        ((np.array(p.centre) - opacity.centre) / scale, p.semi_axes[0] / scale[0]) for p in opacity.patches()
    ]
    assert len(balls) > 10
    for i, (centre, radius) in enumerate(balls):
        assert np.linalg.norm(centre) + radius < 1
        assert all(np.linalg.norm(centre - other) > radius + size - 1e-9 for other, size in balls[:i])


def test_an_opacity_outside_its_lung_or_on_another_one_is_refused() -> None:
    fits = Opacity("right lung", "ground glass", (-80, 10, 0), (20, 20, 20))
    with pytest.raises(ValueError, match="reaches out of the right lung"):
        chest_phantom((Opacity("right lung", "ground glass", (-125, 10, 0), (20, 20, 20)),))
    with pytest.raises(ValueError, match="reaches out of the left lung"):
        chest_phantom((Opacity("left lung", "ground glass", (-80, 10, 0), (20, 20, 20)),))
    with pytest.raises(ValueError, match="meets another"):
        chest_phantom((fits, Opacity("right lung", "consolidation", (-80, 10, 30), (20, 20, 20))))
    with pytest.raises(ValueError, match="healthy, mild, moderate, severe"):
        chest_phantom("dreadful")


def test_scores_follow_the_published_thresholds() -> None:
    truth = LungTruth(
        lung_ml=2000, opacity_ml=500, consolidation_ml=100, area_share=0.3, consolidation_share=0.1
    )
    extents = [replace(truth, area_share=share).extent for share in (0, 0.2, 0.25, 0.6, 0.75, 1)]
    assert extents == [0, 1, 2, 3, 4, 4]
    assert truth.percent == 25
    assert truth.opacity == 2
    assert replace(truth, consolidation_ml=0, consolidation_share=0).opacity == 1
    assert replace(truth, opacity_ml=0, consolidation_ml=0, consolidation_share=0).opacity == 0
    assert replace(truth, consolidation_share=0.95).opacity == 3  # white-out


def test_solids_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="positive semi-axes"):
        Ellipsoid((0, 0, 0), (1, 0, 1))
    with pytest.raises(ValueError, match="orthogonal"):
        Ellipsoid((0, 0, 0), (1, 1, 1), ((2.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
    with pytest.raises(ValueError, match="unit normal"):
        Slab((0.0, 0.0, 2.0), 0, 1)
    with pytest.raises(ValueError, match="low < high"):
        Slab((0.0, 0.0, 1.0), 1, 1)
    with pytest.raises(ValueError, match="needs an ellipsoid"):
        Body("endless", 0, (Slab((0.0, 0.0, 1.0), 0, 1),))


def test_bodies_that_touch_nowhere_are_known_to_be_apart() -> None:
    ball = Ellipsoid((0, 0, 0), (10, 10, 10))
    assert are_apart(ball, Ellipsoid((15, 15, 0), (10, 10, 10)))
    assert not are_apart(ball, Ellipsoid((10, 10, 0), (10, 10, 10)))
    assert not are_apart(ball, ball)
