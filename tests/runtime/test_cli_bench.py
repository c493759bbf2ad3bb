"""``bench``: in processes of its own, on real engines and tiny bundles."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bedside.bench import Listener, Outcome, Request, Settings, measure, read_run
from bedside.bench.figures import Energy, Idle, StudyEnergy
from bedside.bench.session import LONG, settings_for
from bedside.bench.study import Order
from bedside.bench.subject import ProcessSubject
from bedside.bundle import Bundle
from bedside.cli.bench import _choose
from bedside.cli.bench_report import describe, progress
from bedside.errors import BackendError, OutputError
from command_line import draw, invoke, run, start
from made_bench import FAILED, make_run, make_scenario
from schemas import make_validator
from tiny_bundle import Network, golden_images, make_bundle
from tiny_ct_bundle import make_ct_bundle

VALIDATOR = make_validator("bench-1")
OPTIONS = ("--quick", "--generator", "bedside", "--threads", "1")
FEW = Settings(duration_s=0.0, queries=20, starts=0, idles=(), server=False, idle_power_s=0.0)
"""Nothing that starts further processes or waits."""
AMOUNT: dict[str, Any] = {
    "shortest": None, "queries": None, "latency_bound": None, "seed": 0, "is_long": False, "quick": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    draw(folder / "small.png")
    draw(folder / "large.png", shape=(400, 380))
    return folder


@pytest.fixture(scope="module")
def measured(bundle: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A real run: its JSON, and what was printed."""
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("run") / "run.json"
    done = invoke("bench", bundle, "--input", pictures, *OPTIONS, "--json", path)
    assert done.exit_code == 0, done.stdout + done.stderr
    assert done.stderr == f"all figures are in {path}\n"
    return path, done.stdout


def words(text: str) -> str:
    return " ".join(text.split())


def test_a_real_run_is_told_and_kept(measured: tuple[Path, str]) -> None:
    path, told = measured
    record = json.loads(path.read_text())
    VALIDATOR.validate(record)
    found = read_run(path)
    assert (found.valid, found.complete) == (True, True)
    assert found.engine.backend == "onnxruntime"
    assert found.parity is not None
    assert found.parity.passed
    names = {each.name for each in found.scenarios}
    unsteady = any(note.startswith("no server was searched") for note in found.notes)  # a busy machine
    assert names == {"single-stream", "offline"} | (set() if unsteady else {"server"})
    starts = {each.kind: each for each in found.starts}
    (cold,) = starts["cold process"].total_ms
    assert cold > starts["cold process"].parts_ms["open"][0] > 0
    assert starts["cold engine cache"].skipped  # ONNX Runtime keeps nothing
    assert len(starts["after 1 s"].total_ms) == 1
    assert {each.shape for each in found.samples} == {(96, 80), (400, 380)}
    assert set(found.scenarios[0].queries.samples) == {0, 1}
    server = "no server was searched" if unsteady else "server at"
    for part in ("single-stream", "offline", server, "cold process", "stages, median ms", "by size, median ms",
                 "not a submission", "parity passed on", "energy", "valid yes", "Not for clinical use."):  # fmt: skip
        assert part in words(told)


def test_result_names_no_file(measured: tuple[Path, str], pictures: Path) -> None:
    for text in (measured[0].read_text(), measured[1]):
        assert "small.png" not in text
        assert str(pictures) not in text


@pytest.mark.parametrize("name", ["cxr", "ct"])
def test_input_that_is_not_there_is_told_by_its_number(name: str, bundle: Path, tmp_path: Path) -> None:
    chosen = bundle if name == "cxr" else make_ct_bundle(tmp_path / "ct")
    done = invoke("bench", chosen, "--input", tmp_path, "--input", tmp_path / "Doe.dcm", "--quick")
    assert done.exit_code == 2
    assert "input 2 of 2: no such file or folder; check the path [not-found]" in words(done.stderr)
    assert "Doe" not in done.stdout + done.stderr


