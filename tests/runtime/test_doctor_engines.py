"""The doctor on engines: which run, in what precisions, and what mends those that do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bedside.backends import BACKENDS, PRECISIONS
from bedside.bundle import built_in
from bedside.device import Device
from bedside.doctor import Engine, engines
from bedside.doctor.engines import check_engines
from bedside.doctor.packages import is_installed
from bedside.doctor.trials import Outcome
from examined_devices import BOX, GPU, ORIN, WITH_GPU

CPU_FACTS = {"version": "1.31.1", "providers": ["CPUExecutionProvider"], "cuda": None}
GPU_FACTS = {
    "version": "1.31.1",
    "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "cuda": "13.0",
}

Facts = Mapping[str, Any]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes engines seem installed, with these facts or errors, and these outcomes of their precisions."""

    def install(
        packages: Mapping[str, Facts | Outcome],
        tried: Mapping[str, Outcome] | None = None,
        distributions: Sequence[str] = (),
    ) -> None:
        def outcomes(
            kind: str, items: Sequence[str], options: Facts, *, limit_s: float
        ) -> dict[str, Outcome]:
            if kind == "engine":
                failed = Outcome("the bundle has no such model", "bundle-precision")
                return {item: (tried or {}).get(item, failed) for item in items}
            found = {item: packages[item] for item in items}
            return {
                item: each if isinstance(each, Outcome) else Outcome(facts=each)
                for item, each in found.items()
            }

        monkeypatch.setattr(engines, "try_items", outcomes)
        monkeypatch.setattr(engines, "is_installed", packages.__contains__)
        monkeypatch.setattr(
            engines, "find_distribution", lambda name: name if name in distributions else None
        )

    return install


def find(name: str, device: Device = BOX, bundles: tuple[str, ...] = ("one",)) -> Engine:
    found = {engine.backend: engine for engine in check_engines(device, bundles, limit_s=1)}
    assert found.keys() == BACKENDS.keys()
    return found[name]


def test_engine_that_is_not_installed_names_its_extra(fake: Callable[..., None]) -> None:
    fake({})
    for name in ("onnxruntime", "openvino"):
        engine = find(name)
        assert (engine.status, engine.fix) == ("missing", f"pip install 'bedside[{BACKENDS[name].extra}]'")
        assert not engine.works


def test_engine_for_a_gpu_is_no_lack_without_one(fake: Callable[..., None]) -> None:
    fake({})
    for name in BACKENDS.keys() - {"onnxruntime", "openvino"}:
        assert (find(name).status, find(name).fix) == ("absent", "")
        assert find(name, WITH_GPU).status == "missing"
        assert f"bedside[{BACKENDS[name].extra}]" in find(name, WITH_GPU).fix


def test_engine_tells_in_what_it_ran_and_why_not_in_others(fake: Callable[..., None]) -> None:
    ran = Outcome(facts={"device": "CPU", "bundle": "one"})
    refused = Outcome("it has no bf16 here; ask for fp32", "engine-unsupported")
    mixed = Outcome("it has no int8-bf16 here; ask for fp32", "engine-unsupported")
    fake({"onnxruntime": CPU_FACTS}, {"fp32": ran, "fp16": ran, "bf16": refused, "int8-bf16": mixed})
    engine = find("onnxruntime")
    assert (engine.status, engine.version, engine.device) == ("ok", "1.31.1", "CPU")
    assert engine.precisions == ("fp32", "fp16")
    assert engine.refused.keys() == {"bf16", "int8", "int8-bf16", "int8-fp16"}
    assert engine.refused["bf16"] == "it has no bf16 here; ask for fp32"
    assert "; not bf16, int8-bf16: it has no bf16 here; not int8, int8-fp16: no built-in" in engine.text
    assert engine.offers == ("CPUExecutionProvider",)
    assert "providers in this build: CPU" in engine.text


