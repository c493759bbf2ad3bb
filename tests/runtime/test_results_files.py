"""Files of results: each appears whole or not at all, and what can't be written is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bedside.results import atomic, prepare_folder, write_bytes
from hindered_writing import file_size_limit, told, without_privilege
from written_results import names


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
