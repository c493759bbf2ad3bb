"""Real builds by TensorRT for RTX, which needs no GPU for them, and what is in the engines."""

from __future__ import annotations

import json
import os
import signal
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import tiny_bundle
from bedside.backends import import_leaf, open_backend
from bedside.backends.base import Tuning
from bedside.backends.tensorrt.ahead import Order, build_ahead, read_engine
from bedside.backends.tensorrt.building import Built, build_plan
from bedside.backends.tensorrt.enginefile import Site, Wanted, unpack
from bedside.backends.tensorrt.library import Library
from bedside.backends.tensorrt.recipe import Recipe, list_profiles
from bedside.backends.tensorrt.store import Store
from bedside.bundle import Bundle, built_in
from bedside.errors import BackendError, BundleError, MissingExtraError, OutputError
from command_line import invoke, start
from made_tensorrt import half_bundle
from tiny_bundle import MODEL, SIDE, make_bundle, seal

CAPABILITIES = ("7.5", "8.6", "8.9", "12.0")
HAS_GPU = Path("/dev/nvidiactl").exists()


@pytest.fixture(scope="module")
def rtx() -> Library:
    pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx")
    library = import_leaf("tensorrt-rtx").LIBRARY
    assert isinstance(library, Library)
    return library


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(half_bundle(tmp_path_factory.mktemp("half") / "b"))


def built_for(library: Library, bundle: Bundle, precision: str, capability: str, **tuning: Any) -> Built:
    profiles = list_profiles(bundle.manifest, Tuning(**tuning))
    return build_plan(library, bundle, Recipe(precision, profiles, (capability,)))


def check(built: Built, bundle: Bundle, precision: str) -> None:
    """The bindings are the manifest's, and the layers compute in what was asked for."""
    manifest = bundle.manifest
    inspection = built.inspection
    assert built.plan
    assert built.timing == b""
    assert [(each.name, each.mode) for each in inspection.bindings] == [
        (manifest.input.name, "input"),
        *((output.name, "output") for output in manifest.outputs),
    ]
    assert {each.dtype for each in inspection.bindings} == {"float32"}
    assert len(inspection.bindings[0].shape) == len(manifest.input.shape)
    layers = inspection.layers
    assert len(layers) > len(bundle.onnx(precision).operators) // 2
    given = inspection.precisions()
    halves = sum(count for kind, count in given.items() if kind == "float16")
    if precision == "fp16":
        assert halves > len(layers) / 2
    else:
        assert halves == 0
        assert given["float32"] > 0
    if precision == "int8":
        assert any("int8" in (*layer.takes, *layer.gives) for layer in layers)


# The built-in bundles, on the generations of GPUs


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", built_in())
def test_built_in_bundle_builds_in_fp32(name: str, capability: str, rtx: Library) -> None:
    bundle = Bundle.open(name)
    check(built_for(rtx, bundle, "fp32", capability), bundle, "fp32")


@pytest.mark.parametrize(
    ("precision", "capability"),
    [
        *(("fp16", capability) for capability in CAPABILITIES),
        *(("int8", capability) for capability in ("7.5", "8.9")),
        *(pytest.param("int8", capability, marks=pytest.mark.slow) for capability in ("8.6", "12.0")),
    ],
)
@pytest.mark.parametrize("name", built_in())
def test_built_in_bundle_builds_in_its_lower_precisions(
    name: str, precision: str, capability: str, rtx: Library
) -> None:
    bundle = Bundle.open(name)
    if precision not in bundle.manifest.models:
        pytest.skip(f"the bundle has no {precision} model")
    if (precision, capability) == ("int8", "7.5"):
        with pytest.raises(BackendError) as caught:
            built_for(rtx, bundle, precision, capability)
        assert caught.value.code == "engine-unsupported"
        return
    check(built_for(rtx, bundle, precision, capability), bundle, precision)


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", built_in())
def test_built_in_bundle_builds_for_batches(name: str, capability: str, rtx: Library) -> None:
    bundle = Bundle.open(name)
    for precision in bundle.manifest.models.keys() - ({"int8"} if capability == "7.5" else set()):
        check(built_for(rtx, bundle, precision, capability, batch=8, hint="throughput"), bundle, precision)


