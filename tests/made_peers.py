"""Those whom a node talks to, made for tests: they take, refuse, break off or hang as they are told."""

from __future__ import annotations

import logging
import socket
import struct
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import pydicom
import pytest
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from bedside.errors import BedsideError
from bedside.node.certificates import make_context
from bedside.node.network import Destination, Tls
from bedside.results.dicom.identity import KINDS
from dicom_files import make_dataset, write_dataset

CANARY: Final = "Canary^Zwitscher"
"""Name of the patient in all objects, and part of their paths: nobody may ever be told."""
HOST: Final = "127.0.0.1"
TITLE: Final = "ARCHIVE"
BRIEF_S: Final = 0.3
"""For an answer of one that never answers."""


def make_objects(
    folder: Path, kinds: Sequence[str] = ("heatmap", "map", "report"), number: int = 1
) -> list[Path]:
    """Objects of a result, named as `ResultFolder` names them, in the order in which they are sent."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_make_object(folder / f"{CANARY}-{kind}.dcm", kind, number) for kind in kinds]


def make_large_object(path: Path, mib: int) -> Path:
    """A DICOM file of so many MiB."""
    dataset = make_dataset(
        1024, 512 * mib, SOPClassUID=KINDS["heatmap"].sop_class_uid, SOPInstanceUID="2.25.99"
    )
    dataset.PixelData = bytes(mib << 20)
    dataset["PixelData"].VR = "OW"
    return write_dataset(path, dataset)


def uids(paths: Sequence[Path]) -> list[str]:
    """Their SOP Instance UIDs."""
    return [str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID) for path in paths]


def data_set(path: Path) -> bytes:
    """What of the file goes over the network: all but the meta header."""
    content = path.read_bytes()
    (length,) = struct.unpack("<I", content[140:144])
    return content[144 + length :]


@contextmanager
def unnamed(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever is done meanwhile, no log says who the patient is."""
    with caplog.at_level(logging.DEBUG):
        yield
    assert CANARY not in caplog.text


def refusal(kind: type[BedsideError], send: Callable[[], object]) -> str:
    """What is told when something is not taken, after making sure that it is one line and names no patient."""
    with pytest.raises(kind) as caught:
        send()
    assert type(caught.value) is kind
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _make_object(path: Path, kind: str, number: int) -> Path:
    what = KINDS[kind]
    dataset = make_dataset(
        100,
        200,
        SOPClassUID=what.sop_class_uid,
        SOPInstanceUID=f"2.25.{number}{list(KINDS).index(kind)}",
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID=f"1.2.3.{number}",
        Modality=what.modality,
        PatientName=CANARY,
        PatientID=CANARY,
    )
    if kind == "report":
        for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
            del dataset[keyword]
    else:
        dataset.PixelData = bytes(number % 256 for _ in range(40_000))
        dataset["PixelData"].VR = "OW"
    return write_dataset(path, dataset)


# Certificates


@dataclass(frozen=True)
class Certificates:
    """Of one authority, but for the last."""

    server: Tls
    """Of 127.0.0.1 and localhost."""
    client: Tls
    stranger: Tls
    """A client with a certificate of another authority, that trusts ours."""
    elsewhere: Tls
    """A server with a certificate of another host."""


def make_certificates(folder: Path) -> Certificates:
    """Made anew, with trustme."""
    trustme = pytest.importorskip("trustme", reason="needs trustme of the extra test")
    ours, other = trustme.CA(), trustme.CA()
    folder.mkdir(parents=True, exist_ok=True)
    authority = folder / "authority.pem"
    ours.cert_pem.write_to_path(authority)

    def issue(name: str, issuer: Any, *hosts: str) -> Tls:
        made = issuer.issue_cert(*hosts)
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        made.private_key_pem.write_to_path(key)
        return Tls(str(certificate), str(key), str(authority))

    return Certificates(
        server=issue("server", ours, HOST, "localhost"),
        client=issue("client", ours, "node.test"),
        stranger=issue("stranger", other, "node.test"),
        elsewhere=issue("elsewhere", ours, "elsewhere.test"),
    )


