"""How the device fared over a job, for its result."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

from bedside.device.description import describe_device
from bedside.device.state import DeviceState, StateReader

__all__ = ["Machine", "Span", "Watch"]

PERIOD_S: Final = 1.0
"""Least time between two readings. One takes 0.04 ms where nothing is told and up to 1 ms for a laptop's or Jetson's
files (made-up ones on a disk, one busy core of a Xeon; a real Jetson asks its firmware, which was not measured), and a
job that needs none 0.02 ms. So a reading costs a thousandth of the time, and one of the last second is as good."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a result says of the device that it was made on. What the device does not tell is None or empty."""

    device: str
    """Name of the Jetson, or of the processor and GPUs."""
    power_mode: str | None = None
    """As `bedside.device.DeviceState.power_mode`, at the end."""
    clocks_mhz: dict[str, float] = field(default_factory=dict)
    """Clock -> MHz, at the end."""
    temperature_c: float | None = None
    """The highest that was seen in the job, degrees Celsius."""
    throttled: bool | None = None
    """Whether heat or current held clocks down in the job; None if nothing tells."""
    reasons: tuple[str, ...] = field(default=(), compare=False)
    """By what; not part of the JSON."""

    def to_json(self) -> dict[str, Any]:
        """As an object for results, of rounded numbers."""
        return {
            "device": self.device,
            "power_mode": self.power_mode,
            "clocks_mhz": {name: round(mhz, 1) for name, mhz in self.clocks_mhz.items()},
            "temperature_c": None if self.temperature_c is None else round(self.temperature_c, 1),
            "throttled": self.throttled,
        }


class Watch:
    """Reads the device's state over jobs, at most once a second.

    Args:
        device: Name of the device; None to look.
        reader: What reads; None for the device's own files, and NVML if `gpus`.
        gpus: Whether the jobs run on a GPU.
        clock: Seconds that only grow; for tests.
    """

    def __init__(
        self,
        device: str | None = None,
        reader: StateReader | None = None,
        *,
        gpus: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader = reader or StateReader(gpus=gpus)
        self._clock = clock
        self._lock = threading.Lock()
        self.device = device or describe_device(gpus=gpus).name
        """Name of the device."""
        self._state = self._reader.read()
        self._read_at = clock()

    def look(self) -> DeviceState:
        """The state, read anew if the last reading is a second old."""
        with self._lock:
            now = self._clock()
            if now - self._read_at >= PERIOD_S:
                self._state = self._reader.read(self._state)
                self._read_at = now
            return self._state

    def over(self, *, long: bool = False) -> Span:
        """A job that begins now.

        Args:
            long: It takes seconds or more, and is used in a ``with`` statement, in which a thread looks once a
                second.
        """
        return Span(self, long=long)


class Span:
    """One job under a `Watch`, from its making to `end`.

    A job that is shorter than a second may see no reading of its own, and is told by that of the second that it is in.
    """

    def __init__(self, watch: Watch, *, long: bool) -> None:
        self._watch = watch
        self._seen: dict[int, DeviceState] = {}
        self._over = threading.Event()
        self._thread = (
            threading.Thread(target=self._look_on, name="bedside-device", daemon=True) if long else None
        )
        self._look()

    def end(self) -> Machine:
        """Look a last time, and tell."""
        self._over.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        self._look()
        return self.machine

    def __enter__(self) -> Span:
        """Start the thread of a long job."""
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the job."""
        self.end()

    @property
    def machine(self) -> Machine:
        """What was seen so far."""
        seen = list(self._seen.copy().values())
        told = [state.throttled for state in seen if state.throttled is not None]
        last = seen[-1]
        return Machine(
            device=self._watch.device,
            power_mode=last.power_mode,
            clocks_mhz={name: clock.mhz for name, clock in last.clocks.items() if clock.mhz is not None},
            temperature_c=max(
                (state.temperature_c for state in seen if state.temperature_c is not None), default=None
            ),
            throttled=any(told) if told else None,
            reasons=tuple(dict.fromkeys(reason for state in seen for reason in state.reasons)),
        )

    def _look(self) -> None:
        state = self._watch.look()
        self._seen[id(state)] = state

    def _look_on(self) -> None:
        while not self._over.wait(PERIOD_S):
            self._look()
