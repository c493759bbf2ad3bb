"""From labels and probabilities to volumes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from bedside.contract import Tissue, VolumeInterval
from bedside.ct import Tally, interpret, normalise
from bedside.ct.sampling import coarse_to_fine
from bedside.opacification import Opacification
from bedside.scan import Entry, Grid
from fake_ct import TISSUES, make_manifest

AFFINE = np.array([[0, 0, 2.0, -50], [0, 1.5, 0, -30], [5.0, 0, 0, 10], [0, 0, 0, 1]])
GRID = Grid((20, 40, 60), AFFINE)
"""Voxels of 15 mm3."""
ONE_LUNG = (
    Tissue("background"),
    Tissue("lung", lung=True),
    Tissue("ground glass", opacity=True, lung=True),
)


def one_hot(labels: npt.NDArray[np.uint8], kinds: int) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(np.moveaxis(np.eye(kinds, dtype=np.float32)[labels], -1, 0))


def tally_of(
    labels: npt.NDArray[np.uint8],
    hu: npt.NDArray[np.float32],
    tissues: tuple[Tissue, ...],
    read: list[int] | None = None,
) -> Tally:
    tally = Tally(GRID, tissues)
    for index in range(len(labels)) if read is None else read:
        tally.add(index, hu[index], labels[index], one_hot(labels[index], len(tissues)))
    return tally


def boxes(tissues: tuple[Tissue, ...]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Two lungs of known size, each with an opacity, in any tissues whose labels these are."""
    labels = np.zeros(GRID.shape, np.uint8)
    hu = np.full(GRID.shape, 40, np.float32)
    right, left = (1, 1) if tissues is ONE_LUNG else (2, 1)
    opacity = 2 if tissues is ONE_LUNG else 3
    labels[2:18, 5:35, 4:24], hu[2:18, 5:35, 4:24] = right, -800
    labels[4:16, 10:30, 36:56], hu[4:16, 10:30, 36:56] = left, -900
    labels[4:8, 5:15, 4:14], hu[4:8, 5:15, 4:14] = opacity, -500
    labels[5:7, 10:20, 46:56], hu[5:7, 10:20, 46:56] = opacity, -300
    return labels, hu


def measure(
    tissues: tuple[Tissue, ...] = TISSUES, ledger: tuple[Entry, ...] = (), **changes: object
) -> Opacification:
    labels, hu = boxes(tissues)
    return interpret(tally_of(labels, hu, tissues), make_manifest(tissues, **changes), ledger)


@pytest.mark.parametrize("tissues", [TISSUES, ONE_LUNG], ids=["sided", "one lung class"])
def test_volumes_by_side_are_those_of_the_boxes(tissues: tuple[Tissue, ...]) -> None:
    found = measure(tissues)
    ml = 0.015
    assert found.right.lung_ml == pytest.approx(16 * 30 * 20 * ml)
    assert found.left.lung_ml == pytest.approx(12 * 20 * 20 * ml)
    assert found.right.opacity_ml == pytest.approx(4 * 10 * 10 * ml)
    assert found.left.opacity_ml == pytest.approx(2 * 10 * 10 * ml)
    assert found.both.lung_ml == pytest.approx(found.left.lung_ml + found.right.lung_ml)
    assert found.both.opacity_ml_expected == pytest.approx(found.both.opacity_ml)
    assert found.both.opacity_percent == pytest.approx(100 * 600 / (9600 + 4800))
    assert found.sides.startswith("sagittal plane at x = ")
    assert 24 <= float(found.sides.split()[5]) / 2 + 25 <= 36


def test_sides_that_the_network_gives_are_taken() -> None:
    tissues = (*TISSUES[:3], Tissue("left opacity", opacity=True, lung=True, side="left"))
    found = measure(tissues)
    assert found.sides == "network"
    assert found.left.opacity_ml == found.both.opacity_ml
    assert found.right.opacity_ml == 0


def test_density_and_aeration_are_of_the_lung() -> None:
    found = measure()
    right_ml, opacity_ml = 16 * 30 * 20 * 0.015, 4 * 10 * 10 * 0.015
    assert found.right.mean_hu == pytest.approx(
        (-800 * (right_ml - opacity_ml) - 500 * opacity_ml) / right_ml
    )
    assert found.right.aerated_percent == pytest.approx(100 * (1 - opacity_ml / right_ml))
    # not to the last bit: in which order a matrix product sums is the processor's
    means = [None, pytest.approx(-900, rel=1e-12), pytest.approx(-800, rel=1e-12)]
    assert [tissue.mean_hu for tissue in found.tissues[:3]] == means


def test_tissues_and_background_fill_the_scan() -> None:
    found = measure()
    assert sum(tissue.ml for tissue in found.tissues) == pytest.approx(20 * 40 * 60 * 0.015)
    assert found.tissues[0].percent_of_lung is None
    assert found.tissues[4].ml == 0
    assert found.tissues[4].mean_hu is None
    for tissue in found.tissues:
        assert tissue.ml_left + tissue.ml_right == pytest.approx(tissue.ml)


