"""Golden vectors of a CT bundle on its engines, and what ``verify`` and ``inspect`` tell of one."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bedside.backends import BACKENDS, open_backend
from bedside.backends.fake import FakeBackend
from bedside.bundle import Bundle
from bedside.contract import Tissue
from bedside.errors import BackendError, BundleError
from bedside.golden import load_golden, load_tissue_golden
from bedside.tissue_counts import FEW_VOXELS, count_tissues
from bedside.verification import verify_golden
from command_line import invoke
from tiny_bundle import GOLDEN_INPUTS, GOLDEN_OUTPUTS, make_bundle, seal
from tiny_ct_bundle import (
    TILE,
    Floats,
    ThresholdNetwork,
    ct_manifest_of,
    golden_answers,
    golden_slices,
    make_ct_bundle,
)

NETWORK = ThresholdNetwork()
NAMES = ("background", "lung", "ground glass", "crazy paving", "consolidation")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ct_bundle(tmp_path_factory.mktemp("ct") / "tiny")


def answer_with(change: Any) -> FakeBackend:
    """An engine that answers as the network, but for what ``change`` does to the probabilities."""

    def respond(inputs: Mapping[str, Floats]) -> dict[str, Any]:
        return {"tissues": change(NETWORK.run(inputs["slice"])["tissues"])}

    return FakeBackend(respond)


def test_the_reference_agrees_with_itself(folder: Path) -> None:
    engine = answer_with(lambda tissues: tissues)
    verdict = verify_golden(Bundle.open(folder), engine)
    assert verdict.passed
    assert [(each.score, each.tolerance) for each in verdict.agreements] == [
        ("opacity volume in percent", 0.05),
        *((f"Dice loss of {name}", 0.001) for name in NAMES),
    ]
    assert max(each.difference for each in verdict.agreements) < 1e-9
    assert [call["slice"].shape for call in engine.calls] == [(1, 1, TILE, TILE)] * 3


def test_voxels_that_change_their_tissue_are_told_in_dice_and_volume(folder: Path) -> None:
    bundle = Bundle.open(folder)
    labels = load_tissue_golden(bundle).labels
    glass, lung = (int((labels == kind).sum()) for kind in (2, 1))

    def swap(tissues: Floats) -> Floats:
        """Call all ground glass lung."""
        changed = tissues.copy()
        hit = tissues.argmax(axis=1) == 2
        changed[:, 1][hit], changed[:, 2][hit] = 1, 0
        return changed

    verdict = verify_golden(bundle, answer_with(swap))
    assert not verdict.passed
    found = {each.score: each.difference for each in verdict.agreements}
    # by the definition of Dice: all of one tissue is lost, and the other has gained it
    assert found["Dice loss of ground glass"] == pytest.approx(glass / max(glass, 2 * FEW_VOXELS))
    assert found["Dice loss of lung"] == pytest.approx(glass / (2 * lung + glass))
    opacity = int((labels >= 2).sum())
    assert found["opacity volume in percent"] >= 100 * glass / max(opacity, 2 * FEW_VOXELS) - 1e-9
    assert found["Dice loss of background"] == 0


def test_probabilities_that_lose_volume_fail_though_every_label_stays(folder: Path) -> None:
    def blur(tissues: Floats) -> Floats:
        return np.asarray(0.9 * tissues + 0.1 / 5, np.float32)

    verdict = verify_golden(Bundle.open(folder), answer_with(blur))
    failed = [each.score for each in verdict.agreements if not each.passed]
    assert failed == ["opacity volume in percent"]


@pytest.mark.parametrize("spoil", [np.nan, np.inf])
def test_an_answer_that_is_not_finite_fails(folder: Path, spoil: float) -> None:
    def change(tissues: Floats) -> Floats:
        tissues[0, 3, 5, 5] = spoil
        return tissues

    verdict = verify_golden(Bundle.open(folder), answer_with(change))
    assert not verdict.passed
    assert verdict.agreements[0].difference == np.inf


def test_an_answer_of_another_shape_is_a_failure_of_the_engine(folder: Path) -> None:
    with pytest.raises(BackendError) as caught:
        verify_golden(Bundle.open(folder), answer_with(lambda tissues: tissues[:, :4]))
    assert caught.value.code == "engine-failed"


@pytest.mark.parametrize("network", [NETWORK, ThresholdNetwork(context=1), ThresholdNetwork(fixed=TILE)])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_each_engine_passes_at_fp32(backend: str, network: ThresholdNetwork, tmp_path: Path) -> None:
    pytest.importorskip(BACKENDS[backend].package)
    bundle = Bundle.open(make_ct_bundle(tmp_path / "tiny", network=network))
    engine = open_backend(backend, bundle)
    verdict = verify_golden(bundle, engine)
    engine.close()
    assert verdict.passed
    assert verdict.images == 3


def npz(**arrays: npt.NDArray[Any]) -> bytes:
    data = io.BytesIO()
    np.savez(data, **arrays)  # type: ignore[arg-type]
    return data.getvalue()


def npy(array: npt.NDArray[Any]) -> bytes:
    data = io.BytesIO()
    np.save(data, array)
    return data.getvalue()


LABELS, EXPECTED = (golden_answers(NETWORK)[name] for name in ("labels", "expected"))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (GOLDEN_INPUTS, npy(golden_slices(NETWORK)[:2])),
        (GOLDEN_INPUTS, npy(golden_slices(NETWORK)[..., :-1])),
        (GOLDEN_INPUTS, npy(np.repeat(golden_slices(NETWORK), 3, axis=1))),
        (GOLDEN_INPUTS, npy(golden_slices(NETWORK)[0])),
        (GOLDEN_OUTPUTS, npz(labels=LABELS)),
        (GOLDEN_OUTPUTS, npz(labels=LABELS.astype(np.int64), expected=EXPECTED)),
        (GOLDEN_OUTPUTS, npz(labels=LABELS[1:], expected=EXPECTED)),
        (GOLDEN_OUTPUTS, npz(labels=np.full_like(LABELS, 5), expected=EXPECTED)),
        (GOLDEN_OUTPUTS, npz(labels=LABELS, expected=EXPECTED[:, 1:])),
        (GOLDEN_OUTPUTS, npz(labels=LABELS, expected=EXPECTED * np.nan)),
        (GOLDEN_OUTPUTS, npz(labels=LABELS, expected=EXPECTED.astype(np.float32))),
    ],
)
def test_golden_vectors_that_are_not_what_they_should_be_are_refused(
    tmp_path: Path, name: str, data: bytes
) -> None:
    changed = make_ct_bundle(tmp_path / "tiny")
    (changed / name).write_bytes(data)
    with pytest.raises(BundleError) as caught:
        load_tissue_golden(Bundle.open(seal(changed)))
    assert caught.value.code == "bundle-broken"


def test_golden_vectors_of_the_other_task_are_not_looked_for(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        load_golden(Bundle.open(folder))
    assert caught.value.code == "bundle-task"
    with pytest.raises(BundleError) as caught:
        load_tissue_golden(Bundle.open(make_bundle(tmp_path / "cxr")))
    assert caught.value.code == "bundle-task"


def test_counts_of_tiles_add_up_to_those_of_all() -> None:
    generator = np.random.Generator(np.random.PCG64(0))
    given = generator.random((3, 4, 20, 30))
    labels = generator.integers(0, 4, (3, 20, 30)).astype(np.uint8)
    parts = [count_tissues(one, np.arange(4.0), tile) for one, tile in zip(labels, given, strict=True)]
    total = parts[0] + parts[1] + parts[2]
    whole = count_tissues(labels, np.arange(4.0) * 3, np.moveaxis(given, 0, 1))
    for name in ("reference", "given", "common", "reference_expected", "given_expected"):
        np.testing.assert_allclose(getattr(total, name), getattr(whole, name))


def test_a_tissue_that_neither_has_is_absent_and_costs_nothing() -> None:
    given = np.zeros((3, 10, 10))
    given[0] = 1
    counts = count_tissues(np.zeros((10, 10), np.uint8), given.sum(axis=(1, 2)), given)
    assert counts.absent().tolist() == [False, True, True]
    assert counts.dice_loss().tolist() == [0, 0, 0]
    assert (
        counts.volume_percent((Tissue("b"), Tissue("l", lung=True), Tissue("o", opacity=True, lung=True)))
        == 0
    )


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_verify_tells_dice_and_volume(folder: Path, engine: str) -> None:
    pytest.importorskip(engine)
    done = invoke("verify", folder, "--backend", engine, "--precision", "fp32")
    assert (done.exit_code, done.stderr) == (0, "")
    told = " ".join(done.stdout.split())
    assert f"{engine} fp32 passed: differs by opacity volume in percent" in told
    assert "Dice loss of ground glass 0 (at most 0.001)" in told
    assert "on 3 golden inputs" in told


def test_verify_fails_where_an_engine_answers_otherwise(tmp_path: Path) -> None:
    golden = golden_answers(NETWORK)
    shifted = {**golden, "labels": np.roll(golden["labels"], 3, axis=2)}
    done = invoke("verify", make_ct_bundle(tmp_path / "off", golden=shifted), "--backend", "onnxruntime")
    assert done.exit_code == 1
    assert "onnxruntime fp32 FAILED: differs by" in " ".join(done.stdout.split())


def test_inspect_tells_window_tiles_and_tissues(tmp_path: Path) -> None:
    confusion = np.eye(5)
    confusion[2] = 0, 0, 0.75, 0.25, 0
    folder = make_ct_bundle(
        tmp_path / "tiny",
        network=ThresholdNetwork(context=1),
        tiling={"multiple": 16, "smallest": 32, "skip": "body", "context_mm": 2.5},
        volume_interval={"level": 0.8, "low": 0.5, "high": 1.5, "method": "made up"},
        confusion=confusion.tolist(),
    )
    done = invoke("inspect", folder)
    assert (done.exit_code, done.stderr) == (0, "")
    told = " ".join(done.stdout.split())
    assert "task ct-opacity" in told
    assert "slice float32 N x 3 x any x any" in told
    assert "HU from -1000 to 0 as 0 to 1, spacing in the slice the scan's own" in told
    assert (
        "tiles 64 x 64 (or multiples of 16 from 32 on), 3 neighbouring slices about 2.5 mm apart, overlap 25%, "
        "gaussian weights" in told
    )
    assert "those of one value or without body are left out" in told
    assert "tissue 1 lung: lung tissue 2 ground glass: opacity" in told
    assert "80% from 0.5 to 1.5 times the volume, made up" in told
    assert "ground glass is 75% ground glass, 25% crazy paving" in told
    assert "crop" not in told


def test_inspect_tells_the_spacing_and_a_fixed_tile(tmp_path: Path) -> None:
    network = ThresholdNetwork(fixed=TILE)
    spec = ct_manifest_of(network)["input"] | {"spacing_mm": [1.4, 1.5]}
    told = " ".join(
        invoke("inspect", make_ct_bundle(tmp_path / "tiny", network=network, input=spec)).stdout.split()
    )
    assert "tiles 64 x 64, overlap 25%" in told
    assert "slice float32 N x 1 x 64 x 64" in told
    assert "spacing in the slice 1.4 x 1.5 mm" in told
