"""Benchmarks on the device itself: how long a study takes from file to written result, and what it costs.

    measure         all of it: a `Run`, which `read_run` has back from its JSON
    compare_runs    two of them: ratios with intervals, and which are noise

    record          what a run says; the names of the JSON (figures: its parts)
    session         the main flow
    measurement     what is timed, in its order
    scenarios       MLPerf's scenarios: single stream, offline, server
    tail            MLPerf's percentiles, and its estimate from few queries
    traffic         arrivals by MLPerf's rules
    loadgen         arrivals by MLPerf's own generator, in a process of its own (loadgen_worker)
    generators      which of the two
    starts          first results: cold, uncached, after a pause
    study           a study, stage by stage
    subject         the process that studies run in (worker)
    samples         what is measured on
    meters, energy  joules a study
    conditions      what a number was measured on, and whether it may be used
    comparison      one run against another (bootstrap: its intervals)
    report          both as a page with pictures

Studies run in a process of their own, so that one that dies costs the rest of its run and not what was measured
before. Nothing here is a result of MLPerf. Not for clinical use.
"""

from __future__ import annotations

from bedside.bench.comparison import Comparison, Ratio, compare_runs
from bedside.bench.figures import Settings
from bedside.bench.measurement import Listener
from bedside.bench.record import Run, read_run
from bedside.bench.session import LONG, Outcome, Request, measure, settings_for

__all__ = [
    "LONG",
    "Comparison",
    "Listener",
    "Outcome",
    "Ratio",
    "Request",
    "Run",
    "Settings",
    "compare_runs",
    "measure",
    "read_run",
    "settings_for",
]
