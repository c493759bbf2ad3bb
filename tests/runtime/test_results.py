from __future__ import annotations

import csv
import io
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bedside import BundleError, InputError, OutputError, RefusedError
from bedside.heatmap import render
from bedside.results import (
    JOURNAL,
    Journal,
    Run,
    atomic,
    heatmap_name,
    prepare_folder,
    write_bytes,
    write_csv,
    write_heatmap,
)
from bedside.severity import SeverityResult
from bedside.tables import csv_header, csv_line, csv_row, json_line
from made_results import BUNDLE, ENGINE, scored, unscored

RUN = Run(BUNDLE.digest, ENGINE.backend, ENGINE.precision)
NOBODY = 65534


def refused(source: str = "ct.dcm") -> SeverityResult:
    return unscored(source, RefusedError("wrong-modality", "the modality is CT; give an X-ray"))


def failed(source: str = "broken.dcm") -> SeverityResult:
    return unscored(source, InputError("truncated-pixels", "the pixel data ends early; copy it again"))


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file grow over ``size`` bytes, as a full disk does; the kernel says EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def without_privilege() -> Iterator[None]:
    """Be nobody for a while, where the tests run as root, whom no permission stops."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(user)


@contextmanager
def told(code: str, folder: Path) -> Iterator[None]:
    """Expect an OutputError of one line that names no file."""
    with pytest.raises(OutputError) as error:
        yield
    assert error.value.code == code
    assert "\n" not in error.value.message
    assert str(folder) not in error.value.message


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def rows_of(table: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.read_bytes().decode("utf-8"), newline="")))


# Whole files


def test_file_is_written_and_replaced(tmp_path: Path) -> None:
    for data in (b"first", b"", b"third" * 100_000):
        write_bytes(tmp_path / "result", data)
        assert (tmp_path / "result").read_bytes() == data
    assert names(tmp_path) == ["result"]


def test_file_has_the_usual_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "result", b"data")
    finally:
        os.umask(before)
    assert (tmp_path / "result").stat().st_mode & 0o777 == 0o640


def test_file_appears_only_at_the_end(tmp_path: Path) -> None:
    with atomic(tmp_path / "result") as stream:
        stream.write(b"half")
        stream.flush()
        assert not (tmp_path / "result").exists()
    assert names(tmp_path) == ["result"]


@pytest.mark.parametrize("error", [RuntimeError("a defect"), KeyboardInterrupt(), ValueError("another")])
def test_interrupted_writing_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    write_bytes(tmp_path / "result", b"old")

    def interrupted() -> None:
        with atomic(tmp_path / "result") as stream:
            stream.write(b"new")
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert (tmp_path / "result").read_bytes() == b"old"
    assert names(tmp_path) == ["result"]


@pytest.mark.parametrize("size", [0, 1, 4096, 99_999])
def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, size: int) -> None:
    write_bytes(tmp_path / "result", b"old")
    with told("disk-full", tmp_path), file_size_limit(size):
        write_bytes(tmp_path / "result", b"n" * 100_000)
    assert (tmp_path / "result").read_bytes() == b"old"
    assert names(tmp_path) == ["result"]


def test_missing_folder_is_told(tmp_path: Path) -> None:
    with told("output-not-writable", tmp_path):
        write_bytes(tmp_path / "absent" / "result", b"data")


def test_file_in_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with told("output-not-writable", tmp_path):
        write_bytes(tmp_path / "file" / "result", b"data")


def test_folder_without_permission_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with told("output-not-writable", tmp_path), without_privilege():
        write_bytes(folder / "result", b"data")
    assert names(folder) == []


def test_folder_or_device_is_never_replaced(tmp_path: Path) -> None:
    for path in (tmp_path, Path(os.devnull)):
        with told("output-not-writable", tmp_path):
            write_bytes(path, b"data")
    assert Path(os.devnull).is_char_device()


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "n" * 300])
def test_impossible_name_is_told(tmp_path: Path, name: str) -> None:
    with told("output-not-writable", tmp_path):
        write_bytes(tmp_path / name, b"data")
    assert names(tmp_path) == []


def test_folder_is_made_with_its_parents_and_left_empty(tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path / "a" / "b")
    assert prepare_folder(folder) == folder
    assert names(folder) == []


def test_folder_that_can_not_be_written_is_told_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "locked").mkdir(mode=0o500)
    for name in ("file", "file/below"):
        with told("output-not-writable", tmp_path):
            prepare_folder(tmp_path / name)
    with told("output-not-writable", tmp_path), without_privilege():
        prepare_folder(tmp_path / "locked")
    with told("disk-full", tmp_path), file_size_limit(3):
        prepare_folder(tmp_path)
    assert names(tmp_path) == ["file", "locked"]


# The journal


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


# The table


def cells_of(result: SeverityResult, files: dict[str, str] | None = None) -> dict[str, str]:
    text = csv_line(csv_header()) + csv_line(csv_row(result.to_json(files)).values())
    (row,) = csv.DictReader(io.StringIO(text))
    return row


def test_table_holds_the_scores_with_their_scales() -> None:
    row = cells_of(scored(), {"heatmap": "a.png"})
    expected = {
        "source": "study.dcm",
        "status": "ok",
        "error_code": "",
        "extent": "5.2",
        "extent_low": "4.2",
        "extent_high": "6.2",
        "extent_scale_low": "0.0",
        "extent_scale_high": "8.0",
        "opacity": "3.1",
        "opacity_scale_high": "6.0",
        "quality": "view-unknown",
        "forced": "false",
        "pathologies": "Lung Opacity=0.75;Effusion=0.125",
        "bundle": "tiny",
        "bundle_version": "1.0.0",
        "bundle_digest": BUNDLE.digest,
        "backend": "fake",
        "precision": "fp32",
        "device": "none",
        "total_ms": "14.75",
        "heatmap": "a.png",
        "notice": "Not for clinical use.",
    }
    assert expected.items() <= row.items()


@pytest.mark.parametrize("result", [refused(), failed()])
def test_row_without_a_score_has_empty_cells(result: SeverityResult) -> None:
    row = cells_of(result)
    assert row["error_code"]
    assert row["error_message"]
    assert {row[name] for name in row if name.startswith(("extent", "opacity", "path", "heat"))} == {""}


def test_every_row_has_the_columns_of_the_header() -> None:
    for result in (scored(), refused(), failed()):
        assert tuple(csv_row(result.to_json())) == csv_header()


@pytest.mark.parametrize("source", ["=1+1.dcm", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "＝1"])  # noqa: RUF001
def test_name_that_looks_like_a_formula_becomes_text(source: str) -> None:
    assert csv_row(scored(source).to_json())["source"] == f"'{source}"


@given(source=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_any_name_comes_back_from_the_table(source: str) -> None:
    line = csv_line(csv_row(scored(source).to_json()).values())
    (row,) = csv.reader(io.StringIO(line, newline=""))
    assert row[0].removeprefix("'") == source.removeprefix("'")
    assert not row[0].startswith(("=", "+", "-", "@"))


def test_table_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    records = [scored(f"{number}.dcm").to_json() for number in range(100)]
    with told("disk-full", tmp_path), file_size_limit(1000):
        write_csv(tmp_path / "results.csv", records)
    assert names(tmp_path) == []
    write_csv(tmp_path / "results.csv", records)
    assert [row["source"] for row in rows_of(tmp_path / "results.csv")] == [
        f"{number}.dcm" for number in range(100)
    ]


# Heatmaps


@given(st.lists(st.text(), min_size=2, max_size=2, unique=True), st.sampled_from([None, "study", "/"]))
def test_heatmap_names_are_safe_and_differ(sources: list[str], root: str | None) -> None:
    made = [heatmap_name(source.encode("utf-8", "ignore").decode(), root) for source in sources]
    for name in made:
        assert len(name) <= 114
        assert name.isascii()
        assert not set(name) & set('/\\:*?"<>| \0')
        assert not name.startswith((".", "-"))
        assert (Path("out") / name).parent == Path("out")
    if len({source.encode("utf-8", "ignore") for source in sources}) == 2:
        assert made[0].lower() != made[1].lower()


def test_heatmap_name_tells_the_input() -> None:
    assert heatmap_name("study/a/x.dcm", "study").startswith("a_x-")
    assert heatmap_name("study/a/x.dcm").startswith("x-")
    assert heatmap_name(Path("study/a/x.dcm")) == heatmap_name("study/a/x.dcm")


@pytest.mark.parametrize(
    ("one", "other"),
    [("s/a/x.dcm", "s/b/x.dcm"), ("s/x.dcm", "s/X.dcm"), ("s/x.dcm", "s/x.png"), ("s/a_x.dcm", "s/a/x.dcm")],
)
def test_inputs_of_one_name_have_heatmaps_of_their_own(one: str, other: str) -> None:
    assert heatmap_name(one, "s").lower() != heatmap_name(other, "s").lower()
    assert heatmap_name(one).lower() != heatmap_name(other).lower()


def test_inputs_of_one_name_in_two_folders_that_were_given_have_heatmaps_of_their_own() -> None:
    assert heatmap_name("one/x.dcm", "one") != heatmap_name("other/x.dcm", "other")


def test_long_names_that_differ_at_their_beginning_have_heatmaps_of_their_own() -> None:
    assert heatmap_name(f"s/a{'n' * 240}.dcm", "s") != heatmap_name(f"s/b{'n' * 240}.dcm", "s")


@pytest.mark.parametrize("source", ["", ".", "..", "../../etc/passwd", "/etc/passwd", "s/../../x.dcm", "s"])
def test_heatmap_never_leaves_the_folder(source: str) -> None:
    name = heatmap_name(source, "s")
    assert "/" not in name
    assert not name.startswith(".")


def test_heatmap_is_the_rendered_picture(tmp_path: Path) -> None:
    write_heatmap(tmp_path / "heatmap.png", scored())
    with Image.open(tmp_path / "heatmap.png") as picture:
        assert picture.format == "PNG"
        np.testing.assert_array_equal(np.asarray(picture), render(scored()))
        assert picture.info["Disclaimer"] == "Not for clinical use."
    write_heatmap(tmp_path / "heatmap.png", scored(), score="opacity")
    with Image.open(tmp_path / "heatmap.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), render(scored(), score="opacity"))


def test_heatmap_that_can_not_be_drawn_or_written_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        write_heatmap(tmp_path / "heatmap.png", scored(activation={}))
    with pytest.raises(ValueError, match="a scored result"):
        write_heatmap(tmp_path / "heatmap.png", refused())
    with told("disk-full", tmp_path), file_size_limit(1000):
        write_heatmap(tmp_path / "heatmap.png", scored())
    assert names(tmp_path) == []
