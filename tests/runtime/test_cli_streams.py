"""What only a process of its own shows: signals, pipes, full disks, terminals, missing packages, start-up."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bedside.cli.interruption import deferred_interrupt
from command_line import command, draw, draw_many, environment, run, start
from tiny_bundle import make_bundle

PIPE_BYTES = 1 << 16
"""What a pipe of Linux holds: a process that has more to say waits for its reader."""
LIMIT_FILES = """
import resource, sys
sys.dont_write_bytecode = True  # it would be cut off too
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
"""
NO_ENGINES = (
    "import sys; sys.modules.update(dict.fromkeys(('onnxruntime', 'openvino', 'tensorrt', 'tensorrt_rtx')))"
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of more pictures than whose results a pipe holds."""
    folder = tmp_path_factory.mktemp("many")
    assert len(draw_many(folder, 120)) * 800 > PIPE_BYTES  # a result is over 800 bytes of JSON
    return folder


def sources(out: Path) -> list[str]:
    return [json.loads(line)["source"] for line in (out / "results.jsonl").read_text("utf-8").splitlines()]


def interrupt(bundle: Path, pictures: Path, out: Path, signal_number: int) -> tuple[int, str]:
    """Send the signal after the third result, when the process can't have finished; its exit code and stderr."""
    with start("score", "--bundle", bundle, "--json", pictures, "--out", out) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert json.loads(process.stdout.readline())["status"] == "ok"
        process.send_signal(signal_number)
        _, told = process.communicate(timeout=120)
        return process.returncode, told


