"""Studies to be followed, out of the JSON that ``bedside score`` and ``bedside segment`` give. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bedside.errors import InputError
from bedside.provenance import BundleRef
from bedside.radiograph import Finding

__all__ = ["KINDS", "QUANTITIES", "Engine", "Quantity", "Reading", "Study", "read_study"]

KINDS: Final[Mapping[str, str]] = {"bedside.severity/1": "x-ray", "bedside.opacification/1": "ct"}
"""Schema of a result -> what it is of."""
USUAL: Final = "voi"
"""Code of the note that nearly every DICOM file has: which window was taken. No doubt about a picture."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that is followed; more of it is worse."""

    name: str
    """Key in the JSON."""
    title: str
    """For people."""
    unit: str
    """``points``, ``mL`` or ``%``."""
    kind: str
    """One of `KINDS`' values: of which studies."""


QUANTITIES: Final = (
    Quantity("extent", "geographic extent", "points", "x-ray"),
    Quantity("opacity", "degree of opacity", "points", "x-ray"),
    Quantity("opacity_ml", "opacified volume", "mL", "ct"),
    Quantity("opacity_percent", "opacified share of the lungs", "%", "ct"),
)
"""All that is followed, in the order in which it is told."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A quantity in one study."""

    value: float
    """In the quantity's unit."""
    low: float | None
    """Lower end of its interval; None without one."""
    high: float | None
    """Upper end."""
    level: float | None
    """Share of truths in such intervals; None where it was never measured."""
    scale: tuple[float, float] | None
    """Bounds of a score's scale; None for a volume."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What ran the network."""

    backend: str
    """E.g. ``onnxruntime``."""
    precision: str
    """One of `bedside.contract.RUNS`."""


@dataclass(frozen=True, slots=True)
class Study:
    """One picture or scan, and what was found in it."""

    source: str
    """The input, as the result names it. It may carry a patient's name where the file's name does."""
    series: str
    """Series Instance UID, of a CT that has one."""
    kind: str
    """``x-ray`` or ``ct``."""
    readings: Mapping[str, Reading]
    """Name of a quantity -> reading; one that is not defined, such as a share without lungs, is absent."""
    bundle: BundleRef
    """What answered."""
    engine: Engine
    """What ran it."""
    notes: tuple[Finding, ...]
    """Doubts about the picture and the answer."""


def read_study(record: Mapping[str, Any]) -> Study | str:
    """A result as a study; or why it is none, if it was refused or failed.

    Args:
        record: What `SeverityResult.to_json` or `OpacificationResult.to_json` gives.

    Raises:
        InputError: ``not-results``.
    """
    try:
        if record["status"] != "ok":
            return f"{record['status']} [{record['error']['code']}]"
        kind = KINDS[record["schema"]]
        bundle, engine = record["bundle"], record["engine"]
        return Study(
            source=str(record["source"]),
            series=str(record.get("series", "")),
            kind=kind,
            readings=_READERS[kind](record),
            bundle=BundleRef(str(bundle["name"]), str(bundle["version"]), str(bundle["digest"])),
            engine=Engine(str(engine["backend"]), str(engine["precision"])),
            notes=_notes(record),
        )
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(
            "not-results", "a result lacks what a trend needs; make it again with this version of bedside"
        ) from error


def _scores(record: Mapping[str, Any]) -> dict[str, Reading]:
    found = {}
    for quantity in QUANTITIES:
        if quantity.kind == "x-ray":
            score = record[quantity.name]
            low, high = score["scale"]
            found[quantity.name] = Reading(
                float(score["value"]),
                float(score["low"]),
                float(score["high"]),
                float(score["level"]),
                (float(low), float(high)),
            )
    return found


def _volumes(record: Mapping[str, Any]) -> dict[str, Reading]:
    volumes = record["volumes"]
    level = volumes["interval"]["level"]
    found = {
        "opacity_ml": Reading(
            float(volumes["opacity_ml"]),
            float(volumes["opacity_ml_low"]),
            float(volumes["opacity_ml_high"]),
            None if level is None else float(level),
            None,
        )
    }
    if volumes["opacity_percent"] is not None:
        found["opacity_percent"] = Reading(float(volumes["opacity_percent"]), None, None, None, None)
    return found


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], dict[str, Reading]]]] = {
    "x-ray": _scores,
    "ct": _volumes,
}


def _notes(record: Mapping[str, Any]) -> tuple[Finding, ...]:
    notes = [Finding(str(each["code"]), str(each["text"])) for each in record["quality"]]
    notes += [
        Finding(str(entry["finding"]), str(entry["text"]))
        for entry in record.get("ledger", ())
        if entry["decision"] == "mended"
    ]
    share = record.get("read_share", 1.0)
    if share < 1:
        notes.append(
            Finding("sampled", f"only {share:.0%} of the slices were read: volumes are estimates from these")
        )
    return tuple(note for note in notes if note.code != USUAL)
