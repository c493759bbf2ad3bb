"""Results by C-STORE: what is sent, what counts as taken, and what is told where a destination fails."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from bedside.errors import BedsideError, MissingExtraError, NodeError
from bedside.node.failures import StoppedError, UntakenError
from bedside.node.network import Destination
from bedside.node.store import send_by_store
from bedside.results.dicom.identity import KINDS
from dicom_files import write_dataset
from made_peers import (
    CANARY,
    HOST,
    RawPeer,
    StorePeer,
    accept_association,
    data_set,
    free_port,
    make_objects,
    read_pdu,
    refusal,
    silent,
    uids,
    unnamed,
)

pytest.importorskip("pynetdicom", reason="needs the node extra")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_objects(tmp_path_factory.mktemp(CANARY))


@pytest.fixture(autouse=True)
def discreet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with unnamed(caplog):
        yield


def refuse(kind: type[BedsideError], files: list[Path], destination: Destination) -> str:
    return refusal(kind, lambda: send_by_store(files, destination, calling="BEDSIDE"))


def test_objects_arrive_as_they_are_in_the_order_given(objects: list[Path]) -> None:
    with StorePeer() as peer:
        send_by_store(objects, peer.destination(), calling="BEDSIDE")
    assert peer.received == [(uid, data_set(path)) for uid, path in zip(uids(objects), objects, strict=True)]
    assert peer.associations == ["released"]


@pytest.mark.parametrize("pdu_bytes", [4096, 4097, 1 << 20, 0], ids=["small", "odd", "large", "any"])
def test_objects_are_cut_as_the_peer_asks(pdu_bytes: int, objects: list[Path]) -> None:
    with StorePeer(pdu_bytes=pdu_bytes) as peer:
        send_by_store(objects, peer.destination(), calling="BEDSIDE")
    assert [content for _, content in peer.received] == [data_set(path) for path in objects]


def test_each_object_keeps_its_transfer_syntax(objects: list[Path], tmp_path: Path) -> None:
    mixed = [objects[0], *(tmp_path / name for name in ("implicit", "big"))]
    for path, syntax in zip(mixed[1:], (ImplicitVRLittleEndian, ExplicitVRBigEndian), strict=True):
        dataset = pydicom.dcmread(objects[2])
        dataset.remove_private_tags()
        write_dataset(path, pydicom.Dataset(dataset), syntax)
    with StorePeer(syntaxes=(ImplicitVRLittleEndian, ExplicitVRBigEndian, "1.2.840.10008.1.2.1")) as peer:
        send_by_store(mixed, peer.destination(), calling="BEDSIDE")
    assert [content for _, content in peer.received] == [data_set(path) for path in mixed]


def test_nothing_to_send_needs_no_destination() -> None:
    with free_port() as port:
        send_by_store([], Destination(ae_title="NOBODY", host=HOST, port=port), calling="BEDSIDE")


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007, 0x0111], ids=hex)
def test_a_warning_and_what_is_there_already_are_success(status: int, objects: list[Path]) -> None:
    with StorePeer(statuses=[0, status]) as peer:
        send_by_store(objects, peer.destination(), calling="BEDSIDE")
    assert peer.received[-1][0] == uids(objects)[-1]


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (0xA700, NodeError, "out of resources"),
        (0xA701, NodeError, "out of resources"),
        (0xA900, UntakenError, "does not match SOP class"),
        (0xC123, UntakenError, "cannot understand"),
        (0x0122, UntakenError, "not supported"),
        (0x0124, UntakenError, "not authorised"),
        (0xFF00, UntakenError, "failure"),
    ],
    ids=lambda value: hex(value) if isinstance(value, int) else None,
)
def test_any_other_status_is_told(
    status: int, kind: type[NodeError], words: str, objects: list[Path]
) -> None:
    with StorePeer(statuses=[0, status]) as peer:
        told = refuse(kind, objects, peer.destination())
    assert f"0x{status:04X}" in told
    assert words in told
    assert [uid for uid, _ in peer.received] == uids(objects)[:1]  # after a failure nothing more is sent


def test_a_class_that_the_peer_does_not_take_is_named(objects: list[Path]) -> None:
    with StorePeer(classes=[KINDS["heatmap"].sop_class_uid]) as peer:
        told = refuse(UntakenError, objects, peer.destination())
    assert "takes no Parametric Map Storage in Explicit VR Little Endian" in told


def test_a_transfer_syntax_that_the_peer_does_not_take_is_named(objects: list[Path]) -> None:
    with StorePeer(syntaxes=[ImplicitVRLittleEndian]) as peer:
        told = refuse(UntakenError, objects, peer.destination())
    assert "in Explicit VR Little Endian" in told


def test_a_rejected_association_says_why(objects: list[Path]) -> None:
    with StorePeer(title="ANOTHER") as peer:
        told = refuse(NodeError, objects, peer.destination())
    assert "rejects associations for good, says the application: its own AE title is another" in told


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ((1, 1, 3), "it does not know our AE title"),
        ((2, 3, 2), "for now, says the presentation service: it has too many associations"),
        ((2, 2, 9), "for now, says ACSE: reason 9"),
        ((7, 8, 9), "(result 7), says source 8: reason 9"),
    ],
)
def test_each_reason_of_a_rejection_has_words(
    said: tuple[int, int, int], words: str, objects: list[Path]
) -> None:
    def reject(connection: socket.socket) -> None:
        read_pdu(connection)
        connection.sendall(struct.pack(">BxIxBBB", 3, 4, *said))

    with RawPeer(reject) as peer:
        assert words in refuse(NodeError, objects, peer.destination())


def test_an_abort_in_the_middle_is_told_and_a_second_try_sends_the_same(objects: list[Path]) -> None:
    with StorePeer(abort_at=1) as peer:
        told = refuse(NodeError, objects, peer.destination())
        assert "aborted" in told or "closed" in told or "connection" in told
        send_by_store(objects, peer.destination(), calling="BEDSIDE")
    assert [uid for uid, _ in peer.received] == [uids(objects)[0], *uids(objects)]


def test_nobody_at_the_port_is_told(objects: list[Path]) -> None:
    with free_port() as port:
        destination = Destination(ae_title="NOBODY", host=HOST, port=port, timeout_s=2.0)
        assert "connection refused" in refuse(NodeError, objects, destination)


def test_a_host_without_address_is_told(objects: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    destination = Destination(ae_title="NOBODY", host="archive.test")
    assert "its name has no address" in refuse(NodeError, objects, destination)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (b"", "no DICOM file"),
        (bytes(200), "no DICOM file"),
        (bytes(128) + b"DICM", "no DICOM file"),
        ("head", "it has no data set"),
    ],
)
def test_a_file_that_is_no_object_is_told(
    content: bytes | str | None, words: str, objects: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / CANARY
    if content == "head":
        whole = objects[0].read_bytes()
        content = whole[: len(whole) - len(data_set(objects[0]))]
    if isinstance(content, bytes):
        path.write_bytes(content)
    with free_port() as port:
        destination = Destination(ae_title="NOBODY", host=HOST, port=port)
        assert words in refuse(UntakenError, [objects[0], path], destination)


def test_a_file_that_becomes_shorter_meanwhile_is_told(tmp_path: Path) -> None:
    (path,) = make_objects(tmp_path, ["heatmap"])

    def script(connection: socket.socket) -> None:
        with path.open("rb+") as stream:
            stream.truncate(2000)
        accept_association(connection)
        silent(connection)

    with RawPeer(script) as peer:
        assert "it became shorter" in refuse(UntakenError, [path], peer.destination())


def test_it_stops_between_objects_when_asked_to(objects: list[Path]) -> None:
    with StorePeer() as peer, pytest.raises(StoppedError):
        send_by_store(objects, peer.destination(), calling="BEDSIDE", stopped=lambda: len(peer.received) == 2)
    assert [uid for uid, _ in peer.received] == uids(objects)[:2]
    assert peer.associations == ["released"]


def test_the_destination_may_know_us_by_another_title(objects: list[Path]) -> None:
    asked = []

    def script(connection: socket.socket) -> None:
        asked.append(read_pdu(connection)[1][26:42].decode().strip())

    with RawPeer(script) as peer:
        refuse(NodeError, objects, peer.destination())
        refuse(NodeError, objects, peer.destination(calling_ae_title="NODE 7"))
    assert asked == ["BEDSIDE", "NODE 7"]


def test_a_missing_package_names_the_extra(objects: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynetdicom.pdu", None)
    with pytest.raises(MissingExtraError, match=r"bedside\[node\]"):
        send_by_store(objects, Destination(ae_title="NOBODY", host=HOST), calling="BEDSIDE")
