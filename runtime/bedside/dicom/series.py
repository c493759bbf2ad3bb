"""A CT series: opened by its headers, its slices decoded in parallel when they are asked for."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from functools import partial
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

from bedside.dicom.archive import Archive, open_archive
from bedside.dicom.catalogue import Catalogue, Series, read_catalogue
from bedside.dicom.gaps import ALLOWED_PERCENT, Losses, bound_lost, name_slices
from bedside.dicom.geometry import Stack, arrange
from bedside.dicom.hounsfield import read_hu, show_same
from bedside.dicom.ledger import Ledger
from bedside.dicom.order import put_in_order
from bedside.dicom.references import Instance, References
from bedside.dicom.selection import select
from bedside.errors import BedsideError, InputError, MissingExtraError
from bedside.scan import Entry, Grid

__all__ = ["DicomSeries", "read_series"]

MAX_THREADS: Final = 8
"""Threads that decode where none are named: beyond, the disk is the limit, and memory grows with each."""
ON_GRID: Final = 1e-6
"""A slice nearer to a place of the grid than this share of a step lies on it."""

Picture = npt.NDArray[np.float32]


class DicomSeries:
    """A `bedside.scan.Scan` whose slices lie in DICOM files.

    Files are opened when they are read from, and none is held. Use it from one thread at a time: it has its own.

    Args:
        archive: The files; closed with the series.
        stack: Which slices make the grid.
        ledger: What was found.
        series: What they were taken from.
        allow_missing: Whether to go on where a slice proves unreadable.
        threads: How many decode.
    """

    def __init__(
        self,
        archive: Archive,
        stack: Stack,
        ledger: tuple[Entry, ...],
        series: Series,
        *,
        allow_missing: bool,
        threads: int | None,
    ) -> None:
        self._archive = archive
        self._stack = stack
        self._entries = ledger
        self._series = series
        self._allow_missing = allow_missing
        self._usable = list(range(len(stack.slices)))
        self._usable_places = list(stack.places)
        self._lost: dict[int, str] = {}
        self._pool = ThreadPoolExecutor(threads or _count_threads(), thread_name_prefix="bedside-ct")

    @property
    def grid(self) -> Grid:
        """Where the voxels are."""
        return self._stack.grid

    @property
    def ledger(self) -> tuple[Entry, ...]:
        """What was found in the geometry, none of it refused; it grows where a slice proves unreadable."""
        return self._entries + self._note_lost()

    @property
    def instances(self) -> References:
        """The DICOM objects that the slices of the grid come from."""
        parts = self._series.parts
        return References(
            study_uid=parts[0].study_uid,
            series_uid=self._series.info.uid,
            frame_of_reference_uid=next(
                (part.frame_of_reference_uid for part in parts if part.frame_of_reference_uid), ""
            ),
            slices=tuple(self._find_instance(place) for place in range(self.grid.shape[0])),
            axes=self._stack.axes,
        )

    def read(self, slices: Sequence[int]) -> Picture:
        """Decode slices, in parallel.

        Args:
            slices: Indices on the grid's z axis, in any order.

        Returns:
            ``(n, Y, X)`` float32, HU; padding reads as `bedside.scan.AIR_HU`. Owned by the caller.

        Raises:
            InputError: ``missing-slices``: a slice can't be decoded, and that was not allowed.
            MissingExtraError: The decoder is in the ``codecs`` extra.
            IndexError: No such slice.
        """
        depth, rows, columns = self.grid.shape
        wanted = [int(place) for place in slices]
        if any(not 0 <= place < depth for place in wanted):
            raise IndexError(f"slices must be from 0 to {depth - 1}")
        hu = np.empty((len(wanted), rows, columns), np.float32)
        left = list(range(len(wanted)))
        while left:  # again for those whose source proves unreadable: others take its place
            recipes = {row: self._find_sources(wanted[row]) for row in left}
            failed = self._decode(recipes, hu)
            self._lose(failed)
            left = [row for row, recipe in recipes.items() if not failed.keys().isdisjoint(recipe)]
        return hu

    def open_file(self) -> AbstractContextManager[BinaryIO]:
        """The file of the first slice, open for reading: for what a result copies of its header.

        Raises:
            InputError: It can't be read.
        """
        return self._archive.open(self._stack.slices[0].file)

    def close(self) -> None:
        """End the threads, and close the archive."""
        self._pool.shutdown(cancel_futures=True)
        self._archive.close()

    def __enter__(self) -> DicomSeries:
        """Close it at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _find_sources(self, place: int) -> dict[int, float]:
        """Which slices make the one at ``place`` of the grid, and their weights; the nearest beyond the ends."""
        places = self._usable_places
        above = bisect_left(places, place - ON_GRID)
        if above == len(places):
            return {self._usable[-1]: 1.0}
        if above == 0 or places[above] - place <= ON_GRID:
            return {self._usable[above]: 1.0}
        low, high = places[above - 1], places[above]
        weight = (place - low) / (high - low)
        return {self._usable[above - 1]: 1 - weight, self._usable[above]: weight}

    def _decode(self, recipes: dict[int, dict[int, float]], hu: Picture) -> dict[int, str]:
        """Fill the rows of ``hu`` from their sources, each of which is decoded once.

        Returns:
            Why sources can't be decoded; the rows made of them are then not filled.
        """
        homes: dict[int, int] = {}  # the row that a source is decoded into: one that it alone makes
        for row, recipe in recipes.items():
            if len(recipe) == 1:
                homes.setdefault(next(iter(recipe)), row)
        targets = {
            source: hu[homes[source]] if source in homes else np.empty(hu.shape[1:], np.float32)
            for recipe in recipes.values()
            for source in recipe
        }
        jobs = {
            source: self._pool.submit(_decode_slice, self._archive, self._stack, source, target)
            for source, target in targets.items()
        }
        wait(jobs.values())
        failed: dict[int, str] = {}
        for source, job in jobs.items():
            try:
                job.result()
            except MissingExtraError:
                raise
            except BedsideError as error:
                failed[source] = error.message
        for row, recipe in recipes.items():
            if homes.get(next(iter(recipe))) != row and failed.keys().isdisjoint(recipe):
                hu[row] = sum(np.float32(weight) * targets[source] for source, weight in recipe.items())
        return failed

    def _lose(self, failed: dict[int, str]) -> None:
        """Go on without these slices, if that is allowed and enough are left."""
        if not failed:
            return
        self._lost.update(failed)
        self._usable = [source for source in self._usable if source not in failed]
        self._usable_places = [self._stack.places[source] for source in self._usable]
        text = f"{self._name_lost()} can't be read ({next(iter(failed.values()))})"
        if not self._allow_missing:
            raise InputError(
                "missing-slices",
                f"{text}; copy or export the series again, or go on without: --allow-missing",
            )
        if len(self._usable) < 2 or self._bound_lost() > ALLOWED_PERCENT:
            raise InputError(
                "missing-slices",
                f"{text}: a volume may be wrong by more than {ALLOWED_PERCENT:g} %; export the series again",
            )

    def _name_lost(self) -> str:
        places = sorted(round(self._stack.places[source]) for source in self._lost)
        return name_slices(places, self.grid.shape[0])

    def _bound_lost(self) -> float:
        lost = [self._stack.places[source] for source in self._lost]
        return bound_lost(lost, self._usable_places, self.grid.shape[0], self.grid.slice_gap_mm)

    def _note_lost(self) -> tuple[Entry, ...]:
        if not self._lost:
            return ()
        text = f"{self._name_lost()} unreadable: made from the nearest ones"
        return (Entry("unreadable-slices", "mended", text, self._bound_lost(), len(self._lost)),)

    def _find_instance(self, place: int) -> Instance | None:
        sources = self._find_sources(place)
        (source, *_) = sources
        if len(sources) > 1 or abs(self._stack.places[source] - place) > ON_GRID:
            return None
        item = self._stack.slices[source]
        return Instance(
            item.sop_class_uid, item.sop_instance_uid, None if item.frame is None else item.number
        )


