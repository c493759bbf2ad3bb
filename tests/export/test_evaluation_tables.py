"""Whose pictures are measured: tables, halves of patients, held-out predictions, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import GroupShuffleSplit

from bedside_export.errors import ExportError
from bedside_export.evaluation.layouts import check_patients, read_layout
from bedside_export.evaluation.methods import outcome_of_recipe
from bedside_export.evaluation.splits import Halves, halve, read_splits
from bedside_export.evaluation.statistics import average
from bedside_export.scores import ScoreTable, read_scores
from scored_pictures import COLUMNS, COUNT, draw_scored, scored_rows, write_csv


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_scored(tmp_path_factory.mktemp("scored"))


@pytest.fixture(scope="module")
def table(folder: Path) -> ScoreTable:
    return read_scores(folder / "scores.csv", folder, columns=COLUMNS, bounds=((0, 8), (0, 8)))


class TestSplits:
    def test_halves_are_those_of_the_paper(self) -> None:
        patients = [str(number) for number in (3, 3, 10, 12, 100, 7, 7, 55, 101, 9)]
        numbers = [int(patient) for patient in patients]
        found = halve(patients)
        assert len(found) == 50
        for seed, half in enumerate(found):
            splitter = GroupShuffleSplit(n_splits=1, train_size=0.5, test_size=0.5, random_state=seed)
            train, test = next(splitter.split(numbers, groups=numbers))
            assert half.train.tolist() == sorted(train)
            assert half.test.tolist() == sorted(test)

    def test_no_patient_is_on_both_sides(self, table: ScoreTable) -> None:
        for half in halve(table.patients):
            sides = [{table.patients[row] for row in rows} for rows in (half.train, half.test)]
            assert not sides[0] & sides[1]
            assert len(half.train) + len(half.test) == COUNT

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ({3: {"part": "test"}}, "split 'a': a patient is on both sides"),
            ({0: {"part": "check"}}, "row 2: part must be train or test"),
            ({0: {"image": "none.png"}}, "row 2: the table of scores has no such picture"),
            ({1: {"image": "0.png"}}, "row 3: the split names this picture before"),
            ({i: {"part": "train"} for i in range(COUNT)}, "fewer than 2 pictures on a side"),
        ],
    )
    def test_wrong_splits_of_a_user_are_refused(
        self, change: dict[int, dict[str, object]], complaint: str, table: ScoreTable, tmp_path: Path
    ) -> None:
        rows: list[dict[str, object]] = [
            {"split": "a", "image": f"{i}.png", "part": "train" if i < COUNT // 2 else "test"}
            for i in range(COUNT)
        ]
        path = write_csv(tmp_path / "splits.csv", rows)
        (half,) = read_splits(path, table)
        assert (half.train.tolist(), half.test.tolist()) == (list(range(12)), list(range(12, 24)))
        write_csv(path, [{**row, **change.get(i, {})} for i, row in enumerate(rows)])
        with pytest.raises(ExportError, match=complaint):
            read_splits(path, table)


class TestTables:
    def test_the_shared_layout_has_the_patients_mended(self, shared: Path) -> None:
        table = read_layout(shared / "data" / "cxr")
        check_patients(table)
        assert (len(table.images), len(set(table.patients))) == (66, 47)
        assert not {"178", "201", ""} & set(table.patients)
        assert table.bounds == ((0, 8), (0, 6))

    def test_a_scored_picture_without_a_patient_is_refused(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "images").symlink_to(folder)
        scores = [{"image": f"{i}.png", "geographic_mean": 1, "opacity_mean": 1} for i in range(3)]
        known = [{"image": f"{i}.png", "patientid": i or "", "view": "PA"} for i in range(3)]
        write_csv(tmp_path / "severity.csv", scores)
        write_csv(tmp_path / "metadata.csv", known)
        with pytest.raises(ExportError, match=r"severity\.csv, row 2: metadata\.csv has no patient"):
            read_layout(tmp_path)
        write_csv(tmp_path / "severity.csv", [*scores[1:], {**scores[1], "image": "9999.png"}])
        with pytest.raises(ExportError, match="row 4: no such picture"):
            read_layout(tmp_path)
        with pytest.raises(ExportError, match="no such folder of data"):
            read_layout(tmp_path / "none")

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ({"density": 8.01}, "row 4: density must be a number from 0 to 8"),
            ({"extent": -1}, "row 4: extent must be a number from 0 to 8"),
            ({"extent": "x"}, "row 4: extent must be a number"),
            ({"file": "1.png"}, "row 4: this picture stands there before"),
            ({"file": "gone.png"}, "row 4: no such picture in the folder"),
            ({"who": ""}, "a picture without a patient"),
        ],
    )
    def test_bad_rows_are_told(
        self, change: dict[str, object], complaint: str, folder: Path, tmp_path: Path
    ) -> None:
        rows = scored_rows()
        rows[2] = {**rows[2], **change}
        path = write_csv(tmp_path / "scores.csv", rows)
        with pytest.raises(ExportError, match=complaint):
            check_patients(read_scores(path, folder, columns=COLUMNS, bounds=((0, 8), (0, 8))))

    def test_a_table_that_can_not_be_halved_by_patient_is_refused(self, table: ScoreTable) -> None:
        with pytest.raises(ExportError, match=r"no column of patients.*--patient-column"):
            check_patients(replace(table, grouped=False))
        with pytest.raises(ExportError, match="3 patients; halves need at least 10"):
            check_patients(replace(table, patients=("a", "b", "c") * 8))


class TestHeldOut:
    def _rows(self, table: ScoreTable) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = []
        for seed, wanted in enumerate((0, 1)):
            for image, patient, score in zip(table.images, table.patients, table.scores, strict=True):
                if int(patient) % 2 == wanted:
                    values = {"extent": score[0] + 1, "opacity": score[1] * 6 / 8}
                    rows.append({"seed": seed, "image": image.name, **values})
        return [*rows, {"seed": 0, "image": "elsewhere.png", "extent": 1, "opacity": 1}]

    def test_a_recipes_predictions_are_measured_on_their_own_splits(
        self, table: ScoreTable, tmp_path: Path
    ) -> None:
        outcome = outcome_of_recipe(write_csv(tmp_path / "predictions.csv", self._rows(table)), table)
        odd = np.array([int(patient) % 2 for patient in table.patients])
        assert np.isfinite(outcome.predicted[:, :, 0]).tolist() == [(odd == 0).tolist(), (odd == 1).tolist()]
        clipped = np.minimum(table.scores[:, 0] + 1, 8)
        np.testing.assert_allclose(average(outcome.predicted[:, :, 0]), clipped)
        np.testing.assert_allclose(average(outcome.predicted[:, :, 1]), table.scores[:, 1])
        np.testing.assert_allclose(outcome.baseline[0, odd == 0, 0], table.scores[odd == 1, 0].mean())

    @pytest.mark.parametrize(
        ("mend", "complaint"),
        [
            (lambda rows: rows[1:], "a patient is on both sides"),
            (lambda rows: [rows[0], *rows], "row 3: the split has this picture before"),
            (lambda rows: [{**rows[0], "extent": "nan"}, *rows[1:]], "row 2: extent must be a number"),
            (lambda rows: rows[-1:], "names no picture of the table"),
        ],
    )
    def test_a_file_that_can_not_be_of_held_out_patients_is_refused(
        self,
        mend: Callable[[list[dict[str, object]]], list[dict[str, object]]],
        complaint: str,
        table: ScoreTable,
        tmp_path: Path,
    ) -> None:
        path = write_csv(tmp_path / "predictions.csv", mend(self._rows(table)))
        with pytest.raises(ExportError, match=complaint):
            outcome_of_recipe(path, table)


def test_halves_need_pictures_on_both_sides() -> None:
    with pytest.raises(ExportError, match="fewer than 2 pictures"):
        Halves("0", np.array([0, 1]), np.array([2])).check(["a", "b", "c"])
