"""A long day of a node: 500 X-rays and 5 CT series, while 10,000 connections and slow peers come and go beside."""

from __future__ import annotations

import itertools
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import pydicom
import pytest
from pydicom.dataset import Dataset

from bedside.node.look import Look
from bedside.node.network import Destination
from bedside.node.spool import QUEUE
from bedside.node.store import send_by_store
from bedside.results.dicom.identity import KINDS
from bedside.sample import write_sample
from bedside.sample_ct import write_series
from made_peers import HOST, TITLE, StorePeer
from served_node import find_ports, make_config, serve_node

for package in ("highdicom", "onnxruntime", "pynetdicom"):
    pytest.importorskip(package, reason="needs the extras cpu and node")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore:unclosed:ResourceWarning"
    ),  # buffers that pynetdicom leaves to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

XRAYS, SERIES, CONNECTIONS = 500, 5, 10_000
PARTS: Final = 5
"""Of the day: each has its share of all that comes in, and ends when its results are sent."""
GROWTH_MIB: Final = 32.0
"""Most that may come to the memory of all processes of the node between the second part and the last."""
STRANGER, COLLEAGUE = "127.0.0.2", "127.0.0.3"
"""Addresses of those who may not send, and of those who may."""
PATIENCE_S: Final = 1800.0


def renumber(dataset: Dataset, number: int, instance: int = 1) -> Dataset:
    """The same picture of another study."""
    dataset.StudyInstanceUID = f"1.2.{number}"
    dataset.SeriesInstanceUID = f"1.2.{number}.1"
    dataset.SOPInstanceUID = f"1.2.{number}.1.{instance}"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def send_xrays(folder: Path, node: Destination, numbers: range) -> None:
    """Send the sample as so many X-rays, in associations of 25."""
    dataset = pydicom.dcmread(folder / "xray.dcm")
    for start in numbers[::25]:
        paths = []
        for number in numbers[start - numbers[0] : start - numbers[0] + 25]:
            paths.append(folder / f"{number}.dcm")
            renumber(dataset, number).save_as(paths[-1])
        send_by_store(paths, node, calling="XRAY1")
        for path in paths:
            path.unlink()


def send_series(folder: Path, node: Destination, number: int) -> None:
    """Send the sample CT as the series of that number."""
    target = folder / f"ct{number}"
    target.mkdir()
    paths = []
    for instance, path in enumerate(sorted((folder / "ct").iterdir()), 1):
        paths.append(target / path.name)
        renumber(pydicom.dcmread(path), number, instance).save_as(paths[-1])
    send_by_store(paths, node, calling="XRAY1")
    shutil.rmtree(target)


