"""The readers' agreement as files: tables, JSON, and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside.agreement import Interval
from bedside.provenance import NOTICE
from bedside.version import __version__
from bedside_export.evaluation.observers import (
    EXTENT_MAXIMUM,
    GLOBAL_MAXIMUM,
    NetworkPlace,
    ReaderAgreement,
    Readings,
    ZoneAgreement,
)
from bedside_export.evaluation.plots import COLOURS, FAINT, INK, dots, draw_limits, panels, to_png

__all__ = ["SCHEMA", "Observers", "draw_observers", "render_observers", "to_observer_results"]

SCHEMA: Final = "bedside.evaluation-observers/1"
_READERS: Final = "Scored by a senior and a junior radiologist (Brixia: six zones of 0 to 3, 18 in sum)."
_GROUP_HEADS: Final = (
    "view",
    "pictures",
    "mean absolute difference",
    "junior less senior (95 %)",
    "limits of agreement",
    "kappa, quadratic weights",
    "ICC(2,1)",
)
_PLACE_HEADS: Final = (
    "network",
    "view",
    "pictures",
    "readers from each other",
    "from senior",
    "from junior",
    "from their mean",
    "ratio (95 %)",
    "less their mean",
    "limits of agreement",
    "ICC(2,1) of the three",
)
_LEGEND: Final = (
    "Readers' global scores / 18 * 8 beside the network's extent; mean absolute differences. *Ratio*: how far the "
    "network is from a reader, over how far the readers are from each other: at 1 it is as near as they are. Patients "
    "drawn again 2,000 times. The mean of two readers has less noise than one: the distance from it flatters. Extent "
    "(how much of the lungs) and Brixia (how much, and how dense) are not the same measure: a network of extent "
    "differs from the readers for that, too."
)

Float = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Observers:
    """Two readers, and networks beside them."""

    readings: Readings
    """The readers' scores."""
    zones: list[ZoneAgreement]
    """Agreement of the readers, zone by zone; the last over all zones."""
    groups: list[ReaderAgreement]
    """Agreement of their global scores: all, and by view."""
    networks: dict[str, tuple[Float, list[NetworkPlace]]]
    """Network -> its extents ``(N,)`` and its place: all, and by view."""
    notes: list[str]
    """What a reader of the tables has to know."""


def render_observers(observers: Observers) -> str:
    """``table.md``."""
    readings = observers.readings
    lines = [
        "# Two radiologists on the same X-rays",
        "",
        f"**{NOTICE}** {len(readings.images)} pictures of {len(set(readings.patients))} patients. {_READERS}",
        "",
        *(f"> {note}\n" for note in observers.notes),
        "## Zone by zone",
        "",
        "| zone | ratings | same | kappa, quadratic weights (95 %) | junior less senior |",
        "|---|---|---|---|---|",
        *(
            f"| {zone.zone} | {zone.ratings} | {zone.same:.0%} | {_interval(zone.kappa)} | {zone.bias:+.2f} |"
            for zone in observers.zones
        ),
        "",
        "A to C: the patient's right lung from above; D to F: the left. Intervals take ratings as independent.",
        "",
        f"## Global score (0 to {GLOBAL_MAXIMUM})",
        "",
        f"| {' | '.join(_GROUP_HEADS)} |",
        "|---" * len(_GROUP_HEADS) + "|",
        *(_group_row(group) for group in observers.groups),
        "",
    ]
    if observers.networks:
        lines += [
            f"## Networks among the readers (points of extent, 0 to {EXTENT_MAXIMUM})",
            "",
            f"| {' | '.join(_PLACE_HEADS)} |",
            "|---" * len(_PLACE_HEADS) + "|",
            *(_place_row(place) for _, places in observers.networks.values() for place in places),
            "",
            _LEGEND,
            "",
        ]
    return "\n".join(lines)


