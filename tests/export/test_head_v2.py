"""Version 2 of the published head: pickles read without running them, and a graph that answers as scikit-learn does."""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from bedside import open_cxr
from bedside.backends import open_backend
from bedside.bundle import Bundle
from bedside_export import cli
from bedside_export.errors import ExportError
from bedside_export.models import Classifier, load_classifier
from bedside_export.perceptrons import (
    Perceptron,
    PerceptronDenseNet,
    PerceptronHead,
    read_perceptron,
    unmeasured_intervals,
)
from bedside_export.pickles import MAX_ITEMS, read_pickled_arrays

Classify = Callable[..., Classifier]
Pictures = npt.NDArray[np.float32]


def _regressor(features: int, *, hidden: tuple[int, ...] = (7,), seed: int = 0) -> MLPRegressor:
    """scikit-learn's perceptron as the published ones were made, hardly trained: answers within a few points."""
    random = np.random.default_rng(seed)
    inputs = random.uniform(0, 2, (40, features))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return MLPRegressor(hidden_layer_sizes=hidden, max_iter=3, random_state=seed).fit(
            inputs, random.uniform(0, 8, 40)
        )


def _write(path: Path, content: object, protocol: int | None = None) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def _head(extent: MLPRegressor, opacity: MLPRegressor) -> PerceptronHead:
    of = [Perceptron(tuple(one.coefs_), tuple(one.intercepts_)) for one in (extent, opacity)]
    return PerceptronHead(of[0], of[1], unmeasured_intervals())


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["bedside-export", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


class TestPickles:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    @pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i2"])
    def test_arrays_of_any_protocol_are_read(self, protocol: int, dtype: str, tmp_path: Path) -> None:
        values = np.arange(24).reshape(2, 3, 4).astype(dtype)
        given = [
            (values, np.asfortranarray(values[0]), values.transpose(2, 0, 1), values[:, ::2]),
            np.float64(0.5),
            [3, "name", None, True, 2.5],
        ]
        (plain, fortran, turned, sparse), scalar, rest = read_pickled_arrays(
            _write(tmp_path / "arrays.pkl", given, protocol)
        )
        assert plain.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(plain, values)
        np.testing.assert_array_equal(fortran, values[0])
        np.testing.assert_array_equal(turned, values.transpose(2, 0, 1))
        np.testing.assert_array_equal(sparse, values[:, ::2])
        assert (float(scalar), rest) == (0.5, [3, "name", None, True, 2.5])

    def test_numpy_1_names_are_read_too(self, tmp_path: Path) -> None:
        data = pickle.dumps(np.arange(3.0), protocol=2).replace(b"numpy._core.", b"numpy.core.")
        (tmp_path / "old.pkl").write_bytes(data)
        assert b"numpy.core." in data
        np.testing.assert_array_equal(read_pickled_arrays(tmp_path / "old.pkl"), [0, 1, 2])

    @pytest.mark.parametrize("protocol", [0, 2, 4, 5])
    def test_a_file_that_would_run_code_is_refused_and_runs_nothing(
        self, protocol: int, tmp_path: Path
    ) -> None:
        witness = tmp_path / "witness"

        class Trap:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (witness,)

        path = _write(tmp_path / "trap.pkl", ([np.zeros((2, 1)), Trap()], []), protocol)
        with pytest.raises(ExportError, match="do not use it"):
            read_pickled_arrays(path)
        assert not witness.exists()
        with path.open("rb") as file:  # the file is a real trap
            pickle.load(file)  # noqa: S301
        assert witness.exists()

    @pytest.mark.parametrize(
        "code",
        [
            b"cos\nsystem\n(S'true'\ntR.",
            b"cbuiltins\neval\n(S'1'\ntR.",
            b"cnumpy.core.multiarray\nfromfile\n(S'x'\ntR.",
            b"cnumpy\nload\n(S'x'\ntR.",
            b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
            b"(ios\nsystem\n.",
        ],
    )
    def test_names_that_no_array_needs_are_refused(self, code: bytes, tmp_path: Path) -> None:
        (tmp_path / "trap.pkl").write_bytes(code)
        with pytest.raises(ExportError, match=r"the pickle file is refused.*do not use it"):
            read_pickled_arrays(tmp_path / "trap.pkl")

    def test_the_stand_ins_can_not_be_changed_by_a_file(self, tmp_path: Path) -> None:
        before = _write(tmp_path / "good.pkl", np.ones(2))
        for name in (b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"c_codecs\nencode\n"):
            # BUILD with a slot state sets attributes, of a class as well
            (tmp_path / "trap.pkl").write_bytes(name + b"(N(dS'make'\nNstb.")
            with pytest.raises(ExportError):
                read_pickled_arrays(tmp_path / "trap.pkl")
        np.testing.assert_array_equal(read_pickled_arrays(before), [1, 1])

    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            ({"a": 1}, "something other than arrays"),
            (b"bytes", "something other than arrays"),
            (np.array([{}], dtype=object), "no plain content"),
            (np.array(["text"]), "no numbers"),
            (np.zeros(2, dtype=[("a", "f4")]), "no numbers"),
            (list(range(MAX_ITEMS)), f"over {MAX_ITEMS} items"),
        ],
    )
    def test_what_is_no_array_of_numbers_is_refused(
        self, content: object, complaint: str, tmp_path: Path
    ) -> None:
        with pytest.raises(ExportError, match=complaint):
            read_pickled_arrays(_write(tmp_path / "other.pkl", content))

    def test_nested_references_do_not_multiply(self, tmp_path: Path) -> None:
        content: list[object] = [0]
        for _ in range(60):
            content = [content] * 10
        with pytest.raises(ExportError, match=f"over {MAX_ITEMS} items"):
            read_pickled_arrays(_write(tmp_path / "laughs.pkl", content))

    def test_damaged_files_are_told(self, tmp_path: Path) -> None:
        whole = pickle.dumps(([np.zeros((3, 1))], [np.zeros(1)]))
        for data in (b"", b"hello", whole[:-1], whole[: len(whole) // 2], whole.replace(b"f8", b"f9")):
            (tmp_path / "cut.pkl").write_bytes(data)
            with pytest.raises(ExportError, match=r"the pickle file is (damaged|refused)"):
                read_pickled_arrays(tmp_path / "cut.pkl")
        with pytest.raises(ExportError, match="can't be read"):
            read_pickled_arrays(tmp_path / "none.pkl")


class TestPerceptron:
    def test_it_is_read_as_scikit_learn_wrote_it(self, tmp_path: Path) -> None:
        one = _regressor(5, hidden=(4, 3))
        read = read_perceptron(_write(tmp_path / "mlp.pkl", (one.coefs_, one.intercepts_)))
        assert read.sizes == (5, 4, 3, 1)
        assert len(read.digest) == 64
        for mine, theirs in zip(read.weights, one.coefs_, strict=True):
            np.testing.assert_array_equal(mine, theirs)

    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            ([np.zeros((2, 1))], r"\(coefficients, intercepts\)"),
            (([1.0], [2.0]), "lists of matrices"),
            (([], []), "1 to 16 layers"),
            (([np.zeros((2, 1))], []), "1 to 16 layers"),
            (([np.zeros((2, 3)), np.zeros((2, 1))], [np.zeros(3), np.zeros(1)]), "don't fit together"),
            (([np.zeros((2, 1))], [np.zeros(2)]), "don't fit together"),
            (([np.zeros((2, 3))], [np.zeros(3)]), "gives 3 numbers"),
            (([np.full((2, 1), np.nan)], [np.zeros(1)]), "NaN or infinity"),
        ],
    )
    def test_what_is_no_perceptron_is_told(self, content: object, complaint: str, tmp_path: Path) -> None:
        with pytest.raises(ExportError, match=complaint):
            read_perceptron(_write(tmp_path / "mlp.pkl", content))

    def test_both_scores_are_on_the_ralo_scale(self) -> None:
        head = _head(_regressor(4), _regressor(4))
        assert [(score.name, score.low, score.high) for score in head.scores] == [
            ("extent", 0, 8),
            ("opacity", 0, 8),
        ]
        assert all(score.interval.method.startswith("not measured") for score in head.scores)
        assert all((score.interval.below, score.interval.above) == (8, 8) for score in head.scores)


