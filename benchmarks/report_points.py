"""How far each engine is from the reference, and how long it takes: points for the picture of accuracy against latency.

points_of_run(run), points_of_tuning(record), points_of_peers(record)   out of each kind of file
read_knowledge(sources)                                                 what export measured, and experts said
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from report_fields import Fields
from report_peers import ALONE
from report_tuning import read_candidates

from bedside.bench.record import DIGITS, Run
from bedside.bench.report.drawing import count_of
from bedside.bundle import Bundle
from bedside.errors import BundleError
from bedside.records import parse

__all__ = [
    "DICE",
    "OPACITY",
    "VOLUME",
    "Knowledge",
    "Known",
    "Point",
    "points_of_peers",
    "points_of_run",
    "points_of_tuning",
    "read_knowledge",
]

DICE: Final = "worst Dice loss of a tissue"
_DICE_OF: Final = "Dice loss of "
"""As `bedside.verification` has it."""
VOLUME: Final = "opacity volume in percent"
"""The same."""
METRICS: Final = "metrics.json"
"""File of a bundle, as export writes it where errors against experts were measured."""
OPACITY: Final = "opacity, 1 - Dice"
"""Error of a CT bundle against experts; those of scores are mean absolute errors."""
OUTSIDE, THROTTLED = "out of tolerance", "the machine throttled"
LEAST_TOLD: Final = 0.5 * 10**-DIGITS
"""What a run's file rounds to 0 is at most that."""
GOLDEN: Final = "largest on the golden inputs"
AGAINST: Final = {
    "p99": "99th percentile on real pictures, at export",
    "all": "all real slices together, at export",
    "difference": f"{GOLDEN}, at export",
}
"""Key of a parity report -> what its difference is."""
WHOLE: Final = "from file to result"
NETWORK: Final = "the network alone, a picture or tile"


@dataclass(frozen=True, slots=True)
class Point:
    """One engine on one machine."""

    bundle: str
    """Its name; empty where the file tells none."""
    digest: str
    """Of that."""
    backend: str
    """Or the name of a peer."""
    precision: str
    """Empty for a peer."""
    threads: str
    """As text; empty where the engine chose."""
    timed: str
    """`WHOLE` or `NETWORK`; only what is alike can be compared."""
    machine: str
    """On which."""
    latency_ms: float
    """Median."""
    n: int
    """Of so many."""
    gaps: Mapping[str, float | None]
    """Quantity -> difference from the reference; None where it is not finite."""
    against: str
    """What the differences are, and on what."""
    wrong: str
    """Why it may not be used; empty where it may."""
    errors: Mapping[str, tuple[float, float | None]]
    """Quantity -> error against experts, and what the engine can add to it or take from it at most, where known."""

    @property
    def name(self) -> str:
        """For people."""
        parts = [f"{self.backend} {self.precision}".strip()]
        parts += [count_of(int(self.threads), "thread", "threads")] if self.threads else []
        return ", ".join([*parts, *([self.bundle] if self.bundle else [])])


@dataclass(frozen=True, slots=True)
class Known:
    """What export measured of one engine."""

    gaps: Mapping[str, float | None]
    """Quantity -> difference."""
    against: str
    """On what."""
    wrong: str
    """Why it failed; empty where it passed."""
    spread: Mapping[str, float]
    """Quantity -> at most the mean difference, where percentiles are known."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What one bundle says of itself."""

    engines: Mapping[tuple[str, str], Known]
    """Backend and precision -> what export measured."""
    errors: Mapping[str, float]
    """Quantity -> error against experts, of the network in fp32."""


def read_knowledge(sources: Iterable[str]) -> dict[str, Knowledge]:
    """What bundles say, by their digest.

    Args:
        sources: Folders, zip files or names.

    Raises:
        BundleError: One can't be opened.
        ValueError: Its parity report can't be read.
    """
    found = {}
    for source in sources:
        bundle = Bundle.open(source)
        found[bundle.digest] = Knowledge(_engines(bundle), _errors(bundle))
    return found


def points_of_run(run: Run, knowledge: Mapping[str, Knowledge]) -> list[Point]:
    """Of a run of ``bedside bench``: its single stream."""
    stream = run.scenario("single-stream")
    if stream is None or stream.latency is None or run.parity is None:
        return []
    gaps = _fold(
        {
            each.of: None if each.difference is None else max(each.difference, LEAST_TOLD)
            for each in run.parity.differences
        }
    )
    doubts = [] if run.valid and run.complete else run.reasons or ("the run is not valid",)
    point = Point(
        bundle=run.bundle.name,
        digest=run.bundle.digest,
        backend=run.engine.backend,
        precision=run.engine.precision,
        threads="" if run.engine.threads is None else str(run.engine.threads),
        timed=WHOLE,
        machine=run.conditions.device.name,
        latency_ms=stream.latency.p50_ms,
        n=len(stream.queries.samples),
        gaps=gaps,
        against=GOLDEN,
        wrong="; ".join(doubts),
        errors={},
    )
    return [_inform(point, knowledge)]


