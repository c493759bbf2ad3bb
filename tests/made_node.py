"""Parts of a node around a folder of a test, without a network, an engine or a clock of their own.

make_parts       spool, queue, intake and all that they need; a watched folder
make_job         how a rule's studies are run
Clock            seconds that rise when a test says so
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bedside.node.audit import Audit
from bedside.node.chronicle import Chronicle
from bedside.node.completion import Completion
from bedside.node.config import Completion as Choice
from bedside.node.config import Watch
from bedside.node.desk import Desk
from bedside.node.entries import Study
from bedside.node.intake import Intake
from bedside.node.jobs import Job
from bedside.node.metrics import Metrics
from bedside.node.rules import Rule
from bedside.node.spool import Spool
from bedside.node.watcher import Watcher
from made_dicom import write_xray

CANARY = "Kanarienvogel"
"""What is written where an object can name a patient or a stay: it may be found nowhere."""
NAMED = (
    *("PatientName", "PatientID", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName"),
    *(
        "PatientAddress",
        "PatientComments",
        "PatientTelephoneNumbers",
        "AdditionalPatientHistory",
        "IssuerOfPatientID",
    ),
    *("AccessionNumber", "StudyID", "AdmissionID", "RequestedProcedureDescription", "ImageComments"),
    *(
        "ReferringPhysicianName",
        "PerformingPhysicianName",
        "OperatorsName",
        "InstitutionName",
        "InstitutionAddress",
    ),
    *("SeriesDescription", "ProtocolName", "StationName", "DeviceSerialNumber"),
)
"""Attributes that do."""
PATIENCE_S = 60.0
"""For what a thread or another process is to do."""
RULES = (
    Rule("xray", "tiny", modality=("CR", "DX"), destinations=("pacs",)),
    Rule("ct", "tiny-ct", modality=("CT",), destinations=("pacs",)),
)


@dataclass
class Clock:
    """Seconds that rise when a test says so."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def make_job(rule: str, task: str, **changes: Any) -> Job:
    told: dict[str, Any] = {
        "bundle": rule,
        "digest": "d" * 64,
        "backend": "onnxruntime",
        "precision": None,
        "labelmap": False,
        "memory_mib": None,
        "cache": None,
        "destinations": ("pacs",),
        **changes,
    }
    return Job(rule=rule, task=task, **told)


JOBS = {"xray": make_job("xray", "cxr-severity"), "ct": make_job("ct", "ct-opacity")}


@dataclass
class Parts:
    """A node's insides."""

    folder: Path
    spool: Spool
    desk: Desk
    audit: Audit
    chronicle: Chronicle
    completion: Completion
    intake: Intake
    watcher: Watcher
    clock: Clock
    woken: list[None] = field(default_factory=list)

    def studies(self) -> tuple[Study, ...]:
        return self.desk.ask(lambda queue: queue.studies())

    def states(self) -> list[str]:
        return [study.state for study in self.studies()]

    def stored(self) -> set[str]:
        """Files in the spool's images, below it."""
        return {str(path.relative_to(self.spool.root)) for path in self.spool.images.glob("*/*")}

    def events(self) -> list[dict[str, Any]]:
        """Lines of the audit log."""
        lines = [
            line
            for path in sorted(self.spool.audit.glob("*.jsonl"))
            for line in path.read_text().splitlines()
        ]
        return [json.loads(line) for line in lines]


@contextmanager
def make_parts(folder: Path, choice: Choice | None = None, *, tries: int = 3) -> Iterator[Parts]:
    """A spool in ``folder``/spool, and a watched folder ``folder``/in."""
    clock = Clock()
    watched = folder / "in"
    watched.mkdir(parents=True, exist_ok=True)
    with (
        Spool(folder / "spool") as spool,
        Desk(spool.queue, tries=tries) as desk,
        Audit(spool.audit, keep_days=1) as audit,
    ):
        metrics = Metrics(
            studies=lambda: desk.ask(lambda queue: queue.counts()),
            deliveries=lambda: desk.ask(lambda queue: queue.unsent()),
            free_bytes=lambda: 1.0,
        )
        chronicle = Chronicle(audit, metrics)
        woken: list[None] = []
        completion = Completion(desk, choice or Choice(), lambda: woken.append(None), clock=clock)
        intake = Intake(spool, desk, RULES, JOBS, completion, chronicle)
        watcher = Watcher(Watch(str(watched), settle_s=0.0), intake, spool, free_mib=0.0, clock=clock)
        yield Parts(folder, spool, desk, audit, chronicle, completion, intake, watcher, clock, woken)


def write_picture(path: Path, number: int = 1, **header: Any) -> Path:
    """A small X-ray of a patient of that name, with UIDs that end in ``number``."""
    named = {
        **dict.fromkeys(NAMED, CANARY),
        "StudyInstanceUID": f"1.2.{number}",
        "SeriesInstanceUID": f"1.2.{number}.1",
        "SOPInstanceUID": f"1.2.{number}.1.1",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_xray(path, **{**named, **header})


def write_slice(path: Path, number: int, *, series: str = "1.3.1", **header: Any) -> Path:
    """One file of a CT series, as far as an intake looks."""
    named = {
        "Modality": "CT",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        **dict.fromkeys(NAMED, CANARY),
        "StudyInstanceUID": "1.3",
        "SeriesInstanceUID": series,
        "SOPInstanceUID": f"{series}.{number}",
        "InstanceNumber": number,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_xray(path, **{**named, **header})


def until(holds: Callable[[], object]) -> None:
    """Wait for something that a thread or another process is to do."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)