def test_curve_has_areas_in_cm2_against_patient_mm() -> None:
    found = measure()
    assert [point.z_mm for point in found.curve[:2]] == [10, 15]
    assert found.curve[0].lung_cm2 == 0
    assert found.curve[5].lung_cm2 == pytest.approx((30 * 20 + 20 * 20) * 3 / 100)
    assert found.curve[5].opacity_cm2 == pytest.approx(200 * 3 / 100)


def test_no_lung_gives_no_percentages() -> None:
    labels, hu = np.zeros(GRID.shape, np.uint8), np.zeros(GRID.shape, np.float32)
    found = interpret(tally_of(labels, hu, TISSUES), make_manifest())
    assert found.both.opacity_percent is None
    assert found.both.aerated_percent is None
    assert found.both.mean_hu is None


def test_expected_volume_is_the_sum_of_probabilities_on_a_coarser_grid() -> None:
    tally = Tally(GRID, TISSUES)
    labels = np.zeros((40, 60), np.uint8)
    probabilities = np.zeros((5, 20, 30), np.float32)
    probabilities[3, 5:10, 10:20] = 0.4
    for index in range(20):
        tally.add(index, labels.astype(np.float32), labels, probabilities)
    found = interpret(tally, make_manifest())
    assert found.both.opacity_ml == 0
    assert found.both.opacity_ml_expected == pytest.approx(20 * 0.4 * 50 * 4 * 0.015)
    assert found.interval.low == 0
    assert found.interval.high == pytest.approx(20 * 50 * 4 * 0.015)
    assert found.interval.level is None


def test_measured_interval_is_taken_from_the_bundle() -> None:
    found = measure(volume_interval=VolumeInterval(0.8, 0.7, 1.5, "seven cases"))
    assert found.interval.low == pytest.approx(0.7 * found.both.opacity_ml)
    assert found.interval.high == pytest.approx(1.5 * found.both.opacity_ml)
    assert found.interval.level == 0.8
    assert found.interval.method == "seven cases"


def test_geometry_widens_the_interval() -> None:
    interval = VolumeInterval(0.8, 0.7, 1.5, "seven cases")
    found = measure(ledger=(Entry("missing-slices", "mended", "two", 4.0),), volume_interval=interval)
    assert found.interval.low == pytest.approx(0.7 * 0.96 * found.both.opacity_ml)
    assert found.interval.high == pytest.approx(1.5 * 1.04 * found.both.opacity_ml)
    assert "geometry" in found.interval.method


def test_disagreement_between_patterns_adds_up() -> None:
    confusion = tuple(
        tuple(float(share) for share in row)
        for row in (
            [1, 0, 0, 0, 0],
            [0, 1, 0, 0, 0],
            [0, 0, 1, 0, 0],
            [0, 0.1, 0, 0.6, 0.3],
            [0, 0, 0, 0.5, 0.5],
        )
    )
    found = measure(confusion=confusion)
    ground_glass, consolidation = found.confusion
    assert ground_glass.name == "ground glass"
    assert ground_glass.experts_ml["consolidation"] == pytest.approx(0.3 * ground_glass.ml)
    assert sum(ground_glass.experts_ml.values()) == pytest.approx(ground_glass.ml)
    assert consolidation.ml == 0


def test_some_slices_estimate_the_whole_with_an_interval_that_holds_it() -> None:
    labels, hu = boxes(TISSUES)
    whole = measure()
    read = coarse_to_fine(20)[:9].tolist()
    found = interpret(tally_of(labels, hu, TISSUES, read), make_manifest())
    assert found.read_share == pytest.approx(9 / 20)
    assert found.sampling is not None
    assert found.sampling.low <= whole.both.opacity_ml <= found.sampling.high
    assert found.interval.low <= found.sampling.low
    assert found.interval.high >= found.sampling.high
    assert found.both.lung_ml == pytest.approx(whole.both.lung_ml, rel=0.2)
    assert len(found.curve) == 9


def test_order_of_slices_does_not_matter() -> None:
    labels, hu = boxes(TISSUES)
    found = interpret(tally_of(labels, hu, TISSUES, coarse_to_fine(20).tolist()), make_manifest())
    assert found == measure()


def test_window_is_mapped_to_the_networks_scale() -> None:
    spec = replace(make_manifest().input, hu_window=(-1000.0, 50.0), low=-0.5517, high=1.1189)
    hu = np.array([-2000, -1000, -475, 50, 3000], np.float32)
    values = normalise(hu, spec)
    assert values is hu
    assert values == pytest.approx([-0.5517, -0.5517, (1.1189 - 0.5517) / 2, 1.1189, 1.1189], abs=1e-6)
