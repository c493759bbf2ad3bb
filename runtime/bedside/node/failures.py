"""Why results did not reach a destination. Not for clinical use.

A destination that can't be reached, or does not take anything now, is told by a plain `NodeError`: nothing else is sent
to it for a while. One that answers and does not take these results is told by an `UntakenError`: others may well pass.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable

from bedside.errors import NodeError

__all__ = ["Stopped", "StoppedError", "UntakenError", "describe", "never"]

Stopped = Callable[[], bool]
"""Says whether the node is to end."""


class UntakenError(NodeError):
    """A destination that answers does not take these results; it may well take others."""


class StoppedError(Exception):
    """The node is to end; nothing is wrong with the destination or the results."""


def never() -> bool:
    """Nobody asks to stop."""
    return False


def describe(error: OSError) -> str:
    """What happened to a connection, and what to do, in words that name neither file nor patient."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not accepted ({error.verify_message.rstrip('.')}); check tls.authority, and that the "
            "certificate is of the host as the destination names it"
        )
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "it ended the connection"
        return f"TLS failed ({reason}); check that it speaks TLS and accepts our certificate"
    if isinstance(error, TimeoutError):
        return "no answer in time; check the network, or raise its timeout_s"
    if isinstance(error, socket.gaierror):
        return "its name has no address; check its host or url, and the name service"
    reason = os.strerror(error.errno).lower() if error.errno else "the connection was closed"
    return f"{reason}; check its host and port, or url, and that it runs"
