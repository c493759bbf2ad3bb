"""What the node counts, for Prometheus. Not for clinical use.

No label holds patient data, or what a sender says of itself: there is no end of the AE titles of strangers.
"""

# ruff: noqa: PLC0415 - prometheus_client is of an extra

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Final

from bedside.errors import MissingExtraError
from bedside.node.entries import State
from bedside.version import __version__

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

__all__ = ["Metrics"]

RUN_S: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Buckets of a run: an X-ray on a fast device to a CT on a slow one."""
TURNAROUND_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0, 86400.0)
"""Buckets from the first instance to the results."""
MAX_VALUES: Final = 64
"""Values that one label may have: a fault of ours must not grow without end."""
OTHER: Final = "other"
"""What stands for a value that is too many, or none of ours."""
_VALUE: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
"""Codes and outcomes, as this package writes them."""


class Metrics:
    """The node's metrics, in a registry of their own. From any thread.

    The arguments are asked when the metrics are read, from the thread that reads them.

    Args:
        studies: State -> how many studies are in it: `Look.counts`.
        deliveries: Destination -> state -> how many deliveries are in it: `Look.unsent`.
        free_bytes: Space that is left on the spool's disk.

    Raises:
        MissingExtraError: prometheus_client is not installed.
    """

    def __init__(
        self,
        *,
        studies: Callable[[], Mapping[State, int]],
        deliveries: Callable[[], Mapping[str, Mapping[str, int]]],
        free_bytes: Callable[[], float],
    ) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Histogram
        except ImportError as error:
            raise MissingExtraError.of("prometheus-client", "node", "counting for Prometheus") from error
        registry = CollectorRegistry()
        self._registry = registry
        self._lock = Lock()
        self._values: dict[str, set[str]] = {}

        def count(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"bedside_node_{name}", what, labels, registry=registry)

        self._associations = count("associations", "Associations, by what came of them.", "outcome")
        self._instances = count(
            "instances", "Objects, by where they came from and what came of them.", "source", "outcome"
        )
        self._bytes = count("bytes", "Bytes of the objects that came.")
        self._runs = count("runs", "Runs of studies, by how they ended.", "status")
        self._deliveries = count("deliveries", "Tries to send results.", "destination", "outcome")
        self._restarts = count("worker_restarts", "How often the engine's process was started anew.")
        self._run_seconds = Histogram(
            "bedside_node_run_seconds", "How long runs took.", buckets=RUN_S, registry=registry
        )
        self._turnaround_seconds = Histogram(
            "bedside_node_turnaround_seconds",
            "From the first object of a study to its results.",
            buckets=TURNAROUND_S,
            registry=registry,
        )
        registry.register(_Gauges(studies, deliveries, free_bytes))

    def association(self, outcome: str) -> None:
        """An association was accepted, rejected, or came to its end."""
        self._associations.labels(self._known("association", outcome)).inc()

    def instance(self, source: str, outcome: str, size: int) -> None:
        """An object came.

        Args:
            source: ``association`` or ``folder``.
            outcome: ``new``, ``known``, ``replaced``, or the code of the error for which it was not taken.
            size: Bytes.
        """
        self._instances.labels(self._known("source", source), self._known("instance", outcome)).inc()
        self._bytes.inc(size)

    def run(self, status: str, seconds: float) -> None:
        """A study was run."""
        self._runs.labels(self._known("run", status)).inc()
        self._run_seconds.observe(seconds)

    def turnaround(self, seconds: float) -> None:
        """Results are done, so many seconds after the first object of their study came."""
        self._turnaround_seconds.observe(seconds)

    def delivery(self, destination: str, outcome: str) -> None:
        """Results were sent, or not taken.

        Args:
            destination: Its name in the configuration.
            outcome: ``sent`` or ``refused``.
        """
        self._deliveries.labels(destination, self._known("delivery", outcome)).inc()

    def worker_restarted(self) -> None:
        """The engine's process was started anew."""
        self._restarts.inc()

    def render(self) -> tuple[bytes, str]:
        """All metrics in Prometheus' text format, and its content type; raises what the node's own callables do."""
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder("")
        return encode(self._registry), content_type

    def _known(self, label: str, value: str) -> str:
        if not _VALUE.fullmatch(value):
            return OTHER
        with self._lock:
            values = self._values.setdefault(label, set())
            if len(values) < MAX_VALUES:
                values.add(value)
            return value if value in values else OTHER


class _Gauges:
    """What is asked for at the moment that it is read."""

    def __init__(
        self,
        studies: Callable[[], Mapping[State, int]],
        deliveries: Callable[[], Mapping[str, Mapping[str, int]]],
        free_bytes: Callable[[], float],
    ) -> None:
        self._studies = studies
        self._deliveries = deliveries
        self._free_bytes = free_bytes

    def describe(self) -> list[Metric]:
        """Nothing: to register this must not ask yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The gauges, as they are now."""
        from prometheus_client.metrics_core import GaugeMetricFamily

        info = GaugeMetricFamily(
            "bedside_node_info", "The version that runs. Not for clinical use.", labels=["version"]
        )
        info.add_metric([__version__], 1)
        yield info
        studies = GaugeMetricFamily("bedside_node_studies", "Studies in each state.", labels=["state"])
        for state, number in self._studies().items():
            studies.add_metric([state], number)
        yield studies
        waiting = GaugeMetricFamily(
            "bedside_node_deliveries_waiting",
            "Results that a destination has not got: pending, or failed and given up.",
            labels=["destination", "state"],
        )
        for destination, unsent in self._deliveries().items():
            for kind, number in unsent.items():
                waiting.add_metric([destination, kind], number)
        yield waiting
        yield GaugeMetricFamily(
            "bedside_node_spool_free_bytes", "Space on the spool's disk.", value=self._free_bytes()
        )
