"""A guard against slowdowns that says the same on every machine: for CI, each time.

    python benchmarks/regression.py             compares with regression.json; fails where a study became dearer
    python benchmarks/regression.py --renew     writes what is found there, where a change is meant

It does a study with each built-in bundle, on the package's own sample, with ONNX Runtime fp32 on one thread. What is
counted (`footprint`) has to be what the file says, also where it became less, so that it stays so. What is timed
(`yardsticks`) is a ratio to fixed work of the same run, and may be up to `MARGINS` times what the file says; it is
measured up to `ATTEMPTS` times before it counts as slower.

Needs the extra ``cpu``, and no torch. Not for clinical use.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from footprint import PEAK, Places, Seam, count_study
from yardsticks import NETWORK, REST, WHOLE, Bench, draw_pictures, measure_ratios, open_plain

from bedside.bench.study import Order, Studies
from bedside.bundle import Bundle
from bedside.engines import EngineRequest, open_engine
from bedside.sample import write_sample
from bedside.sample_ct import write_series
from bedside.scan import Grid

__all__ = ["EXPECTED", "MARGINS", "STUDIES", "Case", "Found", "Study", "compare", "open_case"]

EXPECTED: Final = Path(__file__).with_suffix(".json")
"""What is expected."""
RENEW: Final = "python benchmarks/regression.py --renew"
"""What writes that."""
FIELDS: Final = {"bundle_digest", "counts", "ratios"}
"""Of each study, in the file."""
UNTOLD: Final = f"{{}} does not say what is expected; write it with: {RENEW}"
MARGINS: Final = {NETWORK: 1.25, REST: 2.0, WHOLE: 1.6}
"""Ratio -> how many times what the file says it may be.

From runs on two cores that five to nine processes fought for, with the newest packages on Python 3.11 and with the
lowest on 3.10. X-rays: `NETWORK` 0.95 to 1.03 (15 runs of 9 rounds), `REST` 0.56 to 0.64 (newest) and 0.71 to 0.76
(lowest), `WHOLE` 1.5 to 1.7 and 1.7 to 1.8. CT: `NETWORK` 0.95 to 1.02, by single rounds down to 0.77; `REST` 2.5 to
2.9 and 3.8, `WHOLE` 2.6 to 3.1 and 3.7 (5 runs, 3 of a single round). Between Pythons lies a factor of 1.2 to 1.5, and
of another processor nothing is known, so that the margins leave as much again.
"""
ATTEMPTS: Final = 3
"""Times that a ratio is measured before it counts as slower; the least of them counts, since others can only add."""
PEAK_SHARE: Final = 0.03
"""What `footprint.PEAK` may differ by: over twenty times what it does between runs, Pythons and numpys, and a third of
a stored X-ray of the sample."""
PICTURE_TYPE: Final = np.uint16
"""Of the samples' stored pictures."""
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a folder of its own is made there
"""Where there is such a folder, no disk is waited for."""


