"""``tune``, and ``--backend auto`` of the commands that run an engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bedside.bundle import Bundle
from bedside.tuning import Plans, key_for
from command_line import draw, draw_many, invoke, run
from schemas import make_validator
from tiny_bundle import Network, golden_images, make_bundle
from tiny_ct_bundle import make_ct_bundle

REFERENCE = ("--backend", "onnxruntime", "--precision", "fp32", "--rounds", "1")
OTHER = ("--backend", "openvino", "--precision", "fp32", "--rounds", "1")
BOTH = ("--backend", "onnxruntime", "--backend", "openvino", "--rounds", "2")


@pytest.fixture(autouse=True)
def engines() -> None:
    for name in ("onnxruntime", "openvino"):
        pytest.importorskip(name)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def tuned(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a plan that names openvino fp32."""
    cache = tmp_path_factory.mktemp("cache")
    done = invoke("tune", bundle, "--cache", cache, *OTHER)
    assert done.exit_code == 0, done.stdout
    return cache


def words(text: str) -> str:
    """The text without its line breaks."""
    return " ".join(text.split())


def test_tune_prints_a_table_keeps_a_plan_and_says_where(bundle: Path, tmp_path: Path) -> None:
    done = invoke("tune", bundle, "--cache", tmp_path, *BOTH)
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    (head,) = [line for line in lines if "verdict" in line]
    assert words(head) == "engine precision verdict worst difference open s median ms p90 ms peak MiB"
    (best,) = [line for line in lines if line.startswith("best  ")]
    assert "fp32" in best or "bf16" in best
    assert "onnxruntime         bf16       not here" in done.stdout
    assert "onnxruntime bf16: not here: onnxruntime has no bf16 on the CPU" in words(done.stdout)
    (plan,) = tmp_path.rglob("*.json")
    assert str(plan) in done.stdout.replace("\n", "").replace(" ", "")
    assert lines[-1] == "Not for clinical use."
    assert all(line == line.rstrip() for line in lines)


def test_thread_counts_have_a_column(bundle: Path, tmp_path: Path) -> None:
    done = invoke("tune", bundle, "--cache", tmp_path, *REFERENCE, "--threads", "1,2")
    assert done.exit_code == 0
    assert "threads" in done.stdout
    assert len(list(tmp_path.rglob("*.json"))) == 3
    opened = Bundle.open(bundle)
    for threads in (None, 1, 2):
        assert Plans(tmp_path).find(key_for(opened, threads=threads)).plan is not None


def test_json_keeps_to_its_schema(bundle: Path, tmp_path: Path) -> None:
    done = invoke("tune", bundle, "--cache", tmp_path, "--backend", "onnxruntime", "--rounds", "1", "--json")
    assert done.exit_code == 0
    (line,) = done.stdout.splitlines()
    record: dict[str, Any] = json.loads(line)
    make_validator("tuning-1").validate(record)
    assert Path(record["plan"]).is_file()
    assert [each["verdict"] for each in record["candidates"]] == ["passed", "not here"]


def test_ct_bundle_is_tuned_by_volume_and_dice(tmp_path: Path) -> None:
    ct = make_ct_bundle(tmp_path / "ct")
    done = invoke("tune", ct, "--cache", tmp_path / "c", *OTHER, "--json")
    assert done.exit_code == 0
    (candidate,) = json.loads(done.stdout)["candidates"]
    assert candidate["differences"][0]["of"] == "opacity volume in percent"


def test_show_tells_the_plan(bundle: Path, tuned: Path) -> None:
    done = invoke("tune", bundle, "--cache", tuned, "--show")
    assert done.exit_code == 0
    assert "best openvino fp32" in words(done.stdout)


def test_show_without_a_plan_says_what_runs_then(bundle: Path, tmp_path: Path) -> None:
    done = invoke("tune", bundle, "--cache", tmp_path / "none", "--show")
    assert done.exit_code == 1
    assert "none: --backend auto runs onnxruntime fp32" in words(done.stdout)


def test_show_says_why_a_plan_is_not_used(bundle: Path, tuned: Path) -> None:
    done = invoke("tune", bundle, "--cache", tuned, "--show", "--threads", "2")
    assert done.exit_code == 1
    assert "it is for threads as the engine chooses, not 2" in words(done.stdout)


