"""What the doctor tells: a line for each check without anything private, and a verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bedside.bundle import Bundle
from bedside.device import read_state
from bedside.doctor import Check, Engine, Examination, examination
from bedside.doctor.check import private, size
from bedside.errors import BundleError
from examined_devices import BOX


def test_check_is_one_line_of_a_known_status() -> None:
    with pytest.raises(ValueError, match="status"):
        Check("system", "x", "fine", "text")
    with pytest.raises(ValueError, match="one line"):
        Check("system", "x", "ok", "two\nlines")


def test_home_and_user_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    assert private("/home/alice/.cache/bedside") == "~/.cache/bedside"
    assert private("can't open /home/alice/x.so: no\nsuch file") == "can't open ~/x.so: no such file"
    assert private("/scratch/alice/tmp") == "/scratch/USER/tmp"
    assert private("/home/alice2/x") == "/home/alice2/x"


def test_user_without_an_entry_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", fail)
    assert private("/srv/x") == "/srv/x"


def test_long_message_is_cut() -> None:
    assert len(private("word " * 1000)) == 400


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 bytes"), (2048, "2 KiB"), (1.5 * 2**20, "1.5 MiB"), (2**35, "32.0 GiB"), (2**43, "8.0 TiB")],
)
def test_sizes_are_for_people(n_bytes: float, text: str) -> None:
    assert size(n_bytes) == text


def judge(*found: Engine, bundles: str = "ok") -> Examination:
    checks = (Check("bundles", "one", bundles, "text"),)
    return Examination(checks, found, BOX, read_state(root=Path("/nonexistent")))


RUNS = Engine("onnxruntime", "ok", "text", version="1", device="CPU", precisions=("fp32",))


def test_verdict_needs_an_engine_and_a_bundle() -> None:
    lacking = Engine("onnxruntime", "missing", "text", "pip install 'bedside[cpu]'")
    assert judge(RUNS).able
    assert not judge(lacking).able
    assert judge(lacking).verdict.endswith("no engine works; try: pip install 'bedside[cpu]'")
    assert not judge(RUNS, bundles="broken").able
    assert "no built-in bundle is whole" in judge(RUNS, bundles="broken").verdict


def test_verdict_says_which_option_another_engine_needs() -> None:
    assert judge(RUNS).verdict.endswith("bedside score chest.dcm")
    assert judge(replace(RUNS, backend="openvino")).verdict.endswith(
        "bedside score chest.dcm --backend openvino"
    )


def test_bundle_whose_hashes_are_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def altered(name: str) -> None:
        raise BundleError("bundle-altered", "'model.onnx' is not what bundle.json says")

    monkeypatch.setattr(Bundle, "open", altered)
    checks = examination._check_bundles()
    assert {check.status for check in checks} == {"broken"}
    assert checks[0].fix == "pip install --force-reinstall --no-deps bedside"
