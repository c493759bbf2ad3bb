"""The tables of the node's queue, and the connection that keeps them. Not for clinical use."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bedside.errors import OutputError

__all__ = ["SCHEMA_VERSION", "connect", "told", "transaction"]

SCHEMA_VERSION: Final = 1
"""Kept as ``PRAGMA user_version``."""

_BUSY_MS: Final = 10_000
"""How long a command of a person waits for the node's own transaction, milliseconds."""

_TABLES: Final = """
CREATE TABLE studies (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- no number is given twice: folders bear it
    unit TEXT NOT NULL,                 -- SeriesInstanceUID; a picture's own SOPInstanceUID where each is run by itself
    study TEXT NOT NULL,                -- StudyInstanceUID
    rule TEXT NOT NULL,                 -- name of the rule that it matched
    state TEXT NOT NULL CHECK (state IN ('received', 'ready', 'running', 'done', 'sent', 'failed')),
    generation INTEGER NOT NULL DEFAULT 1,  -- rises when late slices reopen it
    expected INTEGER,                   -- instances that make it complete, where the sender says so
    attempts INTEGER NOT NULL DEFAULT 0,    -- runs of this generation that were begun
    received_at REAL NOT NULL,          -- first instance; seconds since 1970, as all times here
    changed_at REAL NOT NULL,
    aged_from REAL NOT NULL DEFAULT 0,  -- running time at its last change: a clock that is set makes nothing old
    error_code TEXT,
    error_message TEXT,
    UNIQUE (unit, rule)
) STRICT;
CREATE INDEX studies_by_state ON studies (state, changed_at);
CREATE TABLE instances (
    study_id INTEGER NOT NULL REFERENCES studies (id) ON DELETE CASCADE,
    sop TEXT NOT NULL,                  -- SOPInstanceUID
    path TEXT NOT NULL,                 -- below the spool
    sha256 TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    received_at REAL NOT NULL,
    PRIMARY KEY (study_id, sop)
) STRICT, WITHOUT ROWID;
CREATE TABLE results (
    id INTEGER PRIMARY KEY,
    study_id INTEGER NOT NULL REFERENCES studies (id) ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    digest TEXT NOT NULL,               -- of the bundle
    path TEXT NOT NULL,                 -- folder below the spool
    made_at REAL NOT NULL,
    UNIQUE (study_id, generation, digest)
) STRICT;
CREATE TABLE deliveries (
    result_id INTEGER NOT NULL REFERENCES results (id) ON DELETE CASCADE,
    destination TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'sent', 'failed', 'superseded')),
    attempts INTEGER NOT NULL DEFAULT 0,
    next_at REAL NOT NULL,
    changed_at REAL NOT NULL,
    error_code TEXT,
    error_message TEXT,
    PRIMARY KEY (result_id, destination)
) STRICT, WITHOUT ROWID;
CREATE INDEX deliveries_by_state ON deliveries (state, next_at);
CREATE TABLE running (
    seconds REAL NOT NULL               -- for how long a node has had this queue open, in all
) STRICT;
INSERT INTO running VALUES (0);
CREATE TRIGGER study_came AFTER INSERT ON studies
BEGIN UPDATE studies SET aged_from = (SELECT seconds FROM running) WHERE id = NEW.id; END;
CREATE TRIGGER study_changed AFTER UPDATE OF changed_at ON studies
BEGIN UPDATE studies SET aged_from = (SELECT seconds FROM running) WHERE id = NEW.id; END;
"""


def connect(path: Path, *, writes: bool = True) -> sqlite3.Connection:
    """Open the queue's file, and make its tables where there are none.

    A commit is on the disk when it returns (write-ahead log, ``synchronous=FULL``).

    Raises:
        OutputError: ``output-not-writable``: not this schema's, no database, or not to be written.
    """
    connection = None
    try:
        where = f"{path.resolve().as_uri()}?mode={'rwc' if writes else 'ro'}"
        connection = sqlite3.connect(where, uri=True, isolation_level=None, timeout=_BUSY_MS / 1000)
        connection.row_factory = sqlite3.Row
        _set_up(connection, writes=writes)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if not isinstance(error, sqlite3.Error):
            raise
        raise OutputError(
            "output-not-writable",
            f"the queue can't be opened ({type(error).__name__}); give a spool folder that bedside made, or an empty "
            "one that it may write to",
        ) from error
    return connection


def _set_up(connection: sqlite3.Connection, *, writes: bool) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    if writes:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0 and writes:
        with transaction(connection):
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in _TABLES.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    elif version != SCHEMA_VERSION:
        raise OutputError(
            "output-not-writable",
            f"the queue is of schema {version} and this bedside reads {SCHEMA_VERSION}; use the version of bedside "
            "that made it, or give an empty spool",
        )


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing: a write transaction that is undone if the ``with`` block fails.

    Raises:
        OutputError: ``disk-full``; ``output-not-writable``.
    """
    with told():
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


@contextmanager
def told() -> Iterator[None]:
    """Turn what SQLite raises about its file into the OutputError that says what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise _operational(error) from error
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:  # a defect of ours, such as an IntegrityError
            raise
        raise OutputError(
            "output-not-writable",
            "the queue's file is damaged; stop the node, bring back a copy of the spool, or give an empty one",
        ) from error


def _operational(error: sqlite3.OperationalError) -> OutputError:
    full = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL" or "full" in str(error)
    if full:
        return OutputError(
            "disk-full", "the queue can't be written (no space); free space on the spool's disk"
        )
    name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
    return OutputError(
        "output-not-writable", f"the queue can't be used ({name}); another process may hold it"
    )
