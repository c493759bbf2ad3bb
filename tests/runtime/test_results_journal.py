"""The journal of a run: a line on the disk for each result, where a later run goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.results import JOURNAL, Journal, Run, write_csv
from bedside.severity import SeverityResult
from bedside.tables import json_line
from hindered_writing import file_size_limit, told
from made_results import BUNDLE, ENGINE, failed, refused, scored
from written_results import rows_of

RUN = Run(BUNDLE.digest, ENGINE.backend, ENGINE.precision)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / JOURNAL).read_text(encoding="ascii").splitlines()]


def test_each_result_is_a_line_on_the_disk_at_once(tmp_path: Path) -> None:
    with Journal(tmp_path, RUN) as journal:
        for number, result in enumerate((scored("a.dcm"), refused("b.dcm"), failed("c.dcm")), 1):
            journal.append(result, {"heatmap": "a.png"} if number == 1 else None)
            assert len(lines(tmp_path)) == number
    assert [line["source"] for line in lines(tmp_path)] == ["a.dcm", "b.dcm", "c.dcm"]
    assert lines(tmp_path)[0] == scored("a.dcm").to_json({"heatmap": "a.png"})


def test_results_that_are_there_are_not_overwritten(tmp_path: Path) -> None:
    with Journal(tmp_path, RUN) as journal:
        journal.append(scored())
    before = (tmp_path / JOURNAL).read_bytes()
    with told("output-exists", tmp_path):
        Journal(tmp_path, RUN)
    assert (tmp_path / JOURNAL).read_bytes() == before


def test_run_that_ended_before_its_first_result_is_in_nobodys_way(tmp_path: Path) -> None:
    Journal(tmp_path, RUN).close()
    with Journal(tmp_path, RUN) as journal:
        journal.append(scored())


def test_resuming_without_a_journal_begins_one(tmp_path: Path) -> None:
    with Journal(tmp_path, RUN, resume=True) as journal:
        assert not journal.done("study.dcm")
        journal.append(scored())
        assert journal.done("study.dcm")


def test_resuming_goes_on_behind_what_is_there(tmp_path: Path) -> None:
    with Journal(tmp_path, RUN) as journal:
        journal.append(scored("a.dcm"))
    with Journal(tmp_path, RUN, resume=True) as journal:
        assert journal.done("a.dcm")
        assert not journal.done("b.dcm")
        journal.append(scored("b.dcm"))
    assert [line["source"] for line in lines(tmp_path)] == ["a.dcm", "b.dcm"]


@given(cut=st.integers(1, 2000))
def test_unfinished_line_is_cut_off_and_the_others_kept(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("out")
    kept = f"{json_line(scored('a.dcm').to_json())}\n".encode()
    torn = f"{json_line(refused('b.dcm').to_json())}\n".encode()
    (folder / JOURNAL).write_bytes(kept + torn[: cut % len(torn)])
    with Journal(folder, RUN, resume=True) as journal:
        assert (folder / JOURNAL).read_bytes() == kept
        assert journal.done("a.dcm")
        assert not journal.done("b.dcm")
        journal.append(failed("c.dcm"))
    assert [line["source"] for line in lines(folder)] == ["a.dcm", "c.dcm"]


@pytest.mark.parametrize(
    ("result", "files", "run", "done"),
    [
        (scored(), None, RUN, True),
        (refused("study.dcm"), None, RUN, True),
        (failed("study.dcm"), None, RUN, False),
        (scored(), None, replace(RUN, digest="f" * 64), False),
        (scored(), None, replace(RUN, backend="openvino"), False),
        (scored(), None, replace(RUN, precision="bf16"), False),
        (scored(), None, replace(RUN, force=True), True),
        (refused("study.dcm"), None, replace(RUN, force=True), False),
        (scored(forced=True), None, replace(RUN, force=True), True),
        (scored(forced=True), None, RUN, False),
        (scored(), None, replace(RUN, files=("heatmap",)), False),
        (scored(), {"heatmap": "a.png"}, replace(RUN, files=("heatmap",)), True),
        (scored(), {"heatmap": "a.png"}, RUN, True),
        (refused("study.dcm"), None, replace(RUN, files=("heatmap",)), True),
    ],
)
def test_what_counts_as_done(
    result: SeverityResult, files: dict[str, str] | None, run: Run, *, done: bool, tmp_path: Path
) -> None:
    with Journal(tmp_path, RUN) as journal:
        journal.append(result, files)
    with Journal(tmp_path, run, resume=True) as journal:
        assert journal.done("study.dcm") is done
        assert not journal.done("other.dcm")


def test_last_line_of_an_input_counts(tmp_path: Path) -> None:
    with Journal(tmp_path, RUN) as journal:
        for result in (failed("a.dcm"), failed("b.dcm"), scored("a.dcm")):
            journal.append(result)
        assert journal.done("a.dcm")
        assert [journal.status_of(name) for name in ("a.dcm", "b.dcm", "c.dcm")] == ["ok", "failed", None]
        assert [record["source"] for record in journal.records()] == ["b.dcm", "a.dcm"]
        assert list(journal.records()) == lines(tmp_path)[1:]
    with Journal(tmp_path, RUN, resume=True) as journal:
        assert journal.done("a.dcm")
        assert list(journal.records()) == lines(tmp_path)[1:]


def test_second_run_into_the_same_folder_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path, RUN) as journal:
        for resume in (False, True):
            with told("output-not-writable", tmp_path):
                Journal(tmp_path, RUN, resume=resume)
        journal.append(scored())
    Journal(tmp_path, RUN, resume=True).close()
    assert len(lines(tmp_path)) == 1


def test_killed_run_keeps_its_results_and_frees_the_folder(tmp_path: Path) -> None:
    program = """
