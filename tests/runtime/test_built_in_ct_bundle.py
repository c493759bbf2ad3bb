"""The CT bundle that ships: what it finds in the phantom and in a real series."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from bedside import open_ct
from bedside.bundle import Bundle
from bedside.chest import Side, chest_phantom, select
from bedside.ct.sampling import FEWEST, LEVEL, coarse_to_fine, estimate_sum
from bedside.opacification import Opacification, Region
from bedside.scan import Volume
from bedside.segmenter import BUILT_IN_CT, CtSegmenter

AFFINE = np.array([[0, 0, 1.6, -192 * 0.8], [0, 1.6, 0, -150], [8.0, 0, 0, -190], [0, 0, 0, 1.0]])
SHAPE = (44, 192, 240)


@pytest.fixture(scope="module")
def segmenter() -> Iterator[CtSegmenter]:
    with open_ct() as opened:
        yield opened


@cache
def phantom(case: str) -> Volume:
    affine = AFFINE.copy()
    affine[0, 3] = -1.6 * (SHAPE[2] - 1) / 2
    hu = chest_phantom(case).phantom.hu(SHAPE, affine).astype(np.float32)
    hu += np.random.default_rng(0).normal(0, 15, SHAPE).astype(np.float32)
    return Volume(hu, affine)


def found_in(segmenter: CtSegmenter, source: Volume | Path) -> Opacification:
    found = segmenter.segment(source).raise_for_status().opacification
    assert found is not None
    return found


def test_bundle_is_small_and_says_its_terms() -> None:
    manifest = Bundle.open(BUILT_IN_CT).manifest
    sizes = {name: manifest.files[file].bytes for name, file in manifest.models.items()}
    assert sizes.keys() == {"fp32", "fp16", "int8"}
    assert sizes["fp32"] < 10_000_000
    assert sizes["int8"] < 4_000_000
    assert not manifest.licence.commercial_use
    assert manifest.volume_interval is not None
    assert manifest.volume_interval.level < 0.8  # seven cases support no more


def test_engines_agreed_at_export_or_it_says_so() -> None:
    bundle = Bundle.open(BUILT_IN_CT)
    report = json.loads(bundle.read(bundle.manifest.parity))
    status = {(each["backend"], each["precision"]): each["status"] for each in report["engines"]}
    assert status["onnxruntime", "fp32"] == status["openvino", "fp32"] == "passed"


def test_lungs_of_the_phantom_are_found_on_their_sides(segmenter: CtSegmenter) -> None:
    chest = chest_phantom("healthy").phantom
    found = found_in(segmenter, phantom("healthy"))
    sides: tuple[tuple[Side, Region], ...] = (("left lung", found.left), ("right lung", found.right))
    for side, region in sides:
        truth = chest.volume_ml(select(side), step_mm=2.0)
        assert region.lung_ml == pytest.approx(truth, rel=0.12)


def test_more_opacity_in_the_phantom_is_more_in_the_answer(segmenter: CtSegmenter) -> None:
    ml = [
        found_in(segmenter, phantom(case)).both.opacity_ml
        for case in ("healthy", "mild", "moderate", "severe")
    ]
    assert ml == sorted(ml)
    assert ml[0] < 30
    assert ml[3] > 250


def test_opacity_is_given_the_side_that_it_lies_on(segmenter: CtSegmenter) -> None:
    volume = phantom("severe")
    mirrored = Volume(np.ascontiguousarray(volume.hu[:, :, ::-1]), volume.affine)
    plain, swapped = found_in(segmenter, volume), found_in(segmenter, mirrored)
    assert plain.right.opacity_ml > 1.2 * plain.left.opacity_ml  # as in the phantom: 708 and 459 mL
    assert swapped.left.opacity_ml > 1.2 * swapped.right.opacity_ml


def test_real_series_has_both_lungs_whole_and_little_else(segmenter: CtSegmenter, shared: Path) -> None:
    result = segmenter.segment(shared / "data/ct/ricord-series").raise_for_status()
    found = result.opacification
    assert found is not None
    assert 2800 < found.both.lung_ml < 3250  # thresholding finds 3.0 to 3.2 litres
    assert 0.8 < found.left.lung_ml / found.right.lung_ml < 1.25
    assert found.interval.low < found.both.opacity_ml < found.interval.high
    assert 100 < found.both.opacity_ml < 900
    outside = sum(point.lung_cm2 for point in found.curve if not 30 <= point.index <= 215)
    assert outside < 0.01 * sum(point.lung_cm2 for point in found.curve)  # bowel gas, table, head rest
    assert result.ledger == ()
    areas = np.array([point.opacity_cm2 for point in found.curve])
    held = []
    for count in range(FEWEST, len(areas)):  # as if a deadline had stopped it there
        read = np.sort(coarse_to_fine(len(areas))[:count])
        estimate = estimate_sum(read, areas[read], len(areas))
        held.append(estimate.low - 1e-9 <= areas.sum() <= estimate.high + 1e-9)
    assert np.mean(held) >= LEVEL


@pytest.mark.parametrize("seconds", [2.0, 4.0])
def test_interval_under_a_deadline_holds_the_whole_answer(
    segmenter: CtSegmenter, shared: Path, seconds: float
) -> None:
    from bedside import Request

    whole = found_in(segmenter, phantom("severe")).both.opacity_ml
    result = segmenter.segment(phantom("severe"), Request(deadline_s=seconds))
    if result.error is not None:
        assert result.error.code == "deadline-too-short"
        pytest.skip("this machine is too slow for this deadline")
    found = result.opacification
    assert found is not None
    assert found.interval.low <= whole <= found.interval.high
