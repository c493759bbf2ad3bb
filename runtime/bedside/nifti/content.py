"""The bytes of a file in order, plain or unpacked from gzip, with every failure told by its code."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import Final, Protocol

from bedside.errors import InputError
from bedside.nifti.header import HEADER_BYTES

__all__ = [
    "GZIP",
    "PART_BYTES",
    "Inflated",
    "Plain",
    "Source",
    "ends_early",
    "parts",
    "read_head",
    "unreadable",
]

GZIP: Final = b"\x1f\x8b"
"""How a gzip file begins (RFC 1952)."""
PART_BYTES: Final = 1 << 18
"""Bytes read at a time, and made of packed ones."""
_ANY_WRAPPER: Final = 31
"""zlib's ``wbits`` for a gzip member, whose checksum it verifies."""


class Source(Protocol):
    """What gives bytes in order."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""
        ...


class Plain:
    """The content of a file, from its descriptor, which stays open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._at = 0

    def rewind(self) -> None:
        """Begin again."""
        self._at = 0

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end.

        Raises:
            InputError: ``not-readable``.
        """
        try:
            data = os.pread(self._descriptor, size, self._at)
        except OSError as error:
            raise unreadable() from error
        self._at += len(data)
        return data


class Inflated:
    """The content of a gzip file, of one member or several."""

    def __init__(self, stream: Source) -> None:
        self._stream = stream
        self._engine = zlib.decompressobj(_ANY_WRAPPER)
        self._pending = b""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end.

        Raises:
            InputError: ``broken-nifti`` if it is cut short, or its checksum is another.
        """
        while True:
            if self._engine.eof:
                self._pending = self._engine.unused_data
                if len(self._pending) < len(GZIP):
                    self._pending += self._stream.read(PART_BYTES)
                if not self._pending.startswith(GZIP):  # the end; padding may follow, as gzip(1) allows
                    self._pending = b""
                    return b""
                self._engine = zlib.decompressobj(_ANY_WRAPPER)
            given = self._pending or self._stream.read(PART_BYTES)
            try:
                data = self._engine.decompress(given, size)
            except zlib.error as error:
                raise InputError(
                    "broken-nifti", "the file's compression is damaged; copy or convert it again"
                ) from error
            self._pending = self._engine.unconsumed_tail
            if data:
                return data
            if not given and not self._engine.eof:
                raise ends_early()


def read_head(source: Source) -> bytes:
    """`HEADER_BYTES`, or fewer where the source ends."""
    head = b""
    while len(head) < HEADER_BYTES and (part := source.read(HEADER_BYTES - len(head))):
        head += part
    return head


def parts(source: Source, size: int) -> Iterator[bytes]:
    """The next ``size`` bytes, in parts.

    Raises:
        InputError: ``broken-nifti``: there are fewer.
    """
    while size:
        part = source.read(min(size, PART_BYTES))
        if not part:
            raise ends_early()
        size -= len(part)
        yield part


def unreadable() -> InputError:
    """The error for a file that can't be read on."""
    return InputError("not-readable", "the file can't be read any more; check the disk and the connection")


def ends_early() -> InputError:
    """The error for a file that is cut short."""
    return InputError("broken-nifti", "the file ends before its last voxel; copy or convert it again")
