"""The built-in bundles at lower precision: calibrated on half of the recipe's own patients, compared on the others.

add_to_bundle   a bundle that was just written gets its other precisions
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside import cxr
from bedside.bundle import Bundle
from bedside.manifest import Manifest
from bedside.reading import read_radiograph
from bedside.scan import Volume
from bedside.scanning import open_scan
from bedside_export.precision.material import Material, make_material, prepare_scan
from bedside_export.precision.process import MOST, write_quantised
from bedside_export.precision.report import EngineTrial
from bedside_export.precision.variants import Options, add_precisions
from bedside_export.recipes.ct.data import CASES, read_case
from bedside_export.recipes.ct.network import PIXEL_MM
from bedside_export.recipes.cxr.data import read_collection

__all__ = ["PRECISIONS", "add_to_bundle"]

PRECISIONS: Final = ("bf16", "fp16", "int8")
"""What is added."""
CALIBRATED: Final = ("001", "002", "003", "004")
"""Cases of ``ct/coronacases`` that ranges are taken from."""
SLICES: Final = 24
"""Slices of a case."""
SLICES_WHOLE: Final = 62
"""Slices of the one complete series: every fourth."""
GAP_MM: Final = 2.5
"""Distance between the slices of a case, about: no difference here depends on it."""

_Float32 = npt.NDArray[np.float32]


def add_to_bundle(
    written: Path,
    data: Path,
    *,
    out: Path,
    precisions: tuple[str, ...] = PRECISIONS,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[EngineTrial, ...]:
    """Add precisions to a bundle of the recipes.

    Args:
        written: The bundle, with its fp32 model.
        data: The folder that holds ``cxr/`` and ``ct/``.
        out: The bundle to write, which is free.
        precisions: What to add.
        say: Told what is being done.

    Returns:
        Each engine at each precision.

    Raises:
        ExportError: The network can't be converted.
        OutputError: The bundle can't be written.
    """
    bundle = Bundle.open(written)
    manifest = bundle.manifest
    material = _scans if manifest.task == "ct-opacity" else _pictures
    calibration, validation = material(data, manifest)
    quantised = add_precisions(bundle, calibration.spread(MOST), validation, Options(precisions), say=say)
    write_quantised(quantised, out=out)
    return quantised.trials


def _pictures(data: Path, manifest: Manifest) -> tuple[Material, Material]:
    """Every second patient's X-rays, and the others'; whose it is not known is taken for a patient of its own."""
    collection = read_collection(data)
    patients: dict[str, int] = {}
    parts: tuple[list[tuple[_Float32, int]], ...] = ([], [])
    for picture in collection.pictures:
        number = patients.setdefault(picture.patient or picture.name, len(patients))
        radiograph = read_radiograph(collection.root / "images" / picture.name)
        parts[number % 2].append((cxr.preprocess(radiograph, manifest.input), number))
    return make_material(parts[0]), make_material(parts[1])


def _scans(data: Path, manifest: Manifest) -> tuple[Material, Material]:
    """Slices of `CALIBRATED`, and those of the other cases and of the one complete series."""
    parts: tuple[list[tuple[_Float32, int]], ...] = ([], [])
    for number, name in enumerate(CASES):
        volume = Volume(read_case(data, name).hu, np.diag([GAP_MM, PIXEL_MM, PIXEL_MM, 1.0])[[2, 1, 0, 3]])
        parts[name not in CALIBRATED].extend(
            (tile, number) for tile in prepare_scan(volume, manifest, slices=SLICES)
        )
    parts[1].extend((tile, len(CASES)) for tile in _whole_series(data, manifest))
    return make_material(parts[0]), make_material(parts[1])


def _whole_series(data: Path, manifest: Manifest) -> Iterator[_Float32]:
    scan = open_scan(data / "ct" / "ricord-series")
    try:
        yield from prepare_scan(scan, manifest, slices=SLICES_WHOLE)
    finally:
        scan.close()
