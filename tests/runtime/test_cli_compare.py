"""``bedside compare``: label maps and results of several readers, from files to table, JSON and picture."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from bedside.errors import RefusedError
from bedside.nifti.writing import NiftiWriter
from bedside.scan import Grid
from command_line import invoke, run
from made_results import scored, unscored
from made_scans import phantom_scan, segmented
from schemas import make_validator

pytest.importorskip("statsmodels", reason="needs the extra stats")
pytest.importorskip("matplotlib", reason="needs the extra stats")

Labels = npt.NDArray[np.uint8]

VALIDATOR = make_validator("comparison-1")

AFFINE = np.array([[0.0, 0, 2, -20], [0, 2, 0, -20], [5, 0, 0, -50], [0, 0, 0, 1]])
VOXEL_ML = 5 * 2 * 2 / 1000


def save(path: Path, labels: Labels, affine: npt.NDArray[np.float64] = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    slices, rows, columns = labels.shape
    with NiftiWriter(path, Grid((slices, rows, columns), affine), kind="labels") as writer:
        for index, plane in enumerate(labels):
            writer.write(index, plane)
    return path


def box(side: int, *, label: int = 1, moved: int = 0) -> Labels:
    """A box of ``4 x side x side`` voxels, ``moved`` columns to the left."""
    labels = np.zeros((6, 20, 20), np.uint8)
    labels[1:5, 2 : 2 + side, 2 + moved : 2 + side + moved] = label
    return labels


def in_lung(opacity: Labels, *, labels: tuple[int, int] = (1, 2)) -> Labels:
    """Lung all around, as label ``labels[0]``, with the opacity as ``labels[1]``."""
    whole = np.full_like(opacity, labels[0])
    whole[opacity > 0] = labels[1]
    whole[:, 0] = 0
    return whole


def result(
    source: str, labels: str | None, *, names: tuple[int, int] = (1, 2), **changed: Any
) -> dict[str, Any]:
    """What ``bedside segment`` writes, as far as it is read here."""
    region = {"lung_ml": 100.0, "opacity_ml": 10.0, "opacity_percent": 10.0}
    return {
        "schema": "bedside.opacification/1",
        "source": source,
        "status": "ok",
        "error": None,
        "volumes": {**region, "left": region, "right": region},
        "classes": [
            {"label": 0, "name": "background", "opacity": False, "lung": False},
            {"label": names[0], "name": "lung tissue", "opacity": False, "lung": True},
            {"label": names[1], "name": "ground glass", "opacity": True, "lung": True},
        ],
        "files": {} if labels is None else {"labels": labels},
        "read_share": 1.0,
        **changed,
    }


def write_lines(path: Path, records: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def compare(*arguments: str | Path, out: Path) -> dict[str, Any]:
    """The JSON of a comparison that goes well."""
    done = invoke("compare", *arguments, "--json", out / "comparison.json")
    assert done.exit_code == 0, done.output
    record: dict[str, Any] = json.loads((out / "comparison.json").read_text("utf-8"))
    VALIDATOR.validate(record)
    return record


def refusal(*arguments: str | Path) -> str:
    """What is told where it can't be compared."""
    done = invoke("compare", *arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    return done.stderr


@pytest.fixture
def readers(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Three readers of five cases; in the last one the reference and the third see nothing."""
    for index, side in enumerate((4, 6, 8, 10)):
        save(tmp_path / "expert" / f"case-{index}.nii.gz", box(side))
        save(tmp_path / "network" / f"case-{index}.nii.gz", box(side, moved=1))
        save(tmp_path / "resident" / f"case-{index}.nii.gz", box(side + 1))
    for reader, side in (("expert", 0), ("network", 2), ("resident", 0)):
        save(tmp_path / reader / "case-4.nii.gz", box(side))
    return tmp_path / "expert", tmp_path / "network", tmp_path / "resident"


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


def test_results_of_segment_say_what_their_labels_mean(tmp_path: Path) -> None:
    """A network's results against an expert's maps, and another bundle's with other numbers."""
    for case, side in (("one", 4), ("two", 6), ("three", 9)):
        save(tmp_path / "expert" / f"{case}.nii.gz", box(side, label=9))
        save(tmp_path / "a" / f"{case}-x-labels.nii.gz", in_lung(box(side)))
        save(tmp_path / "b" / f"{case}-y-labels.nii.gz", in_lung(box(side, moved=1), labels=(5, 3)))
    for folder, ending, names in (("a", "x", (1, 2)), ("b", "y", (5, 3))):
        write_lines(
            tmp_path / folder / "results.jsonl",
            [
                result(f"/scans/{case}", f"{case}-{ending}-labels.nii.gz", names=names)
                for case in ("one", "two", "three")
            ],
        )
    record = compare(tmp_path / "a", tmp_path / "b", out=tmp_path)
    assert record["cases"] == ["one", "two", "three"]
    parts = {pair["part"]: pair for pair in record["overlaps"][0]["pairs"]}
    assert set(parts) == {"opacity", "lung", "lung tissue", "ground glass"}
    assert parts["lung"]["dice"] == 1  # an opacity counts to the lung
    assert parts["opacity"]["dice"] == parts["ground glass"]["dice"] == pytest.approx(3 / 4)
    assert record["voxels"]["within"] == "lungs of any reader"
    assert record["voxels"]["count"] == 3 * 6 * 19 * 20
    assert [each["quantity"] for each in record["quantities"]] == [
        *("opacity", "opacity of lung", "lung", "lung tissue", "ground glass")
    ]
    against_expert = compare(tmp_path / "expert", tmp_path / "a", out=tmp_path)
    assert [pair["part"] for case in against_expert["overlaps"] for pair in case["pairs"]] == ["opacity"] * 3
    assert [part["dice_mean"] for part in against_expert["parts"]] == [1]
    single = compare(tmp_path / "expert" / "one.nii.gz", tmp_path / "b" / "one-y-labels.nii.gz", out=tmp_path)
    assert single["overlaps"][0]["pairs"][0]["dice"] == pytest.approx(3 / 4)


@pytest.mark.parametrize("with_maps", [True, False])
def test_what_segment_writes_is_read(tmp_path: Path, *, with_maps: bool) -> None:
    """The results of the phantom as they are, and their volumes however they are come by."""
    for reader in ("a", "b"):
        for case in ("mild", "severe"):
            name = f"{case}-labels.nii.gz"
            made = segmented(case, source=f"scans/{case}").to_json({"labels": name} if with_maps else {})
            write_lines(tmp_path / reader / f"{case}-result.json", [made])
            _, labels, grid = phantom_scan(case)
            save(tmp_path / reader / name, labels, grid.affine)
    record = compare(tmp_path / "a", tmp_path / "b", out=tmp_path)
    assert record["kind"] == ("labels" if with_maps else "opacification")
    assert record["cases"] == ["mild", "severe"]
    quantities = {each["quantity"]: each for each in record["quantities"]}
    for index, case in enumerate(("mild", "severe")):
        volumes = segmented(case).to_json()["volumes"]
        for name, key in (
            ("opacity", "opacity_ml"),
            ("lung", "lung_ml"),
            ("opacity of lung", "opacity_percent"),
        ):
            found = quantities[name]["values"][index]["readers"]
            assert found == pytest.approx([volumes[key]] * 2, abs=0.001)  # results have 3 decimals
    if with_maps:
        for overlap in record["overlaps"]:
            dices = {pair["part"]: pair["dice"] for pair in overlap["pairs"]}
            assert dices.pop("consolidation") == (None if overlap["case"] == "mild" else 1)
            assert set(dices.values()) == {1}


def test_results_without_their_maps_are_compared_by_volume(tmp_path: Path) -> None:
    for reader, factor in (("a", 1.0), ("b", 1.1), ("c", 0.9)):
        records = []
        for index in range(5):
            region = {
                "lung_ml": 3000.0 + index,
                "opacity_ml": 100.0 * index * factor,
                "opacity_percent": index * factor,
            }
            volumes = {**region, "left": region, "right": {**region, "opacity_percent": None}}
            records.append(result(f"/{reader}/{index}", None, volumes=volumes))
        write_lines(tmp_path / reader / "results.jsonl", records)
    record = compare(tmp_path / "a", tmp_path / "b" / "results.jsonl", tmp_path / "c", out=tmp_path)
    assert (record["kind"], record["overlaps"], record["voxels"]) == ("opacification", [], None)
    found = {each["quantity"]: each for each in record["quantities"]}
    assert "right opacity of lung" not in found  # no lung there, no share of it
    assert {"opacity", "opacity of lung", "lung", "left opacity", "right opacity"} <= set(found)
    assert found["opacity"]["pairs"][0]["bland_altman"]["bias"]["value"] == pytest.approx(20)
    assert found["opacity"]["pairs"][0]["quadratic_kappa"] is None
    assert invoke("compare", tmp_path / "a", tmp_path / "b").exit_code == 0


def test_scores_of_several_engines_are_compared(tmp_path: Path) -> None:
    extents = (0.2, 1.3, 2.6, 3.8, 5.2, 7.9)
    for reader, shift in (("onnx", 0.0), ("int8", 0.1), ("other", -0.9)):
        write_lines(
            tmp_path / reader / "results.jsonl",
            [
                scored(f"{reader}/{index}.dcm", extent=max(extent + shift, 0)).to_json()
                for index, extent in enumerate(extents)
            ],
        )
    record = compare(*(tmp_path / reader for reader in ("onnx", "int8", "other")), out=tmp_path)
    assert record["kind"] == "severity"
    extent, opacity = record["quantities"]
    assert (extent["quantity"], extent["unit"], len(extent["values"])) == ("extent", "points", 6)
    assert extent["pairs"][0]["bland_altman"]["bias"]["value"] == pytest.approx(0.1)
    assert extent["pairs"][0]["quadratic_kappa"]["value"] == pytest.approx(1)  # none crosses a half
    assert extent["pairs"][1]["quadratic_kappa"]["value"] < 1
    assert extent["fleiss_kappa"] < 1
    assert (opacity["icc"], opacity["fleiss_kappa"]) == (None, None)  # every case has 3.1 points
    text = invoke("compare", tmp_path / "onnx", tmp_path / "int8").stdout
    assert "QUADRATIC KAPPA" in text
    assert "opacity, points: intraclass correlation is not defined: the cases do not differ" in text


def test_scores_on_different_scales_are_refused(tmp_path: Path) -> None:
    first, second = scored("a.dcm").to_json(), scored("a.dcm").to_json()
    second["opacity"]["scale"] = [0.0, 8.0]
    told = refusal(write_lines(tmp_path / "a.json", [first]), write_lines(tmp_path / "b.json", [second]))
    assert "opacity is on different scales (0 to 6 and 0 to 8)" in told


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


def test_a_case_that_was_tried_again_counts_as_it_went_last(tmp_path: Path) -> None:
    failed = unscored("x/0.png", RefusedError("wrong-view", "a lateral view")).to_json()
    first = write_lines(tmp_path / "a.jsonl", [failed, scored("x/0.png", extent=1).to_json()])
    second = write_lines(tmp_path / "b.jsonl", [scored("x/0.png", extent=3).to_json()])
    record = compare(first, second, out=tmp_path)
    assert record["quantities"][0]["values"] == [{"case": "0", "readers": [1, 3]}]
    assert record["quantities"][0]["pairs"][0]["bland_altman"] is None


def test_an_unfinished_last_line_of_a_journal_is_passed_over(tmp_path: Path) -> None:
    first = write_lines(tmp_path / "a" / "results.jsonl", [scored("x/0.png").to_json()])
    with first.open("a", encoding="utf-8") as stream:
        stream.write('{"schema": "bedside.sev')
    assert compare(first, first.parent, out=tmp_path)["cases"] == ["0"]


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


def test_files_of_one_name_in_several_folders_are_told_apart_by_them(tmp_path: Path) -> None:
    for reader in ("a", "b"):
        write_lines(
            tmp_path / reader / "results.jsonl",
            [
                scored(f"{patient}/pa.dcm", extent=extent).to_json()
                for patient, extent in (("p1", 1), ("p2", 4))
            ],
        )
    assert compare(tmp_path / "a", tmp_path / "b", out=tmp_path)["cases"] == ["p1/pa", "p2/pa"]


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
