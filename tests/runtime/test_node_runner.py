"""What runs in a process of its own: its crash or hang costs one study one try."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bedside.bundle import Bundle
from bedside.errors import BackendError, BundleError, OutputError
from bedside.node import runner as module
from bedside.node.entries import Study
from bedside.node.intake import FOLDER
from bedside.node.queue import Queue
from bedside.node.runner import Runner, Terms
from dicom_series import make_series, write_series
from made_dicom import SMALL
from made_node import CANARY, JOBS, Parts, make_job, make_parts, until, write_picture, write_slice
from tiny_bundle import make_bundle
from tiny_ct_bundle import make_ct_bundle

QUICK = Terms(deadline_s=20.0, grace_s=0.0)


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with make_parts(tmp_path, tries=2) as made:
        yield made


def make_runner(parts: Parts, terms: Terms = QUICK) -> Runner:
    return Runner(
        parts.spool, parts.desk, JOBS, terms, parts.chronicle, lambda: None, worker="stand_in_worker"
    )


def send(parts: Parts, todo: str, number: int = 1) -> None:
    """Take in an X-ray that the worker is to do this with."""
    part = parts.spool.part()
    shutil.move(write_picture(parts.folder / "x.dcm", number, StudyDescription=todo), part)
    parts.intake.take(part, FOLDER)


def run(parts: Parts, *todo: str, terms: Terms = QUICK) -> list[Study]:
    """Take in X-rays, run them to their ends, and stop; returns their studies in the order in which they came."""
    for number, each in enumerate(todo, 1):
        send(parts, each, number)
    runner = make_runner(parts, terms)
    runner.start()
    until(lambda: not {"ready", "running", "received"} & set(parts.states()))
    runner.stop()
    return sorted(parts.studies(), key=lambda study: study.id)


def reports(parts: Parts, study: Study) -> list[str]:
    """What the reports of a study say."""
    shipments = parts.desk.ask(lambda queue: queue.shipments(study.id))
    return [(parts.spool.root / each.path / "made-report.dcm").read_text() for each in shipments]


def test_answer_is_done_and_waits_to_be_sent(parts: Parts) -> None:
    (study,) = run(parts, "answer")
    assert (study.state, study.attempts, study.error_code) == ("done", 1, None)
    assert reports(parts, study) == ["answer"]
    (shipment,) = parts.desk.ask(lambda queue: queue.shipments(study.id))
    assert (shipment.destination, shipment.state, shipment.digest) == ("pacs", "pending", "d" * 64)


def test_refusal_is_an_answer_too_and_says_why(parts: Parts) -> None:
    (study,) = run(parts, "refuse")
    assert (study.state, study.attempts, study.error_code) == ("done", 1, "wrong-view")
    assert reports(parts, study) == ["refuse"]


def test_crash_costs_its_study_a_try_and_the_others_nothing(parts: Parts) -> None:
    studies = run(parts, "answer", "crash", "answer")
    assert [(study.state, study.attempts) for study in studies] == [("done", 1), ("failed", 2), ("done", 1)]
    assert studies[1].error_code == "engine-crashed"
    assert "SIGSEGV" in str(studies[1].error_message)
    assert reports(parts, studies[1]) == ["failed"]  # it was explained in a process of its own


def test_message_of_a_crash_names_no_path(parts: Parts) -> None:
    (study,) = run(parts, "crash")
    assert "the last words about (path)" in str(study.error_message)


def test_hang_is_ended_and_costs_a_try(parts: Parts) -> None:
    hung, answered = run(parts, "hang", "answer", terms=Terms(deadline_s=0.5, grace_s=0.0))
    assert (hung.state, hung.error_code, hung.attempts) == ("failed", "engine-hung", 2)
    assert answered.state == "done"


def test_engine_that_fails_is_tried_again_and_its_own_report_is_sent_at_last(parts: Parts) -> None:
    (study,) = run(parts, "fail")
    assert (study.state, study.attempts, study.error_code) == ("failed", 2, "engine-failed")
    assert reports(parts, study) == ["fail"]


def test_set_aside_study_is_run_again_by_command_and_has_a_second_result(parts: Parts) -> None:
    (study,) = run(parts, "fail")
    assert parts.desk.ask(lambda queue: queue.retry(study.id, time.time()))
    (again,) = run(parts)
    assert (again.state, again.generation) == ("failed", 2)
    assert len(reports(parts, again)) == 2


def test_full_disk_costs_no_try_and_is_told(parts: Parts) -> None:
    send(parts, "full")
    runner = make_runner(parts)
    runner.start()
    until(lambda: bool(runner.problem))
    assert "no space" in runner.problem
    runner.stop()
    (study,) = parts.studies()
    assert (study.state, study.attempts) == ("ready", 0)
    assert not list(parts.spool.results.iterdir())


def test_queue_that_can_not_be_written_costs_no_try_and_strands_no_study(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.01)
    left = [OutputError("disk-full", "no space")] * 4
    for name in ("finish", "recover"):
        monkeypatch.setattr(Queue, name, fail_while(left, getattr(Queue, name)))
    (study,) = run(parts, "answer")
    assert left == []
    assert (study.state, study.attempts, study.error_code) == ("done", 1, None)
    assert reports(parts, study) == ["answer"]


def test_defect_costs_a_try(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.01)
    monkeypatch.setattr(Queue, "finish", fail_while([KeyError(CANARY)] * 9, Queue.finish))
    (study,) = run(parts, "answer")
    assert (study.state, study.attempts, study.error_code) == ("failed", 2, "engine-crashed")


def test_problem_is_over_when_nothing_is_left_to_run(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Queue, "claim", fail_while([OutputError("disk-full", "no space")], Queue.claim))
    monkeypatch.setattr(module, "PAUSE_S", 0.2)
    runner = make_runner(parts)
    runner.start()
    until(lambda: runner.problem == "no space")
    until(lambda: runner.problem == "")
    runner.stop()


def fail_while(errors: list[Any], method: Callable[..., Any]) -> Callable[..., Any]:
    """The same, but for each of ``errors``, which it raises first."""

    def called(*given: Any, **named: Any) -> Any:
        if errors:
            raise errors.pop()
        return method(*given, **named)

    return called


def test_study_that_runs_at_the_end_has_its_grace(parts: Parts) -> None:
    send(parts, "slow")
    runner = make_runner(parts, Terms(deadline_s=20.0, grace_s=20.0))
    runner.start()
    until(lambda: parts.states() == ["running"])
    runner.stop()
    assert parts.states() == ["done"]


def test_study_that_does_not_end_in_its_grace_goes_back_and_keeps_its_try(parts: Parts) -> None:
    send(parts, "hang")
    runner = make_runner(parts)
    runner.start()
    until(lambda: parts.states() == ["running"])
    runner.stop()
    (study,) = parts.studies()
    assert (study.state, study.attempts) == ("ready", 0)


def test_late_slice_makes_a_result_old_before_it_is_recorded(parts: Parts) -> None:
    def slices(number: int) -> None:
        part = parts.spool.part()
        shutil.move(write_slice(parts.folder / "x.dcm", number, StudyDescription="late"), part)
        parts.intake.take(part, FOLDER)
        parts.clock.now += 60.0
        parts.completion.look()

    slices(1)
    runner = make_runner(parts)
    runner.start()
    until(lambda: parts.states() == ["running"])
    slices(2)
    (parts.folder / "go").touch()
    until(lambda: parts.states() == ["done"])
    runner.stop()
    (study,) = parts.studies()
    assert (study.generation, study.instances) == (2, 2)
    assert len(reports(parts, study)) == 1
    assert len(list(parts.spool.results.iterdir())) == 1


def test_xray_does_not_wait_behind_the_scans(parts: Parts) -> None:
    for number in (1, 2):
        part = parts.spool.part()
        shutil.move(
            write_slice(
                parts.folder / "x.dcm", number, series=f"1.3.{number}", NumberOfSeriesRelatedInstances=1
            ),
            part,
        )
        parts.intake.take(part, FOLDER)
    send(parts, "answer")
    run(parts)
    ran = [event["rule"] for event in parts.events() if event["event"] == "ran"]
    assert ran == ["xray", "ct", "ct"]


def test_study_whose_rule_is_gone_is_set_aside_and_says_so(parts: Parts) -> None:
    send(parts, "answer")
    runner = Runner(
        parts.spool, parts.desk, {}, QUICK, parts.chronicle, lambda: None, worker="stand_in_worker"
    )
    runner.start()
    until(lambda: parts.states() == ["failed"])
    runner.stop()
    (study,) = parts.studies()
    assert (study.error_code, study.attempts) == ("no-rule", 1)


def test_logs_and_audit_hold_nothing_of_the_patient(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    run(parts, "answer", "crash", "refuse")
    told = caplog.text + str(parts.events())
    assert "study 1" in told
    assert CANARY not in told
    assert "1.2.1" not in told
    assert str(parts.spool.root) not in told


class TestRealWorker:
    """The worker itself, with a tiny bundle."""

    def run(
        self, parts: Parts, *paths: Path, memory_mib: float | None = None
    ) -> tuple[Study, dict[str, Path]]:
        jobs = {}
        for rule, task, folder in (
            ("xray", "cxr-severity", make_bundle(parts.folder / "tiny")),
            ("ct", "ct-opacity", make_ct_bundle(parts.folder / "tiny-ct")),
        ):
            digest = Bundle.open(folder).digest
            jobs[rule] = make_job(rule, task, bundle=str(folder), digest=digest, memory_mib=memory_mib)
        for path in paths:
            part = parts.spool.part()
            shutil.move(path, part)
            parts.intake.take(part, FOLDER)
        parts.clock.now += 60.0
        parts.completion.look()
        runner = Runner(parts.spool, parts.desk, jobs, QUICK, parts.chronicle, lambda: None)
        runner.open()
        runner.start()
        until(lambda: bool({"done", "failed"} & set(parts.states())))
        runner.stop()
        (study,) = parts.studies()
        (shipment,) = parts.desk.ask(lambda queue: queue.shipments(study.id))
        return study, {
            each.stem.rpartition("-")[2]: each for each in (parts.spool.root / shipment.path).iterdir()
        }

    def test_xray_becomes_dicom_and_json(self, parts: Parts) -> None:
        pytest.importorskip("highdicom", reason="needs the extra dicom")
        study, files = self.run(parts, write_picture(parts.folder / "x.dcm"))
        assert (study.state, study.error_code) == ("done", None)
        assert set(files) == {"report", "heatmap", "map", "result"}

    def test_refused_xray_gets_a_report_that_says_why(self, parts: Parts) -> None:
        pytest.importorskip("highdicom", reason="needs the extra dicom")
        study, files = self.run(parts, write_picture(parts.folder / "x.dcm", ViewPosition="LL"))
        assert (study.state, study.error_code) == ("done", "wrong-view")
        assert set(files) == {"report", "result"}

    def test_series_that_makes_no_volume_is_refused_at_the_first_try(self, parts: Parts) -> None:
        pytest.importorskip("highdicom", reason="needs the extra dicom")
        study, files = self.run(parts, write_slice(parts.folder / "x.dcm", 1))
        assert (study.state, study.error_code, study.attempts) == ("done", "improper-geometry", 1)
        assert set(files) == {"report", "result"}

    def test_scan_that_does_not_fit_its_memory_is_told_so(self, parts: Parts) -> None:
        pytest.importorskip("highdicom", reason="needs the extra dicom")
        path = write_series(parts.folder / "series", make_series(SMALL))
        study, _ = self.run(parts, *sorted(path.iterdir()), memory_mib=1.0)
        assert (study.state, study.error_code) == ("failed", "memory-too-small")

    def test_scan_becomes_dicom_and_json(self, parts: Parts) -> None:
        pytest.importorskip("highdicom", reason="needs the extra dicom")
        path = write_series(parts.folder / "series", make_series(SMALL))
        study, files = self.run(parts, *sorted(path.iterdir()), memory_mib=4096.0)
        assert (study.state, study.error_code) == ("done", None)
        assert {"report", "seg", "montage", "result"} <= set(files)

    def test_engine_that_can_not_be_opened_is_told_before_the_first_study(self, parts: Parts) -> None:
        bundle = make_bundle(parts.folder / "tiny")
        jobs = {"xray": make_job("xray", "cxr-severity", bundle=str(bundle))}
        runner = Runner(parts.spool, parts.desk, jobs, QUICK, parts.chronicle, lambda: None)
        with pytest.raises((BundleError, BackendError), match="restart"):
            runner.open()
        runner.stop()
