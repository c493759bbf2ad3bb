from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bedside_export.errors import ExportError
from bedside_export.fitting import ALPHAS, INPUTS, fit_head, input_labels, measure_inputs
from bedside_export.models import Classifier, SeverityDenseNet
from bedside_export.scores import COLUMNS, ScoreTable, read_scores
from bedside_export.severity import input_rule

Classify = Callable[..., Classifier]
COUNT = 30


def _write_table(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _rows() -> list[dict[str, object]]:
    return [
        {"image": f"{i}.png", "geographic_mean": i % 9, "opacity_mean": i % 7, "patientid": i // 2}
        for i in range(COUNT)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scored pictures: the brighter, the worse."""
    folder = tmp_path_factory.mktemp("scored")
    noise = np.random.Generator(np.random.PCG64(0))
    for i, row in enumerate(_rows()):
        level = 60 + 15 * int(str(row["geographic_mean"]))
        pixels = np.clip(noise.normal(level, 20, (80, 72)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    _write_table(folder / "scores.csv", _rows())
    return folder


@pytest.fixture(scope="module")
def table(folder: Path) -> ScoreTable:
    return read_scores(folder / "scores.csv", folder)


def test_a_table_is_read_in_its_order(table: ScoreTable, folder: Path) -> None:
    assert table.images == tuple(folder / f"{i}.png" for i in range(COUNT))
    assert table.scores[:4].tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert len(set(table.patients)) == COUNT // 2
    assert table.grouped


def test_without_patients_each_picture_is_one(folder: Path, tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "patientid"} for row in _rows()]
    table = read_scores(_write_table(tmp_path / "scores.csv", rows), folder)
    assert len(set(table.patients)) == COUNT
    assert not table.grouped


@pytest.mark.parametrize("choice", INPUTS)
def test_the_network_answers_as_scikit_learns_own_regression(
    choice: str, classify: Classify, table: ScoreTable, xrv: object
) -> None:
    classifier = classify()
    labels = input_labels(choice, classifier)
    spec = input_rule(classifier)
    inputs = measure_inputs(classifier, table.images, spec, labels=labels)
    expected_width = {"one": 1, "four": 4, "eighteen": 18, "features": classifier.logits.in_features}
    assert inputs.shape == (COUNT, expected_width[choice])
    fit = fit_head(inputs, table, labels=labels)

    from bedside.cxr import preprocess
    from bedside.reading import read_radiograph

    pictures = torch.from_numpy(
        np.concatenate([preprocess(read_radiograph(path), spec) for path in table.images])
    )
    with torch.inference_mode():
        severity = SeverityDenseNet(classifier, fit.head)(pictures)[0].numpy()
    for column, alpha in enumerate(fit.alphas):
        own = make_pipeline(StandardScaler(), Ridge(alpha=alpha)).fit(inputs, table.scores[:, column])
        np.testing.assert_allclose(severity[:, column], own.predict(inputs), atol=2e-3)
        assert alpha in ALPHAS
    assert f"{COUNT} scored pictures of {COUNT // 2} patients" in fit.head.source


def test_inputs_are_the_raw_logits_of_torchxrayvision(
    classify: Classify, table: ScoreTable, small_densenet: torch.nn.Module
) -> None:
    from bedside.cxr import preprocess
    from bedside.reading import read_radiograph

    classifier = classify()
    inputs = measure_inputs(
        classifier, table.images[:3], input_rule(classifier), labels=("Edema", "Lung Opacity")
    )
    for path, row in zip(table.images, inputs, strict=False):
        picture = torch.from_numpy(preprocess(read_radiograph(path), input_rule(classifier)))
        with torch.inference_mode():
            logits = small_densenet(picture)[0].numpy()
        np.testing.assert_allclose(row, logits[[4, 16]], atol=1e-4)


def test_the_error_is_of_patients_that_the_fit_has_not_seen() -> None:
    # Each patient has a mark of his own, and a score that nothing else tells: seen, it would be known to 0.
    patients = np.repeat(np.arange(40), 2)
    marks = np.eye(40)[patients]
    truth = np.random.Generator(np.random.PCG64(1)).uniform(0, 6, 40)[patients]
    table = ScoreTable((), np.stack([truth, truth], axis=1), tuple(map(str, patients)), grouped=True)
    fit = fit_head(marks, table, labels=None)
    spread = np.abs(truth - truth.mean()).mean()
    assert fit.errors[0] > 0.9 * spread
    assert fit.head.intervals[0].below + fit.head.intervals[0].above > 3.5  # 80 % of 0 to 6 is 4.8


def test_the_interval_holds_its_share_of_new_patients() -> None:
    noise = np.random.Generator(np.random.PCG64(2))
    inside = []
    for _ in range(40):
        inputs = noise.normal(size=(300, 3))
        truth = np.clip(inputs @ [0.5, 0.3, 0.0] + 3 + noise.normal(0, 0.5, 300), 0, 6)
        table = ScoreTable((), np.stack([truth, truth], 1)[:60], tuple(map(str, range(60))), grouped=True)
        head = fit_head(inputs[:60], table, labels=None).head
        residuals = truth[60:] - (inputs[60:] @ head.weight[0] + head.constant[0])
        interval = head.intervals[0]
        inside.append(np.mean((residuals >= -interval.below) & (residuals <= interval.above)))
    # Between the ranks 6 and 55 of 60 residuals lie 49/61 = 0.803 of new ones in the mean; over one table this
    # varies by about 0.06 (beta distribution), so the mean of 40 tables by 0.01.
    assert np.mean(inside) == pytest.approx(0.8, abs=0.03)


def test_an_untrained_output_is_not_read(classify: Classify) -> None:
    with pytest.raises(ExportError, match="not trained on 'Lung Opacity'"):
        input_labels("four", classify("densenet121-res224-nih"))
    assert len(input_labels("eighteen", classify("densenet121-res224-nih")) or ()) == 14


def _change(**changes: object) -> Callable[[list[dict[str, object]]], None]:
    return lambda rows: rows[3].update(changes)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_change(image="none.png"), "row 5: no such picture"),
        (_change(image="../3.png"), "row 5: no such picture"),
        (_change(image=""), "row 5: no such picture"),
        (_change(image="2.png"), "row 5: this picture stands there before"),
        (_change(geographic_mean=8.5), "row 5: geographic_mean must be a number from 0 to 8"),
        (_change(opacity_mean=6.01), "row 5: opacity_mean must be a number from 0 to 6"),
        (_change(opacity_mean=-1), "row 5: opacity_mean"),
        (_change(opacity_mean="nan"), "row 5: opacity_mean"),
        (_change(geographic_mean=""), "row 5: geographic_mean"),
        (_change(geographic_mean="six"), "row 5: geographic_mean"),
        (lambda rows: rows[0].update(extra=1), None),
        (lambda rows: [row.pop("opacity_mean") for row in rows], "no column 'opacity_mean'"),
        (lambda rows: [row.pop("image") for row in rows], "no column 'image'"),
    ],
)
def test_a_bad_table_is_told_by_its_row(
    change: Callable[[list[dict[str, object]]], None], complaint: str | None, folder: Path, tmp_path: Path
) -> None:
    rows = _rows()
    change(rows)
    path = _write_table(tmp_path / "scores.csv", rows)
    if complaint is None:
        assert len(read_scores(path, folder).images) == COUNT
        return
    with pytest.raises(ExportError, match=complaint) as caught:
        read_scores(path, folder)
    assert ".png" not in str(caught.value)


def test_an_empty_or_unreadable_table_is_told(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    with pytest.raises(ExportError, match="can't be read"):
        read_scores(path, folder)
    path.write_text("")
    with pytest.raises(ExportError, match="no column 'image'"):
        read_scores(path, folder)
    path.write_text(",".join(("image", *COLUMNS)) + "\n")
    with pytest.raises(ExportError, match="no rows"):
        read_scores(path, folder)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ExportError, match="can't be read"):
        read_scores(path, folder)


def test_a_broken_picture_is_told_by_its_row(classify: Classify, folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "patient-name.png"
    broken.write_bytes((folder / "0.png").read_bytes()[:200])
    with pytest.raises(ExportError, match="row 3: ") as caught:
        measure_inputs(classify(), (folder / "0.png", broken), input_rule(classify()), labels=None)
    assert "patient-name" not in str(caught.value)


def test_too_few_patients_are_told() -> None:
    inputs: npt.NDArray[np.float64] = np.zeros((20, 1))
    table = ScoreTable((), np.zeros((20, 2)), ("a", "b") * 10, grouped=True)
    with pytest.raises(ExportError, match="2 patients; a fit needs at least 10"):
        fit_head(inputs, table, labels=None)
