"""ONNX Runtime on GPUs: the provider that was asked for runs, or an error says what is missing and how to mend it.

How a session is run is tried on ONNX Runtime's provider for processors, which takes the same binding of memory. What a
GPU alone can tell is marked ``gpu``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bedside.backends import BACKENDS, Backend, Tuning, open_backend
from bedside.bundle import Bundle
from bedside.errors import BackendError, BundleError, OutputError
from made_onnxruntime import Library
from tiny_bundle import MODEL, Network, golden_images, make_bundle, read_manifest, seal
from tiny_ct_bundle import make_ct_bundle

onnxruntime = pytest.importorskip("onnxruntime")

from bedside.backends.onnxruntime_gpu import sealing  # noqa: E402
from bedside.backends.onnxruntime_gpu.leaf import OnnxRuntimeGpuBackend  # noqa: E402
from bedside.backends.onnxruntime_gpu.providers import CUDA, TENSORRT, Provider  # noqa: E402

Floats = npt.NDArray[np.float32]
PROVIDERS = {provider.backend: provider for provider in (CUDA, TENSORRT)}
PROCESSOR = Provider(
    "onnxruntime-processor",
    "CPUExecutionProvider",
    MappingProxyType({"fp32": "fp32", "int8": "int8"}),
    builds=False,
    file="none.so",
    memory="cpu",
)
"""Stands in for a GPU."""


linux = pytest.mark.skipif(sys.platform != "linux", reason="libraries have other names elsewhere")


def _gpu() -> bool:
    return Path("/dev/nvidiactl").exists() or Path("/dev/nvhost-gpu").exists()


def backend_of(provider: Provider) -> type[OnnxRuntimeGpuBackend]:
    return type("Leaf", (OnnxRuntimeGpuBackend,), {"provider": provider})


def open_leaf(bundle: Bundle, provider: Provider, library: Any, **how: Any) -> OnnxRuntimeGpuBackend:
    precision = how.pop("precision", "fp32")
    tuning = Tuning(**how)
    return backend_of(provider)(bundle, precision=precision, threads=None, tuning=tuning, library=library)


def with_gpu(provider: Provider, **how: Any) -> Library:
    return Library(available=(provider.name, "CPUExecutionProvider"), **how)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = make_bundle(tmp_path_factory.mktemp("bundle") / "b", network=Network(lungs=True))
    manifest = {key: value for key, value in read_manifest(folder).items() if key != "files"}
    for precision in ("fp16", "int8"):
        (folder / f"{precision}.onnx").write_bytes((folder / MODEL).read_bytes())
        manifest["models"][precision] = f"{precision}.onnx"
        manifest["tolerances"][precision] = manifest["tolerances"]["bf16"]
    return Bundle.open(seal(folder, manifest))


# What is missing


@pytest.mark.parametrize("name", PROVIDERS)
def test_build_without_the_provider_is_told_with_the_command_that_mends_it(name: str, bundle: Bundle) -> None:
    library = Library(available=("AzureExecutionProvider", "CPUExecutionProvider"))
    with pytest.raises(BackendError) as caught:
        open_leaf(bundle, PROVIDERS[name], library)
    assert caught.value.code == "engine-unsupported"
    for part in (PROVIDERS[name].name, "AzureExecutionProvider", "pip install 'bedside[gpu]'"):
        assert part in caught.value.message


@pytest.mark.parametrize("name", PROVIDERS)
def test_provider_that_did_not_load_never_becomes_another(
    name: str, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    """ONNX Runtime itself opens a session on the processor then."""
    with pytest.raises(BackendError) as caught:
        open_leaf(bundle, PROVIDERS[name], with_gpu(PROVIDERS[name], loads=False))
    assert caught.value.code == "engine-unsupported"
    assert PROVIDERS[name].name in caught.value.message
    assert "nvidia-smi" in caught.value.message
    assert capsys.readouterr().out == ""


@linux
@pytest.mark.parametrize(
    ("broken", "remedy"),
    [
        ("libcublasLt.so.99", "pip install 'bedside[gpu]'"),
        ("libnvinfer.so.99", "LD_LIBRARY_PATH"),
    ],
)
def test_library_that_is_missing_is_named_with_what_brings_it(
    broken: str, remedy: str, bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "capi").mkdir()
    needs = ("libm.so.6", broken, "libc.so.6", "libelse.so.1")
    (tmp_path / "capi" / CUDA.file).write_bytes(
        b"ELF" + b"".join(b"\0" + each.encode() for each in needs) + b"\0"
    )
    with pytest.raises(BackendError) as caught:
        open_leaf(bundle, CUDA, with_gpu(CUDA, loads=False, folder=tmp_path))
    assert caught.value.code == "engine-unsupported"
    assert f"({broken})" in caught.value.message
    assert remedy in caught.value.message
    assert str(tmp_path) not in caught.value.message
    assert len(caught.value.message) < 300


@linux
@pytest.mark.skipif(_gpu(), reason="there is a driver")
def test_driver_that_is_missing_is_named(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / CUDA.file).write_bytes(b"ELF\0libm.so.6\0libc.so.6\0")
    with pytest.raises(BackendError) as caught:
        open_leaf(bundle, CUDA, with_gpu(CUDA, loads=False, folder=tmp_path))
    assert "(libcuda.so.1): install NVIDIA's driver" in caught.value.message


@pytest.mark.parametrize("name", PROVIDERS)
def test_machine_without_a_gpu_has_none(name: str, bundle: Bundle) -> None:
    """With whatever build of ONNX Runtime is here."""
    if _gpu():
        pytest.skip("there is a GPU")
    with pytest.raises(BackendError) as caught:
        open_backend(name, bundle)
    assert caught.value.code == "engine-unsupported"
    assert PROVIDERS[name].name in caught.value.message


@pytest.mark.parametrize("name", PROVIDERS)
def test_installed_is_the_build_for_gpus_alone(name: str) -> None:
    from importlib.metadata import distributions

    there = any(distributions(name="onnxruntime-gpu"))
    assert BACKENDS[name].installed is there
    assert BACKENDS["onnxruntime"].installed


def test_operator_that_a_provider_lacks_is_refused(bundle: Bundle) -> None:
    class Unwilling(Library):
        def InferenceSession(self, data: bytes, options: Any = None, **how: Any) -> Any:  # noqa: N802
            if options is not None:
                raise RuntimeError(
                    "This session contains graph nodes that are assigned to the default CPU EP, but fallback to CPU EP "
                    "has been explicitly disabled by the user."
                )
            return super().InferenceSession(data, options, **how)

    with pytest.raises(BackendError) as caught:
        open_leaf(bundle, CUDA, Unwilling(available=(CUDA.name,)))
    assert caught.value.code == "engine-unsupported"
    assert "on the processor" in caught.value.message


def test_processor_is_refused_by_onnxruntime_itself(bundle: Bundle) -> None:
    """The words that the leaf knows such a refusal by are those of ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    with pytest.raises(Exception, match="default CPU EP"):
        onnxruntime.InferenceSession(bundle.read(MODEL), options)


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


