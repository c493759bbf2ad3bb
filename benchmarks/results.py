"""Write RESULTS.md: the tables of a full run, each beside the command that made it.

    python benchmarks/all.py --out run
    python benchmarks/results.py run

Nothing is measured here, and nothing is left out: a step that failed, or that is missing, is told; one whose figures
are not to be used (parity failed, the machine throttled or was busy, it was cut short) is marked with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click
from result_tables import TABLES
from steps import Choice, Inputs, Step, list_steps

__all__ = ["RESULTS", "find_faults", "write_results"]

RESULTS: Final = Path(__file__).with_name("RESULTS.md")
BUSY: Final = 0.1
"""Share of the processors that something else may take before or after a step."""
TITLES: Final = {
    "bench": "`bedside bench`",
    "cxr": "X-rays beside torchxrayvision",
    "ct": "CT beside a plain loop in PyTorch",
    "peers": "Beside the peers",
    "steady": "Steady latency",
    "roofline": "Against the machine's limit",
    "growth": "Growth",
}
"""Kind of step -> its heading."""


def write_results(folder: Path, path: Path) -> list[str]:
    """Write the page; returns the names of steps without tables.

    Raises:
        click.UsageError: The folder holds no run.
    """
    try:
        run: dict[str, Any] = json.loads((folder / "run.json").read_text("utf-8"))
        steps: dict[str, Any] = run["steps"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise click.UsageError(f"{folder} holds no run of all.py; give another folder") from error
    found = {name: _read(folder / f"{name}.json") for name in steps}
    told = {
        name: figures for name, figures in found.items() if figures is not None and not steps[name]["failed"]
    }
    path.write_text("\n".join(part for part in _compose(run, told) if part).strip() + "\n", "utf-8")
    return [name for name in steps if name not in told and _has_figures(name)]


def find_faults(figures: Mapping[str, Any], step: Mapping[str, Any]) -> list[str]:
    """Why figures are not to be used; nothing where they may be.

    Args:
        figures: Of a step.
        step: What ``run.json`` says of it.
    """
    faults = list(figures.get("reasons", ())) if figures.get("valid", True) is False else []
    if figures.get("complete", True) is False:
        faults.append("it was cut short")
    machine = figures.get("machine", {})
    if machine.get("throttled"):
        faults.append(f"the machine throttled ({', '.join(machine['throttled_by']) or 'no reason told'})")
    busy = [
        (step[f"busy_{when}"], when) for when in ("before", "after") if step.get(f"busy_{when}") is not None
    ]
    if busy and max(busy)[0] > BUSY:
        share, when = max(busy)
        faults.append(
            f"the machine was not quiet: {share:.0%} of it was at work on something else {when} the step"
        )
    return faults


def _compose(run: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[str]:
    steps = run["steps"]
    yield "# Results\n"
    yield (
        "The tables of the last full run, written by `python benchmarks/results.py`; each stands beside the command "
        "that made it (`python benchmarks/all.py` runs them all). Times are of this machine, ratios travel better. "
        "Not for clinical use.\n"
    )
    if run["small"]:
        yield "**A small run (`--small`): it says that all of it works, and nothing of speed.**\n"
    yield from _describe(told)
    commits = {step.get("commit") for step in steps.values()}
    if len(commits) > 1:
        yield "**The steps are of several commits; each says its own.**\n"
    kind = ""
    for name, step in steps.items():
        if not _has_figures(name):
            continue
        if kind != (kind := name.partition("-")[0]):
            yield f"## {TITLES[kind]}\n"
        yield from _tell_step(name, step, told.get(name))
    missing = [step.name for step in _list_all(small=run["small"]) if step.name not in steps and step.figures]
    if missing:
        yield f"Not run: {', '.join(missing)}.\n"
    for name, step in steps.items():
        if step["failed"] and not _has_figures(name):
            yield f"**{name} FAILED: {step['failed']}** (`{step['command']}`).\n"


def _tell_step(name: str, step: Mapping[str, Any], figures: Any) -> Iterator[str]:
    yield f"### {name}\n"
    yield f"`{step['command']}`\n"
    yield f"{step['begun']}, {step['minutes']:.1f} min, commit {_name_commit(step)}.\n"
    if step["failed"]:
        yield f"**FAILED: {step['failed']}.**\n"
    elif figures is None:
        yield "**Its figures are missing or damaged.**\n"
    else:
        if faults := find_faults(figures, step):
            yield f"**INVALID: {'; '.join(faults)}.**\n"
        yield from TABLES[name.partition("-")[0]](figures)


def _describe(told: Mapping[str, Any]) -> Iterator[str]:
    """The machine, from the first step that tells all of it."""
    machine = next((figures["machine"] for figures in told.values() if "machine" in figures), None)
    if machine is None:
        return
    memory = "" if machine["memory_mib"] is None else f", {machine['memory_mib'] / 1024:.0f} GiB"
    yield (
        f"{machine['processor']}, {machine['cores']} cores{memory}, {' '.join(machine['flags'])}"
        f"{''.join(f'; {gpu}' for gpu in machine['gpus'])}; {machine['threads']} threads; {machine['system']}, Python "
        f"{machine['python']}.\n"
    )
    versions: dict[str, str] = {}
    for figures in told.values():
        versions |= figures.get("machine", {}).get("versions", {})
    yield ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + ".\n"


def _list_all(*, small: bool) -> list[Step]:
    inputs = Inputs(Path(), Path()) if small else None
    return list_steps(Choice("random:0", "random:0", Path(), "python", inputs))


def _has_figures(name: str) -> bool:
    return name.partition("-")[0] in TABLES


def _name_commit(step: Mapping[str, Any]) -> str:
    commit = step.get("commit")
    return "not told" if commit is None else f"{commit[:12]}{' with changes' if step.get('changed') else ''}"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=RESULTS,
    help="The page.  [default: RESULTS.md beside this script]",
)
def main(*, run: Path, out: Path) -> None:
    """Write the tables of a full run, which lies in the folder RUN."""
    lacking = write_results(run, out)
    click.echo(f"{out.name} is written" + (f"; without tables: {', '.join(lacking)}" if lacking else ""))


if __name__ == "__main__":
    main()
