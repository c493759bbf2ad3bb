"""An association that we ask for, to send objects one after the other. Not for clinical use.

PDUs and commands are pynetdicom's; its own requestor is not used, because it puts a whole object into its queue at
once, counts the time for an answer from then on, however slow the network is, waits for ever for a peer that no longer
reads, and keeps to itself why a connection failed. Here one thread writes and reads, each step has its time, and of a
file no more than a PDU is in memory.
"""

# ruff: noqa: PLC0415 - pynetdicom is an extra, and slow to import

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Final

from pydicom.uid import UID

from bedside.errors import MissingExtraError, NodeError
from bedside.node import pdus
from bedside.node.certificates import make_context
from bedside.node.failures import StoppedError, UntakenError, describe
from bedside.node.network import Destination
from bedside.node.parcels import Parcel, read_pieces

__all__ = ["Association"]

_BUFFER: Final = 1 << 18
"""Bytes that the system holds for sending: the time for an answer begins when no more than that is on its way."""
_LEAVE_S: Final = 2.0
"""For a farewell, when all is said."""


class Association:
    """An association with a destination, open in its ``with`` block.

    Args:
        destination: With ``host`` and ``ae_title``.
        contexts: SOP Class and Transfer Syntax UID of what is going to be sent, each pair once.
        calling: Our AE title, where the destination has no other for us.

    Raises:
        NodeError: ``not-delivered``: it can't be reached, or rejects the association.
        InputError: ``bad-config``: its certificates can't be used.
        MissingExtraError: pynetdicom is not installed.
    """

    def __init__(self, destination: Destination, contexts: Sequence[pdus.Context], *, calling: str) -> None:
        if destination.host is None or destination.ae_title is None:
            raise ValueError("the destination has no host and ae_title")
        try:
            import pynetdicom.pdu  # noqa: F401 - whether it is there
        except ImportError as error:
            raise MissingExtraError.of("pynetdicom", "node", "sending results by C-STORE") from error
        self._timeout = destination.timeout_s
        self._socket = _connect(destination, destination.host)
        try:
            called, calling = destination.ae_title, destination.calling_ae_title or calling
            with _told("while it was asked for an association"):
                self._write(pdus.encode_request(contexts, called=called, calling=calling))
                kind, content = self._receive(self._deadline())
            self._accepted = pdus.decode_acceptance(kind, content, contexts)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Association:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release it, or abort it after an error. All that counts was answered, so that this can't fail."""
        self._timeout = min(self._timeout, _LEAVE_S)
        with suppress(OSError, NodeError):
            if kind is None or issubclass(kind, StoppedError):
                self._write(pdus.RELEASE)
                self._receive(self._deadline())
            else:
                self._write(pdus.ABORT)
        self._socket.close()

    def store(self, parcel: Parcel, number: int) -> int:
        """Send one object by C-STORE, as it is on the disk.

        Args:
            parcel: The object.
            number: Message ID: 1, 2, 3, ...

        Returns:
            Status of the answer (PS3.4, B.2.3).

        Raises:
            UntakenError: ``not-delivered``: there is no presentation context for it, or its file can't be read.
            NodeError: ``not-delivered``: an abort, the end of the connection, or no answer in time.
        """
        name = UID(parcel.sop_class).name
        context = self._accepted.contexts.get((parcel.sop_class, parcel.syntax))
        if context is None:
            raise UntakenError(
                "not-delivered",
                f"the destination takes no {name} in {UID(parcel.syntax).name}; allow that there, or send these "
                "results elsewhere",
            )
        command, room = pdus.encode_command(parcel, number), self._accepted.room
        pieces = (command[start : start + room] for start in range(0, len(command), room))
        with _told(f"while a {name} was sent"):
            self._send(pieces, len(command), context, command=True)
            length = parcel.size - parcel.offset
            self._send(read_pieces(parcel, parcel.offset, room), length, context, command=False)
            return self._answer(number)

    def _send(self, pieces: Iterable[bytes], length: int, context: int, *, command: bool) -> None:
        left = length
        for piece in pieces:
            left -= len(piece)
            self._write(pdus.encode_fragment(piece, context, command=command, last=left == 0))

    def _answer(self, number: int) -> int:
        """Wait for the response to message ``number``; returns its status."""
        command, until = b"", self._deadline()
        while True:
            for piece, last in pdus.read_fragments(*self._receive(until)):
                command += piece
                if len(command) > pdus.LARGEST:
                    raise pdus.broken("it answered with something that is no response")
                if last:
                    response = pdus.decode_response(command)
                    if response.number != number:
                        raise pdus.broken("it answered something else than was asked")
                    return response.status

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout

    def _write(self, content: bytes) -> None:
        self._socket.settimeout(self._timeout)
        self._socket.sendall(content)

    def _receive(self, until: float) -> tuple[int, bytes]:
        """The next PDU, with its head: type and bytes."""
        head = self._read(pdus.HEAD.size, until)
        kind, length = pdus.HEAD.unpack(head)
        if length > pdus.LARGEST:
            raise pdus.broken(f"it answered with a PDU of {length} bytes")
        return kind, head + self._read(length, until)

    def _read(self, size: int, until: float) -> bytes:
        content = b""
        while len(content) < size:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            more = self._socket.recv(size - len(content))
            if not more:
                raise ConnectionResetError
            content += more
        return content


def _connect(destination: Destination, host: str) -> socket.socket:
    context = make_context(destination.tls, server=False) if destination.tls is not None else None
    with _told("before it could be asked for an association"):
        plain = socket.create_connection((host, destination.port), destination.timeout_s)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        if context is None:
            return plain
        try:
            return context.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Turn an error of the connection into one that says what to do."""
    try:
        yield
    except OSError as error:
        raise NodeError("not-delivered", f"the destination failed {where}: {describe(error)}") from error
