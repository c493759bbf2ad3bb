"""An opened bundle: every file checked against its hash.

A bundle is a flat directory, or one zip file of it, with ``bundle.json`` and the files that it lists. Whatever
a result depends on stands in it. `Bundle.open` checks every file against its sha256 before an engine sees a
byte, and `Bundle.read` checks again the very bytes that it returns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bedside.contract import RUNS
from bedside.errors import BundleError
from bedside.manifest import (
    MANIFEST,
    SCHEMA,
    Golden,
    Input,
    Interval,
    Licence,
    Manifest,
    Output,
    Score,
    Stored,
    read_manifest,
)
from bedside.onnxfile import OnnxFile, TensorInfo, read_onnx
from bedside.storage import Storage, open_storage

__all__ = [
    "MANIFEST",
    "SCHEMA",
    "Bundle",
    "Golden",
    "Input",
    "Interval",
    "Licence",
    "Manifest",
    "Output",
    "Score",
    "Stored",
    "built_in",
]

MAX_MANIFEST_BYTES: Final = 1 << 20
"""A manifest is a few KiB; more is refused unread."""
_BUILT_IN: Final = Path(__file__).parent / "models"


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle, every file checked against its hash."""

    manifest: Manifest
    """What it says."""
    digest: str
    """SHA-256 of ``bundle.json``, which holds the hashes of all else: names this bundle exactly."""
    location: str
    """The folder or zip file it was opened from."""
    _storage: Storage
    _onnx: Mapping[str, OnnxFile]

    @classmethod
    def open(cls, source: str | Path) -> Bundle:
        """Open a bundle and check all of it.

        Args:
            source: A folder, a zip file, or the name of a built-in bundle.

        Returns:
            The bundle; holds no open file.

        Raises:
            BundleError: ``bundle-not-found``; ``bundle-broken`` for a malformed manifest or model;
                ``bundle-schema`` for another schema; ``bundle-altered`` where a file is missing, not listed, or
                differs; ``bundle-unsafe`` for symlinks, unsafe names, external data or over-large files.
        """
        path = _locate(source)
        storage = open_storage(path)
        if MANIFEST not in storage.sizes:
            raise BundleError(
                "bundle-broken", f"there is no {MANIFEST}; give a bundle's folder or its zip file"
            )
        if storage.sizes[MANIFEST] > MAX_MANIFEST_BYTES:
            raise BundleError("bundle-unsafe", f"{MANIFEST} is over {MAX_MANIFEST_BYTES >> 20} MiB")
        text = storage.read(MANIFEST)
        manifest = read_manifest(text)
        if unlisted := storage.sizes.keys() - manifest.files.keys() - {MANIFEST}:
            raise BundleError(
                "bundle-altered",
                f"the bundle holds {min(unlisted)!r}, which {MANIFEST} does not list; remove it",
            )
        bundle = cls(manifest, hashlib.sha256(text).hexdigest(), str(path), storage, {})
        models = set(manifest.models.values())
        onnx = {}
        for name in manifest.files:
            data = bundle.read(name)
            if name in models:
                onnx[name] = read_onnx(data)
                _check_interface(name, onnx[name], manifest)
        _check_nodes(onnx[manifest.models["fp32"]], manifest)
        return cls(manifest, bundle.digest, bundle.location, storage, onnx)

    def read(self, name: str) -> bytes:
        """The content of file ``name``, its size and sha256 checked on these very bytes.

        Raises:
            BundleError: ``bundle-altered`` if the file differs from the manifest or is not in it.
        """
        stored = self.manifest.files.get(name)
        if stored is None:
            raise BundleError("bundle-altered", f"the bundle has no file {name!r}; export it again")
        data = self._storage.read(name)
        if len(data) != stored.bytes or hashlib.sha256(data).hexdigest() != stored.sha256:
            raise BundleError(
                "bundle-altered",
                f"{name!r} is not what {MANIFEST} says ({len(data)} bytes, {stored.bytes} expected, or another "
                "sha256); copy the bundle again from where it came",
            )
        return data

    def model(self, precision: str) -> str:
        """Name of the ONNX file for ``precision``, one of `bedside.contract.RUNS`.

        Raises:
            BundleError: ``bundle-precision`` if the bundle has no such file.
        """
        wanted = RUNS.get(precision, precision)
        if wanted not in self.manifest.models:
            have = ", ".join(sorted(self.manifest.models))
            raise BundleError("bundle-precision", f"the bundle has no {precision} model; it has {have}")
        return self.manifest.models[wanted]

    def onnx(self, precision: str) -> OnnxFile:
        """Interface and operators of the model for ``precision``."""
        return self._onnx[self.model(precision)]


def built_in() -> tuple[str, ...]:
    """Names of the bundles that ship with bedside, sorted."""
    return tuple(sorted(path.parent.name for path in _BUILT_IN.glob(f"*/{MANIFEST}")))


def _locate(source: str | Path) -> Path:
    if isinstance(source, str) and source in built_in():
        return _BUILT_IN / source  # whatever lies in the working directory: ./NAME gives that
    path = Path(source)
    try:
        if path.exists():
            return path
    except OSError as error:
        raise BundleError(
            "bundle-not-found", f"the bundle can't be looked up ({error.strerror}); check it"
        ) from error
    names = ", ".join(built_in()) or "(none)"
    raise BundleError(
        "bundle-not-found",
        f"no bundle at {str(source)[:200]!r}: give a folder, a zip file, or one of: {names}",
    )


def _check_interface(name: str, onnx: OnnxFile, manifest: Manifest) -> None:
    """Refuse a model whose inputs and outputs are not those of the manifest."""
    given = [(tensor.name, tensor.dtype, tensor.shape) for tensor in onnx.inputs]
    wanted = manifest.input
    if given != [(wanted.name, "float32", wanted.shape)]:
        raise BundleError(
            "bundle-broken",
            f"{name!r} takes {str(given)[:200]} and {MANIFEST} says ({wanted.name!r}, float32, {wanted.shape}); "
            "export it again",
        )
    tensors = {tensor.name: tensor for tensor in onnx.outputs}
    for output in manifest.outputs:
        tensor = tensors.get(output.name)
        if tensor is None:
            raise BundleError("bundle-broken", f"{name!r} has no output {output.name!r}; export it again")
        if not _fits(output, tensor):
            raise BundleError(
                "bundle-broken",
                f"the output {output.name!r} of {name!r} is {tensor.dtype} {str(tensor.shape)[:100]}, which "
                f"{output.meaning} with {len(output.labels)} labels can't be; export it again",
            )


def _check_nodes(onnx: OnnxFile, manifest: Manifest) -> None:
    """Refuse a manifest that keeps a node in float32 which there is not."""
    for precision, names in manifest.float32_nodes.items():
        if missing := set(names) - onnx.nodes.keys():
            raise BundleError(
                "bundle-broken",
                f"{MANIFEST}: float32_nodes of {precision} has {min(missing)[:100]!r}, which the fp32 graph does not; "
                "export the bundle again",
            )


def _fits(output: Output, tensor: TensorInfo) -> bool:
    """Whether a graph's output can be what the manifest says of it, as far as its shape is fixed."""
    rank = 2 if output.meaning in {"severity", "pathologies", "appearance"} else 4
    channels = len(output.labels) or 1
    return tensor.dtype == "float32" and len(tensor.shape) == rank and tensor.shape[1] in (None, channels)
