"""Tuning behind the back of a service: in a process of its own, which leaves the service its interpreter.

BackgroundTuning   starts that process, waits for it, and opens what it found
serve              the other side
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from bedside.backends import Backend, Tuning
from bedside.bundle import Bundle
from bedside.errors import BackendError, BedsideError, BundleError, InternalError
from bedside.isolation.wire import pack_error, pack_tuning, unpack_error, unpack_tuning
from bedside.tuning.candidates import Choice
from bedside.tuning.opening import open_tuned
from bedside.tuning.plans import Plans
from bedside.tuning.qualification import Request, keep, tune

__all__ = ["BackgroundTuning", "serve"]

_BOOT: Final = (
    "import sys; sys.path[:] = sys.argv[2:]; from bedside.tuning.background import serve; serve(sys.argv[1])"
)
"""Modules come from where this process has them: ``-m`` would look into the working directory first."""
_END_S: Final = 10.0
"""Patience with the process once it was asked to end: it has engines' processes to end first."""


class BackgroundTuning:
    """Tunes a bundle in a process of its own; see `bedside.tuning.switching.Preparation`.

    Args:
        bundle: The opened bundle, which the other process opens again from where it lies.
        plans: Where the plan is kept.
        threads: Threads inside one inference; None leaves it to the engine.
        tuning: How engines are set up.
        open_engine: Opens what the plan names, in this process.
        command: What to start; None for this interpreter, with `serve`.
    """

    def __init__(
        self,
        bundle: Bundle,
        plans: Plans,
        *,
        threads: int | None = None,
        tuning: Tuning | None = None,
        open_best: Callable[[], Backend] | None = None,
    ) -> None:
        tuning = tuning or Tuning()
        order = {
            "location": str(Path(bundle.location).absolute()),
            "digest": bundle.digest,
            "threads": threads,
            "tuning": pack_tuning(tuning),
            "cache": str(plans.folder.absolute()),
        }
        boot = (sys.executable, "-c", _BOOT, json.dumps(order), *map(os.path.abspath, sys.path))
        self._command = list(boot)
        self._open_best = open_best or partial(
            open_tuned, bundle, threads=threads, tuning=tuning, plans=plans
        )
        self._lock = threading.Lock()
        self._stopped = False
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> Backend | None:
        """Tune, then open what was found to be the best.

        Raises:
            BackendError: ``engine-crashed`` if the process ended without an answer; ``engine-failed`` if nothing
                qualified.
            BedsideError: What went wrong there, or in opening the engine.
        """
        process = self._start()
        if process is None:
            return None
        with process:  # its standard input stays open until then: where this process dies, it ends too
            said = b"" if process.stdout is None else process.stdout.read()
        with self._lock:
            if self._stopped:
                return None
        try:
            answer: dict[str, Any] = json.loads(said)
        except ValueError as error:
            raise BackendError(
                "engine-crashed",
                f"the process that tunes ended without an answer (exit code {process.returncode}); run bedside tune",
            ) from error
        if "error" in answer:
            raise unpack_error(answer["error"])
        if not answer["qualified"]:
            raise BackendError("engine-failed", "no engine qualified; bedside tune tells why")
        return self._open_best()

    def stop(self) -> None:
        """End the process, and with it those of the engines that it tries."""
        with self._lock:
            self._stopped = True
            process = self._process
        if process is None or process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    def _start(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._stopped:
                return None
            try:
                self._process = subprocess.Popen(  # noqa: S603 - this very interpreter
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError as error:
                raise BackendError(
                    "engine-failed",
                    f"no process can be started to tune in ({error.strerror}); free some memory",
                ) from error
            return self._process


def serve(text: str) -> None:
    """Tune what an order says, and print what came of it: ``{"qualified": bool}`` or ``{"error": [...]}``.

    Ends with the process that started it, and on SIGTERM, and then ends the engines' processes first.

    Args:
        text: The order, JSON.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answer: dict[str, object] = {"qualified": _tune(json.loads(text))}
    except BedsideError as error:
        answer = {"error": pack_error(error)}
    except Exception as problem:  # noqa: BLE001 - all of it is told on the other side
        answer = {"error": pack_error(InternalError.of(problem))}
    os.write(1, json.dumps(answer).encode())


def _tune(order: dict[str, Any]) -> bool:
    bundle = Bundle.open(Path(order["location"]))
    if bundle.digest != order["digest"]:
        raise BundleError("bundle-altered", "the bundle was changed since it was opened; open it again")
    threads = order["threads"]
    request = Request(
        choice=Choice(threads=() if threads is None else (threads,)),
        setup=unpack_tuning(order["tuning"], None),
    )
    plans = Plans(Path(order["cache"]))
    report = tune(bundle, request, plans=plans)
    return keep(report, plans) is not None


def _end_with_parent() -> None:
    """Wait until nobody holds the other end of standard input, then end this process as SIGTERM does."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
