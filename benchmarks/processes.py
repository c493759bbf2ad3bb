"""The sides of a comparison: each a process of its own, which answers a line of JSON to each line that it reads."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

__all__ = ["PAUSE_S", "ask", "peak_mib", "start", "stop"]

PAUSE_S: Final = 0.03
"""Between two runs, so that one side's spinning threads are asleep when the next begins."""


def start(command: Sequence[str]) -> subprocess.Popen[str]:
    """A fresh process."""
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(process: subprocess.Popen[str], question: str | Path) -> dict[str, Any]:
    """Have one line answered; the side's own answer."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process has no pipes")
    process.stdin.write(f"{question}\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise click.ClickException(f"a side died on {Path(question).name}; its message stands above")
    answer: dict[str, Any] = json.loads(line)
    return answer


def peak_mib(process: subprocess.Popen[str]) -> float:
    """Peak resident set of a live process in MiB, from Linux' own count (VmHWM)."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM in /proc")


def stop(process: subprocess.Popen[str]) -> None:
    """End a side by closing its input."""
    process.communicate()
