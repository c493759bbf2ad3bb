"""What a reader hands on: one frontal X-ray as display values, and what its header says of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["Finding", "Header", "Radiograph"]

MAX_ASPECT: Final = 10.0
"""Most that a pixel may be longer than wide: over any detector's, and it bounds the memory of a resize."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth telling about an image: a choice made in reading it, or a doubt about its quality."""

    code: str
    """Stable, lower-case, hyphenated, e.g. ``inverted-looking``."""
    text: str
    """One line for a person. Never patient data."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the file says of itself, as far as bedside needs it. Empty or None where the file is silent.

    Holds no identifier of a patient.
    """

    format: str
    """``DICOM``, ``PNG``, ``JPEG`` or ``TIFF``."""
    modality: str = ""
    """Modality (0008,0060), e.g. ``CR``, ``DX``."""
    sop_class_uid: str = ""
    """SOP Class UID (0008,0016)."""
    transfer_syntax_uid: str = ""
    """Transfer Syntax UID (0002,0010)."""
    view_position: str = ""
    """View Position (0018,5101), else taken from View Code Sequence (0054,0220): ``PA``, ``AP``, ``LL``, ..."""
    body_part: str = ""
    """Body Part Examined (0018,0015), else taken from Anatomic Region Sequence (0008,2218), upper case."""
    presentation_intent: str = ""
    """Presentation Intent Type (0008,0068): ``FOR PRESENTATION`` or ``FOR PROCESSING``."""
    age_years: float | None = None
    """Patient's Age (0010,1010), else study date less birth date, in years."""
    photometric_interpretation: str = ""
    """As stored, e.g. ``MONOCHROME1``."""
    bits_stored: int = 8
    """Bits Stored (0028,0101), or the bits of a grey sample of a picture file."""


@dataclass(frozen=True, slots=True)
class Radiograph:
    """One X-ray picture as it is meant to be seen.

    Rows run from head to feet and columns from the patient's right to the patient's left, as far as the
    header tells (a mirrored or turned picture is put upright by the reader, and a finding says so).
    """

    pixels: npt.NDArray[np.float32]
    """Display values, ``(H, W)`` float32, from 0 (black) to 1 (white); C-contiguous, owned."""
    header: Header
    """What the file says of itself."""
    spacing_mm: tuple[float, float] | None = None
    """Distance between (rows, columns) in mm, or None where unknown. Only their ratio matters to a score."""
    findings: tuple[Finding, ...] = field(default=())
    """Choices made and defects mended in reading, in order."""

    def __post_init__(self) -> None:
        """Check shape, dtype and spacing, so that nothing later has to."""
        if self.pixels.ndim != 2 or self.pixels.size == 0 or self.pixels.dtype != np.float32:
            raise ValueError(f"pixels must be (H, W) float32, not {self.pixels.shape} {self.pixels.dtype}")
        if self.spacing_mm is not None and not (
            min(self.spacing_mm) > 0 and 1 / MAX_ASPECT <= self.pixel_aspect <= MAX_ASPECT
        ):
            raise ValueError(
                f"spacing_mm must be over 0 and of a ratio up to {MAX_ASPECT}, not {self.spacing_mm}"
            )

    @property
    def pixel_aspect(self) -> float:
        """Height of a pixel over its width; 1.0 where the spacing is unknown."""
        return 1.0 if self.spacing_mm is None else self.spacing_mm[0] / self.spacing_mm[1]
