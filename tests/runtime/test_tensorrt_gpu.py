"""TensorRT on a real GPU. Nothing here runs without one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bedside.backends import BACKENDS, Backend, Tuning, open_backend
from bedside.backends.tensorrt.ahead import read_engine
from bedside.backends.tensorrt.backend import EngineBackend
from bedside.bundle import Bundle, built_in
from bedside.errors import BackendError
from bedside.verification import verify_golden
from made_tensorrt import half_bundle
from tiny_bundle import SIDE, Network

pytestmark = pytest.mark.gpu

NAMES = ("tensorrt", "tensorrt-rtx")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(BACKENDS[request.param].package)
    chosen: str = request.param
    return chosen


@pytest.fixture
def tiny(tmp_path: Path) -> Bundle:
    return Bundle.open(half_bundle(tmp_path / "b"))


@pytest.fixture
def engine(name: str, tiny: Bundle) -> Iterator[Backend]:
    with closing(open_here(name, tiny, "fp32", Tuning(batch=4))) as opened:
        yield opened


def open_here(name: str, bundle: Bundle, precision: str, tuning: Tuning) -> Backend:
    """The engine, or a skip where this GPU is none that the package builds for."""
    try:
        return open_backend(name, bundle, precision=precision, tuning=tuning)
    except BackendError as error:
        if error.code == "engine-unsupported":
            pytest.skip(error.message)
        raise


def images(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(count).uniform(-1000, 1000, (count, 1, SIDE, SIDE)).astype(np.float32)


def test_answers_are_those_of_numpy_in_every_batch(engine: Backend) -> None:
    for count in (1, 4, 2, 9, 1):
        given = engine.run({"image": images(count)})
        for output, values in Network(pathologies=False).run(images(count)).items():
            np.testing.assert_allclose(given[output], values, rtol=1e-5, atol=1e-4)


def test_replayed_graph_answers_as_the_first_run(engine: Backend) -> None:
    first = engine.run({"image": images(2)})
    for count in (1, 3, 2):
        engine.run({"image": images(count)})
    for output, values in engine.run({"image": images(2)}).items():
        np.testing.assert_array_equal(values, first[output])


def test_engine_is_inspected_on_its_gpu(name: str, tiny: Bundle) -> None:
    with closing(open_here(name, tiny, "fp16", Tuning())) as opened:
        assert isinstance(opened, EngineBackend)
        inspection = opened.inspect()
    assert inspection.source == "inspector"
    assert inspection.layers
    assert {each.dtype for each in inspection.bindings} == {"float32"}


@pytest.mark.parametrize("bundle_name", built_in())
def test_built_in_bundles_stay_inside_their_tolerances(name: str, bundle_name: str, tmp_path: Path) -> None:
    bundle = Bundle.open(bundle_name)
    for precision in bundle.manifest.models:
        with closing(open_here(name, bundle, precision, Tuning(cache=tmp_path))) as opened:
            verdict = verify_golden(bundle, opened)
        assert verdict.passed, (precision, verdict.agreements)


def test_kept_engine_answers_the_same_and_is_not_built_again(name: str, tiny: Bundle, tmp_path: Path) -> None:
    told: list[str] = []
    tuning = Tuning(cache=tmp_path / "cache", progress=lambda phase, _done, _total: told.append(phase))
    with closing(open_here(name, tiny, "fp32", tuning)) as opened:
        first = opened.run({"image": images(1)})
    assert told
    told.clear()
    with closing(open_here(name, tiny, "fp32", tuning)) as opened:
        again = opened.run({"image": images(1)})
    assert told == []
    for output, values in first.items():
        np.testing.assert_allclose(again[output], values, rtol=1e-6, atol=1e-5)
    (path,) = (tmp_path / "cache").glob("*.engine")
    header = read_engine(path)
    assert header.site is not None
    assert dataclasses.astuple(header.site) > ("",)
