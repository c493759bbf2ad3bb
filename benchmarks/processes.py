"""The sides of a comparison: each a process of its own, which answers a line of JSON to each line that it reads."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

__all__ = ["ISAS", "PAUSE_S", "ask", "cap_isa", "peak_mib", "probe", "start", "stop"]

ISAS: Final = ("AVX2", "AVX512_CORE", "AVX512_CORE_VNNI", "AVX512_CORE_BF16", "AVX512_CORE_FP16")
"""What oneDNN's instruction sets can be capped to, none of them with AMX (oneDNN, "CPU Dispatcher Control")."""

PAUSE_S: Final = 0.03
"""Between two runs, so that one side's spinning threads are asleep when the next begins."""


def cap_isa(isa: str | None) -> dict[str, str]:
    """The environment for a side whose oneDNN is to use no instructions beyond ``isa``; None caps nothing."""
    return {**os.environ, **({} if isa is None else {"ONEDNN_MAX_CPU_ISA": isa})}


def start(command: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """A fresh process."""
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def probe(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Start a side and end it at once: why it can't run here, or nothing if it can."""
    done = subprocess.run(command, input="", capture_output=True, text=True, env=environment, check=False)
    if done.returncode == 0:
        return ""
    last = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
    return last[-1].partition(": ")[2] or last[-1]


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
