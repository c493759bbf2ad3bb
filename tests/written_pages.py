"""What a drawn page says, and that all of it can be read.

Written       the lines of a page
note_lines    gathers them while it is drawn
check_layout  none is clipped, none meets another, and the margin is free
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from bedside.report import lettering

Box = tuple[float, float, float, float]
Written = list[tuple[str, Box, Image.Image]]
"""Each line: its text, the box it takes ``(left, top, right, bottom)``, and the picture that it is written on."""


def note_lines(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> Written:
    """The lines that these modules write from now on."""
    lines: Written = []
    original = lettering.write

    def noted(canvas: Image.Image, place: tuple[float, float], text: str, **style: Any) -> None:
        box = lettering.font_of(style["size"]).getbbox(text, anchor=style.get("anchor", "la"))
        x, y = place
        if text:
            lines.append((text, (x + box[0], y + box[1], x + box[2], y + box[3]), canvas))
        original(canvas, place, text, **style)

    for module in modules:
        monkeypatch.setattr(module, "write", noted)
    return lines


def check_layout(drawn: npt.NDArray[np.uint8], written: Written, *, width: int, margin: int) -> None:
    """A page ``(H, width, 3)`` and what is written on it."""
    assert drawn.dtype == np.uint8
    assert drawn.shape[1:] == (width, 3)
    frame = np.ones(drawn.shape[:2], bool)
    frame[margin - 2 : 2 - margin, margin - 2 : 2 - margin] = False
    assert (drawn[frame] == 0).all()
    for number, (text, box, canvas) in enumerate(written):
        assert min(box[:2]) >= -1, text
        assert box[2] <= canvas.width + 1, text
        assert box[3] <= canvas.height + 1, text
        for other, place, where in written[:number]:
            apart = box[2] <= place[0] or place[2] <= box[0] or box[3] <= place[1] or place[3] <= box[1]
            assert apart or where is not canvas, (text, other)
