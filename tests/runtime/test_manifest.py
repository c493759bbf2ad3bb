"""The manifest: what it must say and nothing else, without contradiction, neither in itself nor to the model."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bedside.bundle import MAX_MANIFEST_BYTES, Bundle
from bedside.errors import BundleError
from bedside.manifest import read_manifest as check_manifest
from refused_bundle import refusal
from tiny_bundle import MODEL, Network, make_bundle, read_manifest, seal, write_manifest

Json = Any
Edit = Callable[[Json], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny")


def edited(folder: Path, edit: Edit) -> Path:
    manifest = read_manifest(folder)
    edit(manifest)
    return write_manifest(folder, manifest)


def test_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    error = refusal(tmp_path)
    assert error.code == "bundle-broken"
    assert "bundle.json" in error.message


def test_over_large_manifest_is_refused_unread(folder: Path) -> None:
    path = folder / "bundle.json"
    text = path.read_bytes()
    path.write_bytes(text.ljust(MAX_MANIFEST_BYTES))
    Bundle.open(folder)
    path.write_bytes(text.ljust(MAX_MANIFEST_BYTES + 1))
    assert refusal(folder).code == "bundle-unsafe"


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"{}", b'{"schema": 1}', b"\xff", b"[" * 200_000, b'{"schema": NaN}']
)
def test_manifest_that_is_none_is_broken(text: bytes, folder: Path) -> None:
    (folder / "bundle.json").write_bytes(text)
    assert refusal(folder).code == "bundle-broken"


@pytest.mark.parametrize(
    "schema", ["bedside.bundle/2", "bedside.bundle/10", "other", "", "bedside.bundle/1 "]
)
def test_other_schema_is_told_before_anything_else(schema: str, folder: Path) -> None:
    write_manifest(folder, {"schema": schema, "unknown": {"to": "us"}})
    error = refusal(folder)
    assert error.code == "bundle-schema"
    assert "bedside.bundle/1" in error.message


def places(value: Json, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Path of each object in the manifest, and of each value."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from places(value[index], (*path, index))


def at(value: Json, path: tuple[str | int, ...]) -> Json:
    for key in path:
        value = value[key]
    return value


def test_unknown_key_is_refused_at_any_depth(tmp_path: Path) -> None:
    good = read_manifest(make_bundle(tmp_path / "b", network=Network(lungs=True)))
    tables = [path for path in places(good) if isinstance(at(good, path), dict)]
    tables.remove(("thresholds",))  # the one table that is open
    assert len(tables) > 20
    for path in tables:
        manifest = copy.deepcopy(good)
        at(manifest, path)["surprise"] = 0.5
        with pytest.raises(BundleError) as caught:
            check_manifest(json.dumps(manifest).encode())
        assert caught.value.code == "bundle-broken", path


def test_missing_key_is_refused_unless_it_has_a_default(tmp_path: Path) -> None:
    good = read_manifest(make_bundle(tmp_path / "b"))
    optional = {"outside", "labels", "trained", "thresholds"}
    for path in places(good):
        if path and isinstance(path[-1], str) and path[-1] not in optional:
            manifest = copy.deepcopy(good)
            del at(manifest, path[:-1])[path[-1]]
            if path == ("tolerances", "bf16"):
                continue
            with pytest.raises(BundleError) as caught:
                check_manifest(json.dumps(manifest).encode())
            assert caught.value.code == "bundle-broken", path


WRONG: tuple[Json, ...] = (None, True, 5, -1.5, "text", [[]], {"a": {}}, "a\nb")


def may_be(path: tuple[str | int, ...], was: Json, wrong: Json) -> bool:
    """Whether ``wrong`` is of a type that the place may hold; its value is for the tests below."""
    if path == ("input", "shape", 0):
        return wrong is None or type(wrong) is int
    if isinstance(wrong, str) and not wrong.isprintable():
        return False
    return type(wrong) is type(was) or (type(was) is float and type(wrong) is int)


def test_value_of_another_type_is_refused_everywhere(tmp_path: Path) -> None:
    good = read_manifest(make_bundle(tmp_path / "b"))
    cases = [(path, wrong) for path in places(good) if path for wrong in WRONG]
    cases = [(path, wrong) for path, wrong in cases if not may_be(path, at(good, path), wrong)]
    assert len(cases) > 500
    for path, wrong in cases:
        manifest = copy.deepcopy(good)
        at(manifest, path[:-1])[path[-1]] = wrong
        with pytest.raises(BundleError) as caught:
            check_manifest(json.dumps(manifest).encode())
        text_for_schema = path == ("schema",) and isinstance(wrong, str)
        assert caught.value.code == ("bundle-schema" if text_for_schema else "bundle-broken"), (path, wrong)
        assert str(caught.value).isprintable()


def put(*path: str | int, value: Json) -> Edit:
    def edit(manifest: Json) -> None:
        at(manifest, path[:-1])[path[-1]] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (put("name", value="Tiny"), "name must be"),
        (put("name", value="../tiny"), "name must be"),
        (put("version", value=""), "version must be"),
        (put("version", value="1.0 beta"), "version must be"),
        (put("task", value="cxr"), "task must be"),
        (put("models", value={}), "models has no fp32"),
        (put("models", "bf16", value=MODEL), "models has unknown precision"),
        (put("models", "fp16", value=MODEL), "tolerances has no fp16"),
        (put("models", "fp32", value="other.onnx"), "'other.onnx' is named and not listed"),
        (put("licence", "file", value="COPYING"), "'COPYING' is named and not listed"),
        (put("golden", "inputs", value="bundle.json"), "'bundle.json' is named and not listed"),
        (put("files", "LICENSE", "bytes", value=-1), "no proper size"),
        (put("files", "LICENSE", "sha256", value="0" * 63), "no proper size"),
        (put("files", "LICENSE", "sha256", value="A" * 64), "no proper size"),
        (put("files", "bundle.json", value={"bytes": 1, "sha256": "0" * 64}), "no proper size"),
        (put("input", "shape", value=[None, 1, 32]), "input.shape"),
        (put("input", "shape", value=[None, 1, 0, 0]), "input.shape"),
        (put("input", "shape", value=[None, 1, None, None]), "input.shape"),
        (put("input", "shape", value=[2, 1, 32, 32]), "input.shape"),
        (put("input", "shape", value=[None, 3, 32, 32]), "input.shape"),
        (put("input", "shape", value=[None, 1, 32, 64]), "input.shape"),
        (put("input", "shape", value=[None, 1, 1 << 30, 1 << 30]), "input.shape"),
        (put("input", "crop", value="stretch"), "input.crop"),
        (put("input", "low", value=1024.0), "input.low"),
        (put("outputs", 0, "meaning", value="lungs"), "one severity output"),
        (put("outputs", 1, "meaning", value="truth"), "unknown meaning"),
        (put("outputs", 0, "labels", value=["opacity", "extent"]), "one severity output"),
        (put("outputs", 1, "meaning", value="severity"), "one severity output"),
        (put("outputs", 1, "meaning", value="pathologies"), "two of one name or of one meaning"),
        (put("outputs", 1, "name", value="severity"), "two of one name or of one meaning"),
        (put("outputs", 1, "labels", value=["extent", "other"]), "names of scores"),
        (put("outputs", 1, "labels", value=[]), "names of scores"),
        (put("outputs", 2, "labels", value=[]), "labels"),
        (put("outputs", 2, "labels", value=["A", "A", "B"]), "one label twice"),
        (put("outputs", 2, "trained", value=[True]), "3 labels and 1 trained"),
        (put("scores", value=[]), "scores must be"),
        (put("scores", 1, "name", value="extent"), "scores must be"),
        (put("scores", 0, "high", value=0.0), "empty scale"),
        (put("scores", 0, "interval", "level", value=1), "improper interval"),
        (put("scores", 0, "interval", "level", value=0), "improper interval"),
        (put("scores", 0, "interval", "below", value=-0.1), "improper interval"),
        (put("tolerances", value={"bf16": {"extent": 1, "opacity": 1}}), "tolerances has no fp32"),
        (put("tolerances", "fp64", value={"extent": 1, "opacity": 1}), "unknown precision 'fp64'"),
        (put("tolerances", "fp32", value={"extent": 1}), "a limit over 0"),
        (put("tolerances", "fp32", "extent", value=0), "a limit over 0"),
        (put("thresholds", value={"lung_area_min": 0.1}), "without lung_probability"),
    ],
)
def test_contradiction_is_refused(edit: Edit, words: str, folder: Path) -> None:
    error = refusal(edited(folder, edit))
    assert error.code == "bundle-broken"
    assert words in error.message


def test_infinite_number_is_refused(folder: Path) -> None:
    path = folder / "bundle.json"
    path.write_text(path.read_text().replace('"high": 1024.0', '"high": 1e999'))
    assert refusal(folder).code == "bundle-broken"


def test_absurd_declared_size_takes_no_memory(folder: Path) -> None:
    assert refusal(edited(folder, put("files", "LICENSE", "bytes", value=10**18))).code == "bundle-altered"


def test_manifest_is_frozen(folder: Path) -> None:
    manifest = Bundle.open(folder).manifest
    with pytest.raises(dataclasses.FrozenInstanceError):
        manifest.name = "other"  # type: ignore[misc]


# The model's interface


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (put("input", "name", value="picture"), "takes"),
        (put("input", "shape", value=[None, 1, 64, 64]), "takes"),
        (put("input", "shape", value=[1, 1, 32, 32]), "takes"),
        (put("outputs", 2, "name", value="probabilities"), "has no output 'probabilities'"),
        (put("outputs", 2, "labels", value=["A", "B"]), "can't be"),
        (put("outputs", 1, "meaning", value="lungs"), "can't be"),
        (put("outputs", 2, value={"name": "cam", "meaning": "lungs"}), "two of one name"),
    ],
)
def test_model_with_another_interface_is_refused(edit: Edit, words: str, folder: Path) -> None:
    def without_trained(manifest: Json) -> None:
        edit(manifest)
        manifest["outputs"][2].pop("trained", None)
        if manifest["outputs"][1]["meaning"] == "lungs":
            manifest["outputs"][1].pop("labels")

    error = refusal(edited(folder, without_trained))
    assert error.code == "bundle-broken"
    assert words in error.message


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x08\x08"])
def test_model_that_is_none_is_refused(data: bytes, folder: Path) -> None:
    (folder / MODEL).write_bytes(data)
    assert refusal(seal(folder)).code == "bundle-broken"
