"""Running engines: buffers, graphs, batches and shapes, and which engine is taken, on a TensorRT and a CUDA made up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bedside.backends.tensorrt import backend as module
from bedside.backends.tensorrt.backend import EngineBackend
from bedside.backends.tensorrt.session import MAX_LANES
from bedside.bundle import Bundle
from bedside.errors import BackendError
from made_cuda import FakeCudart
from made_tensorrt import FakeTensorRt, check, images, start
from tiny_bundle import golden_images, make_bundle
from tiny_ct_bundle import TILE, ThresholdNetwork, make_ct_bundle

Open = Callable[..., EngineBackend]


@pytest.fixture
def cudart(monkeypatch: pytest.MonkeyPatch) -> FakeCudart:
    fake = FakeCudart()
    monkeypatch.setattr(module, "load_runtime", lambda _extra: fake)
    return fake


@pytest.fixture(params=[False, True], ids=["tensorrt", "rtx"])
def api(request: pytest.FixtureRequest, cudart: FakeCudart) -> FakeTensorRt:
    return FakeTensorRt(cudart, rtx=request.param)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_bundle(tmp_path_factory.mktemp("cxr") / "b"))


@pytest.fixture(scope="module")
def ct_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_ct_bundle(tmp_path_factory.mktemp("ct") / "b"))


# Right answers


def test_answers_are_the_network_s_for_every_batch(api: FakeTensorRt, bundle: Bundle) -> None:
    engine = start(api, bundle, batch=4)
    for count in (1, 2, 4, 3, 1, 4):
        check(engine, count)


def test_batch_beyond_the_engine_s_is_run_in_turns(api: FakeTensorRt, bundle: Bundle) -> None:
    engine = start(api, bundle, batch=4)
    check(engine, 11)
    check(start(api, bundle), 3)


def test_answers_belong_to_the_caller(api: FakeTensorRt, bundle: Bundle) -> None:
    engine = start(api, bundle)
    first = engine.run({"image": golden_images()[:1]})
    kept = {name: values.copy() for name, values in first.items()}
    engine.run({"image": golden_images()[1:2]})
    for name, values in first.items():
        np.testing.assert_array_equal(values, kept[name])
        values[:] = -1
    np.testing.assert_array_equal(engine.run({"image": golden_images()[:1]})["severity"], kept["severity"])


def test_input_may_be_of_any_memory_order(api: FakeTensorRt, bundle: Bundle) -> None:
    image = golden_images()[2:3]
    flipped = np.ascontiguousarray(image[..., ::-1])[..., ::-1]
    engine = start(api, bundle)
    np.testing.assert_array_equal(engine.run({"image": flipped})["cam"], engine.run({"image": image})["cam"])


def test_wrong_input_is_refused(api: FakeTensorRt, bundle: Bundle) -> None:
    engine = start(api, bundle)
    for wrong in (
        {},
        {"image": images(1)[0]},
        {"image": images(1).astype(np.float64)},
        {"image": images(1)[:0]},
    ):
        with pytest.raises(BackendError) as caught:
            engine.run(wrong)
        assert caught.value.code == "engine-failed"


# Graphs and memory


def test_each_shape_is_captured_once_and_then_launched(
    api: FakeTensorRt, bundle: Bundle, cudart: FakeCudart
) -> None:
    engine = start(api, bundle, batch=2)
    assert (
        cudart.count("cudaStreamBeginCapture") == 1
    )  # of the shape that it is tuned for, when it was opened
    copies = cudart.count("cudaMemcpyAsync")
    for _ in range(5):
        check(engine, 1)
    assert cudart.count("cudaGraphLaunch") == 5
    assert cudart.count("cudaMemcpyAsync") == copies
    check(engine, 2)
    check(engine, 2)
    assert cudart.count("cudaStreamBeginCapture") == 2
    assert cudart.count("cudaGraphLaunch") == 6


def test_nothing_is_allocated_once_it_is_open(api: FakeTensorRt, bundle: Bundle, cudart: FakeCudart) -> None:
    engine = start(api, bundle, batch=4)
    taken = cudart.count("cudaMalloc"), cudart.count("cudaMallocHost")
    for count in (1, 4, 2, 3, 8):
        check(engine, count)
    assert (cudart.count("cudaMalloc"), cudart.count("cudaMallocHost")) == taken


def test_engine_that_no_graph_can_hold_runs_without(
    api: FakeTensorRt, bundle: Bundle, cudart: FakeCudart
) -> None:
    api.capturable = False
    engine = start(api, bundle)
    for _ in range(3):
        check(engine, 1)
    assert cudart.count("cudaGraphLaunch") == 0
    assert cudart.count("cudaStreamBeginCapture") <= 1


def test_old_shapes_make_room_for_new_ones(api: FakeTensorRt, bundle: Bundle, cudart: FakeCudart) -> None:
    engine = start(api, bundle, batch=MAX_LANES + 3)
    for count in (*range(1, MAX_LANES + 4), 1):
        check(engine, count)
    assert len(cudart.graphs) == MAX_LANES


def test_closed_engine_gives_all_back_and_does_not_run(
    api: FakeTensorRt, bundle: Bundle, cudart: FakeCudart
) -> None:
    engine = start(api, bundle, batch=2)
    check(engine, 2)
    assert cudart.leaks
    engine.close()
    engine.close()
    assert cudart.leaks == 0
    with pytest.raises(BackendError) as caught:
        engine.run({"image": images(1)})
    assert caught.value.code == "engine-failed"


@pytest.mark.parametrize("budget", [0, 500, 5_000, 20_000])
def test_gpu_without_enough_memory_is_told_and_gives_back_what_was_taken(
    budget: int, api: FakeTensorRt, bundle: Bundle, cudart: FakeCudart
) -> None:
    cudart.budget = budget
    with pytest.raises(BackendError) as caught:
        start(api, bundle, batch=4)
    assert caught.value.code == "engine-failed"
    assert "cudaErrorMemoryAllocation" in caught.value.message
    assert cudart.leaks == 0


# Tiles


def ct_engine(api: FakeTensorRt, bundle: Bundle, **tuning: Any) -> EngineBackend:
    api.respond = ThresholdNetwork().run
    return start(api, bundle, **tuning)


def test_tiles_of_open_sides_run_on_the_profile_that_takes_them(api: FakeTensorRt, ct_bundle: Bundle) -> None:
    engine = ct_engine(api, ct_bundle, batch=2)
    for sides in ((TILE, TILE), (TILE, 2 * TILE), (TILE, TILE), (2 * TILE, TILE)):
        for count in (1, 3):
            tile = np.random.default_rng(0).uniform(0, 1, (count, 1, *sides)).astype(np.float32)
            given = engine.run({"slice": tile})["tissues"]
            np.testing.assert_allclose(given, ThresholdNetwork().run(tile)["tissues"], atol=1e-5)


def test_memory_of_the_open_profile_is_taken_when_it_is_needed(
    api: FakeTensorRt, ct_bundle: Bundle, cudart: FakeCudart
) -> None:
    engine = ct_engine(api, ct_bundle)
    taken = cudart.count("cudaMalloc")
    engine.run({"slice": np.zeros((1, 1, TILE, TILE), np.float32)})
    assert cudart.count("cudaMalloc") == taken
    engine.run({"slice": np.zeros((1, 1, TILE, 2 * TILE), np.float32)})
    assert cudart.count("cudaMalloc") > taken
    engine.close()
    assert cudart.leaks == 0


def test_tile_that_the_engine_was_not_built_for_is_told(api: FakeTensorRt, ct_bundle: Bundle) -> None:
    engine = ct_engine(api, ct_bundle)
    with pytest.raises(BackendError) as caught:
        engine.run({"slice": np.zeros((1, 1, TILE, 3 * TILE), np.float32)})
    assert caught.value.code == "engine-unsupported"
    assert f"{TILE} x {3 * TILE}" in caught.value.message
    assert f"{2 * TILE} x {2 * TILE}" in caught.value.message


@pytest.mark.parametrize("tile", [(TILE,), (TILE, TILE, TILE), (0, TILE), (-TILE, TILE), (1 << 20, TILE)])
def test_tile_that_the_network_does_not_take_is_told(
    api: FakeTensorRt, ct_bundle: Bundle, tile: tuple[int, ...]
) -> None:
    with pytest.raises(BackendError) as caught:
        ct_engine(api, ct_bundle, tile=tile)
    assert caught.value.code == "engine-unsupported"
    assert f"give one like {TILE} x {TILE}" in caught.value.message
