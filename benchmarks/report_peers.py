"""A comparison with peers (`peers.py`) as a part of a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from report_fields import Fields
from report_machine import caption_of, judge, list_facts, list_states

from bedside.bench.report import Plot, Row, Section, Table
from bedside.bench.report.drawing import (
    COLOURS,
    FAINT,
    HATCH,
    INK,
    WRONG,
    figure_of,
    plain,
    png_of,
    set_title,
    short,
)

__all__ = ["peers_section"]

ALONE: Final = "the network alone"
"""As `contender.ALONE`."""


@dataclass(frozen=True, slots=True)
class _Side:
    """One contender."""

    name: str
    n: int
    """Warm answers."""
    median_ms: float | None
    p99_ms: float | None
    cold_s: float | None
    """Median."""
    memory_mib: float | None
    installed_mib: float | None
    lines: float | None
    """That a person has to write."""
    times_faster: float | None
    """Than the reference."""
    parity: str
    """How far its answers are."""
    outside: bool
    """Whether that is out of tolerance."""
    alone: bool
    """Whether only its network was timed."""
    died: str
    """What it died of; empty if it lived."""

    @property
    def word(self) -> str:
        """What is to be known of it; empty if nothing is."""
        words = (
            ["OUT OF TOLERANCE"] * self.outside
            + [ALONE] * self.alone
            + [f"DIED: {self.died}"] * bool(self.died)
        )
        return "; ".join(words)


def peers_section(record: Fields) -> Section:
    """All sides, side by side."""
    machine, unit, per = record.object("machine"), record.text("unit"), record.number("divide_by")
    if per <= 0:
        raise ValueError("divide_by is not over 0")
    sides = [_read(name, side, per) for name, side in record.named("sides").items()]
    verdict = judge(machine, complete=bool(record.flag("complete")))
    wrong = "" if verdict.passed else f"{verdict.word.partition(':')[0]}: {'; '.join(verdict.reasons)}"
    left_out = record.object("left_out")
    facts = [
        (
            "measured",
            f"{record.text('what')}; rounds: {record.number('rounds'):g}, cold starts: {record.number('starts'):g}",
        ),
        ("weights", _weights(record.object("weights"))),
        ("compared with", record.text("reference")),
    ]
    for key, title in (
        ("bedside_fp32", "bedside in fp32"),
        ("bedside_best", "bedside's best inside its tolerance"),
    ):
        if name := record.text_or(key):
            ratio = next((side.times_faster for side in sides if side.name == name), None)
            facts.append((title, f"{name}, {short(ratio)} times faster than {record.text('reference')}"))
    if capped := record.text_or("isa"):
        facts.append(("instructions", f"oneDNN of all sides capped to {capped}"))
    return Section(
        title=f"Peers side by side: {record.text('what')}",
        verdict=verdict,
        facts=(*facts, *list_facts(machine)),
        plots=(_plot(sides, unit, caption_of(machine), wrong, record.text("reference")),) if sides else (),
        tables=(list_states(machine),),
        notes=tuple(f"{name} is left out: {left_out.text(name)}" for name in left_out.values),
    )


def _read(name: str, side: Fields, per: float) -> _Side:
    warm, alone = side.object("warm"), side.text("scope") == ALONE
    parity = side.maybe("parity")
    median, p99 = warm.number_or_none("median_ms"), warm.number_or_none("p99_ms")
    divide_by = 1.0 if alone else per
    return _Side(
        name=name,
        n=int(warm.number("n")),
        median_ms=None if median is None else median / divide_by,
        p99_ms=None if p99 is None else p99 / divide_by,
        cold_s=side.number_or_none("cold_start_median_s"),
        memory_mib=side.number_or_none("peak_memory_mib") or None,
        installed_mib=side.number_or_none("installed_mib"),
        lines=side.number_or_none("lines"),
        times_faster=side.number_or_none("times_faster"),
        parity="" if parity is None else parity.text("short"),
        outside=parity is not None and not parity.flag("inside_tolerance"),
        alone=alone,
        died=side.text_or("died"),
    )


def _plot(sides: list[_Side], unit: str, caption: str, wrong: str, reference: str) -> Plot:
    figure, (panels,) = figure_of(1, 3, 0.42 * len(sides) + 2.0, widths=(1.7, 1, 1))
    per = "" if unit == "study" else f"/{unit}"
    _bars(panels[0], sides, "median_ms", f"warm, ms{per}")
    _bars(panels[1], sides, "cold_s", "cold start, s")
    _bars(panels[2], sides, "memory_mib", "peak memory, MiB")
    for place, side in enumerate(sides):
        if side.p99_ms is not None:
            panels[0].plot(side.p99_ms, place, "|", color=INK, markersize=13, label=None if place else "p99")
    for axes, title in zip(
        panels, ("median; tick: p99", "process to first result", "most that it held"), strict=True
    ):
        set_title(axes, title)
        axes.set_ylim(len(sides) - 0.4, -0.6)
    panels[0].set_yticks(range(len(sides)), [f"{plain(side.name)} (n = {side.n})" for side in sides])
    for axes in panels[1:]:
        axes.set_yticks([])
    told = ", ".join(f"{side.name} {short(side.median_ms)} ms" for side in sides)
    return Plot(
        slug="peers",
        title="Side by side",
        png=png_of(figure, f"{caption}. Reference: {reference}.", wrong=wrong),
        alt=f"Warm median of each side, per {unit}: {told}.",
        caption="Green: bedside. Blue: others. Grey: only the network was timed, which can be compared with no other. "
        "Hatched: answers out of tolerance, so that their speed counts for nothing.",
        tables=(_table(sides, unit),),
    )


def _bars(axes: Any, sides: list[_Side], quantity: str, title: str) -> None:
    reach = max([0.0, *(getattr(side, quantity) or 0.0 for side in sides)])
    if quantity == "median_ms":
        reach = max([reach, *(side.p99_ms or 0.0 for side in sides)])
    for place, side in enumerate(sides):
        value = getattr(side, quantity)
        if value is None:
            axes.annotate("not measured", (0, place), xytext=(4, 0), textcoords="offset points", va="center",
                          fontsize=7.5, color=FAINT)  # fmt: skip
            continue
        colour = COLOURS[5] if side.alone else COLOURS[2] if side.name.startswith("bedside") else COLOURS[0]
        outside = (
            {"hatch": HATCH, "edgecolor": WRONG, "facecolor": "white"} if side.outside else {"color": colour}
        )
        axes.barh(place, value, 0.62, **outside)
        end = max(value, side.p99_ms or 0.0) if quantity == "median_ms" else value
        suffix = ""
        if quantity == "median_ms":
            suffix = "" if side.p99_ms is None else f" (p99 {short(side.p99_ms)})"
            suffix += "\nOUT OF TOLERANCE" if side.outside else ""
        axes.annotate(f"{short(value)}{suffix}", (end, place), xytext=(6, 0), textcoords="offset points", va="center",
                      fontsize=8, color=WRONG if side.outside else INK)  # fmt: skip
    axes.set_xlim(0, (1.5 if quantity == "median_ms" else 1.3) * reach or 1.0)
    axes.set_xlabel(title)


def _table(sides: list[_Side], unit: str) -> Table:
    head = (
        "side",
        "n",
        f"median, ms/{unit}",
        f"p99, ms/{unit}",
        "times faster",
        "cold start, s",
        "peak memory, MiB",
        "installed, MiB",
        "lines to write",
        "answers against the reference",
        "",
    )
    rows = tuple(
        Row(
            (
                side.name,
                str(side.n),
                short(side.median_ms),
                short(side.p99_ms),
                short(side.times_faster),
                short(side.cold_s),
                short(side.memory_mib),
                short(side.installed_mib),
                "-" if side.lines is None else f"{side.lines:.0f}",
                side.parity or "-",
                side.word,
            ),
            wrong=side.outside or bool(side.died),
        )
        for side in sides
    )
    return Table("Every side; n: warm answers", head, rows, words=(0, 9, 10))


def _weights(weights: Fields) -> str:
    if weights.flag("trained"):
        return f"trained, sha256 {weights.text('sha256')[:12]}"
    return (
        f"{weights.text_or('source', 'not told')}, not trained: what lower precision costs them says little"
    )
