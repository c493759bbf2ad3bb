from __future__ import annotations

import errno
import io
import json
import os
import re
import stat
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import numpy_helper

from bedside.backends import Backend, open_backend
from bedside.bundle import Bundle
from bedside.errors import BackendError, OutputError
from bedside.verification import verify_golden
from bedside_export import parity
from bedside_export.errors import ExportError, ParityError
from bedside_export.heads import published_head
from bedside_export.models import Classifier, SeverityDenseNet
from bedside_export.onnx import OPSET, to_onnx
from bedside_export.parity import Answers, answer
from bedside_export.severity import Naming, draft_severity
from bedside_export.writer import Draft, assemble_bundle, write_bundle

Pictures = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def draft(classify: Callable[..., Classifier]) -> Draft:
    return draft_severity(classify(), published_head(), Naming(version="0.1.0"))


@pytest.fixture(scope="module")
def network(classify: Callable[..., Classifier]) -> SeverityDenseNet:
    return SeverityDenseNet(classify(), published_head())


@pytest.fixture(scope="module")
def model(draft: Draft, network: SeverityDenseNet) -> bytes:
    return to_onnx(network, draft.input, ("severity", "cam", "pathologies"))


@pytest.fixture(scope="module")
def golden(network: SeverityDenseNet, pictures: Pictures) -> tuple[Pictures, Answers]:
    return pictures, answer(network, pictures, ("severity", "cam", "pathologies"))


class Parts(NamedTuple):
    """What `assemble_bundle` takes."""

    draft: Draft
    model: bytes
    golden: tuple[Pictures, Answers]


@pytest.fixture(scope="module")
def parts(draft: Draft, model: bytes, golden: tuple[Pictures, Answers]) -> Parts:
    return Parts(draft, model, golden)


@pytest.fixture(scope="module")
def bundle(
    draft: Draft, network: SeverityDenseNet, pictures: Pictures, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """A bundle written from the network in one go."""
    out = tmp_path_factory.mktemp("written") / "bundle"
    write_bundle(draft, network, pictures, out=out)
    return Bundle.open(out)


def _with_initializer(model: bytes, name: str, change: Callable[[Pictures], Pictures]) -> bytes:
    """The model with one initializer changed."""
    loaded = onnx.ModelProto.FromString(model)
    (found,) = (tensor for tensor in loaded.graph.initializer if tensor.name == name)
    changed = np.ascontiguousarray(change(numpy_helper.to_array(found)), np.float32)
    found.CopyFrom(numpy_helper.from_array(changed, found.name))
    return bytes(loaded.SerializeToString())


def test_a_written_bundle_opens_and_says_what_its_draft_said(bundle: Bundle, draft: Draft) -> None:
    manifest = bundle.manifest
    assert (manifest.name, manifest.version) == ("cxr-severity-random", "0.1.0")
    assert manifest.input.shape == (None, 1, 64, 64)
    assert (manifest.input.low, manifest.input.high, manifest.input.crop) == (-1024, 1024, "centre-square")
    assert [(output.name, output.meaning) for output in manifest.outputs] == [
        ("severity", "severity"),
        ("cam", "activation-map"),
        ("pathologies", "pathologies"),
    ]
    assert manifest.scores == draft.scores
    assert manifest.tolerances["fp32"] == {"extent": 0.01, "opacity": 0.01}
    assert "not for clinical use" in bundle.read("MODEL_CARD.md").decode().lower()
    assert "Apache License" in bundle.read("LICENSE.txt").decode()


def test_the_runtime_verifies_a_written_bundle(bundle: Bundle) -> None:
    engine = open_backend("onnxruntime", bundle)
    verdict = verify_golden(bundle, engine)
    engine.close()
    assert verdict.passed
    assert verdict.images == 6


def test_the_bundle_holds_pytorchs_answers(bundle: Bundle, golden: tuple[Pictures, Answers]) -> None:
    stored = np.load(io.BytesIO(bundle.read("golden-outputs.npz")))
    np.testing.assert_array_equal(np.load(io.BytesIO(bundle.read("golden-inputs.npy"))), golden[0])
    assert set(stored) == {"severity", "cam", "pathologies"}
    for name, values in golden[1].items():
        np.testing.assert_array_equal(stored[name], values)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_number_of_pictures_can_be_run_at_once(
    count: int, bundle: Bundle, golden: tuple[Pictures, Answers]
) -> None:
    engine = open_backend("onnxruntime", bundle)
    answers = engine.run({"image": golden[0][:count]})
    engine.close()
    for name, values in golden[1].items():
        np.testing.assert_allclose(answers[name], values[:count], atol=1e-4)


def test_the_report_tells_every_engine_and_its_differences(bundle: Bundle) -> None:
    report = json.loads(bundle.read("parity.json"))
    assert report["schema"] == "bedside.parity/1"
    assert report["images"] == 6
    assert report["reference"].startswith("torch ")
    assert [(engine["backend"], engine["precision"]) for engine in report["engines"]] == list(parity.ENGINES)
    reference = report["engines"][0]
    assert reference["status"] == "passed"
    assert reference["version"]
    assert reference["scores"].keys() == {"extent", "opacity"}
    assert reference["outputs"].keys() == {"cam", "pathologies"}
    for engine in report["engines"]:
        for gap in (engine["scores"] | engine["outputs"]).values():
            assert 0 <= gap["p99"] <= gap["max"]
            assert gap["limit"] > 0
        assert engine["reason"] or engine["scores"]


def test_the_onnx_file_says_nothing_of_the_machine(model: bytes) -> None:
    loaded = onnx.ModelProto.FromString(model)
    onnx.checker.check_model(loaded, full_check=True)
    assert [(opset.domain, opset.version) for opset in loaded.opset_import] == [("", OPSET)]
    for tensor in loaded.graph.initializer:
        tensor.ClearField("raw_data")  # numbers can spell anything
    text = str(loaded)
    assert not re.search(r"metadata_props|doc_string|stack_trace|\.py\b|site-packages", text)
    assert str(Path(torch.__file__).parents[1]) not in text
    assert str(Path(__file__).parents[2]) not in text
    assert not any(
        re.search(r"/\w+/", name) for node in loaded.graph.node for name in (node.name, *node.output)
    )


def test_the_same_network_gives_the_same_bundle(
    bundle: Bundle, draft: Draft, network: SeverityDenseNet, pictures: Pictures, tmp_path: Path
) -> None:
    write_bundle(draft, network, pictures, out=tmp_path / "again")
    assert Bundle.open(tmp_path / "again").digest == bundle.digest


def test_a_zip_and_a_folder_are_the_same_bundle_and_a_zip_the_same_bytes(
    bundle: Bundle, parts: Parts, tmp_path: Path
) -> None:
    packed = [tmp_path / "one.zip", tmp_path / "two.zip"]
    for out in packed:
        assemble_bundle(*parts, out=out)
    assert packed[0].read_bytes() == packed[1].read_bytes()
    assert Bundle.open(packed[0]).digest == bundle.digest
    with zipfile.ZipFile(packed[0]) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("suffix", ["", ".zip"])
@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        (
            "severity.bias",
            lambda bias: bias + np.float32(0.02),
            "extent is off by 0.02 where 0.01 is allowed",
        ),
        ("severity.bias", lambda bias: bias + np.array([0, 0.5], np.float32), "opacity is off by 0.5"),
        ("logits.bias", lambda bias: bias + np.float32(0.3), "pathologies is off by"),
        ("severity.bias", lambda bias: bias * np.float32("nan"), "severity holds NaN"),
    ],
    ids=["extent", "opacity", "pathologies", "nan"],
)
def test_a_sabotaged_model_is_refused_and_leaves_nothing(
    name: str,
    change: Callable[[Pictures], Pictures],
    complaint: str,
    suffix: str,
    parts: Parts,
    tmp_path: Path,
) -> None:
    with pytest.raises(ParityError, match=complaint):
        assemble_bundle(
            *parts._replace(model=_with_initializer(parts.model, name, change)),
            out=tmp_path / f"bundle{suffix}",
        )
    assert list(tmp_path.iterdir()) == []