# Those that take objects by C-STORE


@dataclass
class StorePeer:
    """A Storage SCP of pynetdicom, while it is entered."""

    statuses: list[int] = field(default_factory=list)
    """Of the next answers; success after that."""
    classes: Sequence[str] = tuple(kind.sop_class_uid for kind in KINDS.values())
    """SOP classes that it takes."""
    syntaxes: Sequence[str] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    """In these transfer syntaxes."""
    title: str = TITLE
    """Called otherwise, it rejects."""
    pdu_bytes: int = 16382
    """Longest PDU that it takes."""
    abort_at: int | None = None
    """Object, counted from 0, at which it aborts, once."""
    hold: threading.Event = field(default_factory=threading.Event)
    """Each answer waits for this, if `holds`."""
    holds: bool = False
    tls: Tls | None = None
    port: int = 0
    """Where it listens; any that is free if 0."""
    received: list[tuple[str, bytes]] = field(default_factory=list)
    """SOP Instance UID and data set of each object that it took."""
    associations: list[str] = field(default_factory=list)
    """How each ended."""
    keeps: bool = True
    """Whether it keeps data sets; else it keeps none of them."""
    classes_of: dict[str, str] = field(default_factory=dict)
    """SOP Instance UID -> SOP Class UID of what it took."""
    reached: threading.Event = field(default_factory=threading.Event)
    """Set when the first object is there."""

    def __enter__(self) -> StorePeer:
        pynetdicom = pytest.importorskip("pynetdicom", reason="needs the node extra")
        transport = pytest.importorskip("pynetdicom.transport", reason="needs the node extra")
        entity = pynetdicom.AE(self.title)
        entity.require_called_aet = True
        entity.maximum_pdu_size = self.pdu_bytes
        for sop_class in dict.fromkeys(self.classes):
            entity.add_supported_context(sop_class, list(self.syntaxes))
        events = pynetdicom.evt
        self._server = entity.make_server(
            (HOST, self.port),
            server_class=transport.ThreadedAssociationServer,
            ssl_context=make_context(self.tls, server=True) if self.tls is not None else None,
            evt_handlers=[
                (events.EVT_C_STORE, self._store),
                (events.EVT_RELEASED, lambda event: self.associations.append("released")),
                (events.EVT_ABORTED, lambda event: self.associations.append("aborted")),
            ],
        )
        entity._servers.append(
            self._server
        )  # as start_server does, whose thread looks for its end twice a second
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.port = self._server.socket.getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hold.set()
        self._server.shutdown()
        self._thread.join()

    def destination(self, **more: Any) -> Destination:
        given: dict[str, Any] = {
            "ae_title": TITLE,
            "host": HOST,
            "port": self.port,
            "timeout_s": 10.0,
            **more,
        }
        return Destination(**given)

    def _store(self, event: Any) -> int:
        self.reached.set()
        if self.holds:
            self.hold.wait(30)
        if self.abort_at is not None and len(self.received) >= self.abort_at:
            self.abort_at = None
            event.assoc.abort()
            return 0xC000
        status = self.statuses.pop(0) if self.statuses else 0
        if status == 0 or status >> 12 == 0xB:
            uid = str(event.request.AffectedSOPInstanceUID)
            self.received.append((uid, self._content(event) if self.keeps else b""))
            self.classes_of[uid] = str(event.request.AffectedSOPClassUID)
        return status

    def _content(self, event: Any) -> bytes:
        path = event.request._dataset_path  # where a node of this process has pynetdicom write to files
        content: bytes = event.request.DataSet.getvalue() if path is None else data_set(path)
        return content


