"""What a requestor says and hears (PS3.7, PS3.8), encoded and decoded with pynetdicom. Not for clinical use."""

# ruff: noqa: PLC0415 - pynetdicom is an extra, and slow to import

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import UID

from bedside.errors import NodeError
from bedside.node.failures import UntakenError
from bedside.node.parcels import Parcel
from bedside.results.dicom.identity import derive_uid
from bedside.version import __version__

__all__ = [
    "ABORT",
    "HEAD",
    "LARGEST",
    "RELEASE",
    "Acceptance",
    "Context",
    "Response",
    "broken",
    "decode_acceptance",
    "decode_response",
    "encode_command",
    "encode_fragment",
    "encode_request",
    "read_fragments",
]

Context = tuple[str, str]
"""SOP Class UID and Transfer Syntax UID."""

_ACCEPT, _REJECT, _DATA, _RELEASE_RQ, _RELEASE_RP, _ABORT = range(2, 8)
"""Types of PDU (PS3.8, 9.3.1)."""
HEAD: Final = struct.Struct(">BxI")
"""Of each PDU: type, and length of the rest."""
RELEASE: Final = struct.pack(">BxI4x", _RELEASE_RQ, 4)
"""A-RELEASE-RQ."""
ABORT: Final = struct.pack(">BxI4x", _ABORT, 4)
"""A-ABORT, by the service user."""
LARGEST: Final = 1 << 17
"""Longest P-DATA-TF that is sent, where the peer takes as much; longest PDU and longest response that are read."""
_FRAGMENT: Final = struct.Struct(">BxIIBB")
"""P-DATA-TF with one value: type, length, length of the value, presentation context, control header (PS3.8, E.2)."""
_COMMAND, _LAST = 1, 2
"""Bits of the control header."""
_STORED: Final = 0x8001
"""Command Field of C-STORE-RSP."""
_APPLICATION: Final = "1.2.840.10008.3.1.1.1"
"""DICOM Application Context Name (PS3.7, A.2.1)."""
_RESULTS: Final = MappingProxyType({1: "for good", 2: "for now"})
_SOURCES: Final = MappingProxyType({1: "the application", 2: "ACSE", 3: "the presentation service"})
_REASONS: Final = MappingProxyType(
    {
        (1, 1): "no reason given",
        (1, 2): "the application context is not supported",
        (1, 3): "it does not know our AE title (calling_ae_title)",
        (1, 7): "its own AE title is another (ae_title)",
        (2, 1): "no reason given",
        (2, 2): "the protocol version is not supported",
        (3, 1): "it is busy",
        (3, 2): "it has too many associations, or too little space",
    }
)
"""(source, reason) of A-ASSOCIATE-RJ (PS3.8, table 9-21)."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What a peer agreed to."""

    contexts: Mapping[Context, int]
    """What it takes -> Presentation Context ID."""
    room: int
    """Most bytes of a fragment; even, as a fragment's length has to be."""


@dataclass(frozen=True, slots=True)
class Response:
    """C-STORE-RSP."""

    number: int
    """Message ID that it responds to."""
    status: int
    """PS3.4, B.2.3."""


def encode_request(contexts: Sequence[Context], *, called: str, calling: str) -> bytes:
    """A-ASSOCIATE-RQ that proposes each of ``contexts``."""
    from pynetdicom.pdu import A_ASSOCIATE_RQ
    from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationVersionNameNotification
    from pynetdicom.presentation import build_context

    proposed = [build_context(UID(sop_class), UID(syntax)) for sop_class, syntax in contexts]
    for place, context in enumerate(proposed):
        context.context_id = 2 * place + 1
    request = A_ASSOCIATE()
    request.application_context_name = UID(_APPLICATION)
    request.calling_ae_title = calling
    request.called_ae_title = called
    request.presentation_context_definition_list = proposed
    request.maximum_length_received = LARGEST
    request.implementation_class_uid = UID(derive_uid("implementation"))
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = f"BEDSIDE_{__version__}"[:16]
    request.user_information.append(version)
    return A_ASSOCIATE_RQ(request).encode()


