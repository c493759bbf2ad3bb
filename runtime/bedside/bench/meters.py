"""What tells energy: counters of processors and GPUs, and power sensors of Jetsons.

RaplMeter   Linux' powercap: Intel's and AMD's counters (Documentation/power/powercap/powercap.rst)
InaMeter    INA3221 sensors of Jetsons (Documentation/hwmon/ina3221.rst); jtop reads the same files
NvmlMeter   NVIDIA's GPUs, through ``nvidia-ml-py``
find_meters those of this machine, and why there are no others
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from bedside.device.nvml import Nvml, open_nvml
from bedside.device.tree import ROOT, Tree

__all__ = ["InaMeter", "Meter", "NvmlMeter", "RaplMeter", "find_meters"]

_ZONES: Final = "sys/class/powercap/intel-rapl:*"
"""Zones of powercap, also of AMD. ``intel-rapl-mmio`` counts the same packages again."""
_INPUTS: Final = ("VDD_IN", "5V_IN", "POM_5V_IN", "VIN")
"""Rails that feed the whole module, where it has one (Jetson Linux Developer Guide, Platform Power and Performance);
the others are branches of it."""
_UNCONNECTED: Final = frozenset({"NC", ""})
"""Labels of channels that measure nothing."""
_CHANNELS: Final = (1, 2, 3)
"""Channels of an INA3221."""


class Meter(Protocol):
    """Adds up energy from when it was made."""

    @property
    def counted(self) -> tuple[str, ...]:
        """Domains that hold no other, so that their sum is all that it tells."""

    @property
    def joules(self) -> dict[str, float]:
        """Domain -> energy by the last reading."""

    def read(self, now_s: float) -> None:
        """Look, at a time that only grows. What can't be read now is made up for later."""


class RaplMeter:
    """Energy counters of processors.

    Args:
        tree: The device's files.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._zones: dict[str, Path] = {}
        self._last: dict[str, int] = {}
        self._range: dict[str, int] = {}
        self._joules: dict[str, float] = {}
        names = {path.name: tree.text(path / "name") for path in tree.find(_ZONES)}
        for path in tree.find(_ZONES):
            value, name = tree.number(path / "energy_uj"), names[path.name]
            if value is None or name is None:
                continue
            above = path.name.rpartition(":")[0]
            domain = f"rapl {names[above]} {name}" if names.get(above) else f"rapl {name}"
            self._zones[domain] = path
            self._last[domain] = value
            self._range[domain] = tree.number(path / "max_energy_range_uj") or 0
            self._joules[domain] = 0.0

    @property
    def counted(self) -> tuple[str, ...]:
        """Packages and their memory; cores are part of a package, and the platform holds all of them."""
        return tuple(
            domain
            for domain in self._zones
            if domain.startswith("rapl package") and (domain.count(" ") == 1 or domain.endswith(" dram"))
        )

    @property
    def joules(self) -> dict[str, float]:
        """See `Meter.joules`."""
        return dict(self._joules)

    def read(self, now_s: float) -> None:
        """See `Meter.read`. A counter that has begun anew since the last reading is taken as such, once."""
        del now_s
        for domain, path in self._zones.items():
            value = self._tree.number(path / "energy_uj")
            if value is None:
                continue
            spent = value - self._last[domain]
            if spent < 0:
                spent += self._range[domain] + 1
            self._joules[domain] += max(0, spent) / 1e6
            self._last[domain] = value


class InaMeter:
    """Power sensors of a Jetson, added up over time.

    Args:
        tree: The device's files.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._rails: dict[str, tuple[Path, Path]] = {}
        self._joules: dict[str, float] = {}
        self._last: dict[str, tuple[float, float]] = {}
        for chip in tree.find("sys/class/hwmon/hwmon*"):
            if tree.text(chip / "name") != "ina3221":
                continue
            for channel in _CHANNELS:
                label = tree.text(chip / f"in{channel}_label") or ""
                volts, amperes = chip / f"in{channel}_input", chip / f"curr{channel}_input"
                if label not in _UNCONNECTED and tree.has(volts) and tree.has(amperes):
                    self._rails[f"ina {label}"] = (volts, amperes)
                    self._joules[f"ina {label}"] = 0.0

    @property
    def counted(self) -> tuple[str, ...]:
        """The rail that feeds the module; all rails where it has none such."""
        whole = tuple(rail for rail in self._rails if rail.removeprefix("ina ") in _INPUTS)
        return whole[:1] or tuple(self._rails)

    @property
    def joules(self) -> dict[str, float]:
        """See `Meter.joules`."""
        return dict(self._joules)

    def read(self, now_s: float) -> None:
        """See `Meter.read`."""
        for rail, (volts, amperes) in self._rails.items():
            millivolts, milliamperes = self._tree.number(volts), self._tree.number(amperes)
            if millivolts is None or milliamperes is None:
                continue
            watts = millivolts * milliamperes / 1e6
            before_s, before = self._last.get(rail, (now_s, watts))
            self._joules[rail] += (before + watts) / 2 * (now_s - before_s)
            self._last[rail] = now_s, watts


