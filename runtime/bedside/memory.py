"""How much memory this process and its children hold, and how much they held at most.

The measure is the proportional set size: pages in memory, a shared one counted by its share. It adds up over
processes, which the resident size does not, and it is what is really used, which the virtual size is not.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path
from types import TracebackType
from typing import Final

from bedside.errors import InputError

__all__ = ["MIB", "PeakMemory", "held_bytes", "parse_size"]

MIB: Final = 1 << 20
_UNITS: Final = {"": 1, "b": 1, "k": 1e3, "m": 1e6, "g": 1e9, "ki": 1 << 10, "mi": MIB, "gi": 1 << 30}
_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?|)b?\s*", re.IGNORECASE)
_PERIOD_S: Final = 0.02
"""How often the resident size is looked at, which costs next to nothing: a slab or an inference takes longer."""
_OFTEN: Final = 25
"""Every so many looks the proportional size of all processes is taken, whatever the resident size: half a second."""
_PROC: Final = Path("/proc")


def parse_size(text: str) -> int:
    """``512MiB``, ``2GB``, ``1.5 GiB`` or a number of bytes, as bytes.

    Raises:
        InputError: ``bad-attribute`` if it is none of these.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InputError("bad-attribute", f"{text!r} is not a size; give it as 512MiB or 2GB")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def held_bytes() -> int:
    """Proportional set size of this process and all its descendants, bytes."""
    return sum(_proportional(process) for process in ("self", *_descendants()))


class PeakMemory:
    """Watches what this process and its children hold, while the ``with`` block runs.

    To take the proportional size costs a millisecond of the processor, so it is taken when the resident size of this
    process, looked at every 20 ms, has grown beyond what it was, and twice a second for its children. A peak that is
    shorter than 20 ms may be missed; `note` looks at once.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        """The most that was seen."""
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="bedside-memory", daemon=True)

    def note(self) -> int:
        """Look now; returns what is held, bytes."""
        held = held_bytes()
        with self._lock:
            self.peak_bytes = max(self.peak_bytes, held)
        return held

    def __enter__(self) -> PeakMemory:
        """Start to watch."""
        self.note()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Look a last time."""
        self._over.set()
        self._thread.join()
        self.note()

    def _watch(self) -> None:
        highest, looks = 0, 0
        while not self._over.wait(_PERIOD_S):
            looks += 1
            resident = int((_PROC / "self" / "statm").read_text().split()[1])
            if resident > highest or looks % _OFTEN == 0:
                highest = max(highest, resident)
                self.note()


def _descendants() -> list[str]:
    """Process numbers of all children, theirs too."""
    found: list[str] = []
    ahead = ["self"]
    while ahead:
        for thread in (_PROC / ahead.pop() / "task").glob("*/children"):
            try:
                children = thread.read_text().split()
            except OSError:  # it ended just now
                continue
            found += children
            ahead += children
    return found


def _proportional(process: str) -> int:
    """Proportional set size of a process, bytes; 0 if it has ended."""
    try:
        text = (_PROC / process / "smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Pss:"))
