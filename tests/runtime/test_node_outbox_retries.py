"""The outbox when a destination fails: tried again, left alone for a while, and nothing ends the thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bedside.errors import OutputError
from bedside.node import outbox as module
from bedside.node.desk import Desk
from bedside.node.entries import Delivery
from bedside.node.network import Destination
from bedside.node.queue import Queue
from bedside.node.store import send_by_store
from made_node import until
from made_outbox import Told, add_result, sending, shipment
from made_peers import CANARY, HOST, StorePeer, free_port, uids, unnamed

pytest.importorskip("pynetdicom", reason="needs the node extra")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path / "queue.db", tries=3) as desk:
        yield desk


@pytest.fixture(autouse=True)
def discreet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with unnamed(caplog):
        yield


def told_of(told: Told, number: int) -> bool:
    return len(told) == number


def test_a_failure_is_tried_again_later_and_later(desk: Desk, tmp_path: Path) -> None:
    study = add_result(desk, tmp_path, 1)
    now = [time.time() + 10]
    waits = []
    told: Told = []
    with StorePeer(statuses=[0xC000] * 6) as peer:
        destination = peer.destination(first_wait_s=0.02, longest_wait_s=0.3)
        with sending(desk, tmp_path, destination, told, clock=lambda: now[0]):
            for tried in range(1, 7):
                until(partial(told_of, told, tried))
                next_at = shipment(desk, study).next_at
                assert next_at is not None
                waits.append(next_at - now[0])
                now[0] = next_at
            until(lambda: len(told) == 7)
    assert told[-1][1] is None
    assert shipment(desk, study).attempts == 7
    for wait, full in zip(waits, (0.02, 0.04, 0.08, 0.16, 0.3, 0.3), strict=True):
        assert 0.75 * full - 1e-3 <= wait <= full + 1e-3


def test_a_try_is_not_made_before_its_time(desk: Desk, tmp_path: Path) -> None:
    add_result(desk, tmp_path, 1)
    told: Told = []
    now = time.time()
    with StorePeer(statuses=[0xC000]) as peer:
        destination = peer.destination(first_wait_s=60.0)
        with sending(desk, tmp_path, destination, told, clock=lambda: now) as outbox:
            until(lambda: bool(told))
            for _ in range(5):
                outbox.wake()
                time.sleep(0.02)
    assert len(told) == 1


def test_a_clock_that_jumped_back_holds_nothing_up(desk: Desk, tmp_path: Path) -> None:
    study = add_result(desk, tmp_path, 1)  # due now: far ahead, for the clock below
    told: Told = []
    with StorePeer() as peer:
        destination = peer.destination(longest_wait_s=3600.0)
        with sending(desk, tmp_path, destination, told, clock=lambda: time.time() - 86_400):
            until(lambda: bool(told))
    assert shipment(desk, study).state == "sent"


def test_it_is_given_up_after_its_tries_and_can_be_taken_up_again(desk: Desk, tmp_path: Path) -> None:
    study = add_result(desk, tmp_path, 1)
    told: Told = []
    with StorePeer(statuses=[0xC000] * 3) as peer:
        destination = peer.destination(first_wait_s=0.02, longest_wait_s=0.05, tries=3)
        with sending(desk, tmp_path, destination, told) as outbox:
            until(lambda: len(told) == 3)
            found = shipment(desk, study)
            assert (found.state, found.attempts) == ("failed", 3)
            assert "0xC000" in str(found.error_message)
            assert desk.ask(lambda queue: queue.retry(study, time.time()))
            outbox.wake()
            until(lambda: len(told) == 4)
    assert shipment(desk, study).state == "sent"


def test_a_destination_that_is_down_is_not_hammered(desk: Desk, tmp_path: Path) -> None:
    studies = [add_result(desk, tmp_path, number) for number in range(1, 6)]
    told: Told = []
    with free_port() as port:
        destination = Destination(ae_title="X", host=HOST, port=port, first_wait_s=60.0)
        with sending(desk, tmp_path, destination, told) as outbox:
            until(lambda: bool(told))
            for _ in range(5):
                outbox.wake()
                time.sleep(0.02)
            assert outbox.alive
    assert sum(shipment(desk, study).attempts or 0 for study in studies) == 1


def test_the_rest_grows_with_each_failure_whatever_is_tried(desk: Desk, tmp_path: Path) -> None:
    for number in range(1, 8):
        add_result(desk, tmp_path, number)
    told: Told = []
    with free_port() as port:
        destination = Destination(ae_title="X", host=HOST, port=port, first_wait_s=0.2, longest_wait_s=1000.0)
        begun = time.monotonic()
        with sending(desk, tmp_path, destination, told):
            until(lambda: len(told) == 4)
            assert time.monotonic() - begun >= 0.75 * (0.2 + 0.4 + 0.8)
    assert len({delivery.study for delivery, _ in told}) == 4  # each of them anew


def test_when_it_is_back_all_that_waited_goes(desk: Desk, tmp_path: Path) -> None:
    studies = [add_result(desk, tmp_path, number) for number in range(1, 5)]
    told: Told = []
    with StorePeer(statuses=[0xA700, 0xA700]) as peer:
        destination = peer.destination(first_wait_s=0.02, longest_wait_s=0.1)
        with sending(desk, tmp_path, destination, told):
            until(lambda: all(shipment(desk, study).state == "sent" for study in studies))
    assert sum(error is not None for _, error in told) == 2
    assert len(peer.received) == 3 * 4


def test_results_that_are_not_taken_hold_up_no_others(desk: Desk, tmp_path: Path) -> None:
    studies = [add_result(desk, tmp_path, number) for number in (1, 2)]
    told: Told = []
    with (
        StorePeer(statuses=[0xC000]) as peer,
        sending(desk, tmp_path, peer.destination(first_wait_s=60.0), told),
    ):
        until(lambda: len(told) == 2)
    assert [shipment(desk, study).state for study in studies] == ["pending", "sent"]


def test_a_delivery_that_was_cut_is_sent_again_under_the_same_uids(desk: Desk, tmp_path: Path) -> None:
    study = add_result(desk, tmp_path, 1)
    told: Told = []
    with StorePeer(abort_at=2) as peer, sending(desk, tmp_path, peer.destination(first_wait_s=0.05), told):
        until(lambda: len(told) == 2)
    archive = dict(peer.received)  # as an archive keeps them: by their UIDs
    assert sorted(archive) == sorted(uids(list(tmp_path.glob("1-*/*.dcm"))))
    assert len(peer.received) == 5
    assert shipment(desk, study).state == "sent"


def test_a_defect_costs_a_try_and_not_the_thread(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = add_result(desk, tmp_path, 1)
    left = [KeyError(CANARY)]

    def fail_once(*args: Any, **more: Any) -> None:
        if left:
            raise left.pop()
        send_by_store(*args, **more)

    monkeypatch.setattr(module, "send_by_store", fail_once)
    told: Told = []
    with StorePeer() as peer, sending(desk, tmp_path, peer.destination(first_wait_s=0.05), told):
        until(lambda: len(told) == 2)
    assert told[0][1] is not None
    assert told[0][1].code == "internal"
    assert "KeyError" in told[0][1].message
    assert shipment(desk, study).attempts == 2


def test_a_queue_that_can_not_be_written_ends_nothing(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study = add_result(desk, tmp_path, 1)
    delivered = Queue.delivered
    left = [OutputError("disk-full", "no space"), KeyError(CANARY)]

    def fail_twice(queue: Queue, delivery: Delivery, at: float) -> None:
        if left:
            raise left.pop()
        delivered(queue, delivery, at)

    monkeypatch.setattr(Queue, "delivered", fail_twice)
    told: Told = []
    with StorePeer() as peer, sending(desk, tmp_path, peer.destination(first_wait_s=0.05), told):
        until(lambda: bool(told))
    assert len(peer.received) == 3 * 3
    assert shipment(desk, study).state == "sent"
    assert "sending to pacs: no space" in caplog.text


def test_it_ends_at_once_while_it_rests(desk: Desk, tmp_path: Path) -> None:
    add_result(desk, tmp_path, 1)
    told: Told = []
    with free_port() as port:
        destination = Destination(ae_title="X", host=HOST, port=port, first_wait_s=1000.0)
        with sending(desk, tmp_path, destination, told):
            until(lambda: bool(told))
    assert not any(thread.name == "outbox pacs" for thread in threading.enumerate())
