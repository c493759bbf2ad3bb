"""Plans on the disk: whole or not at all, for one key, and never used where anything is different."""

from __future__ import annotations

import hashlib
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bedside
from bedside.backends import Tuning
from bedside.bundle import Bundle
from bedside.contract import Stored
from bedside.errors import BackendError, OutputError
from bedside.tuning import (
    Candidate,
    Choice,
    Plan,
    PlanKey,
    Planned,
    Plans,
    Request,
    default_cache,
    keep,
    key_for,
    tune,
)
from bedside.tuning.key import canonical, installed_engines
from bedside.tuning.plan import decode, encode
from tiny_bundle import make_bundle
from tuned_engines import VERSION, opener_of

NOBODY = 65534
KEY = PlanKey(
    "a" * 64,
    "0.1.0",
    {"onnxruntime": "1.31.1"},
    "some-device-0123",
    None,
    "latency",
    1,
    None,
    None,
    None,
    None,
)
HALF = Planned("openvino", "2026.4", "bf16", None, "extent", 0.05, 0.1, 9.5)
FULL = Planned("onnxruntime", "1.31.1", "fp32", None, "extent", 1e-6, 0.01, 30.25)
PLAN = Plan(KEY, "2026-11-22T00:44:49+00:00", (HALF, FULL))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file grow, as a full disk does; the kernel says EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def without_privilege() -> Iterator[None]:
    """Be nobody for a while, where the tests run as root, whom no permission stops."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Keys


def test_key_names_bundle_engines_device_and_set_up(bundle: Bundle) -> None:
    key = key_for(bundle, threads=2, tuning=Tuning(tile=(64, 64), batch=4))
    assert key.bundle == bundle.digest
    assert key.bedside == bedside.__version__
    assert key.engines == installed_engines()
    assert (key.threads, key.tile, key.batch) == (2, (64, 64), 4)
    assert key.device
    assert key == key_for(bundle, threads=2, tuning=Tuning(tile=(64, 64), batch=4))
    assert key.digest == key_for(bundle, threads=2, tuning=Tuning(tile=(64, 64), batch=4)).digest


def test_cache_folder_and_progress_are_no_part_of_the_key(bundle: Bundle, tmp_path: Path) -> None:
    assert key_for(bundle) == key_for(bundle, tuning=Tuning(cache=tmp_path, progress=print))


def test_versions_are_those_that_the_engines_say() -> None:
    for package, version in installed_engines().items():
        library = pytest.importorskip(package)
        assert library.__version__.startswith(version.split(" ")[0])


OTHERS: dict[str, dict[str, Any]] = {
    "bundle": {"bundle": "b" * 64},
    "device or driver": {"device": "some-device-4567"},
    "onnxruntime was 1.31.1 and is 1.32.0 now": {"engines": {"onnxruntime": "1.32.0"}},
    "onnxruntime 1.31.1 is no longer installed": {"engines": {}},
    "openvino 2026.4 was not installed then": {"engines": {"onnxruntime": "1.31.1", "openvino": "2026.4"}},
    "bedside was 0.1.0 and is 0.2.0 now": {"bedside": "0.2.0"},
    "threads as the engine chooses, not 4": {"threads": 4},
    "hint latency, not throughput": {"hint": "throughput"},
    "batch 1, not 4": {"batch": 4},
    "tile": {"tile": (512, 512)},
    "pinned": {"pinned": True},
    "workspace": {"workspace_bytes": 1 << 30},
    "dla": {"dla": 0},
}


@pytest.mark.parametrize("told", OTHERS)
def test_whatever_differs_makes_another_key_and_is_told(told: str) -> None:
    now = replace(KEY, **OTHERS[told])
    assert now.digest != KEY.digest
    (difference,) = KEY.differences(now)
    assert told in difference
    assert list(now.differences(now)) == []


# Reading and writing


def test_plan_comes_back_as_it_was_written(tmp_path: Path) -> None:
    plans = Plans(tmp_path / "new" / "cache")
    path = plans.write(PLAN)
    assert plans.find(KEY).plan == PLAN
    assert plans.find(KEY).rejected == ()
    assert path == plans.path(KEY)
    assert [path.name for path in (tmp_path / "new" / "cache" / "plans").iterdir()] == [path.name]


def test_later_plan_replaces_the_earlier_one(tmp_path: Path) -> None:
    plans = Plans(tmp_path)
    plans.write(PLAN)
    later = replace(PLAN, ranking=(FULL,))
    plans.write(later)
    assert plans.find(KEY).plan == later
    assert len(files_in(tmp_path)) == 1
    plans.forget(KEY)
    plans.forget(KEY)
    assert plans.find(KEY).plan is None


def test_cache_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    found = Plans(tmp_path / "none").find(KEY)
    assert (found.plan, found.rejected) == (None, ())
    assert not (tmp_path / "none").exists()


def test_default_cache_is_the_user_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "bedside"
    assert Plans().folder == tmp_path / "bedside"


@pytest.mark.parametrize("told", OTHERS)
def test_plan_for_anything_else_is_not_used_and_says_so(told: str, tmp_path: Path) -> None:
    plans = Plans(tmp_path)
    plans.write(PLAN)
    found = plans.find(replace(KEY, **OTHERS[told]))
    assert found.plan is None
    if told == "bundle":
        assert found.rejected == ()
    else:
        (rejected,) = found.rejected
        assert told in "; ".join(rejected.reasons)


def test_plan_moved_to_the_name_of_another_key_is_not_used(tmp_path: Path) -> None:
    plans = Plans(tmp_path)
    for changed in OTHERS.values():
        now = replace(KEY, **changed)
        plans.write(PLAN).rename(plans.path(now))
        assert plans.find(now).plan is None
        assert plans.find(now).rejected
        plans.forget(now)


def test_nearest_plan_is_told_first(tmp_path: Path) -> None:
    plans = Plans(tmp_path)
    far = replace(KEY, device="another-device", engines={"onnxruntime": "1.20"})
    for key in (far, replace(KEY, threads=2)):
        plans.write(replace(PLAN, key=key))
    nearest, farther = plans.find(KEY).rejected
    assert "threads 2" in nearest.reasons[0]
    assert len(farther.reasons) == 2


def test_plan_with_any_flipped_byte_is_not_used(tmp_path: Path) -> None:
    plans = Plans(tmp_path)
    path = plans.write(PLAN)
    whole = path.read_bytes()
    for index in range(len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        found = plans.find(KEY)
        assert found.plan is None
        assert found.rejected
        assert all(reason.isprintable() for reason in found.rejected[0].reasons)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{" * 100_000,
        b" " * (2 << 20),
        b'{"schema": 1, "sha256": 2, "plan": 3}',
    ],
)
def test_what_is_no_plan_is_not_used(text: bytes, tmp_path: Path) -> None:
    plans = Plans(tmp_path)
    path = plans.write(PLAN)
    path.write_bytes(text)
    found = plans.find(KEY)
    assert found.plan is None
    assert "not a whole plan" in found.rejected[0].reasons[0]


def sealed(change: dict[str, Any], **ranked: Any) -> bytes:
    """A plan's file with other content, and the right hash of that."""
    content = json.loads(encode(PLAN))["plan"] | change
    content["ranking"][0] |= ranked
    digest = hashlib.sha256(canonical(content)).hexdigest()
    return canonical({"schema": "bedside.plan/1", "sha256": digest, "plan": content}) + b"\n"


