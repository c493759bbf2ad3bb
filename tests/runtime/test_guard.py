"""Behind an engine that breaks another one goes on, once, and every result says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bedside.backends import BACKENDS, Backend, EngineInfo, FakeBackend, open_backend
from bedside.backends.base import Arrays
from bedside.bundle import Bundle
from bedside.engines import EngineRequest, open_engine
from bedside.errors import BackendError, BundleError, MissingExtraError
from bedside.guard import Guard, GuardedBackend
from bedside.isolation import IsolatedBackend, Limits
from bedside.radiograph import Finding
from bedside.scan import Volume
from bedside.scorer import CxrScorer, open_cxr
from bedside.segmentation import Request
from bedside.segmenter import CtSegmenter, open_ct
from command_line import draw, draw_many, invoke
from made_scans import phantom_scan
from tiny_bundle import SIDE, Network, make_bundle, read_manifest, seal
from tiny_ct_bundle import make_ct_bundle

Floats = npt.NDArray[np.float32]
BREAKS = ("engine-crashed", "engine-hung", "engine-failed")
IMAGE = {"image": np.ones((1, 1, SIDE, SIDE), np.float32)}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_bundle(tmp_path_factory.mktemp("bundle") / "b"))


class Named(FakeBackend):
    """A fake with a name, which raises `error` once there is one."""

    def __init__(self, name: str) -> None:
        super().__init__(self.answer)
        self.error: BackendError | None = None
        self._name = name

    @property
    def info(self) -> EngineInfo:
        return replace(super().info, backend=self._name)

    def answer(self, inputs: Mapping[str, Floats]) -> Arrays:
        if self.error is not None:
            raise self.error
        return Network().run(inputs["image"])


class Pair:
    """Two engines, one behind the other, and how often each was opened."""

    def __init__(self) -> None:
        self.first, self.second = Named("first"), Named("second")
        self.opened: list[str] = []

    def open_first(self) -> Backend:
        self.opened.append("first")
        return self.first

    def open_second(self) -> Backend:
        self.opened.append("second")
        return self.second

    def guard(self) -> GuardedBackend:
        return GuardedBackend(self.open_first, self.open_second)


@pytest.fixture
def pair() -> Pair:
    return Pair()


# One engine behind another


def test_sound_engine_runs_and_nothing_else_is_opened(pair: Pair) -> None:
    engine = pair.guard()
    engine.run(IMAGE)
    assert (engine.info.backend, engine.info.chosen, engine.findings) == ("first", "asked", ())
    assert pair.opened == ["first"]
    engine.close()
    assert pair.first.closed
    assert not pair.second.closed


@pytest.mark.parametrize("code", BREAKS)
def test_broken_engine_is_replaced_for_good_and_its_input_is_answered(pair: Pair, code: str) -> None:
    engine = pair.guard()
    pair.first.error = BackendError(code, "first broke (a reason); do something")
    for _ in range(3):
        assert "severity" in engine.run(IMAGE)
    assert (len(pair.first.calls), len(pair.second.calls)) == (1, 3)
    assert pair.opened == ["first", "second"]
    assert pair.first.closed
    assert (engine.info.backend, engine.info.chosen) == ("second", "fallback")
    told = f"first broke (a reason) [{code}]; second fp32 runs instead from there on"
    assert engine.findings == (Finding("engine-replaced", told),)
    engine.close()
    assert pair.second.closed


@pytest.mark.parametrize("code", BREAKS)
def test_engine_that_breaks_in_opening_is_replaced(pair: Pair, code: str) -> None:
    def break_down() -> Backend:
        raise BackendError(code, "first can't be opened; do something")

    engine = GuardedBackend(break_down, pair.open_second)
    engine.run(IMAGE)
    assert (engine.info.backend, engine.info.chosen) == ("second", "fallback")
    assert [finding.code for finding in engine.findings] == ["engine-replaced"]


@pytest.mark.parametrize(
    "error",
    [
        BackendError("engine-unsupported", "not here"),
        BackendError("not-finite", "NaN"),
        BundleError("bundle-precision", "no int8"),
        MissingExtraError.of("openvino", "openvino", "the backend"),
    ],
    ids=lambda error: error.code,
)
def test_what_is_not_there_is_an_error_and_no_reason_for_another_engine(
    pair: Pair, error: BackendError
) -> None:
    def refuse() -> Backend:
        raise error

    with pytest.raises(type(error)):
        GuardedBackend(refuse, pair.open_second)
    engine = pair.guard()
    pair.first.error = error
    with pytest.raises(type(error)):
        engine.run(IMAGE)
    assert "second" not in pair.opened
    assert not pair.first.closed


def test_second_engine_that_breaks_too_is_the_error(pair: Pair) -> None:
    engine = pair.guard()
    pair.first.error = BackendError("engine-crashed", "first")
    pair.second.error = BackendError("engine-hung", "second")
    for _ in range(2):
        with pytest.raises(BackendError, match="second"):
            engine.run(IMAGE)
    assert pair.opened == ["first", "second"]


def test_second_engine_that_can_t_be_opened_leaves_the_first(pair: Pair) -> None:
    def refuse() -> Backend:
        raise MissingExtraError.of("onnxruntime", "cpu", "the backend")

    engine = GuardedBackend(pair.open_first, refuse)
    pair.first.error = BackendError("engine-failed", "first")
    with pytest.raises(MissingExtraError):
        engine.run(IMAGE)
    pair.first.error = None
    engine.run(IMAGE)
    assert engine.info.chosen == "asked"


def test_closed_is_closed_and_not_broken(pair: Pair) -> None:
    engine = pair.guard()
    engine.close()
    engine.close()
    with pytest.raises(BackendError) as caught:
        engine.run(IMAGE)
    assert caught.value.code == "engine-failed"
    assert pair.opened == ["first"]


# Results


def test_result_says_what_answered_and_why(bundle: Bundle, pair: Pair, tmp_path: Path) -> None:
    picture = draw(tmp_path / "a.png")
    with CxrScorer(bundle, pair.guard()) as scorer:
        before = scorer.score(picture)
        pair.first.error = BackendError("engine-crashed", "first died of SIGSEGV; try another")
        after = [scorer.score(picture).raise_for_status() for _ in range(2)]
    assert (before.engine.backend, before.engine.chosen) == ("first", "asked")
    assert "engine-replaced" not in {finding.code for finding in before.quality}
    for result in after:
        assert (result.engine.backend, result.engine.chosen) == ("second", "fallback")
        assert [f.text for f in result.quality if f.code == "engine-replaced"] == [
            "first died of SIGSEGV [engine-crashed]; second fp32 runs instead from there on"
        ]
        assert result.extent == before.extent


def test_doubts_are_those_of_the_engine_that_answered(pair: Pair, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b")
    engines = [{"backend": "second", "precision": "fp32", "status": "failed"}]
    (folder / "parity.json").write_text(json.dumps({"engines": engines}))
    picture = draw(tmp_path / "a.png")
    with CxrScorer(Bundle.open(seal(folder)), pair.guard()) as scorer:
        assert "engine-unfit" not in {finding.code for finding in scorer.score(picture).quality}
        pair.first.error = BackendError("engine-failed", "first")
        assert "engine-unfit" in {finding.code for finding in scorer.score(picture).quality}


def test_crash_on_a_picture_costs_nothing_with_a_fallback_and_one_score_without(
    bundle: Bundle, tmp_path: Path
) -> None:
    picture = draw(tmp_path / "a.png")

    def isolated() -> Backend:
        return IsolatedBackend("crashing_engines:segfaults_on_pictures", bundle, limits=Limits(60, 60))

    with CxrScorer(bundle, isolated()) as scorer:
        result = scorer.score(picture)
    assert (result.status, result.error and result.error.code) == ("failed", "engine-crashed")
    with CxrScorer(bundle, GuardedBackend(isolated, Pair().open_second)) as scorer:
        result = scorer.score(picture).raise_for_status()
    assert result.engine.chosen == "fallback"


def test_scan_goes_on_where_the_engine_broke_in_the_middle(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    bundle = Bundle.open(make_ct_bundle(tmp_path / "b"))
    hu, _, geometry = phantom_scan("severe", 24, 96)
    scan = Volume(hu, geometry.affine)

    class Breaking:
        """The same engine, which breaks at its third run."""

        def __init__(self) -> None:
            self.engine = open_backend("onnxruntime", bundle)
            self.info = self.engine.info
            self.runs = 0

        def run(self, inputs: Mapping[str, Floats]) -> Arrays:
            self.runs += 1
            if self.runs == 3:
                raise BackendError("engine-hung", "it hung; wait")
            return self.engine.run(inputs)

        def close(self) -> None:
            self.engine.close()

    with CtSegmenter(bundle, open_backend("onnxruntime", bundle)) as segmenter:
        expected = segmenter.segment(scan).raise_for_status()
    guarded = GuardedBackend(Breaking, lambda: open_backend("onnxruntime", bundle))
    with CtSegmenter(bundle, guarded) as segmenter:
        result = segmenter.segment(scan).raise_for_status()
    assert result.opacification is not None
    assert expected.opacification is not None
    assert result.opacification == expected.opacification
    assert (expected.engine.chosen, result.engine.chosen) == ("asked", "fallback")
    assert "engine-replaced" in {finding.code for finding in result.quality}


def test_watched_scan_has_the_same_volumes_and_its_engine_counts_as_memory(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    bundle = Bundle.open(make_ct_bundle(tmp_path / "b"))
    hu, _, geometry = phantom_scan("severe", 24, 96)
    scan = Volume(hu, geometry.affine)
    with open_ct(bundle) as segmenter:
        here = segmenter.segment(scan).raise_for_status()
    with open_ct(bundle, guard=Guard(60.0)) as segmenter:
        there = segmenter.segment(scan).raise_for_status()
        roomy = segmenter.segment(scan, Request(memory_bytes=1 << 40)).raise_for_status()
        tight = segmenter.segment(scan, Request(memory_bytes=1 << 20))
    assert there.opacification == here.opacification == roomy.opacification
    assert there.peak_memory_mib is not None
    assert here.peak_memory_mib is not None
    assert there.peak_memory_mib > here.peak_memory_mib
    assert tight.error is not None
    assert tight.error.code == "memory-too-small"


# Opening what was asked for


def two_faced(folder: Path) -> Path:
    """A bundle whose fp32 file runs and whose int8 file no engine can load."""
    make_bundle(folder)
    broken = Network().encode().replace(b"AveragePool", b"AveragePoof")
    (folder / "int8.onnx").write_bytes(broken)
    manifest = {key: value for key, value in read_manifest(folder).items() if key != "files"}
    manifest["models"]["int8"] = "int8.onnx"
    manifest["tolerances"]["int8"] = manifest["tolerances"]["bf16"]
    return seal(folder, manifest)


@pytest.mark.parametrize("watchdog", [None, 60.0])
def test_fallback_is_the_reference_and_only_where_it_was_asked_for(
    watchdog: float | None, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    folder = two_faced(tmp_path / "b")
    with pytest.raises(BackendError) as caught:
        open_cxr(folder, precision="int8", guard=Guard(watchdog))
    assert caught.value.code == "engine-failed"
    with open_cxr(folder, precision="int8", guard=Guard(watchdog, fallback=True)) as scorer:
        result = scorer.score(draw(tmp_path / "a.png")).raise_for_status()
    engine = result.engine
    assert (engine.backend, engine.precision, engine.chosen) == ("onnxruntime", "fp32", "fallback")
    assert result.to_json()["engine"]["chosen"] == "fallback"


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("watchdog", [None, 60.0])
def test_engine_is_warm_when_it_is_open(name: str, watchdog: float | None, bundle: Bundle) -> None:
    pytest.importorskip(BACKENDS[name].package)
    try:
        engine = open_engine(bundle, EngineRequest(name, threads=1, guard=Guard(watchdog)))
    except BackendError as error:
        pytest.skip(error.code)
    assert isinstance(engine, IsolatedBackend) == (watchdog is not None)
    assert engine.run(IMAGE)["severity"].shape == (1, 2)
    assert (engine.info.backend, engine.info.threads, engine.info.chosen) == (name, 1, "asked")
    engine.close()


def test_opening_runs_the_network_once(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Named("fake")
    monkeypatch.setattr("bedside.engines.open_backend", lambda *_, **__: fake)
    open_engine(bundle, EngineRequest())
    assert [list(call) for call in fake.calls] == [["image"]]
    assert fake.calls[0]["image"].shape == (1, 1, SIDE, SIDE)
    fake.error = BackendError("engine-failed", "it opens and does not run")
    with pytest.raises(BackendError):
        open_engine(bundle, EngineRequest())
    assert fake.closed


@pytest.mark.parametrize("name", ["nothing", "crashing_engines:good", "os:abort"])
def test_backend_is_one_of_the_table(name: str, bundle: Bundle) -> None:
    for guard in (Guard(), Guard(60), Guard(60, fallback=True)):
        with pytest.raises(BackendError) as caught:
            open_engine(bundle, EngineRequest(name, guard=guard))
        assert caught.value.code == "engine-unsupported"


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_watchdog_is_a_time(seconds: float, bundle: Bundle) -> None:
    with pytest.raises(BackendError) as caught:
        open_engine(bundle, EngineRequest(guard=Guard(seconds)))
    assert caught.value.code == "engine-unsupported"


def test_fallback_that_is_not_installed_is_told_at_once(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bedside.engines.find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"bedside\[cpu\]"):
        open_engine(bundle, EngineRequest("openvino", guard=Guard(fallback=True)))


# The command line


def test_score_goes_on_with_the_fallback_and_says_so(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    folder = two_faced(tmp_path / "b")
    draw_many(tmp_path / "in", 2)
    asked: list[str | Path] = ["score", "--bundle", folder, "--precision", "int8", "--json", tmp_path / "in"]
    failed = invoke(*asked, "--watchdog", "60s")
    assert failed.exit_code == 2
    assert "[engine-failed]" in failed.stderr
    done = invoke(*asked, "--watchdog", "60s", "--fallback")
    assert done.exit_code == 0
    for line in done.stdout.splitlines():
        record = json.loads(line)
        assert record["engine"]["chosen"] == "fallback"
        assert "engine-replaced" in {each["code"] for each in record["quality"]}


def test_watched_scores_are_the_same(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    picture = draw(tmp_path / "a.png")
    asked: list[str | Path] = ["score", "--bundle", bundle.location, "--json", picture]
    here, there = invoke(*asked), invoke(*asked, "--watchdog", "1min")
    assert (here.exit_code, there.exit_code) == (0, 0)
    same = ("extent", "opacity", "engine", "quality")
    a, b = (json.loads(done.stdout) for done in (here, there))
    assert {key: a[key] for key in same} == {key: b[key] for key in same}


@pytest.mark.parametrize("command", ["score", "segment"])
def test_watchdog_that_is_no_time_is_refused(command: str, tmp_path: Path) -> None:
    done = invoke(command, "--watchdog", "soon", tmp_path)
    assert done.exit_code == 2
    assert "not a time" in done.stderr
