"""Health and metrics over HTTP: bounded in size, time and number, and silent about who asks what."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator

import pytest

from bedside.errors import NodeError, OutputError
from bedside.node.config import Health

pytest.importorskip("prometheus_client", reason="needs the extra 'node'")

from bedside.node import health as module
from bedside.node.health import MAX_HEAD, MAX_THREADS, HealthServer
from bedside.node.metrics import Metrics

CANARY = "CANARY"


def free_port(family: socket.AddressFamily = socket.AF_INET) -> int:
    with socket.socket(family) as found:
        found.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Node:
    """A server with what it asks for."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.live: list[str] = []
        self.ready: list[str] = []
        self.fault: Exception | None = None
        self.port = free_port(socket.AF_INET6 if ":" in address else socket.AF_INET)
        metrics = Metrics(studies=dict, deliveries=dict, free_bytes=self._free)
        self.server = HealthServer(
            Health(address, self.port), metrics, live=lambda: self.live, ready=lambda: self.ready
        )
        self.address = address

    def _free(self) -> float:
        if self.fault is not None:
            raise self.fault
        return 5.0

    def ask(self, path: str, method: str = "GET", body: str | None = None) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection(self.address, self.port, timeout=20)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), dict(answer.getheaders())
        finally:
            connection.close()

    def send(self, data: bytes) -> bytes:
        """All that comes back for these bytes until the server closes."""
        with socket.create_connection((self.address, self.port), timeout=20) as peer:
            peer.sendall(data)
            found = b""
            try:
                while more := peer.recv(65536):
                    found += more
            except ConnectionResetError:  # it closed while more was on its way
                pass
            return found


@pytest.fixture(scope="module")
def started() -> Iterator[Node]:
    made = Node()
    made.server.start()
    yield made
    made.server.stop()


@pytest.fixture
def node(started: Node) -> Node:
    """One that listens, and has nothing to complain of."""
    started.live, started.ready, started.fault = [], [], None
    return started


def test_live_and_ready_tell_what_is_wrong(node: Node) -> None:
    status, body, headers = node.ask("/live")
    assert (status, json.loads(body)) == (200, {"ok": True, "problems": []})
    assert headers["Content-Type"].startswith("application/json")
    node.ready = ["the disk is full"]
    status, body, _ = node.ask("/ready?verbose=1")
    assert (status, json.loads(body)) == (503, {"ok": False, "problems": ["the disk is full"]})
    assert node.ask("/live")[0] == 200
    node.live = ["the runner has ended"]
    assert node.ask("/live")[0] == 503


def test_metrics_are_in_the_format_of_prometheus(node: Node) -> None:
    status, body, headers = node.ask("/metrics")
    assert status == 200
    assert "bedside_node_spool_free_bytes 5.0" in body
    assert headers["Content-Type"].startswith("text/plain; version=")
    assert headers["Server"] == "bedside"


@pytest.mark.parametrize("path", ["/", "/metrics/", "/live/../metrics", f"/{CANARY}", "*"])
def test_other_paths_are_not_there_and_not_repeated(node: Node, path: str) -> None:
    status, body, _ = node.ask(path)
    assert status == 404
    assert CANARY not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", CANARY])
def test_other_methods_are_refused(node: Node, method: str) -> None:
    status, body, headers = node.ask("/metrics", method, body=CANARY if method == "POST" else None)
    assert (status, headers["Allow"]) == (405, "GET")
    assert CANARY not in body
    assert (body == "") == (method == "HEAD")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /live\r\n\r\n", b'{"ok": true'),  # HTTP/0.9 has no status
        (b"GET /live HTTP/9.9\r\n\r\n", b"version not supported"),
        (b"GET\r\n\r\n", b"bad request"),
        (b"\x00\xff\r\n\r\n", b"bad request"),
        (b"GET /live HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n", b" 431 "),
        (b"GET /" + b"x" * 2 * MAX_HEAD, b" 431 "),
        (b"GET /live HTTP/1.0\r\nx: " + b"y" * 2 * MAX_HEAD, b" 431 "),
    ],
)
def test_request_that_is_none_or_too_large_is_refused(node: Node, request_: bytes, status: bytes) -> None:
    assert status in node.send(request_)
    assert node.ask("/live")[0] == 200


def test_what_fails_inside_is_told_without_its_values(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    node.fault = OutputError("disk-full", "the queue can't be written (no space)")
    status, body, _ = node.ask("/metrics")
    assert (status, json.loads(body)["problems"]) == (503, ["the queue can't be written (no space)"])
    node.fault = KeyError(CANARY)
    status, body, _ = node.ask("/metrics")
    assert status == 503
    assert "a defect in bedside (KeyError at " in body
    assert CANARY not in body + caplog.text


def test_request_leaves_no_trace(
    node: Node, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    node.ask(f"/{CANARY}")
    node.send(f"{CANARY} / HTTP/1.0\r\n\r\n".encode())
    node.send(CANARY.encode() * MAX_HEAD)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_peers_that_say_nothing_are_closed_and_do_not_keep_others_out(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.3)
    silent = [socket.create_connection(("127.0.0.1", node.port), timeout=20) for _ in range(3 * MAX_THREADS)]
    try:
        for peer in silent:
            assert peer.recv(1) == b""
    finally:
        for peer in silent:
            peer.close()
    assert node.ask("/live")[0] == 200


def test_slow_peer_is_closed_however_often_it_sends(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.3)
    with socket.create_connection(("127.0.0.1", node.port), timeout=0.05) as peer:
        for _ in range(1000):
            try:
                peer.sendall(b"G")
                if peer.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            pytest.fail("the server listens for ever")


def test_port_in_use_is_told_with_address_and_port(node: Node) -> None:
    metrics = Metrics(studies=dict, deliveries=dict, free_bytes=lambda: 0.0)
    second = HealthServer(Health("127.0.0.1", node.port), metrics, live=list, ready=list)
    with pytest.raises(NodeError, match=f"127.0.0.1 port {node.port}") as caught:
        second.start()
    assert caught.value.code == "not-listening"
    second.stop()
    assert node.ask("/live")[0] == 200


def test_address_that_is_not_of_this_machine_is_told() -> None:
    metrics = Metrics(studies=dict, deliveries=dict, free_bytes=lambda: 0.0)
    server = HealthServer(Health("192.0.2.1", 9112), metrics, live=list, ready=list)
    with pytest.raises(NodeError, match=r"192\.0\.2\.1 port 9112"):
        server.start()


def test_port_is_free_after_the_end() -> None:
    node = Node()
    for _ in range(2):
        node.server.start()
        assert node.ask("/live")[0] == 200
        node.server.stop()
    with pytest.raises(ConnectionRefusedError):
        node.ask("/live")


def test_ipv6_is_listened_on() -> None:
    try:
        node = Node("::1")
    except OSError:
        pytest.skip("needs IPv6")
    node.server.start()
    try:
        assert node.ask("/live")[0] == 200
    finally:
        node.server.stop()
