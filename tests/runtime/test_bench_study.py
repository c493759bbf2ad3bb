"""Studies that are real, measured in this process from their files to their results."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bedside.backends import FakeBackend
from bedside.bench import Listener, Request, measure
from bedside.bench.figures import STAGES
from bedside.bench.loadgen import find_loadgen
from bedside.bench.study import Order, Studies
from bedside.bundle import Bundle
from bedside.errors import BundleError, OutputError
from bedside.sample_ct import datasets
from bedside.scan import Grid
from command_line import draw, draw_many
from made_bench import FEW, NO_METERS
from tiny_bundle import Network, make_bundle
from tiny_ct_bundle import ThresholdNetwork, make_ct_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


class LocalSubject(Studies):
    """Real studies in this process, on an engine that is none."""

    def __init__(self, order: Order, engine: FakeBackend) -> None:
        super().__init__(order, lambda bundle, request: engine)

    def __enter__(self) -> LocalSubject:
        """Return itself."""
        return self

    def peak_bytes(self) -> int | None:
        """Not told."""
        return None


def local(respond: Callable[..., Any]) -> Callable[[Order], LocalSubject]:
    return lambda order: LocalSubject(order, FakeBackend(respond))


def test_x_rays_are_scored_from_file_to_result(bundle: Bundle, tmp_path: Path) -> None:
    paths = (draw(tmp_path / "small.png"), draw(tmp_path / "large.png", shape=(300, 280)))
    request = Request(inputs=paths, settings=FEW, generator="bedside", scratch=tmp_path)
    opened = local(lambda inputs: Network().run(inputs["image"]))
    found = measure(bundle, request, open_subject=opened, meters=NO_METERS).run
    assert found.valid
    assert found.engine.backend == "fake"
    assert {each.shape for each in found.samples} == {(96, 80), (300, 280)}
    assert [each.bytes for each in found.samples] == [path.stat().st_size for path in paths]
    stream = found.scenarios[0].queries
    assert set(stream.stages_ms) == set(STAGES)
    for number, service in enumerate(stream.service_ms):
        assert 0 < service <= stream.latency_ms[number] + 0.01
        assert sum(column[number] for column in stream.stages_ms.values()) == pytest.approx(service, abs=0.02)


@pytest.mark.skipif(find_loadgen() is None, reason="needs mlcommons-loadgen")
def test_mlperfs_own_generator_issues_the_queries(bundle: Bundle, tmp_path: Path) -> None:
    settings = replace(FEW, queries=20, server=True, latency_bound_ms=5000.0, search_steps=1)
    seen: list[str] = []

    def report(phase: str, done: int, total: int) -> None:
        seen.append(phase)
        if phase.startswith("server") and done == 2:
            raise KeyboardInterrupt  # its generator would go on for 100 s

    request = Request(
        inputs=tuple(draw_many(tmp_path / "many", 3)),
        settings=settings,
        generator="loadgen",
        scratch=tmp_path,
    )
    opened = local(lambda inputs: Network().run(inputs["image"]))
    found = measure(bundle, request, Listener(report), open_subject=opened, meters=NO_METERS)
    assert isinstance(found.error, KeyboardInterrupt)
    assert {each.generator for each in found.run.scenarios} == {find_loadgen()}
    stream, offline, server = found.run.scenarios
    assert (len(stream.queries.samples), stream.complete) == (20, True)
    assert (len(offline.queries.samples), offline.complete) == (20, True)
    assert (len(server.queries.samples), server.complete) == (2, False)
    assert set(stream.queries.samples) | set(offline.queries.samples) == {0, 1, 2}


def test_ct_is_segmented_from_files_to_result(tmp_path: Path) -> None:
    opened = Bundle.open(make_ct_bundle(tmp_path / "ct"))
    folder = tmp_path / "series"
    folder.mkdir()
    slices, side, pixel = 20, 48, 8.0
    edge = -pixel * (side - 1) / 2
    affine = [[0, 0, pixel, edge], [0, pixel, 0, edge], [16.0, 0, 0, -185.0], [0, 0, 0, 1]]
    grid = Grid((slices, side, side), np.array(affine))
    for number, dataset in enumerate(datasets(grid=grid)):
        dataset.save_as(folder / f"{number}.dcm")
    request = Request(
        inputs=(folder,),
        settings=replace(FEW, queries=1, offline=False),
        generator="bedside",
        scratch=tmp_path,
    )
    network = ThresholdNetwork()
    found = measure(
        opened, request, open_subject=local(lambda inputs: network.run(inputs["slice"])), meters=NO_METERS
    ).run
    assert found.overlapping
    assert (found.samples[0].shape, found.samples[0].files) == ((20, 48, 48), 20)
    stream = found.scenarios[0].queries
    assert all(
        min(stream.stages_ms[stage]) > 0 for stage in ("read", "decode", "inference", "interpret", "write")
    )


def test_altered_bundle_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    order = Order(bundle.location, "0" * 64, "onnxruntime", None, None, None, None, str(tmp_path))
    with pytest.raises(BundleError) as caught:
        Studies(order)
    assert caught.value.code == "bundle-altered"


def test_failed_write_is_told_with_its_code(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    request = Request(
        inputs=(draw(tmp_path / "a.png"),), settings=FEW, generator="bedside", scratch=tmp_path / "scratch"
    )
    opened = local(lambda inputs: Network().run(inputs["image"]))
    monkeypatch.setattr("bedside.results.journal.os.write", full)
    with pytest.raises(OutputError) as caught:
        measure(bundle, request, open_subject=opened, meters=NO_METERS)
    assert caught.value.code == "disk-full"


def test_wall_clock_that_jumps_is_not_measured(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = iter(range(2_000_000_000, 0, -86_400))
    monkeypatch.setattr(time, "time", lambda: float(next(jumps)))
    request = Request(inputs=(draw(tmp_path / "a.png"),), settings=FEW, generator="bedside", scratch=tmp_path)
    opened = local(lambda inputs: Network().run(inputs["image"]))
    found = measure(bundle, request, open_subject=opened, meters=NO_METERS).run
    assert all(0 < each < 60_000 for scenario in found.scenarios for each in scenario.queries.latency_ms)
