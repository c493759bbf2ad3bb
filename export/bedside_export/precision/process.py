"""From a bundle on the disk, and folders of pictures, to a new bundle on the disk.

Request            what the exporting person asks for
quantise_bundle    all of it
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bedside.bundle import Bundle
from bedside.manifest import Manifest
from bedside_export.errors import ExportError, ParityError
from bedside_export.precision.material import FEWEST, Material, hash_image, read_material, split
from bedside_export.precision.report import EngineTrial
from bedside_export.precision.variants import Options, Quantised, add_precisions, check_asked
from bedside_export.precision.workbench import Contents
from bedside_export.writer import check_free, publish_files

__all__ = ["MOST", "Request", "choose_material", "quantise_bundle", "write_quantised"]

MOST: Final = 300
"""Most inputs to calibrate on, as NNCF has it by itself: more cost time and change no range that matters."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What the exporting person asks for."""

    bundle: str | Path
    """The bundle to take: a folder, a zip file, or a built-in bundle's name."""
    calibration: Path
    """Folder of pictures or scans to calibrate on, and to compare on where there is no other."""
    out: Path
    """The bundle to write."""
    options: Options
    """Which precisions, and how."""
    validation: Path | None = None
    """Folder of pictures or scans to compare on."""


def quantise_bundle(request: Request, *, force: bool = False, say: Say = lambda _: None) -> Quantised:
    """Add precisions to a bundle.

    Args:
        request: What is asked for.
        force: Replace a bundle that is there.
        say: Told what is being done.

    Raises:
        BundleError: The bundle can't be opened.
        ExportError: The precision is there already; the pictures are too few; the network can't be converted.
        ParityError: ONNX Runtime in fp32 fails; nothing is left at ``out``.
        OutputError: ``output-exists``, ``output-not-writable`` or ``disk-full``.
        MissingExtraError: ONNX Runtime or NNCF is not installed.
    """
    check_free(request.out, force=force)
    bundle = Bundle.open(request.bundle)
    check_asked(bundle.manifest, request.options)
    say("reading the pictures")
    calibration = read_material(request.calibration, bundle.manifest, say=say)
    validation = (
        None if request.validation is None else read_material(request.validation, bundle.manifest, say=say)
    )
    quantised = add_precisions(bundle, *choose_material(calibration, validation), request.options, say=say)
    write_quantised(quantised, out=request.out)
    return quantised


def choose_material(calibration: Material, validation: Material | None) -> tuple[Material, Material]:
    """What to calibrate and what to compare on: no picture in both.

    Raises:
        ExportError: There are too few.
    """
    if validation is None:
        if len(calibration) < 2 * FEWEST:
            raise _too_few(
                len(calibration), 2 * FEWEST, "of which half are kept to compare on; or give --validation"
            )
        calibration, validation = split(calibration)
    if len(calibration) < FEWEST:
        raise _too_few(len(calibration), FEWEST, "to calibrate on")
    calibration = calibration.spread(MOST)
    seen = {hash_image(image) for image in calibration.images}
    validation = validation.take(
        [i for i, image in enumerate(validation.images) if hash_image(image) not in seen]
    )
    if len(validation) < FEWEST:
        raise _too_few(len(validation), FEWEST, "to compare on that are not calibrated on")
    return calibration, validation


def write_quantised(quantised: Quantised, *, out: Path) -> None:
    """Write the bundle, once it opens and its reference engine answers within its tolerance.

    Raises:
        ParityError: It does not; nothing is left at ``out``.
        OutputError: ``output-not-writable`` or ``disk-full``.
    """
    contents = quantised.contents

    def describe(files: Any) -> Manifest:
        return Contents(contents.manifest, files).sealed()

    report = _Report(json.loads(contents.files[contents.manifest.parity]), quantised.trials[0])
    publish_files(describe, contents.files, lambda _: report, out=out, parity=contents.manifest.parity)


@dataclass(frozen=True, slots=True)
class _Report:
    """As `bedside_export.writer.Report`."""

    content: dict[str, Any]
    reference: EngineTrial

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return self.content

    def require(self) -> None:
        """Insist on the reference engine.

        Raises:
            ParityError: It failed.
        """
        if self.reference.status != "passed":
            raise ParityError(
                f"onnxruntime fp32 does not answer as PyTorch did ({self.reference.reason}); no bundle is written"
            )


def _too_few(there: int, needed: int, purpose: str) -> ExportError:
    return ExportError(
        f"there are {there} different inputs, and at least {needed} are needed {purpose}: ranges of fewer are "
        "those of single patients; add pictures, or scans"
    )
