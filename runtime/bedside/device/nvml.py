"""NVIDIA's GPUs: through NVML where the package ``nvidia-ml-py`` is installed, else what the driver's files tell.

Of a GPU no serial number and no UUID is read.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from bedside.device.tree import Tree

__all__ = ["Gpu", "GpuEnergy", "GpuState", "Nvml", "open_nvml", "read_driver", "read_driver_files"]

_SLOWDOWNS: Final = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""Bits of NVML's clocks event reasons that hold clocks below what the work asks for (NVML API reference,
NvmlClocksEventReasons). The software power cap (0x04) is none of them: a GPU at work runs at the power limit that it
is set to, as a Jetson does at that of its power mode."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU."""

    name: str
    """E.g. ``NVIDIA GeForce RTX 4090``."""
    driver: str | None = None
    """Version of the driver."""
    compute_capability: str | None = None
    """E.g. ``8.9``; None without NVML."""
    memory_bytes: int | None = None
    """Of its own; None without NVML, and where it shares the machine's."""


@dataclass(frozen=True, slots=True)
class GpuState:
    """What a GPU does now; None where it does not tell."""

    mhz: float | None
    """Clock of its processors."""
    max_mhz: float | None
    """The most that it can be."""
    temperature_c: float | None
    """Of the chip."""
    slowdowns: tuple[str, ...] | None
    """Why its clocks are held down; empty if they are not."""


@dataclass(frozen=True, slots=True)
class GpuEnergy:
    """What a GPU used and uses; None where it does not tell."""

    joules: float | None
    """Since the driver was loaded: from Volta on."""
    watts: float | None
    """Now; from Ampere on, the mean of about the last second (NVML API reference, nvmlDeviceGetPowerUsage)."""


class Nvml:
    """NVML, opened.

    Args:
        module: The module ``pynvml``, initialised.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        count = self._ask(module.nvmlDeviceGetCount) or 0
        handles = [self._ask(module.nvmlDeviceGetHandleByIndex, index) for index in range(count)]
        self._handles = [handle for handle in handles if handle is not None]

    def describe(self) -> tuple[Gpu, ...]:
        """The GPUs, in the driver's order."""
        module = self._module
        driver = self._ask(module.nvmlSystemGetDriverVersion)
        found = []
        for handle in self._handles:
            capability = self._ask(module.nvmlDeviceGetCudaComputeCapability, handle)
            memory = self._ask(module.nvmlDeviceGetMemoryInfo, handle)
            found.append(
                Gpu(
                    name=_text(self._ask(module.nvmlDeviceGetName, handle)) or "NVIDIA GPU",
                    driver=_text(driver),
                    compute_capability=None if capability is None else ".".join(map(str, capability)),
                    memory_bytes=None if memory is None else int(memory.total),
                )
            )
        return tuple(found)

    def read(self) -> tuple[GpuState, ...]:
        """What each GPU does now, in the same order."""
        module = self._module
        reasons = getattr(module, "nvmlDeviceGetCurrentClocksEventReasons", None) or getattr(
            module, "nvmlDeviceGetCurrentClocksThrottleReasons", None
        )
        states = []
        for handle in self._handles:
            bits = None if reasons is None else self._ask(reasons, handle)
            states.append(
                GpuState(
                    mhz=self._ask(module.nvmlDeviceGetClockInfo, handle, module.NVML_CLOCK_SM),
                    max_mhz=self._ask(module.nvmlDeviceGetMaxClockInfo, handle, module.NVML_CLOCK_SM),
                    temperature_c=self._ask(
                        module.nvmlDeviceGetTemperature, handle, module.NVML_TEMPERATURE_GPU
                    ),
                    slowdowns=None
                    if bits is None
                    else tuple(name for bit, name in _SLOWDOWNS.items() if bits & bit),
                )
            )
        return tuple(states)

    def read_energy(self) -> tuple[GpuEnergy, ...]:
        """What each GPU used and uses, in the same order."""
        module = self._module
        count = getattr(module, "nvmlDeviceGetTotalEnergyConsumption", None)
        read = []
        for handle in self._handles:
            millijoules = None if count is None else self._ask(count, handle)
            milliwatts = self._ask(module.nvmlDeviceGetPowerUsage, handle)
            read.append(
                GpuEnergy(
                    joules=None if millijoules is None else millijoules / 1e3,
                    watts=None if milliwatts is None else milliwatts / 1e3,
                )
            )
        return tuple(read)

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """An answer of NVML; None where this GPU or driver has none."""
        try:
            return function(*arguments)
        except (self._module.NVMLError, OSError, ValueError):
            return None


@functools.cache
def open_nvml() -> Nvml | None:
    """NVML, opened once a process; None without the package or the driver."""
    try:
        module = importlib.import_module("pynvml")
        module.nvmlInit()
    except Exception:  # noqa: BLE001 - whatever a broken driver or package raises, there is no NVML
        return None
    return Nvml(module)


def read_driver(tree: Tree) -> str | None:
    """Version of NVIDIA's driver, as its kernel module tells it; None without one."""
    for word in (tree.text("proc/driver/nvidia/version") or "").split():
        if word[0].isdecimal() and "." in word:
            return word
    return None


def read_driver_files(tree: Tree) -> tuple[Gpu, ...]:
    """The GPUs, as NVIDIA's driver lists them under /proc."""
    driver = read_driver(tree)
    found = []
    for path in tree.find("proc/driver/nvidia/gpus/*/information"):
        for line in (tree.text(path) or "").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "Model" and value.strip():
                found.append(Gpu(value.strip(), driver))
    return tuple(found)


def _text(value: Any) -> str | None:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
