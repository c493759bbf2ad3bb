"""The process of MLPerf's load generator: see `bedside.bench.loadgen`.

To it      the settings, once; then {"done": ticket} for each query
From it    {"issued": [[ticket, sample], ...], "at_ns": ...}; {"over": true} at the end
"""

from __future__ import annotations

import importlib
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from bedside.isolation.wire import MAX_BYTES, pack, unpack
from bedside.isolation.worker import end_with

__all__ = ["main"]

MODULE: Final = "mlperf_loadgen"
PACK: Final = 1000
"""Most queries in a message: a ticket takes up to 20 digits."""


def main(channel: int, lifeline: int) -> None:
    """Run one scenario; see the module.

    Args:
        channel: Descriptor of the socket to the one who answers.
        lifeline: Descriptor of a pipe whose other end the parent holds.
    """
    end_with(lifeline)
    with socket.socket(fileno=channel) as connection, suppress(BrokenPipeError, ConnectionResetError):
        _generate(importlib.import_module(MODULE), connection, unpack(connection.recv(MAX_BYTES)))
        connection.send(pack({"over": True}))
    os._exit(0)


def _generate(loadgen: Any, connection: socket.socket, order: Mapping[str, Any]) -> None:
    def issue(queries: Sequence[Any]) -> None:
        at = time.monotonic_ns()
        for first in range(0, len(queries), PACK):
            part = [[query.id, query.index] for query in queries[first : first + PACK]]
            try:
                connection.send(pack({"issued": part, "at_ns": at}))
            except OSError:
                os._exit(0)  # nobody is there, and an exception in here would be the end all the same

    def answer() -> None:
        while data := connection.recv(MAX_BYTES):
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(unpack(data)["done"], 0, 0)])
        os._exit(0)  # nobody is there any more

    subject = loadgen.ConstructSUT(issue, lambda: None)
    library = loadgen.ConstructQSL(order["samples"], order["samples"], lambda _: None, lambda _: None)
    threading.Thread(target=answer, daemon=True).start()
    loadgen.StartTestWithLogSettings(
        subject, library, _settings(loadgen, order), _logs(loadgen, order["logs"])
    )


def _settings(loadgen: Any, order: Mapping[str, Any]) -> Any:
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, order["scenario"])
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_query_count = order["queries"]
    settings.min_duration_ms = order["duration_ms"]
    settings.single_stream_expected_latency_ns = order["expected_ns"]
    settings.server_target_qps = order["rate"]
    settings.server_target_latency_ns = order["bound_ns"]
    settings.server_target_latency_percentile = 0.99
    settings.offline_expected_qps = 1.0
    for seed in ("qsl_rng_seed", "sample_index_rng_seed", "schedule_rng_seed"):
        setattr(settings, seed, order["seed"])
    return settings


def _logs(loadgen: Any, folder: str) -> Any:
    output = loadgen.LogOutputSettings()
    output.outdir = folder
    logs = loadgen.LogSettings()
    logs.log_output = output
    logs.enable_trace = False
    return logs
