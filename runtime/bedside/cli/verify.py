"""``bedside verify``: is a bundle whole, and does each engine answer as its reference did?"""

# ruff: noqa: PLC0415 - see bedside.cli

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from bedside.cli.console import emit, field, tell
from bedside.cli.engine import backend_option, precision_option

if TYPE_CHECKING:
    from bedside.verification import Trial

FAILED: Final = 1
"""Exit code where a hash or an engine does not pass."""


@click.command(short_help="Check a bundle's hashes, and its golden vectors on each engine.")
@click.argument("bundle")
@backend_option(None)
@precision_option(None)
@click.pass_context
def verify(ctx: click.Context, *, bundle: str, backend: str | None, precision: str | None) -> None:
    """Check the hashes of BUNDLE, then run its golden vectors and compare in clinical units.

    These are the scores of an X-ray bundle; of a CT bundle, 1 - Dice of each tissue and the opacified volume.

    Without --backend and --precision, on every installed engine and in every precision that the bundle states a
    tolerance for. Exit code: 0 if all passed, 1 if something did not, 2 if what was asked for can't be tried.
    """
    from bedside.bundle import Bundle
    from bedside.errors import BackendError, BundleError
    from bedside.verification import installed, try_engines

    try:
        opened = Bundle.open(bundle)
    except BundleError as error:
        if error.code == "bundle-not-found":
            raise
        tell(f"FAILED: {error.message} [{error.code}]")
        ctx.exit(FAILED)
    manifest = opened.manifest
    emit(field("bundle", f"{manifest.name} {manifest.version}, sha256 {opened.digest[:12]}"))
    emit(field("hashes", f"passed: {len(manifest.files)} files are as bundle.json says"))
    engines = installed() if backend is None else (backend,)
    precisions = tuple(manifest.tolerances) if precision is None else (precision,)
    if not engines:
        emit(
            field(
                "engines",
                "none is installed, so no golden vector was run; pip install 'bedside[cpu]' brings one",
            )
        )
        return
    trials = []
    for trial in try_engines(opened, engines, precisions):
        trials.append(trial)
        emit(field(f"{trial.backend} {trial.precision}", _describe(trial)))
    if all(trial.unavailable for trial in trials):
        raise BackendError("engine-unsupported", "nothing of what was asked for can run here; see above")
    if not all(trial.passed or trial.unavailable for trial in trials):
        ctx.exit(FAILED)


def _describe(trial: Trial) -> str:
    word = "passed" if trial.passed else "not here" if trial.unavailable else "FAILED"
    if trial.verdict is None:
        return f"{word}: {trial.error} [{trial.error.code}]" if trial.error else word
    verdict = trial.verdict
    parts = [f"{a.score} {a.difference:.2g} (at most {a.tolerance:g})" for a in verdict.agreements]
    version = verdict.engine.version.partition("-")[0]
    return f"{word}: differs by {', '.join(parts)} on {verdict.images} golden inputs; version {version}"
