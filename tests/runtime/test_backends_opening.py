"""What opens no engine: an error says why not, and nothing falls back to another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bedside.backends import BACKENDS, PRECISIONS, Tuning, open_backend
from bedside.bundle import Bundle
from bedside.errors import BackendError, BundleError
from bedside.onnxfile import read_onnx
from processor_engines import ENGINES
from tiny_bundle import MODEL, Network, make_bundle, seal


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_bundle(tmp_path_factory.mktemp("bundle") / "b", network=Network(lungs=True)))


# Wrong requests


@pytest.mark.parametrize("name", ["", "ONNXRuntime", "torch", "cuda", "bedside.backends.fake"])
def test_unknown_backend_is_refused(name: str, bundle: Bundle) -> None:
    with pytest.raises(BackendError) as caught:
        open_backend(name, bundle)
    assert caught.value.code == "engine-unsupported"
    assert all(known in caught.value.message for known in BACKENDS)


@pytest.mark.parametrize("threads", [0, -1, 1025, 99999999999999])
@pytest.mark.parametrize("name", ENGINES)
def test_number_of_threads_is_checked(name: str, threads: int, bundle: Bundle) -> None:
    with pytest.raises(BackendError) as caught:
        open_backend(name, bundle, threads=threads)
    assert caught.value.code == "engine-unsupported"


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("onnxruntime", "bf16"),
        ("onnxruntime", "int8-bf16"),
        ("onnxruntime", "int8-fp16"),
        ("onnxruntime", "fp64"),
        ("openvino", ""),
    ],
)
def test_precision_that_an_engine_has_not_is_refused(name: str, precision: str, bundle: Bundle) -> None:
    pytest.importorskip(BACKENDS[name].package)
    with pytest.raises(BackendError) as caught:
        open_backend(name, bundle, precision=precision)
    assert caught.value.code == "engine-unsupported"


@pytest.mark.parametrize(
    ("name", "precision"), [("onnxruntime", "fp16"), ("onnxruntime", "int8"), ("openvino", "int8")]
)
def test_precision_that_the_bundle_has_not_is_told(name: str, precision: str, bundle: Bundle) -> None:
    pytest.importorskip(BACKENDS[name].package)
    assert precision in PRECISIONS
    with pytest.raises(BundleError) as caught:
        open_backend(name, bundle, precision=precision)
    assert caught.value.code == "bundle-precision"


# Models that an engine can't take


@pytest.mark.parametrize("name", ENGINES)
def test_operator_that_an_engine_lacks_is_named_with_its_node(name: str, tmp_path: Path) -> None:
    pytest.importorskip(BACKENDS[name].package)
    folder = make_bundle(tmp_path / "b")
    data = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(data.replace(b"AveragePool", b"AveragePoof"))
    with pytest.raises(BackendError) as caught:
        open_backend(name, Bundle.open(seal(folder)))
    assert "'AveragePoof': node 'features'" in caught.value.message


@pytest.mark.parametrize("name", ENGINES)
def test_model_that_the_engine_can_t_take_is_told(name: str, tmp_path: Path) -> None:
    pytest.importorskip(BACKENDS[name].package)
    folder = make_bundle(tmp_path / "b")
    data = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(data.replace(b"AveragePool", b"AveragePoof"))
    with pytest.raises(BackendError) as caught:
        open_backend(name, Bundle.open(seal(folder)))
    assert caught.value.code == "engine-failed"
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("name", ENGINES)
def test_file_changed_after_opening_never_reaches_the_engine(name: str, tmp_path: Path) -> None:
    pytest.importorskip(BACKENDS[name].package)
    bundle = Bundle.open(make_bundle(tmp_path / "b"))
    data = bytearray((tmp_path / "b" / MODEL).read_bytes())
    data[-1] ^= 1
    (tmp_path / "b" / MODEL).write_bytes(data)
    with pytest.raises(BundleError) as caught:
        open_backend(name, bundle)
    assert caught.value.code == "bundle-altered"


def test_onnxruntime_takes_onnx_alone(bundle: Bundle, tmp_path: Path) -> None:
    """Its own format tells itself by four bytes, which an ONNX file can be made to hold as well."""
    onnxruntime = pytest.importorskip("onnxruntime")
    from bedside.backends.onnxruntime import OnnxRuntimeBackend

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(bundle.read(MODEL), options, providers=["CPUExecutionProvider"])
    other = (tmp_path / "model.ort").read_bytes()
    assert other[4:8] == b"ORTM"
    onnxruntime.InferenceSession(other, providers=["CPUExecutionProvider"])
    with pytest.raises(BundleError):
        read_onnx(other)
    unchecked: Any = SimpleNamespace(
        read=lambda _name: other, model=lambda _precision: MODEL, onnx=bundle.onnx, manifest=bundle.manifest
    )
    with pytest.raises(BackendError) as caught:
        OnnxRuntimeBackend(unchecked, precision="fp32", threads=1, tuning=Tuning())
    assert caught.value.code == "engine-failed"


# Missing and broken packages

OPEN_WITHOUT = """
import importlib.abc, importlib.machinery, sys
package, how, bundle = sys.argv[1:]

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] != package:
            return None
        if how == "missing":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if how == "broken":
            raise ImportError("libengine.so.1: cannot open shared object file\\nNo such file", name=name)
        return importlib.machinery.ModuleSpec(name, None) if name == package else None  # an empty folder

sys.meta_path.insert(0, Finder())
import bedside
try:
    bedside.open_cxr(bundle, package)
except bedside.BedsideError as error:
    print(type(error).__name__, error.code, error.message, sep="|")
"""


def open_without(package: str, how: str, bundle: Bundle) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", OPEN_WITHOUT, package, how, bundle.location],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("|")


@pytest.mark.parametrize("name", ENGINES)
def test_missing_package_names_its_extra(name: str, bundle: Bundle) -> None:
    leaf = BACKENDS[name]
    kind, code, message = open_without(leaf.package, "missing", bundle)
    assert (kind, code) == ("MissingExtraError", "missing-extra")
    assert f"bedside[{leaf.extra}]" in message
    assert f"'{leaf.package}'" in message


@pytest.mark.parametrize("how", ["broken", "emptied"])
@pytest.mark.parametrize("name", ENGINES)
def test_broken_package_is_told_and_is_not_called_missing(name: str, how: str, bundle: Bundle) -> None:
    kind, code, message = open_without(BACKENDS[name].package, how, bundle)
    assert (kind, code) == ("BackendError", "engine-failed")
    assert "can't be imported" in message
