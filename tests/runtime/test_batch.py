from __future__ import annotations

import csv
import gc
import json
import tracemalloc
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bedside import batch as batch_module
from bedside.backends.fake import FakeBackend
from bedside.batch import Batch, Output, Scored
from bedside.bundle import Bundle
from bedside.errors import BundleError, OutputError
from bedside.inputs import Inputs
from bedside.results import Journal, write_heatmap
from bedside.scorer import CxrScorer
from command_line import draw, draw_many
from tiny_bundle import Floats, Network, make_bundle, manifest_of

NETWORK = Network()


def answer(inputs: Mapping[str, Floats]) -> dict[str, Any]:
    return dict(NETWORK.run(inputs["image"]))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(make_bundle(tmp_path / "tiny"))


@pytest.fixture
def engine() -> FakeBackend:
    return FakeBackend(answer)


@pytest.fixture
def scorer(bundle: Bundle, engine: FakeBackend) -> Iterator[CxrScorer]:
    with CxrScorer(bundle, engine) as opened:
        yield opened


def score_all(
    scorer: CxrScorer, paths: Iterable[Path], output: Output | None = None
) -> tuple[Batch, list[Scored]]:
    with Batch(scorer, output) as batch:
        return batch, list(batch.run(Inputs(list(paths))))


def journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text("utf-8").splitlines()]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "timing_ms"}


def test_a_batch_gives_what_single_scores_give(scorer: CxrScorer, tmp_path: Path) -> None:
    paths = draw_many(tmp_path / "in", 3)
    _, together = score_all(scorer, [tmp_path / "in"], Output(tmp_path / "out"))
    alone = [timeless(scorer.score(path).to_json()) for path in paths]
    assert [timeless(scored.result.to_json(scored.files)) for scored in together] == alone
    assert [timeless(record) for record in journal(tmp_path / "out")] == alone


def test_each_result_is_on_the_disk_before_the_next_input_is_read(scorer: CxrScorer, tmp_path: Path) -> None:
    paths = draw_many(tmp_path / "in", 3)
    with Batch(scorer, Output(tmp_path / "out")) as batch:
        for number, _ in enumerate(batch.run(Inputs(paths)), 1):
            assert len(journal(tmp_path / "out")) == number
        assert not (tmp_path / "out" / "results.csv").exists()
    rows = table(tmp_path / "out")
    assert [row["source"] for row in rows] == [str(path) for path in paths]


def test_a_bad_file_is_told_and_the_rest_goes_on_untouched(scorer: CxrScorer, tmp_path: Path) -> None:
    paths = draw_many(tmp_path / "in", 2)
    bad = tmp_path / "in" / "0005.png"
    bad.write_bytes(b"")
    _, clean = score_all(scorer, paths)
    batch, mixed = score_all(scorer, [bad, paths[0], bad, paths[1], bad])
    assert [scored.result.status for scored in mixed] == ["failed", "ok", "failed", "ok", "failed"]
    assert batch.counts == {"failed": 3, "ok": 2}
    assert not batch.complete
    for i, j in ((0, 1), (1, 3)):
        assert timeless(clean[i].result.to_json()) == timeless(mixed[j].result.to_json())


def test_resume_scores_only_what_is_not_done(scorer: CxrScorer, engine: FakeBackend, tmp_path: Path) -> None:
    paths = draw_many(tmp_path / "in", 4)
    output = Output(tmp_path / "out", resume=True)
    score_all(scorer, paths[:2], output)
    engine.calls.clear()
    batch, scored = score_all(scorer, paths, output)
    assert [each.result.source for each in scored] == [str(path) for path in paths[2:]]
    assert len(engine.calls) == 2
    assert (batch.counts, batch.earlier) == ({"ok": 2}, {"ok": 2})
    assert [record["source"] for record in journal(tmp_path / "out")] == [str(path) for path in paths]


def test_resume_remembers_what_was_refused_and_retries_what_failed(scorer: CxrScorer, tmp_path: Path) -> None:
    tiny = draw(tmp_path / "in" / "tiny.png", shape=(8, 8))
    bad = tmp_path / "in" / "bad.png"
    bad.write_bytes(b"")
    output = Output(tmp_path / "out", resume=True)
    score_all(scorer, [tiny, bad], output)
    draw(bad)
    batch, scored = score_all(scorer, [tiny, bad], output)
    assert [(each.result.source, each.result.status) for each in scored] == [(str(bad), "ok")]
    assert batch.earlier == {"refused": 1}
    assert not batch.complete
    rows = table(tmp_path / "out")
    assert {row["source"]: row["status"] for row in rows} == {str(tiny): "refused", str(bad): "ok"}


def test_a_folder_with_results_is_not_written_without_resume(scorer: CxrScorer, tmp_path: Path) -> None:
    paths = draw_many(tmp_path / "in", 1)
    score_all(scorer, paths, Output(tmp_path / "out"))
    before = (tmp_path / "out" / "results.jsonl").read_bytes()
    with pytest.raises(OutputError) as caught:
        Batch(scorer, Output(tmp_path / "out"))
    assert caught.value.code == "output-exists"
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == before