def test_sealed_plan_is_a_plan() -> None:
    assert decode(sealed({})) == PLAN


@pytest.mark.parametrize(
    ("change", "ranked"),
    [
        ({"extra": 1}, {}),
        ({"made": None}, {}),
        ({"key": {}}, {}),
        ({}, {"backend": "torch"}),
        ({}, {"precision": "fp64"}),
        ({}, {"difference": 0.2}),
        ({}, {"difference": -1.0}),
        ({}, {"median_ms": 0.0}),
        ({}, {"threads": "2"}),
        ({}, {"folder": "engines"}),
        ({}, {"folder": "engines/../plans"}),
        ({}, {"folder": "/etc/a/b"}),
        ({}, {"files": {"model.engine": {"bytes": 1, "sha256": "0" * 64}}}),
        ({}, {"folder": "engines/a/b", "files": {"../../x": {"bytes": 1, "sha256": "0" * 64}}}),
        ({}, {"folder": "engines/a/b", "files": {"/etc/passwd": {"bytes": 1, "sha256": "0" * 64}}}),
    ],
)
def test_plan_that_says_what_none_can_is_refused_though_its_hash_is_right(
    change: dict[str, Any], ranked: dict[str, Any]
) -> None:
    with pytest.raises(ValueError):
        decode(sealed(change, **ranked))


