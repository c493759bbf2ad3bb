"""The node's queue: every move is one transaction, and nothing is counted twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bedside.errors import OutputError, RefusedError
from bedside.node.look import Look
from bedside.node.queue import Queue
from made_queue import HUNG, NIGHT, arrival, claim, due, made, ready


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    with Queue(tmp_path / "queue.db", tries=2) as made:
        yield made


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

    def test_content_is_replaced_only_if_it_is_the_one_that_was_named(self, queue: Queue) -> None:
        study = ready(queue)
        better = replace(arrival(0, content="b"), path="in/1.2/better", size=50)
        assert queue.add(better, "ct", NIGHT + 50, instead_of="c" * 64).outcome == "other-pixels"
        found = queue.find(better, "ct")
        assert found is not None
        assert (found.counted.outcome, found.path, found.sha256) == ("other-pixels", "in/1.2/0", "a" * 64)
        counted = queue.add(better, "ct", NIGHT + 50, instead_of=found.sha256)
        assert (counted.outcome, counted.study, counted.instances) == ("replaced", study, 2)
        assert (queue.study(study).state, queue.study(study).size) == ("received", 150)
        assert queue.paths() == {"in/1.2/better", "in/1.2/1"}
        assert queue.add(better, "ct", NIGHT + 60, instead_of="b" * 64).outcome == "known"

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
