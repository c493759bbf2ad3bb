"""A recipe's bundle beside the one that ships: the same, or what moved and by how much."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bedside.bundle import Bundle
from bedside_export.draft import METRICS_FILE
from bedside_export.recipes.cxr.bundle import draft_bundle
from bedside_export.recipes.reproduction import Move, reproduce, to_text
from bedside_export.writer import Draft, write_bundle
from test_recipe_bundle import measured


class Line(nn.Module):
    """The mean of a picture, scaled."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([[slope, 1.0]]))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = image.mean((2, 3))
        return mean * self.slope, image * self.slope[:, :, None, None], image.clamp(0.1, 0.9)


def write(folder: Path, draft: Draft, slope: float) -> Bundle:
    images = np.linspace(0, 1, 2 * 320 * 320, dtype=np.float32).reshape(2, 1, 320, 320)
    write_bundle(draft, Line(slope), images, out=folder)
    return Bundle.open(folder)


@pytest.fixture(scope="module")
def draft() -> Draft:
    return draft_bundle(measured(), "9.9.9")


def test_the_same_weights_and_figures_are_the_same_bundle(draft: Draft, tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, draft, 2.0) for name in ("a", "b"))
    found = reproduce(first, second)
    assert (found.files, found.moves, found.answers) == ((), (), {})
    assert found.describe() == [f"the same bundle as ships, byte for byte: {first.digest[:12]}"]


def test_other_weights_are_told_by_what_they_answer_to_the_golden_inputs(
    draft: Draft, tmp_path: Path
) -> None:
    made, shipped = write(tmp_path / "made", draft, 2.5), write(tmp_path / "shipped", draft, 2.0)
    found = reproduce(made, shipped)
    assert set(found.files) == {"golden-outputs.npz", "model.onnx", "parity.json"}
    assert found.moves == ()
    mean = 0.75  # of the brighter of the two pictures
    assert found.answers["severity"] == pytest.approx(0.5 * mean, rel=1e-3)
    assert found.answers["lungs"] == 0
    assert "no figure of the summary moved" in found.describe()


def test_figures_that_moved_are_told_and_others_are_not(draft: Draft, tmp_path: Path) -> None:
    moved = measured()
    moved["summary"] = {**moved["summary"], "extent": {**moved["summary"]["extent"], "mae_mean": 1.5}}
    shipped = write(tmp_path / "shipped", draft, 2.0)
    found = reproduce(write(tmp_path / "made", draft_bundle(moved, "9.9.9"), 2.0), shipped)
    assert found.moves == (Move("summary.extent.mae_mean", 1.25, 1.5),)
    assert found.moves[0].describe() == "summary.extent.mae_mean: 1.25 -> 1.5 (+0.25)"
    assert METRICS_FILE in found.files


def test_how_long_a_run_took_is_not_kept() -> None:
    kept = json.loads(
        to_text({"seconds": 3.5, "splits": [{"seed": 0, "seconds": 1}], "summary": {"mae": 1.0}})
    )
    assert kept == {"splits": [{"seed": 0}], "summary": {"mae": 1.0}}
