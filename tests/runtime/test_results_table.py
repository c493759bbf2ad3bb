"""The table of results: scores with their scales, and names that no spreadsheet takes for a formula."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.results import write_csv
from bedside.severity import SeverityResult
from bedside.tables import csv_header, csv_line, csv_row
from hindered_writing import file_size_limit, told
from made_results import BUNDLE, failed, refused, scored
from written_results import names, rows_of


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
