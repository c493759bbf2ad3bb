"""What the report of a study says that was not processed: that it was not, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydicom.sr.coding import Code

from bedside.errors import BedsideError
from bedside.results.dicom.codes import finding_code, private
from bedside.results.dicom.findings import Group, Note

__all__ = ["describe_refusal"]

SUMMARY: Final = Code("111065", "DCM", "Summary of Analyses")
FAILED: Final = Code("111224", "DCM", "Failed")
NOT_ATTEMPTED: Final = Code("111225", "DCM", "Not Attempted")
"""CID 6042: a refused study was not analysed; of any other the analysis failed."""


def describe_refusal(error: BedsideError) -> Iterator[Group]:
    """The group of a report without a result.

    Args:
        error: Why there is none; its message holds no patient data.
    """
    yield Group(
        "analysis",
        notes=(
            Note(SUMMARY, NOT_ATTEMPTED if error.refusal else FAILED),
            Note(private("reason"), finding_code(error.code), error.message),
        ),
        comments=("No result. Not for clinical use.",),
    )
