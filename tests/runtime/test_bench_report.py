"""Pages of benchmarks: whole without a network, readable without pictures, honest where a run is not."""

from __future__ import annotations

import base64
import importlib
import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bedside.bench import Outcome, compare_runs
from bedside.bench.figures import Energy, Search, Start, StudyEnergy
from bedside.bench.record import Run
from bedside.bench.report import (
    Page,
    Plot,
    Row,
    Section,
    Table,
    Verdict,
    comparison_section,
    render,
    run_section,
    write_page,
)
from bedside.bench.report.drawing import WRONG, figure_of, keep_times, plain, png_of, short
from bedside.bench.report.latency import plot_latency
from bedside.bench.report.stages import plot_stages
from bedside.provenance import BundleRef
from command_line import invoke, run
from made_bench import FAILED, make_run, make_scenario
from tiny_bundle import make_bundle

for package in ("jinja2", "matplotlib"):
    pytest.importorskip(package, reason="needs the extra bench")

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8) + (640).to_bytes(4, "big") + (480).to_bytes(4, "big")
EMPTY = ("meta", "link", "img", "br", "hr", "input")


class Reader(HTMLParser):
    """What a page holds; that every element is closed is checked on the way."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every figure that is drawn of latencies."""
    drawn: list[Any] = []

    def keep(*arguments: Any, **more: Any) -> Any:
        made = figure_of(*arguments, **more)
        drawn.append(made[0])
        return made

    monkeypatch.setattr(importlib.import_module("bedside.bench.report.latency"), "figure_of", keep)
    return drawn


@pytest.fixture(scope="module")
def whole() -> Section:
    """Of a run with everything in it."""
    return run_section(make_full_run())


def make_full_run(**changes: Any) -> Run:
    server = {"rate_per_second": 20.0, "bound_ms": 60.0}
    return make_run(
        scenarios=(
            make_scenario([10.0, 12.0] * 15),
            make_scenario([300.0], "offline"),
            make_scenario([20.0, 70.0], "server", held=False, **server),
            make_scenario([20.0, 30.0], "server", held=True, **{**server, "rate_per_second": 10.0}),
        ),
        search=Search(60.0, "asked for", 10.0, 1.0, confirmed=False),
        starts=(
            Start("cold process", (800.0, 810.0), {"interpreter": (400.0, 410.0), "open": (300.0, 310.0)}),
            Start("after 1 s", (14.0,), {"decode": (4.0,), "inference": (9.0,)}),
            Start("cold engine cache", skipped="this engine keeps nothing"),
        ),
        energy=Energy(
            True, "", ("gpu0",), 10.0, None, (StudyEnergy("offline", 4, 9.5, 100.0, 1.5, 1.0, 2.0, {}),)
        ),
        notes=("one input alone",),
        **changes,
    )


def make_page(*sections: Section) -> Page:
    return Page("a page", sections)


def test_page_of_a_run_is_whole_and_asks_no_network(whole: Section, tmp_path: Path) -> None:
    files = write_page(make_page(whole), tmp_path / "new" / "run.html")
    assert [path.name for path in files] == [
        "run.html", "run-latency.png", "run-stages.png", "run-server.png", "run-starts.png",
    ]  # fmt: skip
    page = Reader(files[0].read_text())
    pictures = page.all("img")
    for file, picture in zip(files[1:], pictures, strict=True):
        kind, _, data = str(picture["src"]).partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data) == file.read_bytes()
        assert len(str(picture["alt"])) > 40
        assert int(str(picture["width"])) > int(str(picture["height"])) > 100
    assert not page.all("script")
    assert not page.all("link")
    asked = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "action")
    ]
    assert all(str(value).startswith(("data:image/png", "#")) for value in asked)
    assert "default-src 'none'" in files[0].read_text()
    for part in ("Not for clinical use.", "Valid and complete", "n = 30 studies", "p50", "p90", "p99",
                 "1.5 J a study above idle", "not measured: this engine keeps nothing", "one input alone",
                 "A processor", "throttled", "4 logical on 2 physical", "sha256 " + "0" * 64,
                 "within", "no result of MLPerf"):  # fmt: skip
        assert part in page.text


