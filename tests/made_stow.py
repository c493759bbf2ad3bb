"""Web servers that take objects by STOW-RS, made for tests: they answer as they are told."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import pydicom

from bedside.node.certificates import make_context
from bedside.node.network import Destination, Tls
from made_peers import HOST


@dataclass
class Request:
    """What came in."""

    path: str
    headers: dict[str, str]
    """Names in small letters."""
    objects: list[bytes]
    """DICOM files."""

    @property
    def sops(self) -> list[str]:
        return [str(pydicom.dcmread(io.BytesIO(each)).SOPInstanceUID) for each in self.objects]


Answer = tuple[int, dict[str, str], bytes]


def take_all(request: Request) -> Answer:
    """Status 200, and each object by its name."""
    return answer_with(200, taken=request.sops)


def answer_with(status: int, *, taken: Sequence[str] = (), failed: dict[str, int] | None = None) -> Answer:
    """A Store Instances Response."""
    items = {
        "00081199": [_reference(sop) for sop in taken],
        "00081198": [
            {**_reference(sop), "00081197": {"vr": "US", "Value": [reason]}}
            for sop, reason in (failed or {}).items()
        ],
    }
    body = {tag: {"vr": "SQ", "Value": value} for tag, value in items.items() if value}
    return status, {"Content-Type": "application/dicom+json"}, json.dumps(body).encode()


def _reference(sop: str) -> dict[str, Any]:
    return {"00081155": {"vr": "UI", "Value": [sop]}}


@dataclass
class StowPeer:
    """An HTTP server that answers as ``judge`` says, while it is entered."""

    judge: Callable[[Request], Answer] = take_all
    tls: Tls | None = None
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> StowPeer:
        self._server = ThreadingHTTPServer((HOST, 0), _handler(self))
        self._server.daemon_threads = False
        if self.tls is not None:
            context = make_context(self.tls, server=True)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def destination(self, **more: Any) -> Destination:
        scheme = "http" if self.tls is None else "https"
        return replace(Destination(url=f"{scheme}://{HOST}:{self.port}/dicom-web", timeout_s=10.0), **more)


def _handler(peer: StowPeer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            boundary = self.headers.get_boundary()
            parts = content.split(f"--{boundary}".encode())[1:-1] if boundary else []
            objects = [part.partition(b"\r\n\r\n")[2][: -len(b"\r\n")] for part in parts]
            request = Request(
                self.path, {name.lower(): value for name, value in self.headers.items()}, objects
            )
            peer.requests.append(request)
            status, headers, body = peer.judge(request)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
