"""An association that we ask for: what a peer may say, how long it may take, and how much of a file is in memory."""

from __future__ import annotations

import socket
import struct
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from bedside.errors import NodeError
from bedside.node import association
from bedside.node.network import Destination
from bedside.node.store import send_by_store
from made_peers import (
    BRIEF_S,
    RawPeer,
    accept_association,
    answer_http,
    data_set,
    make_large_object,
    make_objects,
    make_response,
    read_pdu,
    silent,
    skip_message,
)

pytest.importorskip("pynetdicom", reason="needs the node extra")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_objects(tmp_path_factory.mktemp("objects"))


def refuse(files: list[Path], destination: Destination) -> str:
    """Send where it fails; returns what is told."""
    with pytest.raises(NodeError) as caught:
        send_by_store(files, destination, calling="BEDSIDE")
    assert type(caught.value) is NodeError
    return str(caught.value)


def hang_up(connection: socket.socket) -> None:
    read_pdu(connection)


def answer_huge(connection: socket.socket) -> None:
    read_pdu(connection)
    connection.sendall(struct.pack(">BxI", 2, 0xFFFFFFFF))


def answer_nonsense(connection: socket.socket) -> None:
    read_pdu(connection)
    connection.sendall(struct.pack(">BxI", 2, 100) + bytes(range(100)))


def answer_release(connection: socket.socket) -> None:
    read_pdu(connection)
    connection.sendall(struct.pack(">BxI4x", 6, 4))


def abort_first(connection: socket.socket) -> None:
    read_pdu(connection)
    connection.sendall(struct.pack(">BxI4x", 7, 4))


def take_crumbs(connection: socket.socket) -> None:
    accept_association(connection, pdu_bytes=7)
    silent(connection)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (hang_up, "the connection was closed"),
        (answer_http, "PDU of"),
        (answer_huge, "PDU of 4294967295 bytes"),
        (answer_nonsense, "its answer is malformed"),
        (answer_release, "PDU of type 6"),
        (abort_first, "aborted the association before there was one"),
        (take_crumbs, "no more than a few bytes"),
    ],
)
def test_what_is_no_archive_is_told(
    script: Callable[[socket.socket], None], words: str, objects: list[Path]
) -> None:
    with RawPeer(script) as peer:
        assert words in refuse(objects, peer.destination())


def test_no_answer_to_the_request_is_told(objects: list[Path]) -> None:
    with RawPeer(silent) as peer:
        told = refuse(objects, peer.destination(timeout_s=BRIEF_S))
    assert "while it was asked for an association: no answer in time" in told


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (make_response(number=2), "something else than was asked"),
        (make_response(field_=0x8020), "something else than was asked"),
        (make_response()[:-10] + b"\xff" * 10, "malformed"),
        (make_response()[:11] + b"\0" + make_response()[12:], "no response"),
        (struct.pack(">BxIIBB", 4, 6, 2, 1, 3), "malformed"),
        (struct.pack(">BxII", 4, 4, 0xFFFFFF), "malformed"),
        (struct.pack(">BxI4x", 7, 4), "aborted the association"),
        (struct.pack(">BxI4x", 5, 4), "PDU of type 5"),
        (b"", "the connection was closed"),
    ],
)
def test_what_is_no_answer_is_told(response: bytes, words: str, objects: list[Path]) -> None:
    def script(connection: socket.socket) -> None:
        accept_association(connection)
        skip_message(connection)
        connection.sendall(response)

    with RawPeer(script) as peer:
        assert words in refuse(objects, peer.destination())


def test_an_answer_in_pieces_is_put_together(objects: list[Path]) -> None:
    def script(connection: socket.socket) -> None:
        accept_association(connection)
        skip_message(connection)
        for byte in make_response(fragments=5):
            connection.sendall(bytes([byte]))

    with RawPeer(script) as peer:
        send_by_store(objects[:1], peer.destination(), calling="BEDSIDE")


def test_an_association_that_is_not_released_was_still_answered(
    objects: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(association, "_LEAVE_S", BRIEF_S)

    def script(connection: socket.socket) -> None:
        accept_association(connection)
        skip_message(connection)
        connection.sendall(make_response())
        silent(connection)

    with RawPeer(script) as peer:
        send_by_store(objects[:1], peer.destination(), calling="BEDSIDE")


def test_no_answer_to_an_object_is_told(objects: list[Path]) -> None:
    def script(connection: socket.socket) -> None:
        accept_association(connection)
        silent(connection)

    with RawPeer(script) as peer:
        told = refuse(objects, peer.destination(timeout_s=BRIEF_S))
    assert "while a Secondary Capture Image Storage was sent: no answer in time" in told


def test_a_peer_that_no_longer_reads_is_told(tmp_path: Path) -> None:
    large = make_large_object(tmp_path / "large.dcm", 32)
    done = threading.Event()

    def script(connection: socket.socket) -> None:
        accept_association(connection)
        done.wait(30)

    with RawPeer(script) as peer:
        try:
            assert "no answer in time" in refuse([large], peer.destination(timeout_s=BRIEF_S))
        finally:
            done.set()


def test_a_large_object_is_never_whole_in_memory(tmp_path: Path) -> None:
    large = make_large_object(tmp_path / "large.dcm", 32)
    taken = []

    def script(connection: socket.socket) -> None:
        accept_association(connection, pdu_bytes=1 << 16)
        taken.append(skip_message(connection))
        connection.sendall(make_response())

    with RawPeer(script) as peer:
        tracemalloc.start()
        try:
            send_by_store([large], peer.destination(timeout_s=20.0), calling="BEDSIDE")
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert taken == [len(data_set(large))]
    assert most < 4 << 20


def test_a_slow_object_has_its_time_as_long_as_it_moves(tmp_path: Path) -> None:
    large = make_large_object(tmp_path / "large.dcm", 4)

    def script(connection: socket.socket) -> None:
        accept_association(connection, pdu_bytes=1 << 16)
        taken = 0
        while taken < len(data_set(large)):
            threading.Event().wait(0.03)
            _, content = read_pdu(connection)
            taken += 0 if content[11] & 1 else len(content) - 12
        connection.sendall(make_response())

    with RawPeer(script) as peer:  # 64 PDUs of 0.03 s each are more than the timeout
        send_by_store([large], peer.destination(timeout_s=1.5), calling="BEDSIDE")
