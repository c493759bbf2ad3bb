"""The guard against slowdowns sees each kind of slowdown that is planted here, and nothing where there is none."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("onnxruntime")

from bedside import cxr
from bedside.backends import Backend, EngineInfo
from bedside.dicom import DicomSeries
from bedside.reading import read_radiograph
from bedside.segmentation import Segmentor

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

Plant = Callable[[pytest.MonkeyPatch, Any], None]


@pytest.fixture(scope="module")
def guard() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("regression")


@pytest.fixture(scope="module")
def samples(guard: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("samples")
    return [study.draw(folder) for study in guard.STUDIES]


@pytest.fixture(scope="module")
def cases(
    guard: ModuleType, samples: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Any]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                guard.open_case(replace(study, rounds=3), sample, tmp_path_factory.mktemp("results"))
            )
            for study, sample in zip(guard.STUDIES, samples, strict=True)
        ]


@pytest.fixture(scope="module")
def counted(cases: list[Any]) -> list[Any]:
    """What the studies cost with nothing planted."""
    return [case.count() for case in cases]


@pytest.mark.parametrize("number", [0, 1])
def test_studies_cost_what_the_file_says(guard: ModuleType, counted: list[Any], number: int) -> None:
    expected = guard.read_expected(guard.EXPECTED)[guard.STUDIES[number].bundle]
    assert guard.compare(counted[number], expected) == []


def test_counts_are_the_same_each_time(guard: ModuleType, cases: list[Any], counted: list[Any]) -> None:
    for case, found in zip(cases, counted, strict=True):
        assert guard.compare(case.count(), found.to_json()) == []


class Twice:
    """An engine that asks another one twice."""

    def __init__(self, engine: Backend) -> None:
        self.engine = engine

    @property
    def info(self) -> EngineInfo:
        return self.engine.info

    def run(self, inputs: Any) -> Any:
        self.engine.run(inputs)
        return self.engine.run(inputs)

    def close(self) -> None:
        self.engine.close()


def plant_run(patch: pytest.MonkeyPatch, case: Any) -> None:
    scoring = case._studies._job._scorer
    patch.setattr(scoring, "_backend", Twice(scoring._backend))


def before_preprocess(patch: pytest.MonkeyPatch, act: Callable[[Any], object]) -> None:
    original = cxr.preprocess

    def preprocess(radiograph: Any, spec: Any) -> Any:
        act(radiograph)
        return original(radiograph, spec)

    patch.setattr(cxr, "preprocess", preprocess)


def plant_copy(patch: pytest.MonkeyPatch, case: Any) -> None:
    before_preprocess(patch, lambda radiograph: radiograph.pixels.copy())


def plant_bytes(patch: pytest.MonkeyPatch, case: Any) -> None:
    """A copy that is no array's, and is held."""
    original = cxr.preprocess

    def preprocess(radiograph: Any, spec: Any) -> Any:
        held = radiograph.pixels.tobytes(), radiograph.pixels.tobytes()
        return original(radiograph, spec)[:: len(held[0]) // len(held[1])]

    patch.setattr(cxr, "preprocess", preprocess)


def plant_opening(patch: pytest.MonkeyPatch, case: Any) -> None:
    def read(path: Path) -> Any:
        path.read_bytes()
        return read_radiograph(path)

    patch.setattr("bedside.scorer.read_radiograph", read)


def plant_disorder(patch: pytest.MonkeyPatch, case: Any) -> None:
    original = cxr.preprocess
    patch.setattr(cxr, "preprocess", lambda *given: np.asfortranarray(original(*given)))


def plant_sleep(patch: pytest.MonkeyPatch, case: Any) -> None:
    before_preprocess(patch, lambda _: time.sleep(0.001))


def plant_fsync(patch: pytest.MonkeyPatch, case: Any) -> None:
    def sync(_: Any) -> None:
        with (case._places.results / "synced").open("wb") as stream:
            os.fsync(stream.fileno())

    before_preprocess(patch, sync)


def plant_thread(patch: pytest.MonkeyPatch, case: Any) -> None:
    def wait(_: Any) -> None:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()

    before_preprocess(patch, wait)


def plant_process(patch: pytest.MonkeyPatch, case: Any) -> None:
    before_preprocess(patch, lambda _: subprocess.run([sys.executable, "-S", "-c", ""], check=True))


@pytest.mark.parametrize(
    ("plant", "line"),
    [
        (plant_run, "runs of the network: 2, and 1 was expected (more)"),
        (plant_copy, "arrays as large as a stored picture made: 3, and 2 was expected (more)"),
        (plant_bytes, "most bytes of Python and numpy held at once: "),
        (plant_opening, "input files opened: 6, and 5 was expected (more)"),
        (plant_disorder, "they do not lie in order: 409,600, and 0 was expected (more)"),
        (plant_sleep, "waits of a set time: 1, and 0 was expected (more)"),
        (plant_fsync, "waits for the disk to have what was written: "),
        (plant_thread, "threads and pools of threads started: 1, and 0 was expected (more)"),
        (plant_process, "processes started: 1, and 0 was expected (more)"),
    ],
)
def test_a_planted_cost_is_told(
    guard: ModuleType, cases: list[Any], counted: list[Any], plant: Plant, line: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        plant(patch, cases[0])
        told = guard.compare(cases[0].count(), counted[0].to_json())
    assert [each for each in told if line in each]
    assert guard.compare(cases[0].count(), counted[0].to_json()) == []


def test_a_planted_copy_of_each_slice_is_told(
    guard: ModuleType, cases: list[Any], counted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = Segmentor.prepare
    monkeypatch.setattr(Segmentor, "prepare", lambda self, hu: prepare(self, hu.copy()))
    (*_, arrays, size) = guard.compare(cases[1].count(), counted[1].to_json())
    assert arrays.startswith("arrays as large as a stored picture made: ")
    assert size.startswith("bytes of these arrays: ")
    assert "(more)" in size


def test_a_second_reading_of_a_series_is_told(
    guard: ModuleType, cases: list[Any], counted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = DicomSeries.read

    def read_twice(self: DicomSeries, slices: Any) -> Any:
        read(self, slices)
        return read(self, slices)

    monkeypatch.setattr(DicomSeries, "read", read_twice)
    told = guard.compare(cases[1].count(), counted[1].to_json())
    assert [each for each in told if each.startswith("input files opened: ")]


def test_a_busy_loop_in_preprocessing_is_told(
    guard: ModuleType, cases: list[Any], counted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cases[0]
    expected = replace(counted[0], ratios=case.measure()).to_json()
    assert guard.guard(case, expected)[1] == []

    def loop(radiograph: Any) -> None:
        for _ in range(4 * radiograph.pixels.size):
            pass

    before_preprocess(monkeypatch, loop)
    _, told = guard.guard(case, expected)
    assert [each.partition(":")[0] for each in told] == [guard.REST, guard.WHOLE]
    assert "slower" in told[0]


def test_a_slower_way_to_the_engine_is_told(guard: ModuleType, cases: list[Any], counted: list[Any]) -> None:
    case = cases[0]
    expected = replace(counted[0], ratios=case.measure()).to_json()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(case._seam, "engine", Twice(case._seam.engine))
        _, told = guard.guard(case, expected)
    assert told[0].startswith(f"{guard.NETWORK}: ")


def test_what_became_less_is_told_too_so_that_it_stays_so(guard: ModuleType, counted: list[Any]) -> None:
    expected = counted[0].to_json()
    expected["counts"]["input files opened"] += 1
    (line,) = guard.compare(counted[0], expected)
    assert line == "input files opened: 5, and 6 was expected (less)"


def test_another_bundle_is_named_as_a_reason(guard: ModuleType, counted: list[Any]) -> None:
    other = replace(counted[0], digest="0" * 64)
    assert guard.compare(other, counted[0].to_json()) == []
    expected = counted[0].to_json()
    expected["counts"]["bytes that it answers"] += 4
    assert "the bundle is not the one" in guard.compare(other, expected)[-1]


def test_renewing_writes_what_the_next_comparison_passes_and_a_change_fails_with_how_to_renew(
    guard: ModuleType, samples: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = replace(guard.STUDIES[0], draw=lambda _: samples[0], rounds=3)
    monkeypatch.setattr(guard, "STUDIES", (drawn,))
    path = tmp_path / "expected.json"
    arguments = ["--expected", str(path)]
    refused = CliRunner().invoke(guard.main, arguments)
    assert refused.exit_code == 2
    assert f"write it with: {guard.RENEW}" in refused.output
    assert CliRunner().invoke(guard.main, [*arguments, "--renew"]).exit_code == 0
    passed = CliRunner().invoke(guard.main, arguments)
    assert (passed.exit_code, passed.output.splitlines()[-1]) == (0, "as expected")
    record = json.loads(path.read_text("utf-8"))
    record["studies"][drawn.bundle]["counts"]["runs of the network"] = 7
    path.write_text(json.dumps(record), "utf-8")
    failed = CliRunner().invoke(guard.main, arguments)
    assert failed.exit_code == 1
    assert f"{drawn.bundle}: runs of the network: 1, and 7 was expected (less)" in failed.output
    assert guard.RENEW in failed.output.splitlines()[-1]


@pytest.mark.parametrize("text", ["", "[]", '{"studies": {}}', '{"studies": {"cxr-severity-lite": 1}}'])
def test_a_file_that_says_nothing_is_refused(guard: ModuleType, tmp_path: Path, text: str) -> None:
    path = tmp_path / "expected.json"
    path.write_text(text, "utf-8")
    result = CliRunner().invoke(guard.main, ["--expected", str(path)])
    assert result.exit_code == 2
    assert "does not say what is expected" in result.output
