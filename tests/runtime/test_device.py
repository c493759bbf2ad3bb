from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from bedside.device import Device, Gpu, Jetson, describe_device
from bedside.device.jetson import JETPACKS
from bedside.device.nvml import Nvml
from made_devices import FakeNvmlModule, make_container, make_jetson, make_laptop, write_files

V1_CGROUP = "4:memory:/docker/abc\n2:cpuacct,cpu:/docker/abc\n1:name=systemd:/docker/abc\n"


def describe(root: Path, *, cpus: int = 4, architecture: str = "x86_64", nvml: Nvml | None = None) -> Device:
    return describe_device(root=root, cpus=range(cpus), architecture=architecture, nvml=nvml)


def test_jetson_is_described(tmp_path: Path) -> None:
    device = describe(make_jetson(tmp_path), architecture="aarch64")
    assert device.processor == "Cortex-A78AE"
    assert device.flags == ("asimd", "asimdhp", "asimddp")
    assert (device.logical_cores, device.physical_cores) == (4, 4)
    assert device.jetson == Jetson("NVIDIA Jetson AGX Orin Developer Kit", "36.4.3")
    assert device.jetson.jetpack == "6"
    assert device.name == "NVIDIA Jetson AGX Orin Developer Kit"
    assert device.memory_bytes == 64349224 << 10


def test_laptop_is_described(tmp_path: Path) -> None:
    device = describe(make_laptop(tmp_path))
    assert device.processor == device.name == "12th Gen Intel(R) Core(TM) i5-1240P"
    assert device.revision == "6.154.3"
    assert device.flags == ("avx2", "avx_vnni")
    assert (device.logical_cores, device.physical_cores) == (4, 2)
    assert device.jetson is None
    assert device.gpus == ()


def test_only_the_cores_that_may_be_used_are_counted(tmp_path: Path) -> None:
    device = describe(make_laptop(tmp_path), cpus=2)
    assert (device.logical_cores, device.physical_cores) == (2, 1)


def test_control_groups_above_the_own_one_limit_too(tmp_path: Path) -> None:
    device = describe(make_laptop(tmp_path))
    assert device.cpu_limit == 1.5
    assert device.memory_limit_bytes == 4 << 30


@pytest.mark.parametrize("inside", [True, False], ids=["own group at the mount", "path as told"])
def test_control_groups_of_version_1_limit(tmp_path: Path, inside: bool) -> None:
    folder = "" if inside else "/docker/abc"
    write_files(
        make_container(tmp_path),
        {
            "proc/self/cgroup": V1_CGROUP,
            "proc/meminfo": "MemTotal: 1000000 kB\n",
            f"sys/fs/cgroup/cpu{folder}/cpu.cfs_quota_us": "50000\n",
            f"sys/fs/cgroup/cpu{folder}/cpu.cfs_period_us": "100000\n",
            f"sys/fs/cgroup/memory{folder}/memory.limit_in_bytes": "536870912\n",
        },
    )
    device = describe(tmp_path)
    assert (device.cpu_limit, device.memory_limit_bytes) == (0.5, 512 << 20)


def test_control_groups_without_a_limit_give_none(tmp_path: Path) -> None:
    write_files(
        make_container(tmp_path),
        {
            "proc/self/cgroup": V1_CGROUP,
            "proc/meminfo": "MemTotal: 1000000 kB\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    device = describe(tmp_path)
    assert (device.cpu_limit, device.memory_limit_bytes) == (None, None)


def test_container_that_shows_nothing_is_described(tmp_path: Path) -> None:
    device = describe(make_container(tmp_path), cpus=2, architecture="riscv64")
    assert device.logical_cores == 2
    assert device.flags == ()
    assert (device.physical_cores, device.memory_bytes, device.jetson) == (None, None, None)
    assert device.processor


@pytest.mark.parametrize(
    "name",
    ["proc/cpuinfo", "proc/meminfo", "proc/self/cgroup", "etc/nv_tegra_release", "proc/device-tree/model"],
)
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\0\0garbage: : :\n::\n", b"MemTotal:\nflags\nmodel name\n"]
)
def test_broken_file_is_no_failure(tmp_path: Path, name: str, content: bytes) -> None:
    make_jetson(tmp_path)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(content)
    assert describe(tmp_path).logical_cores == 4


def test_folder_where_a_file_should_be_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "proc" / "cpuinfo").mkdir(parents=True)
    assert describe(tmp_path).flags == ()


def test_unknown_arm_core_is_told_by_its_numbers(tmp_path: Path) -> None:
    write_files(tmp_path, {"proc/cpuinfo": "CPU implementer\t: 0x61\nCPU part\t: 0x022\n"})
    assert describe(tmp_path).processor == "Arm core 0x61:0x022"


def test_big_and_little_cores_are_both_named(tmp_path: Path) -> None:
    cores = "CPU implementer\t: 0x41\nCPU part\t: {}\n\n"
    write_files(
        tmp_path, {"proc/cpuinfo": "".join(cores.format(part) for part in ("0xd03", "0xd08", "0xd08"))}
    )
    assert describe(tmp_path).processor == "Cortex-A53, Cortex-A72"


