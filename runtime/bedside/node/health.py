"""Whether the node lives and is ready, and its metrics, over HTTP. Not for clinical use.

    GET /live     200, or 503 where it has to be started anew
    GET /ready    200, or 503 where it takes nothing in at the moment
    GET /metrics  for Prometheus

Whoever asks has a few seconds and a few KiB to do so, and is answered once.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import socket
import socketserver
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from threading import BoundedSemaphore, Thread
from typing import Any, Final

from bedside.errors import BedsideError, InternalError, NodeError
from bedside.node.config import Health
from bedside.node.metrics import Metrics

__all__ = ["HealthServer"]

log = logging.getLogger(__name__)

MAX_HEAD: Final = 8192
"""Bytes of a request line with its headers."""
MAX_THREADS: Final = 8
"""Connections at the same time; more are closed at once."""
TIMEOUT_S: Final = 5.0
"""For the whole request, and for the whole answer."""
_END: Final = b"\r\n\r\n"
_JSON: Final = "application/json; charset=utf-8"

_Problems = Callable[[], list[str]]


class HealthServer:
    """The HTTP server.

    Args:
        health: Where to listen.
        metrics: What ``/metrics`` tells.
        live: What is wrong so that the node has to be started anew; from any thread.
        ready: What is wrong so that nothing comes in; from any thread.
    """

    def __init__(self, health: Health, metrics: Metrics, *, live: _Problems, ready: _Problems) -> None:
        self._health = health
        self._metrics = metrics
        self._asked = {"/live": live, "/ready": ready}
        self._server: _Server | None = None
        self._thread: Thread | None = None

    def start(self) -> None:
        """Listen, in a thread.

        Raises:
            NodeError: ``not-listening``.
        """
        address, port = self._health.address, self._health.port
        try:
            self._server = _Server(address, port, self._answer)
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno else "unknown"
            raise NodeError(
                "not-listening",
                f"health can't be told on {address} port {port} ({reason}); change [health], or stop what is there",
            ) from error
        self._thread = Thread(target=self._server.serve_forever, args=(0.2,), name="health", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Listen no more; an answer that is on its way is given."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server = self._thread = None

    def _answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        """Status, content type and body for a path."""
        try:
            if path == "/metrics":
                body, content_type = self._metrics.render()
                return HTTPStatus.OK, content_type, body
            if path in self._asked:
                return _state(self._asked[path]())
        except BedsideError as error:
            return _state([error.message])
        except Exception as error:  # noqa: BLE001 - who asks is told that it is broken
            told = InternalError.of(error).message
            log.warning("health: %s", told)
            return _state([told])
        return _refusal(HTTPStatus.NOT_FOUND, "there are /live, /ready and /metrics")


class _Server(socketserver.TCPServer):
    """Answers in a few threads, and closes what is more."""

    allow_reuse_address = True
    allow_reuse_port = False
    request_queue_size = 16

    def __init__(
        self, address: str, port: int, answer: Callable[[str], tuple[HTTPStatus, str, bytes]]
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.answer = answer
        self._free = BoundedSemaphore(MAX_THREADS)
        self._pool = ThreadPoolExecutor(MAX_THREADS, "health")
        super().__init__((address, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hand a connection to a thread that is free, or close it."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        self._pool.submit(self._process, request, client_address)

    def server_close(self) -> None:
        """Close the socket, when the last answer is given."""
        super().server_close()
        self._pool.shutdown()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asks may go away; that is no news."""

    def _process(self, request: Any, client_address: Any) -> None:
        try:
            with contextlib.suppress(OSError):
                self.finish_request(request, client_address)
        finally:
            self.shutdown_request(request)
            self._free.release()


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: _Server
    timeout = TIMEOUT_S

    def handle(self) -> None:
        """Read a request within its time and size, and answer it."""
        head = self._read_head()
        if not head:
            return
        self.connection.settimeout(TIMEOUT_S)
        if _END not in head:
            self._begin_refusal()
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        self.rfile.close()
        self.rfile = io.BytesIO(head)
        self.handle_one_request()

    def do_GET(self) -> None:
        """Answer."""
        self._send(*self.server.answer(self.path.partition("?")[0]))

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Any other method is refused."""
        if name.startswith("do_"):
            return lambda: self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)
        raise AttributeError(name)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 - as http.server calls it
        """Refuse, without repeating what was asked."""
        status = HTTPStatus(code)
        self._send(*_refusal(status, status.phrase.lower()))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as http.server calls it
        """Log nothing: a request is free text from the network."""

    def version_string(self) -> str:
        """What the header Server says."""
        return "bedside"

    def _begin_refusal(self) -> None:
        """What a response needs that no request line was read for."""
        self.requestline = self.command = ""
        self.request_version = self.protocol_version

    def _read_head(self) -> bytes:
        """What comes up to the empty line, or more than `MAX_HEAD`; nothing if that does not come in time."""
        until = time.monotonic() + TIMEOUT_S
        head = b""
        while _END not in head and len(head) < MAX_HEAD:
            left = until - time.monotonic()
            if left <= 0:
                return b""
            self.connection.settimeout(left)
            more = self.connection.recv(MAX_HEAD)
            if not more:
                return b""
            head += more
        return head

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _state(problems: list[str]) -> tuple[HTTPStatus, str, bytes]:
    status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
    return status, _JSON, json.dumps({"ok": not problems, "problems": problems}).encode() + b"\n"


def _refusal(status: HTTPStatus, problem: str) -> tuple[HTTPStatus, str, bytes]:
    return status, _JSON, json.dumps({"ok": False, "problems": [problem]}).encode() + b"\n"
