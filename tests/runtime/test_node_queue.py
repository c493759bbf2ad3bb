"""The node's queue: every move is one transaction, and nothing is counted twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from bedside.errors import BackendError, NodeError, OutputError, RefusedError
from bedside.node.entries import STATES, Arrival, Delivery, Made, Work
from bedside.node.look import Look
from bedside.node.queue import Queue
from bedside.node.tables import SCHEMA_VERSION

NIGHT = 1_000_000.0
HUNG = BackendError("engine-hung", "no answer")
DOWN = NodeError("not-delivered", "refused")


def arrival(number: int = 1, series: str = "1.2", content: str = "a") -> Arrival:
    return Arrival(series, "1", f"{series}.{number}", f"in/{series}/{number}", content * 64, 100)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    with Queue(tmp_path / "queue.db", tries=2) as made:
        yield made


def ready(queue: Queue, series: str = "1.2", slices: int = 2) -> int:
    for number in range(slices):
        counted = queue.add(arrival(number, series), "ct", NIGHT + number)
        assert (counted.outcome, counted.instances) == ("new", number + 1)
    assert queue.complete(counted.study, NIGHT + 10)
    return counted.study


def claim(queue: Queue, at: float = NIGHT + 20) -> Work:
    work = queue.claim(at)
    assert work is not None
    return work


def made(*destinations: str, path: str = "out/1", error: RefusedError | None = None) -> Made:
    return Made("d" * 64, path, destinations, error)


def run(queue: Queue, study: int, *destinations: str, path: str = "") -> None:
    work = claim(queue)
    assert work.study.id == study
    assert queue.finish(work.study, made(*destinations, path=path or f"out/{study}"), NIGHT + 30)


def due(queue: Queue, at: float = NIGHT + 30, to: str | None = None) -> Delivery:
    delivery = queue.due(at, longest_wait=60, destination=to)
    assert delivery is not None
    return delivery


class TestComingIn:
    def test_instances_of_a_series_are_one_study(self, queue: Queue) -> None:
        for number in (1, 2, 3):
            counted = queue.add(arrival(number), "ct", NIGHT + number, expected=7)
            assert (counted.outcome, counted.instances, counted.expected) == ("new", number, 7)
        (study,) = queue.studies()
        assert (study.state, study.instances, study.size, study.generation) == ("received", 3, 300, 1)
        assert (study.received_at, study.changed_at) == (NIGHT + 1, NIGHT + 3)

    def test_series_of_two_rules_are_two_studies(self, queue: Queue) -> None:
        queue.add(arrival(), "ct", NIGHT)
        queue.add(arrival(), "ct-patterns", NIGHT)
        assert [study.rule for study in queue.studies()] == ["ct", "ct-patterns"]

    def test_same_instance_again_changes_nothing(self, queue: Queue) -> None:
        study = ready(queue)
        counted = queue.add(arrival(0), "ct", NIGHT + 50)
        assert (counted.outcome, counted.study, counted.instances) == ("known", study, 2)
        assert queue.study(study).state == "ready"

    def test_other_pixels_under_a_known_uid_are_not_taken(self, queue: Queue) -> None:
        study = ready(queue)
        assert queue.add(arrival(0, content="b"), "ct", NIGHT + 50).outcome == "other-pixels"
        assert queue.study(study).instances == 2
        assert queue.study(study).state == "ready"

    def test_study_that_waits_for_nothing_is_not_completed_twice(self, queue: Queue) -> None:
        study = ready(queue)
        assert not queue.complete(study, NIGHT + 11)

    @pytest.mark.parametrize("state", ["running", "done", "sent", "failed"])
    def test_late_slice_reopens_a_study(self, queue: Queue, state: str) -> None:
        study = ready(queue)
        work = claim(queue)
        if state == "failed":
            assert queue.set_aside(work.study, HUNG, NIGHT)
        elif state != "running":
            queue.finish(work.study, made("pacs"), NIGHT)
        if state == "sent":
            queue.delivered(due(queue), NIGHT)
        assert queue.study(study).state == state
        assert queue.add(arrival(9), "ct", NIGHT + 40).outcome == "new"
        now = queue.study(study)
        assert (now.state, now.generation, now.attempts, now.error_code) == ("received", 2, 0, None)

    def test_late_slice_before_the_run_is_just_one_more(self, queue: Queue) -> None:
        study = ready(queue)
        queue.add(arrival(9), "ct", NIGHT + 40)
        assert (queue.study(study).state, queue.study(study).generation) == ("received", 1)


class TestRunning:
    def test_the_one_that_waits_longest_comes_first(self, queue: Queue) -> None:
        first, second = ready(queue, "1.2"), ready(queue, "1.3")
        found = [queue.claim(NIGHT), queue.claim(NIGHT), queue.claim(NIGHT)]
        assert [each.study.id if each else None for each in found] == [first, second, None]

    def test_work_holds_the_instances_in_order_of_arrival(self, queue: Queue) -> None:
        for number in (3, 1, 2):
            queue.add(arrival(number), "ct", NIGHT + number)
        queue.complete(1, NIGHT)
        work = claim(queue)
        assert [each.path for each in work.instances] == ["in/1.2/1", "in/1.2/2", "in/1.2/3"]
        assert (work.study.state, work.study.attempts) == ("running", 1)

    def test_results_of_an_earlier_generation_are_not_recorded(self, queue: Queue) -> None:
        study = ready(queue)
        work = claim(queue)
        queue.add(arrival(9), "ct", NIGHT + 1)
        assert not queue.finish(work.study, made("pacs"), NIGHT + 2)
        assert not queue.set_aside(work.study, HUNG, NIGHT + 2, made("pacs"))
        assert queue.due(NIGHT + 9, longest_wait=60) is None
        assert queue.fail(work.study, HUNG, NIGHT + 2)
        assert (queue.study(study).state, queue.study(study).error_code) == ("received", None)
        assert queue.paths() == {"in/1.2/0", "in/1.2/1", "in/1.2/9"}

    def test_study_that_was_purged_while_it_ran_leaves_nothing(self, queue: Queue) -> None:
        study = ready(queue)
        work = claim(queue)
        queue.purge_studies([study], force=True)
        assert not queue.finish(work.study, made("pacs"), NIGHT)
        assert queue.fail(work.study, HUNG, NIGHT)
        queue.give_back(work.study, NIGHT)
        assert (queue.studies(), queue.paths()) == ((), frozenset())

    def test_last_try_changes_nothing_until_the_study_is_set_aside(self, queue: Queue) -> None:
        study = ready(queue)
        assert queue.fail(claim(queue).study, HUNG, NIGHT)
        assert queue.study(study).error_code == "engine-hung"
        last = claim(queue)
        assert not queue.fail(last.study, HUNG, NIGHT)
        assert queue.study(study).state == "running"
        assert queue.set_aside(last.study, HUNG, NIGHT)
        now = queue.study(study)
        assert (now.state, now.error_code, now.error_message, now.attempts) == (
            "failed",
            "engine-hung",
            "no answer",
            2,
        )
        assert queue.claim(NIGHT) is None
        assert queue.shipments(study) == ()

    def test_study_that_is_set_aside_with_results_sends_them(self, queue: Queue) -> None:
        study = ready(queue)
        assert queue.set_aside(claim(queue).study, HUNG, NIGHT, made("pacs"))
        assert (queue.study(study).state, queue.study(study).error_code) == ("failed", "engine-hung")
        queue.delivered(due(queue), NIGHT + 40)
        (shipment,) = queue.shipments(study)
        assert (shipment.state, queue.study(study).state) == ("sent", "failed")

    def test_refusal_is_a_result_that_says_why(self, queue: Queue) -> None:
        study = ready(queue)
        why = RefusedError("no-lungs", "no lungs in the scan")
        assert queue.finish(claim(queue).study, made("pacs", error=why), NIGHT)
        assert (queue.study(study).state, queue.study(study).error_code) == ("done", "no-lungs")

    def test_retry_raises_the_generation_and_gives_back_all_tries(self, queue: Queue) -> None:
        study = ready(queue)
        queue.set_aside(claim(queue).study, HUNG, NIGHT, made("pacs", path="out/first"))
        assert queue.retry(study, NIGHT + 50)
        now = queue.study(study)
        assert (now.state, now.generation, now.attempts, now.error_code) == ("ready", 2, 0, None)
        assert queue.finish(claim(queue).study, made("pacs", path="out/second"), NIGHT + 60)
        old, new = queue.shipments(study)
        assert (old.generation, old.state, new.generation, new.state) == (1, "superseded", 2, "pending")

    def test_nothing_to_retry_is_said(self, queue: Queue) -> None:
        study = ready(queue)
        assert not queue.retry(study, NIGHT)
        assert queue.study(study).generation == 1
        with pytest.raises(OutputError, match="no study 99") as caught:
            queue.retry(99, NIGHT)
        assert caught.value.code == "not-found"

    def test_orderly_stop_costs_no_try(self, queue: Queue) -> None:
        study = ready(queue)
        for _ in range(5):
            queue.give_back(claim(queue).study, NIGHT)
        assert (queue.study(study).state, queue.study(study).attempts) == ("ready", 0)

    def test_what_ran_when_the_node_was_killed_runs_again_until_its_last_try(self, tmp_path: Path) -> None:
        path = tmp_path / "queue.db"
        with Queue(path, tries=2) as queue:
            study = ready(queue)
        states = []
        for _ in range(2):
            with Queue(path, tries=2) as queue:
                claim(queue)
            with Queue(path, tries=2) as queue:
                assert queue.recover(NIGHT) == 1
                states.append(queue.study(study).state)
        assert states == ["ready", "failed"]
        with Look(path) as look:
            assert look.study(study).error_code == "engine-crashed"

    def test_queue_without_tries_is_no_queue(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="tries"):
            Queue(tmp_path / "queue.db", tries=0)


class TestGoingOut:
    def test_sent_when_every_destination_has_it(self, queue: Queue) -> None:
        study = ready(queue)
        run(queue, study, "pacs", "archive")
        for left in (1, 0):
            queue.delivered(due(queue), NIGHT + 40)
            assert queue.study(study).state == ("done" if left else "sent")
        assert queue.due(NIGHT + 99, longest_wait=60) is None

    def test_without_destinations_a_study_stays_done(self, queue: Queue) -> None:
        study = ready(queue)
        run(queue, study)
        assert queue.study(study).state == "done"
        (shipment,) = queue.shipments(study)
        assert (shipment.path, shipment.destination, shipment.state) == (f"out/{study}", None, None)

    def test_each_destination_is_asked_for_by_itself(self, queue: Queue) -> None:
        run(queue, ready(queue), "pacs", "archive")
        assert due(queue, to="archive").destination == "archive"
        assert queue.due(NIGHT + 30, longest_wait=60, destination="nobody") is None

    def test_refused_delivery_waits_its_time_and_is_given_up_at_last(self, queue: Queue) -> None:
        study = ready(queue)
        run(queue, study, "pacs")
        queue.put_off(due(queue), DOWN, NIGHT + 30, next_at=NIGHT + 60)
        assert queue.due(NIGHT + 59, longest_wait=60) is None
        (waiting,) = queue.shipments(study)
        assert (waiting.state, waiting.next_at, waiting.error_code) == (
            "pending",
            NIGHT + 60,
            "not-delivered",
        )
        again = due(queue, NIGHT + 60)
        assert again.attempts == 1
        queue.put_off(again, DOWN, NIGHT + 60, next_at=None)
        assert queue.due(NIGHT + 1e6, longest_wait=60) is None
        assert queue.unsent() == {"pacs": {"pending": 0, "failed": 1}}
        assert queue.backlog() == {study: {"failed": ("pacs",)}}

    def test_given_up_delivery_is_sent_again_by_command_and_nothing_runs(self, queue: Queue) -> None:
        study = ready(queue)
        run(queue, study, "pacs")
        queue.put_off(due(queue), DOWN, NIGHT + 30, next_at=None)
        assert queue.retry(study, NIGHT + 70)
        assert due(queue, NIGHT + 70).attempts == 0
        assert (queue.study(study).state, queue.study(study).generation) == ("done", 1)

    def test_clock_that_was_set_back_holds_no_delivery_for_ever(self, queue: Queue) -> None:
        run(queue, ready(queue), "pacs")
        assert queue.due(NIGHT - 1e6, longest_wait=60) is not None

    def test_late_slice_supersedes_what_was_not_begun_to_be_sent(self, queue: Queue) -> None:
        study = ready(queue)
        run(queue, study, "archive", "pacs")
        queue.put_off(due(queue, to="archive"), DOWN, NIGHT + 30, next_at=NIGHT + 50)
        queue.add(arrival(9), "ct", NIGHT + 40)
        states = {each.destination: each.state for each in queue.shipments(study)}
        assert states == {"archive": "pending", "pacs": "superseded"}  # of the first, half may be there

    def test_study_is_sent_when_the_newest_results_are_there_whatever_the_older_wait_for(
        self, queue: Queue
    ) -> None:
        study = ready(queue)
        run(queue, study, "pacs", path="out/first")
        queue.put_off(due(queue), DOWN, NIGHT + 30, next_at=None)
        queue.add(arrival(9), "ct", NIGHT + 40)
        queue.complete(study, NIGHT + 50)
        run(queue, study, "pacs", path="out/second")
        newest = due(queue, NIGHT + 60)
        assert newest.path == "out/second"
        queue.delivered(newest, NIGHT + 61)
        assert queue.study(study).state == "sent"

    def test_unsent_tells_pending_and_failed_of_each_destination(self, queue: Queue) -> None:
        one, two = ready(queue, "1.2"), ready(queue, "1.3")
        run(queue, one, "archive", "pacs")
        run(queue, two, "pacs")
        queue.delivered(due(queue, to="archive"), NIGHT + 31)
        queue.put_off(due(queue, to="pacs"), DOWN, NIGHT + 31, next_at=None)
        assert queue.unsent() == {"pacs": {"pending": 1, "failed": 1}}
        assert queue.backlog() == {one: {"failed": ("pacs",)}, two: {"pending": ("pacs",)}}


class TestForgetting:
    def test_purge_names_what_nothing_refers_to(self, queue: Queue) -> None:
        study, other = ready(queue, "1.2"), ready(queue, "1.3")
        run(queue, study)
        gone = queue.purge(NIGHT + 31, ("done",))
        assert set(gone) == {"in/1.2/0", "in/1.2/1", f"out/{study}"}
        assert [each.id for each in queue.studies()] == [other]
        assert queue.paths() == {"in/1.3/0", "in/1.3/1"}
        with pytest.raises(OutputError, match="no study"):
            queue.study(study)

    def test_numbers_of_studies_follow_each_other(self, queue: Queue) -> None:
        assert [ready(queue, f"1.{number}", slices=5) for number in range(3)] == [1, 2, 3]

    def test_number_of_a_study_is_not_given_again(self, queue: Queue) -> None:
        study = ready(queue)
        queue.purge_studies([study], force=True)
        assert ready(queue) > study

    def test_purged_are_those_that_are_named_and_that_the_node_is_done_with(self, queue: Queue) -> None:
        sent, waiting, failed, received = (ready(queue, f"1.{number}") for number in range(4))
        run(queue, sent, "pacs")
        queue.delivered(due(queue), NIGHT + 31)
        run(queue, waiting, "pacs")
        queue.set_aside(claim(queue).study, HUNG, NIGHT)
        everything = [sent, waiting, failed, received, 99]
        gone = queue.purge_studies(everything)
        assert set(gone) == {"in/1.0/0", "in/1.0/1", f"out/{sent}", "in/1.2/0", "in/1.2/1"}
        assert {each.id for each in queue.studies()} == {waiting, received}
        queue.purge_studies(everything, force=True)
        assert queue.studies() == ()
        assert queue.purge_studies([]) == ()

    def test_expired_is_what_was_sent_or_given_up_long_ago_of_running_time(self, queue: Queue) -> None:
        sent, kept, refused, failed, ready_one = (ready(queue, f"1.{number}") for number in range(5))
        run(queue, sent, "pacs")
        queue.delivered(due(queue), NIGHT + 31)
        run(queue, kept, "pacs")
        run(queue, refused, "archive")
        queue.put_off(due(queue, to="archive"), DOWN, NIGHT + 30, next_at=None)
        queue.set_aside(claim(queue).study, HUNG, NIGHT)
        assert queue.expire(100.0, 1000.0) == ()
        queue.age(100.0)
        assert set(queue.expire(100.0, 1000.0)) == {"in/1.0/0", "in/1.0/1", f"out/{sent}"}
        queue.age(1000.0)
        queue.expire(100.0, 1000.0)
        assert {each.id for each in queue.studies()} == {kept, ready_one}
        assert refused not in {each.id for each in queue.studies()}
        assert failed not in {each.id for each in queue.studies()}

    def test_done_with_nobody_to_send_to_expires_as_what_is_sent(self, queue: Queue) -> None:
        run(queue, ready(queue))
        queue.age(100.0)
        assert len(queue.expire(100.0, 1000.0)) == 3

    def test_clock_that_jumps_makes_nothing_old(self, queue: Queue) -> None:
        study = ready(queue)
        run(queue, study, "pacs")
        queue.delivered(due(queue), NIGHT - 1e9)
        queue.age(99.0)
        assert queue.expire(100.0, 1000.0) == ()
        assert queue.study(study).changed_at == NIGHT - 1e9


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
