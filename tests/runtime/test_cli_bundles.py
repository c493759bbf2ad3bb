"""``bundles``, ``inspect``, ``verify`` and ``sample``."""

from __future__ import annotations

import json
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from bedside.backends import BACKENDS
from bedside.bundle import Bundle, built_in
from command_line import invoke
from tiny_bundle import (
    MODEL,
    Network,
    golden_images,
    make_bundle,
    read_manifest,
    seal,
    write_manifest,
    zip_bundle,
)
from tiny_ct_bundle import make_ct_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny", network=Network(lungs=True))


def test_bundles_lists_what_is_built_in() -> None:
    done = invoke("bundles")
    assert done.exit_code == 0
    listed = [json.loads(line) for line in invoke("bundles", "--json").stdout.splitlines()]
    assert [each["name"] for each in listed] == list(built_in())
    for each in listed:
        assert list(each) == ["name", "version", "task", "licence", "bytes", "title"]
        assert {each["name"], each["version"], each["licence"]} <= set(done.stdout.split())


@pytest.mark.parametrize("name", built_in())
def test_built_in_bundles_pass_their_own_golden_vectors(name: str) -> None:
    done = invoke("verify", name, "--precision", "fp32")
    assert done.exit_code == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", built_in())
def test_what_export_found_unfit_is_found_unfit_again(name: str) -> None:
    """Of other versions of an engine export knows nothing: ONNX Runtime 1.19 answers with infinity at fp16."""
    bundle = Bundle.open(name)
    known = {
        (engine["backend"], engine["precision"])
        for engine in json.loads(bundle.read(bundle.manifest.parity))["engines"]
        if engine["status"] == "failed"
        or engine["version"].partition("-")[0] != metadata.version(engine["backend"])
    }
    done = invoke("verify", name)
    lines = [line.split() for line in done.stdout.splitlines() if "FAILED" in line]
    assert {(line[0], line[1]) for line in lines} <= known
    assert done.exit_code == (1 if lines else 0)


def test_inspect_tells_all_that_a_bundle_says(bundle: Path) -> None:
    done = invoke("inspect", bundle)
    assert (done.exit_code, done.stderr) == (0, "")
    told = " ".join(done.stdout.split())
    assert "tiny 1.0.0: A network for tests" in told
    assert Bundle.open(bundle).digest in told
    assert "CC-BY-NC-SA-4.0: not for commercial use (made by a test" in told
    assert f"model card {bundle}/MODEL_CARD.md" in told
    assert "geographic extent, 0 to 8, by brightness 80% interval -0.5 +0.75, from made up for tests" in told
    assert "degree of opacity, 0 to 6" in told
    assert "image float32 N x 1 x 32 x 32" in told
    assert "black -1024, white 1024" in told
    assert "Lung Opacity, Effusion, (Hernia); in brackets: not trained" in told
    assert "model.onnx, ONNX IR 8, operator set ai.onnx 18" in told
    assert "2 Add, 1 AveragePool, 2 Flatten, 2 GlobalAveragePool" in told
    assert "tolerance bf16 extent 0.1, opacity 0.1" in told
    assert "lung_area_min 0.05" in told
    for name in read_manifest(bundle)["files"]:
        size = (bundle / name).stat().st_size
        assert any(
            line.endswith(f" {name}") and f" {size:,} bytes" in line for line in done.stdout.splitlines()
        )


def test_inspect_as_json_is_the_manifest_and_what_was_found(bundle: Path, tmp_path: Path) -> None:
    told = json.loads(invoke("inspect", bundle, "--json").stdout)
    assert told["digest"] == Bundle.open(bundle).digest
    assert told["location"] == str(bundle)
    assert told["onnx"]["fp32"]["opsets"] == {"": 18}
    manifest = read_manifest(bundle)
    defaulted = ("input", "outputs", "scores")
    assert {key: told[key] for key in manifest if key not in defaulted} == {
        key: value for key, value in manifest.items() if key not in defaulted
    }
    for score, written in zip(told["scores"], manifest["scores"], strict=True):
        assert score["interval"] | written.pop("interval") == score["interval"]
        assert score | written == score
    zipped = invoke("inspect", zip_bundle(bundle, tmp_path / "tiny.zip"))
    assert "MODEL_CARD.md in the zip" in zipped.stdout


@pytest.mark.parametrize(
    ("engine", "wanted"),
    [
        (
            {"real": {"extent": {"p99": 0.08, "worst": 0.137, "limit": 0.1}}},
            "parity openvino bf16 passed: extent p99 0.08, worst 0.14 (at most 0.1)",
        ),
        (
            {
                "real": {
                    "opacity volume in percent": {"all": 0.25, "worst": 0.29, "limit": 0.5},
                    "Dice loss of lung": {"all": 0.001, "worst": 0.002, "limit": 0.005},
                    "Dice loss of opacity": {"all": 0.002, "worst": 0.003, "limit": 0.005},
                }
            },
            "opacity volume in percent 0.25, worst 0.29 (at most 0.5), largest Dice loss 0.002, worst 0.003",
        ),
        ({"golden": {"extent": {"difference": 0.01, "limit": 0.1}}}, "passed: extent 0.01 (at most 0.1)"),
        ({"status": "not-run", "reason": "openvino is not installed"}, "not-run: openvino is not installed"),
    ],
)
def test_inspect_tells_how_far_each_engine_was_at_export(
    engine: dict[str, Any], wanted: str, bundle: Path, tmp_path: Path
) -> None:
    report = {
        "engines": [{"backend": "openvino", "precision": "bf16", "status": "passed", **engine}],
        "validation": {"images": 7, "sha256": "ab" * 32},
    }
    told = " ".join(invoke("inspect", with_parity(bundle, tmp_path, report)).stdout.split())
    assert wanted in told
    assert "on 7 real pictures or tiles, sha256 abababababab" in told


