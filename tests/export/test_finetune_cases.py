"""Which cases a folder of masks holds, who is held out, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bedside_export.ct_rules import TISSUES as KNOWN
from bedside_export.errors import ExportError
from bedside_export.recipes.ct.cases import Entry, list_cases, split_cases
from bedside_export.recipes.ct.masks import Masked, Rules, check_apart, read_masked
from made_masks import PIXEL_MM, SLICE_MM, TISSUES, make_scan, write_case, write_nifti

RULES = Rules(TISSUES, None)


@pytest.fixture
def two_scanners(tmp_path: Path) -> Path:
    for seed, name in enumerate(("a1", "a2", "a3", "a4")):
        write_case(tmp_path / "A", name, seed)
    for seed, name in enumerate(("b1", "b2")):
        write_case(tmp_path / "B", name, 10 + seed)
    return tmp_path


class TestFolder:
    def test_subfolders_name_the_sources(self, two_scanners: Path) -> None:
        entries = list_cases(two_scanners)
        assert [(each.number, each.key, each.source) for each in entries] == [
            (1, "A/a1", "A"), (2, "A/a2", "A"), (3, "A/a3", "A"), (4, "A/a4", "A"), (5, "B/b1", "B"), (6, "B/b2", "B"),
        ]  # fmt: skip

    def test_one_folder_is_one_source(self, tmp_path: Path) -> None:
        write_case(tmp_path, "one", 0)
        (only,) = list_cases(tmp_path)
        assert (only.source, only.patient) == ("all", "one")

    def test_several_readings_of_a_scan_belong_to_it(self, tmp_path: Path) -> None:
        hu, labels = make_scan(0)
        write_nifti(tmp_path / "one.nii", hu)
        for reader in ("1", "2", "anna"):
            write_nifti(tmp_path / f"one-labels-{reader}.nii", labels)
        (only,) = list_cases(tmp_path)
        assert len(only.readings) == 3
        assert read_masked(only, RULES).readings.shape == (6, 3, 64, 64)

    def test_images_and_labels_may_lie_apart(self, tmp_path: Path) -> None:
        hu, labels = make_scan(0)
        write_nifti(tmp_path / "images" / "one_0000.nii", hu)
        write_nifti(tmp_path / "labels" / "one.nii", labels)
        (only,) = list_cases(tmp_path)
        assert only.image.parent.name == "images"
        assert [path.parent.name for path in only.readings] == ["labels"]

    def test_folders_of_pictures_are_cases(self, tmp_path: Path) -> None:
        for name in ("001", "002"):
            (tmp_path / name).mkdir()
            Image.fromarray(np.zeros((256, 256), np.uint8)).save(tmp_path / name / "0000.png")
            Image.fromarray(np.zeros((128, 128), np.uint8)).save(tmp_path / name / "0000-opacity.png")
        assert [(each.key, each.source, each.image.is_dir()) for each in list_cases(tmp_path)] == [
            ("001", "all", True),
            ("002", "all", True),
        ]

    @pytest.mark.parametrize(
        ("missing", "complaint"), [("-labels.nii", "have no labels beside them"), (".nii", "beside no scan")]
    )
    def test_scan_or_labels_alone_are_refused(self, tmp_path: Path, missing: str, complaint: str) -> None:
        write_case(tmp_path, "one", 0)
        (tmp_path / f"one{missing}").unlink()
        with pytest.raises(ExportError, match=complaint):
            list_cases(tmp_path)

    def test_empty_and_absent_folders_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ExportError, match="holds no scan"):
            list_cases(tmp_path)
        with pytest.raises(ExportError, match="no such folder"):
            list_cases(tmp_path / "nothing")


class TestTable:
    def test_names_sources_patients_and_parts(self, two_scanners: Path) -> None:
        table = two_scanners / "table.csv"
        table.write_text("case,source,patient,part\nA/a1.nii,X,p,train\nA/a2,X,p,\nB/b1,,q,held-out\n")
        entries = list_cases(two_scanners, table)
        assert [(each.source, each.patient, each.part) for each in entries] == [
            ("X", "p", "train"), ("X", "p", ""), ("B", "q", "held-out"),
        ]  # fmt: skip
        assert [each.part for each in split_cases(entries, share=0.25, seed=0)] == [
            "train",
            "train",
            "held-out",
        ]

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("case\nA/a9\n", "row 2 of the table names a case that is not in the folder"),
            ("case\nA/a1\nA/a1\n", "row 3 of the table names a case for the second time"),
            ("case,part\nA/a1,validation\n", "part must be one of"),
            ("name\nA/a1\n", "wants a column case"),
            ("case,age\nA/a1,50\n", "rename its columns"),
            ("case\n", "names no case"),
        ],
    )
    def test_what_is_no_table_of_the_folder_is_refused(
        self, two_scanners: Path, text: str, complaint: str
    ) -> None:
        table = two_scanners / "table.csv"
        table.write_text(text)
        with pytest.raises(ExportError, match=complaint):
            list_cases(two_scanners, table)


class TestSplit:
    def test_each_source_has_patients_on_both_sides(self, two_scanners: Path) -> None:
        entries = split_cases(list_cases(two_scanners), share=0.25, seed=0)
        parts = {source: [e.part for e in entries if e.source == source] for source in ("A", "B")}
        assert sorted(parts["A"]) == ["held-out", "train", "train", "train"]
        assert sorted(parts["B"]) == ["held-out", "train"]
        assert entries == split_cases(list_cases(two_scanners), share=0.25, seed=0)

    def test_other_seeds_hold_out_others(self, two_scanners: Path) -> None:
        cases = list_cases(two_scanners)
        assert len({split_cases(cases, share=0.25, seed=seed) for seed in range(8)}) > 1

    def test_all_scans_of_a_patient_go_to_one_side(self, two_scanners: Path) -> None:
        table = two_scanners / "table.csv"
        table.write_text("case,patient\nA/a1,p\nA/a2,p\nA/a3,q\nB/b1,p\nB/b2,q\n")
        entries = split_cases(list_cases(two_scanners, table), share=0.5, seed=0)
        for patient in "pq":
            assert len({each.part for each in entries if each.patient == patient}) == 1

    def test_patient_on_both_sides_is_refused(self, two_scanners: Path) -> None:
        table = two_scanners / "table.csv"
        table.write_text("case,patient,part\nA/a1,p,train\nA/a2,p,held-out\n")
        with pytest.raises(ExportError, match="case 2 is on both sides, train and held-out"):
            split_cases(list_cases(two_scanners, table), share=0.25, seed=0)

    def test_one_patient_is_refused(self, tmp_path: Path) -> None:
        write_case(tmp_path, "one", 0)
        with pytest.raises(ExportError, match="no patient to hold out: 1 in all"):
            split_cases(list_cases(tmp_path), share=0.25, seed=0)


class TestReading:
    @staticmethod
    def entry(folder: Path) -> Entry:
        (only,) = list_cases(folder)
        return only

    def test_hu_and_classes_come_as_they_are_in_the_file(self, tmp_path: Path) -> None:
        hu, labels = make_scan(0)
        write_case(tmp_path, "one", 0)
        case = read_masked(self.entry(tmp_path), RULES)
        assert torch.equal(case.hu, torch.from_numpy(np.rint(hu).astype(np.int16)))
        assert np.array_equal(case.readings[:, 0].numpy(), labels)
        assert case.voxel_ml == pytest.approx(PIXEL_MM**2 * SLICE_MM / 1000)

    def test_other_pixels_keep_the_volume(self, tmp_path: Path) -> None:
        write_case(tmp_path, "one", 0)
        as_is = read_masked(self.entry(tmp_path), RULES)
        coarse = read_masked(self.entry(tmp_path), Rules(TISSUES, (7.5, 4.0)))
        assert coarse.hu.shape == (6, 43, 80)
        assert as_is.voxel_ml is not None
        assert coarse.voxel_ml is not None
        volumes = [float((case.readings == 2).sum()) * (case.voxel_ml or 0) for case in (as_is, coarse)]
        assert volumes[1] == pytest.approx(volumes[0], rel=0.12)

    def test_masks_of_another_size_are_refused(self, tmp_path: Path) -> None:
        hu, labels = make_scan(0)
        write_nifti(tmp_path / "one.nii", hu)
        write_nifti(tmp_path / "one-labels.nii", labels[:, ::2, ::2])
        with pytest.raises(ExportError, match="case 1: its labels have 6x32x32 voxels and its scan 6x64x64"):
            read_masked(self.entry(tmp_path), RULES)

    def test_masks_that_lie_elsewhere_are_refused(self, tmp_path: Path) -> None:
        hu, labels = make_scan(0)
        write_nifti(tmp_path / "one.nii", hu)
        write_nifti(tmp_path / "one-labels.nii", labels, spacing=(SLICE_MM, PIXEL_MM, 1.2 * PIXEL_MM))
        with pytest.raises(ExportError, match="mm off its scan"):
            read_masked(self.entry(tmp_path), RULES)

    def test_labels_that_the_table_lacks_are_refused(self, tmp_path: Path) -> None:
        hu, labels = make_scan(0)
        labels[0, 0, 0] = 7
        write_nifti(tmp_path / "one.nii", hu)
        write_nifti(tmp_path / "one-labels.nii", labels)
        with pytest.raises(ExportError, match="case 1: its labels hold 7, and the table has 3 tissues"):
            read_masked(self.entry(tmp_path), RULES)

    def test_voxels_that_are_no_number_are_refused(self, tmp_path: Path) -> None:
        hu, labels = make_scan(0)
        hu[2:4, 5, 5] = np.nan
        write_nifti(tmp_path / "one.nii", hu)
        write_nifti(tmp_path / "one-labels.nii", labels)
        with pytest.raises(ExportError, match=r"case 1 holds voxels that are no number .* in 2 slices"):
            read_masked(self.entry(tmp_path), RULES)

    def test_what_is_not_in_hu_is_refused(self, tmp_path: Path) -> None:
        hu, labels = make_scan(0)
        write_nifti(tmp_path / "one.nii", np.clip((hu + 1000) / 8, 0, 255).astype(np.uint8))
        write_nifti(tmp_path / "one-labels.nii", labels)
        with pytest.raises(ExportError, match=r"case 1: .*\[not-hu\]"):
            read_masked(self.entry(tmp_path), RULES)

    def test_masks_of_opacity_need_classes_for_which_lungs_are_found(self) -> None:
        with pytest.raises(ExportError, match="go with the tissues 'sides'"):
            Rules(TISSUES, None, "opacity")
        assert Rules(KNOWN["sides"], (1.4, 1.4), "opacity").may_find_lungs

    def test_pictures_need_them_too(self, tmp_path: Path) -> None:
        (tmp_path / "one").mkdir()
        Image.fromarray(np.zeros((256, 256), np.uint8)).save(tmp_path / "one" / "0000.png")
        Image.fromarray(np.zeros((128, 128), np.uint8)).save(tmp_path / "one" / "0000-opacity.png")
        with pytest.raises(ExportError, match="case 1 is of pictures"):
            read_masked(self.entry(tmp_path), RULES)


def test_one_scan_under_two_names_on_both_sides_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_case(tmp_path, name, 0)
    entries = split_cases(list_cases(tmp_path), share=0.5, seed=0)
    cases: list[Masked] = [read_masked(entry, RULES) for entry in entries]
    with pytest.raises(ExportError, match="are the same scan, on both sides"):
        check_apart(cases)
