"""What a node's queue holds, as text and as JSON: without UIDs, unless they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final

from bedside.cli.console import columns, field
from bedside.node.entries import Shipment, Study
from bedside.provenance import NOTICE

__all__ = ["age", "describe", "details_of", "is_busy", "is_of_kind", "record_of", "table_of"]

ABSENT: Final = "-"
"""What there is none of."""
DIGEST: Final = 12
"""Digits of a bundle's hash that are shown."""
_UNITS: Final = (("d", 86_400), ("h", 3600), ("min", 60))

Waiting = Mapping[str, Sequence[str]]
"""``pending`` or ``failed`` -> destinations, as `Look.backlog`."""


def is_busy(study: Study, waiting: Waiting) -> bool:
    """Whether the node is not done with a study."""
    return study.state in {"received", "ready", "running"} or "pending" in waiting


def is_of_kind(study: Study, waiting: Waiting, kind: str) -> bool:
    """Whether a study is ``sent``, or done with nobody to send it to; or ``failed``, or its results were refused."""
    failed = study.state == "failed" or "failed" in waiting
    if kind == "failed":
        return failed
    return study.state == "sent" or (study.state == "done" and not waiting)


def table_of(studies: Sequence[Study], backlog: Mapping[int, Waiting], now: float, *, uids: bool) -> str:
    """A line a study."""
    rows = [["NUMBER", "STATE", "RULE", "IMAGES", "SIZE", "AGE", "TRIES", "ERROR", "WAITING", "REFUSED"]]
    rows[0] += ["STUDY UID", "UID"] if uids else []
    for study in studies:
        waiting = backlog.get(study.id, {})
        row = [str(study.id), study.state, study.rule, _images(study), f"{study.size / 1e6:.1f} MB"]
        row += [age(now - study.received_at), str(study.attempts), study.error_code or ABSENT]
        row += [", ".join(waiting.get(state, ())) or ABSENT for state in ("pending", "failed")]
        rows.append(row + ([study.study, study.unit] if uids else []))
    return columns(rows)


def describe(study: Study, shipments: Sequence[Shipment], now: float, *, uids: bool) -> str:
    """All of a study, a line a fact."""
    lines = [f"study {study.id}: {study.state}"]
    lines += [field(label, value) for label, value in _facts(study, now, uids=uids)]
    lines += [field(label, value) for label, value in _shipping(shipments, now)]
    return "\n".join([*lines, NOTICE])


def record_of(study: Study, waiting: Waiting, *, uids: bool) -> dict[str, Any]:
    """A study as an object of JSON."""
    found: dict[str, Any] = {
        "number": study.id,
        "state": study.state,
        "rule": study.rule,
        "instances": study.instances,
        "expected": study.expected,
        "bytes": study.size,
        "generation": study.generation,
        "attempts": study.attempts,
        "received": _moment(study.received_at),
        "changed": _moment(study.changed_at),
        "error": _error(study.error_code, study.error_message),
        "waiting": list(waiting.get("pending", ())),
        "refused": list(waiting.get("failed", ())),
    }
    return found | ({"study_uid": study.study, "uid": study.unit} if uids else {})


def details_of(
    study: Study, shipments: Sequence[Shipment], waiting: Waiting, *, uids: bool
) -> dict[str, Any]:
    """All of a study as an object of JSON."""
    results: dict[tuple[int, str], dict[str, Any]] = {}
    for each in shipments:
        made = {"generation": each.generation, "bundle": each.digest, "folder": each.path, "deliveries": []}
        deliveries = results.setdefault((each.generation, each.digest), made)["deliveries"]
        if each.destination is not None:
            deliveries.append(
                {
                    "destination": each.destination,
                    "state": each.state,
                    "attempts": each.attempts,
                    "next": _next(each),
                    "error": _error(each.error_code, each.error_message),
                }
            )
    return record_of(study, waiting, uids=uids) | {"results": list(results.values())}


def age(seconds: float) -> str:
    """How long ago, in words: ``40 s``, ``12 min``, ``3 h``, ``2 d``; a time to come, by a clock that was set, is 0."""
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def _facts(study: Study, now: float, *, uids: bool) -> Iterator[tuple[str, str]]:
    yield "rule", study.rule
    yield "images", f"{_images(study)}, {study.size / 1e6:.1f} MB"
    yield "received", f"{age(now - study.received_at)} ago, {_moment(study.received_at)}"
    yield "changed", f"{age(now - study.changed_at)} ago, {_moment(study.changed_at)}"
    late = "" if study.generation == 1 else ", since late images came or it was tried again"
    yield "generation", f"{study.generation}{late}"
    yield "tries", str(study.attempts)
    if study.error_code is not None:
        yield "error", f"{study.error_code}: {study.error_message or ABSENT}"
    if uids:
        yield "study UID", study.study
        yield "UID", study.unit


def _shipping(shipments: Sequence[Shipment], now: float) -> Iterator[tuple[str, str]]:
    """Each result, and each of its destinations."""
    last = None
    for each in shipments:
        if (each.generation, each.digest) != last:
            last = (each.generation, each.digest)
            yield (
                f"result {each.generation}",
                f"bundle sha256 {each.digest[:DIGEST]}, in {each.path}"
                + ("; nobody gets it" if each.destination is None else ""),
            )
        if each.destination is not None:
            yield f"  to {each.destination}", _delivery(each, now)


def _delivery(shipment: Shipment, now: float) -> str:
    state = {
        "pending": "waits",
        "sent": "sent",
        "failed": "refused, and given up",
        "superseded": "left out, since a newer one follows",
    }[shipment.state or "pending"]
    text = f"{state}, {shipment.attempts} {'try' if shipment.attempts == 1 else 'tries'}"
    if shipment.state == "pending" and shipment.next_at is not None:
        wait = shipment.next_at - now
        text += ", next now" if wait <= 0 else f", next in {age(wait)}"
    if shipment.error_code is not None:
        text += f"; {shipment.error_code}: {shipment.error_message or ABSENT}"
    return text


def _images(study: Study) -> str:
    return str(study.instances) if study.expected is None else f"{study.instances} of {study.expected}"


def _moment(at: float) -> str:
    """A time as ISO 8601, UTC, to the second."""
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def _next(shipment: Shipment) -> str | None:
    return None if shipment.state != "pending" or shipment.next_at is None else _moment(shipment.next_at)


def _error(code: str | None, message: str | None) -> dict[str, str | None] | None:
    return None if code is None else {"code": code, "message": message}
