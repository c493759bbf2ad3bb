"""Whether an NVIDIA GPU is here and its driver with it, or which Jetson this is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bedside.device import Device
from bedside.device.nvml import read_driver
from bedside.device.tree import Tree
from bedside.doctor.check import Check, private, size
from bedside.doctor.packages import is_installed

__all__ = ["check_graphics", "driver_too_old"]

_NVIDIA: Final = "0x10de"
"""NVIDIA's vendor number on PCI."""
_DISPLAY: Final = "0x03"
"""First byte of the PCI class of display controllers, which GPUs without a display have too."""
_DRIVERS: Final = {"11": 450, "12": 525, "13": 580}
"""CUDA -> least driver for it on Linux (CUDA Toolkit release notes, minor version compatibility)."""
_JETPACK: Final = 6
"""First JetPack that carries a Python and a TensorRT (10.3, in 6.1) that bedside runs on."""


def check_graphics(device: Device, tree: Tree) -> list[Check]:
    """Look for GPUs and for what keeps them from use."""
    if device.jetson is not None:
        return [_check_jetson(device), *_check_sight(tree)]
    driver = read_driver(tree)
    if not device.gpus:
        if not _has_card(tree):
            return [Check("device", "GPU", "absent", "no NVIDIA GPU")]
        if driver is not None:
            return [
                Check(
                    "device",
                    "GPU",
                    "broken",
                    f"an NVIDIA GPU is here, and its driver {driver} does not list it",
                )
            ]
        ubuntu = "ID=ubuntu" in (tree.text("etc/os-release") or "").splitlines()
        fix = "sudo ubuntu-drivers install" if ubuntu else ""
        return [Check("device", "GPU", "broken", "an NVIDIA GPU is here, and NVIDIA's driver is not", fix)]
    if driver is not None and not tree.has("dev/nvidiactl"):
        text = f"{device.gpus[0].name} is here, and can't be reached: the container was started without it"
        return [Check("device", "GPU", "broken", text, "docker run --gpus all IMAGE")]
    checks = [
        Check(
            "device",
            "GPU",
            "ok",
            private(
                ", ".join(
                    [gpu.name, f"driver {gpu.driver}"]
                    + ([f"compute capability {gpu.compute_capability}"] if gpu.compute_capability else [])
                    + ([size(gpu.memory_bytes)] if gpu.memory_bytes else [])
                )
            ),
        )
        for gpu in device.gpus
    ]
    if not is_installed("pynvml"):
        text = "nvidia-ml-py is not installed: the GPU's clocks, temperature and throttling are not told"
        checks.append(Check("device", "NVML", "missing", text, "pip install nvidia-ml-py"))
    return checks


def driver_too_old(device: Device, cuda: str | None) -> str | None:
    """Why the driver can't serve an engine that was built with a CUDA; None if it can, or if that is not known."""
    least = _DRIVERS.get((cuda or "").partition(".")[0])
    driver = next((gpu.driver for gpu in device.gpus if gpu.driver), None)
    if least is None or driver is None or device.jetson is not None:
        return None
    major = driver.partition(".")[0]
    if not major.isdecimal() or int(major) >= least:
        return None
    return f"it was built for CUDA {cuda}, which needs NVIDIA's driver {least} or newer; {driver} is here"


def _check_sight(tree: Tree) -> list[Check]:
    """What a container does not show of its Jetson."""
    hidden = [
        (name, text, [path for path in paths if not tree.has(path)])
        for name, text, paths in (
            ("JetPack", "the JetPack is not told", ("etc/nv_tegra_release",)),
            ("nvpmodel", "the power mode is not told", ("var/lib/nvpmodel", "etc/nvpmodel.conf")),
        )
    ]
    return [
        Check(
            "device",
            name,
            "missing",
            f"{text}: {' and '.join(f'/{path}' for path in paths)} can't be seen",
            _mount(paths),
        )
        for name, text, paths in hidden
        if paths
    ]


def _mount(paths: Sequence[str]) -> str:
    return f"docker run {' '.join(f'-v /{path}:/{path}:ro' for path in paths)} IMAGE"


def _check_jetson(device: Device) -> Check:
    jetson = device.jetson
    if jetson is None or jetson.l4t is None:
        return Check("device", "Jetson", "ok", device.name)
    jetpack = jetson.jetpack
    text = f"{jetson.model}, Jetson Linux {jetson.l4t}, JetPack {jetpack or 'unknown'}"
    if jetpack is not None and int(jetpack) < _JETPACK:
        return Check(
            "device", "Jetson", "broken", f"{text}; bedside needs JetPack 6.1 or newer: flash it anew"
        )
    return Check("device", "Jetson", "ok", text)


def _has_card(tree: Tree) -> bool:
    return any(
        tree.text(path / "vendor") == _NVIDIA and (tree.text(path / "class") or "").startswith(_DISPLAY)
        for path in tree.find("sys/bus/pci/devices/*")
    )
