"""What the tree promises about itself; needs the checkout that holds these tests, and no more."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from importlib.metadata import files, metadata, version
from pathlib import Path

import pytest

from bedside.backends import BACKENDS
from bedside.version import __version__

ROOT = Path(__file__).parents[2]
COMMANDS = ["scripts/demo", "scripts/test", "scripts/check", "scripts/emulate", ".ci/run"]


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_executable_and_parses(command: str) -> None:
    path = ROOT / command
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", str(path)], check=True)


@pytest.mark.parametrize("command", COMMANDS[:4])
def test_command_tells_what_it_does(command: str) -> None:
    done = subprocess.run([str(ROOT / command), "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"Usage: {command}")


@pytest.mark.parametrize("command", COMMANDS[:4])
def test_command_refuses_what_it_does_not_know(command: str) -> None:
    done = subprocess.run([str(ROOT / command), "--nonsense"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "unknown argument --nonsense" in done.stderr


@pytest.fixture
def installed(pytestconfig: pytest.Config) -> None:
    if not pytestconfig.getoption("--installed"):
        pytest.skip("needs --installed, which scripts/test gives")


@pytest.mark.usefixtures("installed")
def test_version_is_one() -> None:
    assert version("bedside") == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


@pytest.mark.usefixtures("installed")
def test_wheel_carries_licences_types_schemas_and_models() -> None:
    carried = {str(path) for path in files("bedside") or []}
    assert {"bedside/py.typed", "bedside_export/py.typed"} <= carried
    assert any(re.search(r"dist-info/licenses/LICENSE$", path) for path in carried)
    for folder in (ROOT / "runtime/bedside/models", ROOT / "runtime/bedside/schemas"):
        kept = {str(path.relative_to(ROOT / "runtime")) for path in folder.rglob("*") if path.is_file()}
        assert kept
        assert kept <= carried


@pytest.mark.usefixtures("installed")
def test_core_install_stays_small() -> None:
    core = {line for line in metadata("bedside").get_all("Requires-Dist") or [] if "extra ==" not in line}
    assert {re.split(r"[^\w-]", line)[0] for line in core} == {
        "click", "numpy", "pillow", "platformdirs", "pydicom", "tqdm",
    }  # fmt: skip


def test_built_in_bundles_fit_the_wheel() -> None:
    models = ROOT / "runtime/bedside/models"
    assert (
        sum(path.stat().st_size for path in models.rglob("*") if path.is_file()) <= 45_000_000
    )  # 30 MB for X-rays, 15 MB for CT, each in three precisions


@pytest.mark.parametrize(
    "leaf", sorted({*(leaf.module for leaf in BACKENDS.values()), "bedside.backends.fake"})
)
def test_backend_leaf_imports_only_the_seam(leaf: str) -> None:
    """A leaf is a module, or a package whose modules know each other."""
    place = ROOT / "runtime" / leaf.replace(".", "/")
    if not place.is_dir() and place.parent.name != "backends":
        place, leaf = place.parent, leaf.rpartition(".")[0]
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    imported = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                imported.add(node.module or ".")
            elif isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
    ours = {name for name in imported if name.startswith((".", "bedside"))}
    own = {name for name in ours if name == leaf or name.startswith(f"{leaf}.")}
    seam = {f"bedside.backends.{name}" for name in ("base", "explanation", "shapes")}
    bundles = ("bundle", "contract", "errors", "manifest", "onnxfile", "records")
    assert ours - own <= seam | {"bedside.device"} | {f"bedside.{name}" for name in bundles}
