"""What engines built: kept beside the plan that names it, used as it was built, and swept when no plan does."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from bedside.bundle import Bundle
from bedside.contract import Stored
from bedside.errors import BackendError, OutputError
from bedside.tuning import Candidate, Choice, Plans, Request, keep, key_for, tune
from made_plans import KEY, files_in
from tiny_bundle import make_bundle
from tuned_engines import VERSION, opener_of


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


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
