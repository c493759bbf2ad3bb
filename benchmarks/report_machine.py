"""The machine of a comparison, and whether its figures may be used, as parts of a page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from report_fields import Fields

from bedside.bench.report import Row, Table, Verdict
from bedside.bench.report.drawing import count_of

__all__ = ["caption_of", "judge", "list_facts", "list_states"]

UNFINISHED: Final = "NOT COMPLETE: only what was measured until it ended"
THROTTLED: Final = "NOT VALID: these figures may not be used"


def judge(machine: Fields, *, complete: bool) -> Verdict:
    """Whether figures may be used: not of a machine that throttled, and only with care of a run that was cut short."""
    reasons = []
    if machine.flag("throttled"):
        by = ", ".join(machine.texts("throttled_by"))
        reasons.append(f"the machine held its clocks down{f' ({by})' if by else ''}: measure again")
    if not complete:
        reasons.append("it was interrupted, or died; what was finished by then follows")
    if machine.flag("throttled"):
        return Verdict(passed=False, word=THROTTLED, reasons=tuple(reasons))
    if reasons:
        return Verdict(passed=False, word=UNFINISHED, reasons=tuple(reasons))
    return Verdict(
        passed=True, word="Complete" + ("" if machine.flag("throttled") is None else "; no throttling")
    )


def list_facts(machine: Fields) -> Iterator[tuple[str, str]]:
    """Name and value of what was measured on."""
    yield "machine", machine.text("device")
    yield "processor", f"{machine.text('processor')}; {' '.join(machine.texts('flags')) or 'no flags told'}"
    for gpu in machine.texts("gpus"):
        yield "GPU", gpu
    limit = machine.number_or_none("cpu_limit")
    yield "cores", f"{machine.number('cores'):g}" + ("" if limit is None else f", limited to {limit:g}")
    yield "threads of each", f"{machine.number('threads'):g}"
    memory = machine.number_or_none("memory_mib")
    if memory is not None:
        yield "main memory", f"{memory / 1024:.1f} GiB"
    yield "system", f"{machine.text('system')}, Python {machine.text('python')}"
    versions = machine.object("versions")
    yield "versions", ", ".join(f"{name} {versions.text(name)}" for name in versions.values)
    hottest = machine.number_or_none("hottest_c")
    yield "hottest", "not told" if hottest is None else f"{hottest:.0f} degrees Celsius"
    yield "throttled", {True: "YES", False: "no", None: "not told here"}[machine.flag("throttled")]


def list_states(machine: Fields) -> Table:
    """Readings before and after."""
    states = [machine.maybe("before"), machine.maybe("after")]
    rows = [
        Row(
            (
                "power mode",
                *("-" if each is None else each.text_or("power_mode", "not told") for each in states),
                "",
            )
        )
    ]
    clocks = dict.fromkeys(name for each in states if each for name in each.object("clocks_mhz").values)
    for name in clocks:
        pairs = [_pair(each, name) for each in states]
        most = next((pair[1] for pair in pairs if pair[1] != "-"), "-")
        rows.append(Row((f"clock {name}, MHz", pairs[0][0], pairs[1][0], most)))
    for name in dict.fromkeys(
        name for each in states if each for name in each.object("temperatures_c").values
    ):
        told = [
            None if each is None else each.object("temperatures_c").number_or_none(name) for each in states
        ]
        rows.append(Row((f"temperature {name}, degrees Celsius", *(_plain(value, 0) for value in told), "")))
    loads = [None if each is None else each.number_or_none("load") for each in states]
    rows.append(Row(("load, mean of processes over a minute", *(_plain(value, 2) for value in loads), "")))
    return Table("State of the machine", ("", "before", "after", "at most"), tuple(rows))


def caption_of(machine: Fields) -> str:
    """What stands below each picture."""
    return f"{machine.text('device')}, {count_of(int(machine.number('threads')), 'thread', 'threads')}"


def _pair(state: Fields | None, name: str) -> tuple[str, str]:
    """A clock and the most that it can be."""
    pair = None if state is None else state.object("clocks_mhz").values.get(name)
    if not isinstance(pair, list) or len(pair) != 2:
        return "-", "-"
    now, most = (value if isinstance(value, (int, float)) else None for value in pair)
    return _plain(now, 0), _plain(most, 0)


def _plain(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