def test_parity_report_that_is_none_is_told(bundle: Path, tmp_path: Path) -> None:
    done = invoke("inspect", with_parity(bundle, tmp_path, {"engines": [{"backend": "openvino"}]}))
    assert done.exit_code == 2
    assert "parity report" in done.stderr
    assert "[bundle-broken]" in done.stderr


def with_parity(bundle: Path, tmp_path: Path, report: dict[str, Any]) -> Path:
    """The same bundle with another parity report."""
    folder = tmp_path / "with-parity"
    shutil.copytree(bundle, folder)
    (folder / read_manifest(folder)["parity"]).write_text(json.dumps(report))
    manifest = read_manifest(folder)
    del manifest["files"]
    return seal(folder, manifest)


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_a_bundle_that_is_not_there_is_one_line(command: str) -> None:
    done = invoke(command, "no-such-bundle")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no bundle at 'no-such-bundle'")
    assert done.stderr.endswith("[bundle-not-found]\n")
    assert done.stderr.count("\n") == 1


def test_verify_tells_each_engine_and_its_differences(bundle: Path) -> None:
    done = invoke("verify", bundle, "--backend", "onnxruntime")
    assert (done.exit_code, done.stderr) == (0, "")
    told = " ".join(done.stdout.split())
    assert "hashes passed: 6 files are as bundle.json says" in told
    assert "onnxruntime fp32 passed: differs by extent" in told
    assert "(at most 0.01)" in told
    assert "on 3 golden inputs" in told
    assert "onnxruntime bf16 not here: onnxruntime has no bf16" in told


def test_verify_fails_where_a_byte_has_changed(bundle: Path) -> None:
    data = bytearray((bundle / MODEL).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / MODEL).write_bytes(data)
    done = invoke("verify", bundle)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"FAILED: '{MODEL}' ")
    assert done.stderr.endswith("[bundle-altered]\n")


def test_verify_fails_where_an_engine_answers_otherwise(tmp_path: Path) -> None:
    golden = {name: values + np.float32(1) for name, values in Network().run(golden_images()).items()}
    done = invoke("verify", make_bundle(tmp_path / "off", golden=golden), "--backend", "onnxruntime")
    assert done.exit_code == 1
    assert "onnxruntime fp32 FAILED: differs by extent 1 (at most 0.01)" in " ".join(done.stdout.split())


def test_verify_fails_on_golden_vectors_that_are_none(bundle: Path) -> None:
    (bundle / "golden-inputs.npy").write_bytes(b"nothing")
    done = invoke("verify", seal(bundle), "--backend", "onnxruntime", "--precision", "fp32")
    assert done.exit_code == 1
    assert "FAILED: the golden vectors can't be read" in " ".join(done.stdout.split())
    assert "[bundle-broken]" in done.stdout


def test_verify_of_what_cannot_run_here_is_a_matter_of_set_up(bundle: Path) -> None:
    done = invoke("verify", bundle, "--backend", "onnxruntime", "--precision", "bf16")
    assert done.exit_code == 2
    assert "not here: onnxruntime has no bf16" in " ".join(done.stdout.split())
    assert done.stderr.endswith("[engine-unsupported]\n")


def test_verify_without_engines_checks_the_hashes(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for leaf in BACKENDS.values():
        monkeypatch.setitem(sys.modules, leaf.package, None)
    done = invoke("verify", bundle)
    assert done.exit_code == 0
    assert "hashes passed" in " ".join(done.stdout.split())
    assert "none is installed" in done.stdout


def test_verify_refuses_a_newer_schema(bundle: Path) -> None:
    write_manifest(bundle, {**read_manifest(bundle), "schema": "bedside.bundle/2"})
    done = invoke("verify", bundle)
    assert done.exit_code == 1
    assert done.stderr.endswith("[bundle-schema]\n")


def test_a_bundle_for_another_task_is_told(tmp_path: Path) -> None:
    done = invoke("score", "x.png", "--bundle", make_ct_bundle(tmp_path / "ct"))
    assert done.exit_code == 2
    assert done.stderr.endswith("[bundle-task]\n")


def test_sample_writes_an_x_ray_that_scores(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "sample.dcm"
    done = invoke("sample", path)
    assert done.exit_code == 0
    assert f"wrote {path}: a computed chest phantom, no patient" in done.stdout
    assert pydicom.dcmread(path, stop_before_pixels=True).Modality == "DX"
    assert invoke("score", path, "--bundle", bundle).exit_code == 0


@pytest.fixture
def without_projection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample's picture is black: its projection takes seconds."""
    monkeypatch.setattr("bedside.sample.project", lambda **_: np.zeros((1200, 1200), np.uint16))


@pytest.mark.usefixtures("without_projection")
def test_sample_replaces_nothing_unasked(tmp_path: Path) -> None:
    path = tmp_path / "study.dcm"
    path.write_bytes(b"mine")
    done = invoke("sample", path)
    assert done.exit_code == 2
    assert done.stderr.endswith("[output-exists]\n")
    assert path.read_bytes() == b"mine"
    assert invoke("sample", path, "--force").exit_code == 0
    assert path.stat().st_size > 1000


@pytest.mark.usefixtures("without_projection")
def test_sample_into_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = invoke("sample", tmp_path / "no" / "sample.dcm")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.endswith("[output-not-writable]\n")
