from __future__ import annotations

import getpass
import json
import os
import platform
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bedside.backends import BACKENDS, PRECISIONS
from bedside.device import Clock, Device, DeviceState, Gpu, Jetson
from bedside.doctor import AREAS, SCHEMA, STATUSES, Check, Engine, Examination
from command_line import environment, run
from schemas import make_validator, read_schema

VALIDATOR = make_validator("doctor-1")

NOTHING = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "imagecodecs"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, Blocked())
"""
"""Makes an environment with extras seem one without them."""

FULL = Examination(
    checks=(Check("device", "GPU", "ok", "text"), Check("engines", "tensorrt", "missing", "text", "do this")),
    engines=(
        Engine(
            "tensorrt", "ok", "text", "", "10.9", None, ("fp32", "int8-fp16"), {"bf16": "why not"}, ("CUDA",)
        ),
    ),
    device=Device(
        "Cortex-A78AE",
        "aarch64",
        "",
        ("asimd",),
        12,
        12,
        1.5,
        1 << 36,
        1 << 30,
        (Gpu("GPU", "1.0", "8.7", 1 << 30), Gpu("GPU")),
        Jetson("NVIDIA Jetson AGX Orin Developer Kit", "36.4.3"),
    ),
    state=DeviceState("MAXN", {"cpu": Clock(729.6, None)}, {"cpu-thermal": 48.5}, True, ("alert",), 0.5),
)


def doctor(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    return run("doctor", *arguments, code=code)


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stderr == ""
    record: dict[str, Any] = json.loads(done.stdout)
    VALIDATOR.validate(record)
    return record


def test_schema_speaks_of_this_version() -> None:
    document = read_schema("doctor-1")
    assert document["properties"]["schema"]["const"] == SCHEMA
    kinds = document["$defs"]
    assert tuple(kinds["precision"]["enum"]) == PRECISIONS
    assert tuple(kinds["status"]["enum"]) == STATUSES
    assert tuple(kinds["check"]["properties"]["area"]["enum"]) == AREAS


def test_fullest_examination_keeps_to_the_schema() -> None:
    VALIDATOR.validate(json.loads(json.dumps(FULL.to_json(), allow_nan=False)))


@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="needs an engine: onnxruntime")
def test_environment_with_an_engine_is_able() -> None:
    done = doctor("--json")
    record = told(done)
    assert (done.returncode, record["able"]) == (0, True)
    assert [engine["backend"] for engine in record["engines"]] == list(BACKENDS)
    engine = record["engines"][0]
    assert engine["backend"] == "onnxruntime"
    assert (engine["status"], engine["device"]) == ("ok", "CPU")
    assert "fp32" in engine["precisions"]
    assert {check["area"] for check in record["checks"]} == set(AREAS)


def test_environment_without_extras_names_the_commands() -> None:
    done = doctor("--json", code=NOTHING)
    record = told(done)
    assert (done.returncode, record["able"]) == (1, False)
    fixes = {check["name"]: check["fix"] for check in record["checks"] if check["status"] == "missing"}
    assert fixes["onnxruntime"] == "pip install 'bedside[cpu]'"
    assert fixes["openvino"] == "pip install 'bedside[openvino]'"
    assert fixes["JPEG-LS"] == "pip install 'bedside[codecs]'"


def test_lines_are_for_people_and_fixes_stand_whole() -> None:
    done = doctor(code=NOTHING)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].endswith("Not for clinical use.")
    assert {line for line in lines if line in AREAS} == set(AREAS)
    assert "-> pip install 'bedside[cpu]'" in {line.strip() for line in lines}
    assert lines[-1] == "bedside can't run here: no engine works; try: pip install 'bedside[cpu]'"


def test_crash_of_an_engine_costs_a_line(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime").mkdir()
    crash = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
    (tmp_path / "onnxruntime" / "__init__.py").write_text(crash)
    code = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})"
    record = told(doctor("--json", code=code))
    engine = record["engines"][0]
    assert (engine["backend"], engine["status"], engine["precisions"]) == ("onnxruntime", "broken", [])
    (check,) = (check for check in record["checks"] if check["name"] == "onnxruntime")
    assert "SIGSEGV" in check["text"]
    assert check["fix"]


def test_host_and_user_are_not_told(tmp_path: Path) -> None:
    home = tmp_path / "Doe^John"
    home.mkdir()
    changed = {**environment(), "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "bedside", "doctor", "--json"],
        capture_output=True,
        text=True,
        env=changed,
        check=False,
    )
    record = told(done)
    assert "Doe" not in done.stdout
    assert platform.node() not in done.stdout.replace("-", " ").split()
    assert f"/{getpass.getuser()}/" not in done.stdout
    (cache,) = (check for check in record["checks"] if check["name"] == "cache")
    assert cache["text"].startswith("~/cache/bedside")
    assert list(home.iterdir()) == []


def test_cache_folder_can_be_given(tmp_path: Path) -> None:
    record = told(doctor("--json", "--cache", str(tmp_path / "there"), code=NOTHING))
    (cache,) = (check for check in record["checks"] if check["name"] == "cache")
    assert "there: not there yet" in cache["text"]


def test_core_install_is_examined(bare_python: Path, tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [bare_python, "-W", "error", bare_python.with_name("bedside"), "doctor", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=clean,
        check=False,
    )
    record = told(done)
    assert (done.returncode, record["able"]) == (1, False)
    assert {check["status"] for check in record["checks"] if check["area"] == "bundles"} == {"ok"}
    lacking = {check["name"]: check["fix"] for check in record["checks"] if check["status"] == "missing"}
    assert lacking["onnxruntime"] == "pip install 'bedside[cpu]'"
    assert lacking["stats"] == "pip install 'bedside[stats]'"
    assert {"JPEG of 12 bits", "JPEG Lossless", "JPEG-LS"} <= lacking.keys()
    assert {check["name"] for check in record["checks"] if check["status"] == "broken"} <= {
        "GPU",
        "throttling",
    }