def test_broken_plan_is_told(bundle: Path, tmp_path: Path) -> None:
    options = ("--cache", tmp_path, *REFERENCE)
    assert invoke("tune", bundle, *options).exit_code == 0
    (plan,) = tmp_path.rglob("*.json")
    plan.write_bytes(plan.read_bytes().replace(b"fp32", b"bf16"))
    done = invoke("tune", bundle, "--cache", tmp_path, "--show")
    assert done.exit_code == 1
    assert "not a whole plan" in words(done.stdout)


# What does not work


def test_bundle_out_of_whose_tolerance_each_engine_falls_has_exit_code_1(tmp_path: Path) -> None:
    golden = Network(bias=(5.0, 3.0)).run(golden_images())
    wrong = make_bundle(tmp_path / "b", golden=golden)
    done = invoke("tune", wrong, "--cache", tmp_path / "c", *REFERENCE)
    assert done.exit_code == 1
    assert "out of tolerance" in done.stdout
    assert "extent 1 (at most 0.01)" in done.stdout
    assert "none: no engine qualified" in words(done.stdout)
    assert not list((tmp_path / "c").rglob("*.json"))


def test_what_can_t_run_here_has_exit_code_2(bundle: Path, tmp_path: Path) -> None:
    done = invoke("tune", bundle, "--cache", tmp_path, "--backend", "onnxruntime", "--precision", "bf16")
    assert done.exit_code == 2
    assert done.stderr.endswith("[engine-unsupported]\n")
    assert "not here" in done.stdout


def test_cache_that_can_t_be_written_still_has_the_report(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    options = (
        "--cache",
        tmp_path / "file",
        "--backend",
        "onnxruntime",
        "--precision",
        "fp32",
        "--rounds",
        "1",
    )
    done = run("tune", bundle, *options)
    assert done.returncode == 2
    assert done.stderr.endswith("[cache-not-writable]\n")
    assert done.stderr.count("\n") == 1
    assert "best  onnxruntime" in done.stdout
    done = run("tune", bundle, *options, "--json")
    assert done.returncode == 2
    record = json.loads(done.stdout)
    assert record["plan"] is None
    assert record["candidates"][0]["rank"] == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--threads", "0"), "thread counts"),
        (("--threads", "two"), "thread counts"),
        (("--threads", "1,,2"), "thread counts"),
        (("--rounds", "0"), "--rounds"),
        (("--backend", "auto"), "--backend"),
        (("--precision", "fp64"), "--precision"),
        (("--build-timeout", "soon"), "not a time"),
        (("--show", "--json"), "--show"),
        (("--show", "--threads", "1,2"), "--show"),
    ],
)
def test_wrong_usage_is_told(arguments: tuple[str, ...], told: str, bundle: Path, tmp_path: Path) -> None:
    done = invoke("tune", bundle, "--cache", tmp_path, *arguments)
    assert done.exit_code == 2
    assert told in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_bundle_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = invoke("tune", tmp_path / "none")
    assert done.exit_code == 2
    assert "[bundle-not-found]" in done.stderr


# auto


def test_score_with_auto_says_what_ran(bundle: Path, tuned: Path, tmp_path: Path) -> None:
    picture = draw(tmp_path / "p.png")
    done = invoke("score", picture, "--bundle", bundle, "--backend", "auto", "--cache", tuned)
    assert done.exit_code == 0
    assert "CPU (auto: by the tuned plan)" in words(done.stdout)
    done = invoke("score", picture, "--bundle", bundle, "--backend", "auto", "--cache", tmp_path, "--json")
    assert json.loads(done.stdout)["engine"]["chosen"] == "default"
    done = invoke("score", picture, "--bundle", bundle, "--cache", tuned)
    assert "(auto:" not in done.stdout


def test_rows_end_with_the_engine_that_auto_took(bundle: Path, tuned: Path, tmp_path: Path) -> None:
    draw_many(tmp_path / "in", 2)
    done = invoke("score", tmp_path / "in", "--bundle", bundle, "--backend", "auto", "--cache", tuned)
    assert done.exit_code == 0
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("engine: ")]
    assert line.startswith("engine: openvino")
    assert line.endswith("(auto: by the tuned plan)")
    done = invoke("score", tmp_path / "in", "--bundle", bundle)
    assert "engine: " not in done.stdout


def test_auto_with_a_precision_is_refused(bundle: Path, tuned: Path, tmp_path: Path) -> None:
    picture = draw(tmp_path / "p.png")
    options = ("--backend", "auto", "--precision", "fp32", "--cache", tuned)
    done = invoke("score", picture, "--bundle", bundle, *options)
    assert done.exit_code == 2
    assert "auto chooses the precision as well" in done.stderr
