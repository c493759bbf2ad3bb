"""What broken, slow and hostile senders can do to a receiver: nothing."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pydicom
import pytest

from bedside.node.network import Limits
from made_node import until, write_picture
from received_node import (
    CR,
    DX,
    EXPLICIT,
    LEAVES_BUFFERS,
    PATIENCE_S,
    QUICK,
    Connect,
    associated,
    connecting,
    ends,
    listening,
    outcomes,
    store,
)

pytest.importorskip("pynetdicom", reason="needs the extra node")

pytestmark = LEAVES_BUFFERS


@pytest.fixture
def raw() -> Iterator[Connect]:
    with connecting() as connect:
        yield connect


def request(calling: bytes = b"SCU") -> bytes:
    """An A-ASSOCIATE-RQ PDU for CR images (PS3.8, 9.3.2)."""

    def item(kind: int, data: bytes) -> bytes:
        return struct.pack(">BxH", kind, len(data)) + data

    context = b"\x01\0\0\0" + item(0x30, CR.encode()) + item(0x40, EXPLICIT.encode())
    user = item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3")
    variable = item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, context) + item(0x50, user)
    fixed = struct.pack(">HH", 1, 0) + b"BEDSIDE".ljust(16) + calling.ljust(16) + bytes(32)
    return struct.pack(">BxI", 1, len(fixed + variable)) + fixed + variable


class TestBrokenSenders:
    @pytest.mark.parametrize(
        "data",
        [
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x01\0\0\0\0\x08abcdefgh",
            b"\x01\0\xff\xff\xff\xff" + bytes(100),
            b"\x04\0\xff\xff\xff\xff" + bytes(100),
            b"\x05\0\0\0\0\x04\0\0\0\0",
            b"\x07\0\0\0\0\x04\0\0\0\0",
            request()[:40],
        ],
        ids=[
            "http",
            "short request",
            "endless request",
            "data at once",
            "release at once",
            "abort",
            "half a request",
        ],
    )
    def test_malformed_association_ends_and_the_next_one_is_served(
        self, tmp_path: Path, raw: Connect, data: bytes
    ) -> None:
        with listening(tmp_path) as (parts, receiver):
            connection = raw(receiver)
            connection.sendall(data)
            assert ends(connection)
            assert store(receiver, write_picture(tmp_path / "x.dcm")) == [0]
            assert parts.states() == ["ready"]

    def test_silent_connections_do_not_keep_others_out_for_long(self, tmp_path: Path, raw: Connect) -> None:
        limits = Limits(connections=4, connections_per_address=4, request_s=0.5, idle_s=2.0)
        with listening(tmp_path, limits=limits) as (_, receiver):
            silent = [raw(receiver) for _ in range(8)]
            assert all(ends(connection) for connection in silent)
            until(lambda: receiver.connections == 0)
            assert store(receiver, write_picture(tmp_path / "x.dcm")) == [0]

    def test_slow_peer_is_ended(self, tmp_path: Path, raw: Connect) -> None:
        with listening(tmp_path, limits=replace(QUICK, idle_s=0.5)) as (_, receiver):
            connection = raw(receiver)
            connection.sendall(request())
            assert connection.recv(1) == b"\x02"  # accepted
            begun = time.monotonic()
            letters = iter(struct.pack(">BxI", 4, 1000) + bytes(1000))
            with suppress(ConnectionResetError, BrokenPipeError):
                for letter in letters:
                    connection.sendall(bytes([letter]))
                    time.sleep(0.02)
                    assert time.monotonic() - begun < PATIENCE_S
            assert list(letters), "it took all of it"
            until(lambda: receiver.visits == 0)

    def test_half_an_object_leaves_nothing(self, tmp_path: Path) -> None:
        with listening(tmp_path) as (parts, receiver), associated(receiver) as association:
            send_half(association, tmp_path)
            until(lambda: list(parts.spool.incoming.iterdir()))
            association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
            until(lambda: not list(parts.spool.incoming.iterdir()))
            until(lambda: receiver.visits == 0)
            assert (parts.states(), parts.stored()) == ([], set())
            assert outcomes(parts)[0] == "accepted"

    def test_object_over_the_limit_is_broken_off_and_leaves_nothing(self, tmp_path: Path) -> None:
        path = write_picture(tmp_path / "x.dcm", pixels=np.zeros((1024, 1024), np.uint16))
        with (
            listening(tmp_path, limits=replace(QUICK, object_mib=0.5)) as (parts, receiver),
            associated(receiver) as association,
        ):
            assert not association.send_c_store(pydicom.dcmread(path))
            until(lambda: receiver.visits == 0)
            until(lambda: not list(parts.spool.incoming.iterdir()))
            assert "object-too-large" in outcomes(parts)
            assert (parts.states(), parts.stored()) == ([], set())

    def test_disk_that_fills_while_an_object_comes_breaks_it_off(self, tmp_path: Path) -> None:
        with listening(tmp_path) as (parts, receiver), associated(receiver) as association:
            receiver._free_mib = 1e12
            path = write_picture(tmp_path / "x.dcm", pixels=np.zeros((2048, 2048), np.uint16))
            assert not association.send_c_store(pydicom.dcmread(path))
            until(lambda: not list(parts.spool.incoming.iterdir()))
            assert "no-space" in outcomes(parts)

    def test_disk_that_is_full_when_an_object_is_kept_is_told_to_its_sender(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with listening(tmp_path) as (parts, receiver):
            with monkeypatch.context() as patch:
                patch.setattr("bedside.node.spool.os.fsync", _full)
                assert store(receiver, write_picture(tmp_path / "x.dcm")) == [0xA700]
            assert (parts.states(), parts.stored()) == ([], set())
            assert store(receiver, write_picture(tmp_path / "x.dcm")) == [0]


def _full(_: int) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def send_half(association: Any, folder: Path) -> None:
    """Send a C-STORE request with the beginning of its data set."""
    from pynetdicom.dimse_messages import C_STORE_RQ
    from pynetdicom.dimse_primitives import C_STORE

    primitive = C_STORE()
    primitive.MessageID = 1
    primitive.AffectedSOPClassUID = DX
    primitive.AffectedSOPInstanceUID = "1.2.1.1.1"
    primitive.Priority = 2
    primitive.DataSet = BytesIO(write_picture(folder / "half.dcm").read_bytes()[400:])
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    context = next(each for each in association.accepted_contexts if each.abstract_syntax == DX)
    for number, data in enumerate(message.encode_msg(context.context_id, 2000)):
        if number == 3:
            break
        association.dul.send_pdu(data)