# Engines that are kept


def kept(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


def test_engines_are_kept_under_what_they_are_for(bundle: Bundle, tmp_path: Path) -> None:
    library = with_gpu(TENSORRT)
    open_leaf(bundle, TENSORRT, library, cache=tmp_path)
    options, _, _ = library.told[0]
    folder = Path(options["trt_engine_cache_path"])
    assert options["trt_timing_cache_path"] == str(folder)
    assert (options["trt_engine_cache_enable"], options["trt_timing_cache_enable"]) == ("1", "1")
    assert folder.relative_to(tmp_path).parts[1] == f"{bundle.digest[:16]}-fp32"
    assert onnxruntime.__version__ in folder.parent.name
    open_leaf(bundle, TENSORRT, library, cache=tmp_path, precision="fp16")
    open_leaf(bundle, TENSORRT, library, cache=tmp_path, batch=2)
    assert len({path.parent for path in kept(tmp_path)}) == 3


def test_cuda_keeps_nothing(bundle: Bundle, tmp_path: Path) -> None:
    open_leaf(bundle, CUDA, with_gpu(CUDA), cache=tmp_path)
    assert kept(tmp_path) == []


def test_damaged_and_strange_files_are_gone_before_they_are_read(tmp_path: Path) -> None:
    sealing.unseal(tmp_path)
    for name in ("a.engine", "b.engine", "c.engine"):
        (tmp_path / name).write_bytes(name.encode())
    sealing.seal(tmp_path)
    (tmp_path / "b.engine").write_bytes(b"a.engine")
    (tmp_path / "d.engine").write_bytes(b"strange")
    sealing.unseal(tmp_path)
    assert [path.name for path in kept(tmp_path)] == ["a.engine", "c.engine", sealing.SEAL]
    (tmp_path / sealing.SEAL).write_bytes(b"\0not json")
    sealing.unseal(tmp_path)
    assert [path.name for path in kept(tmp_path)] == [sealing.SEAL]


def test_whole_folder_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.engine").write_bytes(b"engine")
    sealing.seal(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path, *kept(tmp_path))}
    sealing.unseal(tmp_path)
    sealing.seal(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path, *kept(tmp_path))} == before


def test_cache_that_can_not_be_written_is_told(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError) as caught:
        open_leaf(bundle, TENSORRT, with_gpu(TENSORRT), cache=tmp_path / "file")
    assert caught.value.code == "cache-not-writable"
    assert "--cache" in caught.value.message


# On a GPU


needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not _gpu(), reason="there is no NVIDIA GPU"),
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
