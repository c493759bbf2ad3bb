"""The node's metrics: named as the field names them, and without a word from the network."""

from __future__ import annotations

import sys

import pytest

from bedside.errors import MissingExtraError, OutputError
from bedside.node.entries import STATES, State
from bedside.version import __version__

parser = pytest.importorskip("prometheus_client.parser", reason="needs the extra 'node'")

from bedside.node.metrics import MAX_VALUES, Metrics  # noqa: E402 - after what it needs

CANARY = "CANARY^PATIENT"


class Node:
    """What the metrics ask for."""

    def __init__(self) -> None:
        self.studies: dict[State, int] = dict.fromkeys(STATES, 0)
        self.deliveries: dict[str, dict[str, int]] = {}
        self.asked = 0
        self.metrics = Metrics(
            studies=self.count, deliveries=lambda: self.deliveries, free_bytes=lambda: 12345.0
        )

    def count(self) -> dict[State, int]:
        self.asked += 1
        return self.studies


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Name and labels -> value, read by Prometheus' own parser."""
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parser.text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[f"bedside_node_{name}", frozenset(labels.items())]


def test_what_happens_is_counted() -> None:
    metrics = Node().metrics
    for outcome in ("accepted", "accepted", "calling-title"):
        metrics.association(outcome)
    metrics.instance("association", "new", 1000)
    metrics.instance("association", "new", 500)
    metrics.instance("folder", "broken-dicom", 0)
    metrics.run("ok", 0.4)
    metrics.run("failed", 2000.0)
    metrics.turnaround(45.0)
    metrics.delivery("pacs", "sent")
    metrics.delivery("Archive_2", "refused")
    metrics.worker_restarted()
    assert value(metrics, "associations_total", outcome="accepted") == 2
    assert value(metrics, "associations_total", outcome="calling-title") == 1
    assert value(metrics, "instances_total", source="association", outcome="new") == 2
    assert value(metrics, "instances_total", source="folder", outcome="broken-dicom") == 1
    assert value(metrics, "bytes_total") == 1500
    assert value(metrics, "runs_total", status="ok") == 1
    assert value(metrics, "run_seconds_bucket", le="0.5") == 1
    assert value(metrics, "run_seconds_bucket", le="600.0") == 1
    assert value(metrics, "run_seconds_count") == 2
    assert value(metrics, "run_seconds_sum") == pytest.approx(2000.4)
    assert value(metrics, "turnaround_seconds_bucket", le="30.0") == 0
    assert value(metrics, "turnaround_seconds_bucket", le="60.0") == 1
    assert value(metrics, "deliveries_total", destination="pacs", outcome="sent") == 1
    assert value(metrics, "deliveries_total", destination="Archive_2", outcome="refused") == 1
    assert value(metrics, "worker_restarts_total") == 1


def test_what_waits_is_asked_for_when_it_is_read() -> None:
    node = Node()
    assert node.asked == 0
    assert value(node.metrics, "studies", state="ready") == 0
    node.studies["ready"] = 4
    node.deliveries = {"pacs": {"pending": 3, "failed": 1}}
    assert value(node.metrics, "studies", state="ready") == 4
    assert value(node.metrics, "deliveries_waiting", destination="pacs", state="pending") == 3
    assert value(node.metrics, "deliveries_waiting", destination="pacs", state="failed") == 1
    assert value(node.metrics, "spool_free_bytes") == 12345.0
    assert value(node.metrics, "info", version=__version__) == 1


def test_two_nodes_count_apart() -> None:
    one, other = Node().metrics, Node().metrics
    one.worker_restarted()
    assert (value(one, "worker_restarts_total"), value(other, "worker_restarts_total")) == (1, 0)


def test_text_that_is_none_of_ours_is_no_label() -> None:
    metrics = Node().metrics
    for text in (CANARY, CANARY.lower(), "", "x" * 41, "a b", 'a"b', "a\nb"):
        metrics.association(text)
        metrics.instance(text, text, 1)
        metrics.run(text, 1.0)
        metrics.delivery("pacs", text)
    body, _ = metrics.render()
    assert CANARY.lower().encode() not in body.lower()
    assert value(metrics, "associations_total", outcome="other") == 7


def test_values_of_a_label_do_not_grow_without_end() -> None:
    metrics = Node().metrics
    for number in range(10 * MAX_VALUES):
        metrics.association(f"outcome-{number}")
    found = [key for key in samples(metrics) if key[0] == "bedside_node_associations_total"]
    assert len(found) == MAX_VALUES + 1
    assert value(metrics, "associations_total", outcome="other") == 9 * MAX_VALUES


def test_queue_that_can_not_be_read_is_not_told_as_empty() -> None:
    def broken() -> dict[State, int]:
        raise OutputError("output-not-writable", "the queue's file is damaged")

    metrics = Metrics(studies=broken, deliveries=dict, free_bytes=lambda: 0.0)
    with pytest.raises(OutputError, match="damaged"):
        metrics.render()


def test_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingExtraError, match=r"bedside\[node\]"):
        Node()
