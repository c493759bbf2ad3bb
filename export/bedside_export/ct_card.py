"""Model card and terms of a CT bundle."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Final

from bedside.contract import Input, Licence, Tiling, Tissue
from bedside_export.ct_parity import TOLERANCES
from bedside_export.draft import LICENCE_FILE
from bedside_export.severity import Naming

__all__ = ["ct_card", "ct_terms"]

_RANDOM_NOTICE: Final = (
    "Random weights with a last layer fitted to the phantom: for tests and benchmarks of speed only."
)
_UNKNOWN_NOTICE: Final = (
    "Nothing was said of the checkpoint's terms: ask those who trained it before any use."
)


def ct_terms(naming: Naming, *, random: bool) -> tuple[Licence, str]:
    """Licence and its text: as the exporting person says, else unknown, which allows nothing."""
    if naming.licence is not None:
        notice = "Terms as given by the person who exported the bundle."
        text = naming.licence_text or f"{naming.licence}\n\n{notice}\n"
        return Licence(naming.licence, LICENCE_FILE, naming.commercial_use, notice), text
    if random:
        apache = (files("bedside_export") / "licences" / "Apache-2.0.txt").read_text()
        return Licence("Apache-2.0", LICENCE_FILE, commercial_use=True, notice=_RANDOM_NOTICE), apache
    licence = Licence("LicenseRef-unknown", LICENCE_FILE, commercial_use=False, notice=_UNKNOWN_NOTICE)
    return licence, f"{_UNKNOWN_NOTICE}\nNot for clinical use.\n"


def ct_card(
    name: str,
    network: str,
    *,
    spec: Input,
    tiling: Tiling,
    tissues: Sequence[Tissue],
    licence: Licence,
) -> str:
    """The model card, Markdown.

    Args:
        name: Of the bundle, with its version.
        network: What it is and where its weights are from, in words.
        spec: Its input rule.
        tiling: How a scan is cut.
        tissues: Its classes.
        licence: Its terms.
    """
    rows = "\n".join(
        f"| {label} | {tissue.name} | {_mark(tissue.lung)} | {_mark(tissue.opacity)} | {tissue.side} |"
        for label, tissue in enumerate(tissues)
    )
    low, high = spec.hu_window or (0.0, 0.0)
    size = " x ".join(map(str, tiling.size))
    sides = (
        f"multiples of {tiling.multiple} from {tiling.smallest} on"
        if None in spec.shape[2:]
        else "this size only"
    )
    spacing = (
        "the scan's own" if spec.spacing_mm is None else " x ".join(f"{mm:g} mm" for mm in spec.spacing_mm)
    )
    return f"""\
# {name}

**Not for clinical use.** For research: it marks lung and pulmonary opacities on slices of a chest CT.

## Network

- {network}.
- Input: HU clipped to [{low:g}, {high:g}] and mapped linearly to [{spec.low:.4f}, {spec.high:.4f}];
  {spec.shape[1]} slice(s) at a time; spacing in the slice: {spacing}.
- Tiles of {size} ({sides}), overlapping by at least {tiling.overlap:.0%}.
- Output: probabilities of the tissues, which sum to 1.

## Tissues

| label | name | lung | opacity | side |
|---|---|---|---|---|
{rows}

## Checked

Every engine's answers were compared with PyTorch's on slices of a phantom: `parity.json`. Greatest 1 - Dice of a tissue
and greatest difference of the opacified volume: {TOLERANCES["fp32"]["dice_loss"]:g} and \
{TOLERANCES["fp32"]["volume_percent"]:g} % in fp32, {TOLERANCES["bf16"]["dice_loss"]:g} and \
{TOLERANCES["bf16"]["volume_percent"]:g} % in bf16 and fp16.

## Limits

- This says how well an engine repeats the network, not how well the network does on patients: ask those who trained
  it.
- It gives an answer for any slice, also of another part of the body.

## Terms

{licence.spdx}; commercial use: {"yes" if licence.commercial_use else "no"}. {licence.notice}
"""


def _mark(flag: bool) -> str:  # noqa: FBT001 - a cell of a table
    return "yes" if flag else ""
