"""Heatmaps as files: names that are safe and differ, and the picture that was rendered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bedside import BundleError
from bedside.heatmap import render
from bedside.results import heatmap_name, write_heatmap
from hindered_writing import file_size_limit, told
from made_results import refused, scored
from written_results import names


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
