"""TLS on both sides: who is let in, who is refused, and which file of the configuration is to blame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bedside.errors import InputError, NodeError
from bedside.node.certificates import make_context
from bedside.node.network import Destination
from bedside.node.store import send_by_store
from bedside.node.stow import send_by_stow
from made_peers import (
    Certificates,
    RawPeer,
    StorePeer,
    answer_http,
    data_set,
    make_certificates,
    make_objects,
    silent,
)
from made_stow import StowPeer

for package in ("pynetdicom", "urllib3"):
    pytest.importorskip(package, reason="needs the node extra")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_objects(tmp_path_factory.mktemp("objects"))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def refuse(files: list[Path], destination: Destination) -> str:
    """Send where it fails; returns what is told."""
    with pytest.raises(NodeError) as caught:
        send_by_store(files, destination, calling="BEDSIDE")
    return str(caught.value)


def refuse_by_web(files: list[Path], destination: Destination) -> str:
    with pytest.raises(NodeError) as caught:
        send_by_stow(files, destination)
    return str(caught.value)


def test_both_sides_show_a_certificate(objects: list[Path], certificates: Certificates) -> None:
    with StorePeer(tls=certificates.server) as peer:
        send_by_store(objects, peer.destination(tls=certificates.client), calling="BEDSIDE")
        by_name = replace(peer.destination(tls=certificates.client), host="localhost")
        send_by_store(objects, by_name, calling="BEDSIDE")
    assert [content for _, content in peer.received] == 2 * [data_set(path) for path in objects]


def test_a_server_of_another_authority_is_refused(objects: list[Path], certificates: Certificates) -> None:
    theirs = replace(
        certificates.server, certificate=certificates.stranger.certificate, key=certificates.stranger.key
    )
    with RawPeer(silent, tls=theirs) as peer:
        told = refuse(objects, peer.destination(tls=certificates.client))
    assert "its certificate is not accepted" in told
    assert "tls.authority" in told


def test_a_server_of_another_host_is_refused(objects: list[Path], certificates: Certificates) -> None:
    with RawPeer(silent, tls=certificates.elsewhere) as peer:
        told = refuse(objects, peer.destination(tls=certificates.client))
    assert "IP address mismatch" in told


def test_a_client_of_another_authority_is_refused(objects: list[Path], certificates: Certificates) -> None:
    with StorePeer(tls=certificates.server) as peer:
        refuse(objects, peer.destination(tls=certificates.stranger))
    assert not peer.received


def test_a_client_without_certificate_is_refused(objects: list[Path], certificates: Certificates) -> None:
    with StorePeer(tls=certificates.server) as peer:
        refuse(objects, peer.destination())
    assert not peer.received


def test_a_server_without_tls_is_told(objects: list[Path], certificates: Certificates) -> None:
    with RawPeer(answer_http) as peer:
        assert "TLS failed" in refuse(objects, peer.destination(tls=certificates.client))


def test_both_sides_show_a_certificate_over_http(objects: list[Path], certificates: Certificates) -> None:
    with StowPeer(tls=certificates.server) as peer:
        send_by_stow(objects, peer.destination(tls=certificates.client))
    assert peer.requests[0].objects == [path.read_bytes() for path in objects]


def test_the_scheme_may_be_in_capitals(objects: list[Path], certificates: Certificates) -> None:
    with StowPeer(tls=certificates.server) as peer:
        given = peer.destination(tls=certificates.client)
        send_by_stow(objects, replace(given, url=str(given.url).replace("https", "HTTPS")))
        refuse_by_web(objects, replace(given, url=str(given.url).replace("https", "HTTPS"), tls=None))
    assert len(peer.requests) == 1


def test_a_server_that_the_system_does_not_trust_is_refused(
    objects: list[Path], certificates: Certificates
) -> None:
    with StowPeer(tls=certificates.server) as peer:
        assert "its certificate is not accepted" in refuse_by_web(objects, peer.destination())
    assert peer.requests == []


def test_a_web_server_of_another_host_is_refused(objects: list[Path], certificates: Certificates) -> None:
    with StowPeer(tls=certificates.elsewhere) as peer:
        told = refuse_by_web(objects, peer.destination(tls=certificates.client))
    assert "IP address mismatch" in told
    assert peer.requests == []


def test_a_web_client_of_another_authority_is_refused(
    objects: list[Path], certificates: Certificates
) -> None:
    with StowPeer(tls=certificates.server) as peer:
        refuse_by_web(objects, peer.destination(tls=certificates.stranger))
    assert peer.requests == []


def test_old_tls_is_refused(certificates: Certificates) -> None:
    for server in (True, False):
        context = make_context(certificates.server, server=server)
        assert context.minimum_version.name == "TLSv1_2"
        weak = [suite["name"] for suite in context.get_ciphers() if not suite["aead"]]
        assert weak == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"certificate": "missing.pem"}, "tls.certificate can't be read (no such file or directory)"),
        ({"key": "missing.pem"}, "tls.key can't be read"),
        ({"authority": "missing.pem"}, "tls.authority can't be read"),
        ({"certificate": "text"}, "tls.certificate holds no certificate"),
        ({"key": "text"}, "tls.key can't be used"),
        ({"authority": "text"}, "tls.authority holds no certificate"),
        ({"authority": "a\0b"}, "tls.authority can't be read"),
        ({"key": "another"}, "tls.key is of another certificate"),
        ({"key": "encrypted"}, "tls.key can't be used"),
    ],
)
def test_a_file_that_can_not_be_used_is_named_by_its_key(
    wrong: dict[str, str], words: str, certificates: Certificates, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("no PEM")
    ((name, value),) = wrong.items()
    given = {"another": certificates.client.key, "encrypted": str(tmp_path / "encrypted")}
    if value == "encrypted":
        encrypt(Path(certificates.server.key), tmp_path / "encrypted")
    path = given.get(value, str(tmp_path / value))
    with pytest.raises(InputError) as caught:
        make_context(replace(certificates.server, **{name: path}), server=True)
    assert caught.value.code == "bad-config"
    assert words in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def encrypt(key: Path, target: Path) -> None:
    """The same key under a passphrase, which nobody may be asked for."""
    from cryptography.hazmat.primitives import serialization

    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    target.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
