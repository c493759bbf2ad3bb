"""How the device fares now: power mode, clocks, temperatures, throttling and load.

| reading      | where from                                                                                      |
|--------------|-------------------------------------------------------------------------------------------------|
| power mode   | Jetson: nvpmodel's status; else cpufreq's governor and ACPI's platform profile                  |
| clocks       | cpufreq; devfreq (a Jetson's GPU); NVML                                                         |
| temperatures | thermal zones; hwmon where a processor has no zone (AMD); NVML                                  |
| throttled    | thermal cooling devices at work, counters that grew since the last reading, NVML's event reasons |
| load         | /proc/loadavg                                                                                   |

The files are those of Linux (Documentation/ABI/testing/sysfs-devices-system-cpu, sysfs-class-thermal and
sysfs-class-devfreq; admin-guide/thermal/intel_thermal_throttle.rst) and of Jetson Linux (Developer Guide, Platform
Power and Performance: ``*-throttle-alert`` cooling devices, over-current counters of ``soctherm_oc``). jtop
(``jetson-stats``) reads the same files through a daemon of its own; it would add no reading, so it is not asked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from bedside.device.jetson import read_power_mode
from bedside.device.nvml import GpuState, Nvml, open_nvml
from bedside.device.tree import ROOT, Tree

__all__ = ["Clock", "DeviceState", "StateReader", "read_state"]

_MAX_CPUS: Final = 16
"""Most logical processors that are looked at: each costs some microseconds, and a server has hundreds."""
_PLAUSIBLE_C: Final = (-40.0, 150.0)
"""Outside, a sensor is switched off or broken."""
_GPUS: Final = re.compile(r"gpu|ga10b|gv11b|gp10b")
"""In the name of a devfreq device that is a Jetson's GPU: ``17000000.gpu`` (Orin, JetPack 6), ``17000000.ga10b``
(Orin, 5), ``17000000.gv11b`` (Xavier), ``gpu-gpc-0`` and ``gpu-nvd-0`` (Thor)."""
_LIMITERS: Final = re.compile(r".*throttle-alert|(thermal-)?(cpufreq|devfreq)-.*|Processor|intel_powerclamp")
"""Cooling devices that hold clocks down while their state is over 0; fans and alerts of a hot surface are others."""
_PROCESSOR_SENSORS: Final = frozenset({"k10temp", "zenpower"})
"""hwmon drivers of processors that have no thermal zone."""


@dataclass(frozen=True, slots=True)
class Clock:
    """One clock of the device."""

    mhz: float | None
    """Now, MHz; of the fastest where it stands for several cores."""
    max_mhz: float | None
    """The most that it can be, MHz; on a Jetson, that its power mode allows."""


@dataclass(frozen=True, slots=True)
class DeviceState:
    """A reading of the device. What it does not tell is None or empty."""

    power_mode: str | None = None
    """E.g. ``MAXN`` (Jetson); ``powersave, balanced`` (governor, platform profile)."""
    clocks: Mapping[str, Clock] = field(default_factory=dict)
    """``cpu``, ``gpu0`` or a devfreq device's name -> its clock."""
    temperatures_c: Mapping[str, float] = field(default_factory=dict)
    """Zone -> degrees Celsius."""
    throttled: bool | None = None
    """Whether heat or current holds clocks down, now or since the reading before; None if nothing tells."""
    reasons: tuple[str, ...] = ()
    """By what; empty unless `throttled`."""
    load: float | None = None
    """Mean of processes that ran or waited, over the last minute."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """Events of throttling since the device started, for the next reading to compare with."""

    @property
    def temperature_c(self) -> float | None:
        """The highest temperature."""
        return max(self.temperatures_c.values(), default=None)


def read_state(previous: DeviceState | None = None, *, root: Path = ROOT) -> DeviceState:
    """Read the device's state once. What it does not tell is None; nothing is raised.

    Args:
        previous: An earlier reading, whose counters tell whether it throttled since.
        root: Where the device's files are; another than ``/`` for tests.
    """
    return StateReader(root).read(previous)


class StateReader:
    """Reads the state again and again: it looks for the files once.

    Args:
        root: Where the device's files are.
        nvml: NVML; None to open it, where `root` is the device's own and `gpus` is true.
        gpus: Whether GPUs are read through NVML, which takes tens of milliseconds to open.
    """

    def __init__(self, root: Path = ROOT, nvml: Nvml | None = None, *, gpus: bool = True) -> None:
        self._tree = tree = Tree(root)
        self._nvml = open_nvml() if nvml is None and gpus and root == ROOT else nvml
        self._policies = tree.find("sys/devices/system/cpu/cpufreq/policy*")[:_MAX_CPUS]
        most = [tree.number(policy / "cpuinfo_max_freq") for policy in self._policies]
        self._max_mhz = _fastest(most, 1e3)  # kHz; what the hardware can, which does not change
        self._throttles = tree.find("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")[:_MAX_CPUS]
        self._devfreqs = [p for p in tree.find("sys/class/devfreq/*") if _GPUS.search(p.name)]
        self._limiters = {
            path: kind
            for path in tree.find("sys/class/thermal/cooling_device*")
            if (kind := tree.text(path / "type")) and _LIMITERS.fullmatch(kind)
        }
        self._sensors = _find_sensors(tree)
        self._currents = [
            file
            for path in tree.find("sys/class/hwmon/hwmon*")
            if tree.text(path / "name") == "soctherm_oc"
            for file in tree.find(f"{path}/oc*_event_cnt")
        ]

    def read(self, previous: DeviceState | None = None) -> DeviceState:
        """Read the state; see `read_state`."""
        gpus = self._nvml.read() if self._nvml else ()
        counters = self._count()
        reasons = self._name_reasons(gpus, counters, previous)
        return DeviceState(
            power_mode=self._name_power_mode(),
            clocks=MappingProxyType(self._read_clocks(gpus)),
            temperatures_c=MappingProxyType(self._read_temperatures(gpus)),
            throttled=None if reasons is None else bool(reasons),
            reasons=reasons or (),
            load=_parse_load(self._tree.text("proc/loadavg")),
            counters=MappingProxyType(counters),
        )

    def _name_power_mode(self) -> str | None:
        mode = read_power_mode(self._tree)
        if mode is not None:
            return mode
        governor = self._tree.text(self._policies[0] / "scaling_governor") if self._policies else None
        profile = self._tree.text("sys/firmware/acpi/platform_profile")
        return ", ".join(part for part in (governor, profile) if part) or None

    def _read_clocks(self, gpus: tuple[GpuState, ...]) -> dict[str, Clock]:
        tree = self._tree
        clocks = {}
        now = [tree.number(policy / "scaling_cur_freq") for policy in self._policies]
        clocks["cpu"] = Clock(_fastest(now, 1e3), self._max_mhz)  # kHz
        for path in self._devfreqs:
            clocks[path.name] = Clock(
                _fastest([tree.number(path / "cur_freq")], 1e6),
                _fastest([tree.number(path / "max_freq")], 1e6),
            )
        clocks |= {f"gpu{index}": Clock(gpu.mhz, gpu.max_mhz) for index, gpu in enumerate(gpus)}
        return {name: clock for name, clock in clocks.items() if clock != Clock(None, None)}

    def _read_temperatures(self, gpus: tuple[GpuState, ...]) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, path in self._sensors.items():
            value = self._tree.number(path)
            if value is not None and _PLAUSIBLE_C[0] < value / 1000 < _PLAUSIBLE_C[1]:
                found[name] = value / 1000  # thousandths of a degree
        found |= {
            f"gpu{index}": float(gpu.temperature_c)
            for index, gpu in enumerate(gpus)
            if gpu.temperature_c is not None
        }
        return found

    def _count(self) -> dict[str, int]:
        """Events since the device started, by what throttled."""
        counts: dict[str, int] = {}
        for path in self._throttles:
            for kind in ("core", "package"):
                value = self._tree.number(path / f"{kind}_throttle_count")
                if value is not None:
                    counts[f"{kind} heat"] = counts.get(f"{kind} heat", 0) + value
        for path in self._currents:
            value = self._tree.number(path)
            if value is not None:
                counts[f"over-current {path.name.partition('_')[0]}"] = value
        return counts

    def _name_reasons(
        self, gpus: tuple[GpuState, ...], counters: Mapping[str, int], previous: DeviceState | None
    ) -> tuple[str, ...] | None:
        """What throttles, or did since the previous reading; None if nothing here tells."""
        told = False
        reasons: dict[str, None] = {}
        for path, kind in self._limiters.items():
            level = self._tree.number(path / "cur_state")
            told |= level is not None
            if level is not None and level > 0:
                reasons[kind] = None
        for gpu in gpus:
            told |= gpu.slowdowns is not None
            reasons |= dict.fromkeys(gpu.slowdowns or ())
        if previous is not None:
            before = previous.counters
            told |= bool(before.keys() & counters.keys())
            reasons |= {name: None for name, n in counters.items() if n > before.get(name, n)}
        return tuple(reasons) if told else None


def _find_sensors(tree: Tree) -> dict[str, Path]:
    """Name of a temperature -> its file; of zones that have the same name, the later ones are numbered."""
    found: dict[str, Path] = {}
    sensors = [
        (tree.text(zone / "type"), zone / "temp") for zone in tree.find("sys/class/thermal/thermal_zone*")
    ]
    sensors += [
        (name, chip / "temp1_input")
        for chip in tree.find("sys/class/hwmon/hwmon*")
        if (name := tree.text(chip / "name")) in _PROCESSOR_SENSORS
    ]
    for name, path in sensors:
        if name is not None:
            same = sum(other.partition("#")[0] == name for other in found)
            found[f"{name}#{same + 1}" if same else name] = path
    return found


def _fastest(values: list[int | None], divisor: float) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) / divisor if known else None


def _parse_load(text: str | None) -> float | None:
    try:
        load = math.nan if text is None else float(text.split()[0])
    except ValueError:
        return None
    return load if math.isfinite(load) else None
