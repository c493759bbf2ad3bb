"""What tuning tries: each precision that the bundle states a tolerance for, on each engine that is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bedside.backends import BACKENDS
from bedside.bundle import Bundle
from bedside.contract import RUNS
from bedside.errors import BackendError, BundleError, MissingExtraError
from bedside.tuning import Candidate, Choice, key_for, list_candidates
from bedside.tuning.candidates import BY_EXACTNESS
from tiny_bundle import MODEL, make_bundle, read_manifest, seal


@pytest.fixture(autouse=True)
def engines() -> None:
    for name in ("onnxruntime", "openvino"):
        pytest.importorskip(name)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


def test_what_the_bundle_states_a_tolerance_for_is_tried_on_each_engine_the_exact_first(
    bundle: Bundle,
) -> None:
    listed = list_candidates(bundle, Choice(("openvino", "onnxruntime", "openvino")))
    assert listed == tuple(
        Candidate(backend, precision)
        for precision in ("fp32", "bf16")
        for backend in ("openvino", "onnxruntime")
    )


def test_all_that_is_installed_is_tried(bundle: Bundle) -> None:
    assert {each.backend for each in list_candidates(bundle, Choice())} >= {"onnxruntime", "openvino"}


def test_each_precision_that_can_be_asked_for_has_its_place() -> None:
    assert sorted(BY_EXACTNESS) == sorted(RUNS)


def test_int8_file_brings_all_ways_to_run_it(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b")
    (folder / "int8.onnx").write_bytes((folder / MODEL).read_bytes())
    manifest = {key: value for key, value in read_manifest(folder).items() if key != "files"}
    manifest["models"]["int8"] = "int8.onnx"
    manifest["tolerances"]["int8"] = {"extent": 0.25, "opacity": 0.25}
    opened = Bundle.open(seal(folder, manifest))
    listed = [each.precision for each in list_candidates(opened, Choice(("openvino",)))]
    assert listed == ["fp32", "bf16", "int8", "int8-fp16", "int8-bf16"]


def test_thread_counts_are_tried_each(bundle: Bundle) -> None:
    listed = list_candidates(bundle, Choice(("openvino",), ("fp32",), (1, 2, 1)))
    assert listed == (Candidate("openvino", "fp32", 1), Candidate("openvino", "fp32", 2))
    assert [str(each) for each in listed] == ["openvino fp32, 1 thread", "openvino fp32, 2 threads"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"backends": ("torch",)}, "onnxruntime"),
        ({"precisions": ("fp64",)}, "int8-bf16"),
        ({"threads": (2, 0)}, "not 0"),
    ],
)
def test_unknown_names_are_refused(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(BackendError, match=told) as caught:
        Choice(**arguments)
    assert caught.value.code == "engine-unsupported"


def test_precision_that_the_bundle_has_not_is_told(bundle: Bundle) -> None:
    with pytest.raises(BundleError) as caught:
        list_candidates(bundle, Choice(precisions=("int8",)))
    assert caught.value.code == "bundle-precision"


def test_listing_imports_no_engine(bundle: Bundle) -> None:
    code = (
        "import sys; from bedside.bundle import Bundle; from bedside.tuning import Choice, list_candidates, key_for\n"
        "bundle = Bundle.open(sys.argv[1]); print(len(list_candidates(bundle, Choice())), key_for(bundle).digest)\n"
        f"print(sorted({sorted({leaf.package for leaf in BACKENDS.values()})} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, bundle.location],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n[]\n")


def test_backend_that_is_not_installed_names_its_extra(bundle: Bundle) -> None:
    missing = [name for name, leaf in BACKENDS.items() if leaf.package == "tensorrt"]
    if not missing or "tensorrt" in key_for(bundle).engines:
        pytest.skip("every engine is installed here")
    with pytest.raises(MissingExtraError) as caught:
        list_candidates(bundle, Choice((missing[0],)))
    assert f"bedside[{BACKENDS[missing[0]].extra}]" in caught.value.message
