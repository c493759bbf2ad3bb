"""Tuned plans on the disk, and the folders of what engines build.

A plan is one JSON file in the cache folder. It holds the hash of itself and of the engine files that it counts on, and
serves the one key that it was made for.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import platformdirs

from bedside.contract import Stored
from bedside.disk import CACHE, reason, told
from bedside.errors import BackendError
from bedside.tuning.candidates import Candidate
from bedside.tuning.key import PlanKey
from bedside.tuning.plan import ENGINES, MAX_PLAN_BYTES, Plan, Planned, decode, encode

__all__ = ["Found", "Plans", "Rejected", "default_cache"]

MAX_PLANS: Final = 256
"""Most other plans of one bundle that are looked at to say why none of them serves."""
_BLOCK: Final = 1 << 20
"""Bytes that are hashed at once."""
"""No space, no quota, and over the file size that the system or its limits allow."""
_BUILT: Final = frozenset({".engine", ".blob"})
"""Endings of what an engine runs from, as the leaves name it. What else they keep only shortens a start or a build and
may change with each use: timings, kernels, their own seals. They check that themselves."""
_PLANS: Final = "plans"
_STALE_S: Final = 86_400.0
"""Age, seconds, beyond which a folder that no plan counts on is not one of a tuning that still runs: a day."""
_DIGITS: Final = 16
"""Hexadecimal digits of a digest in a name: 64 bits tell apart what one folder holds, and the file says the rest."""


def default_cache() -> Path:
    """Where plans and built engines are kept if nothing else is asked for, e.g. ``~/.cache/bedside``."""
    return Path(platformdirs.user_cache_dir("bedside"))


@dataclass(frozen=True, slots=True)
class Rejected:
    """A plan that is there and is not used."""

    name: str
    """Its file."""
    reasons: tuple[str, ...]
    """What it is not, or no longer, for people."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the cache holds for a key."""

    plan: Plan | None
    """The plan that serves it."""
    rejected: tuple[Rejected, ...] = ()
    """What is there of the same bundle and does not serve, the nearest first."""


