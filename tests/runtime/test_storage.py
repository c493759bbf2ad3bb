"""A bundle's files in a folder or a zip: nothing unsafe is opened, nothing is extracted, memory is bounded."""

from __future__ import annotations

import os
import stat
import struct
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside import storage
from bedside.errors import BundleError
from bedside.storage import MAX_FILES, open_storage

FILES = {"bundle.json": b"{}", "model.onnx": bytes(range(256)) * 40, "empty.txt": b""}

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX links and pipes")


def make_folder(folder: Path) -> Path:
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    return folder


def make_zip(path: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
    return path


def refusal(path: Path) -> BundleError:
    with pytest.raises(BundleError) as caught:
        open_storage(path)
    assert str(caught.value).isprintable()
    assert str(path.parent) not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("make", [make_folder, make_zip])
def test_files_are_read_by_name(make: Callable[[Path], Path], tmp_path: Path) -> None:
    opened = open_storage(make(tmp_path / "b"))
    assert opened.sizes == {name: len(data) for name, data in FILES.items()}
    assert {name: opened.read(name) for name in opened.sizes} == FILES


def test_stored_zip_is_read(tmp_path: Path) -> None:
    opened = open_storage(make_zip(tmp_path / "b", zipfile.ZIP_STORED))
    assert {name: opened.read(name) for name in opened.sizes} == FILES


@pytest.mark.parametrize("make", [make_folder, make_zip])
@pytest.mark.parametrize("name", ["absent", "../b/bundle.json", "/etc/hostname", "", "."])
def test_only_listed_names_are_read(make: Callable[[Path], Path], name: str, tmp_path: Path) -> None:
    opened = open_storage(make(tmp_path / "b"))
    with pytest.raises(BundleError) as caught:
        opened.read(name)
    assert caught.value.code == "bundle-altered"


@posix
def test_bundle_itself_may_be_reached_by_a_link(tmp_path: Path) -> None:
    for make in (make_folder, make_zip):
        target = make(tmp_path / make.__name__)
        link = tmp_path / f"link-{make.__name__}"
        link.symlink_to(target)
        assert open_storage(link).read("model.onnx") == FILES["model.onnx"]


@posix
@pytest.mark.parametrize("target", ["file", "folder", "nothing"])
def test_link_inside_is_refused(target: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "b")
    (tmp_path / "file").write_bytes(b"secret")
    (tmp_path / "folder").mkdir()
    (folder / "extra.txt").symlink_to(tmp_path / target)
    assert refusal(folder).code == "bundle-unsafe"


def test_folder_inside_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "b")
    (folder / "sub").mkdir()
    assert refusal(folder).code == "bundle-unsafe"


@posix
def test_pipe_is_refused_at_once(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "b")
    os.mkfifo(folder / "pipe")
    assert refusal(folder).code == "bundle-unsafe"
    assert refusal(folder / "pipe").code == "bundle-broken"


@posix
@pytest.mark.parametrize("make", [make_folder, make_zip])
def test_file_that_became_a_pipe_or_link_is_refused_at_once(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = make(tmp_path / "b")
    opened = open_storage(path)
    victim = path / "model.onnx" if path.is_dir() else path
    victim.unlink()
    os.mkfifo(victim)
    with pytest.raises(BundleError):
        opened.read("model.onnx")
    victim.unlink()
    victim.symlink_to("/etc/hostname")
    with pytest.raises(BundleError):
        opened.read("model.onnx")


@pytest.mark.parametrize("make", [make_folder, make_zip])
def test_file_that_vanished_is_an_error(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path / "b")
    opened = open_storage(path)
    (path / "model.onnx" if path.is_dir() else path).unlink()
    with pytest.raises(BundleError):
        opened.read("model.onnx")


def test_file_that_grew_shows_by_one_byte(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "b")
    opened = open_storage(folder)
    (folder / "bundle.json").write_bytes(b"x" * 1_000_000)
    assert opened.read("bundle.json") == b"xxx"


@pytest.mark.parametrize(
    "name", [".DS_Store", "a b", "-rf", "a\nb", "\x1b[31m", "ü", "x" * 101, "a\\b", "a:b"]
)
def test_odd_name_is_refused(name: str, tmp_path: Path) -> None:
    try:
        (make_folder(tmp_path / "b") / name).write_bytes(b"")
    except OSError:
        pytest.skip("this file system has no such names")
    assert refusal(tmp_path / "b").code == "bundle-unsafe"


def test_names_that_differ_only_in_case_are_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "b")
    (folder / "Model.onnx").write_bytes(b"")
    if len(list(folder.iterdir())) == len(FILES):
        pytest.skip("this file system ignores case")
    assert refusal(folder).code == "bundle-unsafe"


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    for number in range(MAX_FILES):
        (folder / f"f{number}").touch()
    assert len(open_storage(folder).sizes) == MAX_FILES
    (folder / "more").touch()
    assert refusal(folder).code == "bundle-unsafe"


