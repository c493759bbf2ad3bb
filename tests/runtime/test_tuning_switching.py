"""Build, qualify, then switch: answers come from the first moment, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bedside import open_cxr
from bedside.backends import Backend, EngineInfo, FakeBackend, Tuning
from bedside.bundle import Bundle
from bedside.engines import Auto, hold
from bedside.errors import BackendError
from bedside.radiograph import Finding
from bedside.tuning import BackgroundTuning, ChosenBackend, Plans, SwitchingBackend, key_for
from command_line import draw
from tiny_bundle import make_bundle

PATIENCE_S = 60.0
IMAGE = {"image": np.zeros((1, 1, 2, 2), np.float32)}


class Fake(FakeBackend):
    """Answers with its name, and counts how often it is closed."""

    def __init__(self, name: str) -> None:
        super().__init__(lambda inputs: {"name": np.array([name])})
        self._info = EngineInfo(name, "1", "fp32", "CPU", None)
        self.closings = 0

    def close(self) -> None:
        super().close()
        self.closings += 1


class Prepared:
    """A preparation that comes to what it is told to, when it is told to."""

    def __init__(self, outcome: Backend | Exception | None) -> None:
        self.outcome = outcome
        self.go = threading.Event()
        self.stopped = threading.Event()

    def run(self) -> Backend | None:
        if not self.go.wait(PATIENCE_S):
            raise TimeoutError
        if self.stopped.is_set() and not isinstance(self.outcome, Fake):
            return None
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def stop(self) -> None:
        self.stopped.set()
        self.go.set()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


def answer(engine: Backend) -> str:
    return str(engine.run(IMAGE)["name"][0])


def children(process: str = "self") -> set[int]:
    """Process numbers of all descendants that live."""
    found: set[int] = set()
    for task in (Path("/proc") / process / "task").glob("*/children"):
        try:
            numbers = task.read_text(encoding="ascii").split()
        except OSError:
            continue
        for number in numbers:
            found |= {int(number)} | children(number)
    return {each for each in found if alive(each)}


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def nothing_left() -> Iterator[None]:
    before = children()
    yield
    assert wait_for(lambda: children() <= before)
    assert not [each for each in threading.enumerate() if each.name == "bedside-tuning"]


# With stand-ins


def test_first_engine_answers_until_the_better_one_is_ready() -> None:
    first, better = Fake("first"), Fake("better")
    preparation = Prepared(better)
    with SwitchingBackend(first, preparation) as engine:
        assert [answer(engine) for _ in range(3)] == ["first"] * 3
        assert engine.info.backend == "first"
        preparation.go.set()
        assert engine.wait(PATIENCE_S)
        assert engine.info.backend == "first"
        assert answer(engine) == "better"
        assert engine.info.backend == "better"
        assert (first.closings, better.closings) == (1, 0)
        assert engine.findings == ()
    assert (first.closings, better.closings) == (1, 1)


def test_run_during_the_switch_ends_on_the_engine_that_it_began_on() -> None:
    inside, leave = threading.Event(), threading.Event()
    first, better = Fake("first"), Fake("better")

    def respond(inputs: object) -> dict[str, npt.NDArray[np.str_]]:
        inside.set()
        assert leave.wait(PATIENCE_S)
        assert not first.closed
        return {"name": np.array(["first"])}

    first._respond = respond
    preparation = Prepared(better)
    with SwitchingBackend(first, preparation) as engine:
        answers: list[str] = []
        runner = threading.Thread(target=lambda: answers.append(answer(engine)))
        runner.start()
        assert inside.wait(PATIENCE_S)
        preparation.go.set()
        assert engine.wait(PATIENCE_S)
        assert not first.closed
        leave.set()
        runner.join(PATIENCE_S)
        assert answers == ["first"]
        assert answer(engine) == "better"
        assert first.closed


def test_what_is_held_does_not_change_within_a_scan() -> None:
    preparation = Prepared(Fake("better"))
    with SwitchingBackend(Fake("first"), preparation) as engine:
        with hold(engine):
            assert answer(engine) == "first"
            preparation.go.set()
            assert engine.wait(PATIENCE_S)
            assert answer(engine) == "first"
            assert engine.info.backend == "first"
        with hold(engine):
            assert engine.info.backend == "better"
            assert answer(engine) == "better"


def test_engine_that_never_changes_can_be_held() -> None:
    fake = Fake("only")
    with hold(fake):
        assert answer(fake) == "only"


@pytest.mark.parametrize(
    ("problem", "code"),
    [(BackendError("engine-crashed", "it died"), "engine-crashed"), (KeyError("a surprise"), "internal")],
)
def test_where_the_better_one_fails_the_first_goes_on_and_says_why(problem: Exception, code: str) -> None:
    first, preparation = Fake("first"), Prepared(problem)
    with SwitchingBackend(first, preparation) as engine:
        preparation.go.set()
        assert engine.wait(PATIENCE_S)
        assert answer(engine) == "first"
        (finding,) = engine.findings
        assert finding.code == "tuning-failed"
        assert f"[{code}]" in finding.text
    assert first.closings == 1


def test_closing_in_the_middle_stops_the_preparation() -> None:
    first, preparation = Fake("first"), Prepared(None)
    engine = SwitchingBackend(first, preparation)
    assert answer(engine) == "first"
    engine.close()
    assert preparation.stopped.is_set()
    assert engine.wait(0)
    assert first.closed
    with pytest.raises(BackendError):
        answer(engine)


def test_better_engine_that_was_not_switched_to_is_closed_too() -> None:
    for moment in ("before", "after"):
        better = Fake("better")
        preparation = Prepared(better)
        engine = SwitchingBackend(Fake("first"), preparation)
        if moment == "before":
            preparation.go.set()
            assert engine.wait(PATIENCE_S)
        engine.close()
        assert better.closings == 1


def test_closing_twice_is_harmless() -> None:
    engine = SwitchingBackend(Fake("first"), Prepared(None))
    engine.close()
    engine.close()


def test_switching_tells_what_the_engine_tells() -> None:
    told = (Finding("plan-unused", "a reason"),)
    with SwitchingBackend(ChosenBackend(Fake("first"), "default", told), Prepared(None)) as engine:
        assert engine.findings == told
        assert engine.info.chosen == "default"


# In a process of its own


def test_service_answers_at_once_and_goes_over_to_the_plan(
    bundle: Bundle, tmp_path: Path, nothing_left: None
) -> None:
    for name in ("onnxruntime", "openvino"):
        pytest.importorskip(name)
    picture = draw(tmp_path / "p.png")
    auto = Auto(tmp_path / "cache", in_background=True)
    with open_cxr(bundle, "auto", auto=auto) as scorer:
        first = scorer.score(picture).raise_for_status()
        engine = scorer._backend
        assert isinstance(engine, SwitchingBackend)
        assert engine.wait(PATIENCE_S)
        second = scorer.score(picture).raise_for_status()
    assert first.engine.chosen == "default"
    assert (second.engine.chosen, second.quality) == ("plan", first.quality)
    plan = Plans(tmp_path / "cache").find(key_for(bundle)).plan
    assert plan is not None
    assert plan.ranking[0].backend == second.engine.backend
    with open_cxr(bundle, "auto", auto=auto) as scorer:  # there is a plan now: nothing is tuned
        assert not isinstance(scorer._backend, SwitchingBackend)
        assert scorer.engine.chosen == "plan"


def test_closing_in_the_middle_of_tuning_leaves_no_process_and_no_folder(
    bundle: Bundle, tmp_path: Path, nothing_left: None
) -> None:
    pytest.importorskip("onnxruntime")
    tuning = BackgroundTuning(bundle, Plans(tmp_path / "cache"), tuning=Tuning(workspace_bytes=1 << 20))
    before = children()
    engine = SwitchingBackend(Fake("first"), tuning)
    assert wait_for(lambda: len(children() - before) >= 2)  # that which tunes, and an engine's
    engine.close()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_closing_before_the_process_has_started_starts_none(
    bundle: Bundle, tmp_path: Path, nothing_left: None
) -> None:
    tuning = BackgroundTuning(bundle, Plans(tmp_path))
    tuning.stop()
    assert tuning.run() is None


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "engine-crashed"),
        ("import sys; sys.exit(3)", "engine-crashed"),
        ('print(\'{"error": ["OutputError", "disk-full", "no space"]}\')', "disk-full"),
        ("print('{\"qualified\": false}')", "engine-failed"),
    ],
)
def test_tuning_that_crashes_or_finds_nothing_leaves_the_first_engine(
    code: str, told: str, bundle: Bundle, tmp_path: Path, nothing_left: None
) -> None:
    tuning = BackgroundTuning(bundle, Plans(tmp_path))
    tuning._command = [sys.executable, "-c", code]
    with SwitchingBackend(Fake("first"), tuning) as engine:
        assert engine.wait(PATIENCE_S)
        assert answer(engine) == "first"
        assert f"[{told}]" in engine.findings[0].text


def test_process_that_does_not_end_when_asked_is_killed(
    bundle: Bundle, tmp_path: Path, nothing_left: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bedside.tuning.background._END_S", 0.2)
    tuning = BackgroundTuning(bundle, Plans(tmp_path))
    ready = tmp_path / "ready"
    tuning._command = [
        sys.executable,
        "-c",
        (
            "import pathlib, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
            "pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
        ),
        str(ready),
    ]
    engine = SwitchingBackend(Fake("first"), tuning)
    assert wait_for(ready.exists)
    engine.close()


def test_cache_that_can_t_be_written_is_told_by_the_service(
    bundle: Bundle, tmp_path: Path, nothing_left: None
) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with SwitchingBackend(Fake("first"), BackgroundTuning(bundle, Plans(tmp_path / "file"))) as engine:
        assert engine.wait(PATIENCE_S)
        assert "[cache-not-writable]" in engine.findings[0].text
        assert answer(engine) == "first"


SERVICE = """
import sys, time
from pathlib import Path
from bedside.bundle import Bundle
from bedside.radiograph import Finding
from bedside.tuning import BackgroundTuning, Plans, SwitchingBackend
from bedside.backends import FakeBackend
bundle = Bundle.open(sys.argv[1])
engine = SwitchingBackend(FakeBackend(dict), BackgroundTuning(bundle, Plans(Path(sys.argv[2]))))
print("ready", flush=True)
time.sleep(600)
"""


def test_tuning_ends_with_a_service_that_is_killed(
    bundle: Bundle, tmp_path: Path, nothing_left: None
) -> None:
    service = subprocess.Popen(
        [sys.executable, "-c", SERVICE, bundle.location, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with service:
        assert service.stdout is not None
        assert service.stdout.readline() == b"ready\n"
        assert wait_for(lambda: len(children(str(service.pid))) >= 1)
        others = children(str(service.pid))
        service.kill()
    assert wait_for(lambda: not any(map(alive, others)))
