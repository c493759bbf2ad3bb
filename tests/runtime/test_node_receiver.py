"""The Storage SCP, on the loopback: who gets in, what is kept, and what a broken sender leaves behind."""

from __future__ import annotations

import gc
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from bedside.dicom.pixels import PROCESSES, RLE
from bedside.errors import InputError, NodeError
from bedside.node import syntaxes
from bedside.node.config import Completion as Choice
from bedside.node.network import Limits, Peer, Tls
from bedside.node.network import Receiver as ReceiverChoice
from bedside.node.syntaxes import list_syntaxes
from made_node import Parts, make_parts, write_picture, write_slice
from made_peers import Certificates, make_certificates

pynetdicom = pytest.importorskip("pynetdicom", reason="needs the extra node")

from bedside.node.receiver import Receiver  # noqa: E402 - once it is known to be there

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:unclosed:ResourceWarning"
    ),  # buffers that pynetdicom leaves to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("collected"),
]
CR = "1.2.840.10008.5.1.4.1.1.1"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
PATIENCE_S = 20.0
QUICK = Limits(request_s=2.0, idle_s=2.0)


@pytest.fixture(scope="module")
def collected() -> Iterator[None]:
    """Collect here what pynetdicom's requestor leaves open, and not in the tests of somebody else."""
    yield
    gc.collect()


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
        told = ReceiverChoice(port=find_port(), allow=(Peer("SCU", "127.0.0.0/8"),), tls=tls, limits=limits)
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


def find_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


@contextmanager
def associated(
    receiver: Receiver, *, calling: str = "SCU", called: str = "BEDSIDE", tls: Any = None
) -> Iterator[Any]:
    entity = pynetdicom.AE(calling)
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


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


def rejection(association: Any) -> tuple[int, int, int]:
    assert association.is_rejected
    told = association.acceptor.primitive
    return told.result, told.result_source, told.diagnostic


def outcomes(parts: Parts) -> list[str]:
    return [event["outcome"] for event in parts.events() if event["event"] == "association"]


class TestWelcome:
    def test_echo_is_answered(self, tmp_path: Path) -> None:
        with listening(tmp_path) as (_, receiver), associated(receiver) as association:
            assert association.send_c_echo().Status == 0

    def test_object_is_in_the_queue_when_its_sender_is_told_success(self, tmp_path: Path) -> None:
        path = write_picture(tmp_path / "x.dcm")
        with listening(tmp_path) as (parts, receiver):
            assert store(receiver, path) == [0]
            assert parts.states() == ["ready"]
            (name,) = parts.stored()
            assert pydicom.dcmread(parts.spool.root / name).PixelData == pydicom.dcmread(path).PixelData
            until(lambda: "released" in outcomes(parts))
            assert not list(parts.spool.incoming.iterdir())
            assert outcomes(parts) == ["accepted", "released"]

    def test_rules_see_the_titles(self, tmp_path: Path) -> None:
        with listening(tmp_path) as (parts, receiver):
            store(receiver, write_picture(tmp_path / "x.dcm"))
            (event,) = [each for each in parts.events() if each["event"] == "received"]
            assert event["calling_ae"] == "SCU"

    def test_slices_of_two_associations_are_one_series(self, tmp_path: Path) -> None:
        with listening(tmp_path, choice=Choice(association_end=True)) as (parts, receiver):
            store(receiver, write_slice(tmp_path / "x.dcm", 1))
            until(lambda: parts.states() == ["ready"])
            store(receiver, write_slice(tmp_path / "x.dcm", 2))
            until(lambda: parts.states() == ["ready"])
            (study,) = parts.studies()
            assert study.instances == 2

    def test_every_transfer_syntax_that_can_be_decoded_is_accepted(self, tmp_path: Path) -> None:
        read = {
            *PROCESSES,
            RLE,
            EXPLICIT,
            "1.2.840.10008.1.2",
            "1.2.840.10008.1.2.1.99",
            "1.2.840.10008.1.2.2",
        }
        assert set(list_syntaxes()) == read
        with listening(tmp_path) as (_, receiver):
            for uid in read:
                entity = pynetdicom.AE("SCU")
                entity.add_requested_context(DX, [uid])
                association = entity.associate("127.0.0.1", receiver.port, ae_title="BEDSIDE")
                assert [str(each.transfer_syntax[0]) for each in association.accepted_contexts] == [uid]
                association.release()

    def test_what_needs_an_extra_is_not_accepted_without_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(syntaxes, "is_available", lambda: False)
        assert EXPLICIT in list_syntaxes()
        assert "1.2.840.10008.1.2.4.70" not in list_syntaxes()  # JPEG Lossless