def test_every_figure_has_its_unit_and_every_row_its_cells(whole: Section) -> None:
    tables = [table for plot in whole.plots for table in plot.tables] + list(whole.tables)
    for table in tables:
        assert all(len(row.cells) == len(table.head) for row in table.rows)
    (stages,) = whole.plots[1].tables
    assert stages.head == ("stage", "median, ms", "p10, ms", "p90, ms", "of the whole, %")


def test_run_that_is_not_valid_says_so_in_words_and_pictures(figures: list[Any]) -> None:
    reasons = ("this engine left the bundle's tolerance",)
    section = run_section(make_run(valid=False, parity=FAILED, reasons=reasons, starts=()))
    assert section.verdict == Verdict(False, "NOT VALID: these figures may not be used", reasons)
    for figure in figures:
        (above,) = [text for text in figure.texts if text.get_color() == WRONG]
        assert above.get_text() == "NOT VALID: this engine left the bundle's tolerance"
    page = Reader(render(make_page(section)))
    text = page.text
    tables = len(page.all("caption"))
    assert text.count("NOT VALID") == 1 + tables  # above all, and at each table
    assert text.count("OUT OF TOLERANCE") == 2
    assert "not finite" in text


def test_run_that_was_cut_short_has_a_page(tmp_path: Path) -> None:
    cut = make_run(
        scenarios=(), starts=(), parity=None, complete=False, reasons=("it was interrupted",), samples=()
    )
    cut = replace(cut, conditions=replace(cut.conditions, after=None))
    (page,) = write_page(make_page(run_section(cut)), tmp_path / "cut.html")
    text = Reader(page.read_text()).text
    assert "NOT COMPLETE: only what was measured until it ended it was interrupted" in text
    unfinished = run_section(
        make_run(scenarios=(make_scenario([10.0], complete=False),), complete=False, starts=())
    )
    assert len(unfinished.plots) == 2
    assert "not finished" in Reader(render(make_page(unfinished))).text


def test_what_a_file_says_is_text_and_nothing_else(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>$\\frac{1}{2}$ & \u4e2d"
    bundle = BundleRef(evil, '"><img src=x>', "0" * 64)
    found = make_run(bundle=bundle, notes=(evil,), reasons=(evil,), valid=False, starts=())
    page = Reader(write_page(make_page(run_section(found)), tmp_path / "evil.html")[0].read_text())
    assert not page.all("script")
    assert all(str(each["src"]).startswith("data:") for each in page.all("img"))
    assert evil in page.text


def test_percentiles_are_those_of_the_values(figures: list[Any]) -> None:
    values = [float(value) for value in range(200, 0, -1)]
    stream = make_scenario(values)
    plot = plot_latency(stream, "a bundle")
    left, right = figures[0].axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == [
        "p50 101 ms",
        "p90 181 ms",
        "p99 199 ms",
    ]
    assert left.get_xlabel() == "latency, ms"
    assert (left.get_ylabel(), right.get_xlabel()) == ("studies", "when the study came, s")
    assert left.get_xscale() == "log"
    assert stream.latency is not None
    assert plot.tables[0].rows[1].cells == ("p90", "181", short(stream.latency.p90_early_ms))
    assert [row.cells[0] for row in plot.tables[0].rows] == ["p50", "p90", "p99", "longest", "mean"]


def test_few_studies_are_drawn_one_by_one(figures: list[Any]) -> None:
    plot_latency(make_scenario([5.0]), "a bundle")
    left, _ = figures[0].axes
    assert left.get_ylabel() == "share of the studies"
    assert left.get_title("left") == "single stream, 1 study"


def test_studies_that_all_take_the_same_are_drawn(figures: list[Any]) -> None:
    plot_latency(make_scenario([5.0] * 40), "a bundle")
    assert sum(bar.get_height() for bar in figures[0].axes[0].patches) == 40


def test_stages_that_overlap_begin_together() -> None:
    stream = make_scenario([10.0, 11.0, 12.0])
    apart, together = (plot_stages(stream, "a bundle", overlapping=overlap) for overlap in (False, True))
    assert "add up to 11.0 ms" in apart.caption
    assert "Stages overlap in time" in together.caption
    assert apart.tables == together.tables


def test_axes_are_logarithmic_only_for_what_is_far_apart() -> None:
    _, ((axes,),) = figure_of(1, 1, 2.0)
    assert not keep_times(axes.xaxis, [10.0, 150.0])
    assert not keep_times(axes.xaxis, [])
    assert axes.get_xscale() == "linear"
    assert keep_times(axes.yaxis, [0.0, 10.0, 250.0])
    assert axes.get_yscale() == "log"


def test_picture_tells_what_it_is_not_for_and_why_it_may_not_be_used() -> None:
    figure, _ = figure_of(1, 1, 2.0)
    picture = Image.open(io.BytesIO(png_of(figure, "caption", wrong="it throttled")))
    assert picture.info["Disclaimer"] == "Not for clinical use."
    told = " ".join(text.get_text() for text in figure.texts)
    assert "caption\nbedside" in told
    assert "Not for clinical use." in told
    assert "it throttled" in told


@pytest.mark.parametrize(
    ("given", "drawn"),
    [
        ("a$b", r"a\$b"),
        ("a\nb\x00", "a?b?"),
        ("\u4e2d", "?"),
        ("x" * 50, "x" * 41 + "..."),
        ("\\alpha", "/alpha"),
    ],
)
def test_names_are_drawn_as_they_are(given: str, drawn: str) -> None:
    assert plain(given) == drawn


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "-"),
        (0.0, "0"),
        (1234.5, "1234"),
        (123.4, "123"),
        (12.34, "12.3"),
        (1.2345, "1.23"),
        (0.00012, "0.00012"),
    ],
)
def test_numbers_are_short(value: float | None, told: str) -> None:
    assert short(value) == told


