"""The built-in CT bundle, from what the recipe trained and measured.

    python -m bedside_export.recipes.ct.bundle --trained DIR --data ../shared/data \
         --out runtime/bedside/models/ct-opacity-lite

``DIR`` holds ``metrics.json`` of the recipe's ``evaluate``, and ``network.pt`` and ``lung-field.json`` of its
``train``. Every figure in the model card, the interval and the confusion are read from them. With ``--data``, four of
the recipe's cases give the ranges of the int8 file, and the engines are compared on the others.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import torch

from bedside.contract import Input, Licence, Output, Tiling, Tissue, VolumeInterval
from bedside_export.ct_golden import SOURCE
from bedside_export.ct_models import TissueNetwork
from bedside_export.ct_opacity import write_ct_bundle
from bedside_export.ct_parity import TOLERANCES
from bedside_export.draft import LICENCE_FILE, Draft
from bedside_export.recipes.command import bundle_command
from bedside_export.recipes.ct.lungs import CLASSES
from bedside_export.recipes.ct.network import PIXEL_MM, STRIDE, WINDOW_HU, build_network
from bedside_export.recipes.ct.opacity import LUNG_FIELD_FILE
from bedside_export.recipes.reproduction import to_text
from bedside_export.rounding import WEIGHT_BITS, round_weights
from bedside_export.tissue_report import TissueParity

__all__ = ["build_bundle", "draft_bundle"]

NAME: Final = "ct-opacity-lite"
TILE: Final = (256, 256)
"""Rows and columns that the network was trained at: 36 cm, a chest."""
LICENCE: Final = Licence(
    "CC-BY-NC-SA-4.0",
    LICENCE_FILE,
    commercial_use=False,
    notice="Trained on scans of coronacases.org with masks of Zenodo 3757476, whose licence is unconfirmed: "
    "non-commercial research only.",
)
TISSUES: Final = (
    Tissue("background"),
    Tissue("left lung", lung=True, side="left"),
    Tissue("right lung", lung=True, side="right"),
    Tissue("opacity in the left lung", lung=True, opacity=True, side="left"),
    Tissue("opacity in the right lung", lung=True, opacity=True, side="right"),
)
"""In the order of the recipe's classes."""
MIRROR: Final = (0, 2, 1, 4, 3)
"""Each tissue's counterpart on the other side."""


def draft_bundle(metrics: dict[str, Any], version: str) -> Draft:
    """What the bundle says of itself.

    Args:
        metrics: ``metrics.json`` of the recipe's evaluation.
        version: Version of the bundle.
    """
    if len(CLASSES) != len(TISSUES):
        raise ValueError(f"the recipe has {len(CLASSES)} classes and the bundle {len(TISSUES)}")
    interval = metrics["summary"]["interval_of_hard_volume"]
    return Draft(
        name=NAME,
        version=version,
        title="Lungs and their opacification on chest CT, left and right",
        licence=LICENCE,
        licence_text=f"{LICENCE.notice}\nNot for clinical use.\n\n"
        + (files("bedside_export") / "licences" / "CC-BY-NC-SA-4.0.txt").read_text(encoding="utf-8"),
        card=_card(metrics, version),
        metrics=to_text(metrics),
        input=Input(
            "slice",
            (None, 1, None, None),
            low=-1.0,
            high=1.0,
            outside=-1.0,
            hu_window=WINDOW_HU,
            spacing_mm=(PIXEL_MM, PIXEL_MM),
        ),
        outputs=(Output("tissues", "tissues", tuple(tissue.name for tissue in TISSUES)),),
        scores=(),
        task="ct-opacity",
        golden_source=SOURCE,
        tolerances={precision: dict(TOLERANCES[precision]) for precision in ("fp32", "bf16", "fp16")},
        tiling=Tiling(TILE, 0.25, "gaussian", multiple=STRIDE, smallest=2 * STRIDE),
        tissues=TISSUES,
        volume_interval=VolumeInterval(
            level=round(interval["level"], 4),
            low=round(interval["low"], 4),
            high=round(interval["high"], 4),
            method=interval["method"],
        ),
        confusion=_mirrored(metrics["summary"]["confusion"]["voxels_true_by_found"]),
    )


def _mirrored(counts: list[list[int]]) -> tuple[tuple[float, ...], ...]:
    """Shares of the true classes in what the network finds, of both sides together: a side has too few cases.

    Args:
        counts: ``(5, 5)`` voxels by true (row) and found (column) class.
    """
    by_found = np.array(counts, np.float64).T
    by_found += by_found[np.ix_(MIRROR, MIRROR)]
    return tuple(tuple(round(float(share), 6) for share in row / row.sum()) for row in by_found)


