"""Folders with the small files of devices, as Linux and Jetson Linux name them.

Names and formats: Linux, Documentation/ABI/testing (sysfs-devices-system-cpu, sysfs-class-thermal,
sysfs-class-devfreq), admin-guide/cgroup-v1 and cgroup-v2; Jetson Linux Developer Guide, Platform Power and Performance
(nvpmodel, thermal zones, throttle alerts, soctherm over-current events).
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

__all__ = ["FakeNvmlModule", "NvmlError", "make_container", "make_jetson", "make_laptop", "write_files"]

NVPMODEL = """\
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_1 /sys/devices/system/cpu/cpu1/online
< POWER_MODEL ID=0 NAME=MAXN >
CPU_ONLINE CORE_1 1
< POWER_MODEL ID=2 NAME=MODE_30W >
CPU_ONLINE CORE_1 1
< PM_CONFIG DEFAULT=2 >
"""

ARM_CORE = """\
processor\t: {cpu}
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp uscat
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd42
CPU revision\t: 1

"""

X86_CORE = """\
processor\t: {cpu}
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 154
model name\t: 12th Gen Intel(R) Core(TM)   i5-1240P
stepping\t: 3
flags\t\t: fpu vme de sse sse2 avx avx2 avx_vnni hypervisor
bugs\t\t: spectre_v1

"""


def write_files(root: Path, files: dict[str, str]) -> Path:
    """Write each path's text under ``root``."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def make_jetson(root: Path) -> Path:
    """A Jetson AGX Orin with JetPack 6.2 in its 30 W mode, cool and not throttled; 4 of its cores."""
    thermal, cpu = "sys/class/thermal", "sys/devices/system/cpu"
    zones = {"cpu-thermal": "48593", "gpu-thermal": "45500", "cv0-thermal": "", "tj-thermal": "48593"}
    alerts = ["pwm-fan", "cpu-throttle-alert", "gpu-throttle-alert", "hot-surface-alert", "cpufreq-cpu0"]
    files = {
        "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
        "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n",
        "etc/nvpmodel.conf": NVPMODEL,
        "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet\n",
        "proc/cpuinfo": "".join(ARM_CORE.format(cpu=index) for index in range(4)),
        "proc/meminfo": "MemTotal:       64349224 kB\nMemFree:        50000000 kB\n",
        "proc/loadavg": "1.25 0.80 0.40 2/900 4242\n",
        f"{cpu}/cpufreq/policy0/scaling_cur_freq": "729600\n",
        f"{cpu}/cpufreq/policy0/cpuinfo_max_freq": "2201600\n",
        f"{cpu}/cpufreq/policy0/scaling_governor": "schedutil\n",
        f"{cpu}/cpufreq/policy4/scaling_cur_freq": "1728000\n",
        f"{cpu}/cpufreq/policy4/cpuinfo_max_freq": "2201600\n",
        "sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n",
        "sys/class/devfreq/17000000.gpu/max_freq": "624750000\n",
        "sys/class/devfreq/15340000.vic/cur_freq": "115200000\n",
        "sys/class/hwmon/hwmon1/name": "ina3221\n",
        "sys/class/hwmon/hwmon3/name": "soctherm_oc\n",
        "sys/class/hwmon/hwmon3/oc1_event_cnt": "0\n",
        "sys/class/hwmon/hwmon3/oc3_event_cnt": "7\n",
        "sys/class/hwmon/hwmon3/oc3_throt_en": "1\n",
    }
    files |= {f"{cpu}/cpu{index}/topology/thread_siblings_list": f"{index}\n" for index in range(4)}
    for index, (zone, value) in enumerate(zones.items()):
        files |= {
            f"{thermal}/thermal_zone{index}/type": f"{zone}\n",
            f"{thermal}/thermal_zone{index}/temp": value,
        }
    for index, alert in enumerate(alerts):
        level = "3" if alert in {"pwm-fan", "hot-surface-alert"} else "0"
        files |= {
            f"{thermal}/cooling_device{index}/type": f"{alert}\n",
            f"{thermal}/cooling_device{index}/cur_state": f"{level}\n",
        }
    return write_files(root, files)


def make_laptop(root: Path) -> Path:
    """A laptop: 2 cores of 2 threads, on the saving governor, with a control group of version 2 around it."""
    cpu, thermal = "sys/devices/system/cpu", "sys/class/thermal"
    files = {
        "proc/cpuinfo": "".join(X86_CORE.format(cpu=index) for index in range(4)),
        "proc/meminfo": "MemTotal:       16083944 kB\n",
        "proc/loadavg": "0.10 0.20 0.30 1/500 99\n",
        "proc/self/cgroup": "0::/user.slice/session.scope\n",
        "sys/fs/cgroup/user.slice/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/user.slice/session.scope/cpu.max": "max 100000\n",
        "sys/fs/cgroup/user.slice/session.scope/memory.max": "4294967296\n",
        "sys/fs/cgroup/user.slice/memory.max": "max\n",
        "sys/firmware/acpi/platform_profile": "low-power\n",
        f"{thermal}/thermal_zone0/type": "acpitz\n",
        f"{thermal}/thermal_zone0/temp": "41000\n",
        f"{thermal}/thermal_zone1/type": "x86_pkg_temp\n",
        f"{thermal}/thermal_zone1/temp": "56000\n",
        f"{thermal}/thermal_zone2/type": "acpitz\n",
        f"{thermal}/thermal_zone2/temp": "-274000\n",
        f"{thermal}/thermal_zone10/type": "acpitz\n",
        f"{thermal}/thermal_zone10/temp": "39000\n",
    }
    for index in range(4):
        files |= {
            f"{cpu}/cpu{index}/topology/thread_siblings_list": ("0-1\n", "2-3\n")[index // 2],
            f"{cpu}/cpu{index}/thermal_throttle/core_throttle_count": "5\n",
            f"{cpu}/cpu{index}/thermal_throttle/package_throttle_count": "9\n",
            f"{cpu}/cpufreq/policy{index}/scaling_cur_freq": f"{400 + index}000\n",
            f"{cpu}/cpufreq/policy{index}/cpuinfo_max_freq": "4400000\n",
            f"{cpu}/cpufreq/policy{index}/scaling_governor": "powersave\n",
        }
    return write_files(root, files)


def make_container(root: Path) -> Path:
    """A container that shows nothing but an empty /sys and /proc."""
    for name in ("proc", "sys"):
        (root / name).mkdir(parents=True)
    return root


class NvmlError(Exception):
    """NVML's own error."""


class FakeNvmlModule:
    """Stands in for ``pynvml``, with one GPU; ``lacks`` names functions that fail, as on some devices."""

    NVMLError = NvmlError
    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, *lacks: str, reasons: int = 0) -> None:
        self.lacks = lacks
        self.reasons = reasons

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name in object.__getattribute__(self, "lacks"):

            def fail(*arguments: object) -> None:
                raise NvmlError("Not Supported")

            return fail
        return object.__getattribute__(self, name)

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"handle {index}"

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.95.05"

    def nvmlDeviceGetName(self, handle: str) -> str:  # noqa: N802
        return "NVIDIA RTX 4000 SFF Ada Generation"

    def nvmlDeviceGetCudaComputeCapability(self, handle: str) -> tuple[int, int]:  # noqa: N802
        return 8, 9

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=20 << 30)

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        return 1565

    def nvmlDeviceGetMaxClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        return 3105

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:  # noqa: N802
        return 71

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:  # noqa: N802
        return self.reasons
