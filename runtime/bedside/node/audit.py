"""The audit log: what was received, done and sent, without saying of whom. Not for clinical use.

One line of JSON an event, a file a month (UTC). Studies and objects are told by marks: keyed hashes of their UIDs,
which nobody can turn back or guess without the key. Who has the key and a UID can find what became of it.
"""

from __future__ import annotations

import errno
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Final

from bedside.disk import told
from bedside.errors import OutputError
from bedside.results.files import prepare_folder, sync_folder

__all__ = ["Audit"]

_KEY: Final = "key"
_KEY_BYTES: Final = 32
"""As many as SHA-256 has (RFC 2104, 3)."""
_MARK_DIGITS: Final = 16
"""64 bits: among a billion marks, two are alike with a probability of 3%."""
_MONTH: Final = re.compile(r"audit-(\d{4})-(\d{2})\.jsonl")
_DAY_S: Final = 86_400.0
STEADY_S: Final = _DAY_S
"""Running time for which the clock has to go evenly before it makes a month old: a wrong one is seen in a day."""
JUMP_S: Final = 3600.0
"""What the clock may gain or lose between two calls of `Audit.expire`."""


class Audit:
    """An audit log in a folder, for one process, from any thread.

    Args:
        folder: Where; made where it is absent.
        keep_days: Days that it goes back, at least.
        clock: Seconds since 1970.
        running: Seconds that only rise.

    Raises:
        OutputError: ``output-not-writable``; ``disk-full``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_days: float,
        clock: Callable[[], float] = time.time,
        running: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = prepare_folder(folder)
        self._keep_days = keep_days
        self._clock = clock
        self._running = running
        self._seen = (clock(), running())
        self._steady_from = running()
        self._lock = Lock()
        self._name = ""
        self._descriptor = -1
        self._whole = True
        with told():
            self._key = _read_key(self._folder / _KEY)

    def __enter__(self) -> Audit:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; another `write` opens it again."""
        with self._lock:
            self._close()

    def mark(self, uid: str) -> str:
        """What stands for a UID: HMAC-SHA256 with the folder's key, 16 hexadecimal digits."""
        return hmac.new(self._key, uid.encode(), "sha256").hexdigest()[:_MARK_DIGITS]

    def write(self, event: str, **facts: str | float | None) -> None:
        """Add a line, which is on the disk when this returns.

        Args:
            event: What happened.
            facts: Of it; no UID but by its `mark`, no file name, and nothing of a patient.

        Raises:
            OutputError: ``disk-full``; ``output-not-writable``. Nothing of the line is left then, or it is closed by
                the next one.
        """
        with self._lock, told():
            now = datetime.fromtimestamp(self._clock(), timezone.utc)
            moment = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            line = json.dumps({"time": moment, "event": event, **facts}, allow_nan=False)
            self._open(f"audit-{now:%Y-%m}.jsonl")
            self._append(line.encode("ascii") + b"\n")

    def expire(self) -> int:
        """Remove the months that ended longer ago than is to be kept; returns how many.

        Nothing is removed on the word of a clock that has jumped, or that this process has not known for a day.

        Raises:
            OutputError: One can't be removed.
        """
        with self._lock, told():
            if not self._is_steady():
                return 0
            before = self._clock() - self._keep_days * _DAY_S
            old = [
                path
                for path in self._folder.iterdir()
                if _is_over(path.name, before) and path.name != self._name
            ]
            for path in old:
                path.unlink(missing_ok=True)
        return len(old)

    def _is_steady(self) -> bool:
        now, ran = self._clock(), self._running()
        if abs((now - self._seen[0]) - (ran - self._seen[1])) > JUMP_S:
            self._steady_from = ran
        self._seen = (now, ran)
        return ran - self._steady_from >= STEADY_S

    def _open(self, name: str) -> None:
        """Have the month's file open, its last line closed."""
        if name == self._name:
            return
        self._close()
        path = self._folder / name
        fresh = not path.exists()
        self._descriptor = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        self._name = name
        if fresh:
            sync_folder(self._folder)
        size = os.fstat(self._descriptor).st_size
        self._whole = size == 0 or os.pread(self._descriptor, 1, size - 1) == b"\n"

    def _close(self) -> None:
        if self._name:
            os.close(self._descriptor)
            self._name = ""

    def _append(self, line: bytes) -> None:
        start, whole = os.fstat(self._descriptor).st_size, self._whole
        self._whole = False
        try:
            _write_all(self._descriptor, line if whole else b"\n" + line)
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, start)
            self._whole = whole
            raise
        self._whole = True


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        written = os.write(descriptor, data)
        if not written:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        data = data[written:]


def _read_key(path: Path) -> bytes:
    """The folder's key, which is made where there is none; readable for its owner alone."""
    if not path.exists():
        part = path.with_name(f".bedside-{secrets.token_hex(8)}.part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                _write_all(descriptor, secrets.token_bytes(_KEY_BYTES))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(path.parent)
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise OutputError(
            "output-not-writable",
            "the key of the audit log is damaged; bring back the one that was there, or remove it: then new marks "
            "can't be compared with those before",
        )
    return key


def _is_over(name: str, before: float) -> bool:
    """Whether a file's month ended before that time."""
    found = _MONTH.fullmatch(name)
    if found is None or not (1 <= int(found[2]) <= 12 and 1 <= int(found[1]) < 9999):
        return False
    years, month = divmod(int(found[1]) * 12 + int(found[2]), 12)
    return datetime(years, month + 1, 1, tzinfo=timezone.utc).timestamp() <= before
