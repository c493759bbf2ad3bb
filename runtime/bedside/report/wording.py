"""Volumes in words, as the command line and the report give them alike. No I/O."""

from __future__ import annotations

from bedside.opacification import Confusion, Opacification, OpacificationResult, Range, TissueVolume
from bedside.scan import Entry

__all__ = [
    "bundle_line",
    "confusion_line",
    "engine_line",
    "hu_text",
    "interval_line",
    "interval_text",
    "ledger_line",
    "ml_text",
    "percent_text",
    "sampling_line",
    "share_line",
    "sides_line",
    "tissue_text",
]

NOTHING = "-"
"""Stands where there is no value."""


def ml_text(volume: float | None) -> str:
    """A volume in mL, to three digits or so: whole from 100 on, with two decimals under 1."""
    if volume is None:
        return NOTHING
    if not volume:
        return "0"
    return f"{volume:.0f}" if volume >= 99.95 else f"{volume:.1f}" if volume >= 0.995 else f"{volume:.2f}"


def tissue_text(tissue: TissueVolume) -> str:
    """A tissue's name; of lung that is no opacity, also that its opacities are not in its volume."""
    return f"{tissue.name}, not opacified" if tissue.lung and not tissue.opacity else tissue.name


def percent_text(share: float | None) -> str:
    """A share in percent, to a tenth; without the sign."""
    return NOTHING if share is None else f"{share:.1f}"


def hu_text(hu: float | None) -> str:
    """HU, whole."""
    return NOTHING if hu is None else f"{hu:.0f}"


def interval_text(interval: Range) -> str:
    """An interval, e.g. ``80 % interval 120 to 180 mL``; plain ``range`` where its level was never measured."""
    name = "range" if interval.level is None else f"{100 * interval.level:.0f} % interval"
    return f"{name} {ml_text(interval.low)} to {ml_text(interval.high)} mL"


def interval_line(interval: Range) -> str:
    """What an interval rests on."""
    level = (
        "how often the truth lies inside was never measured"
        if interval.level is None
        else f"{100 * interval.level:.0f} % of truths lay inside when it was measured"
    )
    return f"{level}; {interval.method}"


def sampling_line(sampling: Range) -> str:
    """The part of the interval that comes of slices not read."""
    return f"on their own {interval_text(sampling)}; {sampling.method}"


def share_line(result: OpacificationResult, found: Opacification) -> str:
    """How many slices the volumes come from."""
    read = len(found.curve)
    total = "" if result.shape is None else f" ({read} of {result.shape[0]})"
    if found.read_share < 1:
        return (
            f"only {100 * found.read_share:.0f} % of the slices were read{total}: "
            "volumes are estimates from these"
        )
    return f"all slices were read{total}"


def sides_line(found: Opacification) -> str:
    """How left and right were told apart."""
    return "by the network" if found.sides == "network" else f"by the {found.sides}"


def ledger_line(entry: Entry) -> str:
    """One finding on the geometry."""
    bound = (
        f" (volume error at most {entry.volume_error_percent:.2g} %)" if entry.volume_error_percent else ""
    )
    return f"{entry.decision}: {entry.text}{bound}"


def confusion_line(confusion: Confusion) -> str:
    """What experts would call a tissue that the network names, largest part first."""
    parts = sorted(confusion.experts_ml.items(), key=lambda item: -item[1])
    told = ", ".join(f"{ml_text(ml)} {name}" for name, ml in parts if round(ml, 2) > 0)
    return f"{ml_text(confusion.ml)} mL named {confusion.name}; experts would say: {told or NOTHING}"


def bundle_line(result: OpacificationResult) -> str:
    """Which bundle answered."""
    bundle = result.bundle
    return f"{bundle.name} {bundle.version}, sha256 {bundle.digest[:12]}"


def engine_line(result: OpacificationResult) -> str:
    """What ran it."""
    return result.engine.line
