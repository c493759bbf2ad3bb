"""``bedside serve``: a node that takes images in and sends results on."""

# ruff: noqa: PLC0415 - see bedside.cli

from __future__ import annotations

from pathlib import Path

import click

from bedside.cli.console import tell

__all__ = ["serve"]


@click.command(short_help="Run a node: images in over the network, results out.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="What it is told: see docs/node.md and the example beside the systemd unit.",
)
@click.option("--check", is_flag=True, help="Check the configuration, its bundles and engines, and end.")
@click.option("--verbose", is_flag=True, help="Log also what went well.")
def serve(*, config: Path, check: bool, verbose: bool) -> None:
    """Take X-rays and CT in by DICOM or from folders, run them, and send the results on.

    SIGTERM or Ctrl-C ends it in order: a study that runs has its grace, and what is not done is gone on with at the
    next start. Logs go to standard error, and hold no patient data.

    Exit code: 0 after an orderly end, 2 if it could not be started. Not for clinical use.
    """
    import os
    import signal
    from threading import Event

    from bedside.errors import InputError
    from bedside.node.config import read_config
    from bedside.node.logs import set_up_logs
    from bedside.node.service import Node

    set_up_logs(verbose=verbose)
    told = read_config(config)
    if os.geteuid() == 0 and not told.allow_root:
        raise InputError(
            "bad-config",
            "the node runs as root, which could do more than it has to; run it as a user of its own (the systemd unit "
            "does), or say allow_root = true",
        )
    stop = Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stop.set())
    with Node(told) as node:
        node.start(listen=not check)
        if check:
            tell("the configuration, its bundles and engines can be used")
            return
        tell("ready; not for clinical use")
        stop.wait()
        tell("ending: what is not done is gone on with at the next start")
