"""Ctrl-C in a long run: what is under way is finished first."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["deferred_interrupt"]

_TOLD = b"\nstopping after this input; Ctrl-C again stops at once\n"


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], None]]:
    """Hold back the first Ctrl-C inside the ``with`` block; a second one interrupts as ever.

    Yields:
        What is to be called wherever the run may stop: raises KeyboardInterrupt if there was a Ctrl-C.
    """
    pressed = False

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.write(2, _TOLD)  # not through sys.stderr, which may be in the middle of a line

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # which alone has signals
        yield check
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
