"""What a CT bundle says of its input and its classes: the rules of the published networks, and one's own.

input_rule     from HU to what the network takes, by name or by numbers
read_tissues   the classes, by name or from a table
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bedside.contract import Input, Tissue
from bedside.scan import AIR_HU
from bedside_export.errors import ExportError

__all__ = ["INPUT_NAME", "RULES", "TISSUES", "Window", "input_rule", "read_tissues"]

INPUT_NAME: Final = "slice"
"""Name of the graph's input."""


@dataclass(frozen=True, slots=True)
class Window:
    """Clip HU to a window, subtract the mean, divide by the standard deviation."""

    low: float
    """Lower end, HU."""
    high: float
    """Upper end, HU."""
    mean: float
    """HU."""
    std: float
    """HU."""

    def __post_init__(self) -> None:
        """Refuse an empty window and a standard deviation that is none."""
        if not self.low < self.high or not self.std > 0:
            raise ExportError("a window needs its lower end first, and a standard deviation over 0")


RULES: Final[Mapping[str, Window]] = {
    "l3-unet": Window(-1000.0, 50.0, -653.2204, 628.5188),
    "lung-window": Window(-1250.0, 250.0, -580.2, 478.6),
}
"""Input rules of the published U-Net and PSPNet (UBC-CIC/COVID19-L3-Net; Lensink et al. 2020): the latter's is the
lung window, level -500 and width 1500."""

TISSUES: Final[Mapping[str, tuple[Tissue, ...]]] = {
    "l3-groups": (
        Tissue("background"),
        Tissue("lung", lung=True),
        Tissue("ground glass", opacity=True, lung=True),
        Tissue("septal thickening or crazy paving", opacity=True, lung=True),
        Tissue("consolidation", opacity=True, lung=True),
    ),
    "l3-classes": (
        Tissue("background"),
        Tissue("left lung", lung=True, side="left"),
        Tissue("right lung", lung=True, side="right"),
        Tissue("pleural effusion"),
        Tissue("lymphadenopathy"),
        Tissue("pure ground glass", opacity=True, lung=True),
        Tissue("ground glass with septal thickening", opacity=True, lung=True),
        Tissue("crazy paving", opacity=True, lung=True),
        Tissue("organizing pneumonia", opacity=True, lung=True),
        Tissue("atoll sign", opacity=True, lung=True),
        Tissue("consolidation", opacity=True, lung=True),
    ),
    "sides": (
        Tissue("background"),
        Tissue("left lung", lung=True, side="left"),
        Tissue("right lung", lung=True, side="right"),
        Tissue("left lung opacity", opacity=True, lung=True, side="left"),
        Tissue("right lung opacity", opacity=True, lung=True, side="right"),
    ),
}
"""Classes of the published networks: the 5 groups that the released ones answer with (effusion and lymph nodes count as
background; the last is organizing pneumonia, atoll sign and consolidation), and the 11 labels (Lensink et al. 2020);
and each lung with its opacity."""
_MAX_TABLE_BYTES: Final = 1 << 16


def input_rule(
    window: Window, *, channels: int, tile: tuple[int, int] | None, spacing_mm: tuple[float, float] | None
) -> Input:
    """The window as the bundle says it: clipped HU, mapped linearly to ``low`` and ``high``.

    Args:
        window: The rule.
        channels: Neighbouring slices.
        tile: ``(H, W)`` where the graph is for one size; None where sides are dynamic.
        spacing_mm: ``(y, x)`` that the network was trained at; None where it takes a scan's own.
    """
    low, high, air = (
        (hu - window.mean) / window.std
        for hu in (window.low, window.high, min(max(AIR_HU, window.low), window.high))
    )
    return Input(
        INPUT_NAME,
        (None, channels, *(tile or (None, None))),
        low=low,
        high=high,
        outside=air,
        hu_window=(window.low, window.high),
        spacing_mm=spacing_mm,
    )


def read_tissues(source: str) -> tuple[Tissue, ...]:
    """The classes in the order of the network's channels.

    Args:
        source: One of `TISSUES`, or a JSON file: a list of objects with ``name`` and, where they hold, ``opacity``,
            ``lung`` and ``side``.

    Raises:
        ExportError: The table can't be read, or is none.
    """
    if source in TISSUES:
        return TISSUES[source]
    path = Path(source)
    try:
        if path.stat().st_size > _MAX_TABLE_BYTES:
            raise ExportError("the table of tissues is over 64 KiB; give a short list")
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if isinstance(error, ExportError):
            raise
        raise ExportError(
            f"no tissues: neither one of {', '.join(TISSUES)} nor a readable JSON file"
        ) from error
    if not isinstance(table, list):
        raise ExportError("the table of tissues must be a JSON list of objects")
    return tuple(_tissue(entry, place) for place, entry in enumerate(table))


def _tissue(entry: Any, place: int) -> Tissue:
    kinds = {"name": str, "opacity": bool, "lung": bool, "side": str}
    if (
        not isinstance(entry, dict)
        or "name" not in entry
        or any(not isinstance(value, kinds.get(key, ())) for key, value in entry.items())
    ):
        raise ExportError(
            f"tissue {place} of the table must be an object with name, and perhaps opacity, lung (true or false) and "
            "side"
        )
    return Tissue(**entry)
