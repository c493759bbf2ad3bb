"""Damaged series: whatever the bytes, the reader answers, or refuses by code."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside import dicom
from bedside.errors import BedsideError
from dicom_series import Encoding, make_multiframe, make_series, write_multiframe


def _encode() -> bytes:
    """A multi-frame file of three small compressed frames."""
    slices = make_series()[:3]
    for dataset in slices:
        dataset.Rows = dataset.Columns = 8
        dataset.PixelData = np.arange(64, dtype="<i2").tobytes()
    encoding = Encoding(compressed=True, fragments=2, table="basic")
    with tempfile.TemporaryDirectory() as folder:
        path = write_multiframe(Path(folder) / "all.dcm", make_multiframe(slices, encoding=encoding))
        return path.read_bytes()


GOOD = _encode()


@settings(max_examples=150)
@given(
    flips=st.lists(st.tuples(st.integers(132, len(GOOD) - 1), st.integers(0, 255)), max_size=8),
    cut=st.none() | st.integers(0, len(GOOD)),
    allow_missing=st.booleans(),
)
def test_any_damage_is_read_or_refused(
    flips: list[tuple[int, int]], cut: int | None, allow_missing: bool
) -> None:
    data = io.BytesIO(GOOD[:cut])
    for place, value in flips:
        if place < len(data.getbuffer()):
            data.getbuffer()[place] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "all.dcm"
        path.write_bytes(data.getvalue())
        try:
            with dicom.read_series(path, allow_missing=allow_missing, threads=1) as series:
                depth, rows, columns = series.grid.shape
                assert depth <= 100
                hu = series.read(range(depth))
                assert hu.shape == (depth, rows, columns)
                assert not np.isnan(hu).any()
                assert all(entry.decision != "refused" for entry in series.ledger)
        except BedsideError as error:
            refusal: BedsideError | None = error
        else:
            refusal = None
    assert refusal is None or (refusal.code != "internal" and "\n" not in str(refusal))
