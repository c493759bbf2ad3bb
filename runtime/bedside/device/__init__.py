"""What bedside runs on, and how it fares: read from small files and NVML.

describe_device  what it is: processor, instructions, limits, GPUs, Jetson; and a fingerprint for caches
read_state       how it is now: power mode, clocks, temperatures, throttling, load
Watch            the same over a job, looked at seldom enough to cost nothing

No source is needed: what a device does not tell is None, and nothing is raised.
"""

from __future__ import annotations

from bedside.device.description import Device, describe_device
from bedside.device.jetson import Jetson
from bedside.device.nvml import Gpu
from bedside.device.state import Clock, DeviceState, StateReader, read_state
from bedside.device.watch import Machine, Watch

__all__ = [
    "Clock",
    "Device",
    "DeviceState",
    "Gpu",
    "Jetson",
    "Machine",
    "StateReader",
    "Watch",
    "describe_device",
    "read_state",
]