import sys, time
from made_results import scored
from bedside.results import Journal, Run
from made_results import BUNDLE, ENGINE
journal = Journal(sys.argv[1], Run(BUNDLE.digest, ENGINE.backend, ENGINE.precision))
for number in range(3):
    journal.append(scored(f"{number}.dcm"))
print("written", flush=True)
time.sleep(60)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "written\n"
        with told("output-not-writable", tmp_path):
            Journal(tmp_path, RUN, resume=True)
        child.send_signal(signal.SIGKILL)
    with Journal(tmp_path, RUN, resume=True) as journal:
        assert [journal.done(f"{number}.dcm") for number in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("room", [0, 1, 700])
def test_full_disk_leaves_no_half_line(tmp_path: Path, room: int) -> None:
    with Journal(tmp_path, RUN) as journal:
        journal.append(scored("a.dcm"))
        before = (tmp_path / JOURNAL).read_bytes()
        with told("disk-full", tmp_path), file_size_limit(len(before) + room):
            journal.append(scored("b.dcm"))
        assert (tmp_path / JOURNAL).read_bytes() == before
        assert not journal.done("b.dcm")
        journal.append(scored("c.dcm"))
    assert [line["source"] for line in lines(tmp_path)] == ["a.dcm", "c.dcm"]


@pytest.mark.parametrize(
    "foreign",
    [
        b"notes of mine\n",
        b"[1, 2]\n",
        b"null\n",
        b"{}\n",
        b'{"schema": "bedside.severity/2"}\n',
        b'{"schema": "bedside.severity/1", "status": "ok"}\n',
        b'{"schema": "bedside.severity/1", "status": "fine"}\n',
        b"\0\0\0\0\n",
        b"\xff\n",
        b"[" * 100_000 + b"\n",
    ],
)
def test_file_that_is_no_journal_is_refused_and_kept(tmp_path: Path, foreign: bytes) -> None:
    content = f"{json_line(scored().to_json())}\n".encode() + foreign
    (tmp_path / JOURNAL).write_bytes(content)
    with told("output-exists", tmp_path):
        Journal(tmp_path, RUN, resume=True)
    assert (tmp_path / JOURNAL).read_bytes() == content


def test_journal_is_a_regular_file_of_the_folder(tmp_path: Path) -> None:
    for name in ("pipe", "link", "folder"):
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "pipe" / JOURNAL)
    (tmp_path / "link" / JOURNAL).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "folder" / JOURNAL).mkdir()
    for name in ("pipe", "link", "folder", "absent"):
        with told("output-not-writable", tmp_path):
            Journal(tmp_path / name, RUN, resume=True)
    assert not (tmp_path / "elsewhere").exists()


def test_name_that_is_no_text_survives_the_journal_and_the_table(tmp_path: Path) -> None:
    source = os.fsdecode(b"caf\xe9 \xff\n.dcm")
    with Journal(tmp_path, RUN) as journal:
        journal.append(scored(source))
    with Journal(tmp_path, RUN, resume=True) as journal:
        assert journal.done(source)
        write_csv(tmp_path / "results.csv", journal.records())
    assert len(lines(tmp_path)) == 1
    (row,) = rows_of(tmp_path / "results.csv")
    assert row["source"] == "caf\\udce9 \\udcff\n.dcm"


def test_number_that_json_does_not_have_is_never_written(tmp_path: Path) -> None:
    with Journal(tmp_path, RUN) as journal:
        with pytest.raises(ValueError, match="JSON"):
            journal.append(scored(extent=float("nan")))
        journal.append(scored())
    assert len(lines(tmp_path)) == 1
