"""What is done before the first study, so that it does not wait for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bedside.backends import EngineInfo, FakeBackend
from bedside.contract import Input
from bedside.opacification import OpacificationResult
from bedside.provenance import BundleRef
from bedside.scan import Volume
from bedside.segmentation import Job, Request, Warm
from bedside.warmup import usual_shape, warm_up
from command_line import draw
from fake_ct import make_engine, make_manifest, paint
from made_scans import phantom_scan
from tiny_bundle import make_bundle

BLANK = OpacificationResult(
    "scan", BundleRef("fake-ct", "1.0.0", "0" * 64), EngineInfo("fake", "0", "fp32", "none", None)
)
NEW_MODULES = """
import sys, bedside
bundle, *pictures = sys.argv[1:]
with bedside.open_cxr(bundle) as scorer:
    before = set(sys.modules)
    for picture in pictures:
        scorer.score(picture).raise_for_status()
print(*sorted(set(sys.modules) - before))
"""


@pytest.mark.parametrize(
    ("shape", "usual"),
    [
        ((None, 1, 224, 224), (1, 1, 224, 224)),
        ((4, 1, 32, 48), (4, 1, 32, 48)),
        ((None, 1, None, None), None),
        ((1, 3, 512, None), None),
    ],
)
def test_shape_is_that_of_one_picture_where_it_is_fixed(
    shape: tuple[int | None, ...], usual: tuple[int, ...] | None
) -> None:
    assert usual_shape(Input("image", shape, -1.0, 1.0)) == usual


def test_engine_is_run_once_on_black() -> None:
    fake = FakeBackend(lambda _: {})
    spec = Input("image", (None, 1, 8, 8), -1024.0, 1024.0)
    warm_up(fake, spec, (1, 1, 8, 8))
    warm_up(fake, spec, None)
    (call,) = fake.calls
    assert call["image"].shape == (1, 1, 8, 8)
    assert (call["image"] == -1024).all()


def test_first_picture_imports_nothing(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from bedside.sample import write_sample

    bundle, picture = make_bundle(tmp_path / "b"), draw(tmp_path / "a.png")
    write_sample(tmp_path / "b.dcm")
    done = subprocess.run(
        [sys.executable, "-c", NEW_MODULES, str(bundle), str(picture), str(tmp_path / "b.dcm")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=120,
        check=True,
    )
    assert done.stdout.split() == []


def test_tile_that_has_run_is_not_run_again_for_the_next_scan() -> None:
    _, labels, geometry = phantom_scan("severe", 24, 96)
    scan = Volume(paint(labels), geometry.affine)
    engine, manifest, warm = make_engine(), make_manifest(), Warm()
    runs = []
    for _ in range(3):
        before = len(engine.calls)
        Job(manifest, engine, Request(), warm).run(scan, BLANK)
        runs.append(len(engine.calls) - before)
    assert runs == [runs[1] + 1, runs[1], runs[1]]


def test_memory_is_measured_anew_for_each_scan_that_has_a_budget() -> None:
    _, labels, geometry = phantom_scan("severe", 24, 96)
    scan = Volume(paint(labels), geometry.affine)
    engine, manifest, warm = make_engine(), make_manifest(), Warm()
    runs = []
    for _ in range(2):
        before = len(engine.calls)
        Job(manifest, engine, Request(memory_bytes=1 << 40), warm).run(scan, BLANK)
        runs.append(len(engine.calls) - before)
    assert runs[0] == runs[1]