def family(process: subprocess.Popen[bytes]) -> list[int]:
    """The node and what it started."""
    found, parents = [process.pid], {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            number, _, rest = path.read_text().rpartition(")")
            parents[int(number.split()[0])] = int(rest.split()[1])
    for parent in found:
        found += [child for child, known in parents.items() if known == parent]
    return found


def held(process: subprocess.Popen[bytes], field: str) -> int:
    """Sum of a line of /proc/PID/status over the node's processes."""
    total = 0
    for number in family(process):
        with suppress(OSError):
            lines = Path(f"/proc/{number}/status").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
    return total


def open_files(process: subprocess.Popen[bytes]) -> int:
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


class Nuisance:
    """Those who come and go beside, in threads of their own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._end = threading.Event()
        self.opened = 0
        self._threads = [threading.Thread(target=each) for each in (self._knock, self._dawdle, self._stall)]

    def __enter__(self) -> Nuisance:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def wait(self) -> None:
        """Until all connections were opened."""
        self._threads[0].join(PATIENCE_S)

    def _connect(self, address: str) -> socket.socket:
        return socket.create_connection((HOST, self._port), 10, source_address=(address, 0))

    def _knock(self) -> None:
        """Open connections, say nothing, and leave each when the fiftieth after it is there."""
        held: list[socket.socket] = []
        for address in itertools.islice(itertools.cycle((STRANGER, COLLEAGUE)), CONNECTIONS):
            if self._end.is_set():
                break
            with suppress(OSError):
                held.append(self._connect(address))
            self.opened += 1
            if len(held) > 50:
                held.pop(0).close()
        for each in held:
            each.close()

    def _dawdle(self) -> None:
        """Ask for an association, a byte a second."""
        while not self._end.is_set():
            with suppress(OSError), closing(self._connect(COLLEAGUE)) as connection:
                for byte in struct.pack(">BxI", 1, 200) + bytes(200):
                    if self._end.wait(1.0):
                        return
                    connection.sendall(bytes([byte]))

    def _stall(self) -> None:
        """Begin an object, and stop in the middle of a PDU."""
        from bedside.node.pdus import encode_fragment, encode_request

        context = (KINDS["heatmap"].sop_class_uid, "1.2.840.10008.1.2.1")
        while not self._end.is_set():
            with suppress(OSError), closing(self._connect(COLLEAGUE)) as connection:
                connection.sendall(encode_request([context], called="BEDSIDE", calling="SLOW"))
                connection.recv(1 << 16)
                connection.sendall(encode_fragment(bytes(1000), 1, command=True, last=False)[:500])
                while not self._end.wait(0.5):
                    connection.settimeout(0.01)
                    with suppress(TimeoutError):
                        if not connection.recv(1):
                            break


@contextmanager
def day(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Destination, StorePeer]]:
    """A node, where to send to it, and who gets its results."""
    (port,) = find_ports(1)
    with StorePeer(keeps=False) as peer:
        receiver = f"""
port = {port}
allow = [
  {{ ae_title = "XRAY1", address = "{HOST}" }},
  {{ ae_title = "SLOW", address = "{COLLEAGUE}" }},
]
[receiver.limits]
request_s = 3.0
idle_s = 5.0
"""
        destinations = f"""
[destinations.pacs]
ae_title = "{TITLE}"
host = "{HOST}"
port = {peer.port}
"""
        with serve_node(folder, make_config(receiver, destinations, xray="pacs", ct="pacs")) as process:
            yield process, Destination(ae_title="BEDSIDE", host=HOST, port=port, timeout_s=60.0), peer


def test_nothing_is_lost_and_memory_stays_flat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sample(tmp_path / "xray.dcm")
    write_series(tmp_path / "ct")
    with day(tmp_path / "node") as (process, node, peer):
        spool = tmp_path / "node" / "spool"

        def wait_until_sent(studies: int) -> None:
            until = time.monotonic() + PATIENCE_S
            with closing(Look(spool / QUEUE)) as look:
                while look.counts()["sent"] < studies:
                    assert time.monotonic() < until, look.counts()
                    time.sleep(0.2)

        memory, begun, receiving_s = [], time.monotonic(), 0.0
        with Nuisance(node.port) as nuisance:
            for part in range(PARTS):
                came = time.monotonic()
                send_xrays(tmp_path, node, range(part * XRAYS // PARTS, (part + 1) * XRAYS // PARTS))
                for number in range(part * SERIES // PARTS, (part + 1) * SERIES // PARTS):
                    send_series(tmp_path, node, 10_000 + number)
                receiving_s += time.monotonic() - came
                wait_until_sent((part + 1) * (XRAYS + SERIES) // PARTS)
                memory.append(held(process, "VmRSS") / 1024)
            took_s = time.monotonic() - begun
            nuisance.wait()
            assert nuisance.opened == CONNECTIONS
        threads, files = held(process, "Threads"), open_files(process)
        with closing(Look(spool / QUEUE)) as look:
            counts, unsent = look.counts(), look.unsent()
    shutil.rmtree(spool)
    with capsys.disabled():
        print(  # noqa: T201 - the figures are what a soak is for
            f"\n{XRAYS} X-rays and {SERIES} CT series in {took_s:.0f} s, "
            f"{60 * (XRAYS + SERIES) / took_s:.0f} studies a minute; received in {receiving_s:.0f} s; memory "
            f"{', '.join(f'{mib:.0f}' for mib in memory)} MiB; {threads} threads, {files} open files"
        )
    assert counts == {"received": 0, "ready": 0, "running": 0, "done": 0, "failed": 0, "sent": XRAYS + SERIES}
    assert unsent == {}
    arrived = Counter(uid for uid, _ in peer.received)
    assert set(arrived.values()) == {1}
    kinds = Counter(peer.classes_of[uid] for uid in arrived)
    assert kinds[KINDS["report"].sop_class_uid] == XRAYS + SERIES
    assert kinds[KINDS["segmentation"].sop_class_uid] == SERIES
    assert kinds[KINDS["map"].sop_class_uid] == XRAYS
    assert memory[-1] - memory[1] < GROWTH_MIB
    assert files < 100
