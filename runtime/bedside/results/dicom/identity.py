"""Which objects there are, and their numbers and UIDs: the same again where the same bundle answers on the same source.

UIDs are derived (PS3.5, B.2), not drawn: a series' from its source series, the bundle's digest, the engine and the
version of bedside; an object's from that, its source instances and how the analysis ended. So a second run makes
objects that are known by their UIDs, and another bundle, engine or outcome makes others.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import Final
from uuid import NAMESPACE_OID, uuid5

from bedside.backends.base import EngineInfo
from bedside.provenance import BundleRef
from bedside.results.dicom.study import Study
from bedside.version import __version__

__all__ = ["KINDS", "Identity", "Kind", "derive_uid"]

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object."""

    sop_class_uid: str
    """SOP Class UID (PS3.4, B.5)."""
    modality: str
    """Modality."""
    series_base: int
    """Its series have this number and the source's last two digits."""
    description: str
    """Series Description, before the notice."""


KINDS: Final = MappingProxyType(
    {
        "report": Kind(_STORAGE + "88.34", "SR", 9100, "bedside measurements"),
        "heatmap": Kind(_STORAGE + "7", "OT", 9200, "bedside heatmap"),
        "montage": Kind(_STORAGE + "7", "OT", 9300, "bedside key images"),
        "map": Kind(_STORAGE + "30", "OT", 9400, "bedside activation map"),
        "segmentation": Kind(_STORAGE + "66.4", "SEG", 9500, "bedside segmentation"),
        "labelmap": Kind(_STORAGE + "66.7", "SEG", 9600, "bedside label map"),
    }
)
"""Name -> kind: Comprehensive 3D SR, secondary capture, parametric map, segmentation and label map segmentation."""


def derive_uid(*parts: str) -> str:
    """A UID under the root 2.25 that is the same for the same parts."""
    return f"2.25.{uuid5(NAMESPACE_OID, '/'.join(('bedside', *parts))).int}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose result it is, and what gave it."""

    study: Study
    """The source."""
    bundle: BundleRef
    """What answered, or would have."""
    engine: EngineInfo
    """What ran it."""
    outcome: str
    """``ok`` and what was asked for beside, or the code of the error."""
    now: datetime
    """When the result is made, with its time zone."""

    def local_now(self) -> datetime:
        """`now` on the source's clock, where that says its offset from UTC."""
        offset = self.study.utc_offset
        if not offset:
            return self.now
        shift = timedelta(hours=int(offset[1:3]), minutes=int(offset[3:5]))
        try:
            return self.now.astimezone(timezone(shift if offset[0] == "+" else -shift))
        except ValueError:  # an offset of a day or more
            return self.now

    def series_uid(self, kind: str) -> str:
        """Series Instance UID of a kind of object."""
        return derive_uid(
            "series",
            kind,
            self.study.study_uid,
            self.study.series_uid,
            self.bundle.digest,
            self.engine.backend,
            self.engine.precision,
            __version__,
        )

    def instance_uid(self, kind: str) -> str:
        """SOP Instance UID of a kind of object."""
        sources = hashlib.sha256()
        for instance in self.study.instances:
            sources.update(f"{instance.sop_instance_uid}\\".encode())
        return derive_uid("instance", self.series_uid(kind), sources.hexdigest(), self.outcome)

    def series_number(self, kind: str) -> int:
        """Series Number: of `Kind.series_base` on, far from those of scanners."""
        return KINDS[kind].series_base + self.study.series_number % 100

    def device_uid(self) -> str:
        """UID of the bundle, as a device: another one for each digest (IHE RAD AIR, 6.5.3.1)."""
        return derive_uid("device", self.bundle.digest)

    def tracking_uid(self, name: str) -> str:
        """UID of a finding that is followed by its name."""
        return derive_uid("tracking", self.series_uid("report"), self.instance_uid("report"), name)