def test_pictures_of_one_name_get_numbers(tmp_path: Path) -> None:
    plot = Plot(
        "same", "a plot", PNG, "what it shows", "how to read it", (Table("t", ("a",), (Row(("1",)),)),)
    )
    section = Section("one", Verdict(passed=True, word="fine"), plots=(plot,))
    files = write_page(make_page(section, section), tmp_path / "page.html")
    assert [path.name for path in files] == ["page.html", "page-same-1.png", "page-same-2.png"]
    page = Reader(files[0].read_text())
    assert [each["href"] for each in page.all("a")] == ["#part-1", "#part-2"]
    assert {each["id"] for each in page.all("section")} == {"part-1", "part-2"}
    assert page.all("img")[0]["width"] == "640"


def test_two_runs_are_compared_with_what_is_doubtful() -> None:
    old, new = make_run([20.0] * 30, valid=False, reasons=("it throttled",)), make_run([10.0] * 30)
    section = comparison_section(compare_runs(old, new))
    assert section.verdict.word == "BEWARE"
    text = Reader(render(make_page(section))).text
    assert "the old run is not valid: it throttled" in text
    assert "0.500 to 0.500 faster" in text


def test_report_is_made_also_of_a_run_that_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = make_run(complete=False, reasons=("it was interrupted",), starts=())
    monkeypatch.setattr("bedside.bench.measure", lambda *_: Outcome(found, KeyboardInterrupt()))
    done = invoke("bench", make_bundle(tmp_path / "b"), "--report", tmp_path / "out" / "run.html")
    assert done.exit_code == 130
    assert "a page with pictures is in" in done.stderr
    assert "NOT COMPLETE" in (tmp_path / "out" / "run.html").read_text()
    assert (tmp_path / "out" / "run-latency.png").read_bytes().startswith(PNG[:8])


def test_comparison_has_a_page_with_both_runs(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / f"{name}.json").write_text(json.dumps(make_run(starts=()).to_json()))
    arguments = (
        "--compare",
        tmp_path / "old.json",
        tmp_path / "new.json",
        "--report",
        tmp_path / "page.html",
    )
    assert invoke("bench", *arguments).exit_code == 0
    assert len(Reader((tmp_path / "page.html").read_text()).all("section")) == 3


@pytest.mark.parametrize("name", ["run.pdf", "folder.html", "file/run.html"])
def test_page_that_can_not_be_written_is_told_before_anything_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("bedside.bench.measure", None)
    done = invoke("bench", make_bundle(tmp_path / "b"), "--report", tmp_path / name)
    assert done.exit_code == 2
    assert done.stdout == ""


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_missing_library_is_told_before_anything_runs(package: str, tmp_path: Path) -> None:
    code = f"import sys\nsys.modules[{package!r}] = None"
    done = run("bench", "no-such-bundle", "--report", tmp_path / "run.html", code=code)
    assert done.returncode == 2
    assert "pip install 'bedside[bench]'" in done.stderr
