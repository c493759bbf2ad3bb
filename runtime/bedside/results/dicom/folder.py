"""The folder of DICOM results: each object whole or not at all, a study's report last, and nothing replaced unasked."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Final

from bedside.disk import told
from bedside.errors import OutputError
from bedside.results.files import atomic, prepare_folder, sync_folder

__all__ = ["FILES", "ResultFolder"]

FILES: Final = MappingProxyType(
    {
        "heatmap": "-heatmap.dcm",
        "map": "-map.dcm",
        "segmentation": "-seg.dcm",
        "labelmap": "-labelmap.dcm",
        "montage": "-montage.dcm",
        "report": "-report.dcm",
    }
)
"""Kind of object -> how its file's name ends. The report comes last: where it is, all is."""


class ResultFolder:
    """Where DICOM results are written.

    Args:
        path: Made if it is not there.
        replace: Whether the results of an earlier run may be replaced.

    Raises:
        OutputError: ``output-not-writable``; ``disk-full``.
    """

    def __init__(self, path: str | os.PathLike[str], *, replace: bool = False) -> None:
        self._path: Path = prepare_folder(path)
        self._replace = replace
        self.written = 0
        """Files that were written."""

    def claim(self, stem: str) -> None:
        """Make sure that an input's results may be written, before it costs anything.

        Raises:
            OutputError: ``output-exists``.
        """
        if not self._replace and any((self._path / (stem + end)).exists() for end in FILES.values()):
            raise OutputError(
                "output-exists",
                "an input's DICOM results are there already; give --overwrite to replace them, or another folder",
            )

    def write(self, stem: str, objects: dict[str, Iterable[bytes]]) -> dict[str, str]:
        """Write what came of one input, and remove what an earlier run left of it.

        If anything fails, none of it stays.

        Args:
            stem: What the names begin with.
            objects: Kind -> the file, in pieces.

        Returns:
            Kind -> file name.

        Raises:
            OutputError: ``disk-full``; ``output-not-writable``; ``output-exists``.
        """
        self.claim(stem)
        names = {kind: stem + FILES[kind] for kind in FILES if kind in objects}
        with told():
            (self._path / (stem + FILES["report"])).unlink(missing_ok=True)  # it would speak of the others
            for kind in FILES.keys() - names.keys():
                (self._path / (stem + FILES[kind])).unlink(missing_ok=True)
            sync_folder(self._path)
        with ExitStack() as undo:
            for kind, name in names.items():
                with atomic(self._path / name) as stream:
                    for piece in objects[kind]:
                        stream.write(piece)
                undo.callback((self._path / name).unlink, missing_ok=True)
            undo.pop_all()
        self.written += len(names)
        return names