def test_a_difference_within_the_tolerance_passes(parts: Parts, tmp_path: Path) -> None:
    nudged = _with_initializer(parts.model, "severity.bias", lambda bias: bias + np.float32(0.009))
    report = assemble_bundle(*parts._replace(model=nudged), out=tmp_path / "bundle")
    assert report.engines[0].scores["extent"].max == pytest.approx(0.009, abs=1e-4)


def test_a_sabotaged_activation_map_is_refused(parts: Parts, tmp_path: Path) -> None:
    images, reference = parts.golden
    shifted = reference | {"cam": np.roll(reference["cam"], 1, axis=3)}
    assert np.abs(shifted["cam"] - reference["cam"]).max() > 0.02 * np.abs(reference["cam"]).max()
    with pytest.raises(ParityError, match="cam is off by"):
        assemble_bundle(*parts._replace(golden=(images, shifted)), out=tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_answers_nan_is_refused(
    draft: Draft, classify: Callable[..., Classifier], pictures: Pictures, tmp_path: Path
) -> None:
    network = SeverityDenseNet(classify(), published_head())
    with torch.no_grad():
        network.severity.bias[1] = float("nan")
    with pytest.raises(ExportError, match="'severity' holds NaN"):
        write_bundle(draft, network, pictures, out=tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


class _Disagrees:
    """An engine that is half a unit off."""

    def __init__(self, engine: Backend) -> None:
        self.engine = engine
        self.info = engine.info

    def run(self, inputs: Mapping[str, Pictures]) -> Answers:
        return {name: values + np.float32(0.5) for name, values in self.engine.run(inputs).items()}

    def close(self) -> None:
        self.engine.close()


def test_a_half_precision_that_disagrees_is_recorded_and_does_not_refuse_the_bundle(
    parts: Parts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def open_some(name: str, bundle: Bundle, *, precision: str) -> Backend:
        if name == "onnxruntime":
            return open_backend(name, bundle, precision=precision)
        if precision == "fp32":
            raise BackendError("engine-unsupported", "no such arithmetic here")
        return _Disagrees(open_backend("onnxruntime", bundle))

    monkeypatch.setattr(parity, "open_backend", open_some)
    assemble_bundle(*parts, out=tmp_path / "bundle")
    engines = json.loads(Bundle.open(tmp_path / "bundle").read("parity.json"))["engines"]
    assert [engine["status"] for engine in engines] == ["passed", "not-run", "failed", "failed"]
    assert engines[1]["reason"] == "no such arithmetic here"
    assert [engine["precision"] for engine in engines[2:]] == ["bf16", "fp16"]
    for engine in engines[2:]:
        assert engine["scores"]["extent"] == {"max": 0.5, "p99": 0.5, "limit": 0.1}


def test_an_fp32_engine_that_breaks_refuses_the_bundle(
    parts: Parts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> Backend:
        raise BackendError("engine-failed", "it broke")

    monkeypatch.setattr(parity, "open_backend", refuse)
    with pytest.raises(ParityError, match=r"onnxruntime fp32 does not answer as PyTorch does \(it broke\)"):
        assemble_bundle(*parts, out=tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_replaced_only_when_told(bundle: Bundle, parts: Parts, tmp_path: Path) -> None:
    for out in (tmp_path / "bundle", tmp_path / "bundle.zip"):
        assemble_bundle(*parts._replace(draft=replace(parts.draft, version="9")), out=out)
        with pytest.raises(OutputError, match="--force"):
            assemble_bundle(*parts, out=out)
        assert Bundle.open(out).manifest.version == "9"
        assemble_bundle(*parts, out=out, force=True)
        assert Bundle.open(out).digest == bundle.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "bundle.zip"]


def test_force_replaces_nothing_but_a_bundle(parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    (tmp_path / "link").symlink_to("thesis")
    for name in ("thesis", "link"):
        with pytest.raises(OutputError, match="no bundle"):
            assemble_bundle(*parts, out=tmp_path / name, force=True)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_a_refused_replacement_leaves_the_old_bundle(bundle: Bundle, parts: Parts, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    assemble_bundle(*parts, out=out)
    wrong = parts._replace(model=_with_initializer(parts.model, "severity.bias", lambda bias: bias + 1))
    with pytest.raises(ParityError):
        assemble_bundle(*wrong, out=out, force=True)
    assert Bundle.open(out).digest == bundle.digest
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_missing_folder_is_told(parts: Parts, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist") as caught:
        assemble_bundle(*parts, out=tmp_path / "no" / "bundle")
    assert caught.value.code == "output-not-writable"


def test_a_full_disk_is_told_and_leaves_nothing(
    parts: Parts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fill_up(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fill_up)
    with pytest.raises(OutputError) as caught:
        assemble_bundle(*parts, out=tmp_path / "bundle")
    assert caught.value.code == "disk-full"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="file modes of POSIX")
def test_a_bundle_is_readable_as_other_files_are(bundle: Bundle, tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.touch()
    written = Path(bundle.location)
    assert stat.S_IMODE(written.stat().st_mode) == stat.S_IMODE(folder.stat().st_mode)
    assert {stat.S_IMODE(path.stat().st_mode) for path in written.iterdir()} == {
        stat.S_IMODE(file.stat().st_mode)
    }


def test_terms_are_those_of_the_weights_unless_given(classify: Callable[..., Classifier]) -> None:
    pretrained = replace(classify(), weights="densenet121-res224-all")
    own = draft_severity(pretrained, published_head(), Naming())
    assert not own.licence.commercial_use
    assert "non-commercial" in own.licence.notice
    assert own.name == "cxr-severity-densenet121-res224-all"
    given = draft_severity(
        pretrained, published_head(), Naming(licence="MIT", licence_text="text", commercial_use=True)
    )
    assert (given.licence.spdx, given.licence_text, given.licence.commercial_use) == ("MIT", "text", True)


def test_the_card_of_random_weights_warns(draft: Draft, classify: Callable[..., Classifier]) -> None:
    warning = "The weights are random"
    pretrained = replace(classify("densenet121-res224-nih"), weights="densenet121-res224-nih")
    card = draft_severity(pretrained, published_head(), Naming()).card
    assert warning in draft.card
    assert warning not in card
    assert "never reported: Lung Lesion, Fracture, Lung Opacity, Enlarged Cardiomediastinum." in card


def test_the_published_interval_is_gaussian_with_the_published_error() -> None:
    # MAE 1.14 and 0.78 (Cohen et al. 2020); sigma = MAE sqrt(pi / 2); 80 % lie within 1.2816 sigma
    for interval, error in zip(published_head().intervals, (1.14, 0.78), strict=True):
        assert interval.below == interval.above == pytest.approx(1.2815516 * error * 1.2533141, abs=1e-4)
        assert interval.level == 0.8
        assert str(error) in interval.method
