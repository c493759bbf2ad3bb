"""Which generator issues the queries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from bedside.bench.loadgen import PACKAGE, LoadgenTraffic, find_loadgen
from bedside.bench.scenarios import OFFLINE, SERVER, STREAM
from bedside.bench.traffic import Clock, Load, OfflineTraffic, ServerTraffic, StreamTraffic, Traffic
from bedside.errors import MissingExtraError
from bedside.results import prepare_folder

__all__ = ["CHOICES", "Generators"]

CHOICES: Final = ("auto", "loadgen", "bedside")
"""``loadgen``: MLPerf's own; ``bedside``: the same rules; ``auto``: MLPerf's own where it is installed."""
OURS: Final[dict[str, Callable[[Load, Clock], Traffic]]] = {
    STREAM: StreamTraffic,
    OFFLINE: OfflineTraffic,
    SERVER: ServerTraffic,
}
THEIRS: Final = {STREAM: "SingleStream", OFFLINE: "Offline", SERVER: "Server"}


class Generators:
    """Makes queries by the generator that was chosen.

    Args:
        choice: One of `CHOICES`.
        scratch: Folder for logs, which exists.
        check: Called while something waits; what it raises ends the wait.

    Raises:
        MissingExtraError: MLPerf's own is asked for, and is not installed.
    """

    def __init__(self, choice: str, scratch: Path, check: Callable[[], None]) -> None:
        self._theirs = choice != "bedside" and find_loadgen() is not None
        if choice == "loadgen" and not self._theirs:
            raise MissingExtraError.of(PACKAGE, "bench", "MLPerf's own load generator")
        self._scratch = scratch
        self._check = check
        self._made = 0
        self.clock = Clock(check)
        """What waits."""

    def make(self, scenario: str, load: Load) -> Traffic:
        """The queries of a scenario.

        Raises:
            OutputError: There is no place for logs.
            BackendError: ``engine-crashed`` if MLPerf's generator dies.
        """
        if not self._theirs:
            return OURS[scenario](load, self.clock)
        self._made += 1
        logs = prepare_folder(self._scratch / f"loadgen-{self._made}")
        return LoadgenTraffic(THEIRS[scenario], load, logs, self._check)
