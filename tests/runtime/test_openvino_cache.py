"""What OpenVINO compiled, kept on disk: it answers as before, and what is damaged is never used."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bedside.backends import Tuning, open_backend
from bedside.backends.openvino.blobs import Blobs
from bedside.bundle import Bundle
from bedside.errors import OutputError
from small_networks import Floats, convolution_bundle, dense_bundle, executed, needs_bf16, needs_fp16, picture

openvino = pytest.importorskip("openvino")


def kept(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


def answer(bundle: Bundle, cache: Path | None, precision: str = "fp32", **how: Any) -> Floats:
    engine = open_backend("openvino", bundle, precision=precision, tuning=Tuning(cache=cache, **how))
    severity: Floats = engine.run({"image": picture()})["severity"]
    engine.close()
    return severity


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return convolution_bundle(
        tmp_path_factory.mktemp("convolutions") / "b", float32_nodes={"fp16": ["second"], "bf16": ["second"]}
    )


@pytest.mark.parametrize(
    "precision",
    ["fp32", pytest.param("fp16", marks=needs_fp16), pytest.param("bf16", marks=needs_bf16)],
)
def test_model_from_the_cache_answers_as_the_one_that_was_compiled(
    precision: str, convolutions: Bundle, tmp_path: Path
) -> None:
    without = answer(convolutions, None, precision)
    cold = answer(convolutions, tmp_path / "cache", precision)
    (blob,) = kept(tmp_path / "cache")
    written = blob.stat().st_mtime_ns
    warm = answer(convolutions, tmp_path / "cache", precision)
    np.testing.assert_array_equal(cold, without)
    np.testing.assert_array_equal(warm, without)
    assert kept(tmp_path / "cache") == [blob]
    assert blob.stat().st_mtime_ns == written


@needs_fp16
def test_nodes_stay_float32_in_a_model_from_the_cache(convolutions: Bundle, tmp_path: Path) -> None:
    for _ in range(2):
        engine = open_backend("openvino", convolutions, precision="fp16", tuning=Tuning(cache=tmp_path))
        ran = executed(engine)
        assert (ran["first"], ran["second"]) == ("f16", "f32")


def test_other_bundles_and_settings_have_files_of_their_own(convolutions: Bundle, tmp_path: Path) -> None:
    answer(convolutions, tmp_path)
    answer(convolutions, tmp_path, hint="throughput")
    answer(convolutions, tmp_path, pinned=False)
    answer(dense_bundle(tmp_path.with_name("dense"))[0], tmp_path)
    assert len(kept(tmp_path)) == 4
    assert len({path.parent for path in kept(tmp_path)}) == 2


def damages(data: bytes) -> Iterator[bytes]:
    for place in (0, 40, len(data) // 3, len(data) // 2, len(data) - 1):
        yield data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    yield data[:-1]
    yield data[:32]
    yield b""


def test_damaged_file_is_never_used_and_is_replaced(convolutions: Bundle, tmp_path: Path) -> None:
    """OpenVINO itself takes a model with a byte flipped for the network."""
    right = answer(convolutions, tmp_path)
    (blob,) = kept(tmp_path)
    whole = blob.read_bytes()
    for damaged in damages(whole):
        blob.write_bytes(damaged)
        np.testing.assert_array_equal(answer(convolutions, tmp_path), right)
        assert len(blob.read_bytes()) == len(whole)
        assert blob.read_bytes() != damaged


def test_cache_that_can_not_be_written_costs_nothing_but_the_time(
    convolutions: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    without = answer(convolutions, None)
    np.testing.assert_array_equal(answer(convolutions, tmp_path / "file" / "cache"), without)


def test_full_disk_leaves_nothing_half_written(
    convolutions: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: Path, _target: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    without = answer(convolutions, None)
    monkeypatch.setattr(Path, "replace", full)
    np.testing.assert_array_equal(answer(convolutions, tmp_path), without)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, "disk-full"), (errno.EROFS, "cache-not-writable")]
)
def test_what_can_not_be_kept_is_told_to_whoever_asks(
    number: int, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: Path, _target: Path) -> Path:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(OutputError) as caught:
        Blobs(tmp_path).write("key", b"blob")
    assert caught.value.code == code
    assert "--cache" in caught.value.message
    assert str(tmp_path) not in caught.value.message
