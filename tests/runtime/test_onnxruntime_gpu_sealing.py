"""Engines that ONNX Runtime keeps: under what they are for, and gone before they are read where they are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from bedside.bundle import Bundle
from bedside.errors import OutputError
from made_onnxruntime import files_bundle, open_leaf, with_gpu

onnxruntime = pytest.importorskip("onnxruntime")

from bedside.backends.onnxruntime_gpu import sealing  # noqa: E402
from bedside.backends.onnxruntime_gpu.providers import CUDA, TENSORRT  # noqa: E402


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return files_bundle(tmp_path_factory.mktemp("bundle") / "b")


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