def test_engine_tells_apart_what_a_processor_lacks(fake: Callable[..., None]) -> None:
    ran = Outcome(facts={"device": "CPU", "bundle": "one"})
    lacks = {
        name: Outcome(
            f"this processor has no {number} arithmetic; ask for fp32 or int8", "engine-unsupported"
        )
        for name, number in {"bf16": "bfloat16", "fp16": "float16", "int8-bf16": "bfloat16"}.items()
    }
    fake({"openvino": {"version": "2026.4.1"}}, {"fp32": ran, "int8": ran, **lacks})
    text = find("openvino").text
    assert "; not bf16, int8-bf16: this processor has no bfloat16 arithmetic;" in text
    assert "; not fp16: this processor has no float16 arithmetic" in text


def test_engine_whose_every_run_fails_is_broken(fake: Callable[..., None]) -> None:
    failed = Outcome("it can't load the model", "engine-failed")
    fake({"openvino": {"version": "2026.4.1"}}, dict.fromkeys(PRECISIONS, failed))
    engine = find("openvino")
    assert (engine.status, engine.works) == ("broken", False)
    assert "it can't load the model" in engine.text


def test_engine_that_crashes_in_one_precision_is_broken_and_works(fake: Callable[..., None]) -> None:
    ran, crashed = Outcome(facts={"device": "CPU"}), Outcome("it crashed (SIGSEGV)", "crashed")
    fake({"onnxruntime": CPU_FACTS}, {"fp32": ran, "int8": crashed})
    engine = find("onnxruntime")
    assert (engine.status, engine.works) == ("broken", True)
    assert "not int8: it crashed (SIGSEGV)" in engine.text


def test_engine_that_can_not_be_imported_is_broken(fake: Callable[..., None]) -> None:
    fake({"onnxruntime": Outcome("ImportError: libfoo.so", "exception")}, distributions=["onnxruntime"])
    engine = find("onnxruntime")
    assert engine.status == "broken"
    assert "libfoo.so" in engine.text
    assert engine.fix == "pip install --force-reinstall --no-deps onnxruntime"


def test_two_builds_of_onnxruntime_over_each_other_are_told(fake: Callable[..., None]) -> None:
    ran = Outcome(facts={"device": "CPU"})
    fake({"onnxruntime": CPU_FACTS}, {"fp32": ran}, distributions=["onnxruntime", "onnxruntime-gpu"])
    engine = find("onnxruntime")
    assert (engine.status, engine.works) == ("broken", True)
    assert "both installed" in engine.text
    assert engine.fix == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'bedside[cpu]'"
    assert find("onnxruntime", WITH_GPU).fix.endswith("'bedside[gpu]'")


@pytest.mark.skipif("onnxruntime-cuda" not in BACKENDS, reason="this version has no onnxruntime-cuda")
class TestOnnxRuntimeOnGpus:
    def test_build_without_the_provider_is_to_be_replaced(self, fake: Callable[..., None]) -> None:
        fake({"onnxruntime": CPU_FACTS}, distributions=["onnxruntime"])
        engine = find("onnxruntime-cuda", WITH_GPU)
        assert engine.status == "missing"
        assert "no CUDAExecutionProvider" in engine.text
        assert engine.fix == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'bedside[gpu]'"

    def test_build_without_the_provider_is_no_lack_without_a_gpu(self, fake: Callable[..., None]) -> None:
        fake({"onnxruntime": CPU_FACTS})
        assert find("onnxruntime-cuda").status == "absent"

    def test_driver_that_is_too_old_for_the_build_is_told(self, fake: Callable[..., None]) -> None:
        fake({"onnxruntime": GPU_FACTS})
        old = replace(BOX, gpus=(replace(GPU, driver="535.183.01"),))
        engine = find("onnxruntime-cuda", old)
        assert engine.status == "broken"
        assert "needs NVIDIA's driver 580 or newer; 535.183.01 is here" in engine.text


