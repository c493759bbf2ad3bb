"""pynetdicom's server, with a gate before it: few connections, none that holds up the others, no PDU without bound.

Imports pynetdicom, of the extra ``node``. Not for clinical use.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any, Final, cast

from pynetdicom import AE, _config, build_context
from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from bedside.node.gate import Gate
from bedside.node.network import Limits
from bedside.node.network import Receiver as Choice

__all__ = ["Listener", "listen"]

_HEADER_BYTES: Final = 6
"""Of a PDU (PS3.8, 9.3.1)."""
_LEAST_BYTES: Final = 1 << 17
"""Of a PDU that asks for an association: they may be longer than those with data."""
_FAREWELL_S: Final = 2.0
"""For connections to end that were aborted."""
_NAP_S: Final = 0.01
_BACKLOG: Final = 128
"""Connections that the system holds until they are looked at."""


class Listener(ThreadedAssociationServer):
    """Listens, and lets in whom the gate does."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = _BACKLOG

    def __init__(
        self, entity: Any, address: Any, title: str, contexts: Any, context: Any, **named: Any
    ) -> None:
        gate: Gate = named.pop("gate")
        limits: Limits = named.pop("limits")
        self._gate = gate
        self._limits = limits
        self._lock = Lock()
        self._inside: list[tuple[str, Association, socket.socket]] = []
        handler = partial(_Handler, limits=limits)
        super().__init__(entity, address, title, contexts, context, request_handler=handler, **named)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection, without a word to it: TLS begins in a thread of its own."""
        return cast("socket.socket", self.socket).accept()

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - of socketserver
        """Whether a connection is let in, and counted."""
        self._count_out()
        return self._gate.enter(client_address[0])

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: TLS, and the start of its association."""
        address = client_address[0]
        try:
            request.settimeout(self._limits.request_s)
            if self.ssl_context is not None:
                request = self.ssl_context.wrap_socket(request, server_side=True)
            handler = cast("_Handler", cast("Any", self.RequestHandlerClass)(request, client_address, self))
        except Exception:  # noqa: BLE001 - no TLS, a stranger's certificate, gone already: nothing was said
            self._gate.leave(address)
            with suppress(OSError):
                request.close()
            return
        with self._lock:
            self._inside.append((address, handler.association, request))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing is printed of a connection that went wrong."""

    def server_close(self) -> None:
        """Close the server's own socket, and those of its connections, once they have said their farewell."""
        super().server_close()
        until = time.monotonic() + _FAREWELL_S
        while self._inside and time.monotonic() < until:
            self._count_out()
            time.sleep(_NAP_S)
        for _, _, connection in self._inside:
            connection.close()

    def service_actions(self) -> None:
        """Now and then: count out who has gone."""
        super().service_actions()
        self._count_out()

    def _count_out(self) -> None:
        with self._lock:
            gone = [each for each in self._inside if not each[1].is_alive()]
            self._inside = [each for each in self._inside if each[1].is_alive()]
        for address, _, connection in gone:
            connection.close()  # where the other side went first, pynetdicom leaves that to the collector
            self._gate.leave(address)


class _Handler(RequestHandler):
    """Starts the association of a connection, on a socket with bounds."""

    association: Association

    def __init__(self, *given: Any, limits: Limits) -> None:
        self._limits = limits
        super().__init__(*given)

    def _create_association(self) -> Association:
        association = super()._create_association()
        own = cast("AssociationSocket", association.dul.socket)
        setattr(own, "recv", _Bounded(own, self._limits).receive)  # noqa: B010 - it may have no other socket
        self.association = association
        return association


class _Bounded:
    """Reads from a socket so that no PDU is longer than it may be, nor takes longer."""

    def __init__(self, own: AssociationSocket, limits: Limits) -> None:
        self._own = own
        self._longest = max(limits.pdu_bytes, _LEAST_BYTES)
        self._idle_s = limits.idle_s

    def receive(self, nr_bytes: int) -> bytearray:
        """Read so many bytes; fewer where the other side ends before.

        Raises:
            OSError: They are more than may be; or they did not come in time, which is a TimeoutError.
        """
        if nr_bytes > self._longest:
            raise OSError("a PDU is longer than it may be")
        wanted = bytearray(nr_bytes)
        connection = cast("socket.socket", self._own.socket)
        until = time.monotonic() + self._idle_s
        read = 0
        with memoryview(wanted) as view:
            while read < nr_bytes:
                left = until - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                connection.settimeout(left)
                count = connection.recv_into(view[read:])
                if not count:
                    break
                read += count
        connection.settimeout(self._idle_s)  # for what is sent
        del wanted[read:]
        return wanted


def listen(
    choice: Choice,
    gate: Gate,
    context: ssl.SSLContext | None,
    classes: Sequence[str],
    syntaxes: Sequence[str],
    handlers: list[Any],
) -> Listener:
    """A server that listens already; `Listener.serve_forever` answers.

    Raises:
        OSError: It can't listen there.
    """
    _config.STORE_RECV_CHUNKED_DATASET = True  # objects go to the disk as they come
    _config.LOG_HANDLER_LEVEL = "none"  # what it would log holds values
    entity = AE(ae_title=choice.ae_title)
    limits = choice.limits
    entity.maximum_pdu_size = limits.pdu_bytes
    entity.acse_timeout = limits.request_s
    entity.dimse_timeout = entity.network_timeout = limits.idle_s
    entity.maximum_associations = (
        limits.connections + 1
    )  # the gate counts them, without those that say nothing
    server = cast(
        "Listener",
        entity.make_server(
            (choice.address, choice.port),
            ae_title=choice.ae_title,
            contexts=[build_context(uid, list(syntaxes)) for uid in classes],
            ssl_context=context,
            evt_handlers=handlers,
            server_class=cast("Any", Listener),
            gate=gate,
            limits=limits,
        ),
    )
    entity._servers.append(server)  # noqa: SLF001 - as its start_server does: its shutdown takes it out again
    return server
