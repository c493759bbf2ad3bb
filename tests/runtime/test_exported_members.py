"""The public API: what `bedside` exports, and what it does not load."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys

import pytest

import bedside

PUBLIC = [
    "Auto",
    "BackendError",
    "BedsideError",
    "Bundle",
    "BundleError",
    "CtSegmenter",
    "CxrScorer",
    "Guard",
    "InputError",
    "InternalError",
    "LimitError",
    "MissingExtraError",
    "NodeError",
    "OpacificationResult",
    "OutputError",
    "RefusedError",
    "Request",
    "SeverityResult",
    "__version__",
    "open_ct",
    "open_cxr",
]
"""As documented; adding a name is a decision, and so is removing one."""


def test_public_names_are_those_documented() -> None:
    assert sorted(bedside.__all__) == sorted(PUBLIC)
    assert len(set(bedside.__all__)) == len(bedside.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(bedside, name)
    assert isinstance(value, str) or (value.__doc__ or "").strip()


def test_only_modules_and_public_names_are_on_the_package() -> None:
    own = {module.name for module in pkgutil.iter_modules(bedside.__path__)}
    visible = {name for name in vars(bedside) if not name.startswith("_")}
    assert visible - own <= set(PUBLIC)


def test_package_says_that_it_is_not_for_clinical_use() -> None:
    assert "Not for clinical use" in (bedside.__doc__ or "")


ENGINES = ("cuda", "onnxruntime", "openvino", "pynvml", "tensorrt", "tensorrt_rtx")
"""Packages that need not be installed."""


@pytest.mark.parametrize(
    "module",
    [
        module.name
        for module in pkgutil.walk_packages(bedside.__path__, "bedside.")
        if not module.name.endswith("__main__")
    ],
)
def test_every_name_in_all_exists(module: str) -> None:
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ENGINES:
            raise
        pytest.skip(f"{error.name} is not installed")
    for name in getattr(loaded, "__all__", ()):
        assert hasattr(loaded, name), f"{module}.{name}"


def test_import_loads_no_engine_no_torch_and_no_decoder() -> None:
    code = "import sys, bedside; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=environment,
    )
    loaded = set(done.stdout.split())
    assert "bedside" in loaded
    assert loaded.isdisjoint({"torch", "bedside_export", "onnx", "imagecodecs", "scipy", "skimage", *ENGINES})
