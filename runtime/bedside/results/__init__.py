"""Everything that bedside writes: files that appear whole or not at all, the journal of a batch, tables, pictures.

    write_bytes, atomic       one file: whole or not at all, and the old one untouched if it fails
    prepare_folder            a batch's output folder, tried before the first input is read
    Journal                   results.jsonl: a result a line, safe against kills, goes on where it stopped
    write_csv                 the same results for a spreadsheet (`bedside.tables` has their text)
    write_result_json         one result as a file
    write_heatmap             one X-ray's picture; `heatmap_name` names it
    write_report              one CT's page; `scan_stem` and `scan_name` name it and the files beside it
    write_png                 any other picture, such as a trend's page

Every failure to write is an `OutputError`: ``disk-full``, ``output-exists`` or ``output-not-writable``. Needs a
POSIX system, for its file lock. Not for clinical use.
"""

from __future__ import annotations

from bedside.results.files import atomic, prepare_folder, write_bytes
from bedside.results.journal import JOURNAL, Journal, Run
from bedside.results.names import SCAN_FILES, heatmap_name, scan_name, scan_stem
from bedside.results.pictures import write_heatmap, write_png, write_report
from bedside.results.texts import write_csv, write_result_json

__all__ = [
    "JOURNAL",
    "SCAN_FILES",
    "Journal",
    "Run",
    "atomic",
    "heatmap_name",
    "prepare_folder",
    "scan_name",
    "scan_stem",
    "write_bytes",
    "write_csv",
    "write_heatmap",
    "write_png",
    "write_report",
    "write_result_json",
]