def test_plan_of_nothing_or_of_another_schema_is_refused() -> None:
    with pytest.raises(ValueError, match="no engine"):
        replace(PLAN, ranking=())
    with pytest.raises(ValueError, match="schema"):
        decode(encode(PLAN).replace(b"bedside.plan/1", b"bedside.plan/2"))


# A cache that can't be used


def test_cache_that_can_t_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with pytest.raises(OutputError) as caught:
        Plans(tmp_path / "file").write(PLAN)
    assert caught.value.code == "cache-not-writable"
    assert "--cache" in caught.value.message
    assert str(tmp_path) not in caught.value.message


def test_read_only_cache_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    with without_privilege(), pytest.raises(OutputError) as caught:
        Plans(tmp_path).write(PLAN)
    assert caught.value.code == "cache-not-writable"


def test_full_disk_is_told_and_leaves_the_plan_before(tmp_path: Path) -> None:
    plans = Plans(tmp_path)
    plans.write(PLAN)
    with full_disk(), pytest.raises(OutputError) as caught:
        plans.write(replace(PLAN, ranking=(FULL,)))
    assert caught.value.code == "disk-full"
    assert plans.find(KEY).plan == PLAN
    assert len(files_in(tmp_path)) == 1


def test_cache_that_can_t_be_read_has_no_plan_and_says_so(tmp_path: Path) -> None:
    plans = Plans(tmp_path)
    path = plans.write(PLAN)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    path.chmod(0)
    with without_privilege():
        found = plans.find(KEY)
    assert found.plan is None
    assert "can't be read (permission denied)" in found.rejected[0].reasons[0]
    path.parent.chmod(0)
    with without_privilege():
        found = plans.find(KEY)
    path.parent.chmod(0o755)
    assert found.plan is None


# What engines built


def tuned(bundle: Bundle, plans: Plans, threads: tuple[int, ...] = ()) -> Path | None:
    names = {("onnxruntime", "fp32"): "builds", ("onnxruntime", "bf16"): "wrong"}
    report = tune(
        bundle,
        Request(Choice(("onnxruntime",), threads=threads), rounds=1),
        plans=plans,
        opener=opener_of(bundle, names),
    )
    return keep(report, plans)