# Precision


@pytest.mark.parametrize("capability", ["7.5", "8.6"])
def test_half_precision_of_the_graph_is_that_of_the_engine(
    capability: str, rtx: Library, tiny: Bundle
) -> None:
    half = built_for(rtx, tiny, "fp16", capability).inspection
    single = built_for(rtx, tiny, "fp32", capability).inspection
    assert {"float16"} <= {kind for layer in half.layers for kind in (*layer.takes, *layer.gives)}
    assert {kind for layer in single.layers for kind in (*layer.takes, *layer.gives)} == {"float32"}
    assert [each.dtype for each in half.bindings] == ["float32"] * 3


def test_precision_that_the_bundle_has_not_is_told(rtx: Library, tiny: Bundle) -> None:
    with pytest.raises(BundleError) as caught:
        built_for(rtx, tiny, "int8", "8.6")
    assert caught.value.code == "bundle-precision"
    with pytest.raises(BackendError) as refused:
        built_for(rtx, tiny, "bf16", "8.6")
    assert refused.value.code == "engine-unsupported"


def test_int8_is_refused_where_it_would_run_in_float32(rtx: Library, tiny: Bundle) -> None:
    with pytest.raises(BackendError) as caught:
        built_for(rtx, tiny, "int8", "7.5")
    assert caught.value.code == "engine-unsupported"
    assert "in float32 on compute capability 7.5" in caught.value.message


@pytest.mark.parametrize("capability", ["9.9", "8.7", "", "8.6x"])
def test_unknown_capability_is_named_with_what_is_known(capability: str, rtx: Library, tiny: Bundle) -> None:
    with pytest.raises(BackendError) as caught:
        built_for(rtx, tiny, "fp32", capability)
    assert caught.value.code == "engine-unsupported"
    assert repr(capability) in caught.value.message
    assert "7.5, 8.0, 8.6, 8.9, 12.0" in caught.value.message


# Shapes


def test_profiles_follow_batch_and_tile(rtx: Library) -> None:
    bundle = Bundle.open("ct-opacity-lite")
    exact, wide = list_profiles(bundle.manifest, Tuning(batch=4, tile=(128, 192)))
    assert (exact.smallest, exact.largest) == ((1, 1, 128, 192), (4, 1, 128, 192))
    assert (wide.smallest, wide.usual, wide.largest) == ((1, 1, 64, 64), (1, 1, 128, 192), (4, 1, 256, 384))
    check(built_for(rtx, bundle, "fp32", "8.9", batch=4, tile=(128, 192)), bundle, "fp32")


def test_several_gpus_share_one_engine(rtx: Library, tiny: Bundle) -> None:
    profiles = list_profiles(tiny.manifest, Tuning())
    one = build_plan(rtx, tiny, Recipe("fp32", profiles, ("8.6",)))
    two = build_plan(rtx, tiny, Recipe("fp32", profiles, ("8.6", "12.0")))
    assert len(one.plan) < len(two.plan)


# Models that TensorRT can't take


def altered(folder: Path, data: bytes) -> Bundle:
    make_bundle(folder)
    (folder / MODEL).write_bytes(data)
    return Bundle.open(seal(folder))


def test_unsupported_operator_is_named_with_its_node(rtx: Library, tmp_path: Path) -> None:
    data = tiny_bundle.Network().encode()
    with pytest.raises(BackendError) as caught:
        built_for(rtx, altered(tmp_path / "b", data.replace(b"AveragePool", b"AveragePoof")), "fp32", "8.6")
    assert caught.value.code == "engine-unsupported"
    assert "'AveragePoof' as node number 0" in caught.value.message
    node = tiny_bundle._node("Sigmoid", ["pathologies_logits"], "pathologies")
    name = tiny_bundle._bytes(3, b"the last one")
    named = node.replace(b"Sigmoid", b"Sigmoix") + name
    data = data.replace(tiny_bundle._bytes(1, node), tiny_bundle._bytes(1, named))
    data = _fit(data)
    with pytest.raises(BackendError) as caught:
        built_for(rtx, altered(tmp_path / "c", data), "fp32", "8.6")
    assert "'Sigmoix' as node 'the last one'" in caught.value.message
    assert caught.value.message.isprintable()


