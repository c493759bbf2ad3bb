"""The Storage SCP: objects of those who may send, onto the disk, with success told when nothing can lose them.

pynetdicom speaks the protocol; here is what it leaves open: who may come in, how much, how slowly, and what a message
that breaks off leaves behind. Needs the extra ``node``. Not for clinical use.
"""

from __future__ import annotations

import logging
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Final

from bedside.errors import (
    BedsideError,
    InputError,
    InternalError,
    MissingExtraError,
    NodeError,
    OutputError,
    RefusedError,
)
from bedside.node.certificates import make_context
from bedside.node.chronicle import Chronicle
from bedside.node.completion import Completion
from bedside.node.gate import ENDING, Gate, Rejection
from bedside.node.intake import Intake, Sender
from bedside.node.network import Receiver as Choice
from bedside.node.spool import Spool
from bedside.node.syntaxes import SOP_CLASSES, VERIFICATION, list_syntaxes

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.events import Event

    from bedside.node.listening import Listener

__all__ = ["Receiver"]

log = logging.getLogger(__name__)

SUCCESS: Final = 0x0000
NOT_AUTHORIZED: Final = 0x0124
"""Refused: no rule takes the object (PS3.7, C.5.24)."""
DUPLICATE: Final = 0x0111
"""The same SOP Instance UID with other content (PS3.7, C.5.4)."""
OUT_OF_RESOURCES: Final = 0xA700
CANNOT_UNDERSTAND: Final = 0xC000
"""Of C-STORE (PS3.4, table B.2-1)."""
_LONGEST_WAIT_S: Final = 10.0
"""For one answer, however fast a sender is."""


@dataclass(slots=True)
class _Visit:
    """An association while it lasts."""

    title: str
    """AE title of who called."""
    address: str
    """Where from."""
    called: str
    """AE title that was called."""
    studies: set[int] = field(default_factory=set)
    """Numbers of the studies that it sent instances of."""
    received: int = 0
    """Bytes since its last whole object."""


