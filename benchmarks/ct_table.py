"""The tables of the CT comparison."""

from __future__ import annotations

from typing import Any, Final

import click
from machine import summarise_state
from networks import summarise_weights

__all__ = ["REFERENCE", "STAGES", "show"]

REFERENCE: Final = "pytorch fp32"
TARGETS: Final = {"fp32": 2.0, "half": 12.0, "int8": 18.0}
"""Kind -> how many times faster than PyTorch eager it is to be, end to end, on a machine with AMX."""
TARGETS_WITHOUT_AMX: Final = {"fp32": 2.0, "int8": 3.5}
"""The same where the processor has no AMX, or the instruction sets are capped below it."""
STAGES: Final = ("open", "plan", "read", "preprocess", "inference", "measure", "write", "interpret")
"""open: headers and probes; plan: the engine's warm-up on a scan's tile; inference: with the blending of tiles."""


def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    machine, sides = report["machine"], report["sides"]
    click.echo(f"{machine['processor']}, {machine['cores']} cores, {' '.join(machine['flags'])}")
    click.echo(summarise_state(machine))
    click.echo(summarise_weights(report["weights"]))
    if report["isa"]:
        click.echo(f"oneDNN of all sides capped to {report['isa']}")
    click.echo(f"load average before: {report['load_average']:.1f}; a quiet machine's is near 0")
    for title, versions in (("ours", machine["versions"]), ("reference", machine["reference_versions"])):
        click.echo(f"{title}: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    click.echo(
        f"\n{report['slices']} of {report['series_slices']} slices, ms a slice, median of {report['rounds']}"
    )
    click.echo(f"{'side':<20}{'total':>9}" + "".join(f"{stage:>11}" for stage in STAGES))
    for name, side in sides.items():
        times = (side["stages_ms"].get(stage) for stage in STAGES)
        cells = (f"{'-':>11}" if ms is None else f"{ms / report['slices']:>11.2f}" for ms in times)
        click.echo(f"{name:<20}{side['ms_per_slice']:>9.1f}" + "".join(cells))
    click.echo(
        f"\nthe network takes {report['gflop_per_slice']:.1f} GFLOP a slice; the processor's peak is measured"
    )
    click.echo(
        f"{'side':<20}{'GFLOP/s':>9}{'of peak':>9}{'share':>8}{'processor time':>16}{'peak memory':>13}"
    )
    for name, side in sides.items():
        peak = report["peak_gflops"].get(name.split()[1])
        share = f"{peak:>9.0f}{side['inference_share_of_peak']:>8.0%}" if peak else f"{'-':>9}{'-':>8}"
        click.echo(
            f"{name:<20}{side['inference_gflops']:>9.0f}{share}"
            f"{side['cpu_seconds']:>14.1f} s{side['peak_memory_mib']:>9.0f} MiB"
        )
    click.echo("\nagainst the reference's labels: Dice (difference of volume); at export, on other slices")
    for name, side in sides.items():
        if name != REFERENCE:
            found = report["parity_at_export"].get(name, {"status": "not tried", "share": None})
            share = "" if found["share"] is None else f", {found['share']:.2f} of its tolerance"
            status = found["status"] + share
            verdict = "" if side["inside_tolerance"] else "; OUT OF TOLERANCE here"
            click.echo(f"{name}: " + ", ".join(_agreement(side)) + f"; {status}{verdict}")
    for name, reason in report["skipped"].items():
        click.echo(f"{name}: left out, {reason}")
    click.echo(
        "\nratios, end to end: " + ", ".join(f"{k} {v:.2f}" for k, v in report["ratios_end_to_end"].items())
    )
    click.echo(
        "ratios, inference: " + ", ".join(f"{k} {v:.2f}" for k, v in report["ratios_inference"].items())
    )
    has_amx = "amx_tile" in machine["flags"] and not report["isa"]
    targets = TARGETS if has_amx else TARGETS_WITHOUT_AMX
    for kind, ratio in report["ratios"].items():
        if ratio is None:
            click.echo(f"{kind}: none of its engines is here and inside its tolerance")
        else:
            target = targets.get(kind)
            verdict = "reached" if target and ratio >= target else "missed"
            click.echo(f"{kind}: {ratio:.2f}" + (f" (target {target:g}: {verdict})" if target else ""))


def _agreement(side: dict[str, Any]) -> list[str]:
    return [
        f"{tissue} {'absent' if value is None else f'{value:.5f}'} ({side['volume_difference_ml'][tissue]:+.3f} mL)"
        for tissue, value in side["dice"].items()
    ]
