"""OpenVINO: the beginning of a network that stays float32 is a model of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bedside.backends import Backend, Tuning, open_backend
from bedside.backends.openvino.beginning import cut_beginning
from bedside.bundle import Bundle
from small_networks import CONVOLUTIONS, convolution_bundle, executed, halves, needs_bf16, picture

openvino = pytest.importorskip("openvino")


def engine_of(folder: Path, stays: tuple[str, ...], precision: str = "bf16", **how: Any) -> Backend:
    bundle: Bundle = convolution_bundle(folder, float32_nodes={precision: list(stays)})
    return open_backend("openvino", bundle, precision=precision, tuning=Tuning(**how))


def parts_of(engine: Backend) -> list[dict[str, str]]:
    """For each part: name of a node -> the precision that it runs in."""
    (lane,) = engine._lanes.values()  # type: ignore[attr-defined]
    request = lane._requests[0]
    compiled = [request._beginning, request._rest] if hasattr(request, "_beginning") else [request]
    return [executed(each.get_compiled_model()) for each in compiled]


@halves
@pytest.mark.parametrize("count", [1, 2, 3])
def test_beginning_stays_float32_and_the_rest_does_not(
    precision: str, bits: int, count: int, tmp_path: Path
) -> None:
    half = {"fp16": "f16", "bf16": "bf16"}[precision]
    beginning, rest = parts_of(engine_of(tmp_path / "b", CONVOLUTIONS[:count], precision))
    assert {name: ran for name, ran in beginning.items() if name in CONVOLUTIONS} == dict.fromkeys(
        CONVOLUTIONS[:count], "f32"
    )
    assert {name: ran for name, ran in rest.items() if name in CONVOLUTIONS} == dict.fromkeys(
        CONVOLUTIONS[count:], half
    )


@needs_bf16
def test_node_that_stays_float32_behind_the_beginning_is_marked(tmp_path: Path) -> None:
    beginning, rest = parts_of(engine_of(tmp_path / "b", ("first", "third")))
    assert beginning["first"] == "f32"
    assert {name: rest[name] for name in CONVOLUTIONS[1:]} == {
        "second": "bf16",
        "third": "f32",
        "fourth": "bf16",
    }


@needs_bf16
def test_what_does_not_begin_with_the_input_is_no_beginning(tmp_path: Path) -> None:
    assert len(parts_of(engine_of(tmp_path / "b", ("second", "third")))) == 1


@needs_bf16
def test_pictures_of_a_batch_have_the_answers_of_each_alone(tmp_path: Path) -> None:
    pictures = np.concatenate([picture(seed) * np.float32(1 + seed) for seed in range(5)])
    one = engine_of(tmp_path / "b", CONVOLUTIONS[:2])
    several = engine_of(tmp_path / "c", CONVOLUTIONS[:2], hint="throughput")
    alone = [one.run({"image": each[None]})["severity"] for each in pictures]
    assert len({answer.tobytes() for answer in alone}) == len(pictures)
    for engine in (one, several):
        np.testing.assert_array_equal(engine.run({"image": pictures})["severity"], np.concatenate(alone))


@needs_bf16
def test_both_parts_come_from_the_cache(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cold = engine_of(tmp_path / "b", CONVOLUTIONS[:2], cache=cache)
    blobs = sorted(cache.rglob("*.blob"))
    times = [blob.stat().st_mtime_ns for blob in blobs]
    warm = engine_of(tmp_path / "b2", CONVOLUTIONS[:2], cache=cache)
    assert len(blobs) == 2
    assert [blob.stat().st_mtime_ns for blob in blobs] == times
    want, given = (engine.run({"image": picture()})["severity"] for engine in (cold, warm))
    np.testing.assert_array_equal(given, want)
    assert parts_of(warm)[0]["second"] == "f32"


@needs_bf16
@pytest.mark.parametrize("lost", [0, 1])
def test_half_of_what_was_kept_is_not_enough(lost: int, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    want = engine_of(tmp_path / "b", CONVOLUTIONS[:2], cache=cache).run({"image": picture()})["severity"]
    blobs = sorted(cache.rglob("*.blob"))
    blobs[lost].unlink()
    again = engine_of(tmp_path / "b2", CONVOLUTIONS[:2], cache=cache)
    np.testing.assert_array_equal(again.run({"image": picture()})["severity"], want)
    assert sorted(cache.rglob("*.blob")) == blobs


@needs_bf16
@pytest.mark.parametrize("name", ["cxr-severity-lite", "ct-opacity-lite"])
def test_built_in_bundle_runs_in_8_bits_behind_a_beginning_in_float32(name: str) -> None:
    bundle = Bundle.open(name)
    engine = open_backend("openvino", bundle, precision="int8-bf16")
    if not engine._lanes:  # type: ignore[attr-defined]
        spec = bundle.manifest.input
        engine.run({spec.name: np.zeros((1, spec.shape[1] or 1, 256, 256), np.float32)})
    *beginning, rest = parts_of(engine)
    assert beginning, "the bundle keeps nothing in float32: take another"
    ran = [precision for name, precision in rest.items() if "conv" in name.lower()]
    assert sum(precision in {"i8", "u8"} for precision in ran) > len(ran) / 2


def test_shapes_are_computed_and_weights_of_8_bits_stay(tmp_path: Path) -> None:
    ops = openvino.opset13
    image = ops.parameter([1, 1, 8, 8], np.float32, name="image")
    weights = ops.constant(np.full((4, 1, 3, 3), 7, np.int8))
    scaled = ops.multiply(ops.convert(weights, "f32"), ops.constant(np.float32(0.5)))
    first = ops.convolution(image, scaled, [1, 1], [1, 1], [1, 1], [1, 1], name="first")
    size = ops.concat([ops.constant(np.array([1], np.int64)), ops.constant(np.array([256], np.int64))], 0)
    model = openvino.Model([ops.reshape(first, size, special_zero=False)], [image])
    want = openvino.Core().compile_model(model, "CPU")(np.ones((1, 1, 8, 8), np.float32))[0]

    assert cut_beginning(model, {}, frozenset()) is None
    types = [each.get_element_type() for each in model.get_ops() if each.get_type_name() == "Constant"]
    assert openvino.Type.i8 in types
    assert "Concat" not in {each.get_type_name() for each in model.get_ops()}
    assert [each.get_friendly_name() for each in model.get_parameters()] == ["image"]
    np.testing.assert_array_equal(
        openvino.Core().compile_model(model, "CPU")(np.ones((1, 1, 8, 8), np.float32))[0], want
    )
