"""What is told of a bundle that is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from bedside.bundle import Bundle
from bedside.errors import BundleError


def refusal(source: Path | str) -> BundleError:
    """The error, of which every character can be printed."""
    with pytest.raises(BundleError) as caught:
        Bundle.open(source)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700
    return caught.value
