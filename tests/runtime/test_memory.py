"""What this process and its children hold."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from bedside.errors import InputError
from bedside.memory import MIB, PeakMemory, held_bytes, parse_size

HOLDER = """
import sys, time
held = bytearray({mib} << 20)
held[::4096] = b"x" * len(held[::4096])
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MiB", 512 * MIB),
        ("2GB", 2_000_000_000),
        ("1.5 GiB", 1536 * MIB),
        ("100k", 100_000),
        ("7", 7),
        ("3mib", 3 * MIB),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-5MiB", "5 parsecs", "1e3"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_size(text)
    assert caught.value.code == "bad-attribute"


def test_touched_memory_counts_and_reserved_does_not() -> None:
    before = held_bytes()
    reserved = np.empty(256 * MIB, np.uint8)
    assert held_bytes() - before < 64 * MIB
    reserved[: 128 * MIB] = 1
    assert 100 * MIB < held_bytes() - before < 192 * MIB


def test_children_count_and_those_that_ended_do_not() -> None:
    before = held_bytes()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(mib=128)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert held_bytes() - before > 100 * MIB
        child.communicate("\n")
    assert held_bytes() - before < 64 * MIB


def test_peak_is_kept_after_the_memory_is_freed() -> None:
    with PeakMemory() as watch:
        start = watch.peak_bytes
        held = np.ones(128 * MIB, np.uint8)
        deadline = time.monotonic() + 30
        while watch.peak_bytes - start < 100 * MIB and time.monotonic() < deadline:
            time.sleep(0.01)
        del held
    assert watch.peak_bytes - start > 100 * MIB
    assert held_bytes() < watch.peak_bytes
