from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bedside import Bundle, RefusedError
from bedside.bundle import Manifest
from bedside.cli.volumes import describe, describe_row, head_rows
from bedside.opacification import Confusion, Range
from bedside.report.wording import (
    confusion_line,
    hu_text,
    interval_line,
    interval_text,
    ledger_line,
    ml_text,
    percent_text,
)
from bedside.scan import Entry
from made_scans import segmented, unsegmented
from tiny_bundle import make_bundle

REFUSED = unsegmented("ct", RefusedError("no-lungs", "there are no lungs in the scan; give a chest CT"))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder: Path = tmp_path_factory.mktemp("bundle") / "bundle"
    return Bundle.open(make_bundle(folder)).manifest


def unwrapped(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("volume", "told"),
    [
        (None, "-"),
        (0.0, "0"),
        (0.004, "0.00"),
        (0.126, "0.13"),
        (0.999, "1.0"),
        (99.94, "99.9"),
        (99.96, "100"),
        (1234.5678, "1235"),
    ],
)
def test_volumes_have_about_three_digits(volume: float | None, told: str) -> None:
    assert ml_text(volume) == told


def test_what_is_not_known_is_a_dash() -> None:
    assert percent_text(None) == hu_text(None) == ml_text(None) == "-"


def test_interval_of_unknown_level_is_a_range_and_says_so() -> None:
    never = Range(100.0, 200.0, None, "a guess")
    assert interval_text(never) == "range 100 to 200 mL"
    assert "never measured" in interval_line(never)
    assert interval_text(replace(never, level=0.9)) == "90 % interval 100 to 200 mL"
    assert interval_line(replace(never, level=0.9)).startswith("90 % of truths")


def test_ledger_tells_the_bound_only_where_there_is_one() -> None:
    assert ledger_line(Entry("a", "accepted", "fine")) == "accepted: fine"
    assert (
        ledger_line(Entry("a", "mended", "sheared", 0.25)) == "mended: sheared (volume error at most 0.25 %)"
    )


def test_confusion_tells_the_largest_part_first() -> None:
    line = confusion_line(Confusion("haze", 100.0, {"a": 20.0, "b": 80.0, "c": 0.0}))
    assert line == "100 mL named haze; experts would say: 80.0 b, 20.0 a"


def test_block_tells_volumes_sides_and_what_they_rest_on(manifest: Manifest) -> None:
    result = segmented()
    found = result.opacification
    assert found is not None
    text = describe(result, manifest, {"labels": "out/a-labels.nii.gz", "report": "out/a-report.png"})
    flat = unwrapped(text)
    low, high = found.interval.low, found.interval.high
    assert text.startswith("scan.nii.gz\n")
    assert f"80 % interval {low:.0f} to {high:.0f} mL" in flat
    assert "all slices were read (24 of 24)" in flat
    assert "mended: slices are unevenly spaced; resampled (volume error at most 0.4 %)" in flat
    assert "thick-slices: slices are 14 mm thick" in flat
    assert "fake 0, fp32, none" in flat
    assert "peak 512 MiB, 600 predicted" in flat
    assert "2.50 s: decode 0.80, inference 2.00" in flat
    assert "out/a-labels.nii.gz" in flat
    assert text.endswith("Not for clinical use.")
    for name, region in (("both lungs", found.both), ("right lung", found.right), ("left lung", found.left)):
        (row,) = (line for line in text.splitlines() if line.startswith(f"  {name} "))
        assert row.split()[2:5] == [
            f"{region.lung_ml:.0f}",
            f"{region.opacity_ml:.0f}",
            f"{region.opacity_ml_expected:.0f}",
        ]
    for tissue in found.tissues[1:]:
        (row,) = (line for line in text.splitlines() if line.startswith(f"  {tissue.label} "))
        assert tissue.name in row
        assert ml_text(tissue.ml) in row.split()


def test_columns_of_numbers_end_together(manifest: Manifest) -> None:
    lines = describe(segmented(), manifest, {}).splitlines()
    (start,) = (number for number, line in enumerate(lines) if line.startswith("  label"))
    table = lines[start : start + 5]
    assert len({len(line) for line in table}) == 1


def test_part_that_was_read_is_told(manifest: Manifest) -> None:
    text = unwrapped(describe(segmented(every=3), manifest, {}))
    assert "only 33 % of the slices were read (8 of 24): volumes are estimates from these" in text
    assert "on their own 90 % interval" in text
    assert "only" not in unwrapped(describe(segmented(), manifest, {}))


def test_budget_is_told_where_there_was_one(manifest: Manifest) -> None:
    text = unwrapped(describe(segmented(memory_budget_mib=768.0), manifest, {}))
    assert "peak 512 MiB, 600 predicted, 768 allowed" in text


def test_scan_without_doubts_says_none(manifest: Manifest) -> None:
    text = unwrapped(describe(segmented(quality=(), ledger=()), manifest, {}))
    assert "doubts none" in text
    assert "geometry nothing to tell" in text


def test_row_is_one_line_under_its_heading() -> None:
    row = describe_row(segmented(source="a\nb.nii"))
    assert "\n" not in row
    assert row.endswith("a\\nb.nii  [thick-slices, uneven-spacing]")
    found = segmented().opacification
    assert found is not None
    for head, value in (
        ("opacity, mL", f"{found.both.opacity_ml:.0f} ("),
        ("% of lung", f"{found.both.opacity_percent:.1f}"),
        ("right, mL", f"{found.right.opacity_ml:.0f}"),
        ("left, mL", f"{found.left.opacity_ml:.0f}"),
        ("read", "100 %"),
    ):
        assert row[head_rows().index(head) :].startswith(value)


def test_result_without_volumes_is_not_described(manifest: Manifest) -> None:
    with pytest.raises(RefusedError):
        describe(REFUSED, manifest, {})
    with pytest.raises(RefusedError):
        describe_row(REFUSED)
