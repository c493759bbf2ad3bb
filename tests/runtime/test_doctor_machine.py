"""The doctor on the machine: GPUs, Jetsons, Python, limits, heat, and room on the disk."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bedside.device import Device, Gpu, Jetson, read_state
from bedside.device.tree import Tree
from bedside.doctor import Check
from bedside.doctor.graphics import check_graphics, driver_too_old
from bedside.doctor.storage import check_storage
from bedside.doctor.system import _EXTRAS, check_device, check_extras, check_python
from examined_devices import BOX, GPU, ORIN, WITH_GPU, one
from made_devices import make_container, make_jetson, make_laptop, write_files

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
