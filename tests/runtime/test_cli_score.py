from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from bedside import __version__, open_cxr
from bedside.backends import BACKENDS, PRECISIONS
from bedside.backends.base import MAX_THREADS
from bedside.cli import engine as engine_options
from command_line import draw, draw_many, invoke
from tiny_bundle import Network, make_bundle, zip_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    return draw_many(tmp_path / "in", 3)


@pytest.fixture
def bad(tmp_path: Path, pictures: list[Path]) -> Path:
    path = tmp_path / "in" / "bad.png"
    path.write_bytes(b"")
    assert path.parent == pictures[0].parent
    return path


def score(bundle: Path, *arguments: str | Path) -> Result:
    return invoke("score", "--bundle", bundle, *arguments)


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "timing_ms"}


def test_one_input_is_told_in_full(bundle: Path, pictures: list[Path]) -> None:
    done = score(bundle, pictures[0])
    assert (done.exit_code, done.stderr) == (0, "")
    with open_cxr(bundle) as scorer:
        result = scorer.score(pictures[0])
    assert result.extent is not None
    lines = done.stdout.splitlines()
    assert lines[0] == str(pictures[0])
    flat = " ".join(done.stdout.split())
    extent = result.extent
    assert f"geographic extent {extent.value:.1f} on a scale of 0 to 8; 80% interval" in flat
    assert f"interval {extent.low:.1f} to {extent.high:.1f}" in flat
    assert "degree of opacity" in flat
    assert "on a scale of 0 to 6" in flat
    assert "made up for tests" in flat
    assert f"tiny 1.0.0, sha256 {result.bundle.digest[:12]}" in flat
    assert "CC-BY-NC-SA-4.0: not for commercial use" in flat
    assert f"onnxruntime {result.engine.version}, fp32, CPU" in flat
    assert all(f"{stage} " in flat for stage in ("read", "preprocess", "inference", "interpret"))
    assert lines[-1] == "Not for clinical use."


def test_pathologies_stand_in_the_order_of_their_probability_without_untrained_ones(
    bundle: Path, pictures: list[Path]
) -> None:
    told = score(bundle, pictures[0]).stdout
    assert told.index("Lung Opacity") < told.index("Effusion")
    assert "Hernia" not in told


def test_many_inputs_are_a_row_each_and_a_summary(bundle: Path, pictures: list[Path], bad: Path) -> None:
    done = score(bundle, *pictures, bad)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["extent", "(0", "to", "8)", "opacity", "(0", "to", "6)", "source"]
    assert [line.split()[8] for line in lines[1:4]] == [str(path) for path in pictures]
    assert all(line.endswith("  [low-resolution]") for line in lines[1:4])
    assert lines[4].startswith("3 scored, 1 failed, in ")
    assert lines[-1] == "Not for clinical use."
    assert done.stderr == f"{bad}: the file has no bytes; export or copy it again [empty-file]\n"
    assert done.exit_code == 1


def test_json_is_one_object_a_line_and_nothing_else(bundle: Path, pictures: list[Path], bad: Path) -> None:
    done = score(bundle, "--json", bad.parent)
    records = objects(done.stdout)
    assert [record["source"] for record in records] == [str(path) for path in (*pictures, bad)]
    assert [record["status"] for record in records] == ["ok", "ok", "ok", "failed"]
    assert records[3]["error"]["code"] == "empty-file"
    assert done.exit_code == 1


def test_command_line_python_and_batch_say_the_same(
    bundle: Path, pictures: list[Path], tmp_path: Path
) -> None:
    with open_cxr(bundle) as scorer:
        python = [timeless(scorer.score(path).to_json()) for path in pictures]
    alone = [timeless(objects(score(bundle, "--json", path).stdout)[0]) for path in pictures]
    folder = score(bundle, "--json", tmp_path / "in", "--out", tmp_path / "out")
    journal = (tmp_path / "out" / "results.jsonl").read_text("utf-8")
    assert alone == python
    assert [timeless(record) for record in objects(folder.stdout)] == python
    assert folder.stdout == journal


