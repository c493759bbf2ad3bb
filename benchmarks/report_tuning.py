"""A report of ``bedside tune`` as a part of a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from report_fields import Fields

from bedside.bench.report import Plot, Row, Section, Table, Verdict
from bedside.bench.report.drawing import (
    COLOURS,
    HATCH,
    INK,
    WRONG,
    count_of,
    figure_of,
    plain,
    png_of,
    set_title,
    short,
)

__all__ = ["Candidate", "read_candidates", "tuning_section"]

PASSED: Final = "passed"
MISSING: Final = "not here"
"""As `bedside.tuning.outcome.Outcome.word`; what is missing has not failed."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What came of one engine and precision."""

    backend: str
    precision: str
    threads: str
    """As text; empty where the engine chose."""
    rank: int | None
    """Among those that may be used."""
    verdict: str
    """In a word or two."""
    why: str
    """Why it may not be used."""
    median_ms: float | None
    p90_ms: float | None
    open_s: float | None
    peak_mib: float | None
    runs: int
    differences: dict[str, tuple[float | None, float]]
    """Quantity -> largest difference, None for not finite, and what is allowed."""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.backend} {self.precision}" + (
            f", {count_of(int(self.threads), 'thread', 'threads')}" if self.threads else ""
        )

    @property
    def passed(self) -> bool:
        """Whether it may be used."""
        return self.verdict == PASSED


def read_candidates(record: Fields) -> list[Candidate]:
    """All of a report, the best first, then in the order in which they were tried."""
    found = []
    for each in record.each("candidates"):
        error, threads, rank = (
            each.maybe("error"),
            each.number_or_none("threads"),
            each.number_or_none("rank"),
        )
        found.append(
            Candidate(
                backend=each.text("backend"),
                precision=each.text("precision"),
                threads="" if threads is None else f"{threads:g}",
                rank=None if rank is None else int(rank),
                verdict=each.text("verdict"),
                why=each.text_or("doubt") if error is None else error.text("message"),
                median_ms=each.number_or_none("median_ms"),
                p90_ms=each.number_or_none("p90_ms"),
                open_s=each.number_or_none("open_s"),
                peak_mib=each.number_or_none("peak_mib"),
                runs=int(each.number("runs")),
                differences={
                    one.text("of"): (one.number_or_none("difference"), one.number("tolerance"))
                    for one in each.each("differences")
                },
            )
        )
    return sorted(found, key=lambda each: len(found) + 1 if each.rank is None else each.rank)


def tuning_section(record: Fields) -> Section:
    """What came of each engine."""
    bundle, key = record.object("bundle"), record.object("key")
    found = read_candidates(record)
    usable = any(each.rank for each in found)
    timed = [each for each in found if each.median_ms is not None]
    shape = " x ".join(f"{side:g}" for side in record.values.get("shape", ()))
    facts = (
        ("bundle", f"{bundle.text('name')} {bundle.text('version')}, sha256 {bundle.text('digest')}"),
        ("machine", key.text("device")),
        ("made", record.text("made")),
        ("timed", f"the network alone, an input of {shape}, {record.number('rounds'):g} rounds"),
    )
    return Section(
        title=f"bedside tune: {bundle.text('name')} {bundle.text('version')}",
        verdict=Verdict(
            usable, "Complete" if usable else "NONE QUALIFIED: no engine may be used but the reference"
        ),
        facts=facts,
        plots=(_plot(timed, found, f"{bundle.text('name')}; {key.text('device')}"),) if timed else (),
        tables=() if timed else (_table(found),),
        notes=tuple(f"{each.name}: {each.verdict}, {each.why}" for each in found if each.why),
    )


def _plot(timed: list[Candidate], found: list[Candidate], caption: str) -> Plot:
    figure, ((axes,),) = figure_of(1, 1, 0.4 * len(timed) + 1.7)
    reach = 0.0
    for place, each in enumerate(timed):
        ms = each.median_ms or 0.0
        end = max(ms, each.p90_ms or 0.0)
        reach = max(reach, end)
        look = (
            {"color": COLOURS[0]}
            if each.passed
            else {"facecolor": "white", "edgecolor": WRONG, "hatch": HATCH}
        )
        axes.barh(place, ms, 0.62, **look)
        if each.p90_ms is not None:
            axes.plot(each.p90_ms, place, "|", color=INK, markersize=13)
        word = f"{short(ms)} ms (p90 {short(each.p90_ms)})" + (
            "" if each.passed else f", {each.verdict.upper()}"
        )
        axes.annotate(word, (end, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8.5,
                      color=INK if each.passed else WRONG)  # fmt: skip
    axes.set_yticks(range(len(timed)), [plain(f"{each.name} (n = {each.runs})", 60) for each in timed])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.45 * reach or 1.0)
    axes.set_xlabel("the network alone, ms a picture or tile")
    set_title(axes, "median; tick: p90")
    told = ", ".join(f"{each.name} {short(each.median_ms)} ms ({each.verdict})" for each in timed)
    return Plot(
        slug="tuning",
        title="Which engine is best here",
        png=png_of(figure, caption),
        alt=f"Median time of {count_of(len(timed), 'engine', 'engines')}: {told}.",
        caption="Hatched: may not be used, whatever its speed. The best comes first: the fastest, unless one of more "
        "exact arithmetic is hardly slower.",
        tables=(_table(found),),
    )


def _table(found: list[Candidate]) -> Table:
    rows = []
    for each in found:
        worst = max(
            each.differences.items(),
            key=lambda pair: _share(*pair[1]),
            default=None,
        )
        told = "-"
        if worst is not None:
            name, (difference, tolerance) = worst
            told = f"{name} {'not finite' if difference is None else f'{difference:.2g}'} (at most {tolerance:g})"
        rows.append(
            Row(
                (
                    each.name,
                    "-" if each.rank is None else str(each.rank),
                    each.verdict if each.passed else each.verdict.upper(),
                    told,
                    str(each.runs),
                    short(each.median_ms),
                    short(each.p90_ms),
                    short(each.open_s),
                    short(each.peak_mib),
                ),
                wrong=not each.passed and each.verdict != MISSING,
            )
        )
    head = ("engine", "rank", "verdict", "worst difference on the golden inputs", "n, runs", "median, ms", "p90, ms",
            "open, s", "peak memory, MiB")  # fmt: skip
    return Table("Every candidate", head, tuple(rows), words=(0, 2, 3))


def _share(difference: float | None, tolerance: float) -> float:
    """A difference in parts of what is allowed."""
    return float("inf") if difference is None or tolerance <= 0 else difference / tolerance
