"""What control groups leave to this process, of version 1 and 2 (Linux, admin-guide/cgroup-v1 and cgroup-v2.rst)."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

from bedside.device.tree import Tree

__all__ = ["limit_cpu", "limit_memory", "total_memory"]

_MOUNT: Final = "sys/fs/cgroup"


def limit_cpu(tree: Tree) -> float | None:
    """Processors' worth of time that this process may use; None without a limit."""
    limits: list[float] = []
    for folder in _folders(tree, ""):
        quota, _, period = (tree.text(f"{folder}/cpu.max") or "").partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:
            limits.append(int(quota) / int(period))
    for folder in _folders(tree, "cpu"):
        length = tree.number(f"{folder}/cpu.cfs_period_us")
        share = tree.number(f"{folder}/cpu.cfs_quota_us")
        if length and share and length > 0 and share > 0:
            limits.append(share / length)
    return min(limits, default=None)


def limit_memory(tree: Tree) -> int | None:
    """Bytes that this process and its siblings may hold; None without a limit under what the machine has."""
    limits = [tree.number(f"{folder}/memory.max") for folder in _folders(tree, "")]
    limits += [tree.number(f"{folder}/memory.limit_in_bytes") for folder in _folders(tree, "memory")]
    total = total_memory(tree)
    real = [limit for limit in limits if limit is not None and (total is None or limit < total)]
    return min(real, default=None)


def total_memory(tree: Tree) -> int | None:
    """Bytes of main memory that the machine has."""
    for line in (tree.text("proc/meminfo") or "").splitlines():
        key, _, value = line.partition(":")
        parts = value.split()
        if key == "MemTotal" and parts and parts[0].isdecimal():
            return int(parts[0]) << 10
    return None


def _folders(tree: Tree, controller: str) -> list[str]:
    """Folders of this process's group and of those above it, the innermost first.

    Inside a container the path that /proc tells may not be there, and the mount itself is the group; the mount is
    always the last of these.
    """
    mount = f"{_MOUNT}/{controller}" if controller else _MOUNT
    for line in (tree.text("proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            inner = PurePosixPath(path.lstrip("/"))
            return [f"{mount}/{part}" for part in (inner, *inner.parents)]
    return [mount]