def test_heatmaps_are_written_and_named_in_the_results(scorer: CxrScorer, tmp_path: Path) -> None:
    draw(tmp_path / "in" / "a" / "x.png")
    draw(tmp_path / "in" / "b" / "x.png")
    draw(tmp_path / "in" / "tiny.png", shape=(8, 8))
    _, scored = score_all(scorer, [tmp_path / "in"], Output(tmp_path / "out", heatmap=True))
    names = [each.files.get("heatmap") for each in scored]
    assert names[2] is None
    assert len({*names}) == 3
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {*names} - {None}
    assert [record["files"].get("heatmap") for record in journal(tmp_path / "out")] == names


def test_heatmaps_of_a_bundle_without_maps_are_refused_at_once(tmp_path: Path) -> None:
    outputs = [output for output in manifest_of(NETWORK)["outputs"] if output["name"] != "cam"]
    bundle = Bundle.open(make_bundle(tmp_path / "mapless", outputs=outputs))
    scorer = CxrScorer(bundle, FakeBackend(answer))
    with pytest.raises(BundleError) as caught:
        Batch(scorer, Output(tmp_path / "out", heatmap=True))
    assert caught.value.code == "bundle-task"
    assert not (tmp_path / "out").exists()
    _, scored = score_all(scorer, [draw(tmp_path / "x.png")], Output(tmp_path / "out"))
    assert scored[0].result.status == "ok"


def test_a_defect_in_drawing_is_told_of_its_input_alone(
    scorer: CxrScorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = draw_many(tmp_path / "in", 2)

    def fail_on_first(path: Path, result: Any) -> None:
        if result.source == str(paths[0]):
            raise ZeroDivisionError("secret")
        write_heatmap(path, result)

    monkeypatch.setattr(batch_module, "write_heatmap", fail_on_first)
    _, scored = score_all(scorer, paths, Output(tmp_path / "out", heatmap=True))
    assert [each.result.status for each in scored] == ["failed", "ok"]
    record = journal(tmp_path / "out")[0]
    assert record["error"]["code"] == "internal"
    assert "secret" not in record["error"]["message"]
    assert record["extent"] is None


def test_a_result_that_cannot_be_written_ends_the_batch_and_keeps_those_before(
    scorer: CxrScorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = draw_many(tmp_path / "in", 3)
    append = Journal.append

    def fill_up(self: Any, result: Any, files: Any = None) -> None:
        if result.source == str(paths[1]):
            raise OutputError("disk-full", "no space left")
        append(self, result, files)

    monkeypatch.setattr(Journal, "append", fill_up)
    with pytest.raises(OutputError), Batch(scorer, Output(tmp_path / "out")) as batch:
        list(batch.run(Inputs(paths)))
    assert [record["source"] for record in journal(tmp_path / "out")] == [str(paths[0])]
    monkeypatch.undo()
    _, scored = score_all(scorer, paths, Output(tmp_path / "out", resume=True))  # unlocked, and goes on
    assert len(scored) == 2


def test_an_interrupted_batch_still_writes_its_table(scorer: CxrScorer, tmp_path: Path) -> None:
    paths = draw_many(tmp_path / "in", 3)
    batch = Batch(scorer, Output(tmp_path / "out"))
    scored = batch.run(Inputs(paths))
    with pytest.raises(KeyboardInterrupt), batch:
        raise KeyboardInterrupt(next(scored))
    assert len((tmp_path / "out" / "results.csv").read_text("utf-8").splitlines()) == 2


def spoil(inputs: Mapping[str, Floats]) -> dict[str, Any]:
    return {name: values * np.float32(np.nan) for name, values in answer(inputs).items()}


def break_down(_: Mapping[str, Floats]) -> dict[str, Any]:
    raise ZeroDivisionError


@pytest.mark.parametrize(("respond", "status"), [(answer, "ok"), (spoil, "failed"), (break_down, "failed")])
def test_memory_does_not_grow_with_the_inputs(
    bundle: Bundle, tmp_path: Path, respond: Any, status: str
) -> None:
    picture = draw(tmp_path / "large.png", shape=(700, 700))
    pixels = 700 * 700 * 4

    def peak_of(number: int, name: str) -> int:
        engine = FakeBackend(respond)
        with CxrScorer(bundle, engine) as scorer, Batch(scorer, Output(tmp_path / name)) as batch:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            for scored in batch.run(Inputs([picture] * number)):
                assert scored.result.status == status
                engine.calls.clear()
            return tracemalloc.get_traced_memory()[1] - before

    gc.collect()
    gc.disable()  # what is freed only by the collector has been held too long
    tracemalloc.start()
    try:
        peak_of(2, "warm")
        few, many = peak_of(2, "few"), peak_of(12, "many")
    finally:
        tracemalloc.stop()
        gc.enable()
    assert few > pixels  # the picture itself is seen
    assert many - few < pixels / 2
