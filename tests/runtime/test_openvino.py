"""OpenVINO: hints, shapes, threads, and an interrupt after engines that overlapped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bedside.backends import Tuning, open_backend
from bedside.backends.base import HINTS
from bedside.bundle import Bundle
from bedside.errors import BackendError
from small_networks import Floats, network_bundle, node
from tiny_bundle import Network, golden_images, make_bundle
from tiny_ct_bundle import make_ct_bundle

openvino = pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_bundle(tmp_path_factory.mktemp("bundle") / "b", network=Network(lungs=True)))


@pytest.mark.parametrize("hint", HINTS)
@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_answers_of_a_batch_are_those_of_its_pictures_in_order(hint: str, size: int, bundle: Bundle) -> None:
    engine = open_backend("openvino", bundle, tuning=Tuning(hint=hint))
    shades = np.linspace(0.1, 1, size, dtype=np.float32)[:, None, None, None]
    pictures: Floats = np.concatenate([golden_images()] * 3)[:size] * shades
    together = engine.run({"image": pictures})
    for index in range(size):
        alone = engine.run({"image": pictures[index : index + 1]})
        for name, values in together.items():
            np.testing.assert_array_equal(values[index : index + 1], alone[name])
    np.testing.assert_allclose(
        together["severity"], Network().run(pictures)["severity"], rtol=1e-4, atol=1e-4
    )


def test_throughput_answers_several_at_a_time(bundle: Bundle) -> None:
    engine = open_backend("openvino", bundle, threads=2, tuning=Tuning(hint="throughput"))
    (lane,) = engine._lanes.values()  # type: ignore[attr-defined]
    compiled = lane._requests[0].get_compiled_model()
    assert len(lane._requests) == compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") > 1


@pytest.mark.parametrize("pinned", [True, False, None])
def test_threads_are_pinned_as_asked(pinned: bool | None, bundle: Bundle) -> None:
    engine = open_backend("openvino", bundle, threads=2, tuning=Tuning(pinned=pinned))
    (lane,) = engine._lanes.values()  # type: ignore[attr-defined]
    compiled = lane._requests[0].get_compiled_model()
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 2
    if pinned is False or (pinned and sys.platform == "linux"):
        assert compiled.get_property("ENABLE_CPU_PINNING") is pinned
    assert engine.run({"image": golden_images()})["severity"].shape == (3, 2)


def test_tiles_of_many_sizes_are_answered_and_few_are_kept(tmp_path: Path) -> None:
    engine = open_backend("openvino", Bundle.open(make_ct_bundle(tmp_path / "b")))
    reference: dict[int, Floats] = {}
    for side in (16, 24, 32, 40, 48, 56, 16, 24):
        tile = np.linspace(-1, 1, side * side, dtype=np.float32).reshape(1, 1, side, side)
        answer = next(iter(engine.run({"slice": tile}).values()))
        assert answer.shape[2:] == (side, side)
        np.testing.assert_array_equal(answer, reference.setdefault(side, answer))
    assert len(engine._lanes) == 4  # type: ignore[attr-defined]


def test_engine_is_set_up_for_the_tile_that_is_named(tmp_path: Path) -> None:
    bundle = Bundle.open(make_ct_bundle(tmp_path / "b"))
    engine = open_backend("openvino", bundle, tuning=Tuning(tile=(48, 40)))
    assert list(engine._lanes) == [(1, 1, 48, 40)]  # type: ignore[attr-defined]
    with pytest.raises(BackendError) as caught:
        open_backend("openvino", bundle, tuning=Tuning(tile=(16, 48, 40)))
    assert caught.value.code == "engine-unsupported"


def test_operator_that_it_lacks_is_named_with_its_node(tmp_path: Path) -> None:
    nodes = [node("my node", "Platten", ["image"], "severity")]
    with pytest.raises(BackendError) as caught:
        open_backend("openvino", network_bundle(tmp_path / "b", nodes, {}))
    assert caught.value.code == "engine-failed"
    assert "'Platten'" in caught.value.message
    assert "'my node'" in caught.value.message


OVERLAP = """
import os, signal, sys, time
sys.path[:0] = sys.argv[2:]
from bedside.backends import open_backend
from bedside.bundle import Bundle
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell started in the background
bundle = Bundle.open(sys.argv[1])
first = open_backend("openvino", bundle)
second = open_backend("openvino", bundle)
first.close()
del first
second.close()
del second
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_is_survived_after_engines_that_overlapped(bundle: Bundle) -> None:
    """OpenVINO's own cores put back a stack for signals that is freed: see `open_core`."""
    done = subprocess.run(
        [sys.executable, "-c", OVERLAP, bundle.location, *sys.path],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n")