@dataclass(frozen=True, slots=True)
class Study:
    """One of those that are guarded."""

    bundle: str
    """Name of a built-in bundle."""
    draw: Callable[[Path], Path]
    """Writes its sample into a folder; returns where that is."""
    rounds: int
    """Turns of what is timed."""
    passes: int
    """As of `yardsticks.draw_pictures`."""


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a study."""

    digest: str
    """Of its bundle."""
    counts: Mapping[str, int]
    """As of `footprint.count_study`."""
    ratios: Mapping[str, float] = field(default_factory=dict)
    """As of `yardsticks.measure_ratios`; empty where nothing was timed."""

    def to_json(self) -> dict[str, Any]:
        """As the file has it."""
        ratios = {name: round(ratio, 3) for name, ratio in self.ratios.items()}
        return {"bundle_digest": self.digest, "counts": dict(self.counts), "ratios": ratios}


def draw_xray(folder: Path) -> Path:
    """The sample X-ray."""
    return write_sample(folder / "sample.dcm")


def draw_ct(folder: Path) -> Path:
    """Eight slices of the sample CT, 8 mm apart in the middle of the lungs."""
    pixel, side = 1.5625, 256
    edge = -pixel * (side - 1) / 2
    affine = np.array(
        [[0, 0, pixel, edge], [0, pixel, 0, edge + 5], [8, 0, 0, -40], [0, 0, 0, 1]], np.float64
    )
    write_series(folder / "ct", grid=Grid((8, side, side), affine))
    return folder / "ct"


STUDIES: Final = (Study("cxr-severity-lite", draw_xray, 9, 2), Study("ct-opacity-lite", draw_ct, 3, 80))
"""What is guarded."""


class Case:
    """A study that is warm, to be counted and timed. Made by `open_case`.

    Args:
        study: Which.
        studies: With the sample as its first.
        seam: Stands in its engine.
        places: Where it reads and writes.
        bundle: That it runs with.
    """

    def __init__(self, study: Study, studies: Studies, seam: Seam, places: Places, *, bundle: Bundle) -> None:
        self.study = study
        self._studies = studies
        self._seam = seam
        self._places = places
        self._bundle = bundle

    def count(self) -> Found:
        """Count what a study costs."""
        return Found(self._bundle.digest, count_study(self._seam, self._run, self._places))

    def measure(self, rounds: int | None = None) -> dict[str, float]:
        """Time it against the yardsticks."""
        with self._seam.keep() as passed:
            self._run()
        plain = open_plain(self._bundle.read(self._bundle.model("fp32")))
        pictures = draw_pictures(self._studies.look(0).shape, self.study.passes)
        bench = Bench(self._run, self._seam, passed, plain, pictures)
        return measure_ratios(bench, rounds or self.study.rounds)

    def _run(self) -> None:
        self._studies.run(0)


@contextmanager
def open_case(study: Study, sample: Path, work: Path) -> Iterator[Case]:
    """Open a bundle, and do its study twice, so that all is warm: the second finds the memory of the first.

    Args:
        study: Which.
        sample: What `Study.draw` gave.
        work: A folder for results.
    """
    bundle = Bundle.open(study.bundle)
    seams: list[Seam] = []

    def open_seam(opened: Bundle, request: EngineRequest) -> Seam:
        seams.append(Seam(open_engine(opened, request)))
        return seams[-1]

    order = Order(
        location=str(Path(bundle.location).absolute()),
        digest=bundle.digest,
        backend="onnxruntime",
        precision="fp32",
        threads=1,
        watchdog_s=None,
        cache=None,
        scratch=str(work),
    )
    with Studies(order, open_seam) as studies:
        number = studies.add(sample)
        *_, rows, columns = studies.look(number).shape
        places = Places(sample, work, rows * columns * np.dtype(PICTURE_TYPE).itemsize)
        for _ in range(2):
            studies.run(number)
        yield Case(study, studies, seams[0], places, bundle=bundle)


def compare(found: Found, expected: Mapping[str, Any]) -> list[str]:
    """What differs from what the file says, a line each; nothing where all is as it was.

    Args:
        found: With ratios or without.
        expected: What the file says of the study.
    """
    lines = []
    known = expected["counts"]
    for name in {**known, **found.counts}:
        now, was = found.counts.get(name, 0), known.get(name, 0)
        if abs(now - was) > (PEAK_SHARE * was if name == PEAK else 0):
            lines.append(f"{name}: {now:,}, and {was:,} was expected ({'more' if now > was else 'less'})")
    for name, ratio in found.ratios.items():
        was = expected["ratios"].get(name, 0.0)
        if ratio > was * MARGINS[name]:
            lines.append(
                f"{name}: {ratio:.2f}, and at most {was * MARGINS[name]:.2f} was expected (slower: {was:.2f} before)"
            )
    if lines and found.digest != expected["bundle_digest"]:
        lines.append("the bundle is not the one that was counted with, which may be all there is to it")
    return lines


def guard(case: Case, expected: Mapping[str, Any]) -> tuple[Found, list[str]]:
    """Count and time a case; returns what was found, and what differs from what is expected."""
    counted = case.count()
    ratios: dict[str, float] = {}
    for _ in range(ATTEMPTS):
        again = case.measure()
        ratios = {name: min(ratio, ratios.get(name, ratio)) for name, ratio in again.items()}
        if not compare(Found(counted.digest, expected["counts"], ratios), expected):
            break
    found = Found(counted.digest, counted.counts, ratios)
    return found, compare(found, expected)


def show(name: str, found: Found) -> None:
    """Print what was found of a study."""
    click.echo(f"\n{name}, bundle {found.digest[:12]}")
    for what, number in found.counts.items():
        click.echo(f"{number:>14,}  {what}")
    for what, ratio in found.ratios.items():
        click.echo(f"{ratio:>14.2f}  {what}")


def read_expected(path: Path) -> dict[str, Any]:
    """What is expected of each study.

    Raises:
        click.UsageError: There is no such file, or it is of another kind.
    """
    try:
        expected: dict[str, Any] = json.loads(path.read_text("utf-8"))["studies"]
        whole = all(expected[study.bundle].keys() >= FIELDS for study in STUDIES)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise click.UsageError(UNTOLD.format(path.name)) from error
    if not whole:
        raise click.UsageError(UNTOLD.format(path.name))
    return expected


@click.command()
@click.option("--renew", is_flag=True, help="Write what is found to the file, instead of comparing.")
@click.option(
    "--expected",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=EXPECTED,
    help="The file.  [default: regression.json beside this script]",
)
def main(*, renew: bool, path: Path) -> None:
    """Compare what a study costs with what it did: counts that are the same everywhere, and ratios of one run."""
    expected = {} if renew else read_expected(path)
    told: dict[str, Any] = {}
    failed = False
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)))
        for study in STUDIES:
            lines: list[str] = []
            case = stack.enter_context(open_case(study, study.draw(work), work / f"results-{study.bundle}"))
            if renew:
                found = replace(case.count(), ratios=case.measure())
            else:
                found, lines = guard(case, expected[study.bundle])
                failed = failed or bool(lines)
            told[study.bundle] = found.to_json()
            show(study.bundle, found)
            for line in lines:
                click.echo(f"{study.bundle}: {line}", err=True)
    if renew:
        path.write_text(json.dumps({"made_by": RENEW, "studies": told}, indent=2) + "\n", "utf-8")
        click.echo(f"\n{path.name} is written")
    elif failed:
        click.echo(f"FAILED. If that is meant, renew what is expected, and commit it: {RENEW}", err=True)
        sys.exit(1)
    else:
        click.echo("\nas expected")


if __name__ == "__main__":
    main()
