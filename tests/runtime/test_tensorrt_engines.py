"""Which engine is taken, and with which settings it is built, on a TensorRT and a CUDA made up."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from bedside.backends.tensorrt import backend as module
from bedside.backends.tensorrt.cuda import Cuda, load_runtime
from bedside.bundle import Bundle
from bedside.errors import BackendError, MissingExtraError
from made_cuda import FakeCudart
from made_tensorrt import FakeTensorRt, check, half_bundle, images, start
from tiny_bundle import MODEL, SIDE, Network, make_bundle


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


# What is built


def test_settings_reach_the_builder(cudart: FakeCudart, bundle: Bundle, tmp_path: Path) -> None:
    api = FakeTensorRt(cudart)
    start(api, bundle, batch=8, hint="throughput", workspace_bytes=1 << 20, cache=tmp_path / "cache")
    (built,) = api.built
    assert built["profiles"] == [("image", (1, 1, SIDE, SIDE), (8, 1, SIDE, SIDE), (8, 1, SIDE, SIDE))]
    assert built["cleared"] == ["TF32"]
    assert built["flags"] == []
    assert built["pools"] == {"WORKSPACE": 1 << 20}
    assert built["timing"] == 0
    start(api, bundle, batch=2, cache=tmp_path / "cache", workspace_bytes=1 << 10)
    assert api.built[-1]["timing"] == len(b"measured")


def test_rtx_is_built_for_the_gpu_that_is_here_and_touches_no_timing_cache(
    cudart: FakeCudart, bundle: Bundle, tmp_path: Path
) -> None:
    api = FakeTensorRt(cudart, rtx=True)
    engine = start(api, bundle, cache=tmp_path / "cache")
    (built,) = api.built
    assert built["capabilities"] == ["SM86"]
    assert built["flags"] == ["REQUIRE_USER_ALLOCATION"]
    assert built["timing"] is None
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".kernels", ".engine"}
    assert engine.info.device == "Fake GPU (8.6)"


def test_gpu_that_rtx_does_not_build_for_is_told(cudart: FakeCudart, bundle: Bundle) -> None:
    cudart.capability = "9.0"
    with pytest.raises(BackendError) as caught:
        start(FakeTensorRt(cudart, rtx=True), bundle)
    assert caught.value.code == "engine-unsupported"
    assert "'9.0'" in caught.value.message
    assert "7.5, 8.6, 12.0" in caught.value.message


def test_progress_is_told_in_the_caller_s_thread_and_may_stop_the_build(
    api: FakeTensorRt, bundle: Bundle
) -> None:
    steps: list[tuple[str, int, int]] = []
    start(api, bundle, progress=lambda *step: steps.append(step))
    assert steps == [("Building engine", done, 3) for done in range(4)]

    def stop(_phase: str, _done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(api, bundle, progress=stop)


@pytest.mark.parametrize("precision", ["bf16", "int8-bf16", "int8-fp16"])
def test_precision_that_is_in_no_graph_is_refused(precision: str, api: FakeTensorRt, bundle: Bundle) -> None:
    with pytest.raises(BackendError) as caught:
        start(api, bundle, precision)
    assert caught.value.code == "engine-unsupported"
    assert "strongly typed" in caught.value.message


def test_old_tensorrt_is_refused(cudart: FakeCudart, bundle: Bundle) -> None:
    api = FakeTensorRt(cudart)
    api.__version__ = "8.6.2"
    with pytest.raises(BackendError) as caught:
        start(api, bundle)
    assert caught.value.code == "engine-unsupported"
    assert "8.6.2 is too old" in caught.value.message


def test_engine_of_half_precision_borders_is_refused(api: FakeTensorRt, bundle: Bundle) -> None:
    api.output_type = "HALF"
    with pytest.raises(BackendError) as caught:
        start(api, bundle)
    assert caught.value.code == "engine-failed"
    assert "float16 and not float32" in caught.value.message


# The deep learning accelerator


def test_dla_is_asked_for_with_the_gpu_behind_it_and_says_so(cudart: FakeCudart, tmp_path: Path) -> None:
    api = FakeTensorRt(cudart, Network(pathologies=False).run)
    api.dla_cores = 2
    bundle = Bundle.open(half_bundle(tmp_path / "b"))
    engine = start(api, bundle, "fp16", dla=1, batch=4, cache=tmp_path / "cache")
    (built,) = api.built
    assert built["dla"] == 1
    assert built["flags"] == ["GPU_FALLBACK"]
    (bounds,) = built["profiles"]
    assert bounds[1:] == ((4, 1, SIDE, SIDE),) * 3
    assert api.opened[-1].DLA_core == 1
    assert engine.header.gpu_fallback
    assert engine.header.recipe.dla == 1
    assert engine.info.device == "Fake GPU (8.6), DLA core 1, what it can't run on the GPU"
    given = images(6)
    expected = Network(pathologies=False).run(given)["severity"]
    np.testing.assert_allclose(engine.run({"image": given})["severity"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("rtx", "precision", "cores", "words"),
    [
        (True, "fp16", 2, "tensorrt-rtx has no DLA"),
        (False, "fp32", 2, "fp16 and int8"),
        (False, "fp16", 0, "no DLA core 0"),
    ],
)
def test_dla_that_there_is_not_is_refused(
    rtx: bool, precision: str, cores: int, words: str, cudart: FakeCudart, tmp_path: Path
) -> None:
    api = FakeTensorRt(cudart, rtx=rtx)
    api.dla_cores = cores
    with pytest.raises(BackendError) as caught:
        start(api, Bundle.open(half_bundle(tmp_path / "b")), precision, dla=0)
    assert caught.value.code == "engine-unsupported"
    assert words in caught.value.message


# The cache


def test_second_start_takes_the_kept_engine(api: FakeTensorRt, bundle: Bundle, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = start(api, bundle, cache=cache)
    again = start(api, bundle, cache=cache)
    assert len(api.built) == 1
    assert again.header == first.header
    check(again, 1)


@pytest.mark.parametrize("what", ["GPU", "capability", "version", "bundle", "batch"])
def test_engine_of_something_else_is_built_anew(
    what: str, api: FakeTensorRt, bundle: Bundle, cudart: FakeCudart, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    start(api, bundle, cache=cache)
    before = len(api.opened)
    match what:
        case "GPU":
            cudart.name = "Another GPU"
        case "capability":
            cudart.capability = "12.0"
        case "version":
            api.__version__ = "10.4.0"
        case "bundle":
            bundle = Bundle.open(make_bundle(tmp_path / "other", title="another one"))
    check(start(api, bundle, cache=cache, batch=2 if what == "batch" else 1), 1)
    assert len(api.built) == 2
    assert len(api.opened) == 2 * before


def test_altered_engine_is_never_opened_and_built_anew(
    api: FakeTensorRt, bundle: Bundle, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    start(api, bundle, cache=cache)
    (path,) = cache.glob("*.engine")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    check(start(api, bundle, cache=cache), 1)
    assert len(api.built) == 2
    assert all(whole.endswith(opened.plan) for opened in api.opened)
    assert path.read_bytes() == whole


def test_plan_that_tensorrt_refuses_is_built_anew(api: FakeTensorRt, bundle: Bundle, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    engine = start(api, bundle, cache=cache)
    runtime = api.Runtime

    def once(log: Any) -> Any:
        made = runtime(log)
        made.deserialize_cuda_engine = lambda _plan: log.log(1, "of another build")
        api.Runtime = runtime  # type: ignore[method-assign]
        return made

    api.Runtime = once  # type: ignore[method-assign]
    assert start(api, bundle, cache=cache).header == engine.header
    assert len(api.built) == 2


def test_engine_that_does_not_open_after_its_build_is_told(api: FakeTensorRt, bundle: Bundle) -> None:
    runtime = api.Runtime

    def refuse(log: Any) -> Any:
        made = runtime(log)
        made.deserialize_cuda_engine = lambda _plan: log.log(1, "no memory\nfor it")
        return made

    api.Runtime = refuse  # type: ignore[method-assign]
    with pytest.raises(BackendError) as caught:
        start(api, bundle)
    assert caught.value.code == "engine-failed"
    assert "no memory for it" in caught.value.message


def test_engine_runs_where_the_cache_can_t_be_written(
    api: FakeTensorRt, bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    check(start(api, bundle, cache=tmp_path / "file"), 1)
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(stat.S_IRUSR | stat.S_IXUSR)
    check(start(api, bundle, cache=closed / "deeper"), 1)
    closed.chmod(stat.S_IRWXU)


def test_engine_is_inspected_on_its_gpu(api: FakeTensorRt, bundle: Bundle) -> None:
    inspection = start(api, bundle).inspect()
    assert inspection.source == "inspector"
    assert inspection.precisions() == {"float16": 1}
    assert [(each.name, each.mode, each.dtype) for each in inspection.bindings] == [
        ("image", "input", "float32"),
        ("severity", "output", "float32"),
        ("cam", "output", "float32"),
        ("pathologies", "output", "float32"),
    ]


def test_inspector_lists_the_layers_where_the_build_s_log_does_not(
    cudart: FakeCudart, bundle: Bundle
) -> None:
    inspection = start(FakeTensorRt(cudart), bundle).header.inspection
    assert (inspection.source, len(inspection.layers)) == ("inspector", 1)


# Nothing to run on


@pytest.mark.parametrize("driver", [False, None], ids=["too old", "none"])
def test_missing_driver_is_told_and_what_to_do(
    driver: bool | None, api: FakeTensorRt, bundle: Bundle, cudart: FakeCudart
) -> None:
    cudart.driver = driver
    with pytest.raises(BackendError) as caught:
        start(api, bundle)
    assert caught.value.code == "engine-unsupported"
    assert "no NVIDIA GPU" in caught.value.message
    assert cudart.leaks == 0


def test_driver_that_is_too_old_for_the_package_is_told_with_what_would_do(
    api: FakeTensorRt, bundle: Bundle, cudart: FakeCudart
) -> None:
    cudart.driver, cudart.old_driver = False, 12060
    with pytest.raises(BackendError) as caught:
        start(api, bundle)
    assert caught.value.code == "engine-unsupported"
    assert "for CUDA 12.6" in caught.value.message
    assert "'cuda-bindings < 13'" in caught.value.message


def test_missing_cuda_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.delitem(sys.modules, "cuda.bindings", raising=False)
    with pytest.raises(MissingExtraError) as caught:
        load_runtime("rtx")
    assert "bedside[rtx]" in caught.value.message
    assert "'cuda-bindings'" in caught.value.message


def test_gpu_is_described() -> None:
    assert Cuda(FakeCudart(name="Orin\0\0", capability="8.7")).describe() == ("Orin", "8.7", "CUDA 13.5")


def test_file_changed_after_opening_never_reaches_tensorrt(api: FakeTensorRt, tmp_path: Path) -> None:
    bundle = Bundle.open(make_bundle(tmp_path / "b"))
    data = bytearray((tmp_path / "b" / MODEL).read_bytes())
    data[-1] ^= 1
    (tmp_path / "b" / MODEL).write_bytes(data)
    with pytest.raises(ValueError) as caught:
        start(api, bundle)
    assert caught.value.code == "bundle-altered"  # type: ignore[attr-defined]
    assert api.built == []
