"""``bedside-export``: turn networks into bundles. One file a command, which wires and knows nothing.

Not for clinical use.
"""

from __future__ import annotations

import sys
from typing import Final

import click

from bedside.errors import BedsideError, MissingExtraError
from bedside.version import __version__
from bedside_export.cli.ct_opacity import export_opacity
from bedside_export.cli.cxr_severity import export_severity
from bedside_export.cli.evaluate import evaluate
from bedside_export.cli.finetune import finetune
from bedside_export.cli.quantize import quantize
from bedside_export.errors import ExportError, ParityError

__all__ = ["main"]

REFUSED: Final = 1
"""Exit code where an engine disagrees with PyTorch."""
USAGE: Final = 2
"""Exit code of wrong usage or set-up."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bedside-export")
def cli() -> None:
    """Turn networks into bundles that bedside runs. Not for clinical use."""


cli.add_command(export_severity)
cli.add_command(export_opacity)
cli.add_command(finetune)
cli.add_command(quantize)
cli.add_command(evaluate)


def main() -> None:
    """Run the command; every refusal is one line on stderr and an exit code."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Exit as signal:
        sys.exit(signal.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(USAGE)
    except click.Abort:
        click.echo("interrupted; nothing was written", err=True)
        sys.exit(130)
    except ModuleNotFoundError as error:
        missing = MissingExtraError.of(str(error.name), "export", "bedside-export")
        click.echo(f"error: {missing.message}", err=True)
        sys.exit(USAGE)
    except ParityError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(REFUSED)
    except (ExportError, BedsideError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(USAGE)
