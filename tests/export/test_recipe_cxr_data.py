"""Whom the chest X-ray recipe may learn from: patients, splits, and stages that refuse a leak."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bedside_export.recipes.cxr.data import (
    NEAR_DUPLICATE,
    OTHER_HALF,
    Collection,
    DataError,
    Float,
    LeakError,
    Picture,
    Split,
    group_shuffle_split,
    held_out_patients,
    mend_patient,
    read_collection,
    read_thumbnails,
    split,
)
from bedside_export.recipes.cxr.network import MAP_SIZE, SeverityNetwork
from bedside_export.recipes.cxr.targets import Arrays
from bedside_export.recipes.cxr.training import Recipe, train_finder, train_severity
from cxr_networks import SHARED, needs_data, untrained


@pytest.fixture(scope="module")
def network() -> SeverityNetwork:
    return untrained()


@pytest.fixture(scope="module")
def collection() -> Collection:
    return read_collection(SHARED)


@pytest.fixture(scope="module")
def thumbnails(collection: Collection) -> dict[str, Float]:
    return read_thumbnails(collection)


class TestPatients:
    def test_mends_what_the_tables_have_wrong(self) -> None:
        assert mend_patient("16660_1_1.jpg", "178") == mend_patient("x.jpg", "97") == "97"
        assert mend_patient("case_72_RX-TORACE1.jpg", "201") == mend_patient("x.jpg", "78") == "78"
        assert mend_patient("4-x-day13.jpg", None) == mend_patient("extubation-13.jpg", "196") == "196"

    def test_unknown_stays_unknown(self) -> None:
        assert mend_patient("immagine.jpg", None) is None
        assert mend_patient("immagine.jpg", "") is None

    def test_shuffles_groups_as_scikit_learn_does(self) -> None:
        # GroupShuffleSplit(1, train_size=0.5, random_state=0) of scikit-learn 1.7 on five groups:
        # RandomState(0).permutation(5) is [2, 0, 1, 3, 4]; the first three test, the next two train.
        train, test = group_shuffle_split(["a", "b", "c", "d", "e", "a"], train_size=0.5, seed=0)
        assert (train, test) == (["d", "e"], ["a", "b", "c"])

    @needs_data
    def test_scored_pictures_have_patients(self, collection: Collection) -> None:
        assert len(collection.scored) == 66
        assert all(p.patient and p.view == "PA" for p in collection.scored)
        assert not {p.patient for p in collection.pictures} & {"178", "201"}

    def test_missing_table_names_itself(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"metadata\.csv"):
            read_collection(tmp_path)

    @pytest.mark.parametrize(
        ("table", "column", "score"),
        [
            ("severity", "opacity_mean", "6.5"),
            ("severity", "geographic_mean", "-1"),
            ("brixia", "J-F", "nan"),
        ],
    )
    def test_score_outside_its_scale_is_refused(
        self, tmp_path: Path, table: str, column: str, score: str
    ) -> None:
        rows = {
            "metadata": {"image": "a.jpg", "patientid": "1", "view": "PA"},
            "severity": {"image": "a.jpg", "geographic_mean": "1", "opacity_mean": "1"},
            "brixia": {"image": "a.jpg"} | {f"{s}-{z}": "1" for s in "SJ" for z in "ABCDEF"},
        }
        (tmp_path / "cxr" / "images").mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "cxr" / "images" / "a.jpg")

        def read() -> Collection:
            for name, row in rows.items():
                text = ",".join(row) + "\n" + ",".join(row.values()) + "\n"
                (tmp_path / "cxr" / f"{name}.csv").write_text(text, encoding="utf-8")
            return read_collection(tmp_path)

        assert read().pictures[0].severity == (1, 1)
        rows[table][column] = score
        with pytest.raises(DataError, match=column):
            read()


@needs_data
class TestSplits:
    @pytest.mark.parametrize("seed", range(5))
    def test_no_patient_and_no_copy_on_both_sides(
        self, collection: Collection, thumbnails: dict[str, Float], seed: int
    ) -> None:
        halves = split(collection, thumbnails, seed=seed)
        assert not {p.patient for p in halves.training} & {p.patient for p in halves.held_out}
        theirs = np.stack([thumbnails[p.name] for p in halves.held_out])
        ours = np.stack([thumbnails[p.name] for p in halves.training])
        assert float((ours @ theirs.T).max()) < NEAR_DUPLICATE
        assert all(p.patient for p in halves.held_out)

    def test_finds_the_known_copies(self, thumbnails: dict[str, Float]) -> None:
        first, second = thumbnails["4-x-day4.jpg"], thumbnails["extubation-4.jpg"]
        assert float(first @ second) > NEAR_DUPLICATE

    @pytest.mark.parametrize("seed", range(5))
    def test_exchanged_halves_measure_every_scored_patient_once(
        self, collection: Collection, thumbnails: dict[str, Float], seed: int
    ) -> None:
        one, other = (
            {p.name for p in split(collection, thumbnails, seed=s).held_out if p.severity}
            for s in (seed, seed + OTHER_HALF)
        )
        assert not one & other
        assert one | other == {p.name for p in collection.scored}

    def test_five_splits_hold_out_every_portable_picture(self, collection: Collection) -> None:
        held_out = set().union(*(held_out_patients(collection, seed=s) for s in range(5)))
        portable = {
            p.patient for p in collection.pictures if p.zones and p.view in ("AP", "AP Supine") and p.patient
        }
        assert portable - held_out <= {p.patient for p in collection.scored}


class TestLeaks:
    """Every stage refuses a picture of a held-out patient."""

    @staticmethod
    def leaky() -> tuple[Split, Arrays]:
        mine = [Picture(f"{i}.jpg", str(i), "PA", (1.0, 1.0), (1.0,) * 6) for i in range(4)]
        theirs = Picture("theirs.jpg", "0", "PA", (1.0, 1.0), (1.0,) * 6)
        everybody = (*mine, theirs)
        arrays = Arrays(
            tuple(p.name for p in everybody),
            torch.rand(5, 1, 320, 320),
            torch.rand(5, 2, MAP_SIZE, MAP_SIZE),
            torch.rand(5, 1, MAP_SIZE, MAP_SIZE),
        )
        return Split(0, tuple(mine), (theirs,)), arrays

    def test_check_refuses_a_held_out_patient(self) -> None:
        halves, _ = self.leaky()
        with pytest.raises(LeakError):
            halves.check(halves.training)

    def test_check_refuses_a_picture_from_outside_the_split(self) -> None:
        halves = Split(0, (Picture("a.jpg", "a", "PA"),), ())
        with pytest.raises(LeakError):
            halves.check([Picture("b.jpg", None, "PA")])

    @pytest.mark.parametrize("stage", [train_finder, train_severity])
    def test_stages_refuse(self, network: SeverityNetwork, stage: object) -> None:
        halves, arrays = self.leaky()
        with pytest.raises(LeakError):
            stage(network, halves, arrays, Recipe())  # type: ignore[operator]

    def test_message_names_no_patient(self) -> None:
        halves = Split(0, (Picture("a.jpg", "patient-7", "PA"),), (Picture("b.jpg", "patient-7", "PA"),))
        with pytest.raises(LeakError) as caught:
            halves.check(halves.training)
        assert "patient-7" not in str(caught.value)
