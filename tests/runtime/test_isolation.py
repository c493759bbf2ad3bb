"""An engine in a process of its own answers as it does here, and what it does wrong stays there."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bedside.backends import Tuning, open_backend
from bedside.bundle import Bundle
from bedside.dicom.ledger import GeometryError
from bedside.errors import BackendError, BedsideError, BundleError, InternalError, RefusedError
from bedside.isolation import IsolatedBackend, Limits
from bedside.isolation.wire import pack_error, unpack_error
from bedside.memory import held_bytes
from tiny_bundle import MODEL, SIDE, make_bundle, seal

Floats = npt.NDArray[np.float32]
OWN = Path("/proc/self")
SOON = Limits(open_s=60, run_s=1.5)
"""Long enough for any machine to open a stand-in, and short for one that never answers."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "someone's bundle")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return Bundle.open(folder)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No process, no pipe, no shared memory."""
    gc.collect()
    before = left()
    yield
    gc.collect()
    assert left() == before


def left() -> tuple[list[str], list[str], int]:
    """Children of this process, its descriptors of what has no file, and what it sees of shared memory."""
    children = [number for path in OWN.glob("task/*/children") for number in path.read_text().split()]
    descriptors = [str(path.readlink()) for path in (OWN / "fd").iterdir() if path.is_symlink()]
    nameless = [name for name in descriptors if name.startswith(("pipe:", "socket:", "/memfd:"))]
    return children, sorted(nameless), (OWN / "maps").read_text().count("/memfd:bedside")


def picture(first: float = 1.0, number: int = 1) -> Floats:
    """Pictures; a stand-in does what it is named after where the first pixel is 0."""
    image = np.random.default_rng(number).uniform(0.5, 1, (number, 1, SIDE, SIDE)).astype(np.float32)
    image.flat[0] = first
    return image


def crashing(name: str, bundle: Bundle, limits: Limits = SOON) -> IsolatedBackend:
    return IsolatedBackend(f"crashing_engines:{name}", bundle, limits=limits)


def gone(process: int) -> bool:
    """Whether a process has ended; its parent may not have looked at it yet."""
    try:
        return "State:\tZ" in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come about in ten seconds")


# Right answers


def test_arrays_of_any_size_order_and_type_pass(bundle: Bundle) -> None:
    with crashing("good", bundle) as engine:
        for number in (1, 3, 1, 200, 2):
            images = picture(number=number)
            turned = np.asfortranarray(images)
            turned.flags.writeable = False
            for given in (images, turned):
                outputs = engine.run({"image": given})
                np.testing.assert_array_equal(outputs["seen"], images[:, :, ::-1])
                np.testing.assert_array_equal(
                    outputs["largest"], images.max(axis=(1, 2, 3)).astype(np.float64)
                )
                assert outputs["largest"].dtype == np.float64


