"""What is written of a CT; `test_results_files` has the files themselves, and its neighbours X-rays."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bedside import OutputError, RefusedError
from bedside.report.page import render
from bedside.results import (
    SCAN_FILES,
    scan_name,
    scan_stem,
    write_csv,
    write_report,
    write_result_json,
)
from bedside.tables import volumes_header, volumes_row
from hindered_writing import file_size_limit
from made_scans import segmented, unsegmented

REFUSED = unsegmented("ct", RefusedError("no-lungs", "there are no lungs in the scan; give a chest CT"))


# Names


@given(
    st.lists(st.text(), min_size=2, max_size=2, unique=True),
    st.sampled_from([None, "study", "/"]),
    st.sampled_from(["", "1.2.3"]),
)
@settings(max_examples=100)
def test_stems_are_safe_and_differ(sources: list[str], root: str | None, series: str) -> None:
    kept = [source.encode("utf-8", "ignore").decode() for source in sources]
    made = [scan_stem(source, root, series=series) for source in kept]
    for stem in made:
        assert len(stem) <= 97
        assert stem.isascii()
        assert not set(stem) & set('/\\:*?"<>| \0')
        assert not stem.startswith((".", "-"))
    if kept[0] != kept[1]:
        assert made[0].lower() != made[1].lower()


@pytest.mark.parametrize(
    ("source", "start"),
    [
        ("scans/a.nii.gz", "a-"),
        ("a.NII", "a-"),
        ("a.zip", "a-"),
        ("a.dcm", "a-"),
        ("series.2021.03/", "series.2021.03-"),
        ("series.v2", "series.v2-"),
        (".", "scan-"),
        ("", "scan-"),
        (".nii.gz", "scan-"),
    ],
)
def test_stem_tells_the_input_without_its_format(source: str, start: str) -> None:
    stem = scan_stem(source)
    assert stem.startswith(start)
    assert len(stem) == len(start) + 16


def test_stem_tells_the_folders_below_the_one_that_was_given() -> None:
    assert scan_stem("study/a/b.nii", "study").startswith("a_b-")
    assert scan_stem(Path("study/a/b.nii")) == scan_stem("study/a/b.nii")


def test_series_of_one_folder_have_stems_of_their_own_that_do_not_tell_the_series() -> None:
    one, other, none = (scan_stem("study", series=series) for series in ("1.2.840.3", "1.2.840.4", ""))
    assert len({one, other, none}) == 3
    assert "840" not in one


def test_files_of_one_scan_lie_beside_each_other() -> None:
    stem = scan_stem("scan.nii.gz")
    names = [scan_name(stem, kind) for kind in SCAN_FILES]
    assert sorted(names) == [f"{stem}-labels.nii.gz", f"{stem}-report.png", f"{stem}-result.json"]


# JSON


def test_json_file_holds_the_result(tmp_path: Path) -> None:
    record = segmented().to_json({"labels": "a-labels.nii.gz"})
    write_result_json(tmp_path / "a-result.json", record)
    text = (tmp_path / "a-result.json").read_bytes()
    assert json.loads(text) == record
    assert text.isascii()
    assert text.endswith(b"}\n")


def test_json_file_keeps_a_name_that_is_no_text(tmp_path: Path) -> None:
    source = os.fsdecode(b"caf\xe9 \xff")
    write_result_json(tmp_path / "a-result.json", segmented(source=source).to_json())
    assert json.loads((tmp_path / "a-result.json").read_bytes())["source"] == source


def test_number_that_json_does_not_have_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_result_json(tmp_path / "a-result.json", {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_no_half_result(tmp_path: Path) -> None:
    result = segmented(pictures=1)
    with pytest.raises(OutputError) as error, file_size_limit(1000):
        write_result_json(tmp_path / "a-result.json", result.to_json())
    assert error.value.code == "disk-full"
    with pytest.raises(OutputError) as error, file_size_limit(1000):
        write_report(tmp_path / "a-report.png", result)
    assert error.value.code == "disk-full"
    assert list(tmp_path.iterdir()) == []


# The report


def test_report_is_the_page_without_a_word_on_whose_it_is(tmp_path: Path) -> None:
    result = segmented(source="DOE^JANE.nii.gz", series="1.2.840.99999")
    write_report(tmp_path / "a-report.png", result)
    with Image.open(tmp_path / "a-report.png") as picture:
        assert picture.format == "PNG"
        np.testing.assert_array_equal(np.asarray(picture), render(result))
        assert picture.info["Disclaimer"] == "Not for clinical use."
        assert set(picture.info) == {"Software", "Disclaimer"}
    data = (tmp_path / "a-report.png").read_bytes()
    assert b"DOE" not in data
    assert b"99999" not in data


def test_result_without_volumes_has_no_report(tmp_path: Path) -> None:
    for result in (REFUSED, segmented(pictures=1, error=REFUSED.error)):
        with pytest.raises(ValueError, match="volumes"):
            write_report(tmp_path / "a-report.png", result)
    assert list(tmp_path.iterdir()) == []


# The table


def test_table_holds_the_volumes(tmp_path: Path) -> None:
    result = segmented(every=2)
    found = result.opacification
    assert found is not None
    records = [result.to_json({"labels": "a-labels.nii.gz"}), REFUSED.to_json()]
    write_csv(tmp_path / "results.csv", records, volumes_row)
    text = (tmp_path / "results.csv").read_bytes().decode("utf-8")
    full, empty = csv.DictReader(io.StringIO(text, newline=""))
    assert float(full["opacity_ml"]) == pytest.approx(found.both.opacity_ml, abs=5e-4)
    assert float(full["opacity_ml_low"]) == pytest.approx(found.interval.low, abs=5e-4)
    assert float(full["left_lung_ml"]) == pytest.approx(found.left.lung_ml, abs=5e-4)
    assert float(full["right_opacity_ml"]) == pytest.approx(found.right.opacity_ml, abs=5e-4)
    assert float(full["read_share"]) == 0.5
    assert full["ledger"] == "uneven-spacing=mended"
    assert full["quality"] == "thick-slices"
    assert full["labels"] == "a-labels.nii.gz"
    assert "ground glass=" in full["classes_ml"]
    assert (empty["status"], empty["error_code"]) == ("refused", "no-lungs")
    assert {empty[name] for name in empty if name.endswith(("_ml", "_percent", "_hu", "_level"))} == {""}
    assert full["notice"] == empty["notice"] == "Not for clinical use."


def test_every_row_has_the_columns_of_the_header() -> None:
    for result in (segmented(), REFUSED):
        assert tuple(volumes_row(result.to_json())) == volumes_header()


def test_name_that_looks_like_a_formula_becomes_text() -> None:
    assert volumes_row(segmented(source="=1+1").to_json())["source"] == "'=1+1"
