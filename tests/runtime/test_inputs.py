from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bedside.errors import InputError
from bedside.inputs import Inputs

PREAMBLE = bytes(128) + b"DICM"


def write(path: Path, data: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def found(inputs: Inputs, folder: Path) -> list[str]:
    return [str(source.path.relative_to(folder)) for source in inputs]


def test_named_files_are_taken_as_they_are_in_their_order(tmp_path: Path) -> None:
    paths = [write(tmp_path / "z.txt"), tmp_path / "missing.dcm", write(tmp_path / ".hidden")]
    inputs = Inputs(paths)
    assert [source.path for source in inputs] == paths
    assert all(source.root is None for source in inputs)
    assert inputs.skipped == 0


def test_a_folder_is_searched_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ["b.dcm", "a/z.png", "a/c/y.JPG", "c.TIFF", "a/b.dicom", "d.ima", "e.dic", "f.jpeg", "g.tif"]:
        write(tmp_path / name)
    inputs = Inputs([tmp_path])
    assert found(inputs, tmp_path) == [
        "a/b.dicom", "a/c/y.JPG", "a/z.png", "b.dcm", "c.TIFF", "d.ima", "e.dic", "f.jpeg", "g.tif",
    ]  # fmt: skip
    assert {source.root for source in inputs} == {tmp_path}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("IM000001", PREAMBLE),
        ("1.2.840.113619.2", PREAMBLE),
        ("no-preamble", b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100"),
        ("picture", b"\x89PNG\r\n\x1a\n"),
        ("photo.jfif", b"\xff\xd8\xff\xe0"),
    ],
)
def test_a_file_without_a_known_suffix_is_taken_by_its_content(
    tmp_path: Path, name: str, data: bytes
) -> None:
    write(tmp_path / name, data)
    assert found(Inputs([tmp_path]), tmp_path) == [name]


def test_other_files_are_skipped_and_counted(tmp_path: Path) -> None:
    for name in ["README", "notes.txt", ".DS_Store", "._a.dcm", "results.csv", "a.dcm"]:
        write(tmp_path / name, b"some text that is long enough to look into")
    write(tmp_path / "DICOMDIR", PREAMBLE)
    write(tmp_path / ".git" / "x.dcm")
    os.mkfifo(tmp_path / "pipe")
    inputs = Inputs([tmp_path])
    assert found(inputs, tmp_path) == ["a.dcm"]
    assert inputs.skipped == 7
    assert inputs.count() == 8


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path: Path) -> None:
    outside = write(tmp_path / "elsewhere" / "x.dcm").parent
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "link.dcm").symlink_to(outside / "x.dcm")
    (folder / "circle").symlink_to(folder)
    (folder / "broken.dcm").symlink_to(tmp_path / "gone")
    inputs = Inputs([folder])
    assert found(inputs, folder) == ["broken.dcm", "link.dcm"]  # the reader tells that there is no such file
    assert inputs.skipped == 1


def test_a_link_to_a_folder_is_searched_where_it_is_named(tmp_path: Path) -> None:
    write(tmp_path / "real" / "x.dcm")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert found(Inputs([tmp_path / "link"]), tmp_path) == ["link/x.dcm"]


def test_the_output_folder_is_not_searched(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm")
    write(tmp_path / "results" / "a-heatmap.png")
    inputs = Inputs([tmp_path], output=tmp_path / "." / "results")
    assert found(inputs, tmp_path) == ["a.dcm"]
    assert inputs.count() == 1


def test_a_folder_that_cannot_be_searched_is_told_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a" / "x.dcm")
    write(tmp_path / "b" / "y.dcm")
    scan = os.scandir

    def refuse(path: Path) -> object:  # as root, permissions refuse nothing
        if path == tmp_path / "a":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    inputs = Inputs([tmp_path])
    assert found(inputs, tmp_path) == ["b/y.dcm"]
    assert inputs.unlisted == [(tmp_path / "a", "permission denied")]
    with pytest.raises(InputError) as caught:
        Inputs([tmp_path / "a"]).require_any()
    assert caught.value.code == "not-readable"


def test_a_file_that_cannot_be_read_is_an_input_so_that_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "IM1")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert found(Inputs([tmp_path]), tmp_path) == ["IM1"]


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_an_impossible_name_is_left_to_the_reader(name: str) -> None:
    assert [source.path for source in Inputs([Path(name)])] == [Path(name)]


def test_nothing_to_score_is_an_error_before_all_else(tmp_path: Path) -> None:
    write(tmp_path / "notes.txt")
    with pytest.raises(InputError) as caught:
        Inputs([tmp_path]).require_any()
    assert caught.value.code == "not-found"
    Inputs([tmp_path / "missing"]).require_any()


def test_folders_of_any_depth_are_searched(tmp_path: Path) -> None:
    place = tmp_path
    for _ in range(400):
        place /= "d"
    os.makedirs(place)  # noqa: PTH103 - Path.mkdir recurses
    write(place / "a.dcm")
    assert len(list(Inputs([tmp_path]))) == 1


@pytest.mark.slow
def test_the_first_of_many_files_comes_at_once(tmp_path: Path) -> None:
    for index in range(100_000):
        (tmp_path / f"{index:06}").touch()
    write(tmp_path / "000000", PREAMBLE)
    inputs = Inputs([tmp_path])
    begun = time.perf_counter()
    assert next(iter(inputs)).path.name == "000000"
    assert time.perf_counter() - begun < 5
    assert inputs.count() == 100_000
