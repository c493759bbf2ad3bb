"""All that makes a bundle, into one folder or zip file; or, if an engine disagrees with PyTorch, into none.

    write_bundle      severity network -> ONNX, golden vectors, parity check, bundle
    assemble_bundle   the same from a model file that is there already
    publish           files of either task, once a check has passed
    publish_files     the same of any manifest

The same inputs give the same bytes, on one machine with one set of packages and number of threads.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from torch import nn

from bedside.bundle import MANIFEST, Bundle
from bedside.disk import OUTPUT, told
from bedside.errors import OutputError
from bedside.manifest import Manifest
from bedside_export.draft import (
    INPUTS_FILE,
    LICENCE_FILE,
    MODEL_FILE,
    OUTPUTS_FILE,
    PARITY_FILE,
    TOLERANCES,
    Draft,
    make_manifest,
    texts,
)
from bedside_export.onnx import to_onnx
from bedside_export.parity import Answers, Parity, answer, check_parity

__all__ = [
    "LICENCE_FILE",
    "TOLERANCES",
    "Draft",
    "assemble_bundle",
    "check_free",
    "disk_errors",
    "npy",
    "npz",
    "publish",
    "publish_files",
    "write_bundle",
]

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can hold: bundles carry no dates."""
_BUNDLE: Final = OUTPUT._replace(trouble="the bundle can't be written")


MODEL_SUFFIX: Final = ".onnx"


class Report(Protocol):
    """What came of trying a bundle."""

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        ...

    def require(self) -> None:
        """Raise ParityError where it does not pass."""
        ...


ReportT = TypeVar("ReportT", bound=Report)


def write_bundle(
    draft: Draft, network: nn.Module, images: npt.NDArray[np.float32], *, out: Path, force: bool = False
) -> Parity:
    """Export a network and write its bundle.

    Args:
        draft: What the bundle is to say.
        network: Takes ``(N, C, H, W)`` and returns a tensor for each of the draft's outputs, in order.
        images: Golden pictures, ``(N, C, H, W)`` float32; no patient's.
        out: The folder to write, or a file whose name ends in ``.zip``.
        force: Replace a bundle that is there.

    Returns:
        The parity report, which every fp32 engine here has passed.

    Raises:
        ExportError: The network can't be exported, or answers NaN or infinity.
        ParityError: An fp32 engine disagrees; nothing is left at ``out``.
        OutputError: ``output-exists``, ``output-not-writable`` or ``disk-full``.
        MissingExtraError: ONNX Runtime is not installed.
    """
    check_free(out, force=force)
    names = tuple(output.name for output in draft.outputs)
    reference = answer(network, images, names)
    return assemble_bundle(
        draft, to_onnx(network, draft.input, names), (images, reference), out=out, force=force
    )


def assemble_bundle(
    draft: Draft,
    model: bytes,
    golden: tuple[npt.NDArray[np.float32], Answers],
    *,
    out: Path,
    force: bool = False,
) -> Parity:
    """Write a bundle from an ONNX file and PyTorch's answers; as `write_bundle` otherwise.

    Args:
        draft: What the bundle is to say.
        model: The ONNX file.
        golden: Golden pictures, and PyTorch's answers to them.
        out: The folder or ``.zip`` file to write.
        force: Replace a bundle that is there.
    """
    check_free(out, force=force)
    images, reference = golden
    files = {
        MODEL_FILE: model,
        **texts(draft),
        PARITY_FILE: b"{}\n",
        INPUTS_FILE: npy(images),
        OUTPUTS_FILE: npz(reference),
    }
    return publish(draft, files, lambda bundle: check_parity(bundle, images, reference), out=out)


