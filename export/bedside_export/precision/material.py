"""Pictures and scans of a folder, as the network sees them in use.

    Material        network inputs, each with the scan that it is of
    read_material   read a folder
    split           one part to calibrate on, one to compare on: never the same picture

What is in the folder is known by hashes afterwards, never by a file's name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside import cxr, quality
from bedside.backends import FakeBackend
from bedside.contract import Tiling
from bedside.dicom import list_series
from bedside.errors import CODES, BedsideError, InputError, RefusedError
from bedside.hounsfield import check_hu, sample_slices
from bedside.manifest import Manifest
from bedside.nifti.voxels import is_nifti
from bedside.reading import read_header, read_radiograph
from bedside.scan import Scan
from bedside.scanning import open_scan
from bedside.segmentation import Segmentor, fit_grid, list_tiles
from bedside_export.errors import ExportError

__all__ = ["FEWEST", "Material", "hash_image", "make_material", "prepare_scan", "read_material", "split"]

FEWEST: Final = 32
"""Least inputs to calibrate on, and to compare on. The int8 file of the built-in X-ray network, calibrated on 1, 4, 8,
16, 32, 64 and 128 pictures drawn at random, was off by up to 0.39, 0.30, 0.21, 0.23, 0.28, 0.22 and 0.18 points of
extent (99th percentile over 100 other pictures): the luck of the draw is spent from about 8 on, and 32 leaves room."""
SLICES: Final = 32
"""Slices taken of a scan, evenly spread."""
N_PROBES: Final = 9
"""Slices that are looked at to tell whether a scan is in HU; as a scan in use."""

_Float32 = npt.NDArray[np.float32]
Say = Callable[[str], None]
Skip = Callable[[int, BedsideError], None]


@dataclass(frozen=True, slots=True)
class Material:
    """Network inputs."""

    images: tuple[_Float32, ...]
    """``(1, C, ...)`` float32 each, in the order of their hashes."""
    groups: tuple[int, ...]
    """Of each input, which scan or picture it is of."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Error code -> files or series that could not be used."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def sha256(self) -> str:
        """SHA-256 of the inputs' hashes in order: names these pictures, and tells nothing of them."""
        return hashlib.sha256(b"".join(hash_image(image) for image in self.images)).hexdigest()

    def take(self, places: list[int]) -> Material:
        """Some of the inputs."""
        return Material(
            tuple(self.images[i] for i in places),
            tuple(self.groups[i] for i in places),
            self.skipped,
        )

    def spread(self, count: int) -> Material:
        """At most ``count`` of the inputs, evenly spread."""
        places = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int))
        return self.take(places.tolist())