def test_csv_is_the_table_that_out_writes(
    bundle: Path, pictures: list[Path], bad: Path, tmp_path: Path
) -> None:
    done = score(bundle, "--csv", bad.parent, "--out", tmp_path / "out")
    assert done.stdout == (tmp_path / "out" / "results.csv").read_text("utf-8")
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [row["status"] for row in rows] == ["ok"] * len(pictures) + ["failed"]


def test_out_writes_journal_table_and_heatmaps(bundle: Path, pictures: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "results"
    done = score(bundle, tmp_path / "in", "--out", out, "--heatmap")
    assert done.exit_code == 0
    written = sorted(path.name for path in out.iterdir())
    assert written[-2:] == ["results.csv", "results.jsonl"]
    assert len(written) == len(pictures) + 2
    assert f"results are in {out}: results.jsonl, results.csv and heatmaps" in done.stdout
    again = score(bundle, tmp_path / "in", "--out", out)
    assert again.exit_code == 2
    assert again.stderr.startswith("error: the folder holds results of an earlier run; go on with --resume")


def test_results_inside_the_scored_folder_are_not_scored(
    bundle: Path, pictures: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "in" / "results"
    score(bundle, tmp_path / "in", "--out", out, "--heatmap")
    done = score(bundle, tmp_path / "in", "--out", out, "--heatmap", "--resume")
    assert f"0 scored, {len(pictures)} done earlier" in done.stdout


def test_resume_tells_what_it_passes_over(
    bundle: Path, pictures: list[Path], bad: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    tiny = draw(tmp_path / "tiny.png", shape=(8, 8))
    assert score(bundle, pictures[0], tiny, "--out", out).exit_code == 1
    done = score(bundle, *pictures, tiny, "--out", out, "--resume")
    assert "2 scored, 2 done earlier (1 of them refused)" in done.stdout
    assert done.exit_code == 1
    assert len((out / "results.jsonl").read_text("utf-8").splitlines()) == 4
    assert score(bundle, *pictures, "--out", out, "--resume").exit_code == 0
    assert score(bundle, bad, "--out", out, "--resume").exit_code == 1


def test_other_files_of_a_folder_are_skipped_and_counted(
    bundle: Path, pictures: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "in" / "notes.txt").write_text("hello", "utf-8")
    done = score(bundle, tmp_path / "in")
    assert f"{len(pictures)} scored" in done.stdout
    assert done.stderr == "note: skipped 1 file that is hidden, or no DICOM, PNG, JPEG or TIFF\n"
    assert done.exit_code == 0


def test_an_empty_folder_is_an_error_and_nothing_is_written(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = score(bundle, tmp_path / "empty", "--out", tmp_path / "out")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no picture in what was given")
    assert done.stderr.endswith("[not-found]\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Missing argument 'PATH...'"),
        (["x.png", "--heatmap"], "--heatmap needs --out"),
        (["x.png", "--resume"], "--resume needs --out"),
        (["x.png", "--backend", "abacus"], "'abacus' is not one of"),
        (["x.png", "--precision", "fp7"], "'fp7' is not one of"),
        (["x.png", "--threads", "0"], "0 is not in the range"),
        (["x.png", "--nonsense"], "No such option"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], told: str) -> None:
    done = invoke("score", *arguments)
    assert done.exit_code == 2
    assert told in done.stderr


def test_a_name_that_is_too_long_is_an_input_like_others(bundle: Path, tmp_path: Path) -> None:
    done = score(bundle, "x" * 300, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1


def test_a_scored_folder_is_no_output_folder(bundle: Path, pictures: list[Path], tmp_path: Path) -> None:
    before = sorted(path.name for path in pictures)
    done = score(bundle, tmp_path / "in", "--out", tmp_path / "in")
    assert done.exit_code == 2
    assert "--out is a folder that is scored" in done.stderr
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--bundle", "no-such-bundle"], "bundle-not-found"),
        (["--precision", "int8"], "bundle-precision"),
        (["--precision", "bf16"], "engine-unsupported"),
    ],
)
def test_a_wrong_set_up_is_one_line(
    bundle: Path, pictures: list[Path], arguments: list[str], code: str
) -> None:
    done = score(bundle, pictures[0], *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith(f" [{code}]\n")
    assert done.stderr.count("\n") == 1


def test_a_bundle_may_be_a_zip_file(bundle: Path, pictures: list[Path], tmp_path: Path) -> None:
    archive = zip_bundle(bundle, tmp_path / "tiny.zip")
    of = [timeless(objects(score(b, "--json", pictures[0]).stdout)[0]) for b in (bundle, archive)]
    assert of[0] == of[1]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_engine_and_its_threads_are_as_asked_for(
    bundle: Path, pictures: list[Path], backend: str
) -> None:
    pytest.importorskip(BACKENDS[backend].package)
    done = score(bundle, "--json", pictures[0], "--backend", backend, "--threads", "1")
    engine = objects(done.stdout)[0]["engine"]
    assert (engine["backend"], engine["precision"], engine["threads"]) == (backend, "fp32", 1)


def test_force_scores_what_is_refused_and_says_so(bundle: Path, tmp_path: Path) -> None:
    tiny = draw(tmp_path / "tiny.png", shape=(40, 40))
    refused = score(bundle, tiny)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "[tiny-image]" in refused.stderr
    forced = score(bundle, tiny, "--force")
    assert forced.exit_code == 0
    assert "forced: tiny-image" in forced.stdout


@pytest.mark.parametrize(
    "name", ["new\nline.png", "\x1b[31mred.png", "é.png", "with space.png", "\udcff.png", "=1+1.png"]
)
def test_any_file_name_is_told_on_one_line_and_kept_in_json(bundle: Path, tmp_path: Path, name: str) -> None:
    path = draw(tmp_path / "plain.png").rename(tmp_path / name)
    bad = tmp_path / f"bad{name}"
    bad.write_bytes(b"")
    rows = score(bundle, path, bad)
    assert len(rows.stdout.splitlines()) == 4
    assert len(rows.stderr.splitlines()) == 1
    assert "\x1b" not in rows.stdout + rows.stderr
    assert [record["source"] for record in objects(score(bundle, "--json", path).stdout)] == [str(path)]
    told = score(bundle, "--csv", path, bad, "--out", tmp_path / "out").stdout
    assert [row["status"] for row in csv.DictReader(told.splitlines(keepends=True))] == ["ok", "failed"]


def test_a_network_without_pathologies_tells_none(pictures: list[Path], tmp_path: Path) -> None:
    plain = make_bundle(tmp_path / "plain", network=Network(pathologies=False))
    assert "pathologies" not in score(plain, pictures[0]).stdout


def test_options_name_the_backends_and_precisions_that_there_are() -> None:
    assert tuple(BACKENDS) == engine_options.BACKENDS
    assert PRECISIONS == engine_options.PRECISIONS
    assert MAX_THREADS == engine_options.MAX_THREADS


def test_version_is_told() -> None:
    done = invoke("--version")
    assert (done.exit_code, done.stdout.split()[-1]) == (0, __version__)


@pytest.mark.parametrize("command", [[], ["score"], ["bundles"], ["inspect"], ["verify"], ["sample"]])
def test_help_tells_and_says_what_it_is_not_for(command: list[str]) -> None:
    done = invoke(*command, "--help")
    assert done.exit_code == 0
    assert done.stdout.startswith("Usage: ")
    if not command or command == ["score"]:
        assert "Not for clinical use." in " ".join(done.stdout.split())
