"""TLS with certificates on both sides, for what comes in and for what goes out. Not for clinical use."""

from __future__ import annotations

import os
import ssl
from typing import Final

from bedside.errors import InputError
from bedside.node.network import Tls

__all__ = ["make_context", "make_system_context"]

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: those with forward secrecy that authenticate what they encrypt (BCP 195: RFC 9325, 4.1 and 4.2). Those of
TLS 1.3 all do."""


def make_context(tls: Tls, *, server: bool) -> ssl.SSLContext:
    """TLS 1.2 and newer, in which both sides have to show a certificate that ``authority`` signed.

    As BCP 195 asks, and with it PS3.15, B.12. A client also makes sure that the certificate is of the host that it
    called.

    Args:
        tls: The files.
        server: Whether it is for those who come in.

    Raises:
        InputError: ``bad-config``: a file can't be used; the message names its key.
    """
    for name in ("certificate", "key", "authority"):
        try:
            with open(getattr(tls, name), "rb"):  # noqa: PTH123 - ssl opens it the same way, and hides why it can't
                pass
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", None)
            reason = os.strerror(number).lower() if number else "no such file"
            raise _unusable(name, f"can't be read ({reason}); check the path and its permissions") from error
    context = _restrict(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT))
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(tls.authority)
    except (OSError, ssl.SSLError) as error:
        raise _unusable("authority", "holds no certificate; give the authority's, as PEM") from error
    try:
        context.load_cert_chain(tls.certificate, tls.key, password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise _blame(tls, error) from error
    return context


def make_system_context() -> ssl.SSLContext:
    """TLS 1.2 and newer with a server whose certificate the system trusts, and none of our own."""
    return _restrict(ssl.create_default_context())


def _restrict(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    return context


def _blame(tls: Tls, error: Exception) -> InputError:
    """Which of certificate and key is wrong."""
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return _unusable("key", "is of another certificate; give the one of tls.certificate")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(tls.certificate)
    except (OSError, ssl.SSLError):
        return _unusable("certificate", "holds no certificate; give our own with its chain, as PEM")
    return _unusable("key", "can't be used; give the key of tls.certificate, as PEM and without a passphrase")


def _unusable(name: str, what: str) -> InputError:
    return InputError("bad-config", f"the file of tls.{name} {what}")
