"""The audit log: whole lines on the disk, marks instead of identifiers, months that are forgotten."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from bedside.errors import BackendError, OutputError
from bedside.node.audit import Audit
from command_line import environment
from hindered_writing import file_size_limit

UID = "1.2.826.0.1.3680043.8.498.777"
DAY_S = 86_400.0


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, *day: int) -> None:
        self.now = 0.0
        self.set(*day)

    def set(self, *day: int) -> None:
        self.now = datetime(*day, tzinfo=timezone.utc).timestamp()  # type: ignore[arg-type,misc]  # year, month, day

    def __call__(self) -> float:
        return self.now


def open_audit(folder: Path, clock: Clock | None = None, keep_days: float = 365.0) -> Audit:
    """An audit log whose process runs as long as the clock says."""
    clock = clock or Clock(2026, 11, 22)
    return Audit(folder / "audit", keep_days=keep_days, clock=clock, running=lambda: clock.now)


def lines(folder: Path, month: str = "2026-11") -> list[dict[str, Any]]:
    content = (folder / "audit" / f"audit-{month}.jsonl").read_text("ascii")
    assert content.endswith("\n")
    return [json.loads(line) for line in content.splitlines()]


def months(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "audit").glob("*.jsonl"))


def test_event_is_a_line_with_time_and_facts(tmp_path: Path) -> None:
    clock = Clock(2026, 11, 22)
    with open_audit(tmp_path, clock) as audit:
        audit.write("received", number=7, instance=audit.mark(UID), code=None)
        clock.now += 1.5
        audit.write("sent", seconds=0.25, destination="pacs\nother")
        assert lines(tmp_path) == [
            {
                "time": "2026-11-22T00:00:00.000Z",
                "event": "received",
                "number": 7,
                "instance": audit.mark(UID),
                "code": None,
            },
            {
                "time": "2026-11-22T00:00:01.500Z",
                "event": "sent",
                "seconds": 0.25,
                "destination": "pacs\nother",
            },
        ]


def test_mark_is_the_same_for_a_uid_and_says_nothing_of_it(tmp_path: Path) -> None:
    with open_audit(tmp_path) as audit, open_audit(tmp_path) as again:
        mark = audit.mark(UID)
        assert len(mark) == 16
        assert int(mark, 16) >= 0
        assert again.mark(UID) == mark
        assert audit.mark(f"{UID}.1") != mark
    with open_audit(tmp_path / "other") as other:
        assert other.mark(UID) != mark


def test_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        open_audit(tmp_path).close()
    finally:
        os.umask(before)
    key = tmp_path / "audit" / "key"
    content = key.read_bytes()
    assert (len(content), stat.S_IMODE(key.stat().st_mode)) == (32, 0o600)
    open_audit(tmp_path).close()
    assert key.read_bytes() == content
    assert [path.name for path in key.parent.iterdir()] == ["key"]


def test_damaged_key_is_told(tmp_path: Path) -> None:
    open_audit(tmp_path).close()
    (tmp_path / "audit" / "key").write_bytes(b"short")
    with pytest.raises(OutputError, match="key of the audit log is damaged"):
        open_audit(tmp_path)


def test_line_that_a_cut_left_is_closed_and_no_later_one_is_damaged(tmp_path: Path) -> None:
    with open_audit(tmp_path) as audit:
        audit.write("started")
    path = tmp_path / "audit" / "audit-2026-11.jsonl"
    path.write_bytes(path.read_bytes() + b'{"time": "2026-11-22T00:00:0')
    for event in ("started", "stopped"):
        with open_audit(tmp_path) as audit:
            audit.write(event)
    first, torn, *rest = path.read_text().splitlines()
    assert json.loads(first)["event"] == "started"
    assert torn == '{"time": "2026-11-22T00:00:0'
    assert [json.loads(line)["event"] for line in rest] == ["started", "stopped"]


def test_lines_of_many_threads_are_whole(tmp_path: Path) -> None:
    with open_audit(tmp_path) as audit:

        def tell(thread: int) -> None:
            for number in range(20):
                audit.write("received", thread=thread, number=number, text="x" * 500)

        threads = [Thread(target=tell, args=(thread,)) for thread in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    told = [(line["thread"], line["number"]) for line in lines(tmp_path)]
    assert sorted(told) == [(thread, number) for thread in range(4) for number in range(20)]


def test_each_month_has_its_file_and_a_clock_that_goes_back_goes_on_in_the_old_one(tmp_path: Path) -> None:
    clock = Clock(2026, 12, 31)
    with open_audit(tmp_path, clock) as audit:
        for day in ((2026, 12, 31), (2027, 1, 1), (2026, 12, 31)):
            clock.set(*day)
            audit.write("started")
    assert months(tmp_path) == ["audit-2026-12.jsonl", "audit-2027-01.jsonl"]
    assert (len(lines(tmp_path, "2026-12")), len(lines(tmp_path, "2027-01"))) == (2, 1)


def test_months_that_ended_too_long_ago_are_forgotten(tmp_path: Path) -> None:
    clock = Clock(2026, 1, 15)
    with open_audit(tmp_path, clock, keep_days=30) as audit:
        for month in range(1, 5):
            clock.set(2026, month, 15)
            audit.write("started")
        for name in ("notes.txt", "audit-2025-13.jsonl", "audit-9999-12.jsonl"):
            (tmp_path / "audit" / name).touch()
        clock.set(2026, 3, 2)  # 29 days after the end of January
        assert audit.expire() == 0
        clock.now += DAY_S
        assert audit.expire() == 1
        clock.set(2026, 4, 30)
        assert audit.expire() == 1
    assert months(tmp_path) == [
        "audit-2025-13.jsonl",
        "audit-2026-03.jsonl",
        "audit-2026-04.jsonl",
        "audit-9999-12.jsonl",
    ]
    assert (tmp_path / "audit" / "key").exists()


def test_clock_that_jumps_makes_no_month_old(tmp_path: Path) -> None:
    clock, running = Clock(2026, 1, 15), Clock(1970, 1, 2)
    with Audit(tmp_path / "audit", keep_days=30, clock=clock, running=running) as audit:
        audit.write("started")
        running.now += 60
        clock.set(2036, 1, 15)
        audit.write("received")
        assert audit.expire() == 0
        for each in (clock, running):
            each.now += DAY_S - 1
        assert audit.expire() == 0
        clock.set(2026, 1, 17)  # set right, in time
        assert audit.expire() == 0
    assert months(tmp_path) == ["audit-2026-01.jsonl", "audit-2036-01.jsonl"]


def test_clock_that_has_gone_evenly_for_a_day_is_believed(tmp_path: Path) -> None:
    clock, running = Clock(2026, 1, 15), Clock(1970, 1, 2)
    with Audit(tmp_path / "audit", keep_days=30, clock=clock, running=running) as audit:
        audit.write("started")
        clock.set(2027, 1, 15)
        audit.write("received")
        assert audit.expire() == 0
        for _ in range(24):
            for each in (clock, running):
                each.now += 3600
            gone = audit.expire()
        assert gone == 1
    assert months(tmp_path) == ["audit-2027-01.jsonl"]


def test_month_that_is_written_is_never_forgotten(tmp_path: Path) -> None:
    clock = Clock(2026, 1, 15)
    with open_audit(tmp_path, clock, keep_days=0) as audit:
        audit.write("started")
        clock.set(2030, 1, 1)
        assert audit.expire() == 0
        audit.write("stopped")
        assert audit.expire() == 1


def test_full_disk_is_told_and_leaves_no_half_line(tmp_path: Path) -> None:
    with open_audit(tmp_path) as audit:
        audit.write("started")
        size = (tmp_path / "audit" / "audit-2026-11.jsonl").stat().st_size
        with file_size_limit(size + 20), pytest.raises(OutputError) as caught:
            audit.write("received", number=1)
        assert caught.value.code == "disk-full"
        audit.write("received", number=2)
    assert [line.get("number") for line in lines(tmp_path)] == [None, 2]


def test_folder_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "audit").write_bytes(b"")
    with pytest.raises(OutputError) as caught:
        open_audit(tmp_path)
    assert caught.value.code == "output-not-writable"


def test_file_is_not_readable_for_others(tmp_path: Path) -> None:
    with open_audit(tmp_path) as audit:
        audit.write("started")
    assert stat.S_IMODE((tmp_path / "audit" / "audit-2026-11.jsonl").stat().st_mode) & 0o077 == 0


KILLED = """
import os, sys
from pathlib import Path
from bedside.node.audit import Audit
audit = Audit(Path(sys.argv[1]), keep_days=1, clock=lambda: 1795305600.0)
audit.write("received", number=1)
os.kill(os.getpid(), 9)
"""


def test_line_is_there_after_a_kill(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "audit")], env=environment(), check=False
    )
    assert done.returncode == -signal.SIGKILL
    (line,) = lines(tmp_path)
    assert line["number"] == 1


def test_no_identifier_reaches_the_audit_log_the_log_or_the_metrics(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All that a node tells of a study, whose every text is a canary."""
    pytest.importorskip("prometheus_client", reason="needs the extra 'node'")
    from bedside.node.chronicle import Chronicle
    from bedside.node.entries import Arrival, Counted, Delivery, Study
    from bedside.node.intake import Sender
    from bedside.node.metrics import Metrics

    canary = "1.2.777777.888"
    hung = BackendError("engine-hung", "no answer")
    arrival = Arrival(f"{canary}.1", canary, f"{canary}.2", f"images/{canary}.dcm", canary, 10)
    study = Study(
        5, f"{canary}.1", canary, "ct", "running", 1, 1, 10, None, 1, 0.0, 0.0, "engine-hung", "no answer"
    )
    sender = Sender("association", "CT1", "NODE")
    metrics = Metrics(studies=dict, deliveries=dict, free_bytes=lambda: 0.0)
    caplog.set_level("DEBUG")
    with open_audit(tmp_path) as audit:
        chronicle = Chronicle(audit, metrics)
        chronicle.node("started", rules=2)
        chronicle.association("accepted", "CT1", "10.1.0.1")
        chronicle.received(arrival, Counted("new", 5, 1, None), sender)
        chronicle.received(arrival, Counted("known", 5, 1, None), sender)
        chronicle.received(arrival, Counted("replaced", 5, 1, None), sender)
        chronicle.refused("broken-dicom", sender)
        chronicle.ran(study, "ok", 1.0, None, None)
        chronicle.ran(study, "failed", 1.0, hung, None)
        chronicle.delivered(Delivery(1, "pacs", 5, f"results/{canary}", 0), None)
        chronicle.delivered(Delivery(1, "pacs", 5, f"results/{canary}", 0), hung)
    told = caplog.text + metrics.render()[0].decode()
    told += "".join(path.read_text() for path in (tmp_path / "audit").glob("*.jsonl"))
    assert "study 5" in told
    assert len(lines(tmp_path)) == 10
    assert "777777" not in told


def test_node_starts_and_ends_where_the_audit_log_can_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("prometheus_client", reason="needs the extra 'node'")
    from bedside.node.chronicle import Chronicle
    from bedside.node.metrics import Metrics

    def fail(*_: object, **__: object) -> None:
        raise OutputError("disk-full", "no space")

    with open_audit(tmp_path) as audit:
        monkeypatch.setattr(audit, "write", fail)
        Chronicle(audit, Metrics(studies=dict, deliveries=dict, free_bytes=lambda: 0.0)).node("stopped")
    assert "the audit log lacks a line: no space" in caplog.text
