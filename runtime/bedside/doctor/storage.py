"""Where bedside writes: the cache of plans and engines, temporary files, shared memory."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from bedside.doctor.check import Check, private, size

__all__ = ["check_storage"]

_LITTLE: Final = 200 << 20
"""Bytes under which a built engine may not fit: those of the built-in bundles are some tens of MiB."""


def check_storage(cache: Path | None) -> list[Check]:
    """Look at the folders, and leave nothing in them.

    Args:
        cache: The cache folder; None for `bedside.tuning.plans.default_cache`.
    """
    checks = [_check_cache(cache), _check_temporary()]
    shared = Path("/dev/shm")  # noqa: S108 - looked at, not written to
    if shared.is_dir():
        usage = shutil.disk_usage(shared)
        checks.append(
            Check("storage", "shared memory", "ok", f"{size(usage.total)}, {size(usage.free)} free")
        )
    return checks


def _check_cache(cache: Path | None) -> Check:
    if cache is None:
        try:
            from bedside.tuning.plans import default_cache  # noqa: PLC0415 - platformdirs may be missing

            cache = default_cache()
        except ImportError as error:
            text = private(f"the cache folder is not known ({error})")
            return Check("storage", "cache", "broken", text, "pip install platformdirs")
    shown = private(cache)
    fix = "bedside tune BUNDLE --cache FOLDER"
    there = cache
    while not os.path.exists(there) and there != there.parent:  # noqa: PTH110 - Path.exists raises where it may not look
        there = there.parent
    problem = _try_to_write(there)
    if problem is not None:
        place = "it" if there == cache else f"{private(there)}, where it would be made,"
        return Check("storage", "cache", "broken", f"{shown}: {place} can't be written ({problem})", fix)
    free = shutil.disk_usage(there).free
    if there != cache:
        text = f"{shown}: not there yet, and is made when bedside tune runs; {size(free)} free"
    else:
        plans, held = _weigh(cache)
        text = f"{shown}: {plans} {'plan' if plans == 1 else 'plans'}, {size(held)}; {size(free)} free"
    if free < _LITTLE:
        return Check("storage", "cache", "broken", f"{text}, which is little for a built engine", fix)
    return Check("storage", "cache", "ok", text)


def _weigh(cache: Path) -> tuple[int, int]:
    """Plans in a cache folder, and bytes of all that it holds and that may be seen."""
    plans = held = 0
    for folder, _, names in os.walk(cache):
        plans += sum(name.endswith(".json") for name in names) if Path(folder).name == "plans" else 0
        for name in names:
            with suppress(OSError):
                held += (Path(folder) / name).stat().st_size
    return plans, held


def _check_temporary() -> Check:
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError:  # none of the folders that Python knows can be written
        text = "no folder for temporary files can be written"
        return Check("storage", "temporary files", "broken", text, "export TMPDIR=FOLDER")
    free = shutil.disk_usage(folder).free
    text = f"{private(folder)}: {size(free)} free"
    if free < _LITTLE:
        text = f"{text}, which is little"
        return Check("storage", "temporary files", "broken", text, "export TMPDIR=FOLDER")
    return Check("storage", "temporary files", "ok", text)


def _try_to_write(folder: Path) -> str | None:
    """Why a folder can't be written; None if it can."""
    if not folder.is_dir():
        return "not a folder"
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        return os.strerror(error.errno).lower() if error.errno else "an I/O error"
    return None
