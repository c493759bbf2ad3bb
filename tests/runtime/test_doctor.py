from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bedside.backends import BACKENDS, PRECISIONS
from bedside.bundle import Bundle, built_in
from bedside.device import Device, Gpu, Jetson, read_state
from bedside.device.tree import Tree
from bedside.dicom.pixels import PROCESSES, RLE
from bedside.doctor import Check, Engine, Examination, engines, examination
from bedside.doctor.check import private, size
from bedside.doctor.codecs import FAMILIES, check_codecs
from bedside.doctor.engines import check_engines
from bedside.doctor.graphics import check_graphics, driver_too_old
from bedside.doctor.packages import is_installed
from bedside.doctor.storage import check_storage
from bedside.doctor.system import _EXTRAS, check_device, check_extras, check_python
from bedside.doctor.trials import Outcome, try_items
from bedside.errors import BundleError
from made_devices import make_container, make_jetson, make_laptop, write_files

GPU = Gpu("NVIDIA RTX 4000 SFF Ada Generation", "580.95.05", "8.9", 20 << 30)
BOX = Device("a processor", "x86_64", "", (), 4, 2, memory_bytes=8 << 30)
WITH_GPU = replace(BOX, gpus=(GPU,))
ORIN = Device(
    "Cortex-A78AE", "aarch64", "", (), 4, jetson=Jetson("NVIDIA Jetson AGX Orin Developer Kit", "36.4.3")
)
CPU_FACTS = {"version": "1.31.1", "providers": ["CPUExecutionProvider"], "cuda": None}
GPU_FACTS = {
    "version": "1.31.1",
    "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "cuda": "13.0",
}

Facts = Mapping[str, Any]


def make_package(folder: Path, name: str, code: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)


def one(checks: Sequence[Check], name: str) -> Check:
    found = [check for check in checks if check.name == name]
    assert len(found) == 1
    return found[0]


# --- trials