def hash_image(image: _Float32) -> bytes:
    """SHA-256 of a network input."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()


def read_material(folder: Path, manifest: Manifest, *, say: Say = lambda _: None) -> Material:
    """Read what a folder holds, as the runtime would.

    Args:
        folder: Of pictures (DICOM, PNG, JPEG, TIFF) for an X-ray bundle; of series and NIfTI files for CT. Searched
            with the folders in it.
        manifest: Of the bundle.
        say: Told what was skipped, by its number.

    Returns:
        Each picture once, in the order of hashes.

    Raises:
        ExportError: There is no such folder, it is empty, or nothing in it can be used.
    """
    if not folder.is_dir():
        raise ExportError(
            "there is no such folder of pictures; give one that holds what the network will see"
        )
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not files:
        raise ExportError("the folder of pictures is empty; give one that holds what the network will see")
    skipped: dict[str, int] = {}

    def skip(number: int, error: BedsideError) -> None:
        skipped[error.code] = skipped.get(error.code, 0) + 1
        what = "series" if manifest.task == "ct-opacity" else "file"
        say(f"skipped {what} {number}: {CODES[error.code]} [{error.code}]")

    found = (
        _read_scans(folder, files, manifest, skip)
        if manifest.task == "ct-opacity"
        else _read_pictures(files, manifest, skip)
    )
    material = make_material(found, skipped)
    if not material.images:
        reasons = ", ".join(f"{count} {code}" for code, count in sorted(skipped.items()))
        raise ExportError(
            f"nothing in the folder of pictures can be used ({reasons or 'nothing that bedside reads'}); give "
            f"{'CT scans' if manifest.task == 'ct-opacity' else 'frontal chest X-rays'}"
        )
    return material


def make_material(found: Iterable[tuple[_Float32, int]], skipped: dict[str, int] | None = None) -> Material:
    """Inputs with their groups, each input once, in the order of their hashes."""
    unique = {hash_image(image): (image, group) for image, group in found}
    rows = [unique[key] for key in sorted(unique)]
    return Material(tuple(image for image, _ in rows), tuple(group for _, group in rows), skipped or {})


def split(material: Material) -> tuple[Material, Material]:
    """Half to calibrate on, half to compare on: whole scans where there are several, as hashes have it."""
    groups = sorted(set(material.groups))
    if len(groups) == 1 or len(groups) == len(material):
        places = list(range(len(material)))
        return material.take(places[::2]), material.take(places[1::2])
    first = set(groups[::2])
    there = [i for i, group in enumerate(material.groups) if group in first]
    rest = [i for i, group in enumerate(material.groups) if group not in first]
    return material.take(there), material.take(rest)


def prepare_scan(scan: Scan, manifest: Manifest, *, slices: int = SLICES) -> Iterator[_Float32]:
    """Tiles of evenly spread slices, each as the engine gets it in use: ``(1, C, H, W)``.

    What the runtime would not ask the network about, as air alone, is left out.
    """
    tiling = _tiling(manifest)
    if len(tiling.size) != 2:
        raise ExportError("only networks of slices can be quantised so far; this one sees volumes")
    kinds = len(manifest.tissues)
    name = manifest.input.name
    output = next(each.name for each in manifest.outputs if each.meaning == "tissues")
    recorder = FakeBackend(
        lambda inputs: {
            output: np.full((len(inputs[name]), kinds, *inputs[name].shape[2:]), 1 / kinds, np.float32)
        }
    )
    tile = list_tiles(fit_grid(scan.grid, manifest.input, tiling), manifest.input, tiling)[0]
    segmentor = Segmentor(manifest, recorder, scan.grid, tile)
    count = scan.grid.shape[0]
    for index in np.unique(
        np.linspace(0, count - 1, min(count, slices) + 2)[1:-1].round().astype(int)
    ).tolist():
        planes = segmentor.prepare(scan.read(segmentor.neighbours(index)))
        segmentor.predict(planes[None])  # (C, h, w) -> (1, C, h, w)
    for call in recorder.calls:
        for tile_image in call[name]:
            yield tile_image[None].copy()


def _read_pictures(files: list[Path], manifest: Manifest, skip: Skip) -> Iterator[tuple[_Float32, int]]:
    for number, path in enumerate(files, 1):
        try:
            quality.check_header(read_header(path))
            radiograph = read_radiograph(path)
            quality.check_pixels(radiograph)
        except BedsideError as error:
            skip(number, error)
            continue
        yield cxr.preprocess(radiograph, manifest.input), number


def _read_scans(
    folder: Path, files: list[Path], manifest: Manifest, skip: Skip
) -> Iterator[tuple[_Float32, int]]:
    for number, (path, series) in enumerate(_list_scans(folder, files, skip), 1):
        try:
            scan = open_scan(path, series=series)
        except BedsideError as error:
            skip(number, error)
            continue
        try:
            check_hu(sample_slices(scan.read, scan.grid.shape[0], N_PROBES))
            tiles = list(prepare_scan(scan, manifest))
        except BedsideError as error:
            skip(number, error)
            continue
        finally:
            scan.close()
        for tile in tiles:
            yield tile, number


def _list_scans(folder: Path, files: list[Path], skip: Skip) -> list[tuple[Path, str | None]]:
    """The CT series of a folder, then its NIfTI files."""
    found: list[tuple[Path, str | None]] = []
    try:
        for number, info in enumerate(list_series(folder), 1):
            if info.modality == "CT":
                found.append((folder, info.uid))
            else:
                skip(number, RefusedError("wrong-modality", f"the series is {info.modality}, not CT"))
    except InputError as error:
        skip(1, error)
    for number, path in enumerate(files, 1):
        try:
            if is_nifti(path):
                found.append((path, None))
        except InputError as error:
            skip(number, error)
    return found


def _tiling(manifest: Manifest) -> Tiling:
    if manifest.tiling is None:
        raise ExportError("the bundle has no tiling: it is not for CT")
    return manifest.tiling
