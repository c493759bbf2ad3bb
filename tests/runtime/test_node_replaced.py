"""An object that reads whole takes the place of one of its UID that was cut short; nothing else ever does."""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bedside.errors import InputError, OutputError
from bedside.node import intake as module
from bedside.node.config import Watch
from bedside.node.entries import Arrival, Made
from bedside.node.intake import FOLDER, Sender
from bedside.node.spool import remove
from bedside.node.watcher import Watcher
from made_node import CANARY, Parts, make_parts, write_picture, write_slice

CUT = 5000
"""Bytes that are missing at the end of the cut object: of its pixels."""
QUIET_S = 60.0


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with make_parts(tmp_path) as made:
        yield made


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write_picture(tmp_path / "whole.dcm")


@pytest.fixture
def cut(tmp_path: Path, whole: Path) -> Path:
    return shorten(whole, tmp_path / "cut.dcm")


def shorten(whole: Path, target: Path, missing: int = CUT) -> Path:
    target.write_bytes(whole.read_bytes()[:-missing])
    return target


def take(parts: Parts, path: Path, sender: Sender = FOLDER) -> str:
    part = parts.spool.part()
    shutil.copyfile(path, part)
    return parts.intake.take(part, sender).outcome


def held(parts: Parts) -> list[bytes]:
    """Contents of the images in the spool, after making sure that the queue has all of them and no more."""
    stored = parts.stored()
    assert stored == {
        path for path in parts.desk.ask(lambda queue: queue.paths()) if path.startswith("images")
    }
    assert not list(parts.spool.incoming.iterdir())
    return [(parts.spool.root / name).read_bytes() for name in sorted(stored)]


def run(parts: Parts) -> None:
    """Run what is ready, as far as the queue is concerned."""
    work = parts.desk.ask(lambda queue: queue.claim(0.0))
    assert work is not None
    made = Made("d" * 64, f"results/{work.study.id}-{work.study.generation}", ("pacs",))
    assert parts.desk.ask(lambda queue: queue.finish(work.study, made, 0.0))


def test_before_the_study_ran_it_is_as_if_it_had_come_first(parts: Parts, cut: Path, whole: Path) -> None:
    assert [take(parts, path) for path in (cut, whole)] == ["new", "replaced"]
    (study,) = parts.studies()
    assert (study.state, study.generation, study.instances, study.size) == (
        "ready",
        1,
        1,
        whole.stat().st_size,
    )
    assert held(parts) == [whole.read_bytes()]


@pytest.mark.parametrize("state", ["running", "done", "sent", "failed"])
def test_after_the_study_ran_it_is_reopened(parts: Parts, cut: Path, whole: Path, state: str) -> None:
    take(parts, cut)
    if state in {"running", "failed"}:
        work = parts.desk.ask(lambda queue: queue.claim(0.0))
        assert work is not None
        if state == "failed":
            error = InputError("truncated-pixels", "cut short")
            parts.desk.ask(lambda queue: queue.set_aside(work.study, error, 0.0))
    else:
        run(parts)
    if state == "sent":
        delivery = parts.desk.ask(lambda queue: queue.due(1.0, longest_wait=9.0))
        assert delivery is not None
        parts.desk.ask(lambda queue: queue.delivered(delivery, 0.0))
    assert parts.states() == [state]
    woken = len(parts.woken)
    assert take(parts, whole) == "replaced"
    (study,) = parts.studies()
    assert (study.state, study.generation, study.attempts, study.error_code) == ("ready", 2, 0, None)
    assert len(parts.woken) == woken + 1
    shipments = parts.desk.ask(lambda queue: queue.shipments(study.id))
    assert [each.state for each in shipments] == {"done": ["superseded"], "sent": ["sent"]}.get(state, [])
    assert held(parts) == [whole.read_bytes()]


def test_series_waits_for_quiet_and_keeps_its_other_slices(parts: Parts, tmp_path: Path) -> None:
    slices = [write_slice(tmp_path / f"{number}.dcm", number) for number in (1, 2, 3)]
    for path in (slices[0], shorten(slices[1], tmp_path / "cut.dcm"), slices[2]):
        take(parts, path)
    parts.clock.now += QUIET_S
    parts.completion.look()
    run(parts)
    assert take(parts, slices[1]) == "replaced"
    (study,) = parts.studies()
    assert (study.state, study.generation, study.instances) == ("received", 2, 3)
    assert sorted(held(parts)) == sorted(path.read_bytes() for path in slices)
    parts.clock.now += QUIET_S
    parts.completion.look()
    assert parts.states() == ["ready"]


