"""No engine reports its use to its maker, nor leaves an identifier in the user's home."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from bedside.backends import BACKENDS
from bedside.backends.discretion import without_telemetry
from command_line import environment
from tiny_bundle import make_bundle

OPEN = """
import sys
from bedside.backends import open_backend
from bedside.bundle import Bundle
engine = open_backend(sys.argv[1], Bundle.open(sys.argv[2]))
engine.close()
print(sorted(name for name in sys.modules if "telemetry" in name.lower() and "bedside" not in name))
"""


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_opening_an_engine_leaves_nothing_in_the_home(tmp_path: Path, backend: str) -> None:
    if find_spec(BACKENDS[backend].package) is None:
        pytest.skip(f"needs {backend}")
    home = tmp_path / "home"
    home.mkdir()
    bundle = make_bundle(tmp_path / "bundle")
    changed = {**environment(), "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    changed = {name: value for name, value in changed.items() if name not in {"CI", "ORT_DISABLE_TELEMETRY"}}
    done = subprocess.run(
        [sys.executable, "-c", OPEN, backend, bundle],
        capture_output=True,
        text=True,
        env=changed,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []
    assert "openvino_telemetry" not in done.stdout


def test_module_that_sends_is_hidden_only_while_engines_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    with without_telemetry(), pytest.raises(ImportError):
        __import__("openvino_telemetry")
    assert "openvino_telemetry" not in sys.modules


def test_module_that_was_imported_before_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino_telemetry", sys)
    with without_telemetry():
        assert sys.modules["openvino_telemetry"] is sys
    assert sys.modules["openvino_telemetry"] is sys


def test_switch_that_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    with without_telemetry():
        assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"
