"""Runs ``bedside`` in tests: in this process, or in one of its own where signals, pipes and terminals matter."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from click.testing import CliRunner, Result
from PIL import Image

from bedside.cli import main


def invoke(*arguments: str | Path) -> Result:
    """The command's exit code, stdout and stderr; what it should have caught is raised."""
    apart: dict[str, Any] = (
        {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
    )
    return CliRunner(**apart).invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def command(*arguments: str | Path, code: str | None = None) -> list[str]:
    """The command line of ``bedside`` with this interpreter; ``code`` runs first, in the same process."""
    if code is None:
        start = ["-m", "bedside"]
    else:
        start = ["-c", f"{code}\nfrom bedside.cli import main\nmain(prog_name='bedside')"]
    return [sys.executable, "-W", "error", *start, *map(str, arguments)]


def environment() -> dict[str, str]:
    """Without what would change Python, but with the source tree where the tests run on it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    path = os.pathsep.join(entry for entry in sys.path if Path(entry).name == "runtime")
    return {**kept, **({"PYTHONPATH": path} if path else {})}


def run(
    *arguments: str | Path, code: str | None = None, stdout: int | IO[Any] = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """Run ``bedside`` to its end, in a process of its own."""
    return subprocess.run(
        command(*arguments, code=code),
        stdout=stdout,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env=environment(),
        text=True,
        timeout=300,
        check=False,
    )


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start ``bedside`` with pipes; Ctrl-C reaches it also where whoever runs the tests ignores that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            command(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=environment(),
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def draw(path: Path, *, seed: int = 0, shape: Sequence[int] = (96, 80)) -> Path:
    """A grey PNG, bright in the middle as a chest is, with noise of ``seed``."""
    rows, columns = shape
    middle = 1 - np.abs(np.linspace(-1, 1, columns))
    levels = 60 + 120 * middle + np.random.default_rng(seed).uniform(0, 60, (rows, columns))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels.astype(np.uint8)).save(path)
    return path


def draw_many(folder: Path, number: int) -> list[Path]:
    """That many pictures, ``000.png`` and on."""
    return [draw(folder / f"{index:03}.png", seed=index) for index in range(number)]
