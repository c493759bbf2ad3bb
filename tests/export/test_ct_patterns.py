"""The six patterns: told apart on phantoms by their texture, and counted rightly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.stats import binomtest
from torch import nn

from bedside_export.errors import ExportError
from bedside_export.recipes.ct.patterns import (
    CLASSES,
    FIRST,
    GROUPS,
    JUDGED,
    PHANTOM_RECIPE,
    PHANTOMS,
    RECIPE,
    describe,
    main,
    make_phantoms,
    measure,
    read_folder,
    train,
)
from bedside_export.recipes.ct.phantoms import PATTERNS
from bedside_export.recipes.ct.soft import Read
from made_masks import make_scan, write_nifti


class Fixed(nn.Module):
    """Answers with given classes, whatever it sees."""

    def __init__(self, classes: torch.Tensor) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self._logits = 10 * torch.nn.functional.one_hot(classes.long(), len(CLASSES)).movedim(-1, 1).float()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self._logits[: len(image)]


def test_classes_and_groups_are_the_published_ones() -> None:
    assert [tissue.name for tissue in CLASSES[1:3]] == ["left lung", "right lung"]
    assert [tissue.opacity for tissue in CLASSES] == [False] * FIRST + [True] * 6
    assert len(PATTERNS) == len(CLASSES) - FIRST
    assert GROUPS == (0, 1, 1, 0, 0, 2, 3, 3, 4, 4, 4)


def test_truth_is_all_right() -> None:
    (case,) = make_phantoms([0])
    measured = measure(Fixed(case.readings[:, 0]), [case])
    assert measured["lesions"]["right"] == 1
    assert set(measured["dice_of_groups"].values()) <= {1.0, None}
    assert sum(map(sum, measured["confusion"])) == case.hu.numel()


def test_wrong_pattern_of_one_group_is_wrong_as_a_pattern_and_right_as_a_group() -> None:
    labels = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    labels[:, 0, 4:20, 4:20] = 8
    found = torch.where(labels == 8, torch.tensor(10, dtype=torch.uint8), labels)
    measured = measure(Fixed(found[:, 0]), [Read(torch.zeros(2, 32, 32, dtype=torch.int16), labels)])
    assert measured["lesions"] == {
        "lesions": 1,
        "right": 0,
        "by_pattern": {
            tissue.name: {"lesions": int(k == 3), "right": 0.0 if k == 3 else None}
            for k, tissue in enumerate(CLASSES[FIRST:])
        },
        "confusion": [[int((row, column) == (3, 5)) for column in range(7)] for row in range(6)],
    }
    assert measured["dice"]["organizing pneumonia"] == 0
    assert measured["dice_of_groups"]["4"] == 1


def test_lesion_that_is_not_found_is_wrong() -> None:
    labels = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    labels[:, 0, 4:20, 4:20] = 8
    found = labels.clone()
    found[:, 0, 4:20, 6:20] = 0
    measured = measure(Fixed(found[:, 0]), [Read(torch.zeros(2, 32, 32, dtype=torch.int16), labels)])
    assert measured["lesions"]["right"] == 0
    assert measured["lesions"]["confusion"][3] == [0] * 6 + [1]


def test_table_tells_what_each_pattern_was_found_as() -> None:
    labels = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    labels[:, 0, 4:20, 4:20] = 8
    measured = measure(Fixed(labels[:, 0]), [Read(torch.zeros(2, 32, 32, dtype=torch.int16), labels)])
    table = describe(measured)
    assert table[4].split() == ["8", "organizing", "pneumonia", "1", "100%", "1.00", *"0001000"]
    assert table[1].split()[-9:] == ["n/a", "n/a", *"0000000"]
    assert table[-1].split()[:3] == ["all", "1", "100%;"]


@pytest.mark.slow
def test_light_network_tells_textures_apart_far_better_than_chance() -> None:
    network = train(make_phantoms(PHANTOMS), PHANTOM_RECIPE)
    measured = measure(network, make_phantoms(JUDGED))
    lesions = measured["lesions"]
    assert lesions["lesions"] >= 60
    assert lesions["right"] >= 0.75
    for told in lesions["by_pattern"].values():
        right = round(told["right"] * told["lesions"])
        assert binomtest(right, told["lesions"], 1 / 6, alternative="greater").pvalue < 1e-3


def test_seeds_to_judge_by_are_none_that_were_learnt_from() -> None:
    assert not set(PHANTOMS) & set(JUDGED)


def test_labels_that_name_no_patterns_are_refused() -> None:
    labels = torch.ones(2, 1, 32, 32, dtype=torch.uint8)
    with pytest.raises(ExportError, match="name 0 of the six patterns"):
        train([Read(torch.zeros(2, 32, 32, dtype=torch.int16), labels)], PHANTOM_RECIPE)


def test_folder_of_labels_is_read_by_patient_and_learnt_from(tmp_path: Path) -> None:
    for seed, name in enumerate(("one", "two", "three")):
        hu, labels = make_scan(seed)
        write_nifti(tmp_path / f"{name}.nii", hu)
        patterns = np.where(np.arange(len(labels)) < 3, 7, 8)[:, None, None]
        write_nifti(tmp_path / f"{name}-labels.nii", np.where(labels == 2, patterns, labels).astype(np.uint8))
    cases = read_folder(tmp_path)
    assert (len(cases["train"]), len(cases["held-out"])) == (2, 1)
    assert cases["train"][0].readings.unique().tolist() == [0, 1, 7, 8]
    network = train(cases["train"], replace(RECIPE, steps=1, batch=1, view=(64, 64)))
    assert measure(network, cases["held-out"])["lesions"]["lesions"] > 0
    labels[0, 0, 0] = 11
    write_nifti(tmp_path / "three-labels.nii", labels)
    with pytest.raises(ExportError, match="hold 11, and the table has 11 tissues"):
        read_folder(tmp_path)


def test_command_wants_phantoms_or_a_folder(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "one of --masks FOLDER and --phantoms" in done.output
