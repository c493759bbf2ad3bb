"""What a run was measured on, as lines of a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bedside.bench.figures import Energy, Parity
from bedside.bench.record import Conditions, Run, State
from bedside.bench.report.drawing import short
from bedside.bench.report.page import Row, Table

__all__ = ["condition_facts", "parity_table", "run_facts", "state_table"]


UNDER: Final = "under 0.0001"
"""What the decimals of a run's file leave of a small difference."""


def run_facts(run: Run) -> Iterator[tuple[str, str]]:
    """What was measured."""
    yield "bundle", f"{run.bundle.name} {run.bundle.version}, sha256 {run.bundle.digest}"
    place = ", in a process of its own" if run.watched else ""
    yield "engine", f"{run.engine.line}{place}"
    yield "begun", run.made
    sizes = sorted({sample.shape for sample in run.samples})
    told = ", ".join(_shape(size) for size in sizes[:6]) + (" and others" if len(sizes) > 6 else "")
    unit = "voxels" if run.overlapping else "pixels"
    kind = "a computed phantom" if run.phantom else f"{len(run.samples)} given"
    yield "input", f"{kind}: {told} {unit}" if sizes else kind
    if run.left_out:
        yield "left out", ", ".join(f"{count} with {code}" for code, count in run.left_out.items())
    if run.scenarios:
        generator = run.scenarios[0].generator
        yield "queries from", f"{generator.name} {generator.version}; {run.rules}"
    asked = run.settings
    yield (
        "asked for",
        f"at least {asked.queries} studies and {asked.duration_s:g} s a scenario; seed {asked.seed}",
    )
    if run.peak_memory_mib is not None:
        yield "peak memory", f"{short(run.peak_memory_mib)} MiB"
    yield "energy", describe_energy(run.energy)
    yield from condition_facts(run.conditions)


def condition_facts(conditions: Conditions) -> Iterator[tuple[str, str]]:
    """The machine."""
    device = conditions.device
    yield "machine", device.name
    yield (
        "processor",
        f"{device.processor}, {device.architecture}; {' '.join(device.flags) or 'no flags told'}",
    )
    cores = f"{device.logical_cores} logical"
    if device.physical_cores is not None:
        cores += f" on {device.physical_cores} physical"
    yield "cores", cores + ("" if device.cpu_limit is None else f", limited to {device.cpu_limit:g}")
    for gpu in device.gpus:
        yield "GPU", f"{gpu.name}, driver {gpu.driver or 'not told'}"
    if device.memory_bytes is not None:
        yield "main memory", f"{device.memory_bytes / 2**30:.1f} GiB"
    yield "system", conditions.system
    yield "versions", ", ".join(f"{name} {version}" for name, version in conditions.versions.items())
    hottest = conditions.hottest_c
    yield "hottest", "not told here" if hottest is None else f"{hottest:.0f} degrees Celsius"
    by = f" by {', '.join(conditions.throttled_by)}" if conditions.throttled_by else ""
    yield "throttled", {True: f"YES{by}", False: "no", None: "not told here"}[conditions.throttled]


def state_table(before: State, after: State | None) -> Table:
    """Readings before the first study and after the last."""
    rows = [Row(("power mode", *(_mode(state) for state in (before, after)), ""))]
    names = dict.fromkeys([*before.clocks_mhz, *(after.clocks_mhz if after else ())])
    for name in names:
        most = before.max_clocks_mhz.get(name)
        rows.append(
            Row(
                (
                    f"clock {name}, MHz",
                    *(_number(state, "clocks_mhz", name) for state in (before, after)),
                    "" if most is None else f"{most:.0f}",
                )
            )
        )
    for name in dict.fromkeys([*before.temperatures_c, *(after.temperatures_c if after else ())]):
        readings = (_number(state, "temperatures_c", name) for state in (before, after))
        rows.append(Row((f"temperature {name}, degrees Celsius", *readings, "")))
    loads = ("-" if state is None or state.load is None else f"{state.load:.2f}" for state in (before, after))
    rows.append(Row(("load, mean of processes over a minute", *loads, "")))
    return Table("State of the machine", ("", "before", "after", "at most"), tuple(rows))


def parity_table(parity: Parity) -> Table:
    """What the engine answered on the golden inputs."""
    rows = []
    for each in parity.differences:
        off = each.difference is None or each.difference > each.tolerance
        told = (
            "not finite"
            if each.difference is None
            else f"{each.difference:.3g}"
            if each.difference
            else UNDER
        )
        rows.append(
            Row((each.of, told, f"{each.tolerance:g}", "OUT OF TOLERANCE" if off else "within"), wrong=off)
        )
    return Table(
        f"Answers of exactly this engine against the reference, on {parity.golden_inputs} golden inputs, each in the "
        "unit of what it is of",
        ("", "largest difference", "allowed", ""),
        tuple(rows),
        words=(0, 3),
    )


def describe_energy(energy: Energy) -> str:
    """Joules a study, or why there are none."""
    if not energy.measured:
        return energy.reason
    studies = "; ".join(
        f"{each.scenario} {short(each.per_study_j)} J a study above idle ({short(each.per_study_low_j)} to "
        f"{short(each.per_study_high_j)} J, n = {each.studies} studies)"
        for each in energy.studies
    )
    idle = ", ".join(
        f"{watts:.1f} W {when}"
        for watts, when in ((energy.idle_before_w, "before"), (energy.idle_after_w, "after"))
        if watts is not None
    )
    return f"{studies}; idle {idle or 'not measured'}; from {', '.join(energy.counted)}"


def _mode(state: State | None) -> str:
    return "-" if state is None else state.power_mode or "not told"


def _number(state: State | None, column: str, name: str) -> str:
    values: dict[str, float] = {} if state is None else getattr(state, column)
    return f"{values[name]:.0f}" if name in values else "-"


def _shape(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
