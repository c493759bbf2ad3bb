"""The report of the chest X-ray recipe: predictions, and how they agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from bedside_export.recipes.cxr import report


class TestReport:
    PREDICTIONS = tuple(
        report.Prediction(s, f"{i}.jpg", "PA", i + 0.5 * s, i / 2, float(i), i / 2, 2.0 * i)
        for s in range(2)
        for i in range(8)
    )

    def test_predictions_survive_the_file(self, tmp_path: Path) -> None:
        rows = [*self.PREDICTIONS, report.Prediction(0, "n.jpg", "AP", 1, 1, None, None, 3.0)]
        report.write_predictions(tmp_path / "p.csv", rows)
        assert report.read_predictions(tmp_path / "p.csv") == rows

    def test_agreement_of_a_constant_offset(self) -> None:
        second = [p for p in self.PREDICTIONS if p.seed == 1]
        measured = report.agreement(second, (3.5, 1.75))
        assert measured["extent"]["mae"] == pytest.approx(0.5)
        assert measured["extent"]["mae_of_training_mean"] == pytest.approx(2.0)
        assert measured["opacity"]["r2"] == pytest.approx(1.0)
