"""How an engine's process ends: it crashes, hangs, is closed, or its user ends; nothing is left of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bedside.backends import Tuning
from bedside.bundle import Bundle
from bedside.errors import BackendError
from bedside.isolation import IsolatedBackend, Limits
from isolated_engines import crashing, gone, nothing_left, picture, wait_for
from tiny_bundle import make_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "someone's bundle")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return Bundle.open(folder)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with nothing_left():
        yield


# Crashes


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("segfaults", "died of SIGSEGV in running the model"),
        ("killed", "was killed (SIGKILL, as the system does where memory runs out) in running the model"),
        ("leaves", "ended by itself (exit code 7) in running the model"),
        ("eats_memory", "ran out of memory"),
        ("chatters_and_crashes", "died of SIGSEGV"),
    ],
)
def test_crash_costs_one_answer(name: str, words: str, bundle: Bundle) -> None:
    with crashing(name, bundle, Limits(open_s=60, run_s=60)) as engine:
        good = engine.run({"image": picture()})["severity"]
        for _ in range(2):
            process = engine.process
            with pytest.raises(BackendError) as caught:
                engine.run({"image": picture(0)})
            assert caught.value.code == "engine-crashed"
            assert words in caught.value.message
            assert engine.process is None
            np.testing.assert_array_equal(engine.run({"image": picture()})["severity"], good)
            assert engine.process not in (None, process)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("segfaults_opening", "died of SIGSEGV in opening the model"),
        ("leaves_opening", "ended by itself (exit code 7) in opening the model"),
    ],
)
def test_crash_in_opening_is_told(name: str, words: str, bundle: Bundle) -> None:
    with pytest.raises(BackendError) as caught:
        crashing(name, bundle)
    assert caught.value.code == "engine-crashed"
    assert words in caught.value.message


def test_last_words_are_told_without_paths(bundle: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BackendError) as caught:
        crashing("aborts", bundle)
    assert caught.value.code == "engine-crashed"
    assert (
        "died of SIGABRT in opening the model (fatal: no tactic for (path) layer 7); try"
        in caught.value.message
    )
    assert "someone" not in caught.value.message
    assert capfd.readouterr() == ("", "")


def test_chatter_does_not_reach_the_terminal_and_blocks_nothing(
    bundle: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    with crashing("chatters", bundle, Limits(60, 60)) as engine:
        for _ in range(3):
            assert engine.run({"image": picture(0)})["severity"].shape == (1, 2)
    assert capfd.readouterr() == ("", "")


# Hangs


@pytest.mark.parametrize("name", ["hangs", "hangs_in_c"])
def test_hung_engine_is_stopped_and_the_next_run_starts_it_anew(name: str, bundle: Bundle) -> None:
    with crashing(name, bundle) as engine:
        process = engine.process
        assert process is not None
        with pytest.raises(BackendError) as caught:
            engine.run({"image": picture(0)})
        assert caught.value.code == "engine-hung"
        assert "stopped after 1.5 s" in caught.value.message
        assert gone(process)
        assert engine.run({"image": picture()})["severity"].shape == (1, 2)


@pytest.mark.parametrize("name", ["hangs_opening", "builds_for_ever"])
def test_engine_that_hangs_in_opening_is_stopped(name: str, bundle: Bundle) -> None:
    told: list[str] = []
    tuning = Tuning(progress=lambda phase, _done, _total: told.append(phase))
    with pytest.raises(BackendError) as caught:
        IsolatedBackend(f"crashing_engines:{name}", bundle, tuning=tuning, limits=Limits(open_s=5))
    assert caught.value.code == "engine-hung"
    assert ("building" in told) == (name == "builds_for_ever")


def test_what_a_hung_engine_started_is_killed_with_it(bundle: Bundle) -> None:
    with crashing("hangs_with_another", bundle) as engine:
        opened = engine._process
        assert opened is not None
        with pytest.raises(BackendError) as caught:
            engine.run({"image": picture(0)})
        assert caught.value.code == "engine-hung"
        another = int(opened._tail.split()[-1])
        wait_for(lambda: gone(another))


# The ends


def test_closing_ends_the_process_and_twice_is_harmless(bundle: Bundle) -> None:
    engine = crashing("good", bundle)
    process = engine.process
    assert process is not None
    engine.close()
    engine.close()
    assert gone(process)
    with pytest.raises(BackendError) as caught:
        engine.run({"image": picture()})
    assert (caught.value.code, engine.process) == ("engine-failed", None)


def test_engine_that_hangs_in_closing_is_ended(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bedside.isolation.process._END_S", 0.5)
    engine = crashing("hangs_closing", bundle)
    process = engine.process
    assert process is not None
    engine.close()
    assert gone(process)


def test_engine_that_crashes_in_closing_is_closed(bundle: Bundle) -> None:
    engine = crashing("segfaults_closing", bundle)
    process = engine.process
    assert process is not None
    engine.close()
    assert gone(process)


def test_interrupt_ends_the_run_and_leaves_nothing(bundle: Bundle) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(_signal: int, _frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with crashing("hangs", bundle, Limits()) as engine:
            process = engine.process
            assert process is not None
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(Interrupted):
                engine.run({"image": picture(0)})
            assert gone(process)
            assert engine.run({"image": picture()})["severity"].shape == (1, 2)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_listener_that_gives_up_ends_the_building(bundle: Bundle) -> None:
    class EnoughError(Exception):
        pass

    def give_up(*_step: object) -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        IsolatedBackend("crashing_engines:builds_for_ever", bundle, tuning=Tuning(progress=give_up))


PARENT = """
import sys, numpy as np
sys.path[:0] = sys.argv[3:]
from bedside.bundle import Bundle
from bedside.isolation import IsolatedBackend
engine = IsolatedBackend("crashing_engines:" + sys.argv[1], Bundle.open(sys.argv[2]))
print(engine.process, flush=True)
if sys.argv[1] == "good":
    sys.stdin.read()
engine.run({"image": np.zeros((1, 1, 32, 32), np.float32)})
"""


@pytest.mark.parametrize("name", ["good", "hangs", "hangs_in_c", "hangs_with_another"])
def test_engine_ends_with_its_user_however_that_ends(name: str, folder: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, name, str(folder), *sys.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    process = int(parent.stdout.readline())
    assert not gone(process)
    time.sleep(0.3)
    parent.kill()
    wait_for(lambda: gone(process))
    parent.communicate()
