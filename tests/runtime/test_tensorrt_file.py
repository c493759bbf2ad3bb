"""Files of built engines: an altered byte, another device, version or bundle is found before TensorRT sees it."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.backends.tensorrt.enginefile import (
    PREFIX,
    SCHEMA,
    Header,
    Site,
    Wanted,
    pack,
    read_header,
    unpack,
)
from bedside.backends.tensorrt.inspection import Binding, Inspection, Layer, name_type, read_listing, read_log
from bedside.backends.tensorrt.recipe import Profile, Recipe
from bedside.backends.tensorrt.store import Store, load, name_engine
from bedside.errors import BackendError, OutputError

PLAN = bytes(range(256)) * 2
SITE = Site("Orin", "8.7", "L4T 36.4.3, CUDA 12.6")
EXACT = Profile((1, 1, 64, 64), (1, 1, 64, 64), (8, 1, 64, 64))
RECIPE = Recipe("fp16", (EXACT,))
INSPECTION = Inspection(
    (Layer("conv", "gemm", ("float16",), ("float16",)),),
    (Binding("image", "input", "float32", (-1, 1, 64, 64)),),
    "build",
)
HEADER = Header(
    schema=SCHEMA,
    bundle="b" * 64,
    name="tiny",
    bundle_version="1.0.0",
    backend="tensorrt",
    version="10.3.0",
    recipe=RECIPE,
    site=SITE,
    gpu_fallback=False,
    inspection=INSPECTION,
    bytes=len(PLAN),
    sha256=hashlib.sha256(PLAN).hexdigest(),
)
WANTED = Wanted("b" * 64, "tensorrt", "10.3.0", SITE, "fp16", EXACT, None, None)
DATA = pack(HEADER, PLAN)


def refused(data: bytes, wanted: Wanted | None = WANTED) -> str:
    with pytest.raises(BackendError) as caught:
        unpack(data, wanted)
    assert caught.value.code == "engine-foreign"
    assert "build it again" in caught.value.message
    assert caught.value.message.isprintable()
    return caught.value.message


# Reading


def test_engine_comes_back_as_it_was() -> None:
    header, plan = unpack(DATA, WANTED)
    assert header == HEADER
    assert bytes(plan) == PLAN
    assert read_header(DATA[: len(DATA) - len(PLAN)]) == HEADER


@given(place=st.integers(0, len(DATA) - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(place: int, bit: int) -> None:
    data = bytearray(DATA)
    data[place] ^= 1 << bit
    refused(bytes(data))


@given(length=st.integers(0, len(DATA) - 1))
def test_truncated_file_is_found(length: int) -> None:
    refused(DATA[:length])


@given(extra=st.binary(min_size=1, max_size=40))
def test_longer_file_is_found(extra: bytes) -> None:
    refused(DATA + extra)


@given(data=st.binary(max_size=300))
def test_any_other_file_is_found(data: bytes) -> None:
    refused(data)


def test_header_of_another_version_is_told() -> None:
    text = b'{"schema":"bedside.engine/2"}'
    start = DATA[:16] + len(text).to_bytes(8, "big") + (0).to_bytes(8, "big")
    message = refused(start + hashlib.sha256(start + text).digest() + text)
    assert "another version" in message
    assert len(start) + 32 == PREFIX


def test_endless_header_is_not_read() -> None:
    refused(DATA[:16] + (1 << 40).to_bytes(8, "big") + DATA[24:])


# Foreign engines

FOREIGN: dict[str, tuple[Wanted, str]] = {
    "bundle": (replace(WANTED, bundle="c" * 64), "another bundle"),
    "package": (replace(WANTED, backend="tensorrt-rtx"), "for tensorrt, not tensorrt-rtx"),
    "version": (replace(WANTED, version="10.4.0"), "version 10.3.0, and 10.4.0 is here"),
    "GPU": (replace(WANTED, site=replace(SITE, device="Thor")), "for the GPU Orin (8.7)"),
    "capability": (replace(WANTED, site=replace(SITE, capability="8.9")), "(8.9)"),
    "driver": (replace(WANTED, site=replace(SITE, driver="L4T 37")), "with L4T 37 is here"),
    "precision": (replace(WANTED, precision="fp32"), "fp16, not fp32"),
    "DLA": (replace(WANTED, dla=0), "for the GPU, not DLA core 0"),
    "batch": (replace(WANTED, profile=replace(EXACT, largest=(9, 1, 64, 64))), "other batches or tiles"),
    "tile": (
        replace(WANTED, profile=Profile((1, 1, 32, 32), (1, 1, 32, 32), (1, 1, 32, 32))),
        "other batches or tiles",
    ),
    "workspace": (replace(WANTED, workspace_bytes=1 << 30), "more workspace"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_engine_for_something_else_is_refused_and_says_for_what(what: str) -> None:
    wanted, words = FOREIGN[what]
    assert words in refused(DATA, wanted)


def test_engine_that_was_built_ahead_runs_on_any_gpu_of_its_capabilities() -> None:
    header = replace(HEADER, site=None, recipe=replace(RECIPE, capabilities=("8.6", "8.7")))
    assert next(header.misfits(WANTED), None) is None
    other = replace(WANTED, site=Site("Ada", "8.9", "580"))
    assert "compute capability 8.6, 8.7, and 8.9 is here" in next(header.misfits(other))


@pytest.mark.parametrize(
    ("built", "here", "runs"),
    [
        ("10.3.0", "10.3.0", True),
        ("10.3.0", "10.9.0", True),
        ("10.3.0", "10.2.0", False),
        ("10.3.0", "11.0.0", False),
        ("10.3.0", "10.9.rc1", False),
    ],
)
def test_version_compatible_engine_runs_on_later_versions_of_its_major(
    built: str, here: str, runs: bool
) -> None:
    header = replace(HEADER, version=built, recipe=replace(RECIPE, version_compatible=True))
    assert (next(header.misfits(replace(WANTED, version=here)), None) is None) == runs


# The folder


def test_store_finds_the_engine_that_fits_among_others(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    assert store.find(WANTED) is None
    other = replace(HEADER, bundle="c" * 64)
    store.save(other, pack(other, PLAN))
    (tmp_path / "cache" / "zero.tensorrt.engine").write_bytes(b"")
    (tmp_path / "cache" / "folder.tensorrt.engine").mkdir()
    assert store.find(WANTED) is None
    path = store.save(HEADER, DATA)
    assert path.name.startswith("tiny.fp16.sm87.")
    assert store.find(WANTED) == path
    assert load(path, WANTED) == (HEADER, PLAN)
    assert {each.name for each in (tmp_path / "cache").iterdir() if each.name.startswith(".")} == set()


def test_names_differ_where_engines_do() -> None:
    headers = [
        HEADER,
        replace(HEADER, bundle="c" * 64),
        replace(HEADER, version="10.4.0"),
        replace(HEADER, site=replace(SITE, driver="L4T 37")),
        replace(HEADER, recipe=replace(RECIPE, workspace_bytes=5)),
        replace(HEADER, backend="tensorrt-rtx"),
    ]
    assert len({name_engine(header) for header in headers}) == len(headers)


def test_engine_that_vanished_is_foreign(tmp_path: Path) -> None:
    with pytest.raises(BackendError) as caught:
        load(tmp_path / "gone", WANTED)
    assert caught.value.code == "engine-foreign"
    assert "no such file" in caught.value.message


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.EROFS, "cache-not-writable"), (errno.EACCES, "cache-not-writable"), (errno.ENOSPC, "disk-full")],
)
def test_folder_that_can_t_be_written_is_told_and_left_clean(
    number: int, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError) as caught:
        Store(tmp_path).save(HEADER, DATA)
    assert caught.value.code == code
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError) as caught:
        Store(tmp_path / "file").prepare()
    assert caught.value.code == "cache-not-writable"


def test_blob_comes_back_whole_or_not_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.read_blob("timing") == b""
    store.write_blob("timing", b"measured")
    assert store.read_blob("timing") == b"measured"
    data = bytearray((tmp_path / "timing").read_bytes())
    data[-1] ^= 1
    (tmp_path / "timing").write_bytes(data)
    assert store.read_blob("timing") == b""


# Layers

LOG = """Layers:
Name: image_move, LayerType: kgen, Inputs: [ { Name: image, Dimensions: [1,1,8,8], Datatype: Float, Format: linear }], \
Constants: [], Outputs: [ { Name: a, Dimensions: [1,1,8,8], Datatype: Half, Format: (NHWC) }], TacticName: x
Name: conv, LayerType: correlation, Inputs: [ { Name: a, Datatype: Half, Format: x }], Constants: [ { Name: w, \
Datatype: Float, Format: x }], Outputs: [ { Name: b, Datatype: Half }, { Name: c, Datatype: Int32 }], TacticName: y
I/O Tensors:
 Name: image, IOMode: Input, DataType: Float