def test_a_killed_run_keeps_what_it_had_and_resume_goes_on(
    bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, _ = interrupt(bundle, pictures, out, signal.SIGKILL)
    assert code == -signal.SIGKILL
    kept = sources(out)
    assert 3 <= len(kept) < 120
    with (out / "results.jsonl").open("ab") as stream:
        stream.write(b'{"schema": "bedside.sev')  # as if it had been killed while it wrote
    done = run("score", "--bundle", bundle, pictures, "--out", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert f"{120 - len(kept)} scored, {len(kept)} done earlier" in done.stdout
    assert sources(out) == [str(path) for path in sorted(pictures.iterdir())]
    assert len((out / "results.csv").read_text("utf-8").splitlines()) == 121


def test_ctrl_c_keeps_what_it_had_and_says_how_to_go_on(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, told = interrupt(bundle, pictures, out, signal.SIGINT)
    assert code == 130
    kept = sources(out)
    assert 3 <= len(kept) < 120
    lines = told.splitlines()
    assert lines == [
        "",
        "stopping after this input; Ctrl-C again stops at once",
        f"{len(kept)} new results are in {out}; --resume goes on from there",
        "interrupted",
    ]
    assert len((out / "results.csv").read_text("utf-8").splitlines()) == len(kept) + 1


def test_the_first_ctrl_c_waits_and_the_second_does_not() -> None:
    # in a process of its own: OpenVINO leaves a freed signal stack behind where engines overlapped
    done = subprocess.run([sys.executable, "-c", TWO_CTRL_CS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "first held back\nsecond interrupts\nhandler restored\n")


TWO_CTRL_CS = """
import signal
from bedside.cli.interruption import deferred_interrupt

before = signal.getsignal(signal.SIGINT)
with deferred_interrupt() as check:
    check()
    signal.raise_signal(signal.SIGINT)
    try:
        check()
    except KeyboardInterrupt:
        print("first held back")
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        print("second interrupts")
if signal.getsignal(signal.SIGINT) is before:
    print("handler restored")
"""


def test_another_thread_than_the_main_one_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)

    def stay_out() -> object:
        with deferred_interrupt() as check:
            check()
            return signal.getsignal(signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(stay_out).result() is before


def test_a_reader_that_goes_away_is_no_crash(bundle: Path, pictures: Path) -> None:
    with start("score", "--bundle", bundle, "--json", pictures) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        told = process.stderr.read()
    assert process.returncode == 2
    assert told.startswith("error: standard output can't be written (its reader has gone)")
    assert told.count("\n") == 1


@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"]])
def test_a_full_standard_output_is_one_line(bundle: Path, tmp_path: Path, form: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = run("score", "--bundle", bundle, *form, draw(tmp_path / "x.png"), stdout=full)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no space left to write standard output")
    assert done.stderr.endswith("[disk-full]\n")
    assert done.stderr.count("\n") == 1


def test_a_full_disk_ends_the_run_and_keeps_what_is_whole(
    bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = run("score", "--bundle", bundle, pictures, "--out", out, code=LIMIT_FILES)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: the output can't be written")
    assert done.stderr.endswith("[disk-full]\n")
    kept = sources(out)
    assert 1 <= len(kept) < 10
    assert f"{len(kept)} new results are in {out}; --resume goes on from there" in done.stderr
    assert not list(out.glob("*.part"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs to mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_small_disk_that_fills_up_is_told(bundle: Path, pictures: Path, small_disk: Path) -> None:
    done = run("score", "--bundle", bundle, pictures, "--out", small_disk / "out")
    assert done.returncode == 2
    assert done.stderr.endswith("[disk-full]\n")
    assert "Traceback" not in done.stderr
    assert sources(small_disk / "out")


def test_an_output_that_is_a_file_is_told_before_anything_is_scored(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("mine", "utf-8")
    done = run("score", "--bundle", bundle, draw(tmp_path / "x.png"), "--out", out)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the output can't be written")
    assert done.stderr.endswith("[output-not-writable]\n")
    assert out.read_text("utf-8") == "mine"


def run_on_terminal(*arguments: str | Path) -> str:
    """Both outputs on a terminal; what it showed."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))
    with subprocess.Popen(
        command(*arguments), stdin=follower, stdout=follower, stderr=follower, env=environment()
    ) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                part = os.read(leader, 1 << 16)
            except OSError:  # Linux: the other end is closed
                break
            shown += part
            if not part:
                break
    os.close(leader)
    assert process.returncode == 0
    return shown.decode()


def test_many_inputs_show_progress_on_a_terminal_and_rows_stay_whole(bundle: Path, tmp_path: Path) -> None:
    paths = draw_many(tmp_path / "in", 4)
    shown = run_on_terminal("score", "--bundle", bundle, tmp_path / "in")
    assert "4/4" in shown
    assert "image/s" in shown
    for path in paths:
        assert f"{path}  [low-resolution]\r\n" in shown


def test_a_single_input_shows_no_progress(bundle: Path, tmp_path: Path) -> None:
    assert "image/s" not in run_on_terminal("score", "--bundle", bundle, draw(tmp_path / "x.png"))


def test_no_progress_where_nobody_watches(bundle: Path, tmp_path: Path) -> None:
    draw_many(tmp_path / "in", 2)
    done = run("score", "--bundle", bundle, tmp_path / "in")
    assert (done.returncode, done.stderr) == (0, "")


def test_score_without_an_engine_names_the_extra(bundle: Path, tmp_path: Path) -> None:
    done = run("score", "--bundle", bundle, draw(tmp_path / "x.png"), code=NO_ENGINES)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "pip install 'bedside[cpu]'" in done.stderr
    assert done.stderr.endswith("[missing-extra]\n")


def test_verify_without_an_engine_checks_hashes_and_says_so(bundle: Path) -> None:
    done = run("verify", bundle, code=NO_ENGINES)
    assert (done.returncode, done.stderr) == (0, "")
    assert "hashes" in done.stdout
    assert "none is installed, so no golden vector was run" in " ".join(done.stdout.split())
    asked = run("verify", bundle, "--backend", "openvino", code=NO_ENGINES)
    assert asked.returncode == 2
    assert "pip install 'bedside[openvino]'" in asked.stderr


def test_inspect_needs_no_engine(bundle: Path) -> None:
    assert run("inspect", bundle, code=NO_ENGINES).returncode == 0


def test_a_name_that_is_no_text_is_told_on_any_standard_output(bundle: Path, tmp_path: Path) -> None:
    path = draw(tmp_path / "x.png").rename(tmp_path / os.fsdecode(b"\xff\xe9.png"))
    for form in ([], ["--json"], ["--csv"]):
        done = run("score", "--bundle", bundle, *form, path)
        assert (done.returncode, done.stderr) == (0, ""), form
        assert "udcff" in done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["score", "--help"], ["verify", "--help"]])
def test_help_is_there_without_loading_anything_heavy(arguments: list[str]) -> None:
    code = (
        "import atexit, sys\n"
        "heavy = {'numpy', 'pydicom', 'PIL', 'onnxruntime', 'openvino', 'tqdm'}\n"
        "atexit.register(lambda: print(*sorted(heavy & set(sys.modules)), file=sys.stderr))"
    )
    done = run(*arguments, code=code)
    assert done.returncode == 0
    assert done.stderr.split() == []
