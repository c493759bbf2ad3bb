"""First results, of processes that are not started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bedside.bench.figures import Idle
from bedside.bench.starts import Firsts, start_uncached, wait_idle
from bedside.bench.study import Order
from made_bench import MadeClock, MadeSubject

ORDER = Order("bundle", "0" * 64, "openvino", None, None, None, None, "scratch")


@pytest.fixture
def caches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, bool]]:
    """The cache of each process that would be started, and whether it held something; an engine fills it."""
    seen: list[tuple[str | None, bool]] = []

    def start_cold(order: Order, path: Path, firsts: Firsts) -> None:
        cache = Path(order.cache or "")
        seen.append((order.cache, any(cache.iterdir())))
        if order.precision != "keeps nothing":
            (cache / "compiled.blob").write_bytes(b"-")
        firsts.add(100.0 * len(seen), {"open": 1.0})

    monkeypatch.setattr("bedside.bench.starts.start_cold", start_cold)
    return seen


def test_each_empty_cache_is_filled_and_used_again(caches: list[Any], tmp_path: Path) -> None:
    steps: list[int] = []
    cold, warm = start_uncached(ORDER, Path("a.png"), tmp_path, 2, lambda: steps.append(1))
    assert [held for _, held in caches] == [False, True, False, True]
    assert len({cache for cache, _ in caches}) == 2
    assert len(steps) == 4
    assert warm is not None
    assert (cold.total_ms, warm.total_ms) == ((100.0, 300.0), (200.0, 400.0))
    assert (cold.kind, warm.kind) == ("cold engine cache", "cold process, warm engine cache")


def test_engine_that_keeps_nothing_is_said_to(caches: list[Any], tmp_path: Path) -> None:
    order = Order("bundle", "0" * 64, "onnxruntime", "keeps nothing", None, None, None, "scratch")
    cold, warm = start_uncached(order, Path("a.png"), tmp_path, 3, lambda: None)
    assert warm is None
    assert (cold.total_ms, cold.skipped) == ((), "this engine keeps nothing of what it compiles")
    assert len(caches) == 1


def test_cache_of_auto_is_left_alone(caches: list[Any], tmp_path: Path) -> None:
    order = Order("bundle", "0" * 64, "auto", None, None, None, None, "scratch")
    cold, warm = start_uncached(order, Path("a.png"), tmp_path, 3, lambda: None)
    assert (warm, caches) == (None, [])
    assert "name a backend" in cold.skipped


def test_ctrl_c_between_two_starts_is_heard(caches: list[Any], tmp_path: Path) -> None:
    def step() -> None:
        if caches:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start_uncached(ORDER, Path("a.png"), tmp_path, 2, step)
    assert len(caches) == 1


def test_studies_wait_until_the_machine_was_left_alone() -> None:
    clock = MadeClock()
    begin = clock.at_ns
    firsts = Firsts("after 60 s")
    wait_idle(MadeSubject((30.0, 20.0), clock), 0, Idle(60.0, 2), clock, firsts)
    assert firsts.start().total_ms == pytest.approx((30.0, 20.0))
    assert (clock.at_ns - begin) / 1e9 == pytest.approx(120.05)
