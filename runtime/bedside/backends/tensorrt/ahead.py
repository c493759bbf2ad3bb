"""Build an engine ahead, for GPUs that need not be here, and look at what was built."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path

from bedside.backends.base import Tuning
from bedside.backends.tensorrt.building import Built, build_plan
from bedside.backends.tensorrt.cuda import Cuda, load_runtime
from bedside.backends.tensorrt.enginefile import SCHEMA, Header, Site, pack, unpack
from bedside.backends.tensorrt.library import Library
from bedside.backends.tensorrt.recipe import Recipe, list_profiles
from bedside.backends.tensorrt.site import find_site
from bedside.backends.tensorrt.store import Store
from bedside.bundle import Bundle
from bedside.errors import BackendError

__all__ = ["Order", "Product", "build_ahead", "make_header", "read_engine"]


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be built."""

    precision: str = "fp32"
    """One of `bedside.backends.tensorrt.recipe.PRECISIONS`."""
    capabilities: tuple[str, ...] = ()
    """Compute capabilities, e.g. ``8.6``; empty for the GPU that is here."""
    tuning: Tuning = field(default_factory=Tuning)
    """Batch, tile, workspace, DLA, and whom to tell of the steps; `Tuning.cache` is not used."""
    version_compatible: bool = False
    """Whether later versions of TensorRT of the same major number may run it."""


@dataclass(frozen=True, slots=True)
class Product:
    """What was built."""

    path: Path
    """Its file."""
    header: Header
    """What that says of it."""
    seconds: float
    """What the build took."""


def build_ahead(library: Library, bundle: Bundle, order: Order, folder: Path) -> Product:
    """Build an engine into a folder, which `bedside.backends.Tuning.cache` can then name where it is to run.

    Args:
        library: The package that builds it.
        bundle: The bundle.
        order: What is to be built.
        folder: Where its file goes; made if it is not there.

    Returns:
        The file, and what it says of the engine.

    Raises:
        BackendError: As `bedside.backends.tensorrt.building.build_plan`; ``engine-unsupported`` also where no compute
            capability is given and there is no GPU here.
        OutputError: ``cache-not-writable``; ``disk-full``.
    """
    tuning = order.tuning
    site = None if order.capabilities else _site_here(library)
    capabilities = order.capabilities
    if site is not None and library.rtx:
        capabilities = (site.capability,)
    recipe = Recipe(
        order.precision,
        list_profiles(bundle.manifest, tuning),
        tuple(dict.fromkeys(capabilities)),
        workspace_bytes=tuning.workspace_bytes,
        dla=tuning.dla,
        version_compatible=order.version_compatible,
    )
    store = Store(folder)
    store.prepare()
    begun = time.monotonic()
    built = build_plan(library, bundle, recipe, progress=tuning.progress)
    seconds = time.monotonic() - begun
    header = make_header(library, bundle, recipe, built, site)
    return Product(store.save(header, pack(header, built.plan)), header, seconds)


def read_engine(path: Path) -> Header:
    """What an engine's file says of it, after all of it was checked.

    Raises:
        BackendError: ``engine-foreign`` if it can't be read, is altered, or is no engine of bedside.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BackendError(
            "engine-foreign", "the engine can't be read; give the file of a built engine"
        ) from error
    return unpack(data, None)[0]


def make_header(library: Library, bundle: Bundle, recipe: Recipe, built: Built, site: Site | None) -> Header:
    """What the file of a built engine says of it."""
    return Header(
        schema=SCHEMA,
        bundle=bundle.digest,
        name=bundle.manifest.name,
        bundle_version=bundle.manifest.version,
        backend=library.backend,
        version=library.version,
        recipe=recipe,
        site=site,
        gpu_fallback=recipe.dla is not None,
        inspection=built.inspection,
        bytes=len(built.plan),
        sha256=hashlib.sha256(built.plan).hexdigest(),
    )


def _site_here(library: Library) -> Site:
    try:
        return find_site(Cuda(load_runtime(library.extra)))
    except BackendError as error:
        if library.rtx and error.code == "engine-unsupported":
            known = ", ".join(library.capabilities())
            raise BackendError(
                "engine-unsupported",
                f"there is no NVIDIA GPU here to build for; say for which compute capability, of {known}",
            ) from error
        raise
