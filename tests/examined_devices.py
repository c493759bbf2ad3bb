"""Devices for the doctor to examine, and its checks by their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bedside.device import Device, Gpu, Jetson
from bedside.doctor import Check

GPU = Gpu("NVIDIA RTX 4000 SFF Ada Generation", "580.95.05", "8.9", 20 << 30)
BOX = Device("a processor", "x86_64", "", (), 4, 2, memory_bytes=8 << 30)
WITH_GPU = replace(BOX, gpus=(GPU,))
ORIN = Device(
    "Cortex-A78AE", "aarch64", "", (), 4, jetson=Jetson("NVIDIA Jetson AGX Orin Developer Kit", "36.4.3")
)


def one(checks: Sequence[Check], name: str) -> Check:
    """The check of that name, of which there is one."""
    found = [check for check in checks if check.name == name]
    assert len(found) == 1
    return found[0]
