"""``backend="auto"``: a tuned plan's engine where there is a valid one, else the reference; the result says which."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bedside import open_ct, open_cxr
from bedside.backends import Backend, EngineInfo, FakeBackend, Tuning
from bedside.bundle import Bundle
from bedside.engines import Auto, EngineRequest, open_engine
from bedside.errors import BackendError, BedsideError, MissingExtraError
from bedside.guard import Guard
from bedside.tuning import (
    Choice,
    ChosenBackend,
    Plan,
    Planned,
    Plans,
    Request,
    keep,
    key_for,
    open_tuned,
    tune,
)
from command_line import draw
from tiny_bundle import Network, golden_images, make_bundle
from tiny_ct_bundle import make_ct_bundle

BF16 = Planned("openvino", "2026.4.1", "bf16", None, "extent", 0.05, 0.1, 9.5)
FP32 = Planned("openvino", "2026.4.1", "fp32", 2, "extent", 1e-6, 0.01, 30.0)
LAST = Planned("onnxruntime", "1.31.1", "fp32", None, "extent", 1e-6, 0.01, 40.0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


class Shelf:
    """Opens fakes that say they are what was asked for; what is in ``broken`` raises that instead."""

    def __init__(self, broken: dict[tuple[str, str], BedsideError] | None = None) -> None:
        self.broken = broken or {}
        self.asked: list[tuple[str, str, int | None]] = []
        self.caches: list[Path | None] = []
        self.opened: list[FakeBackend] = []
        self.versions = {"openvino": "2026.4.1", "onnxruntime": "1.31.1"}

    def open(
        self, name: str, bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning | None
    ) -> Backend:
        self.asked.append((name, precision, threads))
        self.caches.append(tuning.cache if tuning else None)
        if (name, precision) in self.broken:
            raise self.broken[name, precision]
        engine = FakeBackend(lambda inputs: dict(Network().run(inputs["image"])), precision)
        engine._info = EngineInfo(name, self.versions[name], precision, "CPU", threads)
        self.opened.append(engine)
        return engine


def planned(bundle: Bundle, folder: Path, *ranking: Planned, threads: int | None = None) -> Plans:
    plans = Plans(folder)
    plans.write(Plan(key_for(bundle, threads=threads), "2026-11-22T00:44:49+00:00", ranking))
    return plans


def what(engine: ChosenBackend) -> tuple[str, str, str]:
    return engine.info.backend, engine.info.precision, engine.info.chosen


def codes(engine: ChosenBackend) -> list[str]:
    return [finding.code for finding in engine.findings]


# Which engine


def test_without_a_plan_the_reference_runs(bundle: Bundle, tmp_path: Path) -> None:
    shelf = Shelf()
    engine = open_tuned(bundle, threads=3, plans=Plans(tmp_path), open_engine=shelf.open)
    assert what(engine) == ("onnxruntime", "fp32", "default")
    assert engine.info.threads == 3
    assert engine.findings == ()


def test_the_best_of_a_plan_runs_with_its_threads(bundle: Bundle, tmp_path: Path) -> None:
    plans, shelf = planned(bundle, tmp_path, FP32, LAST), Shelf()
    engine = open_tuned(bundle, plans=plans, open_engine=shelf.open)
    assert what(engine) == ("openvino", "fp32", "plan")
    assert engine.info.threads == 2
    assert engine.findings == ()
    assert shelf.asked == [("openvino", "fp32", 2)]
    engine.close()
    assert shelf.opened[0].closed


@pytest.mark.parametrize(
    "code", ["engine-failed", "engine-unsupported", "engine-crashed", "engine-hung", "engine-foreign"]
)
def test_engine_of_a_plan_that_does_not_open_has_the_next_one_run_and_says_so(
    code: str, bundle: Bundle, tmp_path: Path
) -> None:
    plans = planned(bundle, tmp_path, BF16, FP32, LAST)
    shelf = Shelf({("openvino", "bf16"): BackendError(code, "it does not open; see to it")})
    engine = open_tuned(bundle, plans=plans, open_engine=shelf.open)
    assert what(engine) == ("openvino", "fp32", "fallback")
    (finding,) = engine.findings
    assert finding.code == "engine-fallback"
    assert f"[{code}]" in finding.text
    assert finding.text.endswith("openvino fp32, 2 threads runs instead")


def test_where_nothing_of_a_plan_opens_the_reference_runs(bundle: Bundle, tmp_path: Path) -> None:
    plans = planned(bundle, tmp_path, BF16, FP32)
    problem = MissingExtraError("missing-extra", "openvino is not installed")
    shelf = Shelf({("openvino", "bf16"): problem, ("openvino", "fp32"): problem})
    engine = open_tuned(bundle, plans=plans, open_engine=shelf.open)
    assert what(engine) == ("onnxruntime", "fp32", "fallback")
    assert codes(engine) == ["engine-fallback"]
    assert engine.findings[0].text.count("missing-extra") == 2


def test_where_not_even_the_reference_opens_it_is_an_error(bundle: Bundle, tmp_path: Path) -> None:
    shelf = Shelf({("onnxruntime", "fp32"): BackendError("engine-failed", "no")})
    with pytest.raises(BackendError):
        open_tuned(bundle, plans=Plans(tmp_path), open_engine=shelf.open)


def test_engine_that_turns_out_of_another_version_is_closed_and_not_used(
    bundle: Bundle, tmp_path: Path
) -> None:
    plans, shelf = planned(bundle, tmp_path, BF16, LAST), Shelf()
    shelf.versions["openvino"] = "2026.5.0"
    engine = open_tuned(bundle, plans=plans, open_engine=shelf.open)
    assert what(engine) == ("onnxruntime", "fp32", "fallback")
    assert "2026.5.0" in engine.findings[0].text
    assert "engine-foreign" in engine.findings[0].text
    assert shelf.opened[0].closed


def test_plan_of_another_device_is_not_used_and_says_so(bundle: Bundle, tmp_path: Path) -> None:
    plans, shelf = Plans(tmp_path), Shelf()
    key = replace(key_for(bundle), device="jetson-orin-nano-0123456789ab")
    plans.write(Plan(key, "2026-11-22T00:44:49+00:00", (BF16,)))
    engine = open_tuned(bundle, plans=plans, open_engine=shelf.open)
    assert what(engine) == ("onnxruntime", "fp32", "default")
    assert shelf.asked == [("onnxruntime", "fp32", None)]
    (finding,) = engine.findings
    assert finding.code == "plan-unused"
    assert "another device or driver" in finding.text


def test_plan_for_other_threads_says_how_to_tune_for_these(bundle: Bundle, tmp_path: Path) -> None:
    plans, shelf = planned(bundle, tmp_path, BF16), Shelf()
    engine = open_tuned(bundle, threads=2, plans=plans, open_engine=shelf.open)
    assert what(engine) == ("onnxruntime", "fp32", "default")
    (finding,) = engine.findings
    assert finding.text.endswith("run bedside tune with --threads 2")


def test_altered_plan_is_not_used_and_says_so(bundle: Bundle, tmp_path: Path) -> None:
    plans, shelf = planned(bundle, tmp_path, BF16), Shelf()
    path = plans.path(key_for(bundle))
    path.write_bytes(path.read_bytes().replace(b"9.5", b"8.5"))
    engine = open_tuned(bundle, plans=plans, open_engine=shelf.open)
    assert what(engine) == ("onnxruntime", "fp32", "default")
    assert codes(engine) == ["plan-unused"]


def test_cache_that_can_t_be_read_is_as_none_with_a_note(bundle: Bundle, tmp_path: Path) -> None:
    plans, shelf = Plans(tmp_path), Shelf()
    plans.path(key_for(bundle)).mkdir(parents=True)
    engine = open_tuned(bundle, plans=plans, open_engine=shelf.open)
    assert what(engine) == ("onnxruntime", "fp32", "default")
    assert codes(engine) == ["plan-unused"]


def test_threads_that_were_asked_for_need_a_plan_for_them(bundle: Bundle, tmp_path: Path) -> None:
    plans, shelf = planned(bundle, tmp_path, FP32, threads=2), Shelf()
    assert what(open_tuned(bundle, threads=2, plans=plans, open_engine=shelf.open))[2] == "plan"
    other = open_tuned(bundle, threads=1, plans=plans, open_engine=shelf.open)
    assert what(other)[2] == "default"
    assert other.info.threads == 1


def test_built_engine_s_folder_is_given_and_an_altered_one_never_is(bundle: Bundle, tmp_path: Path) -> None:
    plans = Plans(tmp_path)
    folder = plans.make_folder(key_for(bundle), BF16.candidate)
    (folder / "model.engine").write_bytes(b"built")
    name, files = plans.seal(folder)
    plans.write(
        Plan(key_for(bundle), "2026-11-22T00:44:49+00:00", (replace(BF16, folder=name, files=files), LAST))
    )
    shelf = Shelf()
    assert what(open_tuned(bundle, plans=plans, open_engine=shelf.open)) == ("openvino", "bf16", "plan")
    assert shelf.caches == [folder]
    (folder / "model.engine").write_bytes(b"Built")
    shelf = Shelf()
    engine = open_tuned(bundle, plans=plans, open_engine=shelf.open)
    assert what(engine) == ("onnxruntime", "fp32", "fallback")
    assert shelf.asked == [("onnxruntime", "fp32", None)]
    assert "engine-foreign" in engine.findings[0].text


# Through the jobs


def real_plan(bundle: Bundle, cache: Path) -> None:
    for name in ("onnxruntime", "openvino"):
        pytest.importorskip(name)
    request = Request(Choice(("openvino",), ("fp32",)), rounds=1)
    assert keep(tune(bundle, request, plans=Plans(cache)), Plans(cache)) is not None


def test_score_says_whether_a_plan_or_the_default_ran(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    picture = draw(tmp_path / "p.png")
    auto = Auto(tmp_path / "cache")
    with open_cxr(bundle, "auto", auto=auto) as scorer:
        before = scorer.score(picture).raise_for_status()
    real_plan(bundle, tmp_path / "cache")
    with open_cxr(bundle, "auto", auto=auto) as scorer:
        after = scorer.score(picture).raise_for_status()
    assert (before.engine.backend, before.engine.chosen) == ("onnxruntime", "default")
    assert (after.engine.backend, after.engine.chosen) == ("openvino", "plan")
    assert after.to_json()["engine"]["chosen"] == "plan"
    assert before.extent is not None
    assert after.extent is not None
    assert after.extent.value == pytest.approx(before.extent.value, abs=0.01)


def test_scan_says_whether_a_plan_ran(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    bundle = Bundle.open(make_ct_bundle(tmp_path / "ct"))
    auto = Auto(tmp_path / "cache")
    with open_ct(bundle, "auto", auto=auto) as segmenter:
        assert segmenter.engine.chosen == "default"
    real_plan(bundle, tmp_path / "cache")
    with open_ct(bundle, "auto", auto=auto) as segmenter:
        assert (segmenter.engine.backend, segmenter.engine.chosen) == ("openvino", "plan")


def test_backend_that_is_named_keeps_what_it_builds_where_it_is_told(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    for cache, kept in ((None, False), (tmp_path / "cache", True)):
        with open_cxr(bundle, "openvino", auto=Auto(cache)) as scorer:
            assert scorer.engine.chosen == "asked"
        assert any(tmp_path.rglob("*.blob")) is kept


def test_plan_that_is_not_used_is_told_in_the_result(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    plans = planned(bundle, tmp_path / "cache", BF16)
    path = plans.path(key_for(bundle))
    path.write_bytes(path.read_bytes()[:-2])
    with open_cxr(bundle, "auto", auto=Auto(tmp_path / "cache")) as scorer:
        result = scorer.score(draw(tmp_path / "p.png")).raise_for_status()
    assert [finding.code for finding in result.quality].count("plan-unused") == 1


def test_auto_chooses_the_precision_itself(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BackendError) as caught:
        open_cxr(bundle, "auto", precision="fp32", auto=Auto(tmp_path))
    assert caught.value.code == "engine-unsupported"


def test_auto_goes_with_a_watchdog_and_a_fallback(bundle: Bundle, tmp_path: Path) -> None:
    real_plan(bundle, tmp_path)
    request = EngineRequest("auto", guard=Guard(watchdog_s=60.0, fallback=True), auto=Auto(tmp_path))
    engine = open_engine(bundle, request)
    try:
        assert (engine.info.backend, engine.info.chosen) == ("openvino", "plan")
        assert "severity" in engine.run({"image": golden_images()[:1]})
    finally:
        engine.close()


def test_named_backend_never_reads_a_plan(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    real_plan(bundle, tmp_path)
    with open_cxr(bundle, "onnxruntime", auto=Auto(tmp_path)) as scorer:
        assert (scorer.engine.backend, scorer.engine.chosen) == ("onnxruntime", "asked")
