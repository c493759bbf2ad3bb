"""``bedside compare`` on results: what `segment` and `score` wrote, with label maps or without."""

from __future__ import annotations

from pathlib import Path

import pytest

from bedside.errors import RefusedError
from command_line import invoke
from compared_readers import box, compare, in_lung, result, save, write_lines
from made_results import scored, unscored
from made_scans import phantom_scan, segmented

pytest.importorskip("statsmodels", reason="needs the extra stats")
pytest.importorskip("matplotlib", reason="needs the extra stats")


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
