from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from bedside.errors import RefusedError
from bedside.manifest import Tissue
from bedside.opacification import Confusion, OpacificationResult, Range
from bedside.provenance import BundleRef
from bedside.radiograph import Finding
from bedside.report import curve, montage, page
from bedside.report.page import MARGIN, WIDTH, render
from bedside.scan import Entry
from made_scans import measured, phantom_scan, segmented, unsegmented
from written_pages import Written, check_layout, note_lines

PATTERNS = (
    "pure ground glass",
    "ground glass with smooth interlobular septal thickening",
    "crazy paving",
    "organizing pneumonia",
    "atoll sign",
    "consolidation",
)
ELEVEN = (
    Tissue("background"),
    Tissue("left lung", lung=True, side="left"),
    Tissue("right lung", lung=True, side="right"),
    Tissue("pleural effusion"),
    Tissue("lymphadenopathy"),
    *(Tissue(name, opacity=True, lung=True) for name in PATTERNS),
)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    return note_lines(monkeypatch, page, montage, curve)


def eleven() -> OpacificationResult:
    """As much as a page can have to tell, all names as long as they may be."""
    hu, labels, grid = phantom_scan()
    rows, columns = np.indices(labels.shape[1:])
    patterns = (5 + (rows // 6 + columns // 6) % 6).astype(np.uint8)
    result = measured(hu, np.where(labels >= 3, patterns, labels), grid, tissues=ELEVEN, every=2)
    found = result.opacification
    assert found is not None
    named = [tissue for tissue in found.tissues if tissue.opacity]
    confusion = tuple(
        Confusion(each.name, each.ml, {other.name: each.ml / 6 for other in named}) for each in named
    )
    entry = Entry("duplicate", "mended", "two slices have one position and different pixels; " * 3, 0.5, 2)
    return replace(
        result,
        bundle=BundleRef("n" * 64, "1.0.0+" + "b" * 26, "a" * 64),
        engine=replace(result.engine, device="a processor with a name that never ends " * 5),
        opacification=replace(found, confusion=confusion, sides="sagittal plane at x = -12.5 mm"),
        ledger=(entry,) * 12,
        quality=(Finding("cut-off", "the scan ends within the lungs"),) * 3,
    )


def tiny_lungs() -> OpacificationResult:
    hu, labels, grid = phantom_scan()
    small = np.zeros_like(labels)
    small[10, 30:33, 24:28], small[10, 31, 25] = 2, 3
    return measured(hu, small, grid)


def two_tissues() -> OpacificationResult:
    hu, labels, grid = phantom_scan()
    tissues = (Tissue("background"), Tissue("lung", lung=True), Tissue("opacity", opacity=True, lung=True))
    return measured(hu, np.choose(labels, [0, 1, 1, 2, 2]).astype(np.uint8), grid, tissues=tissues)


def without_lungs() -> OpacificationResult:
    hu, labels, grid = phantom_scan()
    return measured(hu, np.zeros_like(labels), grid)


def unmeasured() -> OpacificationResult:
    result = segmented(quality=(), ledger=())
    assert result.opacification is not None
    interval = Range(1.0, 2e5, None, "never measured")
    return replace(result, opacification=replace(result.opacification, interval=interval, confusion=()))


CASES: dict[str, Callable[[], OpacificationResult]] = {
    "usual": segmented,
    "a third of the slices": lambda: segmented(every=3),
    "healthy": lambda: segmented("healthy"),
    "one picture": lambda: segmented(pictures=1),
    "two tissues": two_tissues,
    "eleven tissues": eleven,
    "tiny lungs": tiny_lungs,
    "no lungs": without_lungs,
    "oblong pixels": lambda: segmented(squeeze=2.0),
    "level not measured": unmeasured,
}


@pytest.mark.parametrize("name", CASES)
def test_no_text_is_clipped_none_meets_another_and_the_margin_is_free(name: str, written: Written) -> None:
    check_layout(render(CASES[name]()), written, width=WIDTH, margin=MARGIN)


def test_volumes_of_both_and_of_each_lung_are_told(
    written: Written,
) -> None:
    result = segmented()
    found = result.opacification
    assert found is not None
    render(result)
    texts = [text for text, _, _ in written]
    for region in (found.both, found.left, found.right):
        assert f"{region.lung_ml:.0f}" in texts
        assert f"{region.opacity_ml:.0f}" in texts
        assert f"{region.opacity_percent:.1f}" in texts
        assert f"{region.aerated_percent:.1f}" in texts
    head = texts.index("right lung")
    lung = texts.index("lung, mL")
    assert texts[lung + 2 : lung + 4] == [f"{found.right.lung_ml:.0f}", f"{found.left.lung_ml:.0f}"]
    assert texts[head + 1] == "left lung"
    assert any(text.startswith("80 % interval") for text in texts)


def test_part_that_was_read_is_told_only_where_it_was_a_part(
    written: Written,
) -> None:
    render(segmented(every=3))
    assert any(text.startswith("Only 33 % of the slices were read (8 of 24)") for text, _, _ in written)
    written.clear()
    render(segmented())
    assert not any("Only" in text for text, _, _ in written)


def test_page_says_whose_answer_it_is_and_that_it_is_not_for_clinical_use(
    written: Written,
) -> None:
    render(segmented())
    texts = [text for text, _, _ in written]
    assert "NOT FOR CLINICAL USE" in texts
    assert "tiny 1.0.0, sha256 0123456789ab" in texts
    assert any(text.startswith("fake 0, fp32") for text in texts)


def test_page_does_not_tell_whose_scan_it_is(
    written: Written,
) -> None:
    render(segmented(source="DOE^JANE/19500101.nii.gz", series="1.2.840.99999"))
    told = " ".join(text for text, _, _ in written)
    for secret in ("DOE", "JANE", "1950", "nii", "840", "99999"):
        assert secret not in told


def test_sides_of_the_slices_are_marked(
    written: Written,
) -> None:
    render(segmented(pictures=3))
    for side, place in (("R", 0.0), ("L", 1.0)):
        marks = [(box[0] + box[2]) / 2 / tile.width for text, box, tile in written if text == side]
        assert len(marks) == 3
        assert all(abs(mark - place) < 0.1 for mark in marks)


def test_order_of_notes_puts_doubts_first(
    written: Written,
) -> None:
    render(eleven())
    texts = [text for text, _, _ in written]
    assert texts.index("Doubts") < texts.index("Geometry") < texts.index("Interval")
    assert "and 4 more, in the JSON" in texts


def test_result_without_volumes_or_pictures_has_no_page() -> None:
    refused = unsegmented("ct", RefusedError("no-lungs", "there are no lungs in the scan; give a chest CT"))
    for result in (refused, replace(segmented(), pictures=())):
        with pytest.raises(ValueError, match="volumes"):
            render(result)


def test_page_is_the_same_each_time() -> None:
    np.testing.assert_array_equal(render(segmented()), render(segmented()))
