"""A network that segments slices becomes a bundle, if the engines answer as PyTorch does.

Request      what the exporting person asks for
export_ct    network, weights, test slices, ONNX, parity, bundle
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch

from bedside.bundle import Bundle
from bedside.contract import Input, Output, Tiling, Tissue
from bedside.ct import normalise
from bedside_export.ct_card import ct_card, ct_terms
from bedside_export.ct_checkpoint import fill, settle
from bedside_export.ct_golden import SOURCE, phantom_tiles
from bedside_export.ct_models import SliceNetwork, TissueNetwork, build_network
from bedside_export.ct_parity import TOLERANCES, Reference, ask_reference, check_tissues
from bedside_export.ct_rules import Window, input_rule
from bedside_export.ct_skip import measure_skip
from bedside_export.draft import INPUTS_FILE, MODEL_FILE, OUTPUTS_FILE, PARITY_FILE, texts
from bedside_export.errors import ExportError
from bedside_export.onnx import to_onnx
from bedside_export.severity import Naming
from bedside_export.tissue_report import TissueParity
from bedside_export.weights import read_weights
from bedside_export.writer import Draft, check_free, npy, npz, publish

__all__ = ["Request", "draft_ct", "export_ct", "write_ct_bundle"]

GOLDEN_TILES: Final = 4
"""Tiles that go into the bundle; parity is taken over all of `bedside_export.ct_golden`."""
GOLDEN_SIDE: Final = 256
"""Largest side of those where sides are dynamic: their middle, so that a bundle stays small."""
OUTPUT: Final = "tissues"
"""Name and meaning of the graph's output."""
_RANDOM: Final = re.compile(r"random:(\d{1,9})")
_RANDOM_TEXT: Final = "**the weights are random, and nothing that it says of a CT means anything**"
_SETTLING_SIDE: Final = 128
"""Largest side of the tiles that random weights are settled on."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the exporting person asks for."""

    arch: str
    """As `bedside_export.ct_models.build_network` takes it."""
    checkpoint: str
    """A file, or ``random:SEED`` for trials."""
    tissues: tuple[Tissue, ...]
    """The classes, in the order of the network's channels."""
    window: Window
    """The input rule."""
    tile: tuple[int, int] = (512, 512)
    """``(H, W)``."""
    overlap: float = 0.25
    """Least share of a tile that neighbours have in common."""
    context: int = 0
    """Neighbouring slices to each side that go in as channels."""
    context_mm: float = 0.0
    """As `bedside.contract.Tiling.context_mm`."""
    spacing_mm: tuple[float, float] | None = None
    """``(y, x)``; None where the network takes a scan's own."""
    tile_weights: str = "gaussian"
    """How overlapping tiles are weighted."""
    skip: str = "constant"
    """Which tiles are left out."""
    prefix: str | None = None
    """In front of the network's names in the checkpoint; None to find it."""
    multiple: int | None = None
    """What sides of a tile have to be multiples of; None for what the network says."""
    fixed: bool = False
    """Make the graph for one size of tile, even where the network allows others."""
    naming: Naming = field(default_factory=Naming)
    """Name, version and terms."""

    @property
    def random(self) -> bool:
        """Whether the weights are random."""
        return _RANDOM.fullmatch(self.checkpoint) is not None


def export_ct(
    request: Request, *, out: Path, force: bool = False, say: Callable[[str], None] = lambda _: None
) -> TissueParity:
    """Export a network and write its bundle.

    Args:
        request: What is asked for.
        out: The folder to write, or a file whose name ends in ``.zip``.
        force: Replace a bundle that is there.
        say: Called with a line on what is being done.

    Returns:
        The parity report, which the reference engine has passed.

    Raises:
        ExportError: The network, its weights or its tile can't be exported.
        ParityError: ONNX Runtime in fp32 disagrees with PyTorch; nothing is left at ``out``.
        OutputError: ``output-exists``, ``output-not-writable`` or ``disk-full``.
        MissingExtraError: A package is not installed.
    """
    check_free(out, force=force)
    say("loading the network and its weights")
    found = load_network(request, say)
    _check_tile(request.tile, found)
    fixed = request.fixed or found.fixed
    spec = input_rule(
        request.window,
        channels=2 * request.context + 1,
        tile=request.tile if fixed else None,
        spacing_mm=request.spacing_mm,
    )
    draft = draft_ct(request, found, spec)
    return write_ct_bundle(draft, TissueNetwork(found.network), out=out, force=force, say=say)


