"""What a CT bundle may say of its tiles and neighbouring slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bedside.bundle import Bundle
from bedside.errors import BundleError
from tiny_ct_bundle import ThresholdNetwork, make_ct_bundle


@pytest.mark.parametrize(
    ("tiling", "told"),
    [
        ({"size": [0, 64]}, "tiling.size must be a tile that input.shape takes"),
        ({"multiple": 7}, "tiling.size must be of tiling.multiple"),
        ({"multiple": 0}, "tiling.multiple and .smallest must be at least 1"),
        ({"overlap": 0.95}, ".overlap from 0 to 0.9"),
        ({"weights": "round"}, "tiling.weights must be one of"),
        ({"context": 2}, r"input.shape must have 2 \* tiling.context \+ 1 channels"),
        ({"context_mm": -1.0}, "tiling.context_mm must be over 0 and at most 50"),
        ({"context_mm": 51.0}, "tiling.context_mm must be over 0 and at most 50"),
    ],
)
def test_tiling_that_cannot_be_is_told(tmp_path: Path, tiling: dict[str, Any], told: str) -> None:
    folder = make_ct_bundle(tmp_path / "tiny", network=ThresholdNetwork(context=1), tiling=tiling)
    with pytest.raises(BundleError, match=told) as caught:
        Bundle.open(folder)
    assert caught.value.code == "bundle-broken"


def test_distance_of_a_context_needs_a_context(tmp_path: Path) -> None:
    folder = make_ct_bundle(tmp_path / "tiny", tiling={"context_mm": 2.5})
    with pytest.raises(BundleError, match=r"needs a tiling\.context"):
        Bundle.open(folder)


def test_bundle_of_before_has_the_next_slices_as_context(tmp_path: Path) -> None:
    tiling = Bundle.open(
        make_ct_bundle(tmp_path / "tiny", network=ThresholdNetwork(context=1))
    ).manifest.tiling
    assert tiling is not None
    assert (tiling.context, tiling.context_mm) == (1, 0.0)