class TestRefusal:
    @pytest.mark.parametrize(
        ("calling", "called", "told"),
        [("OTHER", "BEDSIDE", (1, 1, 3)), ("SCU", "OTHER", (1, 1, 7))],
        ids=["calling", "called"],
    )
    def test_strange_titles_are_rejected(
        self, tmp_path: Path, calling: str, called: str, told: tuple[int, int, int]
    ) -> None:
        with (
            listening(tmp_path) as (parts, receiver),
            associated(receiver, calling=calling, called=called) as association,
        ):
            assert rejection(association) == told
            assert outcomes(parts) == ["calling-title" if calling == "OTHER" else "called-title"]

    def test_nearly_full_disk_rejects_for_now_and_service_resumes(self, tmp_path: Path) -> None:
        with listening(tmp_path, free_mib=1e12) as (parts, receiver):
            with associated(receiver) as association:
                assert rejection(association) == (2, 3, 2)
            assert any("nearly full" in problem for problem in receiver.problems())
            receiver._free_mib = 0.0
            assert receiver.problems() == []
            assert store(receiver, write_picture(tmp_path / "x.dcm")) == [0]
            assert parts.states() == ["ready"]

    def test_too_many_associations_are_rejected_for_now(self, tmp_path: Path) -> None:
        limits = replace(QUICK, associations=1)
        with listening(tmp_path, limits=limits) as (_, receiver), associated(receiver) as first:
            assert first.is_established
            with associated(receiver) as second:
                assert rejection(second) == (2, 3, 2)

    @pytest.mark.parametrize(("drop", "status"), [(False, 0x0124), (True, 0)])
    def test_object_that_no_rule_takes(self, tmp_path: Path, drop: bool, status: int) -> None:
        with listening(tmp_path, drop=drop) as (parts, receiver):
            assert store(receiver, write_picture(tmp_path / "x.dcm", Modality="MG")) == [status]
            assert (parts.states(), parts.stored()) == ([], set())

    def test_other_pixels_under_a_known_uid(self, tmp_path: Path) -> None:
        with listening(tmp_path) as (parts, receiver):
            first = write_picture(tmp_path / "x.dcm")
            other = write_picture(tmp_path / "y.dcm", pixels=np.ones((72, 80), np.uint16))
            assert store(receiver, first, first, other) == [0, 0, 0x0111]
            assert len(parts.stored()) == 1

    def test_port_in_use_is_told(self, tmp_path: Path) -> None:
        with (
            listening(tmp_path / "a") as (_, receiver),
            make_parts(tmp_path / "b") as parts,
        ):
            second = Receiver(
                ReceiverChoice(port=receiver.port),
                parts.spool,
                parts.intake,
                parts.completion,
                parts.chronicle,
                free_mib=0.0,
            )
            with pytest.raises(NodeError, match=rf"port {receiver.port} can't be listened on"):
                second.start()

    def test_end_of_the_node_rejects_for_now_and_aborts_what_is_left(self, tmp_path: Path) -> None:
        with listening(tmp_path) as (_, receiver), associated(receiver) as first:
            receiver.refuse()
            with associated(receiver) as second:
                assert rejection(second) == (2, 3, 1)
            receiver.stop(0.0)
            until(lambda: first.is_aborted)


def request(calling: bytes = b"SCU") -> bytes:
    """An A-ASSOCIATE-RQ PDU for CR images (PS3.8, 9.3.2)."""

    def item(kind: int, data: bytes) -> bytes:
        return struct.pack(">BxH", kind, len(data)) + data

    context = b"\x01\0\0\0" + item(0x30, CR.encode()) + item(0x40, EXPLICIT.encode())
    user = item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3")
    variable = item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, context) + item(0x50, user)
    fixed = struct.pack(">HH", 1, 0) + b"BEDSIDE".ljust(16) + calling.ljust(16) + bytes(32)
    return struct.pack(">BxI", 1, len(fixed + variable)) + fixed + variable


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


@pytest.fixture
def raw() -> Iterator[Callable[[Receiver], socket.socket]]:
    """Bare TCP connections, closed at the end."""
    opened: list[socket.socket] = []

    def connect(receiver: Receiver) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", receiver.port), PATIENCE_S)
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.close()


Connect = Callable[[Receiver], socket.socket]


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


def _full(_: int) -> None:
    raise OSError(28, "No space left on device")


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


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


class TestTls:
    def test_objects_come_over_tls(self, tmp_path: Path, certificates: Certificates) -> None:
        from bedside.node.certificates import make_context

        with listening(tmp_path, tls=certificates.server) as (parts, receiver):
            context = make_context(certificates.client, server=False)
            with associated(receiver, tls=(context, "localhost")) as association:
                path = write_picture(tmp_path / "x.dcm", pixels=np.zeros((600, 600), np.uint16))
                assert association.send_c_store(pydicom.dcmread(path)).Status == 0
            assert parts.states() == ["ready"]

    def test_stranger_without_a_certificate_stays_out(
        self, tmp_path: Path, certificates: Certificates
    ) -> None:
        with listening(tmp_path, tls=certificates.server) as (_, receiver):
            context = ssl.create_default_context(cafile=certificates.client.authority)
            with associated(receiver, tls=(context, "localhost")) as association:
                assert not association.is_established
            with associated(receiver) as association:  # no TLS at all
                assert not association.is_established
            until(lambda: receiver.connections == 0)

    def test_handshake_that_does_not_come_holds_up_nobody(
        self, tmp_path: Path, certificates: Certificates, raw: Connect
    ) -> None:
        from bedside.node.certificates import make_context

        with listening(tmp_path, tls=certificates.server) as (_, receiver):
            silent = raw(receiver)
            with associated(
                receiver, tls=(make_context(certificates.client, server=False), "localhost")
            ) as association:
                assert association.send_c_echo().Status == 0
            assert ends(silent)

    def test_unusable_certificate_is_told(self, tmp_path: Path, certificates: Certificates) -> None:
        with (
            pytest.raises(InputError, match="key"),
            listening(tmp_path, tls=replace(certificates.server, key=str(tmp_path / "none.pem"))),
        ):
            pass
