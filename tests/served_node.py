"""``bedside serve`` as a process of its own, while a test needs it."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from command_line import command, environment

START_S: Final = 60.0
"""Until it is ready."""
END_S: Final = 120.0
"""For an orderly end."""


@contextmanager
def serve_node(folder: Path, config: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start it with this ``node.toml``, in ``folder``, and end it in order; its log is ``folder``/log."""
    folder.mkdir(parents=True)
    (folder / "node.toml").write_text(config)
    log = folder / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command("serve", "--verbose", "--config", folder / "node.toml"), stderr=stream, env=environment()
        )
    try:
        until = time.monotonic() + START_S
        while b"ready" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until
            time.sleep(0.05)
        yield process
        process.terminate()
        assert process.wait(END_S) == 0
    finally:
        process.kill()
        process.wait()


def make_config(receiver: str, destinations: str, *, xray: str, ct: str) -> str:
    """A ``node.toml`` with the built-in bundles, of which a series is complete when its association ends.

    Args:
        receiver: What stands in its table, and in those below.
        destinations: Their tables.
        xray: Who gets the results of X-rays.
        ct: Who gets those of a CT.
    """
    return f"""
spool = "spool"
cache = "cache"
free_mib = 1.0
allow_root = true
[complete]
quiet_s = 60.0
association_end = true
[receiver]
{receiver}
{destinations}
[[rules]]
name = "xray"
bundle = "cxr-severity-lite"
modality = ["CR", "DX"]
backend = "onnxruntime"
destinations = ["{xray}"]
[[rules]]
name = "ct"
bundle = "ct-opacity-lite"
modality = ["CT"]
backend = "onnxruntime"
destinations = ["{ct}"]
"""


def find_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
