"""A bundle under trial, and engines that run it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from bedside.backends import Backend, open_backend
from bedside.bundle import MANIFEST, Bundle
from bedside.contract import RUNS, Stored
from bedside.manifest import Manifest

__all__ = ["ENGINES", "MODEL_FILES", "Contents", "open_engine", "stage"]

ENGINES: Final = (
    ("onnxruntime", "fp32"),
    ("onnxruntime", "fp16"),
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "fp16"),
    ("openvino", "int8"),
    ("openvino", "int8-bf16"),
    ("openvino", "int8-fp16"),
)
"""Backend and precision of all that is tried at export; engines that need another device are qualified there."""
MODEL_FILES: Final[Mapping[str, str]] = {"fp16": "model-fp16.onnx", "int8": "model-int8.onnx"}
"""Precision -> name of its file in a bundle."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a bundle is to hold."""

    manifest: Manifest
    """As it stands but for the sizes and hashes of the files, which `sealed` gives."""
    files: Mapping[str, bytes]
    """Name -> content of each file, without the manifest's own."""

    @classmethod
    def of(cls, bundle: Bundle) -> Contents:
        """What a bundle holds."""
        return cls(bundle.manifest, {name: bundle.read(name) for name in bundle.manifest.files})

    def sealed(self) -> Manifest:
        """The manifest, with the size and hash of each file.

        Raises:
            BundleError: ``bundle-broken`` if no manifest can say that.
        """
        return replace(self.manifest, files=_store(self.files))

    def with_model(self, precision: str, data: bytes) -> Contents:
        """With the file of a precision."""
        name = self.manifest.models.get(precision, MODEL_FILES[precision])
        files = {**self.files, name: data}
        models = {**self.manifest.models, precision: name}
        return Contents(replace(self.manifest, models=models, files=_store(files)), files)

    def without_model(self, precision: str) -> Contents:
        """Without it, and without what the manifest says of it."""
        models = dict(self.manifest.models)
        name = models.pop(precision, None)
        files = {key: data for key, data in self.files.items() if key != name or key in models.values()}
        gone = {run for run, file in RUNS.items() if file == precision and run != "bf16"}
        tolerances = {key: value for key, value in self.manifest.tolerances.items() if key not in gone}
        nodes = {key: value for key, value in self.manifest.float32_nodes.items() if key not in gone}
        manifest = replace(
            self.manifest, models=models, tolerances=tolerances, float32_nodes=nodes, files=_store(files)
        )
        return Contents(manifest, files)

    def with_nodes(self, precision: str, nodes: tuple[str, ...]) -> Contents:
        """With the nodes that stay float32 at a precision."""
        others = {key: value for key, value in self.manifest.float32_nodes.items() if key != precision}
        kept = {**others, precision: nodes} if nodes else others
        return replace(self, manifest=replace(self.manifest, float32_nodes=kept))


def stage(contents: Contents, folder: Path) -> Bundle:
    """Write a bundle into an empty or earlier trial's folder, and open it."""
    manifest = contents.sealed()
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name not in contents.files:
            path.unlink()
    for name, data in contents.files.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != data:
            path.write_bytes(data)
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest)), encoding="utf-8")
    return Bundle.open(folder)


@contextmanager
def open_engine(bundle: Bundle, backend: str, precision: str) -> Iterator[Backend]:
    """An engine that holds the bundle's model, closed afterwards.

    Raises:
        MissingExtraError: It is not installed.
        BackendError: It can't run that here.
    """
    with closing(open_backend(backend, bundle, precision=precision)) as engine:
        yield engine


def _store(files: Mapping[str, bytes]) -> dict[str, Stored]:
    return {name: Stored(len(data), hashlib.sha256(data).hexdigest()) for name, data in sorted(files.items())}
