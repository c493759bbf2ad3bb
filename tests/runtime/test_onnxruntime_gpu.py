"""ONNX Runtime on GPUs: what a provider is told, and what it answers.

How a session is run is tried on ONNX Runtime's provider for processors, which takes the same binding of memory. What a
GPU alone can tell is marked ``gpu``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bedside.backends import Backend, Tuning, open_backend
from bedside.bundle import Bundle
from bedside.errors import BackendError, BundleError
from made_onnxruntime import PROCESSOR, PROVIDERS, files_bundle, has_gpu, open_leaf, with_gpu
from tiny_bundle import Network, golden_images, make_bundle
from tiny_ct_bundle import make_ct_bundle

onnxruntime = pytest.importorskip("onnxruntime")

from bedside.backends.onnxruntime_gpu.providers import CUDA, TENSORRT, Provider  # noqa: E402


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return files_bundle(tmp_path_factory.mktemp("bundle") / "b")


# Precision and what a provider is told


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *(("onnxruntime-cuda", each) for each in ("bf16", "int8", "int8-bf16", "int8-fp16")),
        *(("onnxruntime-tensorrt", each) for each in ("bf16", "int8-bf16")),
    ],
)
def test_precision_that_a_provider_has_not_is_refused(name: str, precision: str, bundle: Bundle) -> None:
    with pytest.raises(BackendError) as caught:
        open_leaf(bundle, PROVIDERS[name], with_gpu(PROVIDERS[name]), precision=precision)
    assert caught.value.code == "engine-unsupported"
    assert precision in caught.value.message


def test_precision_that_the_bundle_has_not_is_told(tmp_path: Path) -> None:
    plain = Bundle.open(make_bundle(tmp_path / "b"))
    with pytest.raises(BundleError) as caught:
        open_leaf(plain, CUDA, with_gpu(CUDA), precision="fp16")
    assert caught.value.code == "bundle-precision"


def told(bundle: Bundle, provider: Provider, **how: Any) -> tuple[Mapping[str, str], Mapping[str, str]]:
    library = with_gpu(provider)
    open_leaf(bundle, provider, library, **how)
    ((options, entries, _),) = library.told
    return options, entries


@pytest.mark.parametrize("name", PROVIDERS)
def test_processor_is_never_taken_in_silence(name: str, bundle: Bundle) -> None:
    _, entries = told(bundle, PROVIDERS[name])
    assert entries["session.disable_cpu_ep_fallback"] == "1"
    assert entries["session.load_model_format"] == "ONNX"


def test_cuda_computes_fp32_in_float32_and_replays_a_graph(bundle: Bundle) -> None:
    options, _ = told(bundle, CUDA)
    assert options["use_tf32"] == "0"
    assert options["enable_cuda_graph"] == "1"


@pytest.mark.parametrize(
    ("precision", "fp16", "int8"),
    [("fp32", "0", "0"), ("fp16", "1", "0"), ("int8", "0", "1"), ("int8-fp16", "1", "1")],
)
def test_tensorrt_takes_half_precision_only_when_asked(
    precision: str, fp16: str, int8: str, bundle: Bundle
) -> None:
    options, _ = told(bundle, TENSORRT, precision=precision)
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == (fp16, int8)


def test_tensorrt_is_told_of_workspace_and_accelerator(bundle: Bundle) -> None:
    options, _ = told(bundle, TENSORRT, workspace_bytes=1 << 20, dla=1)
    assert options["trt_max_workspace_size"] == "1048576"
    assert (options["trt_dla_enable"], options["trt_dla_core"]) == ("1", "1")
    options, _ = told(bundle, TENSORRT)
    assert not {"trt_max_workspace_size", "trt_dla_enable", "trt_engine_cache_enable"} & set(options)


# Running


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_answers_of_a_batch_are_those_of_its_pictures_in_order(batch: int, size: int, bundle: Bundle) -> None:
    pictures = np.concatenate([golden_images()] * 3)[:size]
    pictures = (pictures * np.linspace(0.1, 1, size)[:, None, None, None]).astype(np.float32)
    engine = open_leaf(bundle, PROCESSOR, with_gpu(PROCESSOR), batch=batch)
    answers = engine.run({"image": pictures})
    for name, values in Network(lungs=True).run(pictures).items():
        assert answers[name].dtype == np.float32
        np.testing.assert_allclose(answers[name], values, rtol=1e-5, atol=1e-5)


def test_outputs_belong_to_the_caller(bundle: Bundle) -> None:
    engine = open_leaf(bundle, PROCESSOR, with_gpu(PROCESSOR))
    first = engine.run({"image": golden_images()[:1]})
    kept = {name: values.copy() for name, values in first.items()}
    engine.run({"image": golden_images()[1:2]})
    for name, values in first.items():
        np.testing.assert_array_equal(values, kept[name])


def test_session_has_run_before_the_first_picture_comes(bundle: Bundle) -> None:
    engine = open_leaf(bundle, PROCESSOR, with_gpu(PROCESSOR))
    (lane,) = engine._lanes.values()
    session: Any = lane._session
    assert session.runs == 3
    engine.run({"image": golden_images()[:1]})
    assert (session.runs, list(engine._lanes.values())) == (4, [lane])


def test_each_shape_has_a_session_of_fixed_sizes_and_few_are_kept(tmp_path: Path) -> None:
    bundle = Bundle.open(make_ct_bundle(tmp_path / "b"))
    library = with_gpu(PROCESSOR)
    engine = open_leaf(bundle, PROCESSOR, library, tile=(48, 40), batch=3)
    assert sorted(library.told[0][2].values()) == [3, 40, 48]
    for side in (16, 24, 32, 40, 48):
        tile = np.linspace(-1, 1, side * side, dtype=np.float32).reshape(1, 1, side, side)
        answer = next(iter(engine.run({"slice": tile}).values()))
        want = open_backend("onnxruntime", bundle).run({"slice": tile})
        np.testing.assert_allclose(answer, next(iter(want.values())), rtol=1e-5, atol=1e-6)
    assert list(engine._lanes) == [(1, side, side) for side in (24, 32, 40, 48)]


@pytest.mark.parametrize(
    "wrong", [{}, {"image": golden_images()[0]}, {"image": golden_images().astype(np.float64)}]
)
def test_wrong_input_is_refused(wrong: dict[str, Any], bundle: Bundle) -> None:
    engine = open_leaf(bundle, PROCESSOR, with_gpu(PROCESSOR))
    with pytest.raises(BackendError) as caught:
        engine.run(wrong)
    assert caught.value.code == "engine-failed"


def test_closed_engine_does_not_run(bundle: Bundle) -> None:
    engine = open_leaf(bundle, PROCESSOR, with_gpu(PROCESSOR))
    engine.close()
    engine.close()
    with pytest.raises(BackendError) as caught:
        engine.run({"image": golden_images()[:1]})
    assert caught.value.code == "engine-failed"


def test_engine_says_what_runs(bundle: Bundle) -> None:
    info = open_leaf(bundle, TENSORRT, with_gpu(TENSORRT), precision="int8-fp16").info
    assert (info.backend, info.precision, info.device) == ("onnxruntime-tensorrt", "int8-fp16", "GPU")


# On a GPU


needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not has_gpu(), reason="there is no NVIDIA GPU"),
    pytest.mark.skipif(
        "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
        reason="this build of ONNX Runtime has no CUDA",
    ),
]


def on_gpu(name: str, bundle: Bundle, **how: Any) -> Backend:
    try:
        return open_backend(name, bundle, **how)
    except BackendError as error:
        assert error.code == "engine-unsupported"  # noqa: PT017 -- e.g. no TensorRT beside it
        pytest.skip(error.message)


class TestOnGpu:
    pytestmark = needs_gpu

    @pytest.mark.parametrize("batch", [1, 4])
    @pytest.mark.parametrize("name", PROVIDERS)
    def test_answers_are_those_of_numpy(self, name: str, batch: int, bundle: Bundle) -> None:
        engine = on_gpu(name, bundle, tuning=Tuning(batch=batch))
        for _ in range(3):
            for pictures in (golden_images(), golden_images()[:1], golden_images()[::-1]):
                answers = engine.run({"image": pictures})
                for key, values in Network(lungs=True).run(pictures).items():
                    np.testing.assert_allclose(answers[key], values, rtol=1e-4, atol=1e-3)

    def test_kept_engine_is_taken_again(self, bundle: Bundle, tmp_path: Path) -> None:
        first = on_gpu("onnxruntime-tensorrt", bundle, tuning=Tuning(cache=tmp_path))
        engines = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.engine")}
        assert engines
        again = on_gpu("onnxruntime-tensorrt", bundle, tuning=Tuning(cache=tmp_path))
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.engine")} == engines
        picture = {"image": golden_images()[:1]}
        np.testing.assert_array_equal(again.run(picture)["severity"], first.run(picture)["severity"])
