"""The runtime is lean: no module of it needs torch, the export side or, but for its own leaf, an engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from bedside.backends import BACKENDS
from bedside.scorer import BUILT_IN_CXR

HEAVY = ("torch", "torchvision", "torchxrayvision", "onnx", "bedside_export")
OPTIONAL = (
    "highdicom",
    "imagecodecs",
    "matplotlib",
    "prometheus_client",
    "pynetdicom",
    "scipy",
    "statsmodels",
    "urllib3",
    *(leaf.package for leaf in BACKENDS.values()),
)

IMPORT_EVERYTHING = """
import importlib, importlib.abc, json, pkgutil, sys

blocked = set(sys.argv[1:])

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, Blocked())
import bedside

missing = {}
for module in pkgutil.walk_packages(bedside.__path__, "bedside."):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
    except ImportError as error:
        missing[module.name] = error.name
    else:
        missing[module.name] = None
print(json.dumps(missing))
"""


def run(python: Path | str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    path = ":".join(entry for entry in sys.path if entry.endswith(("/runtime", "/export")))
    if python == sys.executable and path:
        environment["PYTHONPATH"] = path
    return subprocess.run(
        [str(python), "-W", "error", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_runtime_is_tested_without_torch() -> None:
    assert [name for name in HEAVY[:-1] if find_spec(name)] == []


def test_modules_import_without_torch_engines_and_codecs(tmp_path: Path) -> None:
    done = run(sys.executable, "-c", IMPORT_EVERYTHING, *HEAVY, *OPTIONAL, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    missing = json.loads(done.stdout)
    assert "bedside.bundle" in missing
    leaves = {leaf.module: leaf.package for leaf in BACKENDS.values()}
    leaves["bedside.node.listening"] = (
        "pynetdicom"  # its server is one of pynetdicom's, with a gate before it
    )
    assert {name: package for name, package in missing.items() if package} == leaves


def test_importing_bedside_loads_no_engine(tmp_path: Path) -> None:
    code = "import sys, bedside; print(*{name.partition('.')[0] for name in sys.modules})"
    done = run(sys.executable, "-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()).isdisjoint({*HEAVY, *OPTIONAL})


def test_core_install_brings_no_engine(bare_python: Path, tmp_path: Path) -> None:
    code = "import sys; from importlib.util import find_spec; print(*filter(find_spec, sys.argv[1:]))"
    done = run(bare_python, "-c", code, "bedside", *HEAVY[:-1], *OPTIONAL, folder=tmp_path)
    assert done.stdout.split() == ["bedside"], done.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["bundles"], ["inspect", BUILT_IN_CXR], ["verify", BUILT_IN_CXR]]
)
def test_core_install_runs_what_needs_no_engine(
    bare_python: Path, tmp_path: Path, arguments: list[str]
) -> None:
    done = run(bare_python, str(bare_python.with_name("bedside")), *arguments, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_core_install_names_the_extra_that_scoring_needs(bare_python: Path, tmp_path: Path) -> None:
    command = str(bare_python.with_name("bedside"))
    assert run(bare_python, command, "sample", "sample.dcm", folder=tmp_path).returncode == 0
    done = run(bare_python, command, "score", "sample.dcm", folder=tmp_path)
    assert done.returncode == 2
    assert "bedside[cpu]" in done.stderr
    assert "Traceback" not in done.stderr
