"""Whether an engine was fit for a bundle when the bundle was exported."""

from __future__ import annotations

import json

from bedside.backends.base import EngineInfo
from bedside.bundle import Bundle
from bedside.errors import BundleError
from bedside.radiograph import Finding

__all__ = ["doubt_engine"]


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