def _group_row(group: ReaderAgreement) -> str:
    quantity = group.quantity
    pair = quantity.pairs[0]
    found = pair.bland_altman
    bias = (
        "-" if found is None else f"{found.bias.value:+.2f} ({found.bias.low:+.2f} to {found.bias.high:+.2f})"
    )
    limits = "-" if found is None else f"{found.lower.value:+.1f} to {found.upper.value:+.1f}"
    icc = None if quantity.icc is None else quantity.icc["ICC(2,1)"]
    return (
        f"| {group.group} | {len(quantity.cases)} | {pair.mean_absolute:.2f} | {bias} | {limits} | "
        f"{_interval(pair.kappa)} | {_interval(icc)} |"
    )


def _place_row(place: NetworkPlace) -> str:
    limits = place.limits
    bias = "-" if limits is None else f"{limits.bias.value:+.2f}"
    between = "-" if limits is None else f"{limits.lower.value:+.2f} to {limits.upper.value:+.2f}"
    icc = None if place.icc is None else place.icc["ICC(2,1)"]
    return (
        f"| {place.network} | {place.group} | {place.pictures} | {place.between_readers:.2f} | {place.to_senior:.2f} | "
        f"{place.to_junior:.2f} | {place.to_mean:.2f} | {_interval(place.ratio)} | {bias} | {between} | "
        f"{_interval(icc)} |"
    )


def _interval(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.value:.2f} ({interval.low:.2f} to {interval.high:.2f})"


def to_observer_results(observers: Observers, about: Mapping[str, Any]) -> dict[str, Any]:
    """``results.json``."""
    readings = observers.readings
    return {
        "schema": SCHEMA,
        "pictures": len(readings.images),
        "patients": len(set(readings.patients)),
        "notes": observers.notes,
        "zones": [{**asdict(zone), "table": zone.table.tolist()} for zone in observers.zones],
        "global": [
            {
                "view": group.group,
                "pictures": len(group.quantity.cases),
                "agreement": asdict(group.quantity.pairs[0]),
                "icc": None
                if group.quantity.icc is None
                else {name: asdict(value) for name, value in group.quantity.icc.items()},
            }
            for group in observers.groups
        ],
        "networks": [asdict(place) for _, places in observers.networks.values() for place in places],
        **about,
        "bedside": __version__,
        "notice": NOTICE,
    }


def draw_observers(observers: Observers) -> dict[str, bytes]:
    """PNG files by their names."""
    files = {"zones.png": _draw_zones(observers.zones), "global.png": _draw_groups(observers)}
    for place, (name, (extents, _)) in enumerate(observers.networks.items(), 1):
        files[f"network-{place}.png"] = _draw_network(name, extents, observers.readings)
    return files


def _draw_zones(zones: Sequence[ZoneAgreement]) -> bytes:
    figure, (left, right) = panels(2, inches=4.4)
    for place, zone in enumerate(zones):
        if zone.kappa is not None:
            reach = [[zone.kappa.value - zone.kappa.low], [zone.kappa.high - zone.kappa.value]]
            left.errorbar([place], [zone.kappa.value], reach, fmt="o", color=COLOURS[0], capsize=4)
    left.set_xticks(range(len(zones)), [zone.zone for zone in zones])
    left.set_ylim(0, 1)
    left.set_xlabel("zone", fontsize=9, color=INK)
    left.set_ylabel("kappa, quadratic weights", fontsize=9, color=INK)
    left.set_title("Agreement on a zone, 95 % intervals", fontsize=9.5, color=INK, loc="left")
    table = zones[-1].table
    right.imshow(table, cmap="Blues", vmin=0)
    for row, counts in enumerate(table):
        for column, count in enumerate(counts):
            shade = "white" if count > table.max() / 2 else INK
            right.text(column, row, str(count), ha="center", va="center", fontsize=9, color=shade)
    right.set_xticks(range(len(table)))
    right.set_yticks(range(len(table)))
    right.set_xlabel("junior", fontsize=9, color=INK)
    right.set_ylabel("senior", fontsize=9, color=INK)
    right.set_title("Ratings of all zones", fontsize=9.5, color=INK, loc="left")
    return to_png(figure, caption="Brixia scores of two radiologists. Intervals take ratings as independent.")