def test_python_without_memfd_shares_memory_all_the_same(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with crashing("good", bundle) as engine:
        for number in (1, 40, 2):
            outputs = engine.run({"image": picture(number=number)})
            np.testing.assert_array_equal(outputs["seen"], picture(number=number)[:, :, ::-1])
    monkeypatch.setattr("bedside.isolation.memory._MEMORY", "/nowhere")
    with pytest.raises(BackendError) as caught:
        crashing("good", bundle)
    assert caught.value.code == "engine-unsupported"


def test_outputs_belong_to_the_caller(bundle: Bundle) -> None:
    with crashing("good", bundle) as engine:
        first = engine.run({"image": picture()})
        kept = {name: values.copy() for name, values in first.items()}
        engine.run({"image": picture(number=30)})
        for name, values in first.items():
            np.testing.assert_array_equal(values, kept[name])
            values[:] = -1
        np.testing.assert_array_equal(engine.run({"image": picture()})["severity"], kept["severity"])
    assert first["severity"].flags.owndata


def test_input_is_checked_before_it_is_sent(bundle: Bundle) -> None:
    with crashing("good", bundle) as engine:
        process = engine.process
        for wrong in (
            {},
            {"image": picture()[0]},
            {"other": picture()},
            {"image": picture().astype(np.float64)},
        ):
            with pytest.raises(BackendError) as caught:
                engine.run(wrong)  # type: ignore[arg-type]
            assert caught.value.code == "engine-failed"
        assert engine.process == process


def test_info_is_what_runs_there(bundle: Bundle) -> None:
    name = "crashing_engines:good"
    with IsolatedBackend(name, bundle, precision="int8", threads=3) as engine:
        info = engine.info
    assert (info.backend, info.version, info.precision, info.threads) == ("stand-in", "1.2", "int8", 3)
    assert engine.info == info


def test_tuning_reaches_the_engine_and_its_progress_comes_back(bundle: Bundle, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    tuning = Tuning(
        hint="throughput",
        batch=3,
        tile=(64, 96),
        cache=tmp_path,
        workspace_bytes=1 << 30,
        progress=lambda *step: told.append(step),
    )
    with IsolatedBackend("crashing_engines:tells_tuning", bundle, tuning=tuning) as engine:
        assert engine.info.device == repr(tuning)
    with IsolatedBackend("crashing_engines:tells_progress", bundle, tuning=tuning):
        pass
    assert told == [("building", 1, 3), ("building", 2, 3), ("building", 3, 3)]


def test_zipped_bundle_and_another_working_directory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiny_bundle import zip_bundle

    zip_bundle(folder, tmp_path / "b.zip")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("raise SystemExit('the working directory is no place for modules')")
    with crashing("good", Bundle.open("b.zip")) as engine:
        assert engine.run({"image": picture()})["severity"].shape == (1, 2)


# Errors


def test_errors_come_as_they_are(bundle: Bundle) -> None:
    with crashing("fails", bundle) as engine:
        process = engine.process
        with pytest.raises(BackendError, match=r"^no kernel for this layer; use another$") as caught:
            engine.run({"image": picture(0)})
        assert caught.value.code == "engine-failed"
        engine.run({"image": picture()})
        assert engine.process == process
    with pytest.raises(RefusedError, match=r"^an error of another class$") as refused:
        crashing("refuses_opening", bundle)
    assert refused.value.code == "not-hu"


def test_surprise_there_is_a_defect_and_tells_nothing_of_the_data(bundle: Bundle) -> None:
    with crashing("breaks", bundle) as engine, pytest.raises(InternalError) as caught:
        engine.run({"image": picture(0)})
    assert "a surprise" not in caught.value.message
    assert "KeyError at crashing_engines.py:" in caught.value.message
    with pytest.raises(InternalError):
        crashing("breaks_opening", bundle)


@pytest.mark.parametrize(
    ("name", "precision", "code"),
    [("nothing", "fp32", "engine-unsupported"), ("onnxruntime", "int8", "bundle-precision")],
)
def test_what_is_not_there_is_told_as_without_isolation(
    name: str, precision: str, code: str, bundle: Bundle
) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(BedsideError) as here:
        open_backend(name, bundle, precision=precision)
    with pytest.raises(BedsideError) as there:
        IsolatedBackend(name, bundle, precision=precision)
    assert (type(there.value), there.value.code, there.value.message) == (
        type(here.value),
        here.value.code,
        here.value.message,
    )
    assert there.value.code == code


def test_bundle_that_was_changed_since_is_not_run(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b")
    bundle = Bundle.open(folder)
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes() + b"\x7a\x00")
    seal(folder)
    Bundle.open(folder)
    with pytest.raises(BundleError) as caught:
        crashing("good", bundle)
    assert caught.value.code == "bundle-altered"


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_limit_is_a_time(seconds: float) -> None:
    for limits in ({"open_s": seconds}, {"run_s": seconds}):
        with pytest.raises(BackendError) as caught:
            Limits(**limits)
        assert caught.value.code == "engine-unsupported"


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


def test_ctrl_c_is_not_the_engines(bundle: Bundle) -> None:
    """The terminal sends it to the group in the foreground, which the engine's process is not in."""
    with crashing("good", bundle) as engine:
        process = engine.process
        assert process is not None
        assert os.getpgid(process) == process == os.getsid(process)


def test_memory_of_the_engine_counts(bundle: Bundle) -> None:
    before = held_bytes()
    with crashing("good", bundle) as engine:
        engine.run({"image": picture()})
        assert held_bytes() > before + (5 << 20)


def test_engine_starts_in_an_environment_of_its_own(bundle: Bundle) -> None:
    """A thread that ends must not take the engine along that it opened."""
    import threading

    opened: list[IsolatedBackend] = []
    thread = threading.Thread(target=lambda: opened.append(crashing("good", bundle)))
    thread.start()
    thread.join()
    time.sleep(0.2)
    with opened[0] as engine:
        assert engine.run({"image": picture()})["severity"].shape == (1, 2)


def test_error_of_a_kind_of_its_own_arrives_as_the_kind_that_it_is_of() -> None:
    error = unpack_error(pack_error(GeometryError("improper-geometry", "no volume", ())))
    assert (type(error), error.code, error.refusal) == (RefusedError, "improper-geometry", True)