def points_of_tuning(record: Fields, knowledge: Mapping[str, Knowledge]) -> list[Point]:
    """Of a report of ``bedside tune``: each engine that was timed or came so far as to answer."""
    bundle, machine = record.object("bundle"), record.object("key").text("device")
    points = []
    for each in read_candidates(record):
        if each.median_ms is None or not each.differences:
            continue
        points.append(
            Point(
                bundle=bundle.text("name"),
                digest=bundle.text("digest"),
                backend=each.backend,
                precision=each.precision,
                threads=each.threads,
                timed=NETWORK,
                machine=machine,
                latency_ms=each.median_ms,
                n=each.runs,
                gaps=_fold({name: pair[0] for name, pair in each.differences.items()}),
                against=GOLDEN,
                wrong="" if each.passed else f"{each.verdict}: {each.why}" if each.why else each.verdict,
                errors={},
            )
        )
    return [_inform(point, knowledge) for point in points]


def points_of_peers(record: Fields) -> list[Point]:
    """Of a comparison with peers: every side but the reference, whose difference is none."""
    points = []
    per, unit, machine = record.number("divide_by"), record.text("unit"), record.object("machine")
    for name, side in record.named("sides").items():
        median, parity = side.object("warm").number_or_none("median_ms"), side.maybe("parity")
        if parity is None or median is None or side.text("scope") == ALONE:
            continue
        if "score_difference" in parity.values:
            gaps = _fold(parity.numbers("score_difference"))
        else:
            dice = parity.numbers("dice")
            gaps = {
                VOLUME: parity.number("opacity_volume_percent"),
                DICE: 1 - min(dice.values(), default=1.0),
            }
        ours = name.startswith("bedside ")
        backend, _, precision = name.removeprefix("bedside ").partition(" ") if ours else (name, "", "")
        points.append(
            Point(
                bundle="",
                digest="",
                backend=f"bedside {backend}" if ours else backend,
                precision=precision,
                threads="",
                timed=f"{WHOLE}, per {unit}, beside its peers",
                machine=machine.text("device"),
                latency_ms=median / per,
                n=int(side.object("warm").number("n")),
                gaps=gaps,
                against=f"against {record.text('reference')} on the same inputs",
                wrong="; ".join(
                    [OUTSIDE] * (not parity.flag("inside_tolerance"))
                    + [THROTTLED] * bool(machine.flag("throttled"))
                ),
                errors={},
            )
        )
    return points


def _inform(point: Point, knowledge: Mapping[str, Knowledge]) -> Point:
    """With what its bundle says, which was measured on more inputs, where that bundle is at hand."""
    known = knowledge.get(point.digest)
    if known is None:
        return point
    engine = known.engines.get((point.backend, point.precision))
    if engine is None:
        return replace(point, errors={name: (error, None) for name, error in known.errors.items()})
    return replace(
        point,
        gaps=engine.gaps or point.gaps,
        against=engine.against if engine.gaps else point.against,
        wrong="; ".join(part for part in (point.wrong, engine.wrong) if part),
        errors={name: (error, engine.spread.get(name)) for name, error in known.errors.items()},
    )


def _engines(bundle: Bundle) -> dict[tuple[str, str], Known]:
    report = Fields.of(parse(bundle.read(bundle.manifest.parity)), "parity report")
    told = report.each("engines") if "engines" in report.values else []
    return {(each.text("backend"), each.text("precision")): _known(each) for each in told}


def _known(engine: Fields) -> Known:
    """The 99th percentile on real pictures, or on CT all slices together; else the golden inputs."""
    real, golden = engine.maybe("real"), engine.maybe("golden")
    part = real if real is not None and real.values else golden
    gaps: dict[str, float | None] = {}
    spread: dict[str, float] = {}
    against = GOLDEN
    for name, one in {} if part is None else {name: part.object(name) for name in part.values}.items():
        key = next((key for key in ("p99", "all", "difference") if key in one.values), "difference")
        gaps[name] = one.number_or_none(key)
        against = AGAINST[key]
        ends = [one.number_or_none(each) for each in ("p50", "p99", "worst")]
        if (
            None not in ends
        ):  # at most: half lie below the median, 49 in 100 between that and the 99th percentile
            shares = zip((0.5, 0.49, 0.01), ends, strict=True)
            spread[name] = sum(share * end for share, end in shares if end is not None)
    failed = engine.text("status") != "passed"
    reason = engine.text_or("reason") or "it did not pass"
    return Known(_fold(gaps), against, f"at export: {reason}" if failed else "", spread)


def _fold(gaps: Mapping[str, float | None]) -> dict[str, float | None]:
    """Of all tissues the worst Dice loss, as one quantity."""
    losses = [value for name, value in gaps.items() if name.startswith(_DICE_OF)]
    found = {name: value for name, value in gaps.items() if not name.startswith(_DICE_OF)}
    if losses:
        found[DICE] = None if None in losses else max(value for value in losses if value is not None)
    return found


def _errors(bundle: Bundle) -> dict[str, float]:
    """Errors against experts out of a bundle's metrics; nothing where it has none that are known here."""
    try:
        metrics = Fields.of(parse(bundle.read(METRICS)))
        summary = metrics.object("summary")
        found = {}
        for score in bundle.manifest.scores:
            one = summary.maybe(score.name)
            value = None if one is None else one.number_or_none("mae_mean")
            if value is not None:
                found[score.name] = value
        cases = summary.maybe("over_cases")
        dice = None if cases is None else cases.maybe("opacity_dice")
        if dice is not None:
            found[OPACITY] = 1 - dice.number("mean")
    except (BundleError, ValueError):
        return {}
    return found
