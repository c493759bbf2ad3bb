"""What the node's queue holds. Times are seconds since 1970. Not for clinical use."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

from bedside.errors import BedsideError

__all__ = [
    "STATES",
    "Arrival",
    "Counted",
    "Delivery",
    "Held",
    "Instance",
    "Made",
    "Shipment",
    "State",
    "Study",
    "Work",
]

State = Literal["received", "ready", "running", "done", "sent", "failed"]
STATES: Final[tuple[State, ...]] = ("received", "ready", "running", "done", "sent", "failed")


@dataclass(frozen=True, slots=True)
class Arrival:
    """An instance, and where in the spool it lies, or is to lie."""

    unit: str
    """What is run as one: SeriesInstanceUID, or SOPInstanceUID where each picture is run by itself."""
    study: str
    """StudyInstanceUID."""
    sop: str
    """SOPInstanceUID."""
    path: str
    """Below the spool."""
    sha256: str
    """Of the file's data set, without its meta header, which differs between senders."""
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What came of an arrival."""

    outcome: Literal["new", "known", "other-pixels", "replaced"]
    """``known``: it is there with the same content; ``other-pixels``: it is there with another content, which stays;
    ``replaced``: it took the place of another content, of which nothing could be read."""
    study: int
    """Number of the study that it belongs to."""
    instances: int
    """How many that has now."""
    expected: int | None
    """How many make it complete, if that is known."""


@dataclass(frozen=True, slots=True)
class Held:
    """What is there already under the UID of an arrival."""

    counted: Counted
    """What comes of the arrival: ``known`` or ``other-pixels``."""
    path: str
    """Of what is there, below the spool."""
    sha256: str
    """Of its content, as `Arrival.sha256`."""


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance of a study."""

    sop: str
    """SOPInstanceUID."""
    path: str
    """Below the spool."""
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Study:
    """A series, or a single picture, on its way through the node."""

    id: int
    """Number that a person names it by."""
    unit: str
    """SeriesInstanceUID, or the SOPInstanceUID of a picture."""
    study: str
    """StudyInstanceUID."""
    rule: str
    """Name of the rule that it matched."""
    state: State
    """Where it is."""
    generation: int
    """1, and one more each time that late slices reopened it or a person had it run again."""
    instances: int
    """How many it has."""
    size: int
    """Bytes of all instances."""
    expected: int | None
    """Instances that make it complete, if that is known."""
    attempts: int
    """Runs of this generation that were begun."""
    received_at: float
    """When its first instance came."""
    changed_at: float
    """When its state changed, or its last instance came."""
    error_code: str | None
    """Why there is no answer: of the last failure, or of the refusal that the result tells."""
    error_message: str | None
    """One line, without patient data."""


@dataclass(frozen=True, slots=True)
class Work:
    """A study that was claimed, to be run."""

    study: Study
    """As it is while it runs."""
    instances: tuple[Instance, ...]
    """In order of arrival."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a run left on the disk."""

    digest: str
    """Of the bundle."""
    path: str
    """Folder of the results, below the spool."""
    destinations: Collection[str] = ()
    """Names of those that get them."""
    error: BedsideError | None = None
    """Why the results give no answer, where they say that."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """Results to be sent to one destination."""

    result: int
    """Number of the result."""
    destination: str
    """Its name in the configuration."""
    study: int
    """Number of the study."""
    path: str
    """Folder of the results, below the spool."""
    attempts: int
    """How often sending was begun."""


@dataclass(frozen=True, slots=True)
class Shipment:
    """Where a result is on its way to a destination."""

    generation: int
    """Of the study when the result was made."""
    digest: str
    """Of the bundle."""
    path: str
    """Folder of the results, below the spool."""
    destination: str | None
    """Its name in the configuration; None where nobody gets the result."""
    state: Literal["pending", "sent", "failed", "superseded"] | None
    """``superseded``: late slices made it old before it was sent."""
    attempts: int | None
    """How often sending was begun."""
    next_at: float | None
    """When it is tried again."""
    error_code: str | None
    """Of the last refusal."""
    error_message: str | None
    """One line, without patient data."""
