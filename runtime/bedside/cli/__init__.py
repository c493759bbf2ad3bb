"""The command line: one small file a command, which wires and knows nothing.

What a command needs is imported when it runs, so that ``--help`` is there at once.
"""

from __future__ import annotations

from typing import Any

import click

from bedside.cli.bench import bench
from bedside.cli.build import build
from bedside.cli.bundles import bundles
from bedside.cli.compare import compare
from bedside.cli.console import mute_stdout, printable, tell
from bedside.cli.doctor import doctor
from bedside.cli.inspect import inspect
from bedside.cli.queue import queue
from bedside.cli.rules import rules
from bedside.cli.sample import sample
from bedside.cli.score import score
from bedside.cli.segment import segment
from bedside.cli.serve import serve
from bedside.cli.trend import trend
from bedside.cli.tune import tune
from bedside.cli.verify import verify
from bedside.errors import BedsideError, OutputError
from bedside.version import __version__

__all__ = ["main"]

SET_UP = 2
"""Exit code of a wrong usage or set-up, as click's own."""
INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of SIGINT, as shells have it."""


class _Commands(click.Group):
    """A group whose commands tell what stops them in one line, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BedsideError as error:
            if isinstance(error, OutputError):
                mute_stdout()
            tell(f"error: {printable(error.message)} [{error.code}]")
            ctx.exit(SET_UP)
        except KeyboardInterrupt:
            tell("interrupted")
            ctx.exit(INTERRUPTED)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Not for clinical use.",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Edge inference for chest imaging: scores chest X-rays, and segments chest CT."""


for _command in (
    score,
    segment,
    compare,
    trend,
    bundles,
    inspect,
    verify,
    tune,
    bench,
    build,
    serve,
    queue,
    rules,
    doctor,
    sample,
):
    main.add_command(_command)