class Plans:
    """The plans in a cache folder, which need not be there to look for one.

    Args:
        folder: The cache folder; None for `default_cache`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = default_cache() if folder is None else folder
        """The cache folder."""

    def find(self, key: PlanKey) -> Found:
        """The plan for a key, if there is one and it is whole. Never raises for what lies in the cache."""
        path = self.path(key)
        try:
            exists = path.exists()
            others = list(path.parent.glob(f"{key.bundle[:_DIGITS]}-*.json"))
        except OSError as error:
            return Found(None, (Rejected(path.name, (f"the cache can't be read ({reason(error)})",)),))
        own = _read(path, key) if exists else None
        if isinstance(own, Plan):
            return Found(own)
        rejected = [_read(other, key) for other in sorted(others)[:MAX_PLANS] if other != path]
        return Found(
            None,
            (
                *([] if own is None else [own]),
                *sorted((each for each in rejected if isinstance(each, Rejected)), key=_distance),
            ),
        )

    def write(self, plan: Plan) -> Path:
        """Keep a plan, in place of one for the same key; whole or not at all.

        Returns:
            Its file.

        Raises:
            OutputError: ``cache-not-writable``; ``disk-full``.
        """
        path = self.path(plan.key)
        before = self._folders()
        with told(CACHE):
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.parent / f".bedside-{secrets.token_hex(8)}.part"
            try:
                with part.open("xb") as stream:
                    stream.write(encode(plan))
                    stream.flush()
                    os.fsync(stream.fileno())
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        self._clear(before)
        return path

    def forget(self, key: PlanKey) -> None:
        """Remove the plan for a key with what only that one counts on, if there is one.

        Raises:
            OutputError: ``cache-not-writable``.
        """
        before = self._folders()
        with told(CACHE):
            self.path(key).unlink(missing_ok=True)
        self._clear(before)

    def make_folder(self, key: PlanKey, candidate: Candidate) -> Path:
        """A new folder for what a candidate builds.

        Raises:
            OutputError: ``cache-not-writable``; ``disk-full``.
        """
        name = f"{candidate.slug}-{secrets.token_hex(4)}"
        folder = self.folder.absolute() / ENGINES / key.digest[:_DIGITS] / name
        with told(CACHE):
            folder.mkdir(parents=True)
        return folder

    def discard(self, folder: Path | None) -> None:
        """Remove a folder of `make_folder`; what can't be removed only takes space."""
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                folder.parent.rmdir()

    def sweep(self) -> None:
        """Remove what tunings left that were killed: old folders of built engines that no plan counts on.

        Nothing is removed while there is a plan that can't be read, e.g. a later bedside's, as it may count on any.
        """
        with suppress(OSError, ValueError):
            plans = [decode(_load(path)) for path in (self.folder / _PLANS).glob("*.json")]
            counted = {planned.folder for plan in plans for planned in plan.ranking}
            for folder in (self.folder / ENGINES).glob("*/*"):
                age = time.time() - folder.stat().st_mtime
                if age > _STALE_S and folder.relative_to(self.folder).as_posix() not in counted:
                    self.discard(folder)

    def seal(self, folder: Path | None) -> tuple[str, dict[str, Stored]]:
        """`Planned.folder` and `Planned.files` of a folder of `make_folder`, which is removed if it holds no engine.

        Raises:
            OutputError: ``cache-not-writable`` if it can't be read back.
        """
        if folder is None:
            return "", {}
        with told(CACHE):
            files = {
                str(path.relative_to(folder)): _weigh(path)
                for path in sorted(folder.rglob("*"))
                if path.is_file() and path.suffix in _BUILT
            }
        if not files:
            self.discard(folder)
            return "", {}
        return str(folder.relative_to(self.folder.absolute())), files

    def built(self, planned: Planned) -> Path | None:
        """The folder of what an engine of a plan has built, every file checked against its hash; None for nothing.

        Raises:
            BackendError: ``engine-foreign`` if a file is missing or altered.
        """
        if not planned.files:
            return None
        folder = self.folder.absolute() / planned.folder
        for name, stored in planned.files.items():
            try:
                same = (folder / name).stat().st_size == stored.bytes and _weigh(folder / name) == stored
            except OSError:
                same = False
            if not same:
                raise BackendError(
                    "engine-foreign",
                    f"{planned.candidate} has a built engine that is missing or altered; run bedside tune again",
                )
        return folder

    def path(self, key: PlanKey) -> Path:
        """The file of the plan for a key."""
        return self.folder / _PLANS / f"{key.bundle[:_DIGITS]}-{key.digest[:_DIGITS]}.json"

    def _folders(self) -> set[str]:
        """Folders of built engines that any plan counts on."""
        found = set()
        for path in (self.folder / _PLANS).glob("*.json"):
            with suppress(OSError, ValueError):
                found |= {planned.folder for planned in decode(_load(path)).ranking}
        return found - {""}

    def _clear(self, before: set[str]) -> None:
        """Remove the folders that no plan counts on any more."""
        for folder in before - self._folders():
            self.discard(self.folder.absolute() / folder)


def _distance(rejected: Rejected) -> int:
    return len(rejected.reasons)


def _weigh(path: Path) -> Stored:
    """Size and hash of a file."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return Stored(size, digest.hexdigest())


def _load(path: Path) -> bytes:
    """A file, but for what is beyond a plan's size."""
    with path.open("rb") as stream:
        return stream.read(MAX_PLAN_BYTES + 1)


def _read(path: Path, key: PlanKey) -> Plan | Rejected:
    """The plan in a file if it serves a key, else why it does not."""
    try:
        plan = decode(_load(path))
    except OSError as error:
        return Rejected(path.name, (f"it can't be read ({reason(error)})",))
    except ValueError as error:
        return Rejected(path.name, (f"it is not a whole plan ({' '.join(str(error).split())[:200]})",))
    differences = tuple(plan.key.differences(key))
    return Rejected(path.name, differences) if differences else plan
