"""What ``node.toml`` says of the network: who may come in, who gets results. Not for clinical use."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

__all__ = ["Destination", "Health", "Limits", "Peer", "Receiver", "Tls", "check_given", "check_over"]

_AE_TITLE: Final = re.compile(r"(?=.*[^ ])[ -\[\]-~]{1,16}")
"""Value representation AE (PS3.5, 6.2): 16 characters of the default repertoire without backslash and controls, and not
all of them blank."""


MOST_CONNECTIONS: Final = 500
"""select(2) knows no descriptor over 1023, and pynetdicom calls it."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates, PEM files. Both sides show theirs: without ``authority`` nobody comes in."""

    certificate: str
    """Own certificate with its chain."""
    key: str
    """Own key."""
    authority: str
    """Certificates of those who sign the others'."""

    def __post_init__(self) -> None:
        """Check what types alone do not say."""
        check_given(self, "certificate", "key", "authority")


@dataclass(frozen=True, slots=True)
class Peer:
    """Who may send."""

    ae_title: str
    """Calling AE title."""
    address: str = "0.0.0.0/0"
    """Address, or network in CIDR form."""

    def __post_init__(self) -> None:
        """Check what types alone do not say."""
        _check_title("ae_title", self.ae_title)
        try:
            ipaddress.ip_network(self.address, strict=False)
        except ValueError as error:
            raise ValueError(
                f"address {self.address[:40]!r} is no IP address and no network such as 10.1.0.0/16"
            ) from error


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sender may ask for."""

    associations: int = 10
    """At the same time, of all senders; more are rejected, and may come again."""
    connections: int = 100
    """At the same time, of all senders and with those that have not said yet what they want; more are closed."""
    connections_per_address: int = 20
    """The same of one address."""
    request_s: float = 10.0
    """Seconds in which a connection has to ask for an association."""
    idle_s: float = 60.0
    """Seconds that an association may be silent, and that a PDU may take."""
    pdu_bytes: int = 262_144
    """Greatest PDU that is taken, bytes."""
    object_mib: float = 2048.0
    """Greatest object, MiB."""
    instances_per_minute: int = 60_000
    """Of one sender; who is faster has to wait for the answer."""

    def __post_init__(self) -> None:
        """Check what types alone do not say."""
        check_over(self, *self.__slots__)
        if not 4096 <= self.pdu_bytes <= 1 << 24:
            raise ValueError("pdu_bytes must be 4096 to 16777216")
        if self.connections > MOST_CONNECTIONS:
            raise ValueError(f"connections must be at most {MOST_CONNECTIONS}")


@dataclass(frozen=True, slots=True)
class Receiver:
    """The Storage SCP."""

    ae_title: str = "BEDSIDE"
    """Its own title; others' calls are rejected."""
    address: str = "127.0.0.1"
    """Interface to listen on."""
    port: int = 11112
    """TCP port; 2762 is the registered one with TLS."""
    allow: tuple[Peer, ...] = ()
    """Who may send; nobody if empty."""
    tls: Tls | None = None
    """Certificates; without, DICOM goes over the network in the clear."""
    limits: Limits = field(default_factory=Limits)
    """What one sender may ask for."""

    def __post_init__(self) -> None:
        """Check what types alone do not say."""
        _check_title("ae_title", self.ae_title)
        _check_interface(self.address)
        _check_port(self.port)


@dataclass(frozen=True, slots=True)
class Destination:
    """Who gets results: by C-STORE (``ae_title``, ``host``, ``port``) or by STOW-RS (``url``)."""

    ae_title: str | None = None
    """Called AE title."""
    host: str | None = None
    """Name or address."""
    port: int = 104
    """TCP port."""
    url: str | None = None
    """Of the DICOMweb service; ``/studies`` is added."""
    token_file: str | None = None
    """File with the bearer token for ``url``."""
    calling_ae_title: str | None = None
    """Own title towards it; that of the receiver if None."""
    tls: Tls | None = None
    """Certificates; for ``https`` without, those that the system trusts, and none of our own."""
    tries: int = 100
    """Until it is given up, which `bedside queue` tells and can undo."""
    first_wait_s: float = 10.0
    """Before the second try; doubled each time."""
    longest_wait_s: float = 3600.0
    """At most."""
    timeout_s: float = 30.0
    """For an answer."""

    def __post_init__(self) -> None:
        """Check what types alone do not say."""
        if (self.url is None) == (self.host is None):
            raise ValueError("it has to have either host, port and ae_title, or url")
        check_over(self, "tries", "first_wait_s", "longest_wait_s", "timeout_s")
        if self.url is not None:
            self._check_url(self.url)
        else:
            check_given(self, "host")
            if self.ae_title is None:
                raise ValueError("ae_title is missing, which a host needs")
            if self.token_file is not None:
                raise ValueError("token_file is for a url, not for a host")
            _check_port(self.port)
        for name in ("ae_title", "calling_ae_title"):
            title = getattr(self, name)
            if title is not None:
                _check_title(name, title)

    def _check_url(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError as error:
            raise ValueError("url is none: its host or port can't be read") from error
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("url must begin with https:// or http:// and a host")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("url must have no user, query or fragment; a token goes into token_file")
        for name in ("tls", "token_file"):
            if getattr(self, name) is not None and parts.scheme != "https":
                raise ValueError(f"{name} needs a url that begins with https://")
        for name in ("ae_title", "calling_ae_title"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} is for a host, not for a url")


@dataclass(frozen=True, slots=True)
class Health:
    """Where metrics and health are told, over HTTP."""

    address: str = "127.0.0.1"
    """Interface to listen on."""
    port: int = 9112
    """TCP port."""

    def __post_init__(self) -> None:
        """Check what types alone do not say."""
        _check_interface(self.address)
        _check_port(self.port)


def check_over(record: object, *names: str) -> None:
    """Refuse a record one of whose numbers is not over 0.

    Raises:
        ValueError: Begins with its name.
    """
    for name in names:
        if not getattr(record, name) > 0:
            raise ValueError(f"{name} must be more than 0")


def check_given(record: object, *names: str) -> None:
    """Refuse a record one of whose texts is blank.

    Raises:
        ValueError: Begins with its name.
    """
    for name in names:
        if not getattr(record, name).strip():
            raise ValueError(f"{name} is empty")


def _check_interface(address: str) -> None:
    try:
        ipaddress.ip_address(address)
    except ValueError as error:
        raise ValueError(
            f"address {address[:40]!r} is no IP address; 0.0.0.0 stands for all of this machine"
        ) from error


def _check_port(port: int) -> None:
    if not 0 < port < 65536:
        raise ValueError(f"port {port} must be 1 to 65535")


def _check_title(name: str, title: str) -> None:
    if not _AE_TITLE.fullmatch(title):
        raise ValueError(f"{name} {title[:20]!r} must be 1 to 16 printable characters without a backslash")