def load_network(request: Request, say: Callable[[str], None] = lambda _: None) -> SliceNetwork:
    """The network with its weights.

    Raises:
        ExportError: There is no such network, or the checkpoint is not its.
    """
    channels, classes = 2 * request.context + 1, len(request.tissues)
    random = _RANDOM.fullmatch(request.checkpoint)
    tensors = {}
    if random:
        torch.manual_seed(int(random[1]))
    else:
        path = Path(request.checkpoint)
        if not path.is_file():
            raise ExportError("no checkpoint: neither a file nor random:SEED; check its path")
        tensors = read_weights(path)
    found = build_network(
        request.arch, channels=channels, classes=classes, multiple=request.multiple, keys=tensors.keys()
    )
    if random:
        side = tuple(min(side, _whole(_SETTLING_SIDE, found.multiple)) for side in request.tile)
        tiles = phantom_tiles((side[0], side[1]), spacing_mm=_coarser(request, side[1]), channels=channels)
        spec = input_rule(request.window, channels=channels, tile=None, spacing_mm=None)
        images = torch.from_numpy(normalise(tiles.hu, spec))
        settle(found.network, images, torch.from_numpy(tiles.labels(request.tissues)))
        return found
    others = fill(found.network, tensors, prefix=request.prefix)
    if others:
        say(f"note: {len(others)} tensors of the checkpoint belong to something else, e.g. {others[0][:80]}")
    return found


def _coarser(request: Request, columns: int) -> tuple[float, float]:
    """Spacing at which a tile for settling shows what a tile of the bundle shows."""
    spacing = request.spacing_mm or (0.7, 0.7)
    factor = request.tile[1] / columns
    return spacing[0] * factor, spacing[1] * factor


def draft_ct(request: Request, found: SliceNetwork, spec: Input) -> Draft:
    """Everything that the bundle says, but for what only its writing can tell."""
    random = request.random
    name = request.naming.name or f"ct-opacity-{_slug(request.arch)}{'-random' if random else ''}"
    title = "Lung and pulmonary opacities on chest CT, slice by slice"
    licence, text = ct_terms(request.naming, random=random)
    tiling = Tiling(
        size=request.tile,
        overlap=request.overlap,
        weights=request.tile_weights,
        multiple=found.multiple,
        smallest=2 * found.multiple,
        context=request.context,
        context_mm=request.context_mm,
        skip=request.skip,
    )
    return Draft(
        name=name,
        version=request.naming.version,
        title=f"{title} (random weights: for tests only)" if random else title,
        licence=licence,
        licence_text=text,
        card=ct_card(
            f"{name} {request.naming.version}",
            f"{found.text}; {_RANDOM_TEXT if random else 'weights from a checkpoint'}",
            spec=spec,
            tiling=tiling,
            tissues=request.tissues,
            licence=licence,
        ),
        input=spec,
        outputs=(Output(OUTPUT, OUTPUT, tuple(tissue.name for tissue in request.tissues)),),
        scores=(),
        task="ct-opacity",
        golden_source=SOURCE,
        tolerances={precision: dict(TOLERANCES[precision]) for precision in ("fp32", "bf16", "fp16")},
        tiling=tiling,
        tissues=request.tissues,
    )


