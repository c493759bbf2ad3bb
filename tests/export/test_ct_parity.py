"""What is compared, when PyTorch and an engine segment the same slices, and what is let through."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import numpy_helper

from bedside.backends import open_backend
from bedside.bundle import Bundle
from bedside.verification import verify_golden
from bedside_export.ct_models import L3UNet, TissueNetwork, build_network
from bedside_export.ct_opacity import Request, draft_ct, export_ct, write_ct_bundle
from bedside_export.ct_parity import Reference, ask_reference, check_tissues
from bedside_export.ct_rules import INPUT_NAME, RULES, TISSUES, input_rule
from bedside_export.errors import ExportError, ParityError
from bedside_export.parity import ENGINES
from ct_networks import Plain, Pooled

Floats = npt.NDArray[np.float32]
REQUEST = Request(
    "ct_networks:build", "random:0", TISSUES["l3-groups"], RULES["l3-unet"], (96, 128), multiple=16
)


@pytest.fixture(scope="module")
def plain() -> TissueNetwork:
    return TissueNetwork(Plain(1, 5).requires_grad_(False))


@pytest.fixture(scope="module")
def bundle(plain: TissueNetwork, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("ct") / "bundle"
    found = build_network(REQUEST.arch, channels=1, classes=5, multiple=16)
    spec = input_rule(REQUEST.window, channels=1, tile=None, spacing_mm=(2.8, 2.8))
    write_ct_bundle(draft_ct(replace(REQUEST, spacing_mm=(2.8, 2.8)), found, spec), plain, out=out)
    return Bundle.open(out)


def test_the_written_bundle_says_what_was_asked_for(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert (manifest.task, manifest.name) == ("ct-opacity", "ct-opacity-ct-networks-build-random")
    assert manifest.tissues == TISSUES["l3-groups"]
    assert manifest.input.shape == (None, 1, None, None)
    assert manifest.input.hu_window == (-1000.0, 50.0)
    # (HU + 653.2204) / 628.5188, the published rule, at either end of the window
    assert (manifest.input.low, manifest.input.high) == pytest.approx((-0.551741, 1.118854), abs=1e-6)
    tiling = manifest.tiling
    assert tiling is not None
    assert (tiling.size, tiling.multiple, tiling.smallest) == ((96, 128), 16, 32)
    assert manifest.tolerances == {
        "fp32": {"dice_loss": 0.001, "volume_percent": 0.05},
        "bf16": {"dice_loss": 0.005, "volume_percent": 0.5},
        "fp16": {"dice_loss": 0.005, "volume_percent": 0.5},
    }
    card = bundle.read("MODEL_CARD.md").decode()
    assert "Not for clinical use" in card
    assert "the weights are random" in card
    assert "| 4 | consolidation | yes | yes |  |" in card


def test_the_report_tells_every_tissue_on_every_engine(bundle: Bundle) -> None:
    report = json.loads(bundle.read("parity.json"))
    assert report["schema"] == "bedside.parity/1"
    assert report["reference"].startswith("torch ")
    assert [(engine["backend"], engine["precision"]) for engine in report["engines"]] == list(ENGINES)
    first = report["engines"][0]
    assert (first["status"], first["reason"]) == ("passed", "")
    assert list(first["tissues"]) == [tissue.name for tissue in TISSUES["l3-groups"]]
    voxel_ml = 2.8 * 2.8 * 5 / 1000
    for gap in first["tissues"].values():
        assert gap["limit"] == 0.001
        assert gap["ml"] == pytest.approx(gap["voxels"] * voxel_ml, rel=0.01)
        assert gap["dice_loss"] <= gap["limit"]
    assert first["volume_percent"] <= first["volume_limit"] == 0.05
    assert first["opacity_ml"] > 0
    assert first["probability"] < 1e-4
    assert first["probability_other_size"] < 1e-4
    for engine in report["engines"]:
        assert engine["status"] in ("passed", "failed", "not-run")
        assert (engine["status"] == "passed") == (not engine["reason"])


def test_the_runtime_verifies_what_was_written(bundle: Bundle) -> None:
    engine = open_backend("onnxruntime", bundle)
    verdict = verify_golden(bundle, engine)
    engine.close()
    assert verdict.passed
    assert verdict.images == 4
    assert len(verdict.agreements) >= 4


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("size", [(32, 32), (96, 128), (176, 48)])
def test_every_size_of_tile_is_answered_as_pytorch_does(
    size: tuple[int, int], backend: str, bundle: Bundle, plain: TissueNetwork
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    image = np.random.Generator(np.random.PCG64(0)).normal(0, 1, (1, 1, *size)).astype(np.float32)
    engine = open_backend(backend, bundle)
    answer = engine.run({INPUT_NAME: image})["tissues"]
    engine.close()
    np.testing.assert_allclose(answer, plain(torch.from_numpy(image)).numpy(), atol=1e-5)


def test_upsampling_with_aligned_corners_is_right_at_every_size(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    torch.manual_seed(4)
    network = TissueNetwork(L3UNet(1, 5, width=4).requires_grad_(False))
    found = build_network("l3-unet2d", channels=1, classes=5)
    request = replace(REQUEST, arch="l3-unet2d", tile=(96, 64))
    draft = draft_ct(request, found, input_rule(request.window, channels=1, tile=None, spacing_mm=None))
    write_ct_bundle(draft, network, out=tmp_path / "unet")
    for backend in ("onnxruntime", "openvino"):
        engine = open_backend(backend, Bundle.open(tmp_path / "unet"))
        for size in ((96, 64), (32, 48), (64, 160)):
            image = torch.randn(1, 1, *size)
            answer = engine.run({INPUT_NAME: image.numpy()})["tissues"]
            np.testing.assert_allclose(answer, network(image).numpy(), atol=1e-5)
        engine.close()


@pytest.mark.parametrize("side", [48, 50])  # of which 48 parts into 1, 2, 3 and 6 bins, and 50 does not
def test_pooling_to_bins_is_right_at_every_size_that_is_exported(side: int, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    network = TissueNetwork(Pooled(1, 5).requires_grad_(False))
    spec = input_rule(REQUEST.window, channels=1, tile=(side, side), spacing_mm=None)
    found = replace(build_network("l3-unet2d", channels=1, classes=5), multiple=2)
    request = replace(REQUEST, tile=(side, side))
    write_ct_bundle(draft_ct(request, found, spec), network, out=tmp_path / "pooled")
    bundle = Bundle.open(tmp_path / "pooled")
    image = torch.randn(2, 1, side, side)
    for backend in ("onnxruntime", "openvino"):
        engine = open_backend(backend, bundle)
        answer = engine.run({INPUT_NAME: image.numpy()})["tissues"]
        engine.close()
        np.testing.assert_allclose(answer, network(image).numpy(), atol=1e-5)


def _with(model: bytes, name: str, change: Callable[[Floats], Floats]) -> bytes:
    """The model with one initializer changed."""
    loaded = onnx.ModelProto.FromString(model)
    (found,) = (tensor for tensor in loaded.graph.initializer if tensor.name.endswith(name))
    found.CopyFrom(
        numpy_helper.from_array(np.ascontiguousarray(change(numpy_helper.to_array(found))), found.name)
    )
    return bytes(loaded.SerializeToString())


def test_an_engine_that_answers_otherwise_leaves_no_bundle(
    bundle: Bundle, plain: TissueNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt = _with(
        bundle.read("model.onnx"), "last.bias", lambda bias: np.asarray(bias + np.arange(5) / 10, np.float32)
    )
    monkeypatch.setattr("bedside_export.ct_opacity.to_onnx", lambda *_, **__: spoilt)
    with pytest.raises(ParityError) as caught:
        export_ct_of(plain, tmp_path / "bundle")
    told = str(caught.value)
    assert told.startswith("onnxruntime fp32 does not answer as PyTorch does (Dice loss of ")
    assert "where 0.001 is allowed" in told
    assert "the opacity volume is off by" in told
    assert list(tmp_path.iterdir()) == []


def export_ct_of(network: TissueNetwork, out: Path) -> None:
    found = build_network("l3-unet2d", channels=1, classes=5)
    spec = input_rule(REQUEST.window, channels=1, tile=None, spacing_mm=(2.8, 2.8))
    write_ct_bundle(draft_ct(replace(REQUEST, spacing_mm=(2.8, 2.8)), found, spec), network, out=out)


def test_only_the_reference_engine_has_to_pass(bundle: Bundle, plain: TissueNetwork) -> None:
    images = np.random.Generator(np.random.PCG64(0)).normal(0, 1, (1, 1, 96, 128)).astype(np.float32)
    reference = ask_reference(plain, images, voxel_ml=0.01)
    report = check_tissues(bundle, replace(reference, probabilities=reference.probabilities[:, ::-1].copy()))
    assert report.engines[0].status == "failed"
    assert "Dice loss of" in report.engines[0].reason
    with pytest.raises(ParityError):
        report.require()
    first, *others = report.engines
    replace(report, engines=(replace(first, status="passed"), *others)).require()


def test_an_absent_tissue_and_few_voxels_are_noted(bundle: Bundle) -> None:
    probabilities = np.zeros((1, 5, 96, 128), np.float32)
    probabilities[:, 0] = 1
    probabilities[0, :, :2, :100] = np.eye(5, dtype=np.float32)[2][:, None, None]
    images = np.zeros((1, 1, 96, 128), np.float32)
    (first, *_) = check_tissues(bundle, Reference(images, probabilities, None, None, 0.01)).engines
    names = [tissue.name for tissue in TISSUES["l3-groups"]]
    assert first.tissues[names[2]].note == "few voxels"
    assert first.tissues[names[2]].dice_loss == 0.1  # 200 voxels of twice 1000
    assert any(gap.note == "absent" and gap.dice_loss == 0 for gap in first.tissues.values())


@pytest.mark.parametrize(
    ("arch", "tile", "complaint"),
    [
        (
            "ct_networks:build",
            (96, 100),
            "a tile of side 100 does not fit ct_networks:build: sides must be multiples",
        ),
        ("ct_networks:build", (16, 96), "at least 32; take e.g. 32 or 48"),
        ("l3-unet2d", (500, 512), "multiples of 16, at least 32; take e.g. 496 or 512"),
        ("ct_networks:build_broken", (96, 96), "NaN or infinity on the phantom"),
    ],
)
@pytest.mark.usefixtures("unsettled")
def test_what_cannot_be_exported_is_told(
    arch: str, tile: tuple[int, int], complaint: str, tmp_path: Path
) -> None:
    multiple = None if arch == "l3-unet2d" else 16
    request = replace(REQUEST, arch=arch, tile=tile, multiple=multiple)
    with pytest.raises(ExportError) as caught:
        export_ct(request, out=tmp_path / "bundle")
    assert complaint in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def unsettled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights stay as they are: settling the large network takes seconds."""
    monkeypatch.setattr("bedside_export.ct_opacity.settle", lambda *_: None)


def test_neighbouring_slices_go_in_as_channels(tmp_path: Path) -> None:
    request = replace(REQUEST, context=1, context_mm=2.5, tile=(64, 64))
    parity = export_ct(request, out=tmp_path / "bundle")
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert manifest.input.shape == (None, 3, None, None)
    assert manifest.tiling is not None
    assert (manifest.tiling.context, manifest.tiling.context_mm) == (1, 2.5)
    assert parity.engines[0].status == "passed"


def test_what_skipping_by_the_body_costs_stands_in_the_report(tmp_path: Path) -> None:
    request = replace(REQUEST, skip="body", tile=(64, 64), spacing_mm=(1.4, 1.4))
    parity = export_ct(request, out=tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    written = json.loads(bundle.read("parity.json"))["skip"]
    assert written == parity.skip
    assert bundle.manifest.tiling is not None
    assert bundle.manifest.tiling.skip == "body"
    assert 0 < written["tiles_left_out"] < written["tiles"]
    assert set(written["tissues"]) == {tissue.name for tissue in TISSUES["l3-groups"]}
    assert all(math.isfinite(each["ml_difference"]) for each in written["tissues"].values())
    assert 0 <= max(each["dice_loss"] for each in written["tissues"].values()) < 1
