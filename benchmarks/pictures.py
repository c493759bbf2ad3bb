"""X-rays to compare on: some of a collection, the phantom's, and the same enlarged as a detector makes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import numpy as np
from PIL import Image

__all__ = ["COUNT", "DETECTOR", "choose_images", "draw_phantoms", "draw_sizes", "enlarge", "link"]

COUNT: Final = 20
"""Images that are scored where no other number is asked for; no network of `benchmarks/train.py` has seen their
patients."""
DETECTOR: Final = 2500
"""Pixels on the longer side of what a portable machine sends: a detector of 43 cm with pixels of 0.14 to 0.2 mm has
2,150 to 3,070."""


def choose_images(folder: Path, count: int) -> list[Path]:
    """``count`` pictures evenly spread over a folder.

    Raises:
        click.UsageError: It holds none.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix in {".jpg", ".jpeg", ".png"})
    if not paths:
        raise click.UsageError(f"no JPEG or PNG in {folder}; give another folder")
    return [paths[i * len(paths) // count] for i in range(min(count, len(paths)))]


def draw_phantoms(folder: Path) -> Path:
    """X-rays of the phantom as PNG, for machines without a collection."""
    from bedside_export.golden import phantom_radiographs

    folder.mkdir()
    for number, radiograph in enumerate(phantom_radiographs()):
        Image.fromarray((radiograph.pixels * 255).astype("uint8")).save(folder / f"{number:02}.png")
    return folder


def draw_sizes(megapixels: Sequence[float], folder: Path) -> list[Path]:
    """The sample X-ray as DICOM, square, with so many million pixels."""
    from bedside.sample import DETECTOR as PANEL
    from bedside.sample import dataset

    files = []
    for each in megapixels:
        header = dataset()
        side = round((each * 1e6) ** 0.5)
        picture = Image.fromarray(header.pixel_array.astype("int32"))
        pixels = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR)).astype("<u2")
        header.Rows = header.Columns = side
        header.ImagerPixelSpacing = [PANEL.spacing_mm * PANEL.shape[0] / side] * 2
        header.PixelData = pixels.tobytes()
        files.append(folder / f"{each:g}.dcm")
        header.save_as(files[-1], enforce_file_format=True)
    return files


def enlarge(images: Sequence[Path], folder: Path) -> list[Path]:
    """The same pictures with `DETECTOR` pixels on the longer side, as JPEG."""
    folder.mkdir()
    enlarged = []
    for number, path in enumerate(images):
        with Image.open(path) as picture:
            scale = DETECTOR / max(picture.size)
            size = round(picture.width * scale), round(picture.height * scale)
            enlarged.append(folder / f"{number:03}.jpg")
            picture.convert("L").resize(size, Image.Resampling.BICUBIC).save(enlarged[-1], quality=92)
    return enlarged


def link(images: Sequence[Path], folder: Path) -> Path:
    """A folder with links to pictures; returned."""
    folder.mkdir(exist_ok=True)
    for image in images:
        place = folder / image.name
        place.unlink(missing_ok=True)
        place.symlink_to(image.resolve())
    return folder
