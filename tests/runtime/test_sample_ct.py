"""The sample CT: valid slices, the same every time, that hold what the phantom holds."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bedside import dicom, sample_ct
from bedside.chest import chest_phantom
from bedside.cli import main
from bedside.errors import OutputError
from bedside.scan import AIR_HU, Grid

VALIDATOR = shutil.which("dciodvfy")

AFFINE = np.array([[0, 0, 6.25, -196.875], [0, 6.25, 0, -191.875], [20.0, 0, 0, -168.0], [0, 0, 0, 1]])
COARSE = Grid((17, 64, 64), AFFINE)
"""A small scan of all of the chest."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "ct"
    assert sample_ct.write_series(folder, grid=COARSE) == 17
    return folder


@pytest.mark.skipif(VALIDATOR is None, reason="dciodvfy (package dicom3tools) is not installed")
def test_the_validator_finds_no_error(folder: Path) -> None:
    run = subprocess.run(
        [str(VALIDATOR), str(folder / "slice-0003.dcm")], capture_output=True, text=True, check=False
    )
    said = run.stdout + run.stderr
    assert "CTImage" in said
    assert "Error" not in said
    assert run.returncode == 0


def test_it_reads_as_the_phantom(folder: Path) -> None:
    expected = chest_phantom("severe").phantom.hu(COARSE.shape, COARSE.affine)

    with dicom.read_series(folder) as series:
        np.testing.assert_allclose(series.grid.affine, COARSE.affine, atol=1e-6)
        hu = series.read(range(17))
        assert series.ledger == ()

    inside = hu != AIR_HU
    noise = (hu - expected)[inside & (expected > -900)]
    assert noise.mean() == pytest.approx(0, abs=0.5)
    assert noise.std() == pytest.approx(15, rel=0.05)
    assert (hu[:, 0, 0] == AIR_HU).all()  # outside of the circle of reconstruction


def test_every_run_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    sample_ct.write_series(tmp_path / "again", grid=COARSE)
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_another_seed_or_phantom_is_another_series() -> None:
    healthy = chest_phantom("healthy").phantom
    first = [
        next(sample_ct.datasets(grid=COARSE)),
        next(sample_ct.datasets(grid=COARSE, seed=1)),
        next(sample_ct.datasets(grid=COARSE, phantom=healthy)),
    ]
    assert len({one.SeriesInstanceUID for one in first}) == 3
    assert {one.PatientID for one in first} == {"PHANTOM-0"}
    assert {one.PatientIdentityRemoved for one in first} == {"YES"}


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync
    calls: list[int] = []

    def fail(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError) as caught:
        sample_ct.write_series(tmp_path / "ct", grid=COARSE)

    assert caught.value.code == "disk-full"
    assert list(tmp_path.iterdir()) == []


def test_folders_above_are_made(tmp_path: Path) -> None:
    assert sample_ct.write_series(tmp_path / "new" / "ct", grid=COARSE) == len(
        list((tmp_path / "new" / "ct").iterdir())
    )


def test_folder_under_a_file_is_an_error_with_a_code(tmp_path: Path) -> None:
    (tmp_path / "nowhere").write_bytes(b"")
    with pytest.raises(OutputError) as caught:
        sample_ct.write_series(tmp_path / "nowhere" / "ct", grid=COARSE)
    assert caught.value.code == "output-not-writable"
    assert "nowhere" not in str(caught.value)


def test_the_command_writes_a_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sample_ct.write_series
    monkeypatch.setattr(sample_ct, "write_series", lambda path: whole(path, grid=COARSE))

    done = CliRunner().invoke(main, ["sample", "--ct", str(tmp_path / "ct")])
    again = CliRunner().invoke(main, ["sample", "--ct", str(tmp_path / "ct")])

    assert done.exit_code == 0
    assert "wrote 17 slices" in done.output
    assert again.exit_code != 0
    assert dicom.list_series(tmp_path / "ct")[0].slices == 17