def test_engine_that_answers_wrong_is_not_valid(pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    golden = {name: values + 1 for name, values in Network().run(golden_images()).items()}
    wrong = make_bundle(tmp_path / "wrong", golden=golden)
    request = Request(threads=1, inputs=(pictures,), settings=FEW, generator="bedside", scratch=tmp_path)
    found = measure(Bundle.open(wrong), request).run
    assert found.parity is not None
    assert (found.valid, found.complete, found.parity.passed) == (False, True, False)
    assert "left the bundle's tolerance" in found.reasons[0]


def test_json_to_standard_output_is_alone(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = make_run(valid=False, reasons=("it throttled",))
    monkeypatch.setattr("bedside.bench.measure", lambda *_: Outcome(found))
    done = invoke("bench", bundle, "--json", "-")
    assert (done.exit_code, done.stderr) == (1, "")
    (line,) = done.stdout.splitlines()
    assert json.loads(line) == found.to_json()


def test_studies_in_a_process_outlive_its_death(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    subjects: list[ProcessSubject] = []

    def opened(order: Order) -> ProcessSubject:
        subjects.append(ProcessSubject(order))
        return subjects[-1]

    def report(phase: str, done: int, total: int) -> None:
        if (phase, done) == ("single stream", 3):
            os.kill(subjects[0].process, signal.SIGSEGV)

    request = Request(
        threads=1, inputs=(pictures,), settings=FEW, generator="bedside", scratch=tmp_path / "scratch"
    )
    found = measure(Bundle.open(bundle), request, Listener(report), open_subject=opened, meters=([], ()))
    assert isinstance(found.error, BackendError)
    assert found.error.code == "engine-crashed"
    assert 3 <= len(found.run.scenarios[0].queries.samples) <= 4
    assert "SIGSEGV" in found.run.reasons[0]
    assert not found.run.valid
    assert list((tmp_path / "scratch").iterdir()) == []


def test_ctrl_c_keeps_what_was_finished(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path, scratch = tmp_path / "run.json", tmp_path / "scratch"
    scratch.mkdir()
    with start(
        "bench", bundle, "--input", pictures, "--generator", "bedside", "--threads", "1", "--duration", "600s",
        "--json", path, "--scratch", scratch,
    ) as process:  # fmt: skip
        journal = None
        deadline = time.monotonic() + 240
        while (journal is None or len(journal.read_bytes().splitlines()) < 8) and time.monotonic() < deadline:
            time.sleep(0.05)
            journal = next(scratch.rglob("results.jsonl"), None)
        process.send_signal(signal.SIGINT)
        told, errors = process.communicate(timeout=240)
    assert process.returncode == 130, errors
    assert "stopping after this input" in errors
    assert errors.endswith("interrupted\n")
    assert "not complete" in told
    found = read_run(path)
    assert (found.complete, found.reasons) == (False, ("it was interrupted",))
    assert len(found.scenarios[0].queries.samples) >= 1
    assert list(scratch.iterdir()) == []


def test_output_that_can_not_be_written_is_told_before_anything_runs(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for target in (tmp_path / "file" / "run.json", tmp_path):
        done = invoke("bench", bundle, "--json", target)
        assert done.exit_code == 2
        assert "output-not-writable" in done.stderr
        assert done.stdout == ""


def test_full_disk_for_the_json_still_prints_the_table(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OutputError("disk-full", "the output can't be written; free space or write elsewhere")

    monkeypatch.setattr("bedside.bench.measure", lambda *_: Outcome(make_run()))
    monkeypatch.setattr("bedside.results.write_bytes", full)
    done = invoke("bench", bundle, "--json", tmp_path / "run.json")
    assert done.exit_code == 2
    assert "single-stream" in done.stdout
    assert "[disk-full]" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (BackendError("engine-crashed", "it died; try another"), 1),
        (OutputError("disk-full", "no space; free some"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_code_says_what_ended_it(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException | None, code: int
) -> None:
    found = make_run(complete=error is None, reasons=() if error is None else ("it ended early",))
    monkeypatch.setattr("bedside.bench.measure", lambda *_: Outcome(found, error))
    done = invoke("bench", bundle, "--json", tmp_path / "run.json")
    assert done.exit_code == code
    assert read_run(tmp_path / "run.json").to_json() == found.to_json()


def test_no_picture_is_told(bundle: Path, tmp_path: Path) -> None:
    done = invoke("bench", bundle, "--input", tmp_path, *OPTIONS)
    assert done.exit_code == 2
    assert "[not-found]" in done.stderr


def test_picture_that_is_none_is_told(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "a.png").write_bytes(b"no picture")
    done = invoke("bench", bundle, "--input", tmp_path / "a.png", *OPTIONS)
    assert done.exit_code == 2
    assert "no input can be measured on" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give a BUNDLE"),
        (("bundle", "--compare", "a", "b"), "leave out BUNDLE"),
        (("--compare", "a"), "requires 2 arguments"),
        (("bundle", "--duration", "soon"), "is not a time"),
        (("bundle", "--queries", "0"), "0 is not in the range"),
    ],
)
def test_wrong_usage_is_told(arguments: tuple[str, ...], told: str) -> None:
    done = invoke("bench", *arguments)
    assert done.exit_code == 2
    assert told in done.stderr


def test_bundle_that_is_not_there_is_told() -> None:
    done = invoke("bench", "no-such-bundle")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "[bundle-not-found]" in done.stderr


def test_runs_are_compared(tmp_path: Path) -> None:
    for name, values in {"old": [20.0] * 50, "new": [10.0] * 50}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(make_run(values).to_json()))
    done = invoke(
        "bench", "--compare", tmp_path / "old.json", tmp_path / "new.json", "--json", tmp_path / "ratios.json"
    )
    assert done.exit_code == 0, done.stderr
    assert "single-stream  p50" in done.stdout
    assert "faster" in done.stdout
    assert "0.500 to 0.500" in done.stdout
    assert "in all" in done.stdout
    make_validator("bench-comparison-1").validate(json.loads((tmp_path / "ratios.json").read_text()))
    alone = invoke("bench", "--compare", tmp_path / "old.json", tmp_path / "new.json", "--json", "-")
    assert json.loads(alone.stdout)["schema"] == "bedside.bench-comparison/1"


def test_compare_tells_what_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    done = invoke("bench", "--compare", tmp_path / "run.json", tmp_path / "run.json")
    assert done.exit_code == 2
    assert "[not-results]" in done.stderr


def test_options_say_how_much() -> None:
    usual = settings_for("cxr-severity")
    assert _choose("cxr-severity", AMOUNT) == usual
    assert _choose("cxr-severity", {**AMOUNT, "is_long": True}).idles == (*usual.idles, LONG)
    assert Idle(60.0, 2) not in usual.idles
    much = _choose("ct-opacity", {**AMOUNT, "shortest": 600.0, "queries": 7, "latency_bound": 0.5, "seed": 4})
    assert (much.duration_s, much.queries, much.latency_bound_ms, much.seed, much.server) == (
        600.0,
        7,
        500.0,
        4,
        True,
    )


def test_report_tells_what_is_missing_and_what_is_wrong() -> None:
    energy = Energy(
        True, "", ("gpu0",), 10.0, None, (StudyEnergy("offline", 4, 9.5, 100.0, 1.5, 1.0, 2.0, {}),)
    )
    found = make_run(
        scenarios=(make_scenario((5.0,) * 70), make_scenario((5.0,), "offline", complete=False)),
        parity=FAILED,
        energy=energy,
        left_out={"wrong-view": 2},
        valid=False,
        complete=False,
        reasons=("it ended early",),
        notes=("one input alone",),
    )
    text = words(describe(found))
    for part in ("1.5 J a study above idle (1 to 2)", "10.0 W before", "2 left out [wrong-view]", "not finished",
                 "FAILED on 3 golden inputs: extent 0.5", "opacity not finite", "and not complete; it ended early",
                 "9 of 10 are faster than 5.00 ms; p99 takes 662 queries, and there were 70", "one input"):  # fmt: skip
        assert part in text
    assert "not run" in words(describe(replace(found, parity=None, scenarios=(), starts=())))


def test_progress_is_shown_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    pressed = []
    with progress(lambda: pressed.append(1), shown=True) as listener:
        listener.report("single stream", 3, 10)
        sys.stderr.flush()
    assert "single stream" in capsys.readouterr().err
    assert pressed == [1]


def test_help_names_every_option_and_loads_nothing() -> None:
    done = run("bench", "--help", code="import sys; sys.modules['numpy'] = None")
    assert done.returncode == 0, done.stderr
    for option in ("--input", "--latency-bound", "--compare", "--json", "--long", "--quick", "--report"):
        assert option in done.stdout
    assert re.search(r"no result of\s+MLPerf", done.stdout)
