"""What a page consists of, and its HTML.

Everything on a page is text that the template escapes, or a picture in the page itself: it asks no network, and runs
no script. Nothing in a picture is told by it alone: each has an alternative text and the tables of its figures.
"""

from __future__ import annotations

import base64
import importlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from bedside.bench.report.drawing import missing
from bedside.provenance import NOTICE
from bedside.results import prepare_folder, write_bytes
from bedside.version import __version__

__all__ = ["Page", "Plot", "Row", "Section", "Table", "Verdict", "render", "write_page"]

TEMPLATE: Final = "page.html.jinja"
"""Beside this file."""
_SIZE: Final = slice(16, 24)
"""Where a PNG file has its width and height (PNG specification, section 11.2.2)."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table."""

    cells: tuple[str, ...]
    """As many as the table's head."""
    wrong: bool = False
    """Whether its figures may not be used; a cell has to say why."""


@dataclass(frozen=True, slots=True)
class Table:
    """Figures."""

    caption: str
    """What they are of, and how many were measured."""
    head: tuple[str, ...]
    """Titles of the columns, with their units."""
    rows: tuple[Row, ...]
    """Its lines."""
    words: tuple[int, ...] = (0,)
    """Places of the columns that hold words, which stand to the left."""


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture, and what is behind it."""

    slug: str
    """End of its file's name: small letters and hyphens."""
    title: str
    """Above it."""
    png: bytes
    """The file."""
    alt: str
    """What it shows, for who can't see it."""
    caption: str
    """How to read it."""
    tables: tuple[Table, ...]
    """Its figures."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, pixels."""
        both = self.png[_SIZE]
        return int.from_bytes(both[:4], "big"), int.from_bytes(both[4:], "big")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether figures may be used."""

    passed: bool
    """Whether they may, as they are."""
    word: str
    """In a word or two, e.g. ``NOT VALID``."""
    reasons: tuple[str, ...] = ()
    """Why not."""


@dataclass(frozen=True, slots=True)
class Section:
    """One run."""

    title: str
    """What was measured."""
    verdict: Verdict
    """What that is worth."""
    facts: tuple[tuple[str, str], ...] = ()
    """Name and value of what it was measured on."""
    plots: tuple[Plot, ...] = ()
    """Pictures with their tables."""
    tables: tuple[Table, ...] = ()
    """Tables without a picture."""
    notes: tuple[str, ...] = ()
    """What to know besides."""


@dataclass(frozen=True, slots=True)
class Page:
    """All of it."""

    title: str
    """Of the page."""
    sections: tuple[Section, ...]
    """At least one."""


def render(page: Page) -> str:
    """The page as HTML.

    Raises:
        MissingExtraError: The extra ``bench`` is not installed.
    """
    try:
        jinja2: Any = importlib.import_module("jinja2")
    except ImportError as error:
        raise missing("jinja2") from error
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    source = files("bedside.bench.report").joinpath(TEMPLATE).read_text(encoding="utf-8")
    text: str = environment.from_string(source).render(page=page, notice=NOTICE, version=__version__)
    return text


def write_page(page: Page, path: Path) -> list[Path]:
    """Write the page, and its pictures beside it as ``NAME-SLUG.png``.

    Returns:
        All files, the page first.

    Raises:
        MissingExtraError: The extra ``bench`` is not installed.
        OutputError: ``disk-full``; ``output-not-writable``.
    """
    text = render(page)
    prepare_folder(path.parent)
    write_bytes(path, text.encode())
    written = [path]
    for slug, plot in _named(page):
        written.append(path.with_name(f"{path.stem}-{slug}.png"))
        write_bytes(written[-1], plot.png)
    return written


def _named(page: Page) -> Iterator[tuple[str, Plot]]:
    """Each picture with a name that no other has."""
    plots = [plot for section in page.sections for plot in section.plots]
    total = Counter(plot.slug for plot in plots)
    seen: Counter[str] = Counter()
    for plot in plots:
        seen[plot.slug] += 1
        yield (plot.slug if total[plot.slug] == 1 else f"{plot.slug}-{seen[plot.slug]}"), plot
