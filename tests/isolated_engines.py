"""Engines in processes of their own, what is given to them, and what must not be left of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bedside.bundle import Bundle
from bedside.isolation import IsolatedBackend, Limits
from tiny_bundle import SIDE

Floats = npt.NDArray[np.float32]
OWN = Path("/proc/self")
SOON = Limits(open_s=60, run_s=1.5)
"""Long enough for any machine to open a stand-in, and short for one that never answers."""


def left() -> tuple[list[str], list[str], int]:
    """Children of this process, its descriptors of what has no file, and what it sees of shared memory."""
    children = [number for path in OWN.glob("task/*/children") for number in path.read_text().split()]
    descriptors = [str(path.readlink()) for path in (OWN / "fd").iterdir() if path.is_symlink()]
    nameless = [name for name in descriptors if name.startswith(("pipe:", "socket:", "/memfd:"))]
    return children, sorted(nameless), (OWN / "maps").read_text().count("/memfd:bedside")


@contextmanager
def nothing_left() -> Iterator[None]:
    """No process, no pipe, no shared memory."""
    gc.collect()
    before = left()
    yield
    gc.collect()
    after = left()
    assert after == before, (before, after)


def picture(first: float = 1.0, number: int = 1) -> Floats:
    """Pictures; a stand-in does what it is named after where the first pixel is 0."""
    image = np.random.default_rng(number).uniform(0.5, 1, (number, 1, SIDE, SIDE)).astype(np.float32)
    image.flat[0] = first
    return image


def crashing(name: str, bundle: Bundle, limits: Limits = SOON) -> IsolatedBackend:
    """One of `crashing_engines`, in a process of its own."""
    return IsolatedBackend(f"crashing_engines:{name}", bundle, limits=limits)


def gone(process: int) -> bool:
    """Whether a process has ended; its parent may not have looked at it yet."""
    try:
        return "State:\tZ" in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until that is so."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come about in ten seconds")