def _fit(data: bytes) -> bytes:
    """The same file with the length of its graph put right: field 7 follows the IR version."""
    start = 2
    assert data[start] == 7 << 3 | 2
    position = start + 1
    while data[position] & 0x80:
        position += 1
    opset = tiny_bundle._bytes(8, tiny_bundle._bytes(1, b"") + tiny_bundle._varint_field(2, 18))
    graph = data[position + 1 : -len(opset)]
    return data[:start] + tiny_bundle._bytes(7, graph) + opset


def test_workspace_that_is_too_small_is_told(rtx: Library) -> None:
    bundle = Bundle.open("ct-opacity-lite")
    recipe = Recipe("fp32", list_profiles(bundle.manifest, Tuning()), ("8.6",), workspace_bytes=1 << 10)
    with pytest.raises(BackendError) as caught:
        build_plan(rtx, bundle, recipe)
    assert caught.value.code == "engine-failed"
    assert "allow more workspace" in caught.value.message


# Progress


def test_progress_is_told_in_order_and_in_this_thread(rtx: Library, tiny: Bundle) -> None:
    steps: list[tuple[str, int, int]] = []
    threads: set[str] = set()

    def note(phase: str, done: int, total: int) -> None:
        steps.append((phase, done, total))
        threads.add(threading.current_thread().name)

    profiles = list_profiles(tiny.manifest, Tuning())
    build_plan(rtx, tiny, Recipe("fp32", profiles, ("8.6",)), progress=note)
    assert threads == {threading.current_thread().name}
    assert all(0 <= done <= total for _, done, total in steps)
    assert sum(done > 0 for _, done, _ in steps) > 5


def test_what_progress_raises_stops_the_build(rtx: Library) -> None:
    bundle = Bundle.open("cxr-severity-lite")
    seen: list[str] = []

    def stop(phase: str, _done: int, _total: int) -> None:
        seen.append(phase)
        raise KeyboardInterrupt

    recipe = Recipe("fp32", list_profiles(bundle.manifest, Tuning()), ("8.6",))
    with pytest.raises(KeyboardInterrupt):
        build_plan(rtx, bundle, recipe, progress=stop)
    assert len(seen) == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "bedside-tensorrt"]


def test_ctrl_c_ends_the_command_and_leaves_no_file(rtx: Library, tmp_path: Path) -> None:
    assert rtx.rtx
    bundle: list[str | Path] = [
        "ct-opacity-lite",
        "--out",
        tmp_path / "out",
        "--batch",
        "64",
        "--capability",
        ",".join(CAPABILITIES * 20),
    ]
    process = start("build", *bundle)
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted" in told
    assert [path for path in (tmp_path / "out").iterdir() if path.suffix != ".engine"] == []


# Ahead, and the command


