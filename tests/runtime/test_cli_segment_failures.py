"""``bedside segment`` where it can't: what it says, and that it writes no mask and leaves no half file."""

from __future__ import annotations

import copy
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bedside.nifti.writing import NiftiWriter
from command_line import draw, invoke, run, start
from small_series import SIDE, SLICES, VALIDATOR, answer, make_slices, small_grid, write
from tiny_bundle import make_bundle
from tiny_ct_bundle import make_ct_bundle


@pytest.fixture(scope="module")
def slices() -> list[Any]:
    return make_slices()


@pytest.fixture(scope="module")
def series(slices: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("ct") / "series", slices)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ct_bundle(tmp_path_factory.mktemp("bundle") / "tiny-ct")


def damage(change: Callable[[list[Any]], None]) -> Callable[[Path, list[Any]], Path]:
    def make(folder: Path, slices: list[Any]) -> Path:
        copies = [copy.deepcopy(dataset) for dataset in slices]
        change(copies)
        return write(folder / "scan", copies)

    return make


def without(keyword: str) -> Callable[[list[Any]], None]:
    def change(slices: list[Any]) -> None:
        for dataset in slices:
            delattr(dataset, keyword)

    return change


def put(keyword: str, value: object) -> Callable[[list[Any]], None]:
    def change(slices: list[Any]) -> None:
        for dataset in slices:
            setattr(dataset, keyword, value)

    return change


def constant(slices: list[Any]) -> None:
    for dataset in slices:
        dataset.PixelData = bytes(len(dataset.PixelData))


def offset(slices: list[Any]) -> None:
    for dataset in slices:
        dataset.RescaleIntercept = 0


def truncated(folder: Path, slices: list[Any]) -> Path:
    made = write(folder / "scan", slices)
    path = made / "image-017.dcm"
    path.write_bytes(path.read_bytes()[:-2000])
    return made


def empty(folder: Path, slices: list[Any]) -> Path:
    (folder / "scan").mkdir()
    return folder / "scan"


def x_rays(folder: Path, slices: list[Any]) -> Path:
    (folder / "scan").mkdir()
    invoke("sample", folder / "scan" / "x.dcm")
    return folder / "scan"


def picture(folder: Path, slices: list[Any]) -> Path:
    return draw(folder / "picture.png")


def scaled_nifti(folder: Path, slices: list[Any]) -> Path:
    grid = small_grid()
    with NiftiWriter(folder / "scan.nii.gz", grid) as writer:
        for index in range(SLICES):
            writer.write(index, np.random.default_rng(index).integers(0, 250, (SIDE, SIDE), np.uint8))
    return folder / "scan.nii.gz"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (empty, "no-series"),
        (x_rays, "wrong-modality"),
        (picture, "no-series"),
        (truncated, "missing-slices"),
        (scaled_nifti, "not-hu"),
        (damage(constant), "constant-image"),
        (damage(offset), "not-hu"),
        (damage(put("Modality", "MR")), "wrong-modality"),
        (damage(without("ImagePositionPatient")), "improper-geometry"),
        (damage(lambda slices: slices.__delitem__(slice(1, None))), "improper-geometry"),
        (damage(lambda slices: slices.__delitem__(slice(10, 30))), "improper-geometry"),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", ""),
)
def test_bad_input_is_refused_in_one_line_and_writes_no_mask(
    make: Callable[[Path, list[Any]], Path], code: str, slices: list[Any], bundle: Path, tmp_path: Path
) -> None:
    path = make(tmp_path, slices)
    out = tmp_path / "out"
    done = invoke("segment", path, "--bundle", bundle, "--out", out, "--json")
    assert done.exit_code == 1
    record = json.loads(done.stdout)
    VALIDATOR.validate(record)
    assert record["error"]["code"] == code
    assert record["volumes"] is None
    assert done.stderr.count("\n") == 1
    assert f"[{code}]" in done.stderr
    assert [each.name for each in out.iterdir()] == [record["files"]["result"]]


def test_unreadable_slice_is_filled_in_where_allowed(slices: list[Any], bundle: Path, tmp_path: Path) -> None:
    made = truncated(tmp_path, slices)
    record = answer(made, "--bundle", bundle, "--allow-missing")
    (entry,) = [each for each in record["ledger"] if each["decision"] == "mended"]
    assert entry["volume_error_percent"] > 0
    assert record["volumes"]["opacity_ml"] > 0


def test_x_ray_bundle_is_refused(series: Path, tmp_path: Path) -> None:
    done = invoke("segment", series, "--bundle", make_bundle(tmp_path / "cxr"))
    assert done.exit_code == 2
    assert "[bundle-task]" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--memory", "lots"], "is not a size"),
        (["--deadline", "soon"], "is not a time"),
        (["--resume"], "needs --out"),
        (["--probabilities"], "needs --out"),
    ],
)
def test_wrong_usage_says_what_is_right(series: Path, arguments: list[str], message: str) -> None:
    done = invoke("segment", series, *arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_full_disk_ends_the_run_and_leaves_no_half_file(series: Path, bundle: Path, tmp_path: Path) -> None:
    limit = """
import resource, signal, sys
sys.dont_write_bytecode = True  # it would be cut off too
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
"""
    done = run("segment", series, "--bundle", bundle, "--out", tmp_path / "out", code=limit)
    assert done.returncode == 2
    assert "[disk-full]" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_ctrl_c_leaves_no_half_file(slices: list[Any], bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "long"
    copies = [copy.deepcopy(dataset) for dataset in slices]
    for part in range(12):
        for number, dataset in enumerate(copies):
            x, y, z = slices[number].ImagePositionPatient
            dataset.ImagePositionPatient = [x, y, float(z) + part * 8.0 / 12]
            dataset.SOPInstanceUID = f"2.25.99.{part}.{number}"
        write(folder, copies, f"part-{part:02d}")
    out = tmp_path / "out"
    process = start("segment", folder, "--bundle", bundle, "--out", out)
    deadline = time.monotonic() + 120
    while not list(out.glob(".*.part")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert list(out.iterdir()) == []
    assert process.returncode == 130
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
