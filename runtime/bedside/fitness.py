"""What to doubt of an answer that is not in its picture: the engine, and the device."""

from __future__ import annotations

import json
from typing import Protocol, runtime_checkable

from bedside.backends.base import Backend, EngineInfo
from bedside.bundle import Bundle
from bedside.device import Machine
from bedside.errors import BundleError
from bedside.radiograph import Finding

__all__ = ["Doubts", "Telling", "doubt_engine", "doubt_machine"]


@runtime_checkable
class Telling(Protocol):
    """An engine that has something to tell with its answers, e.g. that it stands in for another one."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What there is to tell now."""


class Doubts:
    """What there is to doubt of an engine, which may be another one after a run.

    Args:
        bundle: The bundle.
        backend: The engine that runs its model.

    Raises:
        BundleError: ``bundle-broken`` if the bundle's parity report is not one.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self._bundle = bundle
        self._backend = backend
        self._info = backend.info
        self._found = doubt_engine(bundle, self._info)

    def list(self) -> tuple[Finding, ...]:
        """The doubts by now."""
        if self._backend.info != self._info:
            self._info = self._backend.info
            self._found = doubt_engine(self._bundle, self._info)
        return (*self._found, *(self._backend.findings if isinstance(self._backend, Telling) else ()))


def doubt_engine(bundle: Bundle, engine: EngineInfo) -> tuple[Finding, ...]:
    """Note an engine that left the bundle's tolerance when it was exported, by the bundle's own parity report.

    Raises:
        BundleError: ``bundle-broken`` if the report is not one.
    """
    text = bundle.read(bundle.manifest.parity)
    try:
        report = json.loads(text)
        failed = {
            (each["backend"], each["precision"])
            for each in report.get("engines", [])
            if each["status"] == "failed"
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BundleError("bundle-broken", "the parity report is not one; export the bundle again") from error
    if (engine.backend, engine.precision) not in failed:
        return ()
    doubt = f"{engine.backend} {engine.precision} left the bundle's tolerance at export; see bedside verify"
    return (Finding("engine-unfit", doubt),)


def doubt_machine(machine: Machine) -> tuple[Finding, ...]:
    """Note a device whose clocks were held down during the job: the answer stands, its times do not."""
    if not machine.throttled:
        return ()
    reasons = f" ({', '.join(machine.reasons)})" if machine.reasons else ""
    return (
        Finding(
            "device-throttled",
            f"the device held its clocks down{reasons}: it was slower than it can be; see to cooling and power",
        ),
    )