CRASH = "import os, signal\nos.kill(os.getpid(), signal.{})\n"


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (CRASH.format("SIGSEGV"), "crashed", "SIGSEGV"),
        (CRASH.format("SIGILL"), "crashed", "instructions that this processor does not have"),
        ("import os\nos._exit(3)\n", "crashed", "exit code 3"),
        ("import time\ntime.sleep(60)\n", "hung", "no answer in 3 s"),
        ("raise ImportError('libnothing.so.1: not there')\n", "exception", "libnothing.so.1: not there"),
        ("raise SystemExit(0)\n", "crashed", "exit code 0"),
    ],
    ids=["crash", "illegal", "exit", "hang", "import", "quiet"],
)
def test_what_breaks_costs_its_own_item_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, kind: str, words: str
) -> None:
    make_package(tmp_path, "good", "__version__ = '1.2.3-456-abc'\nprint('chatter')\n")
    make_package(tmp_path, "bad", code)
    make_package(tmp_path, "later", "__version__ = '4'\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    outcomes = try_items("import", ["good", "bad", "later"], {}, limit_s=3)

    assert list(outcomes) == ["good", "bad", "later"]
    assert outcomes["good"] == Outcome(None, "", {"version": "1.2.3"})
    assert outcomes["later"].facts == {"version": "4"}
    assert outcomes["bad"].code == kind
    assert words in str(outcomes["bad"].error)


def test_nothing_to_try_starts_no_process() -> None:
    assert try_items("no such kind", [], {}) == {}


# --- engines


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes engines seem installed, with these facts or errors, and these outcomes of their precisions."""

    def install(
        packages: Mapping[str, Facts | Outcome],
        tried: Mapping[str, Outcome] | None = None,
        distributions: Sequence[str] = (),
    ) -> None:
        def outcomes(
            kind: str, items: Sequence[str], options: Facts, *, limit_s: float
        ) -> dict[str, Outcome]:
            if kind == "engine":
                failed = Outcome("the bundle has no such model", "bundle-precision")
                return {item: (tried or {}).get(item, failed) for item in items}
            found = {item: packages[item] for item in items}
            return {
                item: each if isinstance(each, Outcome) else Outcome(facts=each)
                for item, each in found.items()
            }

        monkeypatch.setattr(engines, "try_items", outcomes)
        monkeypatch.setattr(engines, "is_installed", packages.__contains__)
        monkeypatch.setattr(
            engines, "find_distribution", lambda name: name if name in distributions else None
        )

    return install


def find(name: str, device: Device = BOX, bundles: tuple[str, ...] = ("one",)) -> Engine:
    found = {engine.backend: engine for engine in check_engines(device, bundles, limit_s=1)}
    assert found.keys() == BACKENDS.keys()
    return found[name]


def test_engine_that_is_not_installed_names_its_extra(fake: Callable[..., None]) -> None:
    fake({})
    for name in ("onnxruntime", "openvino"):
        engine = find(name)
        assert (engine.status, engine.fix) == ("missing", f"pip install 'bedside[{BACKENDS[name].extra}]'")
        assert not engine.works


def test_engine_for_a_gpu_is_no_lack_without_one(fake: Callable[..., None]) -> None:
    fake({})
    for name in BACKENDS.keys() - {"onnxruntime", "openvino"}:
        assert (find(name).status, find(name).fix) == ("absent", "")
        assert find(name, WITH_GPU).status == "missing"
        assert f"bedside[{BACKENDS[name].extra}]" in find(name, WITH_GPU).fix


def test_engine_tells_in_what_it_ran_and_why_not_in_others(fake: Callable[..., None]) -> None:
    ran = Outcome(facts={"device": "CPU", "bundle": "one"})
    refused = Outcome("it has no bf16 here; ask for fp32", "engine-unsupported")
    mixed = Outcome("it has no int8-bf16 here; ask for fp32", "engine-unsupported")
    fake({"onnxruntime": CPU_FACTS}, {"fp32": ran, "fp16": ran, "bf16": refused, "int8-bf16": mixed})
    engine = find("onnxruntime")
    assert (engine.status, engine.version, engine.device) == ("ok", "1.31.1", "CPU")
    assert engine.precisions == ("fp32", "fp16")
    assert engine.refused.keys() == {"bf16", "int8", "int8-bf16", "int8-fp16"}
    assert engine.refused["bf16"] == "it has no bf16 here; ask for fp32"
    assert "; not bf16, int8-bf16: it has no bf16 here; not int8, int8-fp16: no built-in" in engine.text
    assert engine.offers == ("CPUExecutionProvider",)
    assert "providers in this build: CPU" in engine.text


def test_engine_whose_every_run_fails_is_broken(fake: Callable[..., None]) -> None:
    failed = Outcome("it can't load the model", "engine-failed")
    fake({"openvino": {"version": "2026.4.1"}}, dict.fromkeys(PRECISIONS, failed))
    engine = find("openvino")
    assert (engine.status, engine.works) == ("broken", False)
    assert "it can't load the model" in engine.text


def test_engine_that_crashes_in_one_precision_is_broken_and_works(fake: Callable[..., None]) -> None:
    ran, crashed = Outcome(facts={"device": "CPU"}), Outcome("it crashed (SIGSEGV)", "crashed")
    fake({"onnxruntime": CPU_FACTS}, {"fp32": ran, "int8": crashed})
    engine = find("onnxruntime")
    assert (engine.status, engine.works) == ("broken", True)
    assert "not int8: it crashed (SIGSEGV)" in engine.text


def test_engine_that_can_not_be_imported_is_broken(fake: Callable[..., None]) -> None:
    fake({"onnxruntime": Outcome("ImportError: libfoo.so", "exception")}, distributions=["onnxruntime"])
    engine = find("onnxruntime")
    assert engine.status == "broken"
    assert "libfoo.so" in engine.text
    assert engine.fix == "pip install --force-reinstall --no-deps onnxruntime"


def test_two_builds_of_onnxruntime_over_each_other_are_told(fake: Callable[..., None]) -> None:
    ran = Outcome(facts={"device": "CPU"})
    fake({"onnxruntime": CPU_FACTS}, {"fp32": ran}, distributions=["onnxruntime", "onnxruntime-gpu"])
    engine = find("onnxruntime")
    assert (engine.status, engine.works) == ("broken", True)
    assert "both installed" in engine.text
    assert engine.fix == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'bedside[cpu]'"
    assert find("onnxruntime", WITH_GPU).fix.endswith("'bedside[gpu]'")


@pytest.mark.skipif("onnxruntime-cuda" not in BACKENDS, reason="this version has no onnxruntime-cuda")
class TestOnnxRuntimeOnGpus:
    def test_build_without_the_provider_is_to_be_replaced(self, fake: Callable[..., None]) -> None:
        fake({"onnxruntime": CPU_FACTS}, distributions=["onnxruntime"])
        engine = find("onnxruntime-cuda", WITH_GPU)
        assert engine.status == "missing"
        assert "no CUDAExecutionProvider" in engine.text
        assert engine.fix == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'bedside[gpu]'"

    def test_build_without_the_provider_is_no_lack_without_a_gpu(self, fake: Callable[..., None]) -> None:
        fake({"onnxruntime": CPU_FACTS})
        assert find("onnxruntime-cuda").status == "absent"

    def test_driver_that_is_too_old_for_the_build_is_told(self, fake: Callable[..., None]) -> None:
        fake({"onnxruntime": GPU_FACTS})
        old = replace(BOX, gpus=(replace(GPU, driver="535.183.01"),))
        engine = find("onnxruntime-cuda", old)
        assert engine.status == "broken"
        assert "needs NVIDIA's driver 580 or newer; 535.183.01 is here" in engine.text


@pytest.mark.skipif("tensorrt-rtx" not in BACKENDS, reason="this version has no tensorrt-rtx")
def test_engine_of_another_architecture_is_no_lack(fake: Callable[..., None]) -> None:
    fake({})
    assert (find("tensorrt-rtx", ORIN).status, find("tensorrt-rtx", WITH_GPU).status) == ("absent", "missing")


@pytest.mark.skipif("tensorrt" not in BACKENDS, reason="this version has no tensorrt")
class TestTensorRt:
    def test_engine_that_must_be_built_is_not_built(self, fake: Callable[..., None]) -> None:
        fake({"tensorrt": {"version": "10.9.0.34"}, "cuda.bindings": {}})
        engine = find("tensorrt", WITH_GPU)
        assert (engine.status, engine.device, engine.works) == ("ok", None, True)
        assert engine.precisions == PRECISIONS
        assert "bedside tune" in engine.text

    def test_precision_that_the_gpu_lacks_is_told(self, fake: Callable[..., None]) -> None:
        fake({"tensorrt": {"version": "10.9.0.34"}, "cuda.bindings": {}})
        engine = find("tensorrt", replace(BOX, gpus=(replace(GPU, compute_capability="7.5"),)))
        assert engine.precisions == ("fp32", "fp16", "int8", "int8-fp16")
        assert engine.refused.keys() == {"bf16", "int8-bf16"}
        assert "8.0 or newer" in engine.refused["bf16"]

    def test_missing_way_to_the_gpu_is_told(self, fake: Callable[..., None]) -> None:
        fake({"tensorrt": {"version": "10.9.0.34"}})
        engine = find("tensorrt", WITH_GPU)
        assert (engine.status, engine.fix, engine.works) == ("missing", "pip install cuda-bindings", False)

    def test_version_that_is_too_old_is_told(self, fake: Callable[..., None]) -> None:
        fake({"tensorrt": {"version": "8.6.1"}})
        engine = find("tensorrt", WITH_GPU)
        assert (engine.status, engine.works) == ("broken", False)
        assert "10.3 or newer" in engine.text
        assert engine.fix == "pip install --upgrade 'bedside[tensorrt]'"

    def test_jetson_takes_it_from_its_own_packages(self, fake: Callable[..., None]) -> None:
        fake({})
        assert find("tensorrt", ORIN).fix == "sudo apt-get install python3-libnvinfer"

    def test_library_that_a_jetson_lacks_is_named(self, fake: Callable[..., None]) -> None:
        error = "ImportError: libnvdla_compiler.so: cannot open shared object file"
        fake({"tensorrt": Outcome(error, "exception")})
        assert find("tensorrt", ORIN).fix == "sudo apt-get install nvidia-l4t-dla-compiler"

    def test_import_that_fails_without_a_gpu_is_no_lack(self, fake: Callable[..., None]) -> None:
        fake({"tensorrt": Outcome("ImportError: libcuda.so.1", "exception")})
        engine = find("tensorrt")
        assert (engine.status, engine.fix) == ("absent", "")


def test_no_bundle_to_try_an_engine_on_is_told(fake: Callable[..., None]) -> None:
    fake({"onnxruntime": CPU_FACTS})
    engine = find("onnxruntime", bundles=())
    assert not engine.works
    assert "no built-in bundle is whole" in engine.text


def test_remains_of_an_uninstalled_package_are_no_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leftover" / "capi").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not is_installed("leftover")
    assert not is_installed("not.there")


def test_every_backend_that_needs_no_gpu_is_known() -> None:
    assert BACKENDS.keys() >= engines._PROCESSOR


def test_installed_engines_run_a_built_in_bundle_at_fp32() -> None:
    installed = [name for name in ("onnxruntime", "openvino") if is_installed(BACKENDS[name].package)]
    if not installed:
        pytest.skip("no engine is installed")
    found = {each.backend: each for each in check_engines(BOX, built_in(), limit_s=120)}
    for name in installed:
        assert "fp32" in found[name].precisions, found[name].text
        assert found[name].device == "CPU"


# --- codecs


def test_every_transfer_syntax_that_is_read_is_told() -> None:
    told = {"1.2.840.10008.1.2" + syntax for family in FAMILIES.values() for syntax in family.syntaxes}
    assert {*PROCESSES, RLE} <= told
    assert {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"} <= told


def test_codecs_decode_or_name_their_extra() -> None:
    pytest.importorskip("imagecodecs", reason="needs the codecs extra: imagecodecs")
    assert {check.status for check in check_codecs()} == {"ok"}


def test_codecs_that_are_not_installed_name_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bedside.doctor.codecs.is_installed", lambda name: False)
    checks = check_codecs()
    assert [check.name for check in checks if check.status == "ok"] == [
        "uncompressed",
        "RLE",
        "JPEG",
        "JPEG 2000",
    ]
    for name in ("JPEG of 12 bits", "JPEG Lossless", "JPEG-LS"):
        assert (one(checks, name).status, one(checks, name).fix) == (
            "missing",
            "pip install 'bedside[codecs]'",
        )


def test_codec_that_breaks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = CRASH.format("SIGSEGV")
    make_package(
        tmp_path,
        "imagecodecs",
        f"def jpegls_decode(frame):\n    {code.splitlines()[0]}\n    {code.splitlines()[1]}\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("bedside.doctor.codecs.is_installed", lambda name: True)
    checks = check_codecs()
    assert "SIGSEGV" in one(checks, "JPEG-LS").text
    assert one(checks, "JPEG Lossless").status == "broken"  # the fake has no jpeg8_decode
    assert one(checks, "JPEG-LS").fix == "pip install --upgrade 'bedside[codecs]'"
    assert one(checks, "JPEG").status == "ok"


# --- GPUs and Jetson


def write_card(root: Path) -> Path:
    card = "sys/bus/pci/devices/0000:01:00.0"
    return write_files(make_container(root), {f"{card}/vendor": "0x10de\n", f"{card}/class": "0x030000\n"})


def test_machine_without_a_gpu_lacks_nothing(tmp_path: Path) -> None:
    assert [check.status for check in check_graphics(BOX, Tree(make_laptop(tmp_path)))] == ["absent"]


def test_gpu_without_a_driver_is_told(tmp_path: Path) -> None:
    (check,) = check_graphics(BOX, Tree(write_card(tmp_path)))
    assert (check.status, check.fix) == ("broken", "")
    write_files(tmp_path, {"etc/os-release": "NAME=Ubuntu\nID=ubuntu\n"})
    (check,) = check_graphics(BOX, Tree(tmp_path))
    assert check.fix == "sudo ubuntu-drivers install"


def test_gpu_that_the_container_was_not_given_is_told(tmp_path: Path) -> None:
    version = {"proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Kernel Module  580.95.05  Tue\n"}
    (check,) = check_graphics(WITH_GPU, Tree(write_files(make_container(tmp_path), version)))
    assert (check.status, check.fix) == ("broken", "docker run --gpus all IMAGE")


def test_gpu_is_told_with_its_driver(tmp_path: Path) -> None:
    check = check_graphics(WITH_GPU, Tree(make_container(tmp_path)))[0]
    assert check.status == "ok"
    assert check.text == f"{GPU.name}, driver 580.95.05, compute capability 8.9, 20.0 GiB"


def test_jetson_is_told_with_its_jetpack(tmp_path: Path) -> None:
    (check,) = check_graphics(ORIN, Tree(make_jetson(tmp_path)))
    assert check.status == "ok"
    assert check.text == "NVIDIA Jetson AGX Orin Developer Kit, Jetson Linux 36.4.3, JetPack 6"


def test_jetson_in_a_container_says_what_to_mount(tmp_path: Path) -> None:
    device = replace(ORIN, jetson=Jetson("NVIDIA Jetson AGX Orin Developer Kit"))
    jetson, jetpack, mode = check_graphics(device, Tree(make_container(tmp_path)))
    assert jetson.status == "ok"
    assert (jetpack.status, mode.status) == ("missing", "missing")
    assert jetpack.fix == "docker run -v /etc/nv_tegra_release:/etc/nv_tegra_release:ro IMAGE"
    assert "-v /var/lib/nvpmodel:/var/lib/nvpmodel:ro -v /etc/nvpmodel.conf:/etc/nvpmodel.conf:ro" in mode.fix


def test_jetson_that_is_too_old_is_told(tmp_path: Path) -> None:
    old = replace(ORIN, jetson=Jetson("NVIDIA Jetson Xavier NX Developer Kit", "35.6.0"))
    check = check_graphics(old, Tree(make_container(tmp_path)))[0]
    assert check.status == "broken"
    assert "JetPack 6.1 or newer" in check.text


@pytest.mark.parametrize(
    ("cuda", "driver", "old"),
    [
        ("13.0", "580.95.05", False),
        ("13.0", "570.1", True),
        ("12.8", "525.60.13", False),
        ("12.8", "520.1", True),
        ("14.0", "580.1", False),  # of what is not known nothing is said
        (None, "1.0", False),
        ("13.0", "unknown", False),
        ("13.0", None, False),
    ],
)
def test_driver_is_held_against_the_cuda_of_the_build(
    cuda: str | None, driver: str | None, old: bool
) -> None:
    device = replace(BOX, gpus=(Gpu("GPU", driver),))
    assert (driver_too_old(device, cuda) is not None) is old


# --- system


def test_this_python_and_its_packages_are_fine() -> None:
    assert {check.status for check in check_python()} == {"ok"}


def test_python_that_is_too_old_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bedside.doctor.system._OLDEST", (99, 0))
    assert one(check_python(), "Python").status == "broken"


def test_package_of_the_core_that_is_missing_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bedside.doctor.system._CORE", ("numpy", "no-such-package"))
    check = one(check_python(), "packages")
    assert (check.status, check.fix) == ("missing", "pip install no-such-package")


def test_package_of_an_extra_that_is_missing_names_the_extra_and_its_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extras = {"stats": (("numpy", "no-such-package"), "this"), "dicom": (("numpy",), "that")}
    monkeypatch.setattr("bedside.doctor.system._EXTRAS", extras)
    lacking, there = check_extras()
    assert (lacking.name, lacking.status, lacking.fix) == ("stats", "missing", "pip install 'bedside[stats]'")
    assert lacking.text == "no-such-package not installed; this needs it"
    assert (there.name, there.status) == ("dicom", "ok")
    assert there.text.endswith("; for that")


@pytest.mark.parametrize("extra", list(_EXTRAS))
def test_doctor_knows_extras_as_they_are_declared(extra: str) -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    found = re.search(rf"^{extra} = (\[.*?)^(?:\w+ = |\[)", project, re.DOTALL | re.MULTILINE)
    assert found is not None
    declared = re.findall(r'"([A-Za-z0-9-]+)', found[1])
    assert {name.lower() for name in _EXTRAS[extra][0]} <= {name.lower() for name in declared}


def examine_device(root: Path, device: Device = BOX) -> list[Check]:
    return check_device(device, read_state(root=root), Tree(root))


def test_limits_of_control_groups_are_told(tmp_path: Path) -> None:
    device = replace(BOX, cpu_limit=1.5, memory_limit_bytes=2 << 30)
    checks = examine_device(make_laptop(tmp_path), device)
    assert "a control group allows 1.5 of them" in one(checks, "processor").text
    assert one(checks, "memory").text == "8.0 GiB; a control group allows 2.0 GiB"


def test_memory_that_is_too_small_for_a_ct_is_told(tmp_path: Path) -> None:
    device = replace(BOX, memory_limit_bytes=300 << 20)
    assert one(examine_device(make_laptop(tmp_path), device), "memory").status == "broken"


def test_power_clocks_and_heat_are_told(tmp_path: Path) -> None:
    check = one(examine_device(make_jetson(tmp_path)), "state")
    assert check.text == (
        "power mode MODE_30W; cpu 1728 of 2202 MHz; 17000000.gpu 306 of 625 MHz; hottest 49 degrees Celsius"
    )


def test_throttling_is_told(tmp_path: Path) -> None:
    make_jetson(tmp_path)
    assert "throttling" not in {check.name for check in examine_device(tmp_path)}
    write_files(tmp_path, {"sys/class/thermal/cooling_device1/cur_state": "1\n"})
    check = one(examine_device(tmp_path), "throttling")
    assert check.status == "broken"
    assert "cpu-throttle-alert" in check.text


@pytest.mark.parametrize(
    ("path", "text", "name"),
    [
        (".dockerenv", "", "inside a Docker container"),
        ("run/.containerenv", "", "inside a Podman container"),
        ("proc/self/cgroup", "0::/kubepods/burstable/pod1/abc\n", "inside a Kubernetes container"),
        ("etc/hostname", "x", "none found"),
    ],
)
def test_container_is_told(tmp_path: Path, path: str, text: str, name: str) -> None:
    write_files(tmp_path, {path: text})
    assert one(examine_device(tmp_path), "container").text == name


def test_clock_that_was_never_set_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import datetime, timezone

    assert one(examine_device(tmp_path), "clock").status == "ok"
    monkeypatch.setattr("bedside.doctor.system._MADE", datetime(9000, 1, 1, tzinfo=timezone.utc))
    check = one(examine_device(tmp_path), "clock")
    assert (check.status, check.fix) == ("broken", "sudo timedatectl set-ntp true")


# --- storage


def test_cache_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    check = one(check_storage(tmp_path / "a" / "b"), "cache")
    assert check.status == "ok"
    assert "not there yet" in check.text
    assert list(tmp_path.iterdir()) == []


def test_cache_is_told_with_its_plans_and_left_as_it_is(tmp_path: Path) -> None:
    write_files(
        tmp_path, {"plans/one.json": "{}", "plans/two.json": "{}", "engines/x/model.engine": "x" * 2048}
    )
    before = sorted(tmp_path.rglob("*"))
    check = one(check_storage(tmp_path), "cache")
    assert check.status == "ok"
    assert "2 plans, 2 KiB" in check.text
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_cache_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    check = one(check_storage(tmp_path), "cache")
    assert check.status == "broken"
    assert "--cache FOLDER" in check.fix


@pytest.mark.skipif(os.geteuid() == 0, reason="root sees everything")
def test_cache_where_nothing_may_be_seen_is_told(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed").chmod(0)
    check = one(check_storage(tmp_path / "closed" / "cache"), "cache")
    assert (check.status, "permission denied" in check.text) == ("broken", True)


def test_cache_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check = one(check_storage(tmp_path / "file" / "cache"), "cache")
    assert (check.status, "not a folder" in check.text) == ("broken", True)


def test_disk_that_is_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bedside.doctor.storage._LITTLE", 1 << 60)
    checks = check_storage(tmp_path)
    assert one(checks, "cache").status == one(checks, "temporary files").status == "broken"


# --- what is told


def test_check_is_one_line_of_a_known_status() -> None:
    with pytest.raises(ValueError, match="status"):
        Check("system", "x", "fine", "text")
    with pytest.raises(ValueError, match="one line"):
        Check("system", "x", "ok", "two\nlines")


def test_home_and_user_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    assert private("/home/alice/.cache/bedside") == "~/.cache/bedside"
    assert private("can't open /home/alice/x.so: no\nsuch file") == "can't open ~/x.so: no such file"
    assert private("/scratch/alice/tmp") == "/scratch/USER/tmp"
    assert private("/home/alice2/x") == "/home/alice2/x"


def test_user_without_an_entry_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", fail)
    assert private("/srv/x") == "/srv/x"


def test_long_message_is_cut() -> None:
    assert len(private("word " * 1000)) == 400


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 bytes"), (2048, "2 KiB"), (1.5 * 2**20, "1.5 MiB"), (2**35, "32.0 GiB"), (2**43, "8.0 TiB")],
)
def test_sizes_are_for_people(n_bytes: float, text: str) -> None:
    assert size(n_bytes) == text


def judge(*found: Engine, bundles: str = "ok") -> Examination:
    checks = (Check("bundles", "one", bundles, "text"),)
    return Examination(checks, found, BOX, read_state(root=Path("/nonexistent")))


RUNS = Engine("onnxruntime", "ok", "text", version="1", device="CPU", precisions=("fp32",))


def test_verdict_needs_an_engine_and_a_bundle() -> None:
    lacking = Engine("onnxruntime", "missing", "text", "pip install 'bedside[cpu]'")
    assert judge(RUNS).able
    assert not judge(lacking).able
    assert judge(lacking).verdict.endswith("no engine works; try: pip install 'bedside[cpu]'")
    assert not judge(RUNS, bundles="broken").able
    assert "no built-in bundle is whole" in judge(RUNS, bundles="broken").verdict


def test_verdict_says_which_option_another_engine_needs() -> None:
    assert judge(RUNS).verdict.endswith("bedside score chest.dcm")
    assert judge(replace(RUNS, backend="openvino")).verdict.endswith(
        "bedside score chest.dcm --backend openvino"
    )


def test_bundle_whose_hashes_are_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def altered(name: str) -> None:
        raise BundleError("bundle-altered", "'model.onnx' is not what bundle.json says")

    monkeypatch.setattr(Bundle, "open", altered)
    checks = examination._check_bundles()
    assert {check.status for check in checks} == {"broken"}
    assert checks[0].fix == "pip install --force-reinstall --no-deps bedside"


def test_python_of_the_trials_is_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_package(tmp_path, "told", "import sys\n__version__ = sys.prefix\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert try_items("import", ["told"], {})["told"].facts["version"] == sys.prefix.partition("-")[0]
