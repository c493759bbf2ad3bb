"""Python, the packages of the core, the processor, memory, and what surrounds them."""

from __future__ import annotations

import platform
import struct
import sys
from datetime import datetime, timezone
from typing import Final

from bedside.device import Device, DeviceState
from bedside.device.tree import Tree
from bedside.doctor.check import Check, private, size
from bedside.doctor.packages import find_version

__all__ = ["check_device", "check_extras", "check_python"]

_OLDEST: Final = (3, 10)
"""Of Python, as in pyproject.toml."""
_CORE: Final = ("numpy", "pydicom", "pillow", "click", "tqdm", "platformdirs")
"""Distributions that every installation has, as in pyproject.toml."""
_EXTRAS: Final = {
    "stats": (("scipy", "statsmodels", "matplotlib"), "bedside compare"),
    "dicom": (("highdicom",), "--dicom of score and segment"),
    "bench": (("jinja2", "matplotlib"), "--report of bench"),
}
"""Extra -> distributions of it, as in pyproject.toml, and what they are for."""
_MADE: Final = datetime(2026, 1, 1, tzinfo=timezone.utc)
"""No clock is before this: a device without a battery starts in 1970."""
_CONTAINERS: Final = {"docker": "Docker", "kubepods": "Kubernetes", "containerd": "containerd", "lxc": "LXC"}
"""Word in the path of a control group -> what made it."""
_LITTLE_MEMORY: Final = 512 << 20
"""Bytes under which the built-in CT bundle has been seen to have no room: its budget begins near this."""


def check_python() -> list[Check]:
    """The interpreter and the core's packages."""
    bits = struct.calcsize("P") * 8
    libc = " ".join(platform.libc_ver()).strip()
    text = ", ".join(
        part
        for part in (
            f"{platform.python_implementation()} {platform.python_version()}",
            f"{bits} bits",
            f"{platform.system()} on {platform.machine()}",
            libc,
        )
        if part
    )
    if sys.version_info < _OLDEST or bits < 64:
        python = Check(
            "system", "Python", "broken", f"{text}; bedside needs Python 3.10 or newer, of 64 bits"
        )
    else:
        python = Check("system", "Python", "ok", text)
    found = {name: find_version(name) for name in _CORE}
    lacking = [name for name, version in found.items() if version is None]
    if lacking:
        told = f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not installed"
        fix = f"pip install {' '.join(lacking)}"
        return [python, Check("system", "packages", "missing", told, fix)]
    return [
        python,
        Check("system", "packages", "ok", ", ".join(f"{name} {version}" for name, version in found.items())),
    ]


def check_device(device: Device, state: DeviceState, tree: Tree) -> list[Check]:
    """The processor, memory, limits, power and heat."""
    cores = f"{device.logical_cores} logical" + (
        f", {device.physical_cores} physical" if device.physical_cores else ""
    )
    limit = "" if device.cpu_limit is None else f"; a control group allows {device.cpu_limit:g} of them"
    flags = f"; {' '.join(device.flags)}" if device.flags else ""
    checks = [
        Check("device", "processor", "ok", private(f"{device.processor}; cores: {cores}{limit}{flags}")),
        _check_memory(device),
        Check("device", "container", "ok", _name_container(tree)),
    ]
    if state.throttled:
        reasons = ", ".join(state.reasons)
        text = f"clocks are held down ({reasons}): it is slower than it can be; see to cooling and power"
        checks.append(Check("device", "throttling", "broken", text))
    told = [f"power mode {state.power_mode}"] if state.power_mode else []
    told += [
        f"{name} {clock.mhz:.0f}" + (f" of {clock.max_mhz:.0f}" if clock.max_mhz else "") + " MHz"
        for name, clock in state.clocks.items()
        if clock.mhz is not None
    ]
    if state.temperature_c is not None:
        told.append(f"hottest {state.temperature_c:.0f} degrees Celsius")
    text = "; ".join(told) or "this device tells no power mode, clock or temperature"
    checks.append(Check("device", "state", "ok" if told else "absent", text))
    return [*checks, _check_clock()]


def check_extras() -> list[Check]:
    """Optional packages that are neither engine nor codec."""
    checks = []
    for extra, (names, purpose) in _EXTRAS.items():
        found = {name: find_version(name) for name in names}
        lacking = [name for name, version in found.items() if version is None]
        if lacking:
            text = (
                f"{', '.join(lacking)} not installed; {purpose} needs {'it' if len(lacking) == 1 else 'them'}"
            )
            checks.append(Check("extras", extra, "missing", text, f"pip install 'bedside[{extra}]'"))
        else:
            text = ", ".join(f"{name} {version}" for name, version in found.items())
            checks.append(Check("extras", extra, "ok", f"{text}; for {purpose}"))
    return checks


def _check_memory(device: Device) -> Check:
    if device.memory_bytes is None:
        return Check("device", "memory", "absent", "this device does not tell its memory")
    limit = device.memory_limit_bytes
    text = size(device.memory_bytes) + ("" if limit is None else f"; a control group allows {size(limit)}")
    if min(device.memory_bytes, limit or device.memory_bytes) < _LITTLE_MEMORY:
        return Check("device", "memory", "broken", f"{text}; a CT needs {size(_LITTLE_MEMORY)} or more")
    return Check("device", "memory", "ok", text)


def _name_container(tree: Tree) -> str:
    if tree.has("run/.containerenv"):
        return "inside a Podman container"
    groups = tree.text("proc/self/cgroup") or ""
    for word, name in _CONTAINERS.items():
        if word in groups:
            return f"inside a {name} container"
    return "inside a Docker container" if tree.has(".dockerenv") else "none found"


def _check_clock() -> Check:
    now = datetime.now(timezone.utc)
    if now < _MADE:
        text = f"the system's clock says {now:%Y-%m-%d}, which has passed: plans and files get wrong times"
        return Check("device", "clock", "broken", text, "sudo timedatectl set-ntp true")
    return Check("device", "clock", "ok", f"{now:%Y-%m-%d %H:%M} UTC")