def test_engine_that_was_built_ahead_is_found_where_it_runs(
    rtx: Library, tiny: Bundle, tmp_path: Path
) -> None:
    product = build_ahead(rtx, tiny, Order("fp16", ("8.6", "8.6"), Tuning(batch=2)), tmp_path / "out")
    header = read_engine(product.path)
    assert header == product.header
    assert header.site is None
    assert header.recipe.capabilities == ("8.6",)
    assert header.version == rtx.version
    profile = list_profiles(tiny.manifest, Tuning(batch=2))[0]
    site = Site("some GPU", "8.6", "some driver")
    wanted = Wanted(tiny.digest, "tensorrt-rtx", rtx.version, site, "fp16", profile, None, None)
    assert Store(tmp_path / "out").find(wanted) == product.path
    _, plan = unpack(product.path.read_bytes(), wanted)
    assert len(plan) == header.bytes
    other = Wanted(
        tiny.digest, "tensorrt-rtx", rtx.version, Site("x", "8.9", "y"), "fp16", profile, None, None
    )
    assert Store(tmp_path / "out").find(other) is None


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU here")
def test_without_a_gpu_a_capability_has_to_be_given(rtx: Library, tiny: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BackendError) as caught:
        build_ahead(rtx, tiny, Order(), tmp_path)
    assert caught.value.code == "engine-unsupported"
    assert "which compute capability, of 7.5" in caught.value.message


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU here")
def test_without_a_driver_nothing_runs_and_the_message_says_why(rtx: Library, tiny: Bundle) -> None:
    assert rtx.rtx
    with pytest.raises(BackendError) as caught:
        open_backend("tensorrt-rtx", tiny)
    assert caught.value.code == "engine-unsupported"
    assert "there is no NVIDIA GPU" in caught.value.message


def test_folder_is_tried_before_the_build(rtx: Library, tiny: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    told: list[str] = []
    tuning = Tuning(progress=lambda phase, _done, _total: told.append(phase))
    with pytest.raises(OutputError) as caught:
        build_ahead(rtx, tiny, Order("fp32", ("8.6",), tuning), tmp_path / "file" / "out")
    assert caught.value.code == "cache-not-writable"
    assert told == []


def test_command_builds_and_tells_what_is_in_the_engine(rtx: Library, tiny: Bundle, tmp_path: Path) -> None:
    options = ["--capability", "8.6,12.0,8.6", "--precision", "fp16", "--batch", "4", "--workspace", "1GiB"]
    done = invoke("build", tiny.location, *options, "--out", tmp_path / "out", "--inspect")
    assert done.exit_code == 0, done.stderr
    told = " ".join(done.stdout.split())
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(files) == told.count(": built in ") == 2
    assert all(name in done.stdout for name in files)
    assert f"compute capability 8.6, by tensorrt-rtx {rtx.version}" in told
    assert f"1 x 1 x {SIDE} x {SIDE} to 4 x 1 x {SIDE} x {SIDE}" in told
    assert f"input image float32 ? x 1 x {SIDE} x {SIDE}" in told
    assert "output severity float32 ? x 2" in told
    assert "give float16" in told
    done = invoke("build", tiny.location, "--capability", "8.9", "--out", tmp_path / "out", "--json")
    line = json.loads(done.stdout)
    assert line["recipe"]["capabilities"] == ["8.9"]
    assert Path(line["file"]).stat().st_size > line["bytes"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--capability", "9.9"], "7.5, 8.0, 8.6"),
        (["--capability", "8.6", "--dla", "0"], "tensorrt-rtx has no DLA"),
        (["--capability", "8.6", "--version-compatible"], "version-compatible"),
        (["--capability", "8.6", "--precision", "int8"], "[bundle-precision]"),
        (["--capability", "8.6", "--precision", "bf16"], "[engine-unsupported]"),
        (["--capability", "8.6", "--tile", "48x48"], f"give one like {SIDE} x {SIDE}"),
        (["--capability", "8.6", "--tile", "48"], "is no tile"),
        (["--capability", "86"], "is no compute capability"),
        (["--capability", "8.6", "--workspace", "much"], "is not a size"),
        (["--capability", "8.6", "--batch", "0"], "0 is not in the range"),
    ],
)
def test_command_refuses_what_can_t_be_built(
    options: list[str], words: str, rtx: Library, tiny: Bundle, tmp_path: Path
) -> None:
    assert rtx.rtx
    done = invoke("build", tiny.location, *options, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert words in done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="tensorrt is here")
def test_missing_package_names_its_extra(tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError) as caught:
        import_leaf("tensorrt")
    assert "bedside[tensorrt]" in caught.value.message
    done = invoke("build", make_bundle(tmp_path / "b"), "--backend", "tensorrt", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "bedside[tensorrt]" in done.stderr