class NvmlMeter:
    """NVIDIA's GPUs: their counter of energy, or their power added up over time where they have none.

    Args:
        nvml: NVML.
    """

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml
        self._joules: dict[str, float] = {}
        self._counters: dict[str, float] = {}
        self._powers: dict[str, tuple[float, float]] = {}
        for index, gpu in enumerate(nvml.read_energy()):
            if gpu.joules is not None or gpu.watts is not None:
                self._joules[f"gpu{index}"] = 0.0
            if gpu.joules is not None:
                self._counters[f"gpu{index}"] = gpu.joules

    @property
    def counted(self) -> tuple[str, ...]:
        """Every GPU, with its memory."""
        return tuple(self._joules)

    @property
    def joules(self) -> dict[str, float]:
        """See `Meter.joules`."""
        return dict(self._joules)

    def read(self, now_s: float) -> None:
        """See `Meter.read`."""
        for index, gpu in enumerate(self._nvml.read_energy()):
            name = f"gpu{index}"
            if name in self._counters:
                if gpu.joules is not None:
                    self._joules[name] += max(0.0, gpu.joules - self._counters[name])
                    self._counters[name] = gpu.joules
            elif name in self._joules and gpu.watts is not None:
                before_s, before = self._powers.get(name, (now_s, gpu.watts))
                self._joules[name] += (before + gpu.watts) / 2 * (now_s - before_s)
                self._powers[name] = now_s, gpu.watts


def find_meters(*, root: Path = ROOT, nvml: Nvml | None = None) -> tuple[list[Meter], tuple[str, ...]]:
    """The meters of this machine.

    Args:
        root: Where its files are; another than ``/`` for tests.
        nvml: NVML; None to open it, where `root` is the device's own.

    Returns:
        The meters, and one line for each source that there is none of: why.
    """
    tree = Tree(root)
    if nvml is None and root == ROOT:
        nvml = open_nvml()
    found: list[Meter] = [RaplMeter(tree), InaMeter(tree), *([NvmlMeter(nvml)] if nvml else [])]
    reasons = (
        _explain_rapl(tree),
        "no INA3221 power sensor, as Jetsons have",
        "GPUs that tell no power" if nvml else "no GPU through NVML (driver and nvidia-ml-py)",
    )
    lacking = [reason for meter, reason in zip(found, reasons, strict=False) if not meter.counted]
    lacking += [reasons[2]] if nvml is None else []
    return [meter for meter in found if meter.counted], tuple(lacking)


def _explain_rapl(tree: Tree) -> str:
    zones = tree.find(_ZONES)
    if not zones:
        return "no energy counter of the processor under /sys/class/powercap, as in most virtual machines"
    if any(tree.has(zone / "energy_uj") for zone in zones):
        return (
            "the processor's energy counter may be read by root alone: "
            "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj lets all read it until the next start"
        )
    return "the processor's energy counter has no value"