@pytest.mark.parametrize(
    ("line", "l4t", "jetpack"),
    [
        ("# R35 (release), REVISION: 4.1, GCID: 1, BOARD: t186ref", "35.4.1", "5"),
        ("# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic", "36.4.3", "6"),
        ("# R38 (release), REVISION: 2.0, GCID: 1, BOARD: generic", "38.2.0", "7"),
        ("# R99 (release), REVISION: 1.0, GCID: 1, BOARD: generic", "99.1.0", None),
    ],
)
def test_jetson_linux_tells_the_jetpack(tmp_path: Path, line: str, l4t: str, jetpack: str | None) -> None:
    make_jetson(tmp_path)
    (tmp_path / "etc" / "nv_tegra_release").write_text(line + "\n")
    jetson = describe(tmp_path).jetson
    assert jetson is not None
    assert (jetson.l4t, jetson.jetpack) == (l4t, jetpack)


def test_every_jetpack_is_of_one_number() -> None:
    assert all(release.isdecimal() and jetpack.isdecimal() for release, jetpack in JETPACKS.items())


def test_jetson_in_a_container_is_known_by_its_model(tmp_path: Path) -> None:
    make_jetson(tmp_path)
    (tmp_path / "etc" / "nv_tegra_release").unlink()
    assert describe(tmp_path).jetson == Jetson("NVIDIA Jetson AGX Orin Developer Kit", None)


def test_other_device_with_a_device_tree_is_no_jetson(tmp_path: Path) -> None:
    write_files(tmp_path, {"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"})
    assert describe(tmp_path).jetson is None


def test_gpus_are_described_by_nvml(tmp_path: Path) -> None:
    device = describe(make_laptop(tmp_path), nvml=Nvml(FakeNvmlModule()))
    assert device.gpus == (Gpu("NVIDIA RTX 4000 SFF Ada Generation", "580.95.05", "8.9", 20 << 30),)
    assert device.name == "12th Gen Intel(R) Core(TM) i5-1240P, NVIDIA RTX 4000 SFF Ada Generation"


def test_gpu_that_does_not_tell_all_is_described(tmp_path: Path) -> None:
    module = FakeNvmlModule(
        "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetCudaComputeCapability", "nvmlSystemGetDriverVersion"
    )
    assert describe(make_laptop(tmp_path), nvml=Nvml(module)).gpus == (
        Gpu("NVIDIA RTX 4000 SFF Ada Generation"),
    )


def test_driver_that_fails_gives_no_gpu(tmp_path: Path) -> None:
    module = FakeNvmlModule("nvmlDeviceGetCount")
    assert describe(make_laptop(tmp_path), nvml=Nvml(module)).gpus == ()


def write_driver(root: Path) -> Path:
    return write_files(
        root,
        {
            "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23\n"
            "GCC version:  gcc version 12.3.0\n",
            "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA RTX 4000 SFF Ada Generation\n"
            "IRQ:   \t\t 84\nGPU UUID: \t GPU-8f2a1c3e-secret\n",
        },
    )


def test_gpus_are_named_by_the_drivers_files_without_nvml(tmp_path: Path) -> None:
    device = describe(write_driver(make_laptop(tmp_path)))
    assert device.gpus == (Gpu("NVIDIA RTX 4000 SFF Ada Generation", "580.95.05"),)
    assert "secret" not in repr(device)


def test_fingerprint_does_not_depend_on_nvml(tmp_path: Path) -> None:
    write_driver(make_laptop(tmp_path))
    assert describe(tmp_path).fingerprint == describe(tmp_path, nvml=Nvml(FakeNvmlModule())).fingerprint


def test_fingerprint_begins_with_a_name_and_fits_a_file_name(tmp_path: Path) -> None:
    print_ = describe(make_jetson(tmp_path), architecture="aarch64").fingerprint
    assert print_.startswith("nvidia-jetson-agx-orin-developer-kit-")
    assert set(print_) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert len(print_) <= 60


def test_fingerprint_is_the_same_on_equal_devices(tmp_path: Path) -> None:
    first, second = (describe(make_laptop(tmp_path / name)) for name in "ab")
    assert first.fingerprint == second.fingerprint


CHANGES: dict[str, Any] = {
    "processor": "13th Gen Intel(R) Core(TM) i5-1340P",
    "architecture": "i686",
    "revision": "6.154.4",
    "flags": ("avx2",),
    "gpus": (Gpu("NVIDIA RTX 4000 SFF Ada Generation", "580.95.05"),),
    "jetson": Jetson("NVIDIA Jetson AGX Orin Developer Kit", "36.4.3"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_fingerprint_tells_devices_apart(tmp_path: Path, name: str) -> None:
    device = describe(make_laptop(tmp_path))
    assert replace(device, **{name: CHANGES[name]}).fingerprint != device.fingerprint


def test_fingerprint_tells_drivers_apart(tmp_path: Path) -> None:
    device = describe(make_laptop(tmp_path))
    old, new = (replace(device, gpus=(Gpu("GPU", driver),)) for driver in ("575.1", "580.1"))
    assert old.fingerprint != new.fingerprint
    old, new = (replace(device, jetson=Jetson("Jetson", l4t)) for l4t in ("36.4.0", "36.4.3"))
    assert old.fingerprint != new.fingerprint


def test_fingerprint_does_not_depend_on_limits(tmp_path: Path) -> None:
    device = describe(make_laptop(tmp_path))
    others = {field.name for field in fields(Device)} - CHANGES.keys()
    assert others == {
        "logical_cores",
        "physical_cores",
        "cpu_limit",
        "memory_bytes",
        "memory_limit_bytes",
    }
    halved: dict[str, Any] = dict.fromkeys(others, 1)
    assert replace(device, **halved).fingerprint == device.fingerprint


def test_this_device_is_described() -> None:
    device = describe_device()
    assert device == describe_device()
    assert device.logical_cores >= 1
    assert device.name