"""


def test_layers_are_read_out_of_a_build_s_log() -> None:
    layers = read_log(LOG)
    assert layers == (
        Layer("image_move", "kgen", ("float32",), ("float16",)),
        Layer("conv", "correlation", ("float16",), ("float16", "int32")),
    )
    assert Inspection(layers, (), "build").precisions() == {"float16": 2, "int32": 1}
    assert read_log("Engine Layer Information:\nLayer(X): a -> b") == ()


def test_layers_are_read_out_of_the_inspector_s_answer() -> None:
    text = """{"Layers": ["only a name", {"Name": "conv", "LayerType": "CaskConvolution",
        "Inputs": [{"Name": "a", "Format/Datatype": "Row major linear FP16 format"}],
        "Outputs": [{"Name": "b", "Datatype": "Int8"}]}], "Bindings": ["a"]}"""
    assert read_listing(text) == (
        Layer("only a name", "", (), ()),
        Layer("conv", "CaskConvolution", ("float16",), ("int8",)),
    )
    for wrong in ("[]", "{}", '{"Layers": 1}', "no JSON"):
        with pytest.raises(ValueError):
            read_listing(wrong)


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("Float", "float32"),
        ("FLOAT", "float32"),
        ("Half", "float16"),
        ("Row major linear FP16 format", "float16"),
        ("BF16", "bfloat16"),
        ("Int8", "int8"),
        ("UINT8", "uint8"),
        ("Int64", "int64"),
        ("Bool", "bool"),
        ("E8M0", "e8m0"),
    ],
)
def test_types_have_numpy_s_names(word: str, name: str) -> None:
    assert name_type(word) == name