def _draw_groups(observers: Observers) -> bytes:
    figure, axes = panels(len(observers.groups), across=3)
    for each, group in zip(axes, observers.groups, strict=True):
        values = group.quantity.values
        difference = values[:, 1] - values[:, 0]
        each.axhline(0, color=FAINT, linewidth=1, zorder=1)
        each.plot(values.mean(axis=1), difference, **dots())
        found = group.quantity.pairs[0].bland_altman
        if found is not None:
            draw_limits(each, found)
        each.set(xlim=(-1, GLOBAL_MAXIMUM + 1), ylim=_reach(observers.readings.sums))
        each.set_xlabel("mean of the two", fontsize=9, color=INK)
        each.set_ylabel("junior less senior", fontsize=9, color=INK)
        each.set_title(f"{group.group}: {len(values)} pictures", fontsize=9.5, color=INK, loc="left")
    return to_png(
        figure,
        caption="Global Brixia score (0 to 18) of two radiologists. Lines: bias and limits of agreement (95 %).",
    )


def _reach(sums: npt.NDArray[np.int64]) -> tuple[float, float]:
    widest = float(np.abs(sums[:, 1] - sums[:, 0]).max()) + 1.5
    return -widest, widest


def _draw_network(name: str, extents: Float, readings: Readings) -> bytes:
    """The network against the mean of the readers, and all three pairs' differences on the same axes."""
    given = np.isfinite(extents)
    sums = readings.sums[given] / GLOBAL_MAXIMUM * EXTENT_MAXIMUM
    senior, junior, network = sums[:, 0], sums[:, 1], extents[given]
    figure, (left, right) = panels(2, inches=4.6)
    views = np.asarray(readings.views)[given]
    left.plot([0, EXTENT_MAXIMUM], [0, EXTENT_MAXIMUM], color=FAINT, linewidth=1, zorder=1)
    for place, view in enumerate(dict.fromkeys(readings.views)):
        chosen = views == view
        if chosen.any():
            colour = COLOURS[place % len(COLOURS)]
            left.plot(((senior + junior) / 2)[chosen], network[chosen], label=view, **dots(colour))
    left.legend(fontsize=8, frameon=False, loc="upper left", handletextpad=0.2)
    left.set(xlim=(-0.4, EXTENT_MAXIMUM + 0.4), ylim=(-0.4, EXTENT_MAXIMUM + 0.4))
    left.set_xlabel("mean of the readers, points of extent", fontsize=9, color=INK)
    left.set_ylabel("network", fontsize=9, color=INK)
    left.set_title("Network against readers", fontsize=9.5, color=INK, loc="left")
    pairs: list[tuple[str, Float]] = [
        ("junior - senior", junior - senior),
        ("network - senior", network - senior),
        ("network - junior", network - junior),
    ]
    drawn = right.boxplot(
        [difference for _, difference in pairs], widths=0.5, patch_artist=True, medianprops={"color": INK}
    )
    for box, colour in zip(drawn["boxes"], COLOURS, strict=False):
        box.set(facecolor=colour, alpha=0.6)
    right.axhline(0, color=FAINT, linewidth=1, zorder=1)
    labels = [f"{pair}\nmean |d| {np.abs(values).mean():.2f}" for pair, values in pairs]
    right.set_xticks(range(1, len(pairs) + 1), labels, fontsize=8)
    right.set_ylabel("difference, points of extent", fontsize=9, color=INK)
    right.set_title("Who is how far from whom", fontsize=9.5, color=INK, loc="left")
    figure.suptitle(f"{name}: {len(network)} pictures".replace("$", r"\$"), fontsize=11, x=0.01, ha="left")
    return to_png(
        figure,
        caption="Readers' Brixia sums / 18 * 8 beside the network's extent. Boxes: quartiles and median.",
    )
