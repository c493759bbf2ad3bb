"""The node's queue, read. Not for clinical use."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from bedside.errors import OutputError
from bedside.node.entries import STATES, Arrival, Counted, Delivery, Held, Instance, Shipment, State, Study
from bedside.node.tables import connect, told

__all__ = ["Look"]

_Self = TypeVar("_Self", bound="Look")


class Look:
    """A look at the queue, which changes nothing.

    Args:
        path: The queue's file.
        writes: For `Queue`: the file is made where it is absent.

    Raises:
        OutputError: It can't be opened; what follows raises one too, where the file can't be read.
    """

    def __init__(self, path: Path, *, writes: bool = False) -> None:
        self._connection = connect(path, writes=writes)

    def __enter__(self: _Self) -> _Self:  # noqa: PYI019 - typing.Self is of Python 3.11
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; nothing is lost that was told."""
        self._connection.close()

    def study(self, study: int) -> Study:
        """One study.

        Raises:
            OutputError: ``not-found``: there is none of that number.
        """
        found = self._studies("WHERE s.id = ?", (study,))
        if not found:
            raise OutputError("not-found", f"the queue has no study {study}; `bedside queue list` names them")
        return found[0]

    def studies(self, states: Collection[State] = STATES) -> tuple[Study, ...]:
        """All studies in these states, the one that changed last at the end."""
        marks = ", ".join("?" * len(states))
        return self._studies(f"WHERE s.state IN ({marks})", tuple(states))

    def find(self, arrival: Arrival, rule: str) -> Held | None:
        """What is there under the UID of an arrival; None if nothing is.

        Args:
            arrival: The instance.
            rule: The rule that it matched.
        """
        row = self._one(
            "SELECT s.id, s.expected, i.path, i.sha256, "
            "(SELECT count(*) FROM instances WHERE study_id = s.id) AS n "
            "FROM studies s JOIN instances i ON i.study_id = s.id WHERE s.unit = ? AND s.rule = ? AND i.sop = ?",
            (arrival.unit, rule, arrival.sop),
        )
        if row is None:
            return None
        same = row["sha256"] == arrival.sha256
        counted = Counted("known" if same else "other-pixels", row["id"], row["n"], row["expected"])
        return Held(counted, row["path"], row["sha256"])

    def instances(self, study: int) -> tuple[Instance, ...]:
        """The instances of a study, in order of arrival."""
        rows = self._rows(
            "SELECT sop, path, bytes FROM instances WHERE study_id = ? ORDER BY received_at, sop", (study,)
        )
        return tuple(Instance(row["sop"], row["path"], row["bytes"]) for row in rows)

    def shipments(self, study: int) -> tuple[Shipment, ...]:
        """Each result of a study and each of its deliveries, the newest at the end."""
        rows = self._rows(
            "SELECT r.generation, r.digest, r.path, d.destination, d.state, d.attempts, d.next_at, d.error_code, "
            "d.error_message FROM results r LEFT JOIN deliveries d ON d.result_id = r.id WHERE r.study_id = ? "
            "ORDER BY r.id, d.destination",
            (study,),
        )
        return tuple(Shipment(*row) for row in rows)

    def due(self, at: float, *, longest_wait: float, destination: str | None = None) -> Delivery | None:
        """The delivery that should be tried now; None if there is none.

        Args:
            at: Now.
            longest_wait: Seconds that no delivery waits longer than: one further away was set by a clock that jumped.
            destination: Only to this one.
        """
        row = self._one(
            "SELECT d.*, r.study_id, r.path FROM deliveries d JOIN results r ON r.id = d.result_id "
            "WHERE d.state = 'pending' AND (d.next_at <= ? OR d.next_at > ?) AND (? IS NULL OR d.destination = ?) "
            "ORDER BY d.next_at, d.result_id LIMIT 1",
            (at, at + longest_wait, destination, destination),
        )
        if row is None:
            return None
        return Delivery(row["result_id"], row["destination"], row["study_id"], row["path"], row["attempts"])

    def paths(self) -> frozenset[str]:
        """All that the queue refers to below the spool: what else lies there was left by a cut."""
        rows = self._rows("SELECT path FROM instances UNION SELECT path FROM results")
        return frozenset(row["path"] for row in rows)

    def counts(self) -> dict[State, int]:
        """How many studies are in each state."""
        rows = self._rows("SELECT state, count(*) AS n FROM studies GROUP BY state")
        found = {row["state"]: row["n"] for row in rows}
        return {state: int(found.get(state, 0)) for state in STATES}

    def unsent(self) -> dict[str, dict[str, int]]:
        """Destination -> state -> how many deliveries are ``pending`` or ``failed``."""
        found: dict[str, dict[str, int]] = {}
        for row in self._rows(
            "SELECT destination, state, count(*) AS n FROM deliveries WHERE state IN ('pending', 'failed') "
            "GROUP BY 1, 2"
        ):
            found.setdefault(row["destination"], {"pending": 0, "failed": 0})[row["state"]] = row["n"]
        return found

    def backlog(self) -> dict[int, dict[str, tuple[str, ...]]]:
        """Number of a study -> ``pending`` or ``failed`` -> destinations that have not got all of its results."""
        found: dict[int, dict[str, tuple[str, ...]]] = {}
        for row in self._rows(
            "SELECT DISTINCT r.study_id, d.state, d.destination FROM deliveries d JOIN results r ON r.id = d.result_id "
            "WHERE d.state IN ('pending', 'failed') ORDER BY 1, 2, 3"
        ):
            states = found.setdefault(row["study_id"], {})
            states[row["state"]] = (*states.get(row["state"], ()), row["destination"])
        return found

    def _studies(self, where: str, values: tuple[object, ...]) -> tuple[Study, ...]:
        rows = self._rows(
            "SELECT s.*, count(i.sop) AS instances, coalesce(sum(i.bytes), 0) AS size FROM studies s "  # noqa: S608 - of this module
            f"LEFT JOIN instances i ON i.study_id = s.id {where} GROUP BY s.id ORDER BY s.changed_at, s.id",
            values,
        )
        return tuple(Study(**{name: row[name] for name in Study.__slots__}) for row in rows)

    def _one(self, statement: str, values: tuple[object, ...]) -> sqlite3.Row | None:
        return next(iter(self._rows(statement, values)), None)

    def _rows(self, statement: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        with told():
            return self._connection.execute(statement, values).fetchall()
