"""Whether every engine refuses the same pictures as the reference does, on a finished bundle.

    python -m bedside_export.recipes.cxr.quality.engines --bundle BUNDLE --data ../shared/data

It is asked about every frontal chest X-ray of the collection.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from bedside import cxr
from bedside.backends import Backend
from bedside.bundle import Bundle
from bedside.errors import BackendError, BundleError
from bedside.reading import read_radiograph
from bedside_export.precision.workbench import ENGINES, open_engine
from bedside_export.recipes.cxr.data import Float, read_collection

__all__ = ["Decisions", "compare_decisions"]

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Decisions:
    """What one engine refuses, beside the reference."""

    engine: str
    """Backend and precision."""
    pictures: int
    """How many there are."""
    refused: int
    """How many this engine refuses."""
    otherwise: int
    """How many it refuses and the reference does not, or the other way round."""
    largest: float
    """Largest difference of the probability of being frontal."""

    def describe(self) -> str:
        """In one line."""
        return (
            f"{self.engine}: {self.refused} of {self.pictures} refused, {self.otherwise} decided otherwise than by the "
            f"reference ({self.otherwise / self.pictures:.2%}); probability off by {self.largest:.3f} at most"
        )


def compare_decisions(bundle: Bundle, inputs: list[Float]) -> list[Decisions]:
    """Ask every engine that is here about the same pictures.

    Args:
        bundle: One that tells what pictures look like.
        inputs: ``(1, 1, S, S)`` each.

    Raises:
        BundleError: ``bundle-task`` if the bundle does not tell.
        BackendError: The reference can't run it.
    """
    least = bundle.manifest.thresholds.get("frontal_probability_min")
    if least is None:
        raise BundleError(
            "bundle-task", "the bundle refuses no picture for its looks; there is nothing to compare"
        )
    output = next(each.name for each in bundle.manifest.outputs if each.meaning == "appearance")
    found: list[Decisions] = []
    reference: _Floats | None = None
    for backend, precision in ENGINES:
        try:
            with open_engine(bundle, backend, precision) as engine:
                frontal = _ask(engine, bundle, output, inputs)
        except (BackendError, BundleError):
            if reference is None:
                raise
            continue  # this machine, or this bundle, does not have it
        reference = frontal if reference is None else reference
        refused = frontal < least
        found.append(
            Decisions(
                f"{backend} {precision}",
                len(inputs),
                int(refused.sum()),
                int((refused != (reference < least)).sum()),
                float(np.abs(frontal - reference).max()),
            )
        )
    return found


def _ask(engine: Backend, bundle: Bundle, output: str, inputs: list[Float]) -> _Floats:
    name = bundle.manifest.input.name
    return np.asarray([float(engine.run({name: each})[output][0, 0]) for each in inputs])


@click.command(help="Tell whether every engine refuses the same X-rays as the reference does.")
@click.option("--bundle", "path", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
def main(path: Path, data: Path) -> None:
    """The command line of the module's text."""
    bundle = Bundle.open(path)
    collection = read_collection(data)
    inputs = [
        cxr.preprocess(read_radiograph(collection.root / "images" / picture.name), bundle.manifest.input)
        for picture in collection.pictures
    ]
    for decisions in compare_decisions(bundle, inputs):
        click.echo(decisions.describe())


if __name__ == "__main__":
    main()