@pytest.mark.skipif("tensorrt-rtx" not in BACKENDS, reason="this version has no tensorrt-rtx")
def test_engine_of_another_architecture_is_no_lack(fake: Callable[..., None]) -> None:
    fake({})
    assert (find("tensorrt-rtx", ORIN).status, find("tensorrt-rtx", WITH_GPU).status) == ("absent", "missing")


@pytest.mark.skipif("tensorrt" not in BACKENDS, reason="this version has no tensorrt")
class TestTensorRt:
    def test_engine_that_must_be_built_is_not_built(self, fake: Callable[..., None]) -> None:
        fake({"tensorrt": {"version": "10.9.0.34"}, "cuda.bindings": {}})
        engine = find("tensorrt", WITH_GPU)
        assert (engine.status, engine.device, engine.works) == ("ok", None, True)
        assert engine.precisions == PRECISIONS
        assert "bedside tune" in engine.text

    def test_precision_that_the_gpu_lacks_is_told(self, fake: Callable[..., None]) -> None:
        fake({"tensorrt": {"version": "10.9.0.34"}, "cuda.bindings": {}})
        engine = find("tensorrt", replace(BOX, gpus=(replace(GPU, compute_capability="7.5"),)))
        assert engine.precisions == ("fp32", "fp16", "int8", "int8-fp16")
        assert engine.refused.keys() == {"bf16", "int8-bf16"}
        assert "8.0 or newer" in engine.refused["bf16"]

    def test_missing_way_to_the_gpu_is_told(self, fake: Callable[..., None]) -> None:
        fake({"tensorrt": {"version": "10.9.0.34"}})
        engine = find("tensorrt", WITH_GPU)
        assert (engine.status, engine.fix, engine.works) == ("missing", "pip install cuda-bindings", False)

    def test_version_that_is_too_old_is_told(self, fake: Callable[..., None]) -> None:
        fake({"tensorrt": {"version": "8.6.1"}})
        engine = find("tensorrt", WITH_GPU)
        assert (engine.status, engine.works) == ("broken", False)
        assert "10.3 or newer" in engine.text
        assert engine.fix == "pip install --upgrade 'bedside[tensorrt]'"

    def test_jetson_takes_it_from_its_own_packages(self, fake: Callable[..., None]) -> None:
        fake({})
        assert find("tensorrt", ORIN).fix == "sudo apt-get install python3-libnvinfer"

    def test_library_that_a_jetson_lacks_is_named(self, fake: Callable[..., None]) -> None:
        error = "ImportError: libnvdla_compiler.so: cannot open shared object file"
        fake({"tensorrt": Outcome(error, "exception")})
        assert find("tensorrt", ORIN).fix == "sudo apt-get install nvidia-l4t-dla-compiler"

    def test_import_that_fails_without_a_gpu_is_no_lack(self, fake: Callable[..., None]) -> None:
        fake({"tensorrt": Outcome("ImportError: libcuda.so.1", "exception")})
        engine = find("tensorrt")
        assert (engine.status, engine.fix) == ("absent", "")


def test_no_bundle_to_try_an_engine_on_is_told(fake: Callable[..., None]) -> None:
    fake({"onnxruntime": CPU_FACTS})
    engine = find("onnxruntime", bundles=())
    assert not engine.works
    assert "no built-in bundle is whole" in engine.text


def test_remains_of_an_uninstalled_package_are_no_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leftover" / "capi").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not is_installed("leftover")
    assert not is_installed("not.there")


def test_every_backend_that_needs_no_gpu_is_known() -> None:
    assert BACKENDS.keys() >= engines._PROCESSOR


def test_installed_engines_run_a_built_in_bundle_at_fp32() -> None:
    installed = [name for name in ("onnxruntime", "openvino") if is_installed(BACKENDS[name].package)]
    if not installed:
        pytest.skip("no engine is installed")
    found = {each.backend: each for each in check_engines(BOX, built_in(), limit_s=120)}
    for name in installed:
        assert "fp32" in found[name].precisions, found[name].text
        assert found[name].device == "CPU"