@posix
def test_over_large_files_are_refused_unread(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "b")
    with (folder / "big").open("wb") as file:
        file.truncate(storage.MAX_FILE_BYTES + 1)
    assert refusal(folder).code == "bundle-unsafe"
    for name in ("big", "big2", "big3"):
        with (folder / name).open("wb") as file:
            file.truncate(storage.MAX_FILE_BYTES - 1)
    assert "the bundle is over 2048 MiB" in str(refusal(folder))


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no zip")
    (tmp_path / "empty").touch()
    assert refusal(tmp_path / "text").code == "bundle-broken"
    assert refusal(tmp_path / "empty").code == "bundle-broken"
    assert refusal(tmp_path / "absent").code == "bundle-broken"


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_device_is_refused() -> None:
    with pytest.raises(BundleError):
        open_storage(Path("/dev/zero"))


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/x",
        "a/../b",
        "a\\b",
        "..\\x",
        "C:x",
        "./x",
        "a/b",
        "a/",
        "",
        ".",
        "..",
        "a\x1b",
        "x" * 101,
        "é",
        "b\n",
    ],
)
def test_unsafe_name_in_a_zip_is_refused(name: str, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "b.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"data")
    assert refusal(path).code == "bundle-unsafe"


def test_zip_of_the_folder_is_refused_with_advice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("bundle/bundle.json", b"{}")
    error = refusal(tmp_path / "b.zip")
    assert error.code == "bundle-unsafe"
    assert "zip the files, not their folder" in str(error)


@pytest.mark.parametrize("twin", ["model.onnx", "MODEL.onnx"])
def test_zip_with_one_name_twice_is_refused(twin: str, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "b.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other1onnx"[: len(twin)], b"other")
    path.write_bytes(path.read_bytes().replace(b"other1onnx", twin.encode()))
    assert refusal(path).code == "bundle-unsafe"


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755, stat.S_IFIFO | 0o600])
def test_zip_with_a_link_or_folder_is_refused(mode: int, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "b.zip")
    member = zipfile.ZipInfo("link")
    member.external_attr = mode << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, b"/etc/passwd")
    assert refusal(path).code == "bundle-unsafe"


def test_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "b.zip")
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 8] |= 1  # flags of the first entry in the directory
    path.write_bytes(data)
    assert refusal(path).code == "bundle-unsafe"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_of_another_method_is_refused(method: int, tmp_path: Path) -> None:
    assert refusal(make_zip(tmp_path / "b.zip", method)).code == "bundle-unsafe"


def _lie(path: Path, size: int) -> None:
    """Declare the size of model.onnx, in the zip's directory, as ``size``."""
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)  # the second, model.onnx
    struct.pack_into("<I", data, entry + 24, size)
    path.write_bytes(data)


def test_zip_that_expands_beyond_what_it_declares_gives_no_more_than_that(tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bundle.json", b"{}")
        archive.writestr("model.onnx", bytes(20_000_000))
    assert path.stat().st_size < 100_000
    _lie(path, 100)
    opened = open_storage(path)
    assert opened.sizes["model.onnx"] == 100
    try:
        assert len(opened.read("model.onnx")) <= 101
    except BundleError as error:
        assert error.code == "bundle-altered"  # noqa: PT017 -- some versions of Python check the sum of what they read


def test_zip_that_declares_too_much_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "b.zip")
    _lie(path, 0xFFFFFFF0)
    assert refusal(path).code == "bundle-unsafe"


def test_zip_with_an_endless_directory_is_refused_quickly(tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    entry = bytearray(46 + 4)
    entry[:4] = b"PK\x01\x02"
    struct.pack_into("<H", entry, 28, 4)
    entry[46:] = b"name"
    directory = bytes(entry) * 400_000
    path.write_bytes(directory + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0, 0, len(directory), 0, 0))
    assert refusal(path).code == "bundle-broken"


def test_truncated_zip_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    data = make_zip(tmp_path / "b.zip").read_bytes()
    for end in range(0, len(data), 7):
        (tmp_path / "cut.zip").write_bytes(data[:end])
        assert refusal(tmp_path / "cut.zip").code == "bundle-broken"


def test_damaged_member_is_altered(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "b.zip")
    data = bytearray(path.read_bytes())
    data[data.index(b"model.onnx") + 30] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(BundleError) as caught:
        open_storage(path).read("model.onnx")
    assert caught.value.code == "bundle-altered"


@pytest.fixture(scope="module")
def good_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zip(tmp_path_factory.mktemp("zip") / "b.zip")


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 255)), min_size=1, max_size=5))
def test_any_damage_to_a_zip_is_an_error_or_harmless(good_zip: Path, damage: list[tuple[int, int]]) -> None:
    data = bytearray(good_zip.read_bytes())
    for position, byte in damage:
        data[position % len(data)] = byte
    path = good_zip.with_name("damaged.zip")
    path.write_bytes(data)
    with suppress(BundleError):
        opened = open_storage(path)
        for name in opened.sizes:
            assert len(opened.read(name)) <= opened.sizes[name] + 1


@pytest.mark.parametrize("make", [make_folder, make_zip])
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files by /proc")
def test_no_file_stays_open(make: Callable[[Path], Path], tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- no Path for each of them
    opened = open_storage(make(tmp_path / "b"))
    for name in opened.sizes:
        opened.read(name)
    (tmp_path / "bad").write_bytes(b"PK\x05\x06")
    refusal(tmp_path / "bad")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
