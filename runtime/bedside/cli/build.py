"""``bedside build``: engines built ahead, for GPUs that need not be here."""

# ruff: noqa: PLC0415 - see bedside.cli

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bedside.cli.console import emit, field, printable
from bedside.cli.engine import precision_option
from bedside.cli.quantities import size

if TYPE_CHECKING:
    from bedside.backends.base import Progress
    from bedside.backends.tensorrt.enginefile import Header

BUILDERS: Final = ("tensorrt-rtx", "tensorrt")
"""Backends that build engines."""
_CAPABILITY: Final = re.compile(r"\d{1,2}\.\d")
_TILE: Final = re.compile(r"\d{1,4}(x\d{1,4}){1,2}")
_SHOWN: Final = 12
"""Kinds of layers that are listed."""


def _capabilities(_ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """``8.6,8.9``, as each of them."""
    parts = () if value is None else tuple(dict.fromkeys(part.strip() for part in value.split(",")))
    for part in parts:
        if not _CAPABILITY.fullmatch(part):
            raise click.BadParameter(f"{part!r} is no compute capability; give it as 8.6", param=param)
    return parts


def _tile(_ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """``256x256``, as its sides."""
    if value is not None and not _TILE.fullmatch(value):
        raise click.BadParameter(f"{value!r} is no tile; give it as 256x256", param=param)
    return None if value is None else tuple(map(int, value.split("x")))


@click.command(short_help="Build TensorRT engines ahead, also for GPUs that are not here.")
@click.argument("bundle")
@click.option(
    "--backend", type=click.Choice(BUILDERS), default=BUILDERS[0], show_default=True, help="What builds it."
)
@click.option(
    "--capability",
    "capabilities",
    callback=_capabilities,
    metavar="N.N,...",
    help="Compute capabilities of the GPUs, an engine each.  [default: the GPU that is here]",
)
@precision_option("fp32")
@click.option(
    "--batch",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    metavar="N",
    help="Most pictures or tiles at once.",
)
@click.option(
    "--tile", callback=_tile, metavar="HxW", help="Of a CT bundle: the tile.  [default: the bundle's]"
)
@click.option(
    "--workspace", callback=size, metavar="SIZE", help="Most scratch memory of a layer on the GPU, e.g. 1GiB."
)
@click.option(
    "--dla",
    type=click.IntRange(min=0),
    metavar="CORE",
    help="Of a Jetson: its deep learning accelerator; the GPU runs what that can't.",
)
@click.option("--version-compatible", is_flag=True, help="Let later versions of TensorRT run it too.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="Where the engines go; --cache names it where they run.",
)
@click.option("--inspect", is_flag=True, help="Also tell its layers and in which precision they compute.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object an engine.")
def build(  # noqa: PLR0913 - click hands over each option
    *,
    bundle: str,
    backend: str,
    capabilities: tuple[str, ...],
    precision: str,
    batch: int,
    tile: tuple[int, ...] | None,
    workspace: int | None,
    dla: int | None,
    version_compatible: bool,
    out: Path,
    inspect: bool,
    as_json: bool,
) -> None:
    """Build engines of BUNDLE with TensorRT, and write them with what they are for into FOLDER.

    BUNDLE is a bundle's folder, zip file or name. tensorrt-rtx builds for any GPU that it knows, also where there is
    none; tensorrt builds on the device. An engine whose answers were not compared with the reference is not yet fit:
    bedside verify or bedside tune does that on the device. Not for clinical use.
    """
    import json
    from dataclasses import asdict

    from bedside.backends import Tuning, import_leaf
    from bedside.backends.tensorrt.ahead import Order, build_ahead
    from bedside.bundle import Bundle

    opened = Bundle.open(bundle)
    library = import_leaf(backend).LIBRARY
    targets: list[tuple[str, ...]] = [(each,) for each in capabilities]
    for target in targets or [()]:
        with _progress(shown=sys.stderr.isatty()) as progress:
            tuning = Tuning(batch=batch, tile=tile, workspace_bytes=workspace, dla=dla, progress=progress)
            order = Order(precision, target, tuning, version_compatible)
            product = build_ahead(library, opened, order, out)
        if as_json:
            emit(
                json.dumps({"file": str(product.path), "seconds": product.seconds, **asdict(product.header)})
            )
            continue
        emit(f"{printable(product.path.name)}: built in {product.seconds:.1f} s")
        for label, value in _describe(product.header, inspect=inspect):
            emit(field(label, value))


def _describe(header: Header, *, inspect: bool) -> Iterator[tuple[str, str]]:
    recipe = header.recipe
    yield "bundle", f"{header.name} {header.bundle_version}, {recipe.precision}, sha256 {header.bundle[:12]}"
    site = header.site
    if site is None:
        yield (
            "for",
            f"compute capability {', '.join(recipe.capabilities)}, by {header.backend} {header.version}",
        )
    else:
        yield (
            "for",
            f"{site.device} ({site.capability}) with {site.driver}, by {header.backend} {header.version}",
        )
    for profile in recipe.profiles:
        bounds = (profile.smallest, profile.usual, profile.largest)
        least, usual, most = (" x ".join(map(str, bound)) for bound in bounds)
        yield "takes", f"{least} to {most}, tuned for {usual}"
    if recipe.dla is not None:
        yield "DLA", f"core {recipe.dla}; the GPU runs what it can't"
    yield "size", f"{header.bytes / 1e6:.1f} MB"
    if not inspect:
        return
    for binding in header.inspection.bindings:
        shape = " x ".join("?" if side < 0 else str(side) for side in binding.shape)
        yield binding.mode, f"{binding.name} {binding.dtype} {shape}"
    layers = header.inspection.layers
    if not layers:
        yield "layers", "TensorRT did not list them"
        return
    told = ", ".join(f"{count} give {kind}" for kind, count in header.inspection.precisions().items())
    yield "layers", f"{len(layers)} in all profiles: {told}"
    kinds: dict[str, int] = {}
    for layer in layers:
        kinds[layer.kind] = kinds.get(layer.kind, 0) + 1
    listed = sorted(kinds.items(), key=lambda each: -each[1])[:_SHOWN]
    yield "kinds", ", ".join(f"{count} {kind}" for kind, count in listed)


@contextmanager
def _progress(*, shown: bool) -> Iterator[Progress | None]:
    """A line on the terminal that tells the phase of the build."""
    if not shown:
        yield None
        return
    from tqdm import tqdm

    with tqdm(leave=False, bar_format="{desc} {n_fmt}/{total_fmt} {elapsed}") as bar:

        def step(phase: str, done: int, total: int) -> None:
            bar.set_description_str(phase, refresh=False)
            bar.total, bar.n = total, done
            bar.update(0)

        yield step
