"""The outbox: what is due is sent, whole and once, to its own destination, and it ends when it is asked to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bedside.node import outbox as module
from bedside.node.desk import Desk
from bedside.node.network import Destination
from bedside.node.outbox import Outbox
from made_node import until
from made_outbox import SOON_S, Told, add_result, sending, shipment, state_of
from made_peers import CANARY, HOST, StorePeer, free_port, uids, unnamed
from made_stow import StowPeer

pytest.importorskip("pynetdicom", reason="needs the node extra")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path / "queue.db", tries=3) as desk:
        yield desk


@pytest.fixture(autouse=True)
def discreet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with unnamed(caplog):
        yield


def test_what_is_due_is_sent_in_order_and_told(desk: Desk, tmp_path: Path) -> None:
    studies = [add_result(desk, tmp_path, number) for number in (1, 2)]
    told: Told = []
    with StorePeer() as peer, sending(desk, tmp_path, peer.destination(), told) as outbox:
        until(lambda: len(told) == 2)
        assert outbox.alive
    expected = [uid for number in (1, 2) for uid in uids(sorted(tmp_path.glob(f"{number}-*/*.dcm")))]
    assert [uid for uid, _ in peer.received] == expected
    assert [(delivery.study, error) for delivery, error in told] == [(study, None) for study in studies]
    assert [state_of(desk, study) for study in studies] == [
        "sent",
        "sent",
    ]
    assert shipment(desk, studies[0]).attempts == 1


def test_the_report_is_sent_last(desk: Desk, tmp_path: Path) -> None:
    add_result(desk, tmp_path, 1, kinds=("report", "montage", "segmentation"))
    folder = next(tmp_path.glob("1-*"))
    next(folder.glob("*segmentation.dcm")).rename(folder / f"{CANARY}-seg.dcm")
    told: Told = []
    with StorePeer() as peer, sending(desk, tmp_path, peer.destination(), told):
        until(lambda: bool(told))
    names = ["seg", "montage", "report"]
    assert [uid for uid, _ in peer.received] == uids([folder / f"{CANARY}-{name}.dcm" for name in names])


def test_a_web_destination_gets_it_by_stow(desk: Desk, tmp_path: Path) -> None:
    study = add_result(desk, tmp_path, 1)
    told: Told = []
    with StowPeer() as peer, sending(desk, tmp_path, peer.destination(), told):
        until(lambda: bool(told))
    assert len(peer.requests[0].objects) == 3
    assert shipment(desk, study).state == "sent"


def test_a_result_without_dicom_needs_no_sending(desk: Desk, tmp_path: Path) -> None:
    study = add_result(desk, tmp_path, 1, kinds=())
    told: Told = []
    with free_port() as port, sending(desk, tmp_path, Destination(ae_title="X", host=HOST, port=port), told):
        until(lambda: bool(told))
    assert told[0][1] is None
    assert shipment(desk, study).state == "sent"


@pytest.mark.parametrize("left", ["nothing", "no report"])
def test_results_that_are_not_whole_are_never_said_to_be_sent(left: str, desk: Desk, tmp_path: Path) -> None:
    study = add_result(desk, tmp_path, 1)
    folder = next(tmp_path.glob("1-*"))
    for path in folder.glob("*-report.dcm" if left == "no report" else "*"):
        path.unlink()
    if left == "nothing":
        folder.rmdir()
    told: Told = []
    with StorePeer() as peer, sending(desk, tmp_path, peer.destination(), told):
        until(lambda: bool(told))
    assert peer.received == []
    found = shipment(desk, study)
    assert (found.state, found.error_code) == ("pending", "not-delivered")
    assert "have the study run again" in str(found.error_message)


def test_what_is_new_is_sent_at_once(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 1000.0)
    told: Told = []
    with StorePeer() as peer, sending(desk, tmp_path, peer.destination(first_wait_s=1000.0), told) as outbox:
        time.sleep(0.1)
        add_result(desk, tmp_path, 1)
        outbox.wake()
        until(lambda: bool(told))


def test_what_another_process_made_due_is_found(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    told: Told = []
    with StorePeer() as peer, sending(desk, tmp_path, peer.destination(), told):
        time.sleep(0.1)
        add_result(desk, tmp_path, 1)
        until(lambda: bool(told))


def test_it_ends_between_objects_and_the_try_does_not_count(desk: Desk, tmp_path: Path) -> None:
    study = add_result(desk, tmp_path, 1)
    told: Told = []
    with StorePeer(holds=True) as peer:
        outbox = Outbox(
            desk,
            tmp_path,
            "pacs",
            peer.destination(),
            calling="BEDSIDE",
            told=lambda *args: told.append(args),
        )
        outbox.start()
        assert peer.reached.wait(SOON_S)
        assert not outbox.stop(0.05)
        assert outbox.alive
        peer.hold.set()
        assert outbox.stop(SOON_S)
    assert len(peer.received) == 1
    assert peer.associations == ["released"]
    assert told == []
    found = shipment(desk, study)
    assert (found.state, found.attempts) == ("pending", 0)


def test_only_its_own_destination_is_served(desk: Desk, tmp_path: Path) -> None:
    study = add_result(desk, tmp_path, 1)
    told: Told = []
    with StorePeer() as peer:
        outbox = Outbox(
            desk,
            tmp_path,
            "other",
            peer.destination(),
            calling="BEDSIDE",
            told=lambda *args: told.append(args),
        )
        outbox.start()
        time.sleep(0.2)
        assert outbox.stop(SOON_S)
    assert told == []
    assert shipment(desk, study).attempts == 0