def publish(
    draft: Draft, files: Mapping[str, bytes], check: Callable[[Bundle], ReportT], *, out: Path
) -> ReportT:
    """Write the files and the manifest, try the bundle, and put it in its place with the report of the trial.

    Args:
        draft: What the bundle is to say.
        files: Name -> content of every file that it lists; the parity report is replaced.
        check: Tries the opened bundle.
        out: The folder or ``.zip`` file to write, which `check_free` has found free.

    Returns:
        What ``check`` reported, which is in the bundle.

    Raises:
        ParityError: The report does not pass; nothing is left at ``out``.
        OutputError: As `write_bundle`.
    """
    return publish_files(partial(make_manifest, draft), files, check, out=out)


def publish_files(
    describe: Callable[[Mapping[str, bytes]], Manifest],
    files: Mapping[str, bytes],
    check: Callable[[Bundle], ReportT],
    *,
    out: Path,
    parity: str = PARITY_FILE,
) -> ReportT:
    """The same where the manifest is made of the files by ``describe``; ``parity`` is the report's file."""
    with _staging(out) as stage:
        folder = stage / "bundle"
        _write_folder(folder, describe, files)
        report = check(Bundle.open(folder))
        report.require()
        _write_folder(folder, describe, {**files, parity: _json(report.to_json())})
        Bundle.open(folder)
        _place(folder, out, stage)
    return report


def check_free(out: Path, *, force: bool) -> None:
    """Refuse to write over what is there, and with ``force`` over anything but a bundle."""
    if not out.absolute().parent.is_dir():
        raise OutputError(
            "output-not-writable", "the folder to write the bundle in does not exist; make it first"
        )
    if not out.exists() and not out.is_symlink():
        return
    if not force:
        raise OutputError(
            "output-exists", "there is something at the output already; choose another, or add --force"
        )
    replaceable = out.is_file() if _is_zip(out) else (out / MANIFEST).is_file()
    if out.is_symlink() or not replaceable:
        raise OutputError(
            "output-exists", "what is at the output is no bundle and is not replaced; choose another"
        )


def _is_zip(out: Path) -> bool:
    return out.suffix.lower() == ".zip"


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A hidden folder beside ``out``, gone afterwards; I/O errors inside become `OutputError`."""
    with disk_errors():
        stage = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.absolute().parent))
        try:
            yield stage
        finally:
            shutil.rmtree(stage)


def disk_errors() -> AbstractContextManager[None]:
    """I/O errors inside become `OutputError`."""
    return told(_BUNDLE)


def _write_folder(
    folder: Path, describe: Callable[[Mapping[str, bytes]], Manifest], files: Mapping[str, bytes]
) -> None:
    """Write the files, flushed to the disk, and the manifest that lists them last."""
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        _write(folder / name, data)
    _write(folder / MANIFEST, _json(asdict(describe(files))))
    _sync(folder)


def _place(folder: Path, out: Path, stage: Path) -> None:
    """Put the finished bundle where it belongs, in one step."""
    if _is_zip(out):
        packed = stage / "bundle.zip"
        _zip(folder, packed)
        packed.replace(out)
    else:
        if out.exists():
            out.rename(stage / "replaced")
        folder.rename(out)
    _sync(out.absolute().parent)


def _zip(folder: Path, packed: Path) -> None:
    """Pack a folder; the model is stored as it is, since weights don't compress."""
    with packed.open("wb") as file:
        with zipfile.ZipFile(file, "w") as archive:
            for path in sorted(folder.iterdir()):
                entry = zipfile.ZipInfo(path.name, _EPOCH)
                entry.external_attr = 0o100644 << 16
                entry.create_system = 3  # Unix, wherever it is made
                entry.compress_type = (
                    zipfile.ZIP_STORED if path.suffix == MODEL_SUFFIX else zipfile.ZIP_DEFLATED
                )
                archive.writestr(entry, path.read_bytes())
        file.flush()
        os.fsync(file.fileno())


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder can't be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def npy(array: npt.NDArray[Any]) -> bytes:
    """An array as a ``.npy`` file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def npz(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Arrays as a compressed ``.npz`` file."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
