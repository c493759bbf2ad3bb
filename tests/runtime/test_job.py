"""One scan's way through: the right volumes, in any order, within memory and time, and nothing half done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bedside.backends.base import EngineInfo
from bedside.backends.fake import FakeBackend
from bedside.contract import Tiling
from bedside.ct.sampling import estimate_sum
from bedside.errors import BackendError, BedsideError, InputError, LimitError, RefusedError
from bedside.memory import MIB
from bedside.opacification import OpacificationResult
from bedside.provenance import BundleRef
from bedside.scan import Entry, Grid, Volume
from bedside.segmentation import Job, Progress, Request
from fake_ct import TISSUES, make_engine, make_manifest, paint, see
from made_scans import phantom_scan

Hu = npt.NDArray[np.float32]
BLANK = OpacificationResult(
    "scan", BundleRef("fake-ct", "1.0.0", "0" * 64), EngineInfo("fake", "0", "fp32", "none", None)
)


@pytest.fixture(scope="module")
def labels() -> npt.NDArray[np.uint8]:
    return phantom_scan("severe", 40, 96)[1]


@pytest.fixture(scope="module")
def scan(labels: npt.NDArray[np.uint8]) -> Volume:
    return Volume(paint(labels), phantom_scan("severe", 40, 96)[2].affine)


@dataclass
class Kept:
    """A sink that keeps what it is given."""

    labels: dict[int, npt.NDArray[np.uint8]] = field(default_factory=dict)
    probabilities: dict[int, Hu] = field(default_factory=dict)

    def put(self, index: int, labels: npt.NDArray[np.uint8], probabilities: Callable[[], Hu]) -> None:
        self.labels[index] = labels
        self.probabilities[index] = probabilities()


def run(scan: Volume, request: Request | None = None, **changes: Any) -> OpacificationResult:
    return Job(make_manifest(**changes), make_engine(), request or Request()).run(scan, BLANK)


def code_of(call: Callable[[], object], kind: type[BedsideError]) -> str:
    with pytest.raises(kind) as caught:
        call()
    return caught.value.code


@pytest.mark.parametrize(
    "tiling",
    [
        Tiling((96, 96), 0.0, "gaussian", multiple=8, smallest=16),
        Tiling((32, 48), 0.5, "gaussian", multiple=8, smallest=16),
        Tiling((40, 40), 0.25, "flat", multiple=8, smallest=16, skip="body"),
    ],
    ids=["whole slices", "tiles", "body"],
)
def test_labels_are_those_of_the_network_whatever_the_tiles(
    scan: Volume, labels: npt.NDArray[np.uint8], tiling: Tiling
) -> None:
    kept = Kept()
    result = run(scan, Request(sink=lambda _: kept), tiling=tiling)
    assert sorted(kept.labels) == list(range(40))
    assert np.array_equal(np.stack([kept.labels[index] for index in range(40)]), labels)
    assert all((kept.probabilities[i].argmax(axis=0) == kept.labels[i]).all() for i in range(40))
    found = result.opacification
    assert found is not None
    truth = np.bincount(labels.ravel(), minlength=5) * scan.grid.voxel_ml
    assert [tissue.ml for tissue in found.tissues] == pytest.approx(truth.tolist(), rel=1e-5)
    assert found.read_share == 1


def test_fixed_tiles_and_neighbouring_slices_and_volumes_give_the_same(scan: Volume) -> None:
    spec = make_manifest().input
    plain = run(scan).opacification
    fixed = run(
        scan,
        input=replace(spec, shape=(1, 1, 48, 48)),
        tiling=Tiling((48, 48), 0.25, "gaussian"),
    )
    beside = run(
        scan,
        input=replace(spec, shape=(None, 3, None, None)),
        tiling=Tiling((64, 64), 0.25, "gaussian", multiple=8, smallest=16, context=1),
    )

    def see_volume(inputs: Mapping[str, Hu]) -> dict[str, Any]:
        image = inputs["image"][0, 0]  # (1, 1, D, H, W) -> (D, H, W)
        answers = see({"image": image[:, None]})["tissues"]
        return {"tissues": np.ascontiguousarray(np.moveaxis(answers, 1, 0))[None]}

    manifest = make_manifest(
        input=replace(spec, shape=(1, 1, 8, 48, 48)), tiling=Tiling((8, 48, 48), 0.25, "gaussian")
    )
    volume = Job(manifest, FakeBackend(see_volume), Request()).run(scan, BLANK)
    assert plain is not None
    for other in (fixed, beside, volume):
        assert other.opacification is not None
        assert other.opacification.both.opacity_ml == pytest.approx(plain.both.opacity_ml, rel=1e-6)
        assert other.opacification.curve == plain.curve


@pytest.mark.parametrize("spacing", [6.0, 4.2, 2.0])
def test_networks_spacing_keeps_volumes(labels: npt.NDArray[np.uint8], scan: Volume, spacing: float) -> None:
    def see_two(inputs: Mapping[str, Hu]) -> dict[str, Any]:
        lung = inputs["image"][:, 0] < 0
        none = np.zeros_like(lung)
        return {"tissues": np.stack([~lung, lung, none, none, none], axis=1).astype(np.float32)}

    hu = np.where(labels > 0, np.float32(-800), np.float32(0))  # 0 on the network's scale lies halfway
    manifest = make_manifest(input=replace(make_manifest().input, spacing_mm=(spacing, spacing)))
    found = Job(manifest, FakeBackend(see_two), Request()).run(Volume(hu, scan.affine), BLANK).opacification
    assert found is not None
    truth = np.count_nonzero(labels) * scan.grid.voxel_ml
    assert found.tissues[1].ml == pytest.approx(truth, rel=0.02)
    assert found.tissues[1].ml_expected == pytest.approx(truth, rel=0.02)


def test_progress_ends_at_the_answer(scan: Volume) -> None:
    told: list[Progress] = []
    result = run(scan, Request(progress=told.append))
    assert [each.done for each in told][-1] == told[-1].total == 40
    estimates = [each.estimate for each in told if each.estimate is not None]
    assert len(estimates) >= 3
    found = result.opacification
    assert found is not None
    assert estimates[0].low <= found.both.opacity_ml <= estimates[0].high
    assert told[0].predicted_bytes > 0


@dataclass
class SlowScan:
    """A scan whose slices take their time."""

    volume: Volume
    seconds: float
    reads: list[int] = field(default_factory=list)
    broken: int | None = None
    closed: bool = False

    @property
    def grid(self) -> Grid:
        return self.volume.grid

    @property
    def ledger(self) -> tuple[Entry, ...]:
        return self.volume.ledger

    def read(self, slices: Sequence[int]) -> Hu:
        if len(self.reads) >= 9 and self.broken in slices:  # after the look at some slices
            raise InputError("broken-pixels", "slice 8 of 40 can't be decoded")
        self.reads += slices
        time.sleep(self.seconds * len(slices))
        return self.volume.read(slices)

    def close(self) -> None:
        self.closed = True


def test_deadline_gives_an_estimate_with_an_interval(scan: Volume) -> None:
    kept = Kept()
    slow = SlowScan(scan, 0.08)
    result = run(slow, Request(deadline_s=0.3 + 40 * 0.08, sink=lambda _: kept))  # type: ignore[arg-type]
    found = result.opacification
    assert found is not None
    assert 5 / 40 <= found.read_share < 1
    assert len(kept.labels) == round(40 * found.read_share)
    assert found.sampling is not None
    assert found.sampling.low < found.both.opacity_ml < found.sampling.high
    areas = np.zeros(40)
    for index, labels in kept.labels.items():
        areas[index] = np.count_nonzero(labels >= 3) * scan.grid.voxel_ml
    read = np.array(sorted(kept.labels))
    expected = estimate_sum(read, areas[read], 40)  # whose coverage test_sampling.py measures
    assert (found.sampling.low, found.sampling.high) == pytest.approx((expected.low, expected.high), rel=1e-5)


def test_generous_deadline_reads_all(scan: Volume) -> None:
    found = run(scan, Request(deadline_s=600)).opacification
    assert found is not None
    assert found.read_share == 1
    assert found.sampling is None


def test_deadline_that_nothing_can_keep_is_refused_with_one_that_can(scan: Volume) -> None:
    with pytest.raises(LimitError) as caught:
        run(SlowScan(scan, 0.2), Request(deadline_s=0.5))  # type: ignore[arg-type]
    assert caught.value.code == "deadline-too-short"
    assert "give about" in caught.value.message


def test_memory_too_small_is_refused_with_the_least_that_works(scan: Volume) -> None:
    with pytest.raises(LimitError) as caught:
        run(scan, Request(memory_bytes=MIB))
    assert caught.value.code == "memory-too-small"
    least = int(caught.value.message.split("--memory ")[1].split("MiB")[0])
    assert run(scan, Request(memory_bytes=(least + 8) * MIB)).opacification is not None


def test_less_memory_gives_smaller_slabs_and_the_same_answer(scan: Volume) -> None:
    told: list[Progress] = []
    with pytest.raises(LimitError) as caught:
        run(scan, Request(memory_bytes=MIB))
    least = int(caught.value.message.split("--memory ")[1].split("MiB")[0])
    tight = run(scan, Request(memory_bytes=(least + 1) * MIB, progress=told.append)).opacification
    assert max(b.done - a.done for a, b in pairwise(told)) < 8
    assert tight == run(scan).opacification


def test_slice_that_breaks_late_ends_the_scan_with_its_reason(scan: Volume) -> None:
    slow = SlowScan(scan, 0.0, broken=7)
    assert code_of(lambda: run(slow), InputError) == "broken-pixels"  # type: ignore[arg-type]
    assert threading.active_count() < 10


def test_ctrl_c_in_progress_ends_at_once_and_closes(scan: Volume) -> None:
    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(scan, Request(progress=stop))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("bedside-")]


def test_sink_that_fails_ends_the_scan(scan: Volume) -> None:
    class Full:
        def put(self, index: int, labels: object, probabilities: object) -> None:
            raise OSError(28, "full")

    with pytest.raises(OSError, match="full"):
        run(scan, Request(sink=lambda _: Full()))


def test_answer_that_is_not_finite_is_an_error(scan: Volume) -> None:
    def answer(inputs: Mapping[str, Hu]) -> dict[str, Any]:
        return {"tissues": see(inputs)["tissues"] * np.float32("nan")}

    job = Job(make_manifest(), FakeBackend(answer), Request())
    assert code_of(lambda: job.run(scan, BLANK), BackendError) == "not-finite"


def test_scan_without_lungs_is_refused(scan: Volume) -> None:
    rng = np.random.default_rng(0)
    body = np.full(scan.hu.shape, 40, np.float32) + 20 * rng.standard_normal(scan.hu.shape).astype(np.float32)
    body[:, :20] = body[:, -20:] = -1000
    body[:, 20:24] = -100
    body[:, 40:44, 40:44] = 700
    assert code_of(lambda: run(Volume(body, scan.affine)), RefusedError) == "no-lungs"


def test_constant_scan_is_refused(scan: Volume) -> None:
    assert code_of(lambda: run(Volume(np.zeros_like(scan.hu), scan.affine)), RefusedError) == "constant-image"


def test_scan_that_ends_inside_the_lungs_says_so(scan: Volume) -> None:
    cut = Volume(scan.hu[:25], scan.affine)
    assert [note.code for note in run(cut).quality] == ["lungs-cut"]
    assert run(scan).quality == ()


def test_pictures_lie_in_the_lungs_and_show_their_labels(scan: Volume, labels: npt.NDArray[np.uint8]) -> None:
    result = run(scan, Request(keep_pictures=True))
    assert len(result.pictures) == 12
    for picture in result.pictures:
        assert np.array_equal(picture.labels, labels[picture.index])
        assert np.array_equal(picture.hu, scan.hu[picture.index])
        assert picture.labels.any()
    assert run(scan).pictures == ()


def test_empty_slices_are_not_predicted(scan: Volume) -> None:
    engine = make_engine()
    air = np.full((10, *scan.hu.shape[1:]), -1000, np.float32)
    padded = Volume(np.concatenate([air, scan.hu]), scan.affine)
    Job(make_manifest(), engine, Request()).run(padded, BLANK)
    assert len(engine.calls) <= 1 + 40  # the first is the one that measures the memory
    assert TISSUES[0].name == "background"
