"""Drawn pictures with scores and patients, as tests of evaluations need them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bedside_export.scores import Columns

COUNT = 24
COLUMNS = Columns("file", "extent", "density", "who")
OPTIONS = ("--image-column", "file", "--extent-column", "extent", "--opacity-column", "density",
           "--patient-column", "who", "--opacity-scale", "8")  # fmt: skip


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def scored_rows() -> list[dict[str, object]]:
    """Two pictures of each patient; both scores from 0 to 8."""
    return [
        {"file": f"{i}.png", "who": 100 + i // 2, "extent": i % 9, "density": round(i % 7 * 8 / 6, 4)}
        for i in range(COUNT)
    ]


def draw_scored(folder: Path) -> Path:
    """The pictures, the brighter the worse, and ``scores.csv``."""
    noise = np.random.Generator(np.random.PCG64(0))
    for i, row in enumerate(scored_rows()):
        pixels = np.clip(noise.normal(60 + 15 * int(str(row["extent"])), 20, (80, 72)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    write_csv(folder / "scores.csv", scored_rows())
    return folder