def build_bundle(trained: Path, out: Path, *, version: str = "1.0.0", force: bool = False) -> TissueParity:
    """Export the trained network as a bundle.

    Args:
        trained: Folder with ``metrics.json``, ``network.pt`` and, if it was measured, ``lung-field.json``.
        out: The bundle to write.
        version: Its version.
        force: Replace a bundle that is there.

    Raises:
        ParityError: ONNX Runtime in fp32 disagrees with PyTorch; nothing is written.
        OutputError: The bundle can't be written.
    """
    metrics = _read(trained / "metrics.json")
    if (trained / LUNG_FIELD_FILE).is_file():
        metrics["lung_field"] = _read(trained / LUNG_FIELD_FILE)
    network = build_network()
    network.load_state_dict(torch.load(trained / "network.pt", weights_only=True))
    return write_ct_bundle(
        draft_bundle(metrics, version),
        TissueNetwork(round_weights(network.eval())),
        out=out,
        force=force,
        say=click.echo,
    )


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _context(metrics: dict[str, Any]) -> int:
    """Neighbouring slices on each side in training; a recipe that does not name them has none."""
    return int(metrics["recipe"].get("context", 0))


def _field(metrics: dict[str, Any]) -> str:
    """What was measured on scans of another source, a paragraph; nothing if it was not."""
    if "lung_field" not in metrics:
        return ""
    scans = metrics["lung_field"].values()
    dice = ", ".join(f"{scan['lung_dice']:.3f}" for scan in scans)
    shares = ", ".join(f"{scan['opacity_share_of_lung']:.1%}" for scan in scans)
    around = ", ".join(f"{scan['lung_around_the_body_share']:.1%}" for scan in scans)
    return (
        f"\nScans of another source (`ct/lung-field`, {len(scans)}), by the final network: lungs Dice {dice} against "
        f"their masks;\n{around} of what it takes for lung lies around the body, and it calls {shares} of lung "
        "opacified,\nof which no expert has said anything.\n"
    )


def _card(metrics: dict[str, Any], version: str) -> str:
    summary = metrics["summary"]
    over = summary["over_cases"]
    interval = summary["interval_of_hard_volume"]
    cases = "\n".join(
        f"| {case['case']} | {case['slices']} | {case['opacity_share_of_lung']:.1%} | {case['opacity_dice']:.3f} "
        f"| {case['lung_dice']:.3f} | {case['hard_volume_over_true']:.2f} | {case['expected_volume_over_true']:.2f} |"
        for case in metrics["cases"]
    )
    means = " | ".join(
        f"{over[key]['mean']:.{digits}f}"
        for key, digits in (
            ("opacity_dice", 3),
            ("lung_dice", 3),
            ("hard_volume_over_true", 2),
            ("expected_volume_over_true", 2),
        )
    )
    least = min(metrics["cases"], key=lambda case: float(case["hard_volume_over_true"]))
    context = _context(metrics)
    learnt = (
        f" (it learnt with {context} more on either side, from none to two slices apart)" if context else ""
    )
    return f"""\
# {NAME} {version}

**Not for clinical use.** For non-commercial research: it outlines the left and the right lung on axial slices of a
chest CT, and what is opacified in them (ground glass, consolidation and what lies between, as one).

## Network

Slice by slice{learnt}, {PIXEL_MM} mm pixels, HU clipped to {WINDOW_HU[0]:g} to {WINDOW_HU[1]:g}: the front of
EfficientNet-Lite0 (from ImageNet) and a light decoder (`bedside_export.recipes.ct.network`). It answers with the
probability of each of {len(CLASSES)} tissues, in each pixel.

## Data

{metrics["data"]}: {len(metrics["cases"])} scans of patients
with COVID-19, every second slice, 8-bit pictures that were mapped back to HU by the grey levels of air and muscle.

{metrics["labels"]}

## Protocol

{metrics["protocol"]}

## Errors on patients not trained on

| case | slices | opacity of lung | Dice, opacity | Dice, lungs | volume / true | expected volume / true |
|---|---|---|---|---|---|---|
{cases}
| mean | | | {means} |

Opacity: {summary["grids"]["opacity"]}.
Lungs: {summary["grids"]["lungs"]}.
{_field(metrics)}
The interval of a volume: from {interval["low"]:.2f} to {interval["high"]:.2f} of it, {interval["method"]}.

## Checked

After training, batch norms were folded and weights rounded to {WEIGHT_BITS} significant bits, which takes half the
room. Every engine's answers were compared with PyTorch's of that network, on slices of a phantom: `parity.json`.
Where the bundle holds fp16 and int8 files, it tells as well how far each engine at each precision is from the
reference on real slices: int8 has its ranges from cases 001 to 004, and is compared on 005 to 007 and on a whole
series.

## Limits

- Seven scans of one collection, of adults with COVID-19: another scanner, kernel, dose or disease may err more than
  the interval says.
- Lung labels come of thresholds, not of experts. Effusion, a collapsed or a white lung and large masses were not
  among the cases: what touches the chest wall and is dense may be missed, and counts to neither lung nor opacity.
- Faint ground glass is missed: where experts drew it generously (case {least["case"]}),
  {least["hard_volume_over_true"]:.0%} of its volume was found.
- Cloth and foam at the edge of the body are taken for lung here and there, as the scans of another source show.
- One kind of opacity: it does not tell ground glass from consolidation; the mean HU says how dense it is.

## Terms

{LICENCE.spdx}; commercial use: no. {LICENCE.notice}
"""


main = bundle_command(build_bundle, "Write the built-in CT bundle from what the recipe trained and measured.")

if __name__ == "__main__":
    main()
