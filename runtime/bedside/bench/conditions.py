"""What a number was measured on, and whether it may be used."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from typing import Final

from bedside.bench.figures import Parity
from bedside.bench.record import Conditions, State
from bedside.device import Device, DeviceState, Machine
from bedside.version import __version__

__all__ = [
    "describe_conditions",
    "doubt_conditions",
    "doubt_parity",
    "note_conditions",
    "note_load",
    "note_state",
]

DISTRIBUTIONS: Final = (
    "numpy",
    "pydicom",
    "pillow",
    "imagecodecs",
    "mlcommons-loadgen",
    "nvidia-ml-py",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx-cu13",
)
"""What may take part in a study or its measurement; told where it is installed."""
BUSY: Final = 0.25
"""Load for each core, before anything is measured, above which others are said to be at work."""


def note_state(state: DeviceState) -> State:
    """A reading of the machine, as it is kept."""
    clocks = state.clocks.items()
    return State(
        power_mode=state.power_mode,
        clocks_mhz={name: clock.mhz for name, clock in clocks if clock.mhz is not None},
        max_clocks_mhz={name: clock.max_mhz for name, clock in clocks if clock.max_mhz is not None},
        temperatures_c=dict(state.temperatures_c),
        load=state.load,
    )


def describe_conditions(device: Device, before: State, after: State | None, seen: Machine) -> Conditions:
    """What it was measured on.

    Args:
        device: The machine.
        before: Before the first study.
        after: After the last.
        seen: What was seen in between.
    """
    return Conditions(
        device=device,
        system=platform.platform(),
        versions=dict(_versions()),
        before=before,
        after=after,
        hottest_c=seen.temperature_c,
        throttled=seen.throttled,
        throttled_by=seen.reasons,
    )


def doubt_conditions(conditions: Conditions) -> tuple[str, ...]:
    """Why numbers from there may not be used."""
    if not conditions.throttled:
        return ()
    by = f" ({', '.join(conditions.throttled_by)})" if conditions.throttled_by else ""
    return (f"the machine held its clocks down{by}: see to cooling and power, and measure again",)


def doubt_parity(parity: Parity | None) -> tuple[str, ...]:
    """Why an engine's numbers may not be used: what answers wrong may be as fast as it likes."""
    if parity is None:
        return ("the golden inputs were not run, so that nobody knows whether this engine answers right",)
    if parity.passed:
        return ()
    off = [
        f"{each.of} is off by {'what is not finite' if each.difference is None else f'{each.difference:.3g}'}, "
        f"at most {each.tolerance:g} is allowed"
        for each in parity.differences
        if each.difference is None or each.difference > each.tolerance
    ]
    return (f"this engine left the bundle's tolerance on its golden inputs: {'; '.join(off)}",)


def note_conditions(conditions: Conditions) -> tuple[str, ...]:
    """What to know of the machine besides."""
    notes = []
    if conditions.throttled is None:
        notes.append("this machine does not tell whether it throttles")
    return (*notes, *note_load(conditions))


def note_load(conditions: Conditions) -> tuple[str, ...]:
    """Whether others were at work, who are in every number."""
    load, cores = conditions.before.load, conditions.device.logical_cores
    if load is None or load <= BUSY * cores:
        return ()
    cores_told = f"{cores} core{'s' * (cores > 1)}"
    return (f"others were at work before the first study: a load of {load:.1f} on {cores_told}",)


def _versions() -> Iterator[tuple[str, str]]:
    yield "bedside", __version__
    yield "python", platform.python_version()
    for name in DISTRIBUTIONS:
        with suppress(metadata.PackageNotFoundError):
            yield name, metadata.version(name)
