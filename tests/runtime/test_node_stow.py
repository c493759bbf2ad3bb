"""Results by STOW-RS: what is sent, what counts as taken, and what is told where a destination fails."""

from __future__ import annotations

import json
import socket
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from bedside.errors import BedsideError, InputError, MissingExtraError, NodeError
from bedside.node.failures import StoppedError, UntakenError
from bedside.node.network import Destination
from bedside.node.stow import MAX_ANSWER, send_by_stow
from made_peers import (
    BRIEF_S,
    CANARY,
    HOST,
    Certificates,
    RawPeer,
    free_port,
    make_certificates,
    make_large_object,
    make_objects,
    refusal,
    silent,
    uids,
    unnamed,
)
from made_stow import Answer, Request, StowPeer, answer_with, take_all

pytest.importorskip("urllib3", reason="needs the node extra")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_objects(tmp_path_factory.mktemp(CANARY))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(autouse=True)
def discreet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with unnamed(caplog):
        yield


def refuse(kind: type[BedsideError], files: list[Path], destination: Destination) -> str:
    return refusal(kind, lambda: send_by_stow(files, destination))


def test_objects_arrive_as_they_are_in_one_request(objects: list[Path]) -> None:
    with StowPeer() as peer:
        send_by_stow(objects, peer.destination())
    (request,) = peer.requests
    assert request.path == "/dicom-web/studies"
    assert request.objects == [path.read_bytes() for path in objects]
    assert request.headers["content-type"].startswith(
        'multipart/related; type="application/dicom"; boundary="'
    )
    assert request.headers["accept"] == "application/dicom+json"
    assert "transfer-encoding" not in request.headers
    assert "authorization" not in request.headers


def test_a_slash_at_the_end_of_the_url_is_one(objects: list[Path]) -> None:
    with StowPeer() as peer:
        given = peer.destination()
        send_by_stow(objects, replace(given, url=f"{given.url}/"))
    assert peer.requests[0].path == "/dicom-web/studies"


def test_nothing_to_send_needs_no_destination() -> None:
    with free_port() as port:
        send_by_stow([], Destination(url=f"http://{HOST}:{port}"))


def in_a_list(request: Request) -> Answer:
    status, headers, body = take_all(request)
    return status, headers, json.dumps([json.loads(body)]).encode()


def with_warnings(request: Request) -> Answer:
    body = json.loads(take_all(request)[2])
    for item in body["00081199"]["Value"]:
        item["00081196"] = {"vr": "US", "Value": [0xB000]}
    return 202, {}, json.dumps(body).encode()


def there_already(request: Request) -> Answer:
    first, *rest = request.sops
    return answer_with(202, taken=rest, failed={first: 0x0111})


def all_there_already(request: Request) -> Answer:
    return answer_with(409, failed=dict.fromkeys(request.sops, 45070))


def more_than_was_sent(request: Request) -> Answer:
    return answer_with(200, taken=[*request.sops, "1.2.3"], failed={"1.2.4": 0xC000})


@pytest.mark.parametrize(
    "judge", [take_all, in_a_list, with_warnings, there_already, all_there_already, more_than_was_sent]
)
def test_an_answer_that_names_each_object_is_success(
    judge: Callable[[Request], Answer], objects: list[Path]
) -> None:
    with StowPeer(judge) as peer:
        send_by_stow(objects, peer.destination())


def one_missing(request: Request) -> Answer:
    return answer_with(200, taken=request.sops[:-1])


def one_failed(request: Request) -> Answer:
    return answer_with(202, taken=request.sops[:-1], failed={request.sops[-1]: 0xC000})


def all_failed(request: Request) -> Answer:
    return answer_with(409, failed=dict(zip(request.sops, (0xA900, 0x0122, 0x0111), strict=True)))


def no_space(request: Request) -> Answer:
    return answer_with(409, failed=dict.fromkeys(request.sops, 0xA700))


@pytest.mark.parametrize(
    ("judge", "kind", "words"),
    [
        (one_missing, NodeError, "status 200 and did not store 1 of 3 objects, without a reason"),
        (one_failed, UntakenError, "status 202 and did not store 1 of 3 objects: 0xC000 (cannot understand)"),
        (all_failed, UntakenError, "did not store 2 of 3 objects: 0x0122 (SOP class not supported), 0xA900"),
        (no_space, NodeError, "0xA700 (out of resources)"),
    ],
)
def test_an_object_that_was_not_stored_is_told(
    judge: Callable[[Request], Answer], kind: type[NodeError], words: str, objects: list[Path]
) -> None:
    with StowPeer(judge) as peer:
        assert words in refuse(kind, objects, peer.destination())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>login</html>",
        b"[]",
        b"[1, 2]",
        b"null",
        b'"text"',
        b'{"00081199": 1}',
        b'{"00081199": {"Value": [{"00081155": {}}]}}',
        b'{"00081199": {"Value": [{"00081155": {"Value": []}}]}}',
        b'{"00081198": {"Value": [{"00081155": {"Value": ["1"]}, "00081197": {"Value": ["x"]}}]}}',
        b"[" * 100_000,
        b"\xff\xfe",
        b" " * (MAX_ANSWER + 1),
    ],
    ids=lambda body: body[:20].decode("latin-1").strip() or str(len(body)),
)
def test_a_success_without_a_proper_answer_is_none(body: bytes, objects: list[Path]) -> None:
    with StowPeer(lambda request: (200, {}, body)) as peer:
        assert "no Store Instances Response" in refuse(NodeError, objects, peer.destination())


