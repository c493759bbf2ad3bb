"""What ``bedside bench`` prints: how far it is, a run as tables, and two runs side by side."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from bedside.bench import Comparison, Listener, Ratio, Run
from bedside.bench.figures import STAGES, Energy, Parity, Scenario, Start
from bedside.bench.record import State
from bedside.cli.console import columns, field, printable
from bedside.provenance import NOTICE

__all__ = ["describe", "describe_comparison", "progress"]

BAR: Final = "{desc}|{bar}| {n_fmt}/{total_fmt} [{elapsed}]"
"""Without a rate: steps take from milliseconds to minutes."""
REFRESH_S: Final = 0.2
"""How often the bar is drawn: it would be felt between two studies."""
SCENARIOS: Final = ("scenario", "studies", "p50 ms", "p90 ms", "p99 ms", "longest", "a second", "")
STARTS: Final = ("first result", "times", "median ms", "least", "most", "of it to open")
RATIOS: Final = ("", "", "old", "new", "", "new/old", "95 % interval", "")


@contextmanager
def progress(check: Callable[[], None], *, shown: bool) -> Iterator[Listener]:
    """Show how far a measurement is on standard error; ``check`` raises what is to end it."""
    if not shown:
        yield Listener(lambda _phase, _done, _total: check(), check)
        return
    from tqdm import tqdm  # noqa: PLC0415 - only for a terminal

    with tqdm(total=1, file=sys.stderr, leave=False, dynamic_ncols=True, bar_format=BAR) as bar:
        shown_phase, shown_at = "", 0.0

        def report(phase: str, done: int, total: int) -> None:
            nonlocal shown_phase, shown_at
            check()
            now = time.monotonic()
            if phase == shown_phase and now - shown_at < REFRESH_S:
                return
            shown_phase, shown_at = phase, now
            bar.set_description_str(f"{printable(phase)} ", refresh=False)
            bar.total, bar.n = total, done
            bar.refresh()

        yield Listener(report, check)


def describe(run: Run) -> str:
    """A run, for people."""
    manifest, conditions, device = run.bundle, run.conditions, run.conditions.device
    state = _state(conditions.before, conditions.after)
    told = {True: "yes", False: "no", None: "not told here"}[conditions.throttled]
    hottest = "" if conditions.hottest_c is None else f"hottest {conditions.hottest_c:.0f} degrees; "
    lines = [
        field("bundle", f"{manifest.name} {manifest.version}, sha256 {manifest.digest[:12]}"),
        field("engine", run.engine.line + (", in a process of its own" if run.watched else "")),
        field("machine", f"{device.name}, {_cores(device.logical_cores)}, {' '.join(device.flags)}"),
        *(field("GPU", f"{gpu.name}, driver {gpu.driver or 'not told'}") for gpu in device.gpus),
        field("state", f"{state}{hottest}throttled: {told}"),
        field("versions", ", ".join(f"{name} {version}" for name, version in conditions.versions.items())),
        field("input", _inputs(run)),
        field("parity", _parity(run.parity)),
    ]
    if run.scenarios:
        generator = run.scenarios[0].generator
        lines.append(field("queries from", f"{generator.name} {generator.version}; {run.rules}"))
        lines += ["", _table(SCENARIOS, [_scenario(each) for each in run.scenarios], words=(0, 7))]
        lines += ["", *_tail(run)]
        lines += _stages(run)
    firsts = [_start(each) for each in run.starts if each.total_ms]
    lines += ["", _table(STARTS, firsts, words=(0,)), ""] if firsts else []
    if run.starts:
        lines += [field(each.kind, f"not measured: {each.skipped}") for each in run.starts if each.skipped]
    lines += _search(run)
    lines += _energy(run.energy)
    if run.peak_memory_mib is not None:
        lines.append(field("peak memory", f"{run.peak_memory_mib:.0f} MiB"))
    lines += [field("" if number else "notes", note) for number, note in enumerate(run.notes)]
    verdict = ("yes" if run.valid else "no") + ("" if run.complete else ", and not complete")
    lines += [field("valid", "; ".join((verdict, *run.reasons)))]
    return "\n".join([*lines, NOTICE])


def describe_comparison(found: Comparison) -> str:
    """Two runs side by side, for people."""
    lines = [_table(RATIOS, [_ratio(each) for each in found.ratios], words=(0, 1, 4, 7)), ""]
    lines += [field("" if number else "beware", doubt) for number, doubt in enumerate(found.doubts)]
    lines += [field("" if number else "not the same", each) for number, each in enumerate(found.differs)]
    counts = {word: sum(each.verdict == word for each in found.ratios) for word in ("faster", "slower")}
    lines.append(
        field(
            "in all",
            f"{counts['faster']} faster, {counts['slower']} slower, the others are noise or too few to tell"
            + ("; what is not the same may be why" if found.differs else ""),
        )
    )
    return "\n".join([*lines, NOTICE])


def _state(before: State, after: State | None) -> str:
    clocks = [
        f"{name} {mhz:.0f} to {after.clocks_mhz[name]:.0f} MHz; "
        for name, mhz in before.clocks_mhz.items()
        if after is not None and name in after.clocks_mhz
    ]
    return f"power mode {before.power_mode or 'not told'}; {''.join(clocks)}"


def _inputs(run: Run) -> str:
    sizes = sorted({sample.shape for sample in run.samples})
    told = ", ".join(map(_shape, sizes[:4])) + (" ..." if len(sizes) > 4 else "")
    out = "".join(f"; {count} left out [{code}]" for code, count in run.left_out.items())
    kind = "a computed phantom" if run.phantom else f"{len(run.samples)} given"
    return f"{kind}: {told}{out}"


def _parity(parity: Parity | None) -> str:
    if parity is None:
        return "not run"
    differences = [
        f"{each.of} {'not finite' if each.difference is None else f'{each.difference:.2g}'} "
        f"(at most {each.tolerance:g})"
        for each in parity.differences
    ]
    verdict = "passed" if parity.passed else "FAILED"
    return f"{verdict} on {parity.golden_inputs} golden inputs: {', '.join(differences)}"


def _scenario(scenario: Scenario) -> tuple[str, ...]:
    latency = scenario.latency
    name = scenario.name
    if scenario.rate_per_second is not None:
        name = f"{name} at {scenario.rate_per_second:.3g} a second"
    verdict = "" if scenario.complete else "not finished"
    if scenario.held is not None:
        verdict = "held" if scenario.held else "not held"
    times = ("", "", "", "")
    if latency is not None:
        times = (_ms(latency.p50_ms), _ms(latency.p90_ms), _ms(latency.p99_ms), _ms(latency.max_ms))
    rate = "" if scenario.per_second is None else f"{scenario.per_second:.3g}"
    return (name, str(len(scenario.queries.samples)), *times, rate, verdict)


def _tail(run: Run) -> list[str]:
    """MLPerf's own figure of a single stream."""
    stream = run.scenario("single-stream")
    if stream is None or stream.latency is None:
        return []
    count, latency = len(stream.queries.samples), stream.latency
    parts = [
        f"{share} of 10 are faster than {_ms(value)} ms"
        if value is not None
        else f"{title} takes {needs} queries, and there were {count}"
        for share, title, value, needs in (
            ("9", "p90", latency.p90_early_ms, latency.p90_needs),
            ("9.9", "p99", latency.p99_early_ms, latency.p99_needs),
        )
    ]
    return [field("at 99 % confidence", "; ".join(parts) + " (early stopping)")]


