"""The processor: its name, the instructions that engines use, and the share of it that this process may use."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection
from typing import Final

from bedside.device.tree import Tree

__all__ = ["FLAGS", "available_cpus", "count_cores", "name_processor", "read_flags", "read_revision"]

FLAGS: Final = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
    "svei8mm",
    "svebf16",
)
"""Instruction sets that decide in which precision a network runs, and how fast: of x86, then of Arm, as Linux names
them in /proc/cpuinfo. Linux does not tell AMX-FP16 there, so no file does. OpenVINO asks the processor itself, and its
capability FP16, which `bedside doctor` tells, stands for AVX512-FP16 and AMX-FP16 alike."""

_ARM_PARTS: Final = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4f"): "Neoverse-V2",
    ("0x41", "0xd83"): "Neoverse-V3AE",
    ("0x4e", "0x004"): "Carmel",
}
"""Implementer and part of Arm cores, whose /proc/cpuinfo has no name; Linux, arch/arm64/include/asm/cputype.h."""


def available_cpus() -> frozenset[int]:
    """Logical processors that this process may run on."""
    try:
        return frozenset(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on Linux
        return frozenset(range(os.cpu_count() or 1))


def name_processor(tree: Tree, architecture: str) -> str:
    """Name of the processor; on Arm those of its kinds of cores; the architecture if nothing tells more."""
    names: dict[str, None] = {}
    implementer = ""
    for key, value in _lines(tree):
        if key in {"model name", "Model"}:
            names.setdefault(" ".join(value.split()))
        elif key == "CPU implementer":
            implementer = value
        elif key == "CPU part":
            names.setdefault(_ARM_PARTS.get((implementer, value), f"Arm core {implementer}:{value}"))
    return ", ".join(names) or platform.processor() or architecture


def read_revision(tree: Tree) -> str:
    """Family, model and stepping of an x86 processor, e.g. ``6.173.1``; empty where they are not told.

    Virtual processors of two generations may have one name.
    """
    found: dict[str, str] = {}
    for key, value in _lines(tree):
        found.setdefault(key, value)
    return ".".join(found[key] for key in ("cpu family", "model", "stepping") if key in found)


def read_flags(tree: Tree) -> tuple[str, ...]:
    """Those of `FLAGS` that Linux says the processor has, in that order."""
    for key, value in _lines(tree):
        if key in {"flags", "Features"}:
            have = set(value.split())
            return tuple(flag for flag in FLAGS if flag in have)
    return ()


def count_cores(tree: Tree, cpus: Collection[int]) -> int | None:
    """Physical cores behind these logical processors; None if unknown."""
    cores = {tree.text(f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") for cpu in cpus} - {
        None
    }
    return len(cores) or None


def _lines(tree: Tree) -> list[tuple[str, str]]:
    text = tree.text("proc/cpuinfo") or ""
    pairs = (line.partition(":") for line in text.splitlines())
    return [(key.strip(), value.strip()) for key, _, value in pairs]
