"""``bedside compare`` on label maps: overlap and agreement, as table, JSON and picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import invoke, run
from compared_readers import VOXEL_ML, box, compare, in_lung, refusal, save, three_readers

pytest.importorskip("statsmodels", reason="needs the extra stats")
pytest.importorskip("matplotlib", reason="needs the extra stats")


@pytest.fixture
def readers(tmp_path: Path) -> tuple[Path, Path, Path]:
    return three_readers(tmp_path)


def test_two_maps_are_compared_with_figures_known_by_hand(tmp_path: Path) -> None:
    expert, network = save(tmp_path / "a.nii.gz", box(4)), save(tmp_path / "b.nii.gz", box(4, moved=1))
    record = compare(expert, network, out=tmp_path)
    assert record["kind"] == "labels"
    (pair,) = record["overlaps"][0]["pairs"]
    assert (pair["reader"], pair["part"], pair["empty"]) == ("b", "opacity", None)
    assert pair["dice"] == pytest.approx(3 / 4)
    assert pair["iou"] == pytest.approx(3 / 5)
    assert pair["reference_ml"] == pair["reader_ml"] == pytest.approx(64 * VOXEL_ML)
    assert (pair["difference_ml"], pair["difference_percent"]) == (0, 0)
    # each box ends 2 mm beyond the other; half of its columns are inside, at no distance or 2 mm
    assert pair["surface"]["hausdorff_mm"] == pytest.approx(2)
    assert 0 < pair["surface"]["mean_mm"] < 2


def test_a_table_of_the_cases_and_the_agreement_are_printed(readers: tuple[Path, ...]) -> None:
    done = invoke("compare", *readers)
    assert (done.exit_code, done.stderr) == (0, "")
    text = done.stdout
    for words in ("DICE", "IOU", "SURFACE mm", "BIAS [95 % CI]", "LIMITS OF AGREEMENT"):
        assert words in text
    assert "ICC(2,1) of all 3" in text
    assert "Cohen's kappa on opacity, over all voxels" in text
    assert "Fleiss' kappa of all 3" in text
    assert "expert (label 1); network (label 1); resident (label 1)" in text
    assert text.endswith("Not for clinical use.\n")


def test_empty_masks_are_told_as_such_and_not_counted(readers: tuple[Path, ...], tmp_path: Path) -> None:
    record = compare(*readers, out=tmp_path)
    network, resident = record["overlaps"][4]["pairs"]
    assert (network["empty"], network["dice"], network["surface"]) == ("reference", 0, None)
    assert network["difference_percent"] is None
    assert (resident["empty"], resident["dice"], resident["iou"], resident["surface"]) == (
        "both",
        None,
        None,
        None,
    )
    of_network, of_resident = record["parts"]
    assert (of_network["cases_with_dice"], of_network["cases_with_surface"]) == (5, 4)
    assert (of_resident["cases_with_dice"], of_resident["cases_with_surface"]) == (4, 4)
    text = invoke("compare", *readers).stdout
    assert "reference has none" in text
    assert "neither has any" in text
    assert "nan" not in text


def test_agreement_follows_from_the_volumes(readers: tuple[Path, ...], tmp_path: Path) -> None:
    record = compare(*readers, out=tmp_path)
    (quantity,) = record["quantities"]
    sides = np.array([[4, 4, 5], [6, 6, 7], [8, 8, 9], [10, 10, 11], [0, 2, 0]])
    volumes = 4 * sides**2 * VOXEL_ML
    assert np.array([each["readers"] for each in quantity["values"]]) == pytest.approx(volumes)
    resident = quantity["pairs"][1]
    assert resident["mean_absolute_difference"] == pytest.approx(np.mean(volumes[:, 2] - volumes[:, 0]))
    assert resident["bland_altman"]["bias"]["value"] == pytest.approx(np.mean(volumes[:, 2] - volumes[:, 0]))
    assert resident["bland_altman"]["sd"] == pytest.approx(
        np.std(volumes[:, 2] - volumes[:, 0], ddof=1), abs=1e-6
    )
    assert 0.9 < quantity["icc"]["ICC(2,1)"]["value"] < 1


def test_pooled_dice_weighs_cases_by_their_volume(readers: tuple[Path, ...], tmp_path: Path) -> None:
    of_network = compare(*readers, out=tmp_path)["parts"][0]
    # a box of side s, moved by one column, shares s (s - 1) of s x s columns; the last case shares none of 2 x 2
    sides = np.array([4, 6, 8, 10])
    assert of_network["dice_mean"] == pytest.approx(np.mean([*((sides - 1) / sides), 0]), abs=1e-6)
    shared, total = (sides * (sides - 1)).sum(), (2 * sides**2).sum() + 4
    assert of_network["pooled"]["dice"] == pytest.approx(2 * shared / total, abs=1e-6)


def test_kappas_over_voxels_are_those_of_all_voxels_written_out(
    readers: tuple[Path, ...], tmp_path: Path
) -> None:
    from statsmodels.stats.inter_rater import aggregate_raters, cohens_kappa, fleiss_kappa

    record = compare(*readers, out=tmp_path)
    sides = ((4, 0), (6, 0), (8, 0), (10, 0), (0, 0))
    expert = np.stack([box(side) for side, _ in sides]).ravel()
    network = np.stack([*(box(side, moved=1) for side, _ in sides[:4]), box(2)]).ravel()
    resident = np.stack([*(box(side + 1) for side, _ in sides[:4]), box(0)]).ravel()
    table = np.bincount(expert * 2 + network, minlength=4).reshape(2, 2)
    assert record["voxels"]["cohen_kappa"][0]["kappa"] == pytest.approx(cohens_kappa(table).kappa, abs=1e-6)
    votes, _ = aggregate_raters(np.stack([expert, network, resident], axis=1))
    assert record["voxels"]["fleiss_kappa"] == pytest.approx(fleiss_kappa(votes), abs=1e-6)
    assert record["voxels"]["count"] == 5 * 6 * 20 * 20


def test_labels_names_which_are_opacity(tmp_path: Path) -> None:
    both = box(4, label=3) + box(4, label=4, moved=8)
    first, second = save(tmp_path / "a.nii.gz", in_lung(both, labels=(1, 1))), tmp_path / "b.nii.gz"
    first = save(first, np.where(both > 0, both, np.uint8(1)))
    save(second, np.where(both > 0, np.uint8(7 - both), np.uint8(1)).astype(np.uint8))  # 3 and 4 swapped
    record = compare(first, second, "--labels", "3,4", out=tmp_path)
    assert [pair["dice"] for pair in record["overlaps"][0]["pairs"]] == [1]
    only = compare(first, second, "--labels", "3", out=tmp_path)
    assert only["overlaps"][0]["pairs"][0]["dice"] == 0


def test_labels_may_differ_between_readers(tmp_path: Path) -> None:
    first, second = (
        save(tmp_path / "a.nii.gz", box(4)),
        save(tmp_path / "b.nii.gz", in_lung(box(4), labels=(2, 5))),
    )
    record = compare(first, second, "--labels", "1", "--labels", "5", out=tmp_path)
    assert record["overlaps"][0]["pairs"][0]["dice"] == 1


def test_several_labels_without_a_meaning_are_refused(tmp_path: Path) -> None:
    first, second = save(tmp_path / "a.nii.gz", box(4)), save(tmp_path / "b.nii.gz", in_lung(box(4)))
    told = refusal(first, second)
    assert "labels 1, 2, and nothing says which are opacity: give --labels" in told
    assert told.endswith("[not-comparable]\n")


def test_the_orientation_of_a_file_does_not_matter(tmp_path: Path) -> None:
    nibabel = pytest.importorskip(
        "nibabel", reason="writes other orientations with nibabel, which is not installed"
    )
    labels = box(4, moved=3)
    first = save(tmp_path / "a.nii.gz", labels)
    # (x, y, z) RAS: x to the right, and so flipped against ours; y to the front, also flipped
    flipped = labels.transpose(2, 1, 0)[::-1, ::-1]
    ras = np.array([[2.0, 0, 0, -18], [0, 2, 0, -18], [0, 0, 5, -50], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(flipped), ras), tmp_path / "b.nii")
    assert compare(first, tmp_path / "b.nii", out=tmp_path)["overlaps"][0]["pairs"][0]["dice"] == 1


def test_a_reader_against_itself_is_in_full_agreement(readers: tuple[Path, ...], tmp_path: Path) -> None:
    record = compare(readers[0], readers[0], out=tmp_path)
    assert [reader["name"] for reader in record["readers"]] == ["expert (1)", "expert (2)"]
    assert record["parts"][0]["pooled"]["dice"] == 1
    assert record["voxels"]["cohen_kappa"][0]["kappa"] == 1
    assert record["quantities"][0]["icc"]["ICC(2,1)"]["value"] == pytest.approx(1)


@pytest.mark.parametrize("count", [2, 3])
def test_a_plot_is_a_picture_with_a_panel_for_each_reader(
    readers: tuple[Path, ...], tmp_path: Path, count: int
) -> None:
    out = tmp_path / "plot.png"
    done = invoke("compare", *readers[:count], "--plot", out)
    assert done.exit_code == 0
    with Image.open(io.BytesIO(out.read_bytes())) as picture:
        assert picture.format == "PNG"
        assert picture.info["Disclaimer"] == "Not for clinical use."
        assert picture.width / picture.height == pytest.approx(count, rel=0.1)
        pixels = np.asarray(picture.convert("RGB"))
    blue, orange = (np.all(pixels == colour, axis=2).any() for colour in ([0, 114, 178], [213, 94, 0]))
    assert (blue, orange) == (True, count == 3)


def test_a_single_case_is_plotted_without_limits_and_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    first, second = save(tmp_path / "a $x^2$.nii.gz", box(4)), save(tmp_path / "b$.nii.gz", box(5))
    done = invoke("compare", first, second, "--plot", tmp_path / "plot.png")
    assert done.exit_code == 0
    assert "needs two cases" in done.stdout
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_results_that_can_not_be_written_are_told(readers: tuple[Path, ...], tmp_path: Path) -> None:
    done = invoke("compare", *readers, "--json", tmp_path / "none" / "x.json")
    assert done.exit_code == 2
    assert done.stderr.endswith("[output-not-writable]\n")


@pytest.mark.parametrize("package", ["scipy", "statsmodels", "matplotlib"])
def test_without_the_extra_it_is_named_before_anything_is_read(tmp_path: Path, package: str) -> None:
    code = (
        "import importlib.util\n"
        "there = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *rest: None if name == {package!r} else there(name, *rest)"
    )
    done = run("compare", tmp_path / "none", tmp_path / "none", "--plot", tmp_path / "x.png", code=code)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"'{package}'" in done.stderr
    assert "pip install 'bedside[stats]'" in done.stderr
    assert done.stderr.endswith("[missing-extra]\n")


def test_a_table_needs_no_matplotlib(readers: tuple[Path, ...]) -> None:
    code = "import sys\nsys.modules['matplotlib'] = None"
    done = run("compare", *readers, code=code)
    assert (done.returncode, done.stderr) == (0, "")
