"""Results, sent on by C-STORE. Not for clinical use."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pydicom.uid import UID

from bedside.errors import NodeError
from bedside.node.association import Association
from bedside.node.failures import Stopped, StoppedError, UntakenError, never
from bedside.node.network import Destination
from bedside.node.parcels import Parcel, open_parcels

__all__ = ["ALREADY_THERE", "name_status", "send_by_store"]

log = logging.getLogger(__name__)

ALREADY_THERE: Final = 0x0111
"""Duplicate SOP Instance: our UIDs are derived, so that it is there from a try that was cut."""
_STATUSES: Final = MappingProxyType(
    {
        0x0110: "processing failure",
        0x0117: "invalid SOP instance",
        0x0122: "SOP class not supported",
        0x0124: "not authorised",
        0x0210: "duplicate invocation",
        0x0211: "unrecognised operation",
        0x0212: "mistyped argument",
    }
)
"""PS3.7, annex C."""
_RANGES: Final = MappingProxyType({0xA7: "out of resources", 0xA9: "data set does not match SOP class"})
"""First byte of a status of C-STORE -> what it means (PS3.4, table B.2-1)."""


def send_by_store(
    files: Sequence[Path], destination: Destination, *, calling: str, stopped: Stopped = never
) -> None:
    """Send objects in one association, in this order; returns when the destination has taken them all.

    Each is proposed in its own transfer syntax, and sent as it is on the disk. Success is status 0x0000, a warning
    (0xBxxx), and 0x0111, "duplicate SOP instance". After a failure nothing more is sent; what was taken already stays
    there, and sending it again under the same UIDs does no harm.

    Args:
        files: DICOM files.
        destination: With ``host`` and ``ae_title``.
        calling: Our AE title, where the destination has no other for us.
        stopped: Asked before each object.

    Raises:
        UntakenError: ``not-delivered``: the destination does not take one of these.
        NodeError: ``not-delivered``: it can't be reached, rejects the association, breaks off, does not answer in time,
            or is out of resources.
        InputError: ``bad-config``: its certificates can't be used.
        MissingExtraError: pynetdicom is not installed.
        StoppedError: ``stopped`` said so, and not all were sent.
    """
    parcels = open_parcels(files)
    if not parcels:
        return
    contexts = list(dict.fromkeys((parcel.sop_class, parcel.syntax) for parcel in parcels))
    with Association(destination, contexts, calling=calling) as association:
        for number, parcel in enumerate(parcels, 1):
            if stopped():
                raise StoppedError
            _check(association.store(parcel, number), parcel)


def name_status(status: int) -> str:
    """A status of C-STORE, or a Failure Reason of STOW-RS, in figures and words."""
    words = _STATUSES.get(status) or _RANGES.get(status >> 8)
    if words is None:
        words = "cannot understand" if status >> 12 == 0xC else "failure"
    return f"0x{status:04X} ({words})"


def _check(status: int, parcel: Parcel) -> None:
    name = UID(parcel.sop_class).name
    if status in (0x0000, ALREADY_THERE):
        return
    if status >> 12 == 0xB:
        log.info("a destination took a %s with the warning 0x%04X", name, status)
        return
    told = f"the destination answered a {name} with status {name_status(status)}"
    if status >> 8 == 0xA7:
        raise NodeError("not-delivered", f"{told}; make space there")
    raise UntakenError("not-delivered", f"{told}; look at its log, or send these results elsewhere")