def test_built_engine_is_named_in_the_plan_and_what_did_not_qualify_is_gone(
    bundle: Bundle, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    plans = Plans(tmp_path)
    path = tuned(bundle, plans)
    plan = plans.find(key_for(bundle)).plan
    assert plan is not None
    (planned,) = plan.ranking
    content = b"built for this device" * 100
    assert planned.files == {"model.engine": Stored(len(content), hashlib.sha256(content).hexdigest())}
    folder = plans.built(planned)
    assert folder is not None
    assert path is not None
    assert files_in(tmp_path) == sorted(
        str(each.relative_to(tmp_path)) for each in (path, folder / "model.engine", folder / "layers.timing")
    )
    assert (planned.version, planned.candidate) == (VERSION, Candidate("onnxruntime", "fp32"))


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_built_engine_that_is_altered_is_refused(damage: str, bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    plans = Plans(tmp_path)
    tuned(bundle, plans)
    plan = plans.find(key_for(bundle)).plan
    assert plan is not None
    (file,) = tmp_path.rglob("model.engine")
    data = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(data[:-1] + (b"" if damage == "cut" else bytes([data[-1] ^ 1])))
    with pytest.raises(BackendError) as caught:
        plans.built(plan.ranking[0])
    assert caught.value.code == "engine-foreign"


def test_what_changes_with_each_use_is_its_engine_s_own_to_check(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    plans = Plans(tmp_path)
    tuned(bundle, plans)
    (timing,) = tmp_path.rglob("layers.timing")
    timing.write_bytes(b"changed")
    plan = plans.find(key_for(bundle)).plan
    assert plan is not None
    assert plans.built(plan.ranking[0]) == timing.parent


def test_engine_that_can_t_keep_what_it_builds_is_tuned_without(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    plans = Plans(tmp_path)
    report = tune(
        bundle,
        Request(Choice(("onnxruntime",), ("fp32",)), rounds=1),
        plans=plans,
        opener=opener_of(bundle, {("onnxruntime", "fp32"): "keeps"}),
    )
    (outcome,) = report.ranking
    assert outcome.folder is None
    assert keep(report, plans) is not None
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".json"]


def test_tuning_again_replaces_what_was_built(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    plans = Plans(tmp_path)
    tuned(bundle, plans)
    before = files_in(tmp_path)
    tuned(bundle, plans)
    after = files_in(tmp_path)
    assert len(after) == len(before) == 3
    assert after != before
    plan = plans.find(key_for(bundle)).plan
    assert plan is not None
    assert plans.built(plan.ranking[0]) is not None
    plans.forget(plan.key)
    assert files_in(tmp_path) == []


def test_tuning_removes_what_a_killed_one_left_a_day_ago_and_nothing_else(
    bundle: Bundle, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    plans = Plans(tmp_path)
    tuned(bundle, plans)
    kept = plans.find(key_for(bundle)).plan
    assert kept is not None
    counted = tmp_path / kept.ranking[0].folder
    old, new = (plans.make_folder(KEY, kept.ranking[0].candidate) for _ in range(2))
    for folder in (counted, old):
        os.utime(folder, (0, 0))
    plans.sweep()
    assert (counted.is_dir(), old.exists(), new.is_dir()) == (True, False, True)
    os.utime(new, (0, 0))
    (tmp_path / "plans" / "later.json").write_text("{}")
    plans.sweep()
    assert new.is_dir()
    (tmp_path / "plans" / "later.json").unlink()
    tuned(bundle, plans)
    assert not new.exists()


def test_each_thread_count_has_a_plan_and_so_has_none(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    plans = Plans(tmp_path)
    tuned(bundle, plans, (1, 2))
    for threads in (1, 2):
        plan = plans.find(key_for(bundle, threads=threads)).plan
        assert plan is not None
        assert [each.threads for each in plan.ranking] == [threads]
    plan = plans.find(key_for(bundle)).plan
    assert plan is not None
    assert {each.threads for each in plan.ranking} == {1, 2}
    assert plans.find(key_for(bundle, threads=3)).plan is None


def test_tuning_in_which_nothing_qualifies_removes_the_plan_that_it_disproves(
    bundle: Bundle, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    plans = Plans(tmp_path)
    tuned(bundle, plans)
    for name, left in (("lacks", 1), ("wrong", 0)):
        report = tune(
            bundle,
            Request(Choice(("onnxruntime",), ("fp32",)), rounds=1),
            plans=plans,
            opener=opener_of(bundle, {("onnxruntime", "fp32"): name}),
        )
        assert keep(report, plans) is None
        assert len(list(tmp_path.rglob("*.json"))) == left


def test_tuning_with_a_cache_that_can_t_be_written_reports_and_then_says_so(
    bundle: Bundle, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    plans = Plans(tmp_path / "file")
    report = tune(
        bundle,
        Request(Choice(("onnxruntime",), ("fp32",)), rounds=1),
        plans=plans,
        opener=opener_of(bundle, {("onnxruntime", "fp32"): "builds"}),
    )
    assert [each.candidate.precision for each in report.ranking] == ["fp32"]
    with pytest.raises(OutputError) as caught:
        keep(report, plans)
    assert caught.value.code == "cache-not-writable"
