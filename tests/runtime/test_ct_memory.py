"""The promise on memory: 1,000 slices of 512 x 512 under 768 MiB, engine included."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bedside.memory import MIB
from bedside.sample_ct import datasets
from bedside.scan import Grid
from command_line import command, environment

BUDGET_MIB = 768
EACH = 25
"""How often a slice of the phantom is repeated."""


@pytest.fixture(scope="module")
def thick() -> list[object]:
    """40 slices of 512 x 512 through the chest."""
    side, pixel = 512, 0.75
    edge = -pixel * (side - 1) / 2
    affine = np.array([[0, 0, pixel, edge], [0, pixel, 0, edge + 5], [8.75, 0, 0, -190.0], [0, 0, 0, 1]])
    return list(datasets(grid=Grid((40, side, side), affine)))


def write_slices(folder: Path, slices: list[object], each: int) -> Path:
    """A series in which every slice comes ``each`` times, as that many thinner ones."""
    folder.mkdir()
    for number, dataset in enumerate(slices):
        x, y, z = dataset.ImagePositionPatient  # type: ignore[attr-defined]
        uid = dataset.SOPInstanceUID  # type: ignore[attr-defined]
        for part in range(each):
            dataset.ImagePositionPatient = [x, y, float(z) + part * 8.75 / each]  # type: ignore[attr-defined]
            dataset.SOPInstanceUID = f"{uid[:50]}.{number}.{part}"  # type: ignore[attr-defined]
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID  # type: ignore[attr-defined]
            dataset.save_as(folder / f"{number:03d}-{part:03d}.dcm")  # type: ignore[attr-defined]
        dataset.ImagePositionPatient, dataset.SOPInstanceUID = [x, y, z], uid  # type: ignore[attr-defined]
    return folder


@contextmanager
def limited(mib: int) -> Iterator[list[str]]:
    """What to put before a command so that the kernel holds it to this much memory; empty where that can't be done."""
    for root, limit in (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")):
        group = Path(root) / f"bedside-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if not (group / limit).exists():  # a folder like any other, and no control group
                continue
            (group / limit).write_text(str(mib * MIB))
            yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
        finally:
            group.rmdir()
        return
    yield []


def watch(process: subprocess.Popen[bytes]) -> float:
    """Greatest proportional set size that a process had, MiB, by the kernel's own count."""
    peak = 0
    while process.poll() is None:
        try:
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            break
        peak = max(peak, *(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)
        time.sleep(0.02)
    return peak / 1024


@pytest.mark.slow
def test_thousand_slices_stay_under_the_budget(thick: list[object], tmp_path: Path) -> None:
    peaks = {}
    for each in (2, EACH):
        folder = write_slices(tmp_path / f"series-{each}", thick, each)
        told = tmp_path / f"told-{each}.json"
        with limited(BUDGET_MIB) as before:
            arguments: list[str | Path] = [
                "--memory",
                f"{BUDGET_MIB}MiB",
                "--out",
                tmp_path / f"out-{each}",
                "--json",
            ]
            with told.open("w") as out:  # not a pipe, which the curve of 1,000 slices would fill
                process = subprocess.Popen(
                    [*before, *command("segment", folder, *arguments)], stdout=out, env=environment()
                )
                peaks[each] = watch(process)
                process.wait(timeout=600)
        assert process.returncode == 0
        result = json.loads(told.read_text())
        assert result["shape"] == [40 * each, 512, 512]
        assert result["read_share"] == 1
        assert result["peak_memory_mib"] <= result["predicted_memory_mib"] <= BUDGET_MIB
        assert result["peak_memory_mib"] == pytest.approx(peaks[each], rel=0.1)
        assert result["volumes"]["lung_ml"] > 1000
    assert peaks[EACH] <= BUDGET_MIB
    assert peaks[EACH] - peaks[2] < 48  # a few kilobytes for each of 920 slices more
