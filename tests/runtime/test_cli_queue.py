"""``bedside queue``: what a node holds, told without saying whose; and what a person may do about it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bedside.cli import main
from bedside.cli.queue import STATES
from bedside.cli.queue_report import age
from bedside.errors import BackendError, NodeError
from bedside.node import entries
from bedside.node.entries import Arrival, Made, Work
from bedside.node.look import Look
from bedside.node.queue import Queue
from command_line import invoke

if sys.version_info < (3, 11):
    pytest.importorskip("tomli", reason="needs the extra 'node'")

CANARY = "1.2.826.777"
"""Every UID begins with it."""
HUNG = BackendError("engine-hung", "the engine gave no answer in 600 s")
DOWN = NodeError("not-delivered", "the destination does not answer")
DAY_S = 86_400.0


class Node:
    """A spool with some studies."""

    def __init__(self, folder: Path, now: float) -> None:
        self.config = folder / "node.toml"
        self.config.write_text(
            'spool = "spool"\n[receiver]\n[[rules]]\nname = "ct"\nbundle = "ct-opacity-lite"\n', "utf-8"
        )
        self.spool = folder / "spool"
        self.spool.mkdir()
        self.now = now

    @property
    def file(self) -> Path:
        return self.spool / "queue.db"

    def add(self, number: int, state: str, *, days: float = 0.0) -> int:
        """A study of two images in this state, some days old: failed, sent, done, refused (by a destination), ..."""
        at = self.now - days * DAY_S
        with Queue(self.file) as queue:
            for image in range(2):
                path = self.spool / "images" / str(number) / f"{image}.dcm"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"image")
                counted = queue.add(
                    Arrival(
                        f"{CANARY}.{number}",
                        f"{CANARY}.0.{number}",
                        f"{CANARY}.{number}.{image}",
                        str(path.relative_to(self.spool)),
                        "a" * 64,
                        750_000,
                    ),
                    "ct",
                    at,
                    expected=2,
                )
            if state == "received":
                return counted.study
            queue.complete(counted.study, at)
            if state != "ready":
                self._run(queue, state, at)
            return counted.study

    def _run(self, queue: Queue, state: str, at: float) -> None:
        work = queue.claim(at)
        assert work is not None
        if state == "running":
            return
        if state == "failed":
            queue.set_aside(work.study, HUNG, at)
            return
        queue.finish(work.study, self._make(work, () if state == "nobody" else ("pacs",)), at)
        delivery = queue.due(at, longest_wait=DAY_S)
        if delivery is not None and state == "sent":
            queue.delivered(delivery, at)
        if delivery is not None and state in {"refused", "later"}:
            queue.put_off(delivery, DOWN, at, next_at=None if state == "refused" else self.now + 1800)

    def _make(self, work: Work, destinations: tuple[str, ...]) -> Made:
        folder = self.spool / "results" / f"{work.study.id}-1"
        folder.mkdir(parents=True)
        (folder / "report.dcm").write_bytes(b"report")
        return Made("d" * 64, str(folder.relative_to(self.spool)), destinations)

    def call(self, command: str, *arguments: object) -> Result:
        return invoke("queue", command, "--config", self.config, *map(str, arguments))

    def states(self) -> dict[int, str]:
        with Look(self.file) as look:
            return {study.id: study.state for study in look.studies()}


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    now = 1_795_305_600.0
    monkeypatch.setattr("time.time", lambda: now)
    return Node(tmp_path, now)


def records(done: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


class TestList:
    def test_line_a_study_without_uids(self, node: Node) -> None:
        node.add(1, "failed", days=3)
        node.add(2, "refused", days=0.2)
        node.add(3, "received")
        done = node.call("list")
        assert (done.exit_code, done.stderr) == (0, "")
        assert [line.split() for line in done.stdout.splitlines()] == [
            ["NUMBER", "STATE", "RULE", "IMAGES", "SIZE", "AGE", "TRIES", "ERROR", "WAITING", "REFUSED"],
            ["1", "failed", "ct", "2", "of", "2", "1.5", "MB", "3", "d", "1", "engine-hung", "-", "-"],
            ["2", "done", "ct", "2", "of", "2", "1.5", "MB", "4", "h", "1", "-", "-", "pacs"],
            ["3", "received", "ct", "2", "of", "2", "1.5", "MB", "0", "s", "0", "-", "-", "-"],
        ]

    def test_only_the_states_that_are_asked_for(self, node: Node) -> None:
        for number, state in enumerate(("failed", "refused", "sent", "received"), 1):
            node.add(number, state)
        done = node.call("list", "--state", "sent", "--state", "received", "--json")
        assert {each["number"]: each["state"] for each in records(done)} == {3: "sent", 4: "received"}
        assert node.call("list", "--state", "lost").exit_code == 2

    def test_json_tells_the_same(self, node: Node) -> None:
        node.add(1, "later")
        (record,) = records(node.call("list", "--json"))
        assert record == {
            "number": 1,
            "state": "done",
            "rule": "ct",
            "instances": 2,
            "expected": 2,
            "bytes": 1_500_000,
            "generation": 1,
            "attempts": 1,
            "received": "2026-11-22T00:00:00Z",
            "changed": "2026-11-22T00:00:00Z",
            "error": None,
            "waiting": ["pacs"],
            "refused": [],
        }

    def test_empty_queue_says_so(self, node: Node) -> None:
        with Queue(node.file):
            pass
        assert node.call("list").stdout == "no study\n"
        assert node.call("list", "--json").stdout == ""

    def test_uids_are_shown_only_when_asked_for(self, node: Node) -> None:
        number = node.add(1, "refused")
        for command in (["list"], ["list", "--json"], ["show", number], ["show", number, "--json"]):
            assert CANARY not in node.call(*command).output
            shown = node.call(*command, "--uids").stdout
            assert f"{CANARY}.0.1" in shown
            assert f"{CANARY}.1" in shown

    def test_node_that_writes_is_no_hindrance(self, node: Node) -> None:
        node.add(1, "ready")
        other = sqlite3.connect(node.file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            assert node.call("list").exit_code == 0
        finally:
            other.execute("ROLLBACK")
            other.close()

    def test_reading_leaves_the_spool_as_it_is(self, node: Node) -> None:
        node.add(1, "ready")
        before = node.file.read_bytes()
        node.call("list")
        assert node.file.read_bytes() == before

    def test_states_are_those_of_the_queue(self) -> None:
        assert STATES == entries.STATES


class TestShow:
    def test_tells_results_and_deliveries(self, node: Node) -> None:
        number = node.add(1, "later", days=2)
        done = node.call("show", number)
        assert done.exit_code == 0
        for words in (
            "study 1: done",
            "2 d ago, 2026-11-20T00:00:00Z",
            "2 of 2, 1.5 MB",
            "bundle sha256 dddddddddddd, in results/1-1",
            "waits, 1 try, next in 30 min; not-delivered: the destination does not answer",
            "Not for clinical use.",
        ):
            assert words in " ".join(done.stdout.split())

    def test_tells_why_a_study_failed(self, node: Node) -> None:
        done = node.call("show", node.add(1, "failed"))
        assert "engine-hung: the engine gave no answer in 600 s" in done.stdout

    def test_result_that_nobody_gets_is_told(self, node: Node) -> None:
        assert "nobody gets it" in node.call("show", node.add(1, "nobody")).stdout

    def test_json_holds_all_of_it(self, node: Node) -> None:
        (record,) = records(node.call("show", node.add(1, "later"), "--json"))
        assert record["results"] == [
            {
                "generation": 1,
                "bundle": "d" * 64,
                "folder": "results/1-1",
                "deliveries": [
                    {
                        "destination": "pacs",
                        "state": "pending",
                        "attempts": 1,
                        "next": "2026-11-22T00:30:00Z",
                        "error": {"code": "not-delivered", "message": "the destination does not answer"},
                    }
                ],
            }
        ]

    def test_study_that_is_not_there_is_told(self, node: Node) -> None:
        node.add(1, "ready")
        done = node.call("show", 7)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "the queue has no study 7" in done.stderr


class TestRetry:
    def test_failed_study_runs_again(self, node: Node) -> None:
        number = node.add(1, "failed")
        done = node.call("retry", number)
        assert (done.exit_code, done.stdout) == (0, "study 1: is tried again\n")
        assert node.states() == {number: "ready"}

    def test_all_that_failed_or_was_refused_is_tried_again(self, node: Node) -> None:
        for number, state in enumerate(("failed", "refused", "sent", "later", "ready"), 1):
            node.add(number, state)
        done = node.call("retry", "--all-failed", "--json")
        assert sorted(each["number"] for each in records(done)) == [1, 2]
        assert all(each["retried"] for each in records(done))
        with Look(node.file) as look:
            assert look.unsent() == {"pacs": {"pending": 2, "failed": 0}}

    def test_nothing_failed_is_told_by_the_exit_code(self, node: Node) -> None:
        first, second = node.add(1, "sent"), node.add(2, "failed")
        done = node.call("retry", first, second)
        assert done.exit_code == 1
        assert done.stdout == "study 1: nothing of it has failed\nstudy 2: is tried again\n"
        assert node.call("retry", "--all-failed").stderr == "no study has failed\n"

    def test_number_that_is_not_there_changes_nothing(self, node: Node) -> None:
        number = node.add(1, "failed")
        assert node.call("retry", number, 7).exit_code == 2
        assert node.states() == {number: "failed"}

    @pytest.mark.parametrize("arguments", [[], [1, "--all-failed"], ["one"]])
    def test_what_is_meant_has_to_be_said(self, node: Node, arguments: list[object]) -> None:
        node.add(1, "failed")
        assert node.call("retry", *arguments).exit_code == 2
        assert node.states() == {1: "failed"}


class TestPurge:
    def fill(self, node: Node) -> None:
        for number, state in enumerate(
            ("sent", "failed", "refused", "nobody", "later", "ready", "received"), 1
        ):
            node.add(number, state)

    def test_named_study_is_gone_with_its_files(self, node: Node) -> None:
        self.fill(node)
        done = node.call("purge", 1, "--yes")
        assert (done.exit_code, done.stdout) == (0, "1 study purged\n")
        assert 1 not in node.states()
        assert not (node.spool / "images" / "1").exists()
        assert not (node.spool / "results" / "1-1").exists()
        assert (node.spool / "images" / "2" / "0.dcm").exists()
        assert (node.spool / "results" / "3-1").exists()

    @pytest.mark.parametrize(("kind", "gone"), [("--sent", {1, 4}), ("--failed", {2, 3})])
    def test_all_of_a_kind_but_what_waits(self, node: Node, kind: str, gone: set[int]) -> None:
        self.fill(node)
        done = node.call("purge", kind, "--yes", "--json")
        assert {each["number"] for each in records(done)} == gone
        assert set(node.states()) == set(range(1, 8)) - gone

    def test_older_than_spares_the_new(self, node: Node) -> None:
        node.add(1, "sent", days=3)
        node.add(2, "sent", days=0.5)
        assert node.call("purge", "--sent", "--older-than", "24h", "--yes").exit_code == 0
        assert set(node.states()) == {2}
        done = node.call("purge", "--sent", "--older-than", "7d", "--yes")
        assert (done.exit_code, done.stderr) == (0, "no study to purge\n")

    @pytest.mark.parametrize("number", [5, 6, 7])
    def test_what_the_node_is_not_done_with_needs_force(self, node: Node, number: int) -> None:
        self.fill(node)
        done = node.call("purge", number, "--yes")
        assert done.exit_code == 2
        assert f"study {number} is" in done.stderr
        assert "--force" in done.stderr
        assert number in node.states()
        assert node.call("purge", number, "--yes", "--force").exit_code == 0
        assert number not in node.states()

    def test_it_asks_first(self, node: Node) -> None:
        self.fill(node)
        arguments = ["queue", "purge", "--sent", "--config", str(node.config)]
        for answer, left in (("n\n", 7), ("", 7), ("y\n", 5)):
            done = CliRunner().invoke(main, arguments, input=answer)
            assert "forget 2 studies with images and results?" in done.output
            assert (done.exit_code == 0) == (left == 5)
            assert len(node.states()) == left

    @pytest.mark.parametrize("arguments", [[], [1, "--sent"], ["--sent", "--older-than", "soon"]])
    def test_what_is_meant_has_to_be_said(self, node: Node, arguments: list[object]) -> None:
        self.fill(node)
        assert node.call("purge", "--yes", *arguments).exit_code == 2
        assert len(node.states()) == 7


class TestSetUp:
    def test_spool_without_a_queue_is_told_and_stays_so(self, node: Node) -> None:
        for command in (["list"], ["show", 1], ["retry", 1], ["purge", 1, "--yes"]):
            done = node.call(*command)
            assert done.exit_code == 2
            assert "the spool has no queue" in done.stderr
        assert list(node.spool.iterdir()) == []

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")
    def test_spool_of_another_user_is_told(self, node: Node) -> None:
        node.add(1, "ready")
        node.spool.chmod(0)
        try:
            done = node.call("list")
        finally:
            node.spool.chmod(0o700)
        assert done.exit_code == 2
        assert "do this as the node's user, or as root" in done.stderr

    def test_wrong_configuration_is_told(self, node: Node) -> None:
        node.config.write_text('spool = "spool"\nruls = []\n', "utf-8")
        done = node.call("list")
        assert done.exit_code == 2
        assert "'ruls' is not a key that this version knows" in done.stderr
        assert "[bad-config]" in done.stderr

    def test_damaged_queue_is_told_in_one_line(self, node: Node) -> None:
        node.add(1, "ready")
        content = bytearray(node.file.read_bytes())
        content[4096:] = b"\xa5" * (len(content) - 4096)
        node.file.write_bytes(content)
        done = node.call("list")
        assert done.exit_code == 2
        assert "the queue's file is damaged" in done.stderr
        assert len(done.stderr.splitlines()) == 1

    def test_purge_of_files_that_are_gone_already_is_no_error(self, node: Node) -> None:
        node.add(1, "sent")
        shutil.rmtree(node.spool / "images")
        assert node.call("purge", 1, "--yes").exit_code == 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (7200, "2 h"),
        (86399, "23 h"),
        (3 * DAY_S, "3 d"),
    ],
)
def test_ages_are_in_words(seconds: float, words: str) -> None:
    assert age(seconds) == words