def _stages(run: Run) -> list[str]:
    stream = run.scenario("single-stream")
    if stream is None or not stream.queries.samples:
        return []
    told = [
        f"{stage} {_ms(statistics.median(stream.queries.stages_ms[stage]))}"
        for stage in STAGES
        if stage in stream.queries.stages_ms
    ]
    overlap = "; they overlap, so that their sum is over the whole" if run.overlapping else ""
    return [field("stages, median ms", ", ".join(told) + overlap), *_sizes(run, stream)]


def _sizes(run: Run, stream: Scenario) -> list[str]:
    """A line for each size of the input, where there are several."""
    times: dict[tuple[int, ...], list[float]] = {}
    for sample, latency in zip(stream.queries.samples, stream.queries.latency_ms, strict=True):
        times.setdefault(run.samples[sample].shape, []).append(latency)
    if len(times) < 2:
        return []
    told = [f"{_shape(size)} {_ms(statistics.median(times[size]))}" for size in sorted(times, key=math.prod)]
    return [field("by size, median ms", ", ".join(told))]


def _start(start: Start) -> tuple[str, ...]:
    opened = start.parts_ms.get("open", ())
    return (
        start.kind,
        str(len(start.total_ms)),
        _ms(statistics.median(start.total_ms)),
        _ms(min(start.total_ms)),
        _ms(max(start.total_ms)),
        _ms(statistics.median(opened)) if opened else "",
    )


def _search(run: Run) -> list[str]:
    search = run.search
    if search is None:
        return []
    within = f"99 in 100 within {_ms(search.bound_ms)} ms ({search.bound_from})"
    if search.best_per_second is None:
        return [field("server", f"no rate was held with {within}")]
    sure = (
        "early stopping confirms it" if search.confirmed else "too few queries for early stopping to confirm"
    )
    step = f"searched to {search.step_per_second:.2g}"
    return [field("server", f"{search.best_per_second:.3g} a second, {within}; {step}; {sure}")]


def _energy(energy: Energy) -> list[str]:
    if not energy.measured:
        return [field("energy", energy.reason)]
    idle = " and ".join(
        f"{watts:.1f} W {when}"
        for watts, when in ((energy.idle_before_w, "before"), (energy.idle_after_w, "after"))
        if watts is not None
    )
    studies = [
        f"{each.scenario} {each.per_study_j:.3g} J a study above idle "
        f"({each.per_study_low_j:.3g} to {each.per_study_high_j:.3g})"
        for each in energy.studies
    ]
    return [field("energy", f"{'; '.join(studies)}; idle {idle}; from {', '.join(energy.counted)}")]


def _ratio(each: Ratio) -> tuple[str, ...]:
    interval = "" if each.low is None or each.high is None else f"{each.low:.3f} to {each.high:.3f}"
    return (
        each.of,
        each.quantity,
        f"{each.old:.4g}",
        f"{each.new:.4g}",
        each.unit,
        f"{each.ratio:.3f}",
        interval,
        each.verdict,
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: Sequence[int]) -> str:
    """Rows below their heading; what is no word stands to the right of its column."""
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    return columns(
        [
            cell if column in words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in table
    )


def _shape(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))


def _cores(count: int) -> str:
    return f"{count} core{'s' * (count > 1)}"


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
