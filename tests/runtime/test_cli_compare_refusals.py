"""``bedside compare`` where there is nothing to compare: what is left out, what is refused, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bedside.errors import RefusedError
from command_line import invoke
from compared_readers import AFFINE, box, compare, in_lung, refusal, result, save, three_readers, write_lines
from made_results import scored, unscored

pytest.importorskip("statsmodels", reason="needs the extra stats")
pytest.importorskip("matplotlib", reason="needs the extra stats")


@pytest.fixture
def readers(tmp_path: Path) -> tuple[Path, Path, Path]:
    return three_readers(tmp_path)


def test_cases_that_not_all_have_are_left_out_and_told(readers: tuple[Path, ...], tmp_path: Path) -> None:
    (readers[1] / "case-2.nii.gz").unlink()
    save(readers[2] / "another.nii.gz", box(3))
    done = invoke("compare", *readers)
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [
        "note: another is left out: network does not have it",
        "note: case-2 is left out: network does not have it",
    ]
    record = compare(*readers, out=tmp_path)
    assert record["cases"] == ["case-0", "case-1", "case-3", "case-4"]
    assert [each["case"] for each in record["left_out"]] == ["another", "case-2"]


def test_a_case_without_a_result_is_left_out_with_the_reason(tmp_path: Path) -> None:
    refused = unscored("x/2.png", RefusedError("wrong-view", "a lateral view")).to_json()
    first = write_lines(tmp_path / "a.jsonl", [scored(f"x/{index}.png").to_json() for index in range(3)])
    second = write_lines(
        tmp_path / "b.jsonl", [scored("x/0.png").to_json(), scored("x/1.png").to_json(), refused]
    )
    done = invoke("compare", first, second)
    assert done.exit_code == 0
    assert done.stderr == "note: 2 is left out: b: refused [wrong-view]\n"


def test_labels_of_a_scan_that_was_not_read_whole_are_left_out(tmp_path: Path) -> None:
    for reader, share in (("a", 1.0), ("b", 0.4)):
        for case in ("one", "two"):
            save(tmp_path / reader / f"{case}.nii.gz", in_lung(box(4)))
        write_lines(
            tmp_path / reader / "results.jsonl",
            [result("one", "one.nii.gz"), result("two", "two.nii.gz", read_share=share)],
        )
    done = invoke("compare", tmp_path / "a", tmp_path / "b")
    assert done.exit_code == 0
    assert (
        done.stderr
        == "note: two is left out: b: not all slices were read (--deadline), so its labels are not whole\n"
    )


def test_grids_that_do_not_match_are_refused_with_the_reason(tmp_path: Path) -> None:
    first = save(tmp_path / "a.nii.gz", box(4))
    smaller = save(tmp_path / "b.nii.gz", box(4)[:5])
    told = refusal(first, smaller)
    assert told == (
        "error: b: the grids differ: 6 x 20 x 20 and 5 x 20 x 20 voxels; "
        "resample one to the other's grid [not-comparable]\n"
    )
    moved = AFFINE.copy()
    moved[0, 3] += 7
    told = refusal(first, save(tmp_path / "c.nii.gz", box(4), moved))
    assert "c: the affines differ: corners of the grids lie 7 mm apart" in told


def test_scores_on_different_scales_are_refused(tmp_path: Path) -> None:
    first, second = scored("a.dcm").to_json(), scored("a.dcm").to_json()
    second["opacity"]["scale"] = [0.0, 8.0]
    told = refusal(write_lines(tmp_path / "a.json", [first]), write_lines(tmp_path / "b.json", [second]))
    assert "opacity is on different scales (0 to 6 and 0 to 8)" in told


def test_different_kinds_are_refused(tmp_path: Path) -> None:
    scores = write_lines(tmp_path / "s" / "results.jsonl", [scored("a.dcm").to_json()])
    volumes = write_lines(tmp_path / "v" / "results.jsonl", [result("a", None)])
    labels = save(tmp_path / "l" / "a.nii.gz", box(4))
    for pair in ((scores, volumes), (labels, scores), (labels, volumes)):
        assert refusal(*pair).endswith("[not-comparable]\n")
    assert "its result names no label map" in refusal(labels, volumes)


def test_no_case_in_common_is_refused(tmp_path: Path) -> None:
    for reader, cases in (("a", "12"), ("b", "34")):
        for case in cases:
            save(tmp_path / reader / f"{case}.nii.gz", box(4))
    told = refusal(tmp_path / "a", tmp_path / "b")
    assert "no case is there for every reader" in told
    assert told.endswith("[not-comparable]\n")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty-file"),
        (b"no json", "not-results"),
        (b'{"schema": "other"}', "not-results"),
        (b"[]", "not-results"),
    ],
)
def test_a_json_file_without_results_is_told(tmp_path: Path, content: bytes, code: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    assert refusal(tmp_path / "a.json", tmp_path / "a.json").endswith(f"[{code}]\n")


@pytest.mark.parametrize(
    "changed",
    [
        {"extent": None},
        {"opacity": {"value": "high", "scale": [0, 6]}},
        {"extent": {"value": 1, "scale": [0]}},
    ],
)
def test_scores_that_lack_what_is_compared_are_no_results(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = write_lines(tmp_path / "a.json", [scored("a.dcm").to_json() | changed])
    assert refusal(path, path).endswith("[not-results]\n")


@pytest.mark.parametrize(
    "changed", [{"volumes": None}, {"classes": [{"label": 1}]}, {"classes": [{"label": "1"}]}, {"classes": 5}]
)
def test_volumes_that_lack_what_is_compared_are_no_results(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = write_lines(tmp_path / "a.json", [result("a", None, **changed)])
    assert refusal(path, path).endswith("[not-results]\n")


def test_numbers_that_are_none_are_no_results(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.json", [result("a", None, volumes={"opacity_ml": float("nan")})])
    assert refusal(path, path).endswith("[not-results]\n")


def test_a_folder_without_anything_to_compare_and_a_path_that_is_not_there_are_told(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.json").write_text('{"mine": 1}', "utf-8")
    (empty / "blank.json").touch()
    assert refusal(empty, empty).endswith("[not-results]\n")
    assert refusal(tmp_path / "none.nii.gz", empty).endswith("[not-found]\n")
    assert refusal(tmp_path / "none.json", empty).endswith("[not-found]\n")


@pytest.mark.parametrize("labels", ["", "3;4", "0", "256", "-1", "a"])
def test_labels_that_are_none_are_a_wrong_usage(tmp_path: Path, labels: str) -> None:
    told = refusal(tmp_path, tmp_path, "--labels", labels)
    assert "Invalid value for '--labels'" in told


def test_one_reader_and_too_many_labels_are_a_wrong_usage(tmp_path: Path) -> None:
    assert "give two or more" in refusal(tmp_path)
    assert "given 3 times" in refusal(tmp_path, tmp_path, *(["--labels", "1"] * 3))
