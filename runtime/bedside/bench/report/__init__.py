"""A benchmark as a page: tables and pictures in one HTML file that needs no network.

    run_section         a run of ``bedside bench`` as a `Section`
    comparison_section  two of them against each other
    Page, Section, Plot, Table   what a page consists of
    render, write_page  the page, and its pictures beside it
    require_plots       refuses before minutes are spent, where a library is missing

    page        what a page consists of, and its HTML (page.html.jinja)
    drawing     what all pictures have in common
    latency     distributions, and what a server held
    stages      what a study is made of, and first results
    sections    a run's tables, and what they are worth
    conditions  what it was measured on

Needs the extra ``bench``. `benchmarks/report.py` makes pages of several files with it. Not for clinical use.
"""

from __future__ import annotations

from bedside.bench.report.drawing import require_plots
from bedside.bench.report.page import Page, Plot, Row, Section, Table, Verdict, render, write_page
from bedside.bench.report.ratios import comparison_section
from bedside.bench.report.sections import run_section

__all__ = [
    "Page",
    "Plot",
    "Row",
    "Section",
    "Table",
    "Verdict",
    "comparison_section",
    "render",
    "require_plots",
    "run_section",
    "write_page",
]
