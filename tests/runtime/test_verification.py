from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bedside.backends import BACKENDS, open_backend
from bedside.backends.fake import FakeBackend
from bedside.bundle import Bundle
from bedside.errors import BackendError, BundleError, MissingExtraError
from bedside.verification import MAX_GOLDEN_BYTES, installed, load_golden, try_engines, verify_golden
from tiny_bundle import GOLDEN_INPUTS, GOLDEN_OUTPUTS, Floats, Network, golden_images, make_bundle, seal

NETWORK = Network()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny")


def answer_with(shift: float = 0.0, *, spoil: float | None = None) -> FakeBackend:
    """An engine that answers as the network, but for ``shift`` in extent; ``spoil`` stands in its map."""

    def respond(inputs: Mapping[str, Floats]) -> dict[str, Any]:
        answers = NETWORK.run(inputs["image"])
        answers["severity"][:, 0] += np.float32(shift)
        if spoil is not None:
            answers["cam"][0, 0, 0, 0] = spoil
        return answers

    return FakeBackend(respond)


def test_the_reference_agrees_with_itself(folder: Path) -> None:
    engine = answer_with()
    verdict = verify_golden(Bundle.open(folder), engine)
    assert verdict.passed
    assert [(a.score, a.difference, a.tolerance) for a in verdict.agreements] == [
        ("extent", 0.0, 0.01),
        ("opacity", 0.0, 0.01),
    ]
    assert verdict.images == 3
    assert [call["image"].shape for call in engine.calls] == [(1, 1, 32, 32)] * 3


def test_a_difference_is_told_in_score_units_and_fails_past_the_tolerance(folder: Path) -> None:
    bundle = Bundle.open(folder)
    within, past = verify_golden(bundle, answer_with(0.009)), verify_golden(bundle, answer_with(-0.011))
    assert within.passed
    assert within.agreements[0].difference == pytest.approx(0.009, rel=1e-3)
    assert not past.passed
    assert [a.passed for a in past.agreements] == [False, True]


def test_a_difference_beyond_the_scale_is_not_hidden_by_clipping(tmp_path: Path) -> None:
    network = Network(bias=(100.0, 3.0))
    bundle = Bundle.open(make_bundle(tmp_path / "high", network=network))
    shifted = FakeBackend(
        lambda inputs: {**network.run(inputs["image"]), "severity": np.full((1, 2), 50, np.float32)}
    )
    assert not verify_golden(bundle, shifted).passed


@pytest.mark.parametrize("spoil", [np.nan, np.inf])
def test_an_answer_that_is_not_finite_fails_wherever_it_stands(folder: Path, spoil: float) -> None:
    verdict = verify_golden(Bundle.open(folder), answer_with(spoil=spoil))
    assert not verdict.passed
    assert verdict.agreements[0].difference == np.inf


def test_an_engine_with_scores_of_another_shape_has_failed(folder: Path) -> None:
    engine = FakeBackend(lambda _: {"severity": np.zeros((1, 3), np.float32)})
    with pytest.raises(BackendError) as caught:
        verify_golden(Bundle.open(folder), engine)
    assert caught.value.code == "engine-failed"


def test_a_precision_without_tolerance_is_not_judged(folder: Path) -> None:
    engine = FakeBackend(lambda inputs: dict(NETWORK.run(inputs["image"])), precision="int8")
    with pytest.raises(BundleError) as caught:
        verify_golden(Bundle.open(folder), engine)
    assert caught.value.code == "bundle-precision"
    assert engine.calls == []


def npz(**arrays: Floats) -> bytes:
    data = io.BytesIO()
    np.savez(data, **arrays)  # type: ignore[arg-type]
    return data.getvalue()


def npy(array: object) -> bytes:
    data = io.BytesIO()
    np.save(data, np.asarray(array), allow_pickle=True)
    return data.getvalue()


