"""What a comparison was measured on, and how the machine fared meanwhile."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from bedside.device import DeviceState, Watch, describe_device

__all__ = ["describe_machine", "summarise_state", "watch_machine"]


def describe_machine(threads: int, packages: Sequence[str]) -> dict[str, Any]:
    """The processor, the system, and the versions of what was compared.

    Args:
        threads: Of each side.
        packages: Distributions whose versions are told, of those that are installed.
    """
    device = describe_device()
    return {
        "device": device.name,
        "processor": device.processor,
        "flags": list(device.flags),
        "gpus": [f"{gpu.name}, driver {gpu.driver}" for gpu in device.gpus],
        "cores": device.logical_cores,
        "cpu_limit": device.cpu_limit,
        "threads": threads,
        "memory_mib": None if device.memory_bytes is None else device.memory_bytes >> 20,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": dict(_versions(packages)),
    }


@contextmanager
def watch_machine(machine: dict[str, Any]) -> Iterator[None]:
    """Add to ``machine`` how it fared in the ``with`` block, looked at once a second.

    ``before`` and ``after`` are its states; ``hottest_c`` the highest temperature, ``throttled`` whether heat or
    current held clocks down, and ``throttled_by`` what did: null or empty where the machine does not tell. Figures of
    a machine that was throttled are not to be compared with others.
    """
    watch = Watch(gpus=True)
    machine["before"] = _write_state(watch.look())
    with watch.over(long=True) as span:
        yield
    machine["after"] = _write_state(watch.look())
    seen = span.machine
    machine["hottest_c"] = seen.temperature_c
    machine["throttled"] = seen.throttled
    machine["throttled_by"] = list(seen.reasons)


def summarise_state(machine: dict[str, Any]) -> str:
    """How the machine fared, in one line."""
    told = {True: "yes, so these figures are too slow", False: "no", None: "not told"}[machine["throttled"]]
    hottest = machine["hottest_c"]
    return (
        f"power mode {machine['after']['power_mode'] or 'not told'}; hottest "
        f"{'not told' if hottest is None else f'{hottest:.0f} degrees'}; throttled: {told}"
    )


def _write_state(state: DeviceState) -> dict[str, Any]:
    return {
        "power_mode": state.power_mode,
        "clocks_mhz": {name: [clock.mhz, clock.max_mhz] for name, clock in state.clocks.items()},
        "temperatures_c": dict(state.temperatures_c),
        "load": state.load,
    }


def _versions(packages: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            yield name, importlib.metadata.version(name)