def read_series(
    path: str | os.PathLike[str],
    *,
    series: str | None = None,
    allow_missing: bool = False,
    threads: int | None = None,
) -> DicomSeries:
    """Open a CT series; headers alone are read, unless slices are there twice.

    Args:
        path: A folder (searched with those in it), a zip of one, or a file of many frames. What is not DICOM is
            left out.
        series: Series Instance UID, or number in `list_series`, where there are several.
        allow_missing: Whether to go on where slices are unreadable, or where more of them are missing than leaves
            a volume right within 1 %.
        threads: How many decode; by default as many as there are processors, up to 8.

    Returns:
        The series, to be closed after use.

    Raises:
        InputError: ``not-found``, ``not-readable``, ``not-an-image``, ``broken-dicom``.
        RefusedError: ``no-series``, ``several-series``, ``wrong-modality``, ``not-hu``, ``missing-slices``,
            ``improper-geometry``. The last three come as `bedside.dicom.ledger.GeometryError`, with the ledger.
        MissingExtraError: The decoder is in the ``codecs`` extra, and was needed to compare duplicates.
    """
    archive = open_archive(path)
    try:
        catalogue = read_catalogue(archive)
        chosen = catalogue.choose(series)
        ledger = Ledger()
        _note_others(catalogue, chosen, ledger)
        _note_position(chosen, ledger)
        selection = select(chosen, ledger)
        slices = put_in_order(selection, ledger, partial(show_same, archive))
        stack = arrange(
            slices, selection, ledger, Losses(catalogue.unreadable, selection.strays, allow_missing)
        )
        return DicomSeries(
            archive, stack, tuple(ledger.entries), chosen, allow_missing=allow_missing, threads=threads
        )
    except BaseException:
        archive.close()
        raise


def _count_threads() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_THREADS, usable)


def _decode_slice(archive: Archive, stack: Stack, source: int, target: Picture) -> None:
    """Decode one slice into ``target``, ``(Y, X)`` in canonical order."""
    item = stack.slices[source]
    if stack.axes.as_stored:
        read_hu(archive, item, target)
        return
    rows, columns = target.shape[::-1] if stack.axes.transposed else target.shape
    stored = np.empty((rows, columns), np.float32)
    read_hu(archive, item, stored)
    target[:] = stack.axes.turn(stored)


def _note_others(catalogue: Catalogue, chosen: Series, ledger: Ledger) -> None:
    others = len(catalogue.series) - 1
    if others:
        ledger.accept("other-series", "other series beside the one that is read: left out", count=others)
    if catalogue.others:
        ledger.accept("other-files", "files that are not DICOM: left out", count=catalogue.others)
    if len({part.study_uid for part in chosen.parts}) > 1:
        raise ledger.refuse(
            "several-studies",
            "the series has files of several studies; export it again",
            code="several-series",
        )


def _note_position(chosen: Series, ledger: Ledger) -> None:
    """How the patient lay; the directions of the slices already hold it (PS3.3, C.7.3.1.1.2)."""
    positions = {part.patient_position for part in chosen.parts if part.slices}
    if any(position.startswith("FF") for position in positions):
        ledger.accept("feet-first", "the patient went in feet first: directions are the patient's own")
    for end, name in (("P", "prone"), ("DL", "on the left side"), ("DR", "on the right side")):
        if any(position.endswith(end) for position in positions):
            ledger.accept(
                "prone" if end == "P" else "decubitus",
                f"the patient lay {name}: directions are the patient's own",
            )
