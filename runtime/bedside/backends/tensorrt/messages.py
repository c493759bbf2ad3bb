"""What TensorRT says while it builds, and how it is stopped."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from bedside.backends.base import Progress
from bedside.backends.tensorrt.library import line_of

__all__ = ["Journal", "Steps", "make_log", "make_monitor", "off_stdout"]

_LISTING: Final = ("Layers:", "Engine Layer Information:")
"""How the last thing of a build begins, which is the engine's layers: in TensorRT for RTX and since 11, and before."""
_KEPT: Final = 20
"""Most errors that are kept."""
_STDOUT, _STDERR = 1, 2


class Journal:
    """What was said."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        """The first errors, a line each."""
        self.layers = ""
        """The listing of the engine's layers; empty if there was none."""

    def note(self, severity: int, text: str) -> None:
        """Take down one message: 0 and 1 are errors."""
        if severity <= 1 and len(self.errors) < _KEPT:
            self.errors.append(line_of(text))
        if text.startswith(_LISTING):
            self.layers = text

    def complaint(self) -> str:
        """The first error, for a message."""
        return self.errors[0] if self.errors else "it gave no reason"


class Steps:
    """The steps of a build, passed from TensorRT's threads to the caller's, which may stop it.

    Nothing that the caller does is called by TensorRT: an exception must not go through its code.
    """

    def __init__(self) -> None:
        self.stopped = False
        """Whether the build is to end."""
        self._sizes: dict[str, int] = {}
        self._steps: queue.SimpleQueue[tuple[str, int, int]] = queue.SimpleQueue()

    def begin(self, phase: str, steps: int) -> None:
        """Note a phase that begins."""
        self._sizes[phase] = steps
        self._steps.put((phase, 0, steps))

    def complete(self, phase: str, step: int) -> bool:
        """Note a step that is done, counted from 0; returns whether to go on."""
        self._steps.put((phase, step + 1, self._sizes.get(phase, step + 1)))
        return not self.stopped

    def tell(self, progress: Progress | None, wait_s: float) -> None:
        """Pass on what has happened, after at most ``wait_s`` seconds if there is nothing yet."""
        try:
            step = self._steps.get(timeout=wait_s)
            while True:
                if progress is not None:
                    progress(*step)
                step = self._steps.get_nowait()
        except queue.Empty:
            return


def make_log(api: Any, note: Callable[[int, str], None]) -> Any:
    """An ``ILogger`` of the package that passes all on to ``note``."""

    class Log(api.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            api.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            note(int(severity), text)

    return Log()


def make_monitor(api: Any, steps: Steps) -> Any:
    """An ``IProgressMonitor`` of the package that notes the steps of a build."""

    class Monitor(api.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)

        def phase_start(self, name: str, _parent: str | None, count: int) -> None:
            steps.begin(name, count)

        def step_complete(self, name: str, step: int) -> bool:
            return steps.complete(name, step)

        def phase_finish(self, _name: str) -> None:
            """Nothing to do: its steps were told."""

    return Monitor()


@contextlib.contextmanager
def off_stdout() -> Iterator[None]:
    """Send to standard error what is written to the descriptor of standard output in this ``with`` block.

    TensorRT's compiler prints there, past every log, what would break a result that a program reads from it.
    """
    try:
        sys.stdout.flush()
        kept = os.dup(_STDOUT)
    except (AttributeError, OSError, ValueError):  # there is no standard output
        yield
        return
    try:
        with contextlib.suppress(OSError):  # no standard error either
            os.dup2(_STDERR, _STDOUT)
        yield
    finally:
        os.dup2(kept, _STDOUT)
        os.close(kept)
