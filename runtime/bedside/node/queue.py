"""The node's durable queue: what was received, and what became of it. Not for clinical use.

    received ──▶ ready ──▶ running ──▶ done ──▶ sent
        ▲          ▲          │
        │          └──────────┤ another try, or given back
        │                     └──▶ failed ──▶ ready (a person has it run again)
        └── late slices, and whole ones in place of cut ones, reopen every state; the generation rises

Each move is one transaction that is on the disk when it returns. What the process was doing when it was killed is told
by the state: a study that was running runs again, a delivery that was pending is sent again under the same SOP Instance
UIDs. One process writes; commands of a person come in between. Nothing but display and the age of a retry rests on the
times, so that a clock that jumps loses nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from bedside.errors import BedsideError
from bedside.node.entries import Arrival, Counted, Delivery, Made, State, Study, Work
from bedside.node.look import Look
from bedside.node.tables import transaction

__all__ = ["Queue"]

_BUSY: Final = (
    "state IN ('received', 'ready', 'running') OR EXISTS (SELECT 1 FROM results r JOIN deliveries d "
    "ON d.result_id = r.id WHERE r.study_id = studies.id AND d.state = 'pending')"
)
"""Of a study with which the node is not done."""


class Queue(Look):
    """The queue in one file.

    Args:
        path: The file; made where it is absent.
        tries: Runs of a study, and no more, until it is set aside as failed.

    Raises:
        OutputError: It can't be opened or written; ``disk-full``.
    """

    def __init__(self, path: Path, *, tries: int = 3) -> None:
        if tries < 1:
            raise ValueError("tries must be at least 1")
        self._tries = tries
        super().__init__(path, writes=True)

    # What comes in

    def add(
        self,
        arrival: Arrival,
        rule: str,
        at: float,
        *,
        expected: int | None = None,
        instead_of: str | None = None,
    ) -> Counted:
        """Count an instance to the study that it belongs to, which is reopened if it was complete.

        An instance that is there already changes nothing, whatever its content, unless it may be replaced.

        Args:
            arrival: The instance, on the disk.
            rule: The rule that it matched.
            at: Now.
            expected: Instances that make it complete.
            instead_of: SHA-256 of the content, as `Held.sha256`, whose place it takes if that is still there. The file
                of that is to be removed by the caller then: one that is left behind by a cut is found by `paths`.
        """
        with transaction(self._connection):
            held = self.find(arrival, rule)
            replaces = held is not None and held.sha256 == instead_of != arrival.sha256
            if held is not None and not replaces:
                return held.counted
            find = "SELECT * FROM studies WHERE unit = ? AND rule = ?"
            study = self._one(find, (arrival.unit, rule))
            if study is None:
                self._run(
                    "INSERT INTO studies (unit, study, rule, state, expected, received_at, changed_at) "
                    "VALUES (?, ?, ?, 'received', ?, ?, ?)",
                    (arrival.unit, arrival.study, rule, expected, at, at),
                )
                study = self._row(find, (arrival.unit, rule))
            self._run(
                "INSERT OR REPLACE INTO instances (study_id, sop, path, sha256, bytes, received_at) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (study["id"], arrival.sop, arrival.path, arrival.sha256, arrival.size, at),
            )
            if study["state"] == "received":
                self._run("UPDATE studies SET changed_at = ? WHERE id = ?", (at, study["id"]))
            else:
                self._reopen(study["id"], study["state"], at)
            count = self._row("SELECT count(*) AS n FROM instances WHERE study_id = ?", (study["id"],))["n"]
        return Counted("replaced" if replaces else "new", study["id"], count, study["expected"])

    def complete(self, study: int, at: float) -> bool:
        """No more is awaited: received becomes ready. False if it is not in that state."""
        with transaction(self._connection):
            return self._move(study, "received", "ready", at)

    # What is run

    def recover(self, at: float, *, free: bool = False) -> int:
        """Nothing runs: what was running is ready again, or set aside after its last try. Returns how many were.

        Args:
            at: Now.
            free: Whether the try does not count, since it was not the study that ended it.
        """
        with transaction(self._connection):
            running = self._rows("SELECT id, attempts FROM studies WHERE state = 'running'")
            for row in running:
                if free or row["attempts"] < self._tries:
                    self._move(row["id"], "running", "ready", at)
                    self._run(
                        "UPDATE studies SET attempts = attempts - ? WHERE id = ?", (int(free), row["id"])
                    )
                else:
                    self._move(row["id"], "running", "failed", at)
                    self._tell(
                        row["id"],
                        "engine-crashed",
                        "no run of this study came to an end, nor did the node meanwhile: each was cut off",
                    )
        return len(running)

    def claim(self, at: float, *, first: Collection[str] = ()) -> Work | None:
        """The study that has been ready longest, now running; None if there is none.

        Args:
            at: Now.
            first: Names of rules whose studies go before all others.
        """
        marks = ", ".join("?" * len(first))
        with transaction(self._connection):
            row = self._one(
                f"SELECT id FROM studies WHERE state = 'ready' ORDER BY rule NOT IN ({marks}), changed_at, id LIMIT 1",  # noqa: S608 - of this module
                tuple(first),
            )
            if row is None:
                return None
            self._move(row["id"], "ready", "running", at)
            self._run("UPDATE studies SET attempts = attempts + 1 WHERE id = ?", (row["id"],))
        return Work(self.study(row["id"]), self.instances(row["id"]))

    def finish(self, study: Study, made: Made, at: float) -> bool:
        """The results of a run are on the disk: running becomes done, and they wait for each destination.

        Args:
            study: As it was claimed.
            made: The results; where they hold no answer, they say why.
            at: Now.

        Returns:
            False if late slices reopened the study meanwhile: these results are of an earlier generation, and nothing
            was recorded.
        """
        with transaction(self._connection):
            return self._record(study, made, "done", at)

    def set_aside(self, study: Study, error: BedsideError, at: float, made: Made | None = None) -> bool:
        """No try is left, or none would be better: running becomes failed, until a person has it run again.

        Args:
            study: As it was claimed.
            error: What happened.
            at: Now.
            made: Results that say so, to be sent as any others.

        Returns:
            False if late slices reopened the study meanwhile.
        """
        with transaction(self._connection):
            if made is not None:
                moved = self._record(study, made, "failed", at)
            else:
                moved = self._is_current(study) and self._move(study.id, "running", "failed", at)
            if moved:
                self._tell(study.id, error.code, error.message)
        return moved

    def fail(self, study: Study, error: BedsideError, at: float) -> bool:
        """A run failed: ready for another try.

        Returns:
            False where that was its last try, which changes nothing: it is to be set aside.
        """
        with transaction(self._connection):
            if study.attempts >= self._tries and self._is_current(study):
                return False
            if self._is_current(study) and self._move(study.id, "running", "ready", at):
                self._tell(study.id, error.code, error.message)
        return True

    def give_back(self, study: Study, at: float) -> None:
        """A run was stopped by an orderly end of the node: ready again, and the try does not count."""
        with transaction(self._connection):
            if self._is_current(study) and self._move(study.id, "running", "ready", at):
                self._run("UPDATE studies SET attempts = attempts - 1 WHERE id = ?", (study.id,))

    # What goes out

    def delivered(self, delivery: Delivery, at: float) -> None:
        """A destination has it; with the last destination of the newest generation, done becomes sent."""
        with transaction(self._connection):
            self._run(
                "UPDATE deliveries SET state = 'sent', attempts = attempts + 1, changed_at = ?, error_code = NULL, "
                "error_message = NULL WHERE result_id = ? AND destination = ?",
                (at, delivery.result, delivery.destination),
            )
            waiting = self._row(
                "SELECT count(*) AS n FROM deliveries d JOIN results r ON r.id = d.result_id "
                "JOIN studies s ON s.id = r.study_id "
                "WHERE s.id = ? AND r.generation = s.generation AND d.state != 'sent'",
                (delivery.study,),
            )
            if waiting["n"] == 0:
                self._move(delivery.study, "done", "sent", at)

    def put_off(self, delivery: Delivery, error: BedsideError, at: float, *, next_at: float | None) -> None:
        """A destination did not take it: again at ``next_at``, or given up where that is None."""
        with transaction(self._connection):
            self._run(
                "UPDATE deliveries SET state = ?, attempts = attempts + 1, next_at = ?, changed_at = ?, "
                "error_code = ?, error_message = ? WHERE result_id = ? AND destination = ? AND state = 'pending'",
                (
                    "failed" if next_at is None else "pending",
                    at if next_at is None else next_at,
                    at,
                    error.code,
                    error.message,
                    delivery.result,
                    delivery.destination,
                ),
            )

    # What a person does

    def retry(self, study: int, at: float) -> bool:
        """Once more: a failed study runs again with all its tries, a failed delivery is due. False if nothing failed.

        Raises:
            OutputError: ``not-found``: there is no study of that number.
        """
        self.study(study)
        with transaction(self._connection):
            again = self._move(study, "failed", "ready", at)
            if again:
                self._supersede(study, at)
                self._run(
                    "UPDATE studies SET generation = generation + 1, attempts = 0, error_code = NULL, "
                    "error_message = NULL WHERE id = ?",
                    (study,),
                )
            due = self._run(
                "UPDATE deliveries SET state = 'pending', attempts = 0, next_at = ?, changed_at = ? "
                "WHERE state = 'failed' AND result_id IN (SELECT id FROM results WHERE study_id = ?)",
                (at, at, study),
            ).rowcount
        return again or due > 0

    def purge(self, before: float, states: Sequence[State] = ("sent",)) -> tuple[str, ...]:
        """Forget studies in these states that have not changed since ``before``, all of them.

        Args:
            before: Seconds since 1970.
            states: All that are forgotten, whatever waits to be sent of them.

        Returns:
            Files and folders below the spool that nothing refers to any more, to be removed by the caller: one that is
            left behind by a cut is found by `paths`.
        """
        marks = ", ".join("?" * len(states))
        return self._forget(f"changed_at < ? AND state IN ({marks})", (before, *states))

    def purge_studies(self, studies: Collection[int], *, force: bool = False) -> tuple[str, ...]:
        """Forget these studies. One that is gone is no error.

        Args:
            studies: Their numbers.
            force: Also those that are waited for, wait or run, or of which something waits to be sent.

        Returns:
            What `purge` does.
        """
        return self._forget(
            f"id IN (SELECT value FROM json_each(?)) AND (? OR NOT ({_BUSY}))",  # noqa: S608 - of this module
            (json.dumps([*studies]), force),
        )

    def age(self, seconds: float) -> None:
        """The node ran for so long since it said so last."""
        with transaction(self._connection):
            self._run("UPDATE running SET seconds = seconds + ?", (seconds,))

    def expire(self, finished_s: float, failed_s: float) -> tuple[str, ...]:
        """Forget what is old: sent, or done with nobody to send it to; and what failed, or could not be sent.

        What waits to be run or sent is kept.

        Args:
            finished_s: Seconds of running time, as `age` counts it, that the first stays. No clock that is set makes a
                study old.
            failed_s: The same of the second.

        Returns:
            What `purge` does.
        """
        deliveries = (
            "SELECT 1 FROM results r JOIN deliveries d ON d.result_id = r.id WHERE r.study_id = studies.id"
        )
        old = "aged_from <= (SELECT seconds FROM running) - ?"
        gone = self._forget(
            f"{old} AND (state = 'sent' OR state = 'done' AND NOT EXISTS ({deliveries}))", (finished_s,)
        )
        return gone + self._forget(
            f"{old} AND state IN ('done', 'failed') AND NOT EXISTS ({deliveries} AND d.state = 'pending')",
            (failed_s,),
        )

    def _forget(self, where: str, values: tuple[object, ...]) -> tuple[str, ...]:
        with transaction(self._connection):
            ids = [row["id"] for row in self._rows(f"SELECT id FROM studies WHERE {where}", values)]  # noqa: S608 - of this module
            gone: list[str] = []
            for study in ids:
                gone += [
                    r["path"] for r in self._rows("SELECT path FROM instances WHERE study_id = ?", (study,))
                ]
                gone += [
                    r["path"] for r in self._rows("SELECT path FROM results WHERE study_id = ?", (study,))
                ]
                self._run("DELETE FROM studies WHERE id = ?", (study,))
            left = self.paths()
        return tuple(path for path in dict.fromkeys(gone) if path not in left)

    def _record(self, study: Study, made: Made, state: State, at: float) -> bool:
        if not self._is_current(study):
            return False
        result = self._run(
            "INSERT INTO results (study_id, generation, digest, path, made_at) VALUES (?, ?, ?, ?, ?)",
            (study.id, study.generation, made.digest, made.path, at),
        ).lastrowid
        self._connection.executemany(
            "INSERT INTO deliveries (result_id, destination, state, next_at, changed_at) "
            "VALUES (?, ?, 'pending', ?, ?)",
            [(result, name, at, at) for name in made.destinations],
        )
        self._move(study.id, "running", state, at)
        error = made.error
        self._tell(study.id, None if error is None else error.code, None if error is None else error.message)
        return True

    def _is_current(self, study: Study) -> bool:
        """Whether it still runs as it was claimed."""
        now = self._one("SELECT state, generation FROM studies WHERE id = ?", (study.id,))
        return now is not None and (now["state"], now["generation"]) == ("running", study.generation)

    def _reopen(self, study: int, state: str, at: float) -> None:
        late = state != "ready"
        self._run(
            "UPDATE studies SET state = 'received', generation = generation + ?, attempts = 0, changed_at = ?, "
            "error_code = NULL, error_message = NULL WHERE id = ?",
            (int(late), at, study),
        )
        self._supersede(study, at)

    def _supersede(self, study: int, at: float) -> None:
        """Do not begin to send what will soon be old."""
        self._run(
            "UPDATE deliveries SET state = 'superseded', changed_at = ? WHERE state = 'pending' AND attempts = 0 "
            "AND result_id IN (SELECT id FROM results WHERE study_id = ?)",
            (at, study),
        )

    def _move(self, study: int, before: State, after: State, at: float) -> bool:
        moved = self._run(
            "UPDATE studies SET state = ?, changed_at = ? WHERE id = ? AND state = ?",
            (after, at, study, before),
        )
        return moved.rowcount == 1

    def _tell(self, study: int, code: str | None, message: str | None) -> None:
        self._run("UPDATE studies SET error_code = ?, error_message = ? WHERE id = ?", (code, message, study))

    def _row(self, statement: str, values: tuple[object, ...]) -> sqlite3.Row:
        """The row of a question that always has one."""
        return self._rows(statement, values)[0]

    def _run(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)