def test_last_slice_that_was_expected_completes_a_series_when_it_is_whole(
    parts: Parts, tmp_path: Path
) -> None:
    path = write_slice(tmp_path / "a.dcm", 1, NumberOfSeriesRelatedInstances=1)
    take(parts, shorten(path, tmp_path / "cut.dcm"))
    run(parts)
    assert take(parts, path) == "replaced"
    assert parts.states() == ["ready"]


def test_cut_object_never_takes_the_place_of_a_whole_one(parts: Parts, cut: Path, whole: Path) -> None:
    take(parts, whole)
    with pytest.raises(InputError, match="another content") as raised:
        take(parts, cut)
    assert raised.value.code == "other-pixels"
    assert held(parts) == [whole.read_bytes()]
    assert parts.studies()[0].generation == 1


def test_whole_object_is_never_replaced_by_another_whole_one(
    parts: Parts, cut: Path, whole: Path, tmp_path: Path
) -> None:
    take(parts, cut)
    take(parts, whole)
    other = write_picture(tmp_path / "other.dcm", pixels=np.ones((72, 80), np.uint16))
    for path in (other, cut):
        with pytest.raises(InputError, match="another content"):
            take(parts, path)
    assert take(parts, whole) == "known"
    assert held(parts) == [whole.read_bytes()]


