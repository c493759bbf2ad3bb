"""The built-in bundle's recipe: a network and what was measured of it become a bundle that says just that."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bedside.backends import open_backend
from bedside.bundle import Bundle
from bedside.contract import APPEARANCES
from bedside.golden import load_golden
from bedside_export.recipes.cxr.bundle import build_bundle, draft_bundle
from bedside_export.recipes.cxr.network import SeverityNetwork
from bedside_export.recipes.cxr.quality.engines import compare_decisions
from bedside_export.recipes.cxr.quality.network import QualityNetwork


def measured() -> dict[str, Any]:
    agreement = {
        f"{name}_{kind}": value
        for name, value in (("mae", 1.25), ("mae_of_training_mean", 2.5), ("r2", 0.5), ("correlation", 0.75))
        for kind in ("mean", "sd")
    }
    intervals = [
        {"level": level, "offset": offset, "pictures": 20, "coverage": level + 0.01, "mean_width": 2 * offset}
        for level, offset in ((0.8, 1.5), (0.9, 2.5))
    ]
    return {
        "seeds": [0, 1],
        "protocol": "A protocol of a test.",
        "summary": {"extent": agreement, "opacity": agreement},
        "intervals": {
            "method": "A method of a test.",
            "levels": [0.8, 0.9],
            "splits": 2,
            "extent": intervals,
            "opacity": intervals,
            "views": {},
            "notes": {},
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


def write_measured(folder: Path) -> None:
    metrics = measured()
    (folder / "intervals.json").write_text(json.dumps(metrics.pop("intervals")), encoding="utf-8")
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")


def test_intervals_and_card_say_what_was_measured() -> None:
    draft = draft_bundle(measured(), "9.9.9")
    for score in draft.scores:
        first, (further,) = score.interval, score.further
        assert (first.below, first.above, first.level) == (1.5, 1.5, 0.8)
        assert (further.below, further.above, further.level) == (2.5, 2.5, 0.9)
        assert "20 pictures" in first.method
        assert "81%" in first.method
        assert score.repeatability is None
    for figure in (
        "9.9.9",
        "1.25 ± 1.25",
        "A protocol of a test.",
        "| AP | 3 | 1.00 | -0.50 |",
        "± 1.50",
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
    write_measured(tmp_path)
    parity = build_bundle(tmp_path, tmp_path / "bundle")
    passed = {(report.backend, report.precision) for report in parity.engines if report.status == "passed"}
    assert passed >= {("onnxruntime", "fp32"), ("openvino", "fp32")}
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert manifest.input.crop == "pad-square"
    assert [output.meaning for output in manifest.outputs] == ["severity", "activation-map", "lungs"]


def refused() -> dict[str, Any]:
    """What the quality network's recipe measures, as far as the bundle tells it."""
    return {
        "protocol": "Another protocol of a test.",
        "thresholds": {"frontal_probability_min": 0.25, "frontal_probability_sure": 0.75},
        "false_refusals": {"frontal": {"pictures": 500, "refused": 0.0125}},
        "others": {"refused": 0.995, "mean_of_kinds": 0.985},
        "kinds": {"photographs": {"pictures": 70, "refused": 0.9875, "named_rightly": 0.75}},
        "sources": [{"what": "photographs", "source": "a package", "licence": "CC0"}],
    }


def test_measured_refusals_stand_in_thresholds_and_card() -> None:
    draft = draft_bundle({**measured(), "quality": refused()}, "1.0.0")
    assert draft.thresholds["frontal_probability_min"] == 0.25
    assert draft.thresholds["lung_area_min"] > 0
    appearance = draft.outputs[-1]
    assert (appearance.meaning, appearance.labels) == ("appearance", APPEARANCES)
    for figure in ("## Refusal", "| frontal | 500 | 1.25% |", "| photographs | 70 | 98.75% | 75.0% |", "CC0"):
        assert figure in draft.card
    plain = draft_bundle(measured(), "1.0.0")
    assert "## Refusal" not in plain.card
    assert not {name for name in plain.thresholds if name.startswith("frontal")}


def test_quality_network_joins_the_graph_and_changes_no_score(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, quality = SeverityNetwork(), QualityNetwork()
    torch.nn.init.normal_(network.head.linear.weight, std=0.02)
    torch.save(network.state_dict(), tmp_path / "network.pt")
    write_measured(tmp_path)
    build_bundle(tmp_path, tmp_path / "alone")
    torch.save(quality.state_dict(), tmp_path / "quality.pt")
    (tmp_path / "quality-metrics.json").write_text(json.dumps(refused()), encoding="utf-8")
    build_bundle(tmp_path, tmp_path / "both")
    alone, both = (Bundle.open(tmp_path / name) for name in ("alone", "both"))
    assert [output.meaning for output in both.manifest.outputs][-1] == "appearance"
    golden = load_golden(both)
    np.testing.assert_array_equal(golden.severity, load_golden(alone).severity)
    with closing(open_backend("onnxruntime", both)) as engine:
        appearance = engine.run({"image": golden.images})["appearance"]
    assert appearance.shape == (len(golden.images), len(APPEARANCES))
    np.testing.assert_allclose(appearance.sum(axis=1), 1, atol=1e-5)
    (decisions, *_) = compare_decisions(both, [image[None] for image in golden.images[:2]])
    assert (decisions.pictures, decisions.otherwise, decisions.largest) == (2, 0, 0.0)