def damaged() -> bytes:
    """A compressed member that does not inflate."""
    data = io.BytesIO()
    np.savez_compressed(data, severity=np.random.default_rng(0).random((3, 2), np.float32))
    archive = bytearray(data.getvalue())
    start = archive.index(b"severity.npy") + 50
    archive[start : start + 20] = b"\xff" * 20
    return bytes(archive)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (GOLDEN_OUTPUTS, damaged()),
        (GOLDEN_INPUTS, b"nothing of the kind"),
        (GOLDEN_INPUTS, b""),
        (GOLDEN_INPUTS, npy(golden_images())[:-4]),
        (GOLDEN_INPUTS, npy(golden_images()[:2])),
        (GOLDEN_INPUTS, npy(golden_images()[:0])),
        (GOLDEN_INPUTS, npy(golden_images()[:, 0])),
        (GOLDEN_INPUTS, npy(golden_images().astype(np.float64))),
        (GOLDEN_INPUTS, npy(golden_images() * np.float32(np.nan))),
        (GOLDEN_INPUTS, npy([{"a": "pickle"}])),
        (GOLDEN_OUTPUTS, b"nothing of the kind"),
        (GOLDEN_OUTPUTS, npz(other=np.zeros((3, 2), np.float32))),
        (GOLDEN_OUTPUTS, npz(severity=np.zeros((2, 2), np.float32))),
        (GOLDEN_OUTPUTS, npz(severity=np.zeros((3, 3), np.float32))),
        (GOLDEN_OUTPUTS, npz(severity=np.full((3, 2), np.nan, np.float32))),
    ],
)
def test_golden_vectors_that_are_not_what_they_should_be_are_refused(
    folder: Path, name: str, data: bytes
) -> None:
    (folder / name).write_bytes(data)
    bundle = Bundle.open(seal(folder))
    with pytest.raises(BundleError) as caught:
        load_golden(bundle)
    assert caught.value.code == "bundle-broken"


def test_golden_outputs_that_unpack_without_end_are_refused(folder: Path) -> None:
    with (
        zipfile.ZipFile(folder / GOLDEN_OUTPUTS, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("severity.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(MAX_GOLDEN_BYTES // (1 << 20) + 1):
            member.write(bytes(1 << 20))
    with pytest.raises(BundleError) as caught:
        load_golden(Bundle.open(seal(folder)))
    assert caught.value.code == "bundle-unsafe"


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_each_engine_passes_at_fp32(folder: Path, backend: str) -> None:
    pytest.importorskip(BACKENDS[backend].package)
    bundle = Bundle.open(folder)
    engine = open_backend(backend, bundle)
    try:
        verdict = verify_golden(bundle, engine)
    finally:
        engine.close()
    assert verdict.passed
    assert verdict.engine.backend == backend
    assert max(a.difference for a in verdict.agreements) < 1e-5


def test_an_engine_that_answers_otherwise_than_the_golden_outputs_fails(tmp_path: Path) -> None:
    shifted = {name: values + np.float32(0.02) for name, values in NETWORK.run(golden_images()).items()}
    bundle = Bundle.open(make_bundle(tmp_path / "tiny", golden=shifted))
    (trial,) = try_engines(bundle, ["onnxruntime"], ["fp32"])
    assert not trial.passed
    assert not trial.unavailable
    assert trial.verdict is not None
    assert trial.verdict.agreements[0].difference == pytest.approx(0.02, rel=1e-3)


def test_what_this_machine_or_bundle_lacks_is_unavailable_and_not_failed(folder: Path) -> None:
    trials = list(try_engines(Bundle.open(folder), ["onnxruntime"], ["fp32", "bf16", "int8"]))
    assert [(t.precision, t.passed, t.unavailable) for t in trials] == [
        ("fp32", True, False),
        ("bf16", False, True),
        ("int8", False, True),
    ]


def test_an_engine_that_is_not_installed_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    for name in [name for name in sys.modules if name.startswith("bedside.backends.openvino")]:
        monkeypatch.delitem(sys.modules, name)
    assert "openvino" not in installed()
    assert "onnxruntime" in installed()
    with pytest.raises(MissingExtraError):
        list(try_engines(Bundle.open(folder), ["openvino"], ["fp32"]))
