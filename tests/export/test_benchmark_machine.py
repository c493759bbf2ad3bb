"""What a benchmark says of its machine."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("machine")


def test_machine_and_how_it_fared_are_told(machine: ModuleType) -> None:
    told = machine.describe_machine(2, ("numpy", "no-such-package"))
    with machine.watch_machine(told):
        pass
    assert told["processor"]
    assert told["cores"] >= 1
    assert told["threads"] == 2
    assert list(told["versions"]) == ["numpy"]
    assert told["throttled"] in {True, False, None}
    for moment in ("before", "after"):
        assert told[moment].keys() == {"power_mode", "clocks_mhz", "temperatures_c", "load"}
    json.dumps(told, allow_nan=False)
    assert "throttled: " in machine.summarise_state(told)


def test_machine_is_told_where_the_comparison_fails(machine: ModuleType) -> None:
    told = machine.describe_machine(1, ())
    with pytest.raises(ZeroDivisionError), machine.watch_machine(told):
        raise ZeroDivisionError
    assert "before" in told


@pytest.mark.parametrize(
    ("throttled", "hottest", "words"),
    [
        (True, 96.4, "hottest 96 degrees; throttled: yes, so these figures are too slow"),
        (False, 50.0, "hottest 50 degrees; throttled: no"),
        (None, None, "hottest not told; throttled: not told"),
    ],
)
def test_summary_is_one_line(
    machine: ModuleType, throttled: bool | None, hottest: float | None, words: str
) -> None:
    told = {"after": {"power_mode": "MAXN"}, "hottest_c": hottest, "throttled": throttled}
    assert machine.summarise_state(told) == f"power mode MAXN; {words}"
