"""Plans on the disk: whole or not at all, for one key, and never used where anything is different."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bedside.errors import OutputError
from bedside.tuning import Plans, default_cache
from bedside.tuning.key import canonical
from bedside.tuning.plan import decode, encode
from hindered_writing import file_size_limit, without_privilege
from made_plans import FULL, KEY, OTHERS, PLAN, files_in

NOBODY = 65534


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
    with file_size_limit(10), pytest.raises(OutputError) as caught:
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
