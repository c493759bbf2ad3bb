"""Tries things in a process of their own, so that a crash or a hang costs a line and not the answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

__all__ = ["LIMIT_S", "Outcome", "try_items"]

LIMIT_S: Final = 120.0
"""Most that one process may take, seconds: far over what opening a built-in bundle takes on a slow device."""
_BOOT: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from bedside.doctor.worker import main; main(sys.argv[1])"
)
"""Modules come from where this process has them: ``-m`` would look into the working directory first."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one item."""

    error: str | None = None
    """What went wrong, in one line; None if it works."""
    code: str = ""
    """Kind of the error: a code of `bedside.errors.CODES`, ``crashed``, ``hung`` or ``exception``."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What was learnt."""


def try_items(
    kind: str, items: Sequence[str], options: Mapping[str, Any], *, limit_s: float = LIMIT_S
) -> dict[str, Outcome]:
    """Try each item; after a crash or a hang the items that are left are tried in a fresh process.

    Args:
        kind: What they are: a key of `bedside.doctor.worker.KINDS`.
        items: Names, in the order that they are tried in.
        options: What the kind needs to know besides; JSON.
        limit_s: Most that a process may take, seconds.

    Returns:
        Item -> what came of it; of every item.
    """
    outcomes: dict[str, Outcome] = {}
    left = list(items)
    while left:
        text, ending = _run({"kind": kind, "items": left, "options": dict(options)}, limit_s)
        begun, known = _read(text)
        outcomes |= known
        left = [item for item in left if item not in outcomes]
        if left:
            culprit = begun if begun in left else left[0]
            code = "hung" if ending is None else "crashed"
            outcomes[culprit] = Outcome(_describe_end(ending, limit_s), code)
            left.remove(culprit)
    return {item: outcomes[item] for item in items}


def _run(order: Mapping[str, Any], limit_s: float) -> tuple[str, int | None]:
    """What a process wrote, and how it ended; None if it had to be ended."""
    path = json.dumps([os.path.abspath(entry) for entry in sys.path])  # noqa: PTH100 - of strings, "" too
    try:
        done = subprocess.run(  # noqa: S603 - this very interpreter
            [sys.executable, "-W", "ignore", "-c", _BOOT, json.dumps(order), path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=limit_s,
            check=False,
            cwd=Path(sys.executable).anchor,
        )
    except subprocess.TimeoutExpired as expired:
        return (expired.stdout or b"").decode("utf-8", "replace"), None
    return done.stdout.decode("utf-8", "replace"), done.returncode


def _read(text: str) -> tuple[str | None, dict[str, Outcome]]:
    """The item that was begun last, and what came of those that ended."""
    begun = None
    known: dict[str, Outcome] = {}
    for line in text.splitlines():
        try:
            message = json.loads(line)
        except ValueError:  # cut short, or an engine found this end of the pipe
            continue
        if "begin" in message:
            begun = message["begin"]
        else:
            known[message["end"]] = Outcome(message["error"], message["code"], message["facts"])
    return begun, known


def _describe_end(ending: int | None, limit_s: float) -> str:
    if ending is None:
        return f"it gave no answer in {limit_s:.0f} s, and was stopped"
    if ending < 0:
        try:
            name = f"{signal.Signals(-ending).name}"
        except ValueError:
            name = f"signal {-ending}"
        why = "; it uses instructions that this processor does not have" if name == "SIGILL" else ""
        return f"it crashed ({name}){why}"
    return f"its process ended by itself (exit code {ending})"
