"""The measurement as a whole, on studies that take no time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bedside.bench import Listener, Outcome, Request, Settings, measure, settings_for
from bedside.bench.figures import Idle
from bedside.bench.session import _scratch
from bedside.bench.traffic import OWN
from bedside.bundle import Bundle
from bedside.device import Machine
from bedside.errors import BackendError, InputError, OutputError, RefusedError
from bedside.quality import check_appearance, check_header, check_pixels
from bedside.radiograph import Header, Radiograph
from command_line import draw, draw_many
from made_bench import FAILED, FEW, NO_METERS, PASSED, MadeClock, MadeSubject, make_rapl, spend
from schemas import make_validator
from tiny_bundle import make_bundle

VALIDATOR = make_validator("bench-1")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> MadeClock:
    """A clock that nobody waits for."""
    clock = MadeClock()
    monkeypatch.setattr("bedside.bench.generators.Clock", lambda check: clock)
    return clock


def run(
    bundle: Bundle, subject: MadeSubject, paths: tuple[Path, ...], settings: Settings = FEW, **options: Any
) -> Outcome:
    request = Request(inputs=paths, settings=settings, generator="bedside")
    return measure(bundle, request, open_subject=subject, meters=NO_METERS, **options)


def test_everything_is_measured_and_told(bundle: Bundle, still: MadeClock, tmp_path: Path) -> None:
    subject = MadeSubject((10.0,), still)
    settings = replace(FEW, queries=100, server=True, idles=(Idle(10.0, 2),), search_steps=3)
    outcome = run(bundle, subject, tuple(draw_many(tmp_path, 3)), settings)
    found = outcome.run
    assert outcome.error is None
    assert (found.valid, found.complete, found.reasons) == (True, True, ())
    assert found.parity == PASSED
    assert [each.name for each in found.scenarios[:2]] == ["single-stream", "offline"]
    assert {each.name for each in found.scenarios[2:]} == {"server"}
    assert found.search is not None
    assert found.search.bound_ms == pytest.approx(50.0)
    assert found.search.bound_from == "5 times the median of the single stream"
    assert {each.generator for each in found.scenarios} == {OWN}
    (start,) = found.starts
    assert (start.kind, len(start.total_ms)) == ("after 10 s", 2)
    assert start.total_ms == pytest.approx((10.0, 10.0))
    assert [each.shape for each in found.samples] == [(100, 80), (101, 80), (102, 80)]
    assert found.peak_memory_mib == 100.0
    assert "not of MLPerf's length" in " ".join(found.notes)
    assert not found.energy.measured
    assert subject.closed
    VALIDATOR.validate(found.to_json())


def test_result_holds_no_name_of_a_file(bundle: Bundle, still: MadeClock, tmp_path: Path) -> None:
    path = draw(tmp_path / "Doe^Jane.png")
    text = str(run(bundle, MadeSubject(clock=still), (path,)).run.to_json())
    assert "Doe" not in text
    assert str(tmp_path) not in text


def test_engine_that_dies_costs_the_rest_and_no_more(
    bundle: Bundle, still: MadeClock, tmp_path: Path
) -> None:
    def fail(number: int) -> None:
        if number == 9:  # one to warm up, five of the stream, three of the offline run
            raise BackendError("engine-crashed", "the process died of SIGSEGV; try another engine")

    found = run(bundle, MadeSubject(clock=still, fail=fail), (draw(tmp_path / "a.png"),))
    stream, offline = found.run.scenarios
    assert (len(stream.queries.samples), stream.complete) == (5, True)
    assert (len(offline.queries.samples), offline.complete) == (3, False)
    assert (found.run.valid, found.run.complete) == (False, False)
    assert "engine-crashed" in found.run.reasons[0]
    assert isinstance(found.error, BackendError)
    VALIDATOR.validate(found.run.to_json())


def test_ctrl_c_keeps_what_was_finished(bundle: Bundle, still: MadeClock, tmp_path: Path) -> None:
    def report(phase: str, done: int, total: int) -> None:
        if (phase, done) == ("offline", 2):
            raise KeyboardInterrupt

    found = run(bundle, MadeSubject(clock=still), (draw(tmp_path / "a.png"),), listener=Listener(report))
    assert isinstance(found.error, KeyboardInterrupt)
    assert [len(each.queries.samples) for each in found.run.scenarios] == [5, 2]
    assert (found.run.valid, found.run.complete) == (True, False)
    assert found.run.reasons == ("it was interrupted",)
    VALIDATOR.validate(found.run.to_json())


@pytest.mark.parametrize(
    ("parity", "told"),
    [
        (FAILED, "extent is off by 0.5, at most 0.01 is allowed; opacity is off by what is not finite"),
        (BackendError("engine-failed", "no kernel; use another"), "the golden inputs were not run"),
    ],
)
def test_engine_that_answers_wrong_is_not_valid(
    bundle: Bundle, still: MadeClock, tmp_path: Path, parity: Any, told: str
) -> None:
    found = run(bundle, MadeSubject(clock=still, parity=parity), (draw(tmp_path / "a.png"),)).run
    assert not found.valid
    assert told in " ".join(found.reasons)


@pytest.mark.parametrize(("throttled", "valid"), [(True, False), (False, True), (None, True)])
def test_machine_that_throttled_is_not_valid(
    bundle: Bundle,
    still: MadeClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    throttled: bool | None,
    valid: bool,
) -> None:
    seen = Machine(
        "A processor", temperature_c=99.0, throttled=throttled, reasons=("core heat",) if throttled else ()
    )
    monkeypatch.setattr("bedside.device.watch.Span.machine", property(lambda self: seen))
    found = run(bundle, MadeSubject(clock=still), (draw(tmp_path / "a.png"),)).run
    assert found.valid is valid
    assert (found.conditions.throttled, found.conditions.hottest_c) == (throttled, 99.0)
    assert any("core heat" in reason for reason in found.reasons) is (throttled is True)
    assert any("does not tell whether" in note for note in found.notes) is (throttled is None)


def test_no_picture_is_told(bundle: Bundle, still: MadeClock, tmp_path: Path) -> None:
    (tmp_path / "readme.md").write_text("nothing to see")
    with pytest.raises(InputError, match="no picture") as caught:
        run(bundle, MadeSubject(clock=still), (tmp_path,))
    assert caught.value.code == "not-found"


def test_one_picture_is_enough_and_said(bundle: Bundle, still: MadeClock, tmp_path: Path) -> None:
    found = run(bundle, MadeSubject(clock=still), (draw(tmp_path / "a.png"),)).run
    assert set(found.scenarios[0].queries.samples) == {0}
    assert any("one input alone" in note for note in found.notes)


def test_pictures_without_an_answer_are_left_out(bundle: Bundle, still: MadeClock, tmp_path: Path) -> None:
    draw_many(tmp_path, 3)
    refused = RefusedError("wrong-view", "a lateral view; give a frontal one")
    subject = MadeSubject(clock=still, refused={"000.png": refused, "001.png": refused})
    found = run(bundle, subject, (tmp_path,)).run
    assert found.left_out == {"wrong-view": 2}
    assert set(subject.studies) == {2}
    assert set(found.scenarios[0].queries.samples) == {0}


@pytest.mark.parametrize(("count", "told"), [(1, "a lateral view"), (3, "none of 3 inputs")])
def test_nothing_but_such_pictures_is_an_error(
    bundle: Bundle, still: MadeClock, tmp_path: Path, count: int, told: str
) -> None:
    paths = tuple(draw_many(tmp_path, count))
    refused = RefusedError("wrong-view", "a lateral view; give a frontal one")
    with pytest.raises(InputError, match=told):
        run(bundle, MadeSubject(clock=still, refused=dict.fromkeys((p.name for p in paths), refused)), paths)


@pytest.mark.parametrize(
    "refuse",
    [
        lambda: check_header(Header("DICOM", modality="MR")),
        lambda: check_pixels(Radiograph(np.eye(8, dtype=np.float32), Header("PNG"))),
        lambda: check_appearance(
            {"frontal": 0.0, "upside-down": 1.0}, Bundle.open("cxr-severity-lite").manifest
        ),
    ],
)
def test_refusal_does_not_offer_an_option_that_bench_has_not(
    bundle: Bundle, still: MadeClock, tmp_path: Path, refuse: Callable[[], object]
) -> None:
    with pytest.raises(RefusedError, match="--force") as caught:
        refuse()
    path = draw(tmp_path / "a.png")
    with pytest.raises(InputError) as told:
        run(bundle, MadeSubject(clock=still, refused={path.name: caught.value}), (path,))
    assert "force" not in told.value.message
    assert told.value.message.endswith("; give another")
    assert caught.value.message[:20] in told.value.message


def test_engine_that_can_do_no_study_is_an_error(bundle: Bundle, still: MadeClock, tmp_path: Path) -> None:
    def fail(number: int) -> None:
        raise BackendError("engine-failed", "no kernel; use another")

    with pytest.raises(BackendError):
        run(bundle, MadeSubject(clock=still, fail=fail), tuple(draw_many(tmp_path, 2)))


def test_many_pictures_are_thinned_out_evenly(bundle: Bundle, still: MadeClock, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(130):
        (folder / f"{number:03}.png").write_bytes(b"-")
    subject = MadeSubject(clock=still)
    run(bundle, subject, (folder,))
    assert len(subject.paths) == 64
    assert (subject.paths[0].name, subject.paths[-1].name) == ("000.png", "127.png")


def test_full_disk_in_the_middle_keeps_the_run(bundle: Bundle, still: MadeClock, tmp_path: Path) -> None:
    def fail(number: int) -> None:
        if number == 4:
            raise OutputError("disk-full", "the output can't be written; free space")

    found = run(bundle, MadeSubject(clock=still, fail=fail), (draw(tmp_path / "a.png"),))
    assert isinstance(found.error, OutputError)
    assert len(found.run.scenarios[0].queries.samples) == 3
    assert not found.run.valid


def test_scratch_folder_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError) as caught, _scratch(tmp_path / "file"):
        pass
    assert caught.value.code == "output-not-writable"


def test_scratch_folder_is_taken_away(bundle: Bundle, still: MadeClock, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    request = Request(inputs=(draw(tmp_path / "a.png"),), settings=FEW, generator="bedside", scratch=scratch)
    measure(bundle, request, open_subject=MadeSubject(clock=still), meters=NO_METERS)
    assert list(scratch.iterdir()) == []


def test_bound_that_a_study_alone_exceeds_is_not_searched(
    bundle: Bundle, still: MadeClock, tmp_path: Path
) -> None:
    settings = replace(FEW, server=True, latency_bound_ms=5.0)
    found = run(bundle, MadeSubject((10.0,), still), (draw(tmp_path / "a.png"),), settings).run
    assert found.search is not None
    assert (found.search.best_per_second, found.search.bound_from) == (None, "asked for")
    assert not [each for each in found.scenarios if each.name == "server"]


def test_energy_of_the_studies_is_told(
    bundle: Bundle, still: MadeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bedside.bench.meters import RaplMeter
    from bedside.device.tree import Tree

    root = make_rapl(tmp_path / "root")
    spent = [1_000_000]

    def fail(number: int) -> None:
        spent[0] += 2_000_000  # 2 J a study, and none without
        spend(root, "intel-rapl:0", spent[0])

    settings = replace(FEW, idle_power_s=0.01)
    request = Request(inputs=(draw(tmp_path / "a.png"),), settings=settings, generator="bedside")
    subject = MadeSubject(clock=still, fail=fail)
    found = measure(bundle, request, open_subject=subject, meters=([RaplMeter(Tree(root))], ("no GPU",))).run
    assert found.energy.measured
    assert found.energy.reason == "no GPU"
    assert found.energy.counted[0] == "rapl package-0"
    assert [each.scenario for each in found.energy.studies] == ["single-stream", "offline"]
    assert [each.per_study_j for each in found.energy.studies] == pytest.approx([2.0, 2.0], rel=1e-3)


def test_settings_are_short_and_shorter_for_ct() -> None:
    assert settings_for("cxr-severity").duration_s < 600
    assert settings_for("ct-opacity").queries < settings_for("cxr-severity").queries
    assert not settings_for("ct-opacity").server
    assert settings_for("cxr-severity", quick=True).queries < settings_for("cxr-severity").queries
