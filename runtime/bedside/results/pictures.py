"""Results as pictures. Not for clinical use."""

from __future__ import annotations

import io
import os
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from bedside import heatmap
from bedside.opacification import OpacificationResult
from bedside.provenance import NOTICE
from bedside.report import page
from bedside.results.files import write_bytes
from bedside.severity import SeverityResult
from bedside.version import __version__

__all__ = ["write_heatmap", "write_png", "write_report"]

PNG_EFFORT: Final = 1
"""zlib's level: the fastest. Someone waits for the picture, and a disk does not mind its size."""


def write_heatmap(path: str | os.PathLike[str], result: SeverityResult, *, score: str = "extent") -> None:
    """Write a scored result's picture with the activation over it, a PNG.

    Raises:
        BundleError: ``bundle-task`` if the bundle gives no activation map.
        OutputError: ``disk-full``; ``output-not-writable``.
        ValueError: If the result has no score.
    """
    write_png(path, heatmap.render(result, score=score))


def write_report(path: str | os.PathLike[str], result: OpacificationResult) -> None:
    """Write a segmented scan's page, a PNG: slices with the labels over them, the curve and the volumes.

    Neither the picture nor its metadata tells whose scan it is.

    Raises:
        OutputError: ``disk-full``; ``output-not-writable``.
        ValueError: If the result has no volumes, or did not keep its pictures.
    """
    write_png(path, page.render(result))


def write_png(path: str | os.PathLike[str], pixels: npt.NDArray[np.uint8]) -> None:
    """Write ``(H, W, 3)`` sRGB as a PNG, whose metadata says what made it and that it is not for clinical use.

    Raises:
        OutputError: ``disk-full``; ``output-not-writable``.
    """
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", f"bedside {__version__}")
    text.add_text("Disclaimer", NOTICE)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", compress_level=PNG_EFFORT, pnginfo=text)
    write_bytes(path, data.getvalue())