class TestNetwork:
    @pytest.mark.parametrize("hidden", [(9,), (9, 5), ()])
    def test_severity_is_scikit_learns_prediction_from_the_pooled_features(
        self, hidden: tuple[int, ...], classify: Classify, pictures: Pictures
    ) -> None:
        classifier = classify()
        features = classifier.logits.in_features
        if hidden:
            extent, opacity = (_regressor(features, hidden=hidden, seed=seed) for seed in (1, 2))
            head = _head(extent, opacity)
        else:
            line = Perceptron((np.linspace(-1, 1, features)[:, None],), (np.array([0.25]),))
            head = PerceptronHead(line, line, unmeasured_intervals())
        with torch.inference_mode():
            severity, cam, pathologies = PerceptronDenseNet(classifier, head)(torch.from_numpy(pictures))
            pooled = torch.relu(classifier.features(torch.from_numpy(pictures))).mean((2, 3)).double().numpy()
        if hidden:
            wanted = np.stack([extent.predict(pooled), opacity.predict(pooled)], 1)
        else:
            wanted = np.repeat(pooled @ line.weights[0] + 0.25, 2, axis=1)
        assert np.ptp(wanted[:, 0]) > 1e-3
        np.testing.assert_allclose(severity.numpy(), wanted, atol=1e-4)
        assert cam.shape == (len(pictures), 2, 2, 2)
        assert pathologies.shape == (len(pictures), 18)

    def test_the_map_is_the_local_linear_part_of_the_severity(
        self, classify: Classify, pictures: Pictures
    ) -> None:
        """Its mean is the gradient by the pooled features, times these: autograd's, not this module's."""
        classifier = classify()
        features = classifier.logits.in_features
        network = PerceptronDenseNet(
            classifier,
            _head(_regressor(features, hidden=(9, 5), seed=3), _regressor(features, hidden=(8,), seed=4)),
        )
        with torch.no_grad():
            _, cam, _ = network(torch.from_numpy(pictures))
            maps = torch.relu(classifier.features(torch.from_numpy(pictures)))
        for score, layers in enumerate((network.extent, network.opacity)):
            pooled = maps.mean((2, 3)).requires_grad_()
            (slope,) = torch.autograd.grad(layers(pooled)[0].sum(), pooled)
            wanted = torch.einsum("nc,nchw->nhw", slope, maps)
            assert float(wanted.abs().max()) > 1e-3
            torch.testing.assert_close(cam[:, score], wanted, atol=1e-5, rtol=1e-4)

    def test_another_number_of_features_is_refused(self, classify: Classify) -> None:
        with pytest.raises(ExportError, match="the head reads 3 features and the network has"):
            PerceptronDenseNet(classify(), _head(_regressor(3), _regressor(3)))


