"""What comes into a node: to its place, into the queue, and complete when it is."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bedside.errors import InputError, NodeError, OutputError, RefusedError
from bedside.node import watcher
from bedside.node.config import Completion as Choice
from bedside.node.entries import Arrival
from bedside.node.intake import FOLDER, Sender
from bedside.node.queue import Queue
from bedside.node.spool import Spool, remove
from made_node import CANARY, Parts, make_parts, write_picture, write_slice

QUIET_S = Choice().quiet_s


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with make_parts(tmp_path) as made:
        yield made


def take(parts: Parts, path: Path, sender: Sender = FOLDER) -> str:
    part = parts.spool.part()
    shutil.copyfile(path, part)
    return parts.intake.take(part, sender).outcome


class TestObjects:
    def test_picture_is_ready_at_once(self, parts: Parts, tmp_path: Path) -> None:
        assert take(parts, write_picture(tmp_path / "a.dcm")) == "new"
        (study,) = parts.studies()
        assert (study.state, study.rule, study.instances, study.unit) == ("ready", "xray", 1, "1.2.1.1.1")
        assert parts.woken == [None]
        assert parts.stored() == parts.desk.ask(lambda queue: queue.paths())
        assert not list(parts.spool.incoming.iterdir())

    def test_two_pictures_of_a_series_are_two_studies(self, parts: Parts, tmp_path: Path) -> None:
        for number in (1, 2):
            take(parts, write_picture(tmp_path / "a.dcm", SOPInstanceUID=f"1.2.1.1.{number}"))
        assert parts.states() == ["ready", "ready"]

    def test_same_object_again_is_known_and_kept_once(self, parts: Parts, tmp_path: Path) -> None:
        path = write_picture(tmp_path / "a.dcm")
        assert [take(parts, path), take(parts, path)] == ["new", "known"]
        assert len(parts.stored()) == 1

    def test_same_data_in_another_wrapping_is_known(self, parts: Parts, tmp_path: Path) -> None:
        path = write_picture(tmp_path / "a.dcm")
        take(parts, path)
        data = bytearray(path.read_bytes())
        data[:4] = b"else"  # the preamble is whoever's
        path.write_bytes(data)
        assert take(parts, path) == "known"

    def test_other_pixels_under_a_known_uid_are_refused_and_the_first_stay(
        self, parts: Parts, tmp_path: Path
    ) -> None:
        take(parts, write_picture(tmp_path / "a.dcm"))
        before = parts.stored()
        with pytest.raises(InputError, match="another content") as raised:
            take(parts, write_picture(tmp_path / "b.dcm", pixels=np.ones((72, 80), np.uint16)))
        assert raised.value.code == "other-pixels"
        assert parts.stored() == before
        assert parts.states() == ["ready"]

    def test_object_that_no_rule_takes_leaves_nothing(self, parts: Parts, tmp_path: Path) -> None:
        with pytest.raises(RefusedError) as raised:
            take(parts, write_picture(tmp_path / "a.dcm", Modality="MG"))
        assert raised.value.code == "no-rule"
        assert (parts.states(), parts.stored(), list(parts.spool.incoming.iterdir())) == ([], set(), [])

    @pytest.mark.parametrize("content", [b"", b"no DICOM at all" * 20], ids=["empty", "text"])
    def test_what_is_no_dicom_leaves_nothing(self, parts: Parts, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.dcm").write_bytes(content)
        with pytest.raises(InputError):
            take(parts, tmp_path / "a.dcm")
        assert not list(parts.spool.incoming.iterdir())

    def test_names_on_the_disk_and_the_audit_say_nothing_of_the_patient(
        self, parts: Parts, tmp_path: Path
    ) -> None:
        take(parts, write_picture(tmp_path / f"{CANARY}.dcm"), Sender("association", "XRAY1", "BEDSIDE"))
        names = [str(path.relative_to(parts.spool.root)) for path in parts.spool.root.rglob("*")]
        assert not [name for name in names if CANARY in name or "1.2.1" in name]
        (event,) = parts.events()
        assert (event["event"], event["outcome"], event["calling_ae"]) == ("received", "new", "XRAY1")
        assert CANARY not in str(event)
        assert "1.2.1" not in str(event)

    def test_title_from_the_network_is_cut_and_cleaned_in_the_audit(
        self, parts: Parts, tmp_path: Path
    ) -> None:
        with pytest.raises(RefusedError):
            take(
                parts,
                write_picture(tmp_path / "a.dcm", Modality="US"),
                Sender("association", "A\n\x1b" + "B" * 99),
            )
        (event,) = parts.events()
        assert event["calling_ae"] == "A" + "B" * 13


class TestCompletion:
    def test_series_waits_for_quiet(self, parts: Parts, tmp_path: Path) -> None:
        for number in (1, 2):
            take(parts, write_slice(tmp_path / "a.dcm", number))
            parts.clock.now += QUIET_S * 0.9
            parts.completion.look()
        assert parts.states() == ["received"]
        parts.clock.now += QUIET_S * 0.2
        parts.completion.look()
        assert parts.states() == ["ready"]
        assert parts.studies()[0].instances == 2

    def test_slice_that_is_sent_again_keeps_a_series_waiting(self, parts: Parts, tmp_path: Path) -> None:
        path = write_slice(tmp_path / "a.dcm", 1)
        take(parts, path)
        parts.clock.now += QUIET_S * 0.9
        take(parts, path)
        parts.clock.now += QUIET_S * 0.9
        parts.completion.look()
        assert parts.states() == ["received"]

    def test_late_slice_reopens_a_series(self, parts: Parts, tmp_path: Path) -> None:
        take(parts, write_slice(tmp_path / "a.dcm", 1))
        parts.clock.now += QUIET_S
        parts.completion.look()
        work = parts.desk.ask(lambda queue: queue.claim(0.0))
        assert work is not None
        take(parts, write_slice(tmp_path / "a.dcm", 2))
        (study,) = parts.studies()
        assert (study.state, study.generation, study.instances) == ("received", 2, 2)
        parts.clock.now += QUIET_S
        parts.completion.look()
        assert parts.states() == ["ready"]

    def test_expected_number_of_slices_is_enough(self, parts: Parts, tmp_path: Path) -> None:
        for number in (1, 2, 3):
            assert parts.states() in ([], ["received"])
            take(parts, write_slice(tmp_path / "a.dcm", number, NumberOfSeriesRelatedInstances=3))
        assert parts.states() == ["ready"]

    def test_expected_number_can_be_left_unheard(self, tmp_path: Path) -> None:
        with make_parts(tmp_path, Choice(expected=False)) as parts:
            take(parts, write_slice(tmp_path / "a.dcm", 1, NumberOfSeriesRelatedInstances=1))
            assert parts.states() == ["received"]

    @pytest.mark.parametrize(("enough", "state"), [(True, "ready"), (False, "received")])
    def test_end_of_an_association_is_enough_if_so_configured(
        self, tmp_path: Path, enough: bool, state: str
    ) -> None:
        with make_parts(tmp_path, Choice(association_end=enough)) as parts:
            take(parts, write_slice(tmp_path / "a.dcm", 1))
            parts.completion.ended([study.id for study in parts.studies()])
            assert parts.states() == [state]

    def test_full_disk_at_the_end_of_a_series_leaves_it_due(
        self, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        take(parts, write_slice(tmp_path / "a.dcm", 1))
        parts.clock.now += QUIET_S

        def fail(*_: object) -> bool:
            raise OutputError("disk-full", "no space")

        with monkeypatch.context() as patch:
            patch.setattr(Queue, "complete", fail)
            with pytest.raises(OutputError):
                parts.completion.look()
        assert parts.states() == ["received"]
        parts.completion.look()
        assert parts.states() == ["ready"]

    def test_what_was_awaited_is_awaited_anew_after_a_start(self, tmp_path: Path) -> None:
        with make_parts(tmp_path) as parts:
            take(parts, write_slice(tmp_path / "a.dcm", 1))
        with make_parts(tmp_path) as parts:
            parts.completion.resume(parts.studies(), alone=["xray"])
            parts.clock.now += QUIET_S * 0.9
            parts.completion.look()
            assert parts.states() == ["received"]
            parts.clock.now += QUIET_S * 0.1
            parts.completion.look()
            assert parts.states() == ["ready"]

    def test_picture_that_a_cut_left_received_is_ready_after_a_start(self, tmp_path: Path) -> None:
        with make_parts(tmp_path) as parts:
            parts.desk.ask(
                lambda queue: queue.add(Arrival("1.2", "1", "1.2", "images/a", "a", 1), "xray", 0.0)
            )
        with make_parts(tmp_path) as parts:
            parts.completion.resume(parts.studies(), alone=["xray"])
            assert parts.states() == ["ready"]


class TestSpool:
    def test_one_node_at_a_time(self, parts: Parts) -> None:
        with pytest.raises(NodeError, match="another node"):
            Spool(parts.spool.root)

    def test_sweep_removes_what_nothing_refers_to(self, parts: Parts, tmp_path: Path) -> None:
        take(parts, write_picture(tmp_path / "a.dcm"))
        kept = parts.stored()
        parts.spool.part().write_bytes(b"half")
        stray = parts.spool.images / "stray" / "x.dcm"
        stray.parent.mkdir()
        stray.write_bytes(b"x")
        (parts.spool.results / "9-1-abc").mkdir()
        assert parts.spool.sweep(parts.desk.ask(lambda queue: queue.paths())) == 3
        assert parts.stored() == kept
        assert not stray.parent.exists()
        assert not list(parts.spool.results.iterdir())

    def test_removing_twice_is_no_error(self, parts: Parts, tmp_path: Path) -> None:
        take(parts, write_picture(tmp_path / "a.dcm"))
        paths = parts.stored()
        for _ in range(2):
            remove(parts.spool.root, paths)
        assert not list(parts.spool.images.iterdir())

    def test_result_folder_is_empty(self, parts: Parts, tmp_path: Path) -> None:
        take(parts, write_picture(tmp_path / "a.dcm"))
        (study,) = parts.studies()
        (parts.spool.result_folder(study, "d" * 64) / "half.dcm").write_bytes(b"x")
        assert not list(parts.spool.result_folder(study, "d" * 64).iterdir())

    def test_full_disk_is_told_and_nothing_is_half_there(
        self, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OutputError) as raised:
            take(parts, write_picture(tmp_path / "a.dcm"))
        assert raised.value.code == "disk-full"
        assert (parts.states(), parts.stored()) == ([], set())


class TestWatchedFolder:
    def look(self, parts: Parts) -> int:
        """Look twice, a while apart; returns how many files were taken."""
        first = parts.watcher.look()
        parts.clock.now += 60.0
        return first + parts.watcher.look()

    def test_files_are_taken_in_and_gone_from_there(self, parts: Parts) -> None:
        write_picture(parts.folder / "in" / "a.dcm")
        write_picture(parts.folder / "in" / "deeper" / "b.dcm", 2)
        assert parts.watcher.look() == 2
        assert parts.states() == ["ready", "ready"]
        assert not [path for path in (parts.folder / "in").rglob("*") if path.is_file()]

    def test_file_that_still_grows_waits(self, tmp_path: Path) -> None:
        with make_parts(tmp_path) as parts:
            parts.watcher._settle_s = 5.0
            path = write_picture(parts.folder / "in" / "a.dcm")
            whole = path.read_bytes()
            for end in (200, 400, len(whole)):
                path.write_bytes(whole[:end])
                parts.clock.now += 4.0
                assert parts.watcher.look() == 0
            parts.clock.now += 5.0
            assert parts.watcher.look() == 1

    @pytest.mark.parametrize("moment", ["_copy", "take"])
    def test_file_that_goes_on_growing_while_it_is_taken_is_not_removed(
        self, parts: Parts, monkeypatch: pytest.MonkeyPatch, moment: str
    ) -> None:
        path = write_picture(parts.folder / "in" / "a.dcm")
        owner = watcher if moment == "_copy" else parts.intake
        original = getattr(owner, moment)

        def grow(*given: object) -> object:
            answer = original(*given)
            with path.open("ab") as stream:
                stream.write(b"more")
            return answer

        with monkeypatch.context() as patch:
            patch.setattr(owner, moment, grow)
            parts.watcher.look()
        assert path.exists()
        assert parts.states() == ([] if moment == "_copy" else ["ready"])

    def test_what_is_not_taken_stays_and_is_not_tried_again_until_it_changes(
        self, parts: Parts, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = parts.folder / "in" / f"{CANARY}.txt"
        path.write_text("a letter to the ward " * 10)
        assert self.look(parts) == 0
        assert self.look(parts) == 0
        assert path.exists()
        assert len(caplog.records) == 2  # by the intake and by the watcher, once
        assert CANARY not in caplog.text
        write_picture(path)
        assert self.look(parts) == 1

    def test_hidden_and_partial_files_and_links_are_left_alone(self, parts: Parts, tmp_path: Path) -> None:
        folder = parts.folder / "in"
        for name in (".a.dcm", "a.dcm.part", "a.tmp"):
            write_picture(folder / name)
        (folder / "link.dcm").symlink_to(write_picture(tmp_path / "elsewhere.dcm"))
        assert self.look(parts) == 0
        assert len(list(folder.iterdir())) == 4

    def test_known_file_is_removed_too(self, parts: Parts) -> None:
        for _ in range(2):
            write_picture(parts.folder / "in" / "a.dcm")
            assert parts.watcher.look() == 1
        assert len(parts.stored()) == 1

    def test_nearly_full_disk_lets_files_wait(self, parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
        path = write_picture(parts.folder / "in" / "a.dcm")
        parts.watcher._free_mib = 1e12
        assert self.look(parts) == 0
        assert path.exists()
        assert "nearly full" in parts.watcher.problem
        assert len(caplog.records) == 1
        parts.watcher._free_mib = 0.0
        assert self.look(parts) == 1
        assert parts.watcher.problem == ""

    @pytest.mark.parametrize("error", [PermissionError, FileNotFoundError])
    def test_folder_inside_that_can_not_be_read_holds_up_no_others(
        self,
        parts: Parts,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        error: type[OSError],
    ) -> None:
        closed = parts.folder / "in" / CANARY
        closed.mkdir()
        scandir = os.scandir

        def refuse(path: Path) -> object:
            if path == closed:
                raise error(errno.EACCES, "Permission denied")
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
        for number in (1, 2):
            write_picture(parts.folder / "in" / "a.dcm", number)
            assert parts.watcher.look() == 1
        assert parts.watcher.problem == ""
        assert len(caplog.records) == (error is PermissionError)
        assert CANARY not in caplog.text

    def test_folder_that_is_gone_is_told_and_comes_back(self, parts: Parts) -> None:
        (parts.folder / "in").rmdir()
        assert parts.watcher.look() == 0
        assert "can't be read" in parts.watcher.problem
        write_picture(parts.folder / "in" / "a.dcm")
        assert parts.watcher.look() == 1
        assert parts.watcher.problem == ""
