from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bedside.report.lettering import ELLIPSIS, fit, font_of, length, plain, wrap, write


@given(st.text(max_size=60))
@settings(max_examples=60)
def test_plain_text_is_one_line_that_the_font_has(text: str) -> None:
    line = plain(text)
    assert line.isascii()
    assert line.isprintable()
    assert plain(line) == line


def test_accents_are_dropped_and_other_letters_are_not_lost_unseen() -> None:
    assert plain("Verd\u00fcnnung\n\u8089") == "Verdunnung ?"


def test_font_has_every_letter_of_plain_text() -> None:
    font = font_of(30)
    missing = bytes(font.getmask("\uffff"))
    blank = [chr(code) for code in range(33, 127) if bytes(font.getmask(chr(code))) == missing]
    assert blank == []


@given(st.text(max_size=80), st.integers(40, 400))
@settings(max_examples=60)
def test_fitted_text_fits(text: str, room: int) -> None:
    line = fit(text, 18, room)
    assert length(line, 18) <= room
    assert line == plain(text) or line.endswith(ELLIPSIS)


@given(st.lists(st.sampled_from(["lung", "opacity", "of", "a", "interlobular"]), max_size=30))
@settings(max_examples=60)
def test_wrapped_lines_fit_and_lose_nothing(words: list[str]) -> None:
    lines = wrap(" ".join(words), 18, 150)
    assert " ".join(line for line in lines if line).split() == words
    assert max(length(line, 18) for line in lines) <= 150


@pytest.mark.parametrize("anchor", ["la", "ra", "ma"])
def test_text_is_where_its_anchor_is(anchor: str) -> None:
    canvas = Image.new("RGB", (400, 60))
    write(canvas, (200, 10), "opacity", size=20, colour=(255, 255, 255), anchor=anchor)
    columns = np.nonzero(np.asarray(canvas).any(axis=(0, 2)))[0]
    left, right = {"la": (200, 200 + length("opacity", 20)), "ra": (200 - length("opacity", 20), 200)}.get(
        anchor, (200 - length("opacity", 20) / 2, 200 + length("opacity", 20) / 2)
    )
    assert columns[0] == pytest.approx(left, abs=3)
    assert columns[-1] == pytest.approx(right, abs=3)
