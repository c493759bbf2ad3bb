"""The seam to the engines: what was asked for runs and answers right, in its precision and on its threads."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import tiny_bundle
from bedside.backends import BACKENDS, Backend, FakeBackend, Tuning, open_backend
from bedside.backends.base import check_inputs
from bedside.bundle import Bundle, Input
from bedside.errors import BackendError
from processor_engines import ENGINES
from tiny_bundle import MODEL, SIDE, Network, golden_images, make_bundle, read_manifest, seal

Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_bundle(tmp_path_factory.mktemp("bundle") / "b", network=Network(lungs=True)))


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, bundle: Bundle) -> Backend:
    pytest.importorskip(BACKENDS[request.param].package)
    return open_backend(request.param, bundle)


def dense_bundle(folder: Path, *, batch: int | None = None) -> tuple[Bundle, npt.NDArray[np.float64]]:
    """A bundle whose severity is one product of 1,024 terms, and its weights ``(1024, 2)``."""
    weights = np.random.default_rng(3).normal(size=(SIDE * SIDE, 2)).astype(np.float32).astype(np.float64)
    nodes = [
        tiny_bundle._node("Flatten", ["image"], "flat"),
        tiny_bundle._node("MatMul", ["flat", "weights"], "severity"),
    ]
    graph = [tiny_bundle._bytes(1, node) for node in nodes]
    graph += [
        tiny_bundle._bytes(2, b"dense"),
        tiny_bundle._bytes(5, tiny_bundle._tensor("weights", weights)),
        tiny_bundle._bytes(11, tiny_bundle._value("image", (batch or "N", 1, SIDE, SIDE))),
        tiny_bundle._bytes(12, tiny_bundle._value("severity", (batch or "N", 2))),
    ]
    opset = tiny_bundle._bytes(1, b"") + tiny_bundle._varint_field(2, 18)
    make_bundle(folder)
    (folder / MODEL).write_bytes(
        tiny_bundle._varint_field(1, 8)
        + tiny_bundle._bytes(7, b"".join(graph))
        + tiny_bundle._bytes(8, opset)
    )
    manifest = {key: value for key, value in read_manifest(folder).items() if key != "files"}
    manifest["outputs"] = manifest["outputs"][:1]
    manifest["input"]["shape"][0] = batch
    return Bundle.open(seal(folder, manifest)), weights


def picture(seed: int = 0) -> Floats:
    return np.random.default_rng(seed).uniform(0.5, 1, (1, 1, SIDE, SIDE)).astype(np.float32)


# Right answers


def test_outputs_are_those_of_numpy(engine: Backend) -> None:
    images = golden_images()
    for batch in (images, *(images[i : i + 1] for i in range(3))):
        expected = Network(lungs=True).run(batch)
        outputs = engine.run({"image": batch})
        assert list(outputs) == list(expected)
        for name, values in expected.items():
            assert outputs[name].dtype == np.float32
            np.testing.assert_allclose(outputs[name], values, rtol=1e-5, atol=1e-5)


def test_a_picture_has_its_answer_whatever_batches_come_between(engine: Backend) -> None:
    images = golden_images()
    alone = engine.run({"image": images[:1]})
    for size in (2, 3, 2):
        assert engine.run({"image": images[:size]})["severity"].shape == (size, 2)
        again = engine.run({"image": images[:1]})
        for name, values in alone.items():
            np.testing.assert_array_equal(again[name], values)


@pytest.mark.parametrize("name", ENGINES)
def test_graph_of_a_fixed_batch_runs(name: str, tmp_path: Path) -> None:
    pytest.importorskip(BACKENDS[name].package)
    bundle, weights = dense_bundle(tmp_path / "b", batch=1)
    engine = open_backend(name, bundle)
    severity = engine.run({"image": picture()})["severity"]
    np.testing.assert_allclose(severity, picture().reshape(1, -1) @ weights, rtol=1e-4, atol=1e-4)
    with pytest.raises(BackendError) as caught:
        engine.run({"image": np.concatenate([picture(), picture()])})
    assert caught.value.code == "engine-failed"


def test_outputs_belong_to_the_caller(engine: Backend) -> None:
    images = golden_images()
    first = engine.run({"image": images[:1]})
    kept = {name: values.copy() for name, values in first.items()}
    engine.run({"image": images[1:2]})
    for name, values in first.items():
        np.testing.assert_array_equal(values, kept[name])
        values[:] = -1
    np.testing.assert_array_equal(engine.run({"image": images[:1]})["severity"], kept["severity"])


def test_input_is_left_alone_and_may_be_of_any_memory_order(engine: Backend) -> None:
    image = golden_images()[2:3]
    flipped = np.ascontiguousarray(image[..., ::-1])[..., ::-1]
    flipped.flags.writeable = False
    assert not flipped.flags.c_contiguous
    want = engine.run({"image": image})
    np.testing.assert_array_equal(engine.run({"image": flipped})["severity"], want["severity"])
    np.testing.assert_array_equal(image, golden_images()[2:3])


def test_engine_says_what_runs(bundle: Bundle) -> None:
    for name in ENGINES:
        pytest.importorskip(BACKENDS[name].package)
        for threads in (None, 1, 2):
            info = open_backend(name, bundle, threads=threads).info
            assert (info.backend, info.precision, info.device, info.threads) == (name, "fp32", "CPU", threads)
            assert info.version[0].isdigit()


# Precision


@pytest.mark.parametrize("name", ENGINES)
def test_fp32_is_fp32(name: str, tmp_path: Path) -> None:
    pytest.importorskip(BACKENDS[name].package)
    bundle, weights = dense_bundle(tmp_path / "b")
    image = picture()
    exact = image.reshape(1, -1).astype(np.float64) @ weights
    scale = np.abs(image.reshape(1, -1).astype(np.float64)) @ np.abs(weights)
    severity = open_backend(name, bundle, precision="fp32").run({"image": image})["severity"]
    assert np.max(np.abs(severity - exact) / scale) < 1e-6


def _openvino_bf16(bundle: Bundle) -> Backend:
    pytest.importorskip("openvino")
    try:
        return open_backend("openvino", bundle, precision="bf16")
    except BackendError as error:
        assert error.code == "engine-unsupported"  # noqa: PT017 -- a processor without bf16
        pytest.skip("this processor has no bf16 arithmetic")


def test_bf16_is_bf16(tmp_path: Path) -> None:
    """bf16 keeps 8 bits of a factor: each is off by at most 2**-8 of itself, and all are hardly off by nothing."""
    bundle, weights = dense_bundle(tmp_path / "b")
    engine = _openvino_bf16(bundle)
    image = picture()
    exact = image.reshape(1, -1).astype(np.float64) @ weights
    scale = np.abs(image.reshape(1, -1).astype(np.float64)) @ np.abs(weights)
    off = np.max(np.abs(engine.run({"image": image})["severity"] - exact) / scale)
    assert 1e-5 < off < 3 * 2**-8
    assert engine.info.precision == "bf16"


# Threads


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell the cores of a thread")
@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: [0])(0)) < 2, reason="needs two cores")
@pytest.mark.parametrize("pinned", [True, False, None])
def test_threads_of_onnxruntime_are_tied_to_cores_as_asked_or_where_they_are_as_many(
    pinned: bool | None, bundle: Bundle
) -> None:
    pytest.importorskip("onnxruntime")
    wanted = len(os.sched_getaffinity(0)) == 2 if pinned is None else pinned
    tasks = Path("/proc/self/task")
    before = set(tasks.iterdir())
    engine = open_backend("onnxruntime", bundle, threads=2, tuning=Tuning(pinned=pinned))
    engine.run({"image": golden_images()})
    until = time.monotonic() + (10 if wanted else 0.2)  # a thread ties itself when it comes to run
    tied = False
    while not tied and time.monotonic() < until:
        started = [int(task.name) for task in set(tasks.iterdir()) - before]
        tied = any(len(os.sched_getaffinity(task)) == 1 for task in started)
        time.sleep(0.01)
    assert tied is wanted
    engine.close()


# Wrong inputs


WRONG_INPUTS: dict[str, dict[str, object]] = {
    "none": {},
    "another name": {"picture": picture()},
    "one too many": {"image": picture(), "other": picture()},
    "too small": {"image": picture()[:, :, : SIDE // 2]},
    "too large": {"image": np.zeros((1, 1, SIDE, SIDE + 1), np.float32)},
    "a dimension less": {"image": picture()[0]},
    "two channels": {"image": np.zeros((1, 2, SIDE, SIDE), np.float32)},
    "an empty batch": {"image": picture()[:0]},
    "float64": {"image": picture().astype(np.float64)},
    "uint8": {"image": np.zeros((1, 1, SIDE, SIDE), np.uint8)},
    "a list": {"image": picture().tolist()},
    "nothing": {"image": None},
}


@pytest.mark.parametrize("wrong", WRONG_INPUTS)
def test_wrong_input_is_refused_and_never_answered_from_memory(wrong: str, engine: Backend) -> None:
    """OpenVINO by itself answers on a missing or smaller input with what it holds of the one before."""
    right = engine.run({"image": golden_images()[:1]})
    with pytest.raises(BackendError) as caught:
        engine.run(WRONG_INPUTS[wrong])  # type: ignore[arg-type]
    assert caught.value.code == "engine-failed"
    np.testing.assert_array_equal(engine.run({"image": golden_images()[:1]})["severity"], right["severity"])


def test_fixed_batch_is_fixed() -> None:
    spec = Input("image", (1, 1, 4, 4), 0.0, 1.0, "centre-square")
    check_inputs({"image": np.zeros((1, 1, 4, 4), np.float32)}, spec)
    with pytest.raises(BackendError):
        check_inputs({"image": np.zeros((2, 1, 4, 4), np.float32)}, spec)


# Closing


def test_closed_engine_does_not_run(engine: Backend) -> None:
    engine.close()
    engine.close()
    with pytest.raises(BackendError) as caught:
        engine.run({"image": golden_images()[:1]})
    assert caught.value.code == "engine-failed"


# The fake


def test_fake_answers_remembers_and_says_what_it_is() -> None:
    fake: Backend = FakeBackend(lambda inputs: {"sum": inputs["image"].sum(keepdims=True)}, "bf16")
    assert isinstance(fake, FakeBackend)
    assert fake.run({"image": np.ones((1, 1, 2, 2), np.float32)})["sum"] == 4
    assert [list(call) for call in fake.calls] == [["image"]]
    assert (fake.info.backend, fake.info.precision) == ("fake", "bf16")
    assert "fake" not in BACKENDS
    fake.close()
    fake.close()
    assert fake.closed
    with pytest.raises(BackendError):
        fake.run({"image": picture()})
    assert len(fake.calls) == 1
