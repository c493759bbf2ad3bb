"""Results say how the device fared: on a made-up Jetson, throttled and not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bedside import Bundle, CxrScorer
from bedside.backends import FakeBackend
from bedside.device import StateReader, Watch
from bedside.segmenter import CtSegmenter
from made_devices import make_container, make_jetson, write_files
from schemas import make_validator
from tiny_bundle import Network, make_bundle
from tiny_ct_bundle import make_ct_bundle

ALERT = {"sys/class/thermal/cooling_device2/cur_state": "1\n"}  # gpu-throttle-alert of make_jetson


def check(record: dict[str, Any]) -> dict[str, Any]:
    name = record["schema"].removeprefix("bedside.").replace("/", "-")
    make_validator(name).validate(json.loads(json.dumps(record, allow_nan=False)))
    return record


def score(folder: Path, device: Path) -> dict[str, Any]:
    noise = np.random.default_rng(0).integers(0, 256, (100, 120), np.uint8)
    Image.fromarray(noise).save(folder / "chest.png")
    engine = FakeBackend(lambda inputs: dict(Network().run(inputs["image"])))
    with CxrScorer(Bundle.open(make_bundle(folder / "bundle")), engine) as scorer:
        scorer._watch = Watch("Jetson", StateReader(device))
        return check(scorer.score(folder / "chest.png").to_json())


def segment(folder: Path, device: Path) -> dict[str, Any]:
    bundle = Bundle.open(make_ct_bundle(folder / "ct"))
    with CtSegmenter(bundle, FakeBackend(lambda inputs: {})) as segmenter:
        segmenter._watch = Watch("Jetson", StateReader(device))
        return check(segmenter.segment(folder / "absent").to_json())


def codes(record: dict[str, Any]) -> set[str]:
    return {finding["code"] for finding in record["quality"]}


@pytest.mark.parametrize("job", [score, segment])
def test_result_says_how_the_device_fared(tmp_path: Path, job: Any) -> None:
    record = job(tmp_path, make_jetson(tmp_path / "device"))
    assert record["machine"] == {
        "device": "Jetson",
        "power_mode": "MODE_30W",
        "clocks_mhz": {"cpu": 1728.0, "17000000.gpu": 306.0},
        "temperature_c": 48.6,
        "throttled": False,
    }
    assert "device-throttled" not in codes(record)


@pytest.mark.parametrize("job", [score, segment])
def test_throttled_device_is_a_finding(tmp_path: Path, job: Any) -> None:
    record = job(tmp_path, write_files(make_jetson(tmp_path / "device"), ALERT))
    assert record["machine"]["throttled"] is True
    (text,) = (finding["text"] for finding in record["quality"] if finding["code"] == "device-throttled")
    assert "gpu-throttle-alert" in text


@pytest.mark.parametrize("job", [score, segment])
def test_device_that_tells_nothing_is_named(tmp_path: Path, job: Any) -> None:
    record = job(tmp_path, make_container(tmp_path / "device"))
    assert record["machine"] == {
        "device": "Jetson",
        "power_mode": None,
        "clocks_mhz": {},
        "temperature_c": None,
        "throttled": None,
    }


def test_failed_input_says_how_the_device_fared_too(tmp_path: Path) -> None:
    engine = FakeBackend(lambda inputs: {})
    with CxrScorer(Bundle.open(make_bundle(tmp_path / "bundle")), engine) as scorer:
        record = check(scorer.score(tmp_path / "absent.dcm").to_json())
    assert record["status"] == "failed"
    assert record["machine"]["device"]
