"""The file of the node's queue: its schema, and what is told where it can't be used."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from bedside.errors import OutputError
from bedside.node.entries import STATES
from bedside.node.look import Look
from bedside.node.queue import Queue
from bedside.node.tables import SCHEMA_VERSION
from made_queue import NIGHT, arrival, claim, made, ready


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    with Queue(tmp_path / "queue.db", tries=2) as made:
        yield made


class TestFile:
    def test_a_look_changes_nothing(self, tmp_path: Path) -> None:
        with Queue(tmp_path / "queue.db") as queue:
            ready(queue)
            with Look(tmp_path / "queue.db") as look:
                assert look.counts() == dict.fromkeys(STATES, 0) | {"ready": 1}
                with pytest.raises(sqlite3.OperationalError, match="readonly"):
                    look._connection.execute("DELETE FROM studies")

    def test_a_look_at_no_queue_makes_none(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="spool"):
            Look(tmp_path / "queue.db")
        assert list(tmp_path.iterdir()) == []

    def test_failure_inside_a_transaction_undoes_all_of_it(self, queue: Queue) -> None:
        study = ready(queue)
        work = claim(queue)
        with pytest.raises(sqlite3.IntegrityError):
            queue.finish(work.study, made("pacs", "pacs"), NIGHT)
        assert queue.study(study).state == "running"
        assert queue.paths() == {"in/1.2/0", "in/1.2/1"}

    @pytest.mark.parametrize(
        "content", [b"this is no database, and long enough to be none", b"SQLite format 3\0" + b"x" * 99]
    )
    def test_file_that_is_no_queue_is_refused(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "queue.db").write_bytes(content)
        with pytest.raises(OutputError, match="spool"):
            Queue(tmp_path / "queue.db")

    def test_queue_of_another_schema_is_refused(self, tmp_path: Path) -> None:
        made = sqlite3.connect(tmp_path / "queue.db")
        made.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        made.close()
        with pytest.raises(OutputError, match=f"schema {SCHEMA_VERSION + 1}"):
            Queue(tmp_path / "queue.db")

    def test_damage_is_told_in_one_line(self, tmp_path: Path) -> None:
        path = tmp_path / "queue.db"
        with Queue(path) as queue:
            queue.add(arrival(), "ct", NIGHT)
        content = bytearray(path.read_bytes())
        content[4096:] = b"\xa5" * (len(content) - 4096)  # all pages but the first, which holds the schema
        path.write_bytes(content)
        with Queue(path) as queue:
            for act in (queue.studies, lambda: queue.add(arrival(), "ct", NIGHT)):
                with pytest.raises(OutputError, match="damaged") as caught:
                    act()
                assert caught.value.code == "output-not-writable"

    def test_full_disk_is_told_and_loses_nothing(self, queue: Queue) -> None:
        study = ready(queue)
        pages = queue._connection.execute("PRAGMA page_count").fetchone()[0]
        queue._connection.execute(f"PRAGMA max_page_count = {pages}")

        def fill() -> None:
            for number in range(1000):
                queue.add(arrival(100 + number), "ct", NIGHT)

        with pytest.raises(OutputError) as caught:
            fill()
        assert caught.value.code == "disk-full"
        queue._connection.execute("PRAGMA max_page_count = 1000000")
        before = queue.study(study).instances
        assert queue.add(arrival(5000), "ct", NIGHT).instances == before + 1

    def test_transaction_of_another_process_is_waited_for_and_then_told(
        self, queue: Queue, tmp_path: Path
    ) -> None:
        queue._connection.execute("PRAGMA busy_timeout = 1")
        other = sqlite3.connect(tmp_path / "queue.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OutputError, match="another process"):
            queue.add(arrival(), "ct", NIGHT)
        other.execute("ROLLBACK")
        other.close()
        assert queue.add(arrival(), "ct", NIGHT).outcome == "new"