def decode_acceptance(kind: int, content: bytes, contexts: Sequence[Context]) -> Acceptance:
    """The answer to `encode_request`.

    Args:
        kind: Type of the PDU.
        content: The PDU.
        contexts: What was proposed.

    Raises:
        NodeError: ``not-delivered``: it is none, or a rejection.
    """
    from pynetdicom.pdu import A_ASSOCIATE_AC

    if kind == _REJECT and len(content) >= 10:
        raise _rejected(*content[7:10])
    if kind == _ABORT:
        raise broken("it aborted the association before there was one")
    if kind != _ACCEPT:
        raise broken(f"it answered with a PDU of type {kind}")
    with _decoding():
        pdu = A_ASSOCIATE_AC()
        pdu.decode(content)
        accepted = {
            contexts[item.context_id // 2]: item.context_id
            for item in pdu.presentation_context
            if item.result == 0 and item.context_id is not None
        }
        most = pdu.user_information.maximum_length if pdu.user_information is not None else None
    room = (min(most or LARGEST, LARGEST) - 6) // 2 * 2  # PS3.8, D.1: 6 bytes are not data; 0 is any length
    if room <= 0:
        raise broken("it takes PDUs of no more than a few bytes")
    return Acceptance(accepted, room)


def encode_command(parcel: Parcel, number: int) -> bytes:
    """C-STORE-RQ (PS3.7, 9.3.1.1).

    Args:
        parcel: What is going to be sent.
        number: Message ID.

    Raises:
        UntakenError: ``not-delivered``: its UIDs can't be encoded.
    """
    from pynetdicom.dsutils import encode

    command = Dataset()
    command.AffectedSOPClassUID = parcel.sop_class
    command.CommandField = 0x0001
    command.MessageID = number
    command.Priority = 0  # medium
    command.CommandDataSetType = 0x0001  # there is one
    command.AffectedSOPInstanceUID = parcel.sop
    rest = encode(command, True, True)
    if rest is None:
        raise UntakenError(
            "not-delivered", "an object of the results has no proper UID; have the study run again"
        )
    return struct.pack("<HHII", 0, 0, 4, len(rest)) + rest  # (0000,0000) Command Group Length


def encode_fragment(piece: bytes, context: int, *, command: bool, last: bool) -> bytes:
    """P-DATA-TF with a piece of a command or of a data set."""
    header = _COMMAND * command | _LAST * last
    return _FRAGMENT.pack(_DATA, len(piece) + 6, len(piece) + 2, context, header) + piece


def read_fragments(kind: int, content: bytes) -> Iterator[tuple[bytes, bool]]:
    """The pieces of a command in a P-DATA-TF, and whether each is the last.

    Raises:
        NodeError: ``not-delivered``: it is no P-DATA-TF, or holds something else.
    """
    from pynetdicom.pdu import P_DATA_TF

    if kind == _ABORT:
        raise broken("it aborted the association")
    if kind != _DATA:
        raise broken(f"it answered with a PDU of type {kind}")
    with _decoding():
        pdu = P_DATA_TF()
        pdu.decode(content)
        values = [bytes(item.presentation_data_value or b"\0") for item in pdu.presentation_data_value_items]
    for value in values:
        if not value[0] & _COMMAND:
            raise broken("it answered with something that is no response")
        yield value[1:], bool(value[0] & _LAST)


def decode_response(command: bytes) -> Response:
    """C-STORE-RSP (PS3.7, 9.3.1.2).

    Raises:
        NodeError: ``not-delivered``: it is none.
    """
    from pynetdicom.dsutils import decode

    with _decoding():
        read = decode(io.BytesIO(command), True, True)
        field, number, status = (
            int(read[name].value) for name in ("CommandField", "MessageIDBeingRespondedTo", "Status")
        )
    if field != _STORED:
        raise broken("it answered something else than was asked")
    return Response(number, status)


def broken(what: str) -> NodeError:
    """The error for a destination that does not keep to the protocol, or breaks off."""
    return NodeError(
        "not-delivered", f"the destination failed: {what}; look at its log, and at what runs at its port"
    )


def _rejected(result: int, source: int, reason: int) -> NodeError:
    when = _RESULTS.get(result, f"(result {result})")
    who = _SOURCES.get(source, f"source {source}")
    why = _REASONS.get((source, reason), f"reason {reason}")
    return NodeError(
        "not-delivered",
        f"the destination rejects associations {when}, says {who}: {why}; check the AE titles, and what it allows",
    )


@contextmanager
def _decoding() -> Iterator[None]:
    """Whatever pynetdicom and pydicom raise on what a peer says is told without its text, which may quote values."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - they raise whatever what they read leads them to
        raise broken(f"its answer is malformed ({type(error).__name__})") from None