class RawPeer:
    """Listens, and does with each connection what ``script`` says, in a thread of its own, while it is entered."""

    def __init__(self, script: Callable[[socket.socket], None], *, tls: Tls | None = None) -> None:
        self._script = script
        self._context = make_context(tls, server=True) if tls is not None else None
        self.done = threading.Event()
        """Set at the end: what hangs waits for it."""
        self.connections = 0

    def __enter__(self) -> RawPeer:
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.done.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def destination(self, **more: Any) -> Destination:
        given: dict[str, Any] = {
            "ae_title": TITLE,
            "host": HOST,
            "port": self.port,
            "timeout_s": 10.0,
            **more,
        }
        return Destination(**given)

    def url(self, **more: Any) -> Destination:
        return Destination(**{"url": f"http://{HOST}:{self.port}", "timeout_s": 10.0, **more})

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._threads.append(threading.Thread(target=self._talk, args=(connection,)))
            self._threads[-1].start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            try:
                if self._context is not None:
                    with self._context.wrap_socket(connection, server_side=True) as wrapped:
                        self._script(wrapped)
                else:
                    self._script(connection)
            except OSError:
                pass  # the other side went away


def accept_association(connection: socket.socket, *, pdu_bytes: int = 16384, result: int = 0) -> None:
    """Read an A-ASSOCIATE-RQ, and accept each of its presentation contexts; or none, with another ``result``."""
    from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
    from pynetdicom.pdu_primitives import A_ASSOCIATE

    _, content = read_pdu(connection)
    asked = A_ASSOCIATE_RQ()
    asked.decode(content)
    primitive = asked.to_primitive()
    answer = A_ASSOCIATE()
    answer.application_context_name = primitive.application_context_name
    answer.calling_ae_title, answer.called_ae_title = primitive.calling_ae_title, primitive.called_ae_title
    answer.result, answer.result_source = 0, 1
    contexts = primitive.presentation_context_definition_list
    for context in contexts:
        context.result = result
    answer.presentation_context_definition_results_list = contexts
    answer.maximum_length_received = pdu_bytes
    answer.implementation_class_uid = UID("1.2.3")
    connection.sendall(A_ASSOCIATE_AC(answer).encode())


def read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    """Type and bytes of the next PDU."""
    head = read_exactly(connection, 6)
    kind, length = struct.unpack(">BxI", head)
    return kind, head + read_exactly(connection, length)


def read_exactly(connection: socket.socket, size: int) -> bytes:
    content = bytearray()
    while len(content) < size:
        more = connection.recv(size - len(content))
        if not more:
            raise ConnectionResetError
        content += more
    return bytes(content)


def skip_message(connection: socket.socket) -> int:
    """Read a command and its data set, and forget them; returns the bytes of the data set."""
    size, ends = 0, 0
    while ends < 2:
        _, content = read_pdu(connection)
        header = content[11]
        size += 0 if header & 1 else len(content) - 12
        ends += header >> 1 & 1
    return size


def make_response(*, status: int = 0, number: int = 1, field_: int = 0x8001, fragments: int = 1) -> bytes:
    """C-STORE-RSP, in as many P-DATA-TF."""
    rest = b"".join(
        struct.pack("<HHIH", 0, element, 2, value)
        for element, value in ((0x0100, field_), (0x0120, number), (0x0800, 0x0101), (0x0900, status))
    )
    command = struct.pack("<HHII", 0, 0, 4, len(rest)) + rest
    size = -(-len(command) // fragments)
    parts = [command[start : start + size] for start in range(0, len(command), size)]
    return b"".join(
        struct.pack(">BxIIBB", 4, len(part) + 6, len(part) + 2, 1, 3 if part is parts[-1] else 1) + part
        for part in parts
    )


def silent(connection: socket.socket) -> None:
    """A script: read what comes, and say nothing."""
    connection.settimeout(10)
    while connection.recv(1 << 16):
        pass


def answer_http(connection: socket.socket) -> None:
    """A script: say what no archive says."""
    connection.recv(1 << 16)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@contextmanager
def free_port() -> Iterator[int]:
    """A port at which nobody listens, and nobody else can while the ``with`` block lasts."""
    with socket.socket() as held:
        held.bind((HOST, 0))
        yield held.getsockname()[1]