def write_ct_bundle(
    draft: Draft,
    network: torch.nn.Module,
    *,
    out: Path,
    force: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> TissueParity:
    """Export a network of slices as the draft says, try it, and write its bundle; as `export_ct` otherwise.

    Args:
        draft: What the bundle is to say; with tiling and tissues.
        network: ``(N, C, H, W)`` -> probabilities ``(N, K, H, W)``; in eval mode.
        out: The folder or ``.zip`` file to write.
        force: Replace a bundle that is there.
        say: Called with a line on what is being done.
    """
    check_free(out, force=force)
    tiling, spec = draft.tiling, draft.input
    if tiling is None or len(tiling.size) != 2:
        raise ExportError("only networks of slices can be exported; give a tile of two sides")
    size = (tiling.size[0], tiling.size[1])
    dynamic = spec.shape[2] is None
    say("asking PyTorch about slices of the phantom")
    channels = int(spec.shape[1] or 1)
    tiles = phantom_tiles(size, spacing_mm=spec.spacing_mm, channels=channels)
    other = (tiling.smallest, tiling.smallest + tiling.multiple) if dynamic else None
    images = normalise(tiles.hu, spec)
    reference = ask_reference(network, images, voxel_ml=tiles.voxel_ml, other=other)
    if reference.probabilities.shape[1] != len(draft.tissues):
        raise ExportError(
            f"the network answers with {reference.probabilities.shape[1]} channels and {len(draft.tissues)} tissues "
            "are named; give its own table"
        )
    say("exporting to ONNX")
    names = tuple(output.name for output in draft.outputs)
    model = _to_onnx(network, spec, names, tiling)
    golden = _shrink(network, reference, size, tiling.multiple) if dynamic else reference
    files = {
        MODEL_FILE: model,
        **texts(draft),
        PARITY_FILE: b"{}\n",
        INPUTS_FILE: npy(golden.images[:GOLDEN_TILES]),
        OUTPUTS_FILE: npz(
            {"labels": golden.labels[:GOLDEN_TILES], "expected": golden.expected[:GOLDEN_TILES]}
        ),
    }
    say("comparing every engine with PyTorch")
    return publish(draft, files, lambda bundle: _check(bundle, reference), out=out)


def _to_onnx(network: torch.nn.Module, spec: Input, names: tuple[str, ...], tiling: Tiling) -> bytes:
    size = (tiling.size[0], tiling.size[1])
    try:
        return to_onnx(network, spec, names, tile=size, multiple=tiling.multiple)
    except ExportError as error:
        if spec.shape[2] is not None:
            raise
        raise ExportError(f"{error}; a graph for one size of tile may work: try --fixed") from error


def _check(bundle: Bundle, reference: Reference) -> TissueParity:
    parity = check_tissues(bundle, reference)
    tiling = bundle.manifest.tiling
    if tiling is None or tiling.skip != "body" or parity.engines[0].status != "passed":
        return parity
    return replace(parity, skip=measure_skip(bundle))


def _shrink(
    network: torch.nn.Module, reference: Reference, size: tuple[int, int], multiple: int
) -> Reference:
    """The golden tiles as their middle: as many voxels of tissue as matter, and a bundle that stays small."""
    sides = [min(side, _whole(GOLDEN_SIDE, multiple)) for side in size]
    if sides == list(size):
        return reference
    rows, columns = (
        slice((whole - side) // 2, (whole + side) // 2) for whole, side in zip(size, sides, strict=True)
    )
    images = np.ascontiguousarray(reference.images[:GOLDEN_TILES, :, rows, columns])
    return ask_reference(network, images, voxel_ml=reference.voxel_ml)


def _check_tile(tile: tuple[int, int], found: SliceNetwork) -> None:
    multiple = found.multiple
    for side in tile:
        if side % multiple or side < 2 * multiple:
            lower = max(2 * multiple, side // multiple * multiple)
            raise ExportError(
                f"a tile of side {side} does not fit {found.arch[:60]}: sides must be multiples of {multiple}, at "
                f"least {2 * multiple}; take e.g. {lower} or {lower + multiple}"
            )


def _whole(side: int, multiple: int) -> int:
    """``side`` as a multiple, at least two of them."""
    return max(2, side // multiple) * multiple


def _slug(arch: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", arch.lower()).strip("-")[:40]
