"""ONNX Runtime on GPUs where something is missing: no other provider runs, and an error says how to mend it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from bedside.backends import BACKENDS, open_backend
from bedside.bundle import Bundle
from bedside.errors import BackendError
from made_onnxruntime import PROVIDERS, Library, files_bundle, has_gpu, open_leaf, with_gpu
from tiny_bundle import MODEL

onnxruntime = pytest.importorskip("onnxruntime")

from bedside.backends.onnxruntime_gpu.providers import CUDA  # noqa: E402

linux = pytest.mark.skipif(sys.platform != "linux", reason="libraries have other names elsewhere")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return files_bundle(tmp_path_factory.mktemp("bundle") / "b")


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
@pytest.mark.skipif(has_gpu(), reason="there is a driver")
def test_driver_that_is_missing_is_named(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / CUDA.file).write_bytes(b"ELF\0libm.so.6\0libc.so.6\0")
    with pytest.raises(BackendError) as caught:
        open_leaf(bundle, CUDA, with_gpu(CUDA, loads=False, folder=tmp_path))
    assert "(libcuda.so.1): install NVIDIA's driver" in caught.value.message


@pytest.mark.parametrize("name", PROVIDERS)
def test_machine_without_a_gpu_has_none(name: str, bundle: Bundle) -> None:
    """With whatever build of ONNX Runtime is here."""
    if has_gpu():
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
