"""What the doctor tries in a process of its own: imports and codecs, and what breaks there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bedside.dicom.pixels import PROCESSES, RLE
from bedside.doctor.codecs import FAMILIES, check_codecs
from bedside.doctor.trials import Outcome, try_items
from examined_devices import one


def make_package(folder: Path, name: str, code: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)


CRASH = "import os, signal\nos.kill(os.getpid(), signal.{})\n"


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (CRASH.format("SIGSEGV"), "crashed", "SIGSEGV"),
        (CRASH.format("SIGILL"), "crashed", "instructions that this processor does not have"),
        ("import os\nos._exit(3)\n", "crashed", "exit code 3"),
        ("import time\ntime.sleep(60)\n", "hung", "no answer in 3 s"),
        ("raise ImportError('libnothing.so.1: not there')\n", "exception", "libnothing.so.1: not there"),
        ("raise SystemExit(0)\n", "crashed", "exit code 0"),
    ],
    ids=["crash", "illegal", "exit", "hang", "import", "quiet"],
)
def test_what_breaks_costs_its_own_item_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, kind: str, words: str
) -> None:
    make_package(tmp_path, "good", "__version__ = '1.2.3-456-abc'\nprint('chatter')\n")
    make_package(tmp_path, "bad", code)
    make_package(tmp_path, "later", "__version__ = '4'\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    outcomes = try_items("import", ["good", "bad", "later"], {}, limit_s=3)

    assert list(outcomes) == ["good", "bad", "later"]
    assert outcomes["good"] == Outcome(None, "", {"version": "1.2.3"})
    assert outcomes["later"].facts == {"version": "4"}
    assert outcomes["bad"].code == kind
    assert words in str(outcomes["bad"].error)


def test_nothing_to_try_starts_no_process() -> None:
    assert try_items("no such kind", [], {}) == {}


def test_python_of_the_trials_is_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_package(tmp_path, "told", "import sys\n__version__ = sys.prefix\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert try_items("import", ["told"], {})["told"].facts["version"] == sys.prefix.partition("-")[0]


# --- codecs


def test_every_transfer_syntax_that_is_read_is_told() -> None:
    told = {"1.2.840.10008.1.2" + syntax for family in FAMILIES.values() for syntax in family.syntaxes}
    assert {*PROCESSES, RLE} <= told
    assert {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"} <= told


def test_codecs_decode_or_name_their_extra() -> None:
    pytest.importorskip("imagecodecs", reason="needs the codecs extra: imagecodecs")
    assert {check.status for check in check_codecs()} == {"ok"}


def test_codecs_that_are_not_installed_name_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bedside.doctor.codecs.is_installed", lambda name: False)
    checks = check_codecs()
    assert [check.name for check in checks if check.status == "ok"] == [
        "uncompressed",
        "RLE",
        "JPEG",
        "JPEG 2000",
    ]
    for name in ("JPEG of 12 bits", "JPEG Lossless", "JPEG-LS"):
        assert (one(checks, name).status, one(checks, name).fix) == (
            "missing",
            "pip install 'bedside[codecs]'",
        )


def test_codec_that_breaks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = CRASH.format("SIGSEGV")
    make_package(
        tmp_path,
        "imagecodecs",
        f"def jpegls_decode(frame):\n    {code.splitlines()[0]}\n    {code.splitlines()[1]}\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("bedside.doctor.codecs.is_installed", lambda name: True)
    checks = check_codecs()
    assert "SIGSEGV" in one(checks, "JPEG-LS").text
    assert one(checks, "JPEG Lossless").status == "broken"  # the fake has no jpeg8_decode
    assert one(checks, "JPEG-LS").fix == "pip install --upgrade 'bedside[codecs]'"
    assert one(checks, "JPEG").status == "ok"
