"""The scorer: every input has a result, none has a score that it should not have, and the engine is freed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import bedside
from bedside import scorer as scorer_module
from bedside.backends import FakeBackend
from bedside.bundle import Bundle
from bedside.errors import BackendError, BundleError, InputError, RefusedError
from bedside.radiograph import Header, Radiograph
from bedside.scorer import CxrScorer, open_cxr
from tiny_bundle import Network, make_bundle, seal
from tiny_ct_bundle import make_ct_bundle

Picture = npt.NDArray[np.float32]
STAGES = ("read", "preprocess", "inference", "interpret", "total")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_bundle(tmp_path_factory.mktemp("bundle") / "b"))


def respond(inputs: object) -> dict[str, npt.NDArray[np.float32]]:
    assert isinstance(inputs, dict)
    return Network().run(inputs["image"])


@pytest.fixture
def engine() -> FakeBackend:
    return FakeBackend(respond)


@pytest.fixture
def scorer(bundle: Bundle, engine: FakeBackend) -> Iterator[CxrScorer]:
    with CxrScorer(bundle, engine) as opened:
        yield opened


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(20, 200, (300, 280), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "Doe^John.png")
    return tmp_path / "Doe^John.png"


def unscored(result: bedside.SeverityResult) -> bool:
    written = result.to_json()
    return (
        (result.severity, result.extent, result.opacity) == (None, None, None)
        and (written["extent"], written["opacity"]) == (None, None)
        and written["pathologies"] == {}
    )


def test_picture_is_scored(scorer: CxrScorer, engine: FakeBackend, picture: Path, bundle: Bundle) -> None:
    result = scorer.score(picture)
    assert (result.status, result.error, result.source, result.forced) == ("ok", None, str(picture), False)
    image = engine.calls[0]["image"]
    assert image.shape == (1, 1, 32, 32)
    assert image.dtype == np.float32
    assert image.flags.c_contiguous
    assert result.extent is not None
    assert result.extent.value == pytest.approx(float(Network().run(image)["severity"][0, 0]))
    assert (result.bundle.name, result.bundle.digest) == ("tiny", bundle.digest)
    assert result.engine.backend == "fake"
    assert result.raise_for_status() is result
    assert tuple(result.timing_ms) == STAGES
    assert all(value >= 0 for value in result.timing_ms.values())
    assert result.timing_ms["total"] >= sum(result.timing_ms[stage] for stage in STAGES[:-1])
    json.dumps(result.to_json(), allow_nan=False)


def test_same_input_gives_the_same_score(scorer: CxrScorer, picture: Path) -> None:
    assert scorer.score(picture).severity is not scorer.score(picture).severity
    assert scorer.score(picture).extent == scorer.score(picture).extent


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("output", ["severity", "cam", "pathologies"])
def test_network_that_answers_no_number_fails_without_a_score(
    output: str, bad: float, bundle: Bundle, picture: Path
) -> None:
    def broken(inputs: object) -> dict[str, npt.NDArray[np.float32]]:
        outputs = respond(inputs)
        outputs[output].flat[0] = bad
        return outputs

    with CxrScorer(bundle, FakeBackend(broken)) as opened:
        result = opened.score(picture)
    assert result.status == "failed"
    assert result.error is not None
    assert result.error.code == "not-finite"
    assert unscored(result)
    assert tuple(result.timing_ms) == STAGES
    with pytest.raises(BackendError):
        result.raise_for_status()


def fail(error: Exception) -> Callable[..., Radiograph]:
    def reader(_source: object) -> Radiograph:
        raise error

    return reader


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("truncated-pixels", "the pixel data ends early; send it again"), "failed"),
        (RefusedError("colour", "the image is in colour; give a grey one"), "refused"),
    ],
)
def test_error_of_the_input_is_told_and_not_raised(
    error: InputError | RefusedError,
    status: str,
    scorer: CxrScorer,
    engine: FakeBackend,
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scorer_module, "read_radiograph", fail(error))
    result = scorer.score(picture)
    assert (result.status, result.error) == (status, error)
    assert result.to_json()["error"] == {"code": error.code, "message": error.message}
    assert tuple(result.timing_ms) == ("read", "total")
    assert unscored(result)
    assert engine.calls == []


PATIENT = "Doe^John 1970-01-01"


@pytest.mark.parametrize(
    "error",
    [
        ValueError(PATIENT),
        KeyError(PATIENT),
        MemoryError(PATIENT),
        RecursionError(PATIENT),
        ZeroDivisionError(),
    ],
)
def test_defect_is_told_as_such_without_its_text(
    error: Exception, scorer: CxrScorer, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer_module, "read_radiograph", fail(error))
    result = scorer.score(picture)
    assert result.status == "failed"
    assert result.error is not None
    assert result.error.code == "internal"
    assert f"{type(error).__name__} at test_scorer.py:" in result.error.message
    assert result.error.__cause__ is None, "it would keep the picture alive"
    assert PATIENT not in json.dumps(result.to_json())
    assert unscored(result)


def test_defect_in_the_engine_leaves_the_next_input_alone(bundle: Bundle, picture: Path) -> None:
    broken = [True, False]

    def flaky(inputs: object) -> dict[str, npt.NDArray[np.float32]]:
        if broken.pop(0):
            raise RuntimeError(PATIENT)
        return respond(inputs)

    with CxrScorer(bundle, FakeBackend(flaky)) as opened:
        assert [opened.score(picture).status for _ in range(2)] == ["failed", "ok"]


def test_interruption_is_not_swallowed(
    scorer: CxrScorer, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_source: object) -> Radiograph:
        raise KeyboardInterrupt

    monkeypatch.setattr(scorer_module, "read_radiograph", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scorer.score(picture)


@pytest.mark.parametrize("source", ["", "no/such/file.dcm", "nul\0", ".", "x" * 5000])
def test_absent_input_is_told(source: str, scorer: CxrScorer) -> None:
    result = scorer.score(source)
    assert result.status == "failed"
    assert result.error is not None
    assert result.error.code in {"not-found", "not-readable"}
    assert unscored(result)


def test_message_never_names_the_file(scorer: CxrScorer, tmp_path: Path) -> None:
    path = tmp_path / "Doe^John.dcm"
    for content in (b"", b"text", b"\0" * 128 + b"DICM", b"\x89PNG\r\n\x1a\n"):
        path.write_bytes(content)
        result = scorer.score(path)
        assert result.error is not None
        assert "Doe" not in result.error.message
        assert unscored(result)


def test_refused_header_is_scored_by_force_and_the_result_says_so(
    scorer: CxrScorer, engine: FakeBackend, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lateral = Header("DICOM", modality="DX", view_position="LL", body_part="CHEST")
    monkeypatch.setattr(scorer_module, "read_header", lambda _source: lateral)
    refused = scorer.score(picture)
    assert refused.status == "refused"
    assert refused.error is not None
    assert refused.error.code == "wrong-view"
    assert engine.calls == []
    assert unscored(refused)
    forced = scorer.score(picture, force=True)
    assert (forced.status, forced.forced, forced.to_json()["forced"]) == ("ok", True, True)
    assert forced.quality[0].code == "forced"


def test_findings_of_gate_and_reader_are_kept_in_order(
    scorer: CxrScorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = np.random.default_rng(0).integers(0, 255, (100, 100), dtype=np.uint8)
    Image.fromarray(small).save(tmp_path / "small.png")
    silent = Header("DICOM", modality="OT", view_position="PA", body_part="CHEST")
    monkeypatch.setattr(scorer_module, "read_header", lambda _source: silent)
    codes = [finding.code for finding in scorer.score(tmp_path / "small.png").quality]
    assert codes[0] == "modality-unknown"
    assert "low-resolution" in codes


# Opening and closing


def test_engine_is_freed_with_the_scorer(bundle: Bundle, engine: FakeBackend) -> None:
    with CxrScorer(bundle, engine):
        assert not engine.closed
    assert engine.closed


def test_engine_is_freed_after_an_error(bundle: Bundle, engine: FakeBackend) -> None:
    with pytest.raises(ZeroDivisionError), CxrScorer(bundle, engine):
        raise ZeroDivisionError
    assert engine.closed


def test_closed_scorer_gives_no_score(bundle: Bundle, engine: FakeBackend, picture: Path) -> None:
    opened = CxrScorer(bundle, engine)
    opened.close()
    opened.close()
    result = opened.score(picture)
    assert result.error is not None
    assert result.error.code == "engine-failed"
    assert unscored(result)


def test_bundle_for_another_task_is_refused_and_the_engine_freed(tmp_path: Path, engine: FakeBackend) -> None:
    opened = Bundle.open(make_ct_bundle(tmp_path / "b"))
    with pytest.raises(BundleError) as caught:
        CxrScorer(opened, engine)
    assert caught.value.code == "bundle-task"
    assert engine.closed


def test_absent_bundle_is_told() -> None:
    with pytest.raises(BundleError) as caught:
        open_cxr("no-such-bundle")
    assert caught.value.code == "bundle-not-found"


def test_altered_bundle_is_told(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b")
    (folder / "LICENSE").write_text("other")
    with pytest.raises(BundleError) as caught:
        open_cxr(folder)
    assert caught.value.code == "bundle-altered"


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_real_engine_scores_as_numpy_does(
    backend: str, bundle: Bundle, picture: Path, engine: FakeBackend
) -> None:
    pytest.importorskip(backend)
    expected = CxrScorer(bundle, engine).score(picture)
    for given in (bundle, bundle.location, Path(bundle.location)):
        with open_cxr(given, backend, threads=1) as opened:
            result = opened.score(picture)
        assert result.extent is not None
        assert expected.extent is not None
        assert result.extent.value == pytest.approx(expected.extent.value, abs=1e-5)
        assert (result.engine.backend, result.engine.precision, result.engine.threads) == (backend, "fp32", 1)
        assert result.bundle.digest == bundle.digest


def test_picture_is_kept_only_where_asked_for(scorer: CxrScorer, picture: Path) -> None:
    assert scorer.score(picture).radiograph is None
    kept = scorer.score(picture, keep_picture=True).radiograph
    assert kept is not None
    assert kept.pixels.ndim == 2


def report(folder: Path, text: str) -> Bundle:
    """A bundle whose parity report says ``text``."""
    make_bundle(folder)
    (folder / "parity.json").write_text(text, encoding="utf-8")
    return Bundle.open(seal(folder))


@pytest.mark.parametrize(("status", "noted"), [("failed", True), ("passed", False), ("not-run", False)])
def test_engine_that_left_the_tolerance_at_export_is_noted(
    tmp_path: Path, picture: Path, status: str, *, noted: bool
) -> None:
    engines = [{"backend": "fake", "precision": "fp32", "status": status}]
    bundle = report(tmp_path / "b", json.dumps({"engines": engines}))
    with CxrScorer(bundle, FakeBackend(respond)) as scorer:
        result = scorer.score(picture).raise_for_status()
    assert ("engine-unfit" in {finding.code for finding in result.quality}) is noted


@pytest.mark.parametrize("text", ["", "[]", '{"engines": [{}]}', '{"engines": 5}'])
def test_parity_report_that_is_none_closes_the_engine(tmp_path: Path, text: str) -> None:
    engine = FakeBackend(respond)
    with pytest.raises(BundleError) as raised:
        CxrScorer(report(tmp_path / "b", text), engine)
    assert raised.value.code == "bundle-broken"
    assert engine.closed
