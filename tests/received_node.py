"""A receiver on the loopback, and senders to try it with, right and wrong alike."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest

from bedside.node.config import Completion as Choice
from bedside.node.network import Limits, Peer, Tls
from bedside.node.network import Receiver as ReceiverChoice
from bedside.node.receiver import Receiver
from made_node import Parts, make_parts
from served_node import find_ports

CR = "1.2.840.10008.5.1.4.1.1.1"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
PATIENCE_S = 20.0
QUICK = Limits(request_s=2.0, idle_s=2.0)
LEAVES_BUFFERS = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("collected"),
]
"""Of tests with pynetdicom's requestor: it leaves buffers and sockets to the collector."""
Connect = Callable[[Receiver], socket.socket]


@contextmanager
def listening(
    folder: Path,
    *,
    limits: Limits = QUICK,
    tls: Tls | None = None,
    choice: Choice | None = None,
    free_mib: float = 0.0,
    drop: bool = False,
) -> Iterator[tuple[Parts, Receiver]]:
    with make_parts(folder, choice) as parts:
        told = ReceiverChoice(
            port=find_ports(1)[0], allow=(Peer("SCU", "127.0.0.0/8"),), tls=tls, limits=limits
        )
        receiver = Receiver(
            told,
            parts.spool,
            parts.intake,
            parts.completion,
            parts.chronicle,
            free_mib=free_mib,
            drop_unmatched=drop,
        )
        receiver.start()
        try:
            yield parts, receiver
        finally:
            receiver.stop(0.0)


@contextmanager
def associated(
    receiver: Receiver, *, calling: str = "SCU", called: str = "BEDSIDE", tls: Any = None
) -> Iterator[Any]:
    entity = pytest.importorskip("pynetdicom", reason="needs the extra node").AE(calling)
    for uid in (CR, DX, CT, "1.2.840.10008.1.1"):
        entity.add_requested_context(uid, [EXPLICIT])
    association = entity.associate("127.0.0.1", receiver.port, ae_title=called, tls_args=tls)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def store(receiver: Receiver, *paths: Path) -> list[int]:
    """Send files in one association; returns their statuses."""
    with associated(receiver) as association:
        assert association.is_established
        return [association.send_c_store(pydicom.dcmread(path)).Status for path in paths]


def rejection(association: Any) -> tuple[int, int, int]:
    assert association.is_rejected
    told = association.acceptor.primitive
    return told.result, told.result_source, told.diagnostic


def outcomes(parts: Parts) -> list[str]:
    return [event["outcome"] for event in parts.events() if event["event"] == "association"]


@contextmanager
def connecting() -> Iterator[Connect]:
    """Bare TCP connections, closed at the end."""
    opened: list[socket.socket] = []

    def connect(receiver: Receiver) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", receiver.port), PATIENCE_S)
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.close()


def ends(connection: socket.socket) -> bool:
    """Whether the other side ends a connection, with whatever it says before."""
    connection.settimeout(PATIENCE_S)
    try:
        while connection.recv(4096):
            pass
    except (ConnectionResetError, ssl.SSLError):
        return True
    except TimeoutError:
        return False
    return True