def test_an_answer_that_names_nothing_is_no_success(objects: list[Path]) -> None:
    with StowPeer(lambda request: (200, {}, b"{}")) as peer:
        assert "did not store 3 of 3 objects" in refuse(NodeError, objects, peer.destination())


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, NodeError, "check token_file"),
        (403, NodeError, "check token_file"),
        (404, NodeError, "check the url"),
        (429, NodeError, "look at its log"),
        (500, NodeError, "look at its log"),
        (503, NodeError, "look at its log"),
        (204, NodeError, "look at its log"),
        (400, UntakenError, "does not take the request"),
        (413, UntakenError, "does not take the request"),
        (415, UntakenError, "does not take the request"),
    ],
)
def test_any_other_status_is_told(
    status: int, kind: type[NodeError], words: str, objects: list[Path]
) -> None:
    with StowPeer(lambda request: (status, {}, b"" if status == 204 else b"Canary")) as peer:
        told = refuse(kind, objects, peer.destination())
    assert f"status {status}" in told
    assert words in told


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int, objects: list[Path]) -> None:
    with StowPeer() as other:
        location = {"Location": f"http://{HOST}:{other.port}/dicom-web/studies"}
        with StowPeer(lambda request: (status, location, b"")) as peer:
            told = refuse(NodeError, objects, peer.destination())
    assert "not followed" in told
    assert other.requests == []


def test_the_token_is_read_at_each_try(
    objects: list[Path], tmp_path: Path, certificates: Certificates
) -> None:
    token = tmp_path / "token"
    with StowPeer(tls=certificates.server) as peer:
        for text in ("first.token-1", "second_token=="):
            token.write_text(f"{text}\n")
            send_by_stow(objects, peer.destination(token_file=str(token), tls=certificates.client))
    assert [request.headers["authorization"] for request in peer.requests] == [
        "Bearer first.token-1",
        "Bearer second_token==",
    ]


@pytest.mark.parametrize(
    "content", [None, b"", b"\n", b"two words", b"two\r\nX-Line: 1", b"\xff", b"x" * 20_000], ids=str
)
def test_a_file_without_a_token_is_told(content: bytes | None, objects: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    told = refuse(InputError, objects, Destination(url=f"https://{HOST}", token_file=str(path)))
    assert "token_file" in told


def hang_up(connection: socket.socket) -> None:
    connection.recv(1)


def answer_dicom(connection: socket.socket) -> None:
    connection.sendall(bytes([7, 0, 0, 0, 0, 4, 0, 0, 0, 0]))
    silent(connection)


def drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(100):
        connection.sendall(b" ")
        connection.settimeout(0.05)
        with suppress(TimeoutError):
            while connection.recv(1 << 16):
                pass


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (silent, "no answer in time"),
        (drip, "no answer in time"),
        (hang_up, "connection"),
        (answer_dicom, "the destination failed"),
    ],
)
def test_what_is_no_server_is_told(
    script: Callable[[socket.socket], None], words: str, objects: list[Path]
) -> None:
    with RawPeer(script) as peer:
        assert words in refuse(NodeError, objects, peer.url(timeout_s=BRIEF_S))


def test_an_answer_that_ends_early_is_told(objects: list[Path]) -> None:
    def script(connection: socket.socket) -> None:
        connection.settimeout(0.2)
        with suppress(TimeoutError):
            while connection.recv(1 << 16):
                pass
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")

    with RawPeer(script) as peer:
        assert "the destination failed" in refuse(NodeError, objects, peer.url(timeout_s=5.0))


def test_an_answer_before_the_end_of_the_request_is_heard(tmp_path: Path) -> None:
    large = make_large_object(tmp_path / "large.dcm", 32)

    def script(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        silent(connection)

    with RawPeer(script) as peer:
        assert "status 413" in refuse(UntakenError, [large], peer.url(timeout_s=10.0))


def test_a_large_object_is_never_whole_in_memory(tmp_path: Path) -> None:
    large = make_large_object(tmp_path / "large.dcm", 32)
    _, _, answer = answer_with(200, taken=uids([large]))
    taken = []

    def script(connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(1)
        left = next(int(line.split()[1]) for line in head.splitlines() if line.startswith(b"Content-Length"))
        taken.append(left)
        while left:
            left -= len(connection.recv(1 << 16))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))

    with RawPeer(script) as peer:
        tracemalloc.start()
        try:
            send_by_stow([large], peer.url(timeout_s=20.0))
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert taken[0] > 32 << 20
    assert most < 8 << 20


def test_nobody_at_the_port_is_told(objects: list[Path]) -> None:
    with free_port() as port:
        assert "connection refused" in refuse(NodeError, objects, Destination(url=f"http://{HOST}:{port}"))


def test_a_host_without_address_is_told(objects: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "its name has no address" in refuse(NodeError, objects, Destination(url="http://archive.test"))


def test_a_file_that_is_gone_is_told(objects: list[Path], tmp_path: Path) -> None:
    with StowPeer() as peer:
        told = refuse(UntakenError, [*objects, tmp_path / CANARY], peer.destination())
    assert "no such file" in told
    assert peer.requests == []


def test_it_stops_between_objects_when_asked_to(objects: list[Path]) -> None:
    asked = iter([False, True])
    with RawPeer(silent) as peer, pytest.raises(StoppedError):
        send_by_stow(objects, peer.url(), stopped=lambda: next(asked))


def test_a_missing_package_names_the_extra(objects: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "urllib3", None)
    with pytest.raises(MissingExtraError, match=r"bedside\[node\]"):
        send_by_stow(objects, Destination(url=f"http://{HOST}"))


def test_proxies_of_the_environment_are_not_used(
    objects: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with free_port() as port, StowPeer() as peer:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://{HOST}:{port}")
        send_by_stow(objects, peer.destination())
    assert len(peer.requests) == 1
