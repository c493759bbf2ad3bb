"""Who may come in, how many at a time, and how fast. Not for clinical use."""

from __future__ import annotations

import ipaddress
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Final

from bedside.node.network import Limits, Peer

__all__ = ["Gate", "Rejection"]

_MINUTE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an association is not accepted: A-ASSOCIATE-RJ (PS3.8, table 9-21)."""

    reason: str
    """For logs and metrics."""
    result: int
    """1: for good; 2: for now."""
    source: int
    """1: this application; 3: what carries it."""
    diagnostic: int
    """Of the source."""


CALLING_UNKNOWN: Final = Rejection("calling-title", 1, 1, 3)
CALLED_UNKNOWN: Final = Rejection("called-title", 1, 1, 7)
TOO_MANY: Final = Rejection("too-many", 2, 3, 2)
NO_SPACE: Final = Rejection("no-space", 2, 3, 2)
ENDING: Final = Rejection("ending", 2, 3, 1)


class Gate:
    """Keeps count of who is in.

    Args:
        own_title: AE title that must be called.
        peers: Who may send.
        limits: How much.
        clock: Seconds that only rise.
    """

    def __init__(
        self,
        own_title: str,
        peers: Sequence[Peer],
        limits: Limits,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own_title = own_title.strip()
        self._peers = [
            (peer.ae_title.strip(), ipaddress.ip_network(peer.address, strict=False)) for peer in peers
        ]
        self._limits = limits
        self._clock = clock
        self._lock = Lock()
        self._connections: Counter[str] = Counter()
        self._next_at: dict[str, float] = {}

    def knows(self, address: str) -> bool:
        """Whether anyone at this address may send."""
        here = _parse(address)
        return any(here in network for _, network in self._peers)

    def enter(self, address: str) -> bool:
        """Count a connection in; False, and not counted, where it may not come in."""
        if not self.knows(address):
            return False
        with self._lock:
            if (
                self._connections.total() >= self._limits.connections
                or self._connections[address] >= self._limits.connections_per_address
            ):
                return False
            self._connections[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Count a connection out."""
        with self._lock:
            self._connections[address] -= 1
            if not self._connections[address]:
                del self._connections[address]

    @property
    def connections(self) -> int:
        """How many are in."""
        with self._lock:
            return self._connections.total()

    def judge(
        self, calling: str, called: str, address: str, *, associations: int, has_space: bool
    ) -> Rejection | None:
        """Why an association is to be rejected; None if it is welcome.

        Args:
            calling: AE title of who asks.
            called: AE title that is asked for.
            address: Where from.
            associations: How many there are already.
            has_space: Whether there is space for what it sends.
        """
        here = _parse(address)
        if not any(calling.strip() == title and here in network for title, network in self._peers):
            return CALLING_UNKNOWN
        if called.strip() != self._own_title:
            return CALLED_UNKNOWN
        if not has_space:
            return NO_SPACE
        return TOO_MANY if associations >= self._limits.associations else None

    def wait_s(self, calling: str) -> float:
        """Count an instance of a sender; returns how many seconds its answer has to wait, to keep the sender's rate."""
        step = _MINUTE_S / self._limits.instances_per_minute
        with self._lock:
            now = self._clock()
            # Of what was not used, as much as a second's worth may be made up for.
            due = max(self._next_at.get(calling, 0.0), now - 1.0)
            self._next_at[calling] = due + step
        return max(0.0, due - now)


def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address; IPv4 inside of IPv6 as what it is."""
    here = ipaddress.ip_address(address.partition("%")[0])
    mapped = here.ipv4_mapped if isinstance(here, ipaddress.IPv6Address) else None
    return mapped or here