def test_cut_object_stays_where_another_cut_one_comes(
    parts: Parts, cut: Path, whole: Path, tmp_path: Path
) -> None:
    take(parts, cut)
    with pytest.raises(InputError, match="another content"):
        take(parts, shorten(whole, tmp_path / "longer.dcm", CUT // 2))
    assert take(parts, cut) == "known"
    assert held(parts) == [cut.read_bytes()]


def test_of_two_that_come_at_once_the_first_takes_the_place(
    parts: Parts, cut: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(parts, cut)
    other = write_picture(tmp_path / "other.dcm", pixels=np.ones((72, 80), np.uint16))
    place = parts.spool.place

    def place_late(part: Path, arrival: Arrival) -> None:
        place(part, arrival)
        monkeypatch.setattr(parts.spool, "place", place)
        assert take(parts, whole) == "replaced"

    monkeypatch.setattr(parts.spool, "place", place_late)
    with pytest.raises(InputError, match="another content"):
        take(parts, other)
    assert held(parts) == [whole.read_bytes()]
    assert parts.states() == ["ready"]


def test_study_that_is_purged_meanwhile_begins_anew(
    parts: Parts, cut: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(parts, cut)
    (study,) = parts.studies()
    place = parts.spool.place

    def place_late(part: Path, arrival: Arrival) -> None:
        place(part, arrival)
        gone = parts.desk.ask(lambda queue: queue.purge_studies([study.id], force=True))
        remove(parts.spool.root, gone)

    monkeypatch.setattr(parts.spool, "place", place_late)
    assert take(parts, whole) == "new"
    assert held(parts) == [whole.read_bytes()]


@pytest.mark.parametrize("left", [None, b""], ids=["gone", "empty"])
def test_file_that_the_disk_lost_is_replaced(parts: Parts, whole: Path, left: bytes | None) -> None:
    take(parts, whole)
    (name,) = parts.stored()
    (parts.spool.root / name).unlink()
    if left is not None:
        (parts.spool.root / name).write_bytes(left)
    other = write_picture(parts.folder / "other.dcm", pixels=np.ones((72, 80), np.uint16))
    assert take(parts, other) == "replaced"
    assert held(parts) == [other.read_bytes()]


def test_file_that_can_not_be_read_now_is_not_replaced(
    parts: Parts, cut: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(parts, cut)

    def fail(_: object) -> str:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(module, "judge_pixels", fail)
        with pytest.raises(InputError, match="can't be read"):
            take(parts, whole)
    assert held(parts) == [cut.read_bytes()]
    assert take(parts, whole) == "replaced"


def test_what_is_not_taken_never_lies_in_the_folder_of_its_series(
    parts: Parts, cut: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(parts, whole)

    def refuse(*_: object) -> None:
        raise AssertionError("it was placed")

    monkeypatch.setattr(parts.spool, "place", refuse)
    assert take(parts, whole) == "known"
    with pytest.raises(InputError, match="another content"):
        take(parts, cut)


def test_old_file_that_can_not_be_removed_keeps_no_study_waiting(
    parts: Parts, cut: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(parts, cut)

    def fail(*_: object) -> None:
        raise OutputError("output-not-writable", "no")

    monkeypatch.setattr(module, "remove", fail)
    with pytest.raises(OutputError):
        take(parts, whole)
    assert parts.states() == ["ready"]
    assert len(parts.stored()) == 2
    assert parts.spool.sweep(parts.desk.ask(lambda queue: queue.paths())) == 1
    assert held(parts) == [whole.read_bytes()]


def test_it_is_told_without_a_name(
    parts: Parts, cut: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        for path in (cut, whole):
            take(parts, path, Sender("association", "XRAY1", "BEDSIDE"))
    assert [event["outcome"] for event in parts.events()] == ["new", "replaced"]
    assert "study 1: an object took the place of one that could not be read" in caplog.text
    assert CANARY not in caplog.text
    assert "1.2.1" not in caplog.text


class TestWatchedFolder:
    def test_what_ends_early_is_taken_and_stays_until_its_writer_went_on(
        self, parts: Parts, whole: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = shorten(whole, parts.folder / "in" / "a.dcm")
        assert [parts.watcher.look(), parts.watcher.look()] == [1, 0]
        assert path.exists()
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "ends early" in caplog.text
        with path.open("ab") as stream:
            stream.write(whole.read_bytes()[-CUT:])
        assert parts.watcher.look() == 1
        assert not path.exists()
        assert held(parts) == [whole.read_bytes()]

    def test_what_nobody_went_on_with_is_taken_once_however_often_the_node_starts(
        self, parts: Parts, whole: Path
    ) -> None:
        path = shorten(whole, parts.folder / "in" / "a.dcm")
        for _ in range(2):
            assert new_watcher(parts).look() == 1
            assert path.exists()
        assert len(held(parts)) == 1
        assert parts.studies()[0].generation == 1

    def test_whole_copy_under_another_name_is_taken_and_the_cut_one_left(
        self, parts: Parts, whole: Path
    ) -> None:
        folder = parts.folder / "in"
        shorten(whole, folder / "a.dcm")
        parts.watcher.look()
        shutil.copyfile(whole, folder / "b.dcm")
        assert parts.watcher.look() == 1
        assert [path.name for path in folder.iterdir()] == ["a.dcm"]
        assert new_watcher(parts).look() == 0
        assert held(parts) == [whole.read_bytes()]

    def test_object_without_pixels_is_nobody_s_half_of_one(self, parts: Parts, whole: Path) -> None:
        content = whole.read_bytes()
        pixels = content.rindex(b"\xe0\x7f\x10\x00OW")
        (parts.folder / "in" / "a.dcm").write_bytes(content[:pixels])
        assert parts.watcher.look() == 1
        assert not list((parts.folder / "in").iterdir())
        shutil.copyfile(whole, parts.folder / "in" / "a.dcm")
        assert parts.watcher.look() == 1
        assert held(parts) == [whole.read_bytes()]

    def test_what_is_no_dicom_is_told_in_the_node_s_own_words(
        self, parts: Parts, caplog: pytest.LogCaptureFixture
    ) -> None:
        (parts.folder / "in" / "a.png").write_bytes(b"\x89PNG" + bytes(200))
        assert parts.watcher.look() == 0
        assert "[not-an-image]: the file is not DICOM, and a node takes nothing else" in caplog.text
        assert "JPEG" not in caplog.text


def new_watcher(parts: Parts) -> Watcher:
    """As after a start."""
    watch = Watch(str(parts.folder / "in"), settle_s=0.0)
    return Watcher(watch, parts.intake, parts.spool, free_mib=0.0, clock=parts.clock)
