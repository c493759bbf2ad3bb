"""The bundle: a result depends on exactly the files that its manifest lists, and on nothing that was changed since."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bedside import bundle as bundle_module
from bedside.bundle import Bundle, built_in
from bedside.errors import BundleError
from refused_bundle import refusal
from tiny_bundle import MODEL, SIDE, Network, make_bundle, read_manifest, seal, zip_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny")


# What is good


def test_folder_and_zip_are_one_bundle(folder: Path, tmp_path: Path) -> None:
    from_folder, from_zip = Bundle.open(folder), Bundle.open(zip_bundle(folder, tmp_path / "tiny.zip"))
    assert from_folder.manifest == from_zip.manifest
    assert from_folder.digest == from_zip.digest
    assert from_folder.location == str(folder)
    for name in from_folder.manifest.files:
        assert from_folder.read(name) == from_zip.read(name) == (folder / name).read_bytes()


def test_digest_is_that_of_the_manifest(folder: Path) -> None:
    assert Bundle.open(folder).digest == hashlib.sha256((folder / "bundle.json").read_bytes()).hexdigest()


def test_digest_follows_every_file(folder: Path) -> None:
    seen = {Bundle.open(folder).digest}
    others = [name for name in read_manifest(folder)["files"] if name != MODEL]
    for name in others:
        with (folder / name).open("ab") as file:
            file.write(b"\n")
        seen.add(Bundle.open(seal(folder)).digest)
    assert len(seen) == 1 + len(others)


def test_string_path_works_as_path_does(folder: Path) -> None:
    assert Bundle.open(str(folder)).digest == Bundle.open(folder).digest


def test_model_is_named_by_precision(folder: Path) -> None:
    opened = Bundle.open(folder)
    assert opened.model("fp32") == opened.model("bf16") == MODEL
    assert [output.name for output in opened.onnx("fp32").outputs] == ["severity", "cam", "pathologies"]
    for precision in ("fp16", "int8", "nonsense"):
        with pytest.raises(BundleError) as caught:
            opened.model(precision)
        assert caught.value.code == "bundle-precision"
        assert "fp32" in caught.value.message


def test_lung_output_and_thresholds_are_read(tmp_path: Path) -> None:
    opened = Bundle.open(make_bundle(tmp_path / "b", network=Network(lungs=True)))
    assert opened.manifest.thresholds == {"lung_probability": 0.5, "lung_area_min": 0.05}
    assert opened.manifest.input.size == (SIDE, SIDE)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files by /proc")
def test_no_file_stays_open(folder: Path, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    kept = [Bundle.open(folder), Bundle.open(zip_bundle(folder, tmp_path / "tiny.zip"))]
    (folder / "extra").touch()
    refusal(folder)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert len(kept) == 2


# Changed, missing and added files


def each_file(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    names = sorted(read_manifest(make_bundle(tmp_path / "names"))["files"])
    for number, name in enumerate(names):
        yield make_bundle(tmp_path / str(number)), name


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_changed_byte_in_any_file_is_found(tmp_path: Path) -> None:
    for folder, name in each_file(tmp_path):
        flip(folder / name)
        for source in (folder, zip_bundle(folder, folder.with_suffix(".zip"))):
            error = refusal(source)
            assert error.code == "bundle-altered"
            assert repr(name) in error.message


@pytest.mark.parametrize("change", [b"", b"x"])
def test_changed_length_of_any_file_is_found(change: bytes, tmp_path: Path) -> None:
    for folder, name in each_file(tmp_path):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data + change if change else data[:-1])
        for source in (folder, zip_bundle(folder, folder.with_suffix(".zip"))):
            assert refusal(source).code == "bundle-altered"


def test_any_missing_file_is_found(tmp_path: Path) -> None:
    for folder, name in each_file(tmp_path):
        (folder / name).unlink()
        for source in (folder, zip_bundle(folder, folder.with_suffix(".zip"))):
            error = refusal(source)
            assert error.code == "bundle-altered"
            assert repr(name) in error.message


def test_unlisted_file_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "extra.txt").write_text("unlisted")
    for source in (folder, zip_bundle(folder, tmp_path / "b.zip")):
        error = refusal(source)
        assert error.code == "bundle-altered"
        assert "'extra.txt'" in error.message


def test_file_changed_after_opening_is_refused(folder: Path) -> None:
    opened = Bundle.open(folder)
    flip(folder / MODEL)
    with pytest.raises(BundleError) as caught:
        opened.read(MODEL)
    assert caught.value.code == "bundle-altered"


def test_zip_replaced_after_opening_is_refused(folder: Path, tmp_path: Path) -> None:
    path = zip_bundle(folder, tmp_path / "b.zip")
    opened = Bundle.open(path)
    flip(folder / MODEL)
    zip_bundle(folder, path)
    with pytest.raises(BundleError) as caught:
        opened.read(MODEL)
    assert caught.value.code == "bundle-altered"


@pytest.mark.parametrize("name", ["bundle.json", "../tiny/LICENSE", "absent", ""])
def test_only_listed_files_are_read(folder: Path, name: str) -> None:
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder).read(name)
    assert caught.value.code == "bundle-altered"


# Where a bundle is looked for


@pytest.mark.parametrize("source", ["no-such-bundle", "x" * 5000, "nul\0", "a/b/c"])
def test_absent_bundle_is_told(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(source).code == "bundle-not-found"


def test_folder_in_the_working_directory_never_stands_in_for_a_built_in_bundle(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = make_bundle(tmp_path / "models" / "tiny", version="2.0.0")
    monkeypatch.setattr(bundle_module, "_BUILT_IN", tmp_path / "models")
    monkeypatch.chdir(folder.parent)
    assert built_in() == ("tiny",)
    assert Bundle.open("tiny").digest == Bundle.open(shipped).digest
    assert Bundle.open("./tiny").digest == Bundle.open(Path("tiny")).digest == Bundle.open(folder).digest


def test_built_in_bundles_open() -> None:
    for name in built_in():
        assert Bundle.open(name).manifest.name == name