def test_a_v2_bundle_is_exported_and_every_engine_agrees_with_scikit_learn(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    extent, opacity = (_regressor(1024, hidden=(50,), seed=seed) for seed in (5, 6))
    files = [
        _write(tmp_path / name, (one.coefs_, one.intercepts_))
        for name, one in (("geo.pkl", extent), ("opa.pkl", opacity))
    ]
    out = tmp_path / "bundle"
    code = _run(
        monkeypatch, "cxr-severity", "--weights", "random:7", "--head", "v2", "--extent-head", files[0],
        "--opacity-head", files[1], "--out", out,
    )  # fmt: skip
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "onnxruntime fp32: passed" in printed.out
    assert "openvino fp32: passed" in printed.out

    bundle = Bundle.open(out)
    assert [(score.low, score.high) for score in bundle.manifest.scores] == [(0, 8), (0, 8)]
    assert "1024-50-1" in bundle.manifest.scores[0].head
    card = bundle.read("MODEL_CARD.md").decode()
    assert "RALO" in card
    assert "| degree of opacity | 0 to 8 |" in card
    image = np.random.default_rng(0).uniform(-1024, 1024, (1, 1, 224, 224)).astype(np.float32)
    classifier = load_classifier("random:7")
    with torch.inference_mode():
        pooled = torch.relu(classifier.features(torch.from_numpy(image))).mean((2, 3)).double().numpy()
    wanted = [extent.predict(pooled)[0], opacity.predict(pooled)[0]]
    for name in ("onnxruntime", "openvino"):
        engine = open_backend(name, bundle)
        answers = engine.run({"image": image})
        engine.close()
        np.testing.assert_allclose(answers["severity"][0], wanted, atol=1e-3)
    picture = min((shared / "data" / "cxr" / "images").glob("*.jpg"))
    with open_cxr(out) as scorer:
        result = scorer.score(picture).raise_for_status()
    assert result.opacity is not None
    assert [*result.opacity.scale, result.opacity.low, result.opacity.high] == [0, 8, 0, 8]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--head", "v2"], "--head v2 needs --extent-head FILE and --opacity-head FILE"),
        (["--head", "v2", "--extent-head", "TRAP"], "--head v2 needs --extent-head FILE and --opacity-head"),
        (["--extent-head", "TRAP"], "go with --head v2"),
        (["--head", "v2", "--extent-head", "GOOD", "--opacity-head", "TRAP"], "--opacity-head: the pickle file is"),
        (["--head", "v2", "--extent-head", "NONE", "--opacity-head", "GOOD"], "--extent-head: the pickle file can"),
        (["--head", "v2", "--extent-head", "GOOD", "--opacity-head", "GOOD"], "reads 4 features and the network has"),
        (
            ["--head", "v2", "--extent-head", "GOOD", "--opacity-head", "GOOD", "--weights-kind",
             "densenet121-res224-nih"],
            "the head v2 was fitted to 'densenet121-res224-all'",
        ),
    ],
)  # fmt: skip
def test_wrong_usage_of_v2_is_told_on_one_line_and_writes_nothing(
    arguments: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = _regressor(4)
    places = {
        "GOOD": _write(tmp_path / "good.pkl", (one.coefs_, one.intercepts_)),
        "TRAP": _write(tmp_path / "trap.pkl", Path.cwd),
        "NONE": tmp_path / "none.pkl",
    }
    given = [places.get(word, word) for word in arguments]
    before = sorted(tmp_path.iterdir())
    assert _run(monkeypatch, "cxr-severity", "--weights", "random:0", "--out", tmp_path / "out", *given) == 2
    printed = capsys.readouterr()
    assert complaint in printed.err
    assert "Traceback" not in printed.err
    assert sorted(tmp_path.iterdir()) == before
