"""Which Jetson this is, and which JetPack it runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from bedside.device.tree import Tree

__all__ = ["JETPACKS", "Jetson", "describe_jetson", "read_power_mode"]

JETPACKS: Final = {"32": "4", "34": "5", "35": "5", "36": "6", "38": "7", "39": "7"}
"""Release of Jetson Linux (L4T) -> JetPack that it belongs to, by their first numbers: Jetson Linux archive,
developer.nvidia.com/embedded/jetson-linux-archive."""
_RELEASE: Final = re.compile(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)")
"""First line of /etc/nv_tegra_release: ``# R36 (release), REVISION: 4.3, GCID: ..., BOARD: generic, ...``."""
_STATUS: Final = re.compile(r"\bpmode:\s*(\d+)")
"""/var/lib/nvpmodel/status: ``pmode:0002``."""
_MODE: Final = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=([^\s>]+)")
"""A power mode in /etc/nvpmodel.conf: ``< POWER_MODEL ID=2 NAME=MODE_15W >`` (Jetson Linux Developer Guide, Platform
Power and Performance)."""


@dataclass(frozen=True, slots=True)
class Jetson:
    """An NVIDIA Jetson."""

    model: str
    """As the device tree names it, e.g. ``NVIDIA Jetson AGX Orin Developer Kit``."""
    l4t: str | None = None
    """Release of Jetson Linux, e.g. ``36.4.3``; None where the file that tells it is not there, as in a container."""

    @property
    def jetpack(self) -> str | None:
        """First number of the JetPack that `l4t` belongs to, e.g. ``6``; None if unknown."""
        return None if self.l4t is None else JETPACKS.get(self.l4t.partition(".")[0])


def describe_jetson(tree: Tree) -> Jetson | None:
    """The Jetson that this is; None if it is none."""
    model = tree.text("proc/device-tree/model") or tree.text("sys/firmware/devicetree/base/model") or ""
    found = _RELEASE.search(tree.text("etc/nv_tegra_release") or "")
    if found is None and "jetson" not in model.lower():
        return None
    return Jetson(model or "NVIDIA Jetson", None if found is None else f"{found[1]}.{found[2]}")


def read_power_mode(tree: Tree) -> str | None:
    """Name of the power mode that nvpmodel set, e.g. ``MAXN``; its number if the name is not told; None if unknown."""
    found = _STATUS.search(tree.text("var/lib/nvpmodel/status") or "")
    if found is None:
        return None
    number = int(found[1])
    names: dict[int, str] = {
        int(mode): name for mode, name in _MODE.findall(tree.text("etc/nvpmodel.conf") or "")
    }
    return names.get(number, f"mode {number}")