class Receiver:
    """Listens, and takes in what it is sent.

    Args:
        choice: Where to listen, who may send, and how much.
        spool: Where objects go first.
        intake: Takes them on from there.
        completion: Told of the end of associations.
        chronicle: Told of associations.
        free_mib: Of the spool's disk that stay free.
        drop_unmatched: Whether an object that no rule takes counts as received.

    Raises:
        MissingExtraError: pynetdicom is not installed.
        InputError: ``bad-config``: certificates can't be used.
    """

    def __init__(  # noqa: PLR0913 - what a node consists of
        self,
        choice: Choice,
        spool: Spool,
        intake: Intake,
        completion: Completion,
        chronicle: Chronicle,
        *,
        free_mib: float,
        drop_unmatched: bool = False,
    ) -> None:
        try:
            import pynetdicom  # noqa: F401, PLC0415 - of an extra
        except ImportError as error:
            raise MissingExtraError.of("pynetdicom", "node", "receiving DICOM") from error
        self._choice = choice
        self._spool = spool
        self._intake = intake
        self._completion = completion
        self._chronicle = chronicle
        self._free_mib = free_mib
        self._drop_unmatched = drop_unmatched
        self._gate = Gate(choice.ae_title, choice.allow, choice.limits)
        self._context = None if choice.tls is None else make_context(choice.tls, server=True)
        self._visits: dict[int, _Visit] = {}
        self._lock = Lock()
        self._ending = False
        self._server: Listener | None = None
        self._before: str | None = None
        self._thread: Thread | None = None

    def start(self) -> None:
        """Listen.

        Raises:
            NodeError: ``not-listening``: the port is in use, or the address is none of this machine's.
        """
        from pynetdicom import evt  # noqa: PLC0415 - of an extra

        from bedside.node.listening import listen  # noqa: PLC0415 - of an extra

        try:
            self._server = listen(
                self._choice,
                self._gate,
                self._context,
                [VERIFICATION, *SOP_CLASSES],
                list_syntaxes(),
                [
                    (evt.EVT_REQUESTED, self._requested),
                    (evt.EVT_ACCEPTED, self._accepted),
                    (evt.EVT_DATA_RECV, self._data),
                    (evt.EVT_C_ECHO, self._echo),
                    (evt.EVT_C_STORE, self._store),
                    (evt.EVT_RELEASED, self._released),
                    (evt.EVT_ABORTED, self._aborted),
                    (evt.EVT_CONN_CLOSE, self._closed),
                ],
            )
        except OSError as error:
            raise NodeError(
                "not-listening",
                f"{self._choice.address} port {self._choice.port} can't be listened on ({error.strerror}); end what "
                "listens there, or give another address or port",
            ) from error
        # Where pynetdicom streams objects to: the disk that they stay on, since it takes no folder of its own.
        self._before, tempfile.tempdir = tempfile.tempdir, str(self._spool.incoming)
        self._thread = Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="receiver"
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._choice.port

    @property
    def alive(self) -> bool:
        """Whether it listens."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def visits(self) -> int:
        """How many associations there are."""
        with self._lock:
            return len(self._visits)

    @property
    def connections(self) -> int:
        """How many connections there are, with those that have not said what they want."""
        return self._gate.connections

    def refuse(self) -> None:
        """Accept no further association; those that are there go on."""
        self._ending = True

    def stop(self, wait_s: float) -> None:
        """Accept nothing more, let associations come to their end, and abort what is left.

        What they sent and were told success for is safe, and what they were not they send again.
        """
        self.refuse()
        until = time.monotonic() + wait_s
        while self.visits and time.monotonic() < until:
            time.sleep(0.05)
        server, self._server = self._server, None
        if server is None:
            return
        for association in server.active_associations:
            association.abort()
        server.shutdown()
        tempfile.tempdir = self._before
        if self._thread is not None:
            self._thread.join()

    def problems(self) -> list[str]:
        """Why nothing can be received now; empty if it can."""
        told = [] if self.alive else ["the receiver does not listen"]
        if not self._has_space():
            told.append("the spool's disk is nearly full; nothing is received")
        return told

    def _requested(self, event: Event) -> None:
        from pynetdicom.pdu_primitives import A_ASSOCIATE  # noqa: PLC0415 - of an extra

        association = event.assoc
        asked: Any = association.requestor.primitive
        address = str(association.requestor.address)
        if not isinstance(asked, A_ASSOCIATE):  # it ended instead
            association.is_aborted = True
            association.kill()
            return
        title, called = str(asked.calling_ae_title), str(asked.called_ae_title)
        rejection: Rejection | None
        if self._ending:
            rejection = ENDING
        else:
            rejection = self._gate.judge(
                title, called, address, associations=self.visits, has_space=self._has_space()
            )
        if rejection is None:
            with self._lock:
                self._visits[id(association)] = _Visit(title.strip(), address, called.strip())
            return
        self._chronicle.association(rejection.reason, title, address)
        association.acse.send_reject(rejection.result, rejection.source, rejection.diagnostic)
        association.is_rejected = True
        association.kill()

    def _accepted(self, event: Event) -> None:
        visit = self._visit(event.assoc)
        if visit is not None:
            self._chronicle.association("accepted", visit.title, visit.address)

    def _data(self, event: Event) -> None:
        """Bound an object while it comes: its sender says nowhere how long it will be."""
        visit = self._visit(event.assoc)
        if visit is None:
            return
        visit.received += len(event.data)
        too_long = visit.received > self._choice.limits.object_mib * 2**20
        if too_long or self._spool.free_mib() < self._free_mib / 2:
            self._chronicle.association(
                "object-too-large" if too_long else "no-space", visit.title, visit.address
            )
            Thread(
                target=event.assoc.abort, name="abort"
            ).start()  # this is the thread that would have to send it
            visit.received = -(1 << 62)

    def _echo(self, event: Event) -> int:  # noqa: ARG002 - of the event
        return SUCCESS

    def _store(self, event: Event) -> int:
        visit = self._visit(event.assoc)
        if visit is None:
            return CANNOT_UNDERSTAND
        visit.received = 0
        time.sleep(min(_LONGEST_WAIT_S, self._gate.wait_s(visit.title)))
        try:
            counted = self._intake.take(
                Path(event.dataset_path), Sender("association", visit.title, visit.called)
            )
        except RefusedError:
            return SUCCESS if self._drop_unmatched else NOT_AUTHORIZED
        except InputError as error:
            return DUPLICATE if error.code == "other-pixels" else CANNOT_UNDERSTAND
        except OutputError as error:
            log.error("an object can't be kept: %s", error.message)
            return OUT_OF_RESOURCES
        except Exception as problem:  # noqa: BLE001 - told; pynetdicom would log it with its values
            told = problem if isinstance(problem, BedsideError) else InternalError.of(problem)
            log.error("an object can't be kept: %s", told.message)
            return CANNOT_UNDERSTAND
        visit.studies.add(counted.study)
        return SUCCESS

    def _released(self, event: Event) -> None:
        visit = self._leave(event.assoc)
        if visit is not None:
            self._completion.ended(visit.studies)
            self._chronicle.association("released", visit.title, visit.address)

    def _aborted(self, event: Event) -> None:
        visit = self._leave(event.assoc)
        if visit is not None:
            self._chronicle.association("aborted", visit.title, visit.address)

    def _closed(self, event: Event) -> None:
        """A connection is gone: what it broke off is removed."""
        association = event.assoc
        visit = self._leave(association)
        if visit is not None:
            self._chronicle.association("closed", visit.title, visit.address)
        begun = getattr(association.dimse.message, "_data_set_file", None)
        if begun is not None:
            with suppress(OSError):
                begun.close()
                Path(begun.name).unlink(missing_ok=True)

    def _has_space(self) -> bool:
        return self._spool.free_mib() >= self._free_mib

    def _visit(self, association: Association) -> _Visit | None:
        with self._lock:
            return self._visits.get(id(association))

    def _leave(self, association: Association) -> _Visit | None:
        with self._lock:
            return self._visits.pop(id(association), None)
