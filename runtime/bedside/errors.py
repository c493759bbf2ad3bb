"""Every error that bedside raises, in one tree.

    BedsideError
    ├── InputError        (ValueError)    the file can't be read as an image
    ├── RefusedError      (ValueError)    readable, but not a picture that this bundle may answer on
    ├── BundleError       (ValueError)    the bundle is broken, altered, or of another schema
    ├── BackendError      (RuntimeError)  an engine failed, or answered with NaN or infinity
    ├── MissingExtraError (ImportError)   an optional package is needed; the message names the extra
    ├── OutputError       (OSError)       a result can't be written
    ├── LimitError        (RuntimeError)  the job does not fit the memory or the time that was given
    ├── NodeError         (RuntimeError)  a node can't listen, or a destination does not take its results
    └── InternalError     (RuntimeError)  a defect in bedside

Each carries a stable ``code`` from `CODES`, which is what the JSON results hold. A message says what is
wrong and what to do about it; where (the file) is the ``source`` of the result, never part of the message,
because file names can carry patients' names.
"""

from __future__ import annotations

import traceback
from pathlib import PurePath
from typing import Final

CODES: Final[dict[str, str]] = {
    # InputError
    "not-found": "no such file or folder",
    "not-readable": "the file exists and can't be read (permissions, I/O error)",
    "empty-file": "the file has no bytes",
    "not-an-image": "not a format that bedside reads",
    "broken-dicom": "a DICOM file whose data set can't be parsed",
    "broken-image": "a PNG, JPEG or TIFF file that can't be decoded",
    "broken-nifti": "a NIfTI file that can't be parsed",
    "no-pixels": "DICOM without pixel data",
    "truncated-pixels": "the pixel data ends early",
    "excess-pixels": "more pixel data than Rows x Columns x bits says",
    "bad-dimensions": "Rows or Columns is zero or absurd",
    "bad-attribute": "an attribute that the pixels depend on is missing or contradicts the rest",
    "unsupported-syntax": "a transfer syntax that bedside does not read",
    "broken-pixels": "compressed pixel data that the decoder refuses",
    "not-results": "a JSON file or a folder that holds no results of bedside",
    "bad-config": "a node's configuration that is malformed, or has a wrong key or value",
    "other-pixels": "an object under the UID of one that is there, with another content",
    # RefusedError
    "wrong-modality": "CT, MR or anything else that is not a projection X-ray",
    "wrong-view": "a lateral or other view that is not frontal",
    "wrong-body-part": "a body part that is not the chest",
    "for-processing": "raw detector data (FOR PROCESSING), not meant for display",
    "multi-frame": "more than one frame",
    "colour": "a colour image",
    "turned-picture": "a chest X-ray that lies on its side or stands on its head",
    "inverted-picture": "a chest X-ray with black and white exchanged",
    "not-frontal-chest": "a picture that does not look like a whole frontal chest X-ray",
    "constant-image": "every pixel has the same value",
    "tiny-image": "too few pixels to judge",
    "several-series": "more than one CT series and none was chosen",
    "no-series": "no CT series, or not the one that was asked for",
    "missing-slices": "slices can't be read, or are missing, and that was not allowed",
    "improper-geometry": "the slices do not make a volume; the ledger says why",
    "not-hu": "a volume whose values are not Hounsfield units",
    "no-lungs": "no lungs in the scan",
    "mixed-bundles": "results of different bundles, whose difference is no change of the patient",
    "no-rule": "an object that no rule of the node takes",
    "several-patients": "studies of more than one patient, and none was chosen",
    "no-studies": "no study that can be followed: none has both an answer and a time",
    "no-reference": "no DICOM, or no study in it, that results as DICOM could belong to",
    "not-comparable": "readers that do not say the same kind of thing, of the same cases, on the same grid",
    # BundleError
    "bundle-not-found": "no bundle of that name or path",
    "bundle-broken": "bundle.json is missing, malformed, or has unknown keys",
    "bundle-altered": "a file's size or sha256 differs from bundle.json",
    "bundle-schema": "a schema version that this runtime does not know",
    "bundle-unsafe": "symlinks, paths that leave the bundle, external data, or over-large files",
    "bundle-task": "a bundle for another task",
    "bundle-precision": "a precision that the bundle does not hold",
    # BackendError
    "engine-failed": "the engine could not load or run the model",
    "engine-unsupported": "the engine or this device can't run what was asked for",
    "engine-crashed": "the engine's process ended by itself: a signal, or memory",
    "engine-hung": "the engine gave no answer in its time, and was stopped",
    "engine-foreign": "a built engine of another device, driver, version or bundle, or an altered one",
    "not-finite": "the network answered with NaN or infinity",
    # MissingExtraError
    "missing-extra": "an optional package is not installed",
    # OutputError
    "output-not-writable": "the output folder or file can't be written",
    "disk-full": "no space left while writing",
    "output-exists": "the output exists and was not to be replaced",
    "cache-not-writable": "the folder of built engines and plans can't be written",
    # LimitError
    "memory-too-small": "the memory budget is under what the job needs",
    "deadline-too-short": "nothing could be measured before the deadline",
    # NodeError
    "not-listening": "the address or port can't be listened on",
    "spool-in-use": "another node holds the spool",
    "not-delivered": "a destination can't be reached, or did not take the results",
    # InternalError
    "internal": "a defect in bedside",
}
"""Error code -> what it means. Codes are stable: one may be added, none changes its meaning."""


class BedsideError(Exception):
    """Root of all errors of bedside.

    Args:
        code: One of `CODES`.
        message: One line: what is wrong, and what to do.
    """

    refusal = False
    """True where the input was readable and must not be answered on; False where something failed."""

    def __init__(self, code: str, message: str) -> None:
        if code not in CODES:
            raise ValueError(f"unknown error code {code!r}: add it to bedside.errors.CODES")
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[type[BedsideError], tuple[str, str]]:
        return type(self), (self.code, self.message)


class InputError(BedsideError, ValueError):
    """The input can't be read as an image."""


class RefusedError(BedsideError, ValueError):
    """The input is readable, and is not a picture that the bundle may answer on."""

    refusal = True


class BundleError(BedsideError, ValueError):
    """The bundle is broken, altered, unsafe, or of another schema or task."""


class BackendError(BedsideError, RuntimeError):
    """An engine could not load or run a model, or its answer is not finite."""


class MissingExtraError(BedsideError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""

    @classmethod
    def of(cls, package: str, extra: str, purpose: str) -> MissingExtraError:
        """The error for ``package``, wanted for ``purpose``, that ``extra`` installs."""
        return cls(
            "missing-extra",
            f"{purpose} needs the package {package!r}, which is not installed; "
            f"install it with: pip install 'bedside[{extra}]'",
        )


class OutputError(BedsideError, OSError):
    """A result can't be written."""


class LimitError(BedsideError, RuntimeError):
    """The job does not fit the memory or the time that was given; the message says what would do."""


class NodeError(BedsideError, RuntimeError):
    """A node can't listen, or a destination does not take its results."""


class InternalError(BedsideError, RuntimeError):
    """A defect in bedside: an exception that nothing foresaw."""

    @classmethod
    def of(cls, problem: Exception) -> InternalError:
        """The error for ``problem``: its type and place, never its message, which may hold patient data."""
        *_, (frame, line) = traceback.walk_tb(problem.__traceback__)
        place = f"{PurePath(frame.f_code.co_filename).name}:{line}"
        return cls(
            "internal",
            f"a defect in bedside ({type(problem).__name__} at {place}); please report it with this line",
        )
