"""The protocol of Cohen et al. 2020: its methods, and the whole command."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LinearRegression

from bedside import open_cxr
from bedside_export import cli
from bedside_export.models import Classifier
from bedside_export.scores import ScoreTable, read_scores
from bedside_export.severity import input_rule
from scored_pictures import COLUMNS, COUNT, OPTIONS, draw_scored

pytest.importorskip("matplotlib", reason="needs the extra stats")
pytest.importorskip("statsmodels", reason="needs the extra stats")

from bedside_export.evaluation.documents import render_table, to_predictions
from bedside_export.evaluation.layouts import read_layout
from bedside_export.evaluation.methods import MEAN, methods_of_bundle, methods_of_network, outcome_of_method
from bedside_export.evaluation.protocol import evaluate
from bedside_export.evaluation.scoring import describe, score_table
from bedside_export.evaluation.splits import halve


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_scored(tmp_path_factory.mktemp("scored"))


@pytest.fixture(scope="module")
def table(folder: Path) -> ScoreTable:
    return read_scores(folder / "scores.csv", folder, columns=COLUMNS, bounds=((0, 8), (0, 8)))


class TestMethods:
    def test_regressions_are_least_squares_on_the_logits_and_features(
        self, classify: Callable[..., Classifier], table: ScoreTable
    ) -> None:
        from bedside_export.fitting import measure_inputs

        classifier = classify()
        methods, notes = methods_of_network(classifier, table)
        width = classifier.logits.in_features
        assert [(one.name, one.parameters) for one in methods] == [
            ("Lung Opacity output", "1+1"),
            ("4 outputs", "4+1"),
            ("18 outputs", "18+1"),
            (f"{width} features", f"{width}+1"),
        ]
        assert notes == []
        logits = measure_inputs(
            classifier, table.images, input_rule(classifier), labels=("Lung Opacity", "Pneumonia")
        )
        one, four = methods[0].inputs, methods[1].inputs
        assert one is not None
        assert four is not None
        np.testing.assert_allclose(one[0], logits[:, :1], atol=1e-5)
        np.testing.assert_allclose(four[1][:, :2], logits, atol=1e-5)
        (half,) = halve(table.patients, count=1)
        outcome = outcome_of_method(methods[1], table.scores, [half])
        for score in (0, 1):
            ones = np.ones((COUNT, 1))
            design = np.hstack([four[score], ones])
            line = np.linalg.lstsq(design[half.train], table.scores[half.train, score], rcond=None)[0]
            np.testing.assert_allclose(
                outcome.predicted[0, half.test, score], design[half.test] @ line, atol=1e-6
            )
            assert np.isnan(outcome.predicted[0, half.train, score]).all()

    def test_outputs_that_were_not_trained_are_left_out_with_a_note(
        self, classify: Callable[..., Classifier], table: ScoreTable
    ) -> None:
        methods, notes = methods_of_network(classify("densenet121-res224-nih"), table)
        assert methods[0].parameters == "14+1"
        assert len(methods) == 2
        assert "no regression on 'one' outputs" in notes[0]

    def test_the_mean_is_the_training_halfs(self, table: ScoreTable) -> None:
        splits = halve(table.patients, count=3)
        outcome = outcome_of_method(MEAN, table.scores, splits)
        for place, half in enumerate(splits):
            for score in (0, 1):
                wanted = table.scores[half.train, score].mean()
                np.testing.assert_allclose(outcome.predicted[place, half.test, score], wanted)
        np.testing.assert_array_equal(outcome.predicted, outcome.baseline)

    def test_a_bundles_scores_count_as_they_are_and_with_a_line(self, table: ScoreTable) -> None:
        scores = np.stack([table.scores[:, 0] / 2 + 1, table.scores[:, 1]], axis=1)
        as_it_is, line = methods_of_bundle("mine", scores)
        splits = halve(table.patients, count=2)
        first = outcome_of_method(as_it_is, table.scores, splits)
        np.testing.assert_array_equal(first.predicted[1, splits[1].test], scores[splits[1].test])
        mended = outcome_of_method(line, table.scores, splits)
        np.testing.assert_allclose(
            mended.predicted[0, splits[0].test], table.scores[splits[0].test], atol=1e-9
        )
        rows = evaluate(table, splits, [as_it_is, line]).rows["extent"]
        assert [row.method for row in rows] == [
            "mine, as it is", "mine, recalibrated", "mean of the training half",
        ]  # fmt: skip
        assert rows[1].summary.metrics["mae"].mean == pytest.approx(0, abs=1e-9)
        assert rows[2].summary.ratio.mean == 1

    def test_scores_are_mapped_to_the_tables_scale_and_the_built_in_bundle_is_warned_of(
        self, folder: Path
    ) -> None:
        images = [folder / "0.png", folder / "8.png"]
        plain = score_table("cxr-severity-lite", images, ((0, 8), (0, 6)))
        ralo = score_table("cxr-severity-lite", images, ((0, 8), (0, 8)))
        with open_cxr("cxr-severity-lite") as scorer:
            result = scorer.score(images[1], force=True)
        assert result.extent is not None
        assert result.opacity is not None
        assert plain.scores[1].tolist() == [result.extent.value, result.opacity.value]
        np.testing.assert_allclose(ralo.scores[:, 1], plain.scores[:, 1] * 8 / 6)
        assert describe(plain)[0].startswith("WARNING: cxr-severity-lite was trained on")
        assert any("mapped linearly to 0 to 8" in note for note in describe(ralo))
        assert not any("mapped" in note for note in describe(ralo, scores=("extent",)))
        label = plain.label(())
        assert plain.label([label]) == f"{label} ({plain.digest[:8]})"
        other = describe(replace(plain, name="another"))
        assert "is not known here" in other[0]


def test_the_documents_hold_the_papers_table_and_every_prediction(table: ScoreTable) -> None:
    scores = table.scores + 0.5
    evaluation = evaluate(
        table, halve(table.patients), methods_of_bundle("mine", scores), notes=["Something to know."]
    )
    text = render_table(evaluation)
    assert "| Features | # parameters | Correlation | R² | MAE | MSE |" in text
    assert "| mine, as it is | 0 | 1.00±0.00 |" in text
    assert "0.50±0.00" in text
    assert "> Something to know." in text
    assert "Not for clinical use." in text
    rows = list(csv.DictReader(to_predictions(evaluation).splitlines()))
    assert len(rows) == 3 * COUNT
    first = rows[0]
    assert (first["image"], first["method"]) == ("0.png", "mine, as it is")
    assert float(first["extent"]) == pytest.approx(float(first["true_extent"]) + 0.5)
    assert 10 < int(first["splits"]) < 40


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["bedside-export", "evaluate", "cxr", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_the_command_runs_whole_with_a_weights_file_and_a_bundle(
    folder: Path,
    tmp_path: Path,
    xrv: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(2)
    torch.save(xrv.models.DenseNet(num_classes=18), tmp_path / "mine.pt")
    out = tmp_path / "out"
    given = ("--csv", folder / "scores.csv", "--images", folder, *OPTIONS)
    code = _run(
        monkeypatch, "--weights", tmp_path / "mine.pt", "--weights-kind", "densenet121-res224-all",
        "--bundle", "cxr-severity-lite", *given, "--out", out,
    )  # fmt: skip
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "WARNING: cxr-severity-lite was trained on" in printed.err
    text = (out / "table.md").read_text()
    assert text in printed.out
    names = [
        "Lung Opacity output", "4 outputs", "18 outputs", "1024 features", "cxr-severity-lite 1",
        "mean of the training half",
    ]  # fmt: skip
    places = [text.index(f"| {name}") for name in names]
    assert places == sorted(places)
    results = json.loads((out / "results.json").read_text())
    assert results["schema"] == "bedside.evaluation-cxr/1"
    assert (results["pictures"], results["patients"]) == (COUNT, COUNT // 2)
    assert results["scales"] == {"extent": [0, 8], "opacity": [0, 8]}
    assert len(results["bundles"]) == 1
    last = results["scores"]["extent"][-1]
    assert (last["splits"], last["summary"]["ratio"]["mean"]) == (50, 1)
    for name in (
        "extent-scatter", "extent-bland-altman", "opacity-scatter", "opacity-bland-altman", "ranges",
    ):  # fmt: skip
        with Image.open(out / f"{name}.png") as picture:
            picture.load()
            assert picture.format == "PNG"
            assert picture.text["Disclaimer"] == "Not for clinical use."  # type: ignore[attr-defined]
    assert _run(monkeypatch, "--predictions", "none.csv", *given, "--out", out) == 2
    assert "there is something in the output folder already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "there is nothing to measure"),
        (["--bundle", "cxr-severity-lite"], "give either --data DIR, or --csv FILE"),
        (["--bundle", "cxr-severity-lite", "--csv", "x.csv"], "--csv FILE and --images DIR go together"),
        (["--bundle", "cxr-severity-lite", "--data", "a", "--csv", "x.csv"], "give either --data DIR"),
        (["--bundle", "x", "--data", "a", "--cache", "b"], "--weights-kind and --cache go with --weights"),
        (["--bundle", "x", "--data", "NONE"], "no such folder of data"),
        (["--bundle", "ct-opacity-lite", "CSV"], "the bundle is for ct-opacity, not for cxr-severity"),
        (["--bundle", "no-such", "CSV"], "no bundle at 'no-such'"),
        (["--bundle", "x", "CSV", "--opacity-scale", "4"], "density must be a number from 0 to 4"),
        (["--bundle", "x", "CSV", "--patient-column", "none"], "no column of patients"),
        (["--predictions", "none.csv", "CSV"], "the table of predictions can't be read as CSV"),
        (["--bundle", "x", "CSV", "--splits", "none.csv"], "the table of splits can't be read as CSV"),
    ],
)
def test_wrong_usage_is_told_on_one_line(
    arguments: list[str],
    complaint: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given: list[object] = []
    for word in arguments:
        given += ["--csv", folder / "scores.csv", "--images", folder, *OPTIONS] if word == "CSV" else [word]
    given = [tmp_path / "none" if word == "NONE" else word for word in given]
    assert _run(monkeypatch, *given, "--out", tmp_path / "out") == 2
    printed = capsys.readouterr()
    assert complaint in printed.err
    assert "Traceback" not in printed.err
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_the_mean_of_the_66_pictures_errs_as_the_facts_say(shared: Path) -> None:
    """2.16, computed by others of the same 66 pictures and protocol."""
    table = read_layout(shared / "data" / "cxr")
    row = evaluate(table, halve(table.patients), []).rows["extent"][0]
    assert row.summary.metrics["mae"].mean == pytest.approx(2.16, abs=0.01)
    assert row.summary.metrics["correlation"].mean == 0


def test_least_squares_of_one_input_is_scikit_learns_line(table: ScoreTable) -> None:
    method = methods_of_bundle("x", table.scores[:, ::-1] ** 2)[1]
    (half,) = halve(table.patients, count=1)
    line = LinearRegression().fit(table.scores[half.train, 1:] ** 2, table.scores[half.train, 0])
    found = outcome_of_method(method, table.scores, [half]).predicted[0, half.test, 0]
    np.testing.assert_allclose(found, line.predict(table.scores[half.test, 1:] ** 2))
