"""The built-in bundle's recipe: a network and what was measured of it become a bundle that says just that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bedside.bundle import Bundle
from bedside_export.recipes.cxr_bundle import build_bundle, draft_bundle
from bedside_export.recipes.cxr_network import SeverityNetwork


def measured() -> dict[str, Any]:
    agreement = {
        f"{name}_{kind}": value
        for name, value in (("mae", 1.25), ("mae_of_training_mean", 2.5), ("r2", 0.5), ("correlation", 0.75))
        for kind in ("mean", "sd")
    }
    offsets = {"residuals": 30, "pictures": 20, "measured_coverage": 0.83}
    return {
        "seeds": [0, 1],
        "protocol": "A protocol of a test.",
        "summary": {"extent": agreement, "opacity": agreement},
        "interval": {
            "level": 0.8,
            "method": "A method of a test.",
            "extent": {"lower": -1.5, "upper": 2.5, **offsets},
            "opacity": {"lower": 0.25, "upper": 0.5, **offsets, "measured_coverage": 0.81},
        },
        "brixia_by_view": {"AP": {"pictures": 3, "mae": 1.0, "bias": -0.5}},
        "brixia_rule": "a rule of a test",
        "data": {
            "pictures": 40,
            "patients": 25,
            "severity_scored": {"pictures": 20, "patients": 15, "views": ["PA"]},
            "brixia_scored": {"pictures": 10, "ap_or_supine": 3},
            "sources": [{"what": "pictures", "source": "a test", "licence": "none"}],
        },
    }


def test_intervals_and_card_say_what_was_measured() -> None:
    draft = draft_bundle(measured(), "9.9.9")
    extent, opacity = (score.interval for score in draft.scores)
    assert (extent.below, extent.above, extent.level) == (1.5, 2.5, 0.8)
    assert (opacity.below, opacity.above) == (0.0, 0.5)  # an end on the wrong side of the score is the score
    assert "20 pictures" in extent.method
    assert "81%" in extent.method
    for figure in (
        "9.9.9",
        "1.25 ± 1.25",
        "A protocol of a test.",
        "| AP | 3 | 1.00 | -0.50 |",
        "-1.50 to +2.50",
    ):
        assert figure in draft.card
    assert "**Not for clinical use.**" in draft.card
    assert not draft.licence.commercial_use


def test_trained_network_becomes_a_bundle_that_every_fp32_engine_passes(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO once answered wrongly on batches of this graph")
    torch.manual_seed(0)
    network = SeverityNetwork()
    torch.nn.init.normal_(network.head.linear.weight, std=0.02)
    torch.save(network.state_dict(), tmp_path / "network.pt")
    (tmp_path / "metrics.json").write_text(json.dumps(measured()), encoding="utf-8")
    parity = build_bundle(tmp_path, tmp_path / "bundle")
    passed = {(report.backend, report.precision) for report in parity.engines if report.status == "passed"}
    assert passed >= {("onnxruntime", "fp32"), ("openvino", "fp32")}
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert manifest.input.crop == "pad-square"
    assert [output.meaning for output in manifest.outputs] == ["severity", "activation-map", "lungs"]
