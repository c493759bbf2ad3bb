"""The node's queue: what waits for a destination goes there once, and what is old is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bedside.errors import OutputError
from bedside.node.queue import Queue
from made_queue import DOWN, HUNG, NIGHT, arrival, claim, due, ready, run


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    with Queue(tmp_path / "queue.db", tries=2) as made:
        yield made


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
