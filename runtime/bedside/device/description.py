"""What bedside runs on, as far as an engine's choice depends on it."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bedside.device.cgroups import limit_cpu, limit_memory, total_memory
from bedside.device.jetson import Jetson, describe_jetson
from bedside.device.nvml import Gpu, Nvml, open_nvml, read_driver_files
from bedside.device.processor import (
    available_cpus,
    count_cores,
    name_processor,
    read_flags,
    read_revision,
)
from bedside.device.tree import ROOT, Tree

__all__ = ["Device", "describe_device"]

_DIGEST: Final = 12
"""Hexadecimal digits of a fingerprint: 48 bits, to tell apart the few devices that share a cache."""
_NAME: Final = 40
"""Letters of the name in a fingerprint."""


@dataclass(frozen=True, slots=True)
class Device:
    """What bedside runs on. Holds no name of the host or its user, no serial number and no UUID."""

    processor: str
    """Name of the processor."""
    architecture: str
    """E.g. ``x86_64``, ``aarch64``."""
    revision: str
    """Family, model and stepping of an x86 processor, which may share its name with others; empty elsewhere."""
    flags: tuple[str, ...]
    """Those of `bedside.device.processor.FLAGS` that it has."""
    logical_cores: int
    """Logical processors that this process may run on."""
    physical_cores: int | None = None
    """Physical cores behind them; None if unknown."""
    cpu_limit: float | None = None
    """Processors' worth of time that control groups allow; None without a limit."""
    memory_bytes: int | None = None
    """Main memory of the machine."""
    memory_limit_bytes: int | None = None
    """What control groups allow of it; None without a limit."""
    gpus: tuple[Gpu, ...] = ()
    """NVIDIA's GPUs."""
    jetson: Jetson | None = None
    """Which Jetson it is; None if it is none."""

    @property
    def name(self) -> str:
        """One line for a person: the Jetson's model, else the processor and the GPUs."""
        if self.jetson is not None:
            return self.jetson.model
        return ", ".join((self.processor, *(gpu.name for gpu in self.gpus)))

    @property
    def fingerprint(self) -> str:
        """The same on equal devices with equal drivers, another on all else: for the keys of caches.

        It begins with a name for people and ends with 12 digits of a SHA-256 over processor, architecture,
        instructions, GPUs and their driver, and on a Jetson its model and Jetson Linux, which hold the driver. Cores,
        limits and memory are no part of it: they change a speed, not what a built engine is. It does not depend on
        whether ``nvidia-ml-py`` is installed.
        """
        if self.jetson is not None:
            accelerators = [self.jetson.model, self.jetson.l4t or ""]
        else:
            accelerators = [f"{gpu.name} {gpu.driver}" for gpu in self.gpus]
        parts = [self.processor, self.architecture, self.revision, *self.flags, "", *accelerators]
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:_DIGEST]
        name = self.jetson.model if self.jetson else self.gpus[0].name if self.gpus else self.processor
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower())[:_NAME].strip("-")
        return f"{slug or 'device'}-{digest}"


def describe_device(
    *,
    root: Path = ROOT,
    cpus: Collection[int] | None = None,
    architecture: str | None = None,
    nvml: Nvml | None = None,
    gpus: bool = True,
) -> Device:
    """Look at the device. What it does not tell is None; nothing is raised.

    Args:
        root: Where its files are; another than ``/`` for tests.
        cpus: Logical processors that may be used; None for those of this process.
        architecture: None for that of this Python.
        nvml: NVML; None to open it, where `root` is the device's own and `gpus` is true.
        gpus: Whether NVML is opened, which takes tens of milliseconds; without it the driver's files name the GPUs.
    """
    tree = Tree(root)
    machine = architecture or platform.machine() or "unknown"
    usable = available_cpus() if cpus is None else cpus
    if nvml is None and gpus and root == ROOT:
        nvml = open_nvml()
    return Device(
        processor=name_processor(tree, machine),
        architecture=machine,
        revision=read_revision(tree),
        flags=read_flags(tree),
        logical_cores=len(usable),
        physical_cores=count_cores(tree, usable),
        cpu_limit=limit_cpu(tree),
        memory_bytes=total_memory(tree),
        memory_limit_bytes=limit_memory(tree),
        gpus=(nvml.describe() if nvml else ()) or read_driver_files(tree),
        jetson=describe_jetson(tree),
    )
