"""``bedside queue``: what a node holds, and what became of it."""

# ruff: noqa: PLC0415 - see bedside.cli

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bedside.cli.console import emit, tell
from bedside.cli.quantities import duration

if TYPE_CHECKING:
    from bedside.node.look import Look

__all__ = ["queue"]

STATES: Final = ("received", "ready", "running", "done", "sent", "failed")
"""As `bedside.node.entries.STATES`, which ``--help`` does not import; a test holds them alike."""
NOTHING: Final = 1
"""Exit code where there was nothing to do for a study that was named."""


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each study."),
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            required=True,
            metavar="FILE",
            help="The node's node.toml, which says where its spool is.",
        ),
    ):
        command = option(command)
    return command


_uids = click.option(
    "--uids", is_flag=True, help="Show also the UIDs of the study, which can name a patient to others."
)


@click.group(short_help="Look at a node's studies; run or send them again, or forget them.")
def queue() -> None:
    """Look at what a node holds, have studies run or sent again, and forget them; while it runs, or not.

    A study is a series, or an X-ray by itself, and has a number. Where it is: received (more is awaited), ready,
    running, done (results are there), sent (every destination has them), failed.

    Not for clinical use.
    """


@queue.command("list", short_help="List the studies.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATES),
    help="Only those; may be given more than once.",
)
@_uids
@_options
def list_studies(*, states: Sequence[Any], uids: bool, config: Path, as_json: bool) -> None:
    """List the studies, the one that changed last at the end.

    WAITING are destinations that have not got the results yet, REFUSED those that would not take them, and are not
    tried again until bedside queue retry.
    """
    import time

    from bedside.cli.queue_report import record_of, table_of
    from bedside.tables import json_line

    _, look = _look(config)
    with look:
        studies, backlog = look.studies(states or STATES), look.backlog()
    if as_json:
        for study in studies:
            emit(json_line(record_of(study, backlog.get(study.id, {}), uids=uids)))
    else:
        emit(table_of(studies, backlog, time.time(), uids=uids) if studies else "no study")


@queue.command(short_help="Show all of one study.")
@click.argument("number", type=int)
@_uids
@_options
def show(*, number: int, uids: bool, config: Path, as_json: bool) -> None:
    """Show all of one study: where it is, its results, and what became of each destination."""
    import time

    from bedside.cli.queue_report import describe, details_of
    from bedside.tables import json_line

    _, look = _look(config)
    with look:
        study, shipments, backlog = look.study(number), look.shipments(number), look.backlog()
    waiting = backlog.get(number, {})
    if as_json:
        emit(json_line(details_of(study, shipments, waiting, uids=uids)))
    else:
        emit(describe(study, shipments, time.time(), uids=uids))


@queue.command(short_help="Have failed studies run again, and refused results sent again.")
@click.argument("numbers", nargs=-1, type=int, metavar="NUMBER...")
@click.option("--all-failed", is_flag=True, help="All studies that failed, or whose results were refused.")
@_options
@click.pass_context
def retry(
    ctx: click.Context, /, *, numbers: tuple[int, ...], all_failed: bool, config: Path, as_json: bool
) -> None:
    """Have failed studies run again with all their tries, and results that a destination refused sent again.

    Exit code: 0, 1 if nothing of a study had failed, 2 if there is none of that number.
    """
    if bool(numbers) == all_failed:
        raise click.UsageError("give numbers of studies, or --all-failed")
    import time

    from bedside.node.queue import Queue
    from bedside.tables import json_line

    spool, look = _look(config)
    with look:
        backlog = look.backlog()
        chosen = [look.study(number).id for number in dict.fromkeys(numbers)]
        if all_failed:
            chosen = [
                s.id for s in look.studies() if s.state == "failed" or "failed" in backlog.get(s.id, {})
            ]
    idle = False
    with Queue(_file_of(spool)) as opened:
        for number in chosen:
            again = opened.retry(number, time.time())
            if as_json:
                emit(json_line({"number": number, "retried": again}))
            else:
                emit(f"study {number}: {'is tried again' if again else 'nothing of it has failed'}")
            idle = idle or not again
    if not chosen:
        tell("no study has failed")
    if idle:
        ctx.exit(NOTHING)


@queue.command(short_help="Forget studies, with their images and results.")
@click.argument("numbers", nargs=-1, type=int, metavar="NUMBER...")
@click.option(
    "--sent", "kind", flag_value="sent", help="All that are sent, or done with nobody to send them to."
)
@click.option("--failed", "kind", flag_value="failed", help="All that failed, or whose results were refused.")
@click.option(
    "--older-than",
    callback=duration,
    metavar="TIME",
    help="Only those that have not changed for so long, e.g. 24h or 7d.",
)
@click.option(
    "--force", is_flag=True, help="Also studies that wait or run, and results that wait to be sent."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@_options
def purge(  # noqa: PLR0913 - click hands over each option
    *,
    numbers: tuple[int, ...],
    kind: str | None,
    older_than: float | None,
    force: bool,
    yes: bool,
    config: Path,
    as_json: bool,
) -> None:
    """Forget studies, and remove their images and results from the spool. There is no way back.

    What waits, runs, or has results that wait to be sent stays, but for --force.
    """
    if bool(numbers) == (kind is not None):
        raise click.UsageError("give numbers of studies, or --sent, or --failed")
    import time

    from bedside.cli.queue_report import is_busy, is_of_kind
    from bedside.node.queue import Queue
    from bedside.node.spool import remove
    from bedside.tables import json_line

    spool, look = _look(config)
    with look:
        backlog = look.backlog()
        named = [look.study(number) for number in dict.fromkeys(numbers)]
        studies = named or [s for s in look.studies() if is_of_kind(s, backlog.get(s.id, {}), str(kind))]
    if older_than is not None:
        studies = [study for study in studies if study.changed_at < time.time() - older_than]
    busy = [study for study in studies if is_busy(study, backlog.get(study.id, {}))]
    if busy and named and not force:
        raise click.UsageError(
            f"study {busy[0].id} is {busy[0].state}, and the node is not done with it; --force purges it all the same"
        )
    chosen = [study.id for study in studies if force or study not in busy]
    if not chosen:
        tell("no study to purge")
        return
    if not yes:
        click.confirm(f"forget {_counted(len(chosen))} with images and results?", abort=True, err=True)
    with Queue(_file_of(spool)) as opened:
        remove(spool, opened.purge_studies(chosen, force=force))
        left = {study.id for study in opened.studies()}
    gone = [number for number in chosen if number not in left]
    if as_json:
        for number in gone:
            emit(json_line({"number": number, "purged": True}))
    else:
        emit(f"{_counted(len(gone))} purged")
    if len(gone) < len(chosen):
        tell(f"{_counted(len(chosen) - len(gone))} stayed, which the node took up meanwhile")


def _look(config: Path) -> tuple[Path, Look]:
    """The spool of a configuration, and a look at its queue."""
    from bedside.errors import InputError
    from bedside.node.config import read_config
    from bedside.node.look import Look

    spool = Path(read_config(config).spool)
    try:
        _file_of(spool).stat()
    except PermissionError as error:
        raise InputError(
            "not-readable", "the spool can't be read; do this as the node's user, or as root"
        ) from error
    except OSError as error:
        raise InputError(
            "not-found", "the spool has no queue; check `spool`, or start the node: it makes one"
        ) from error
    return spool, Look(_file_of(spool))


def _file_of(spool: Path) -> Path:
    from bedside.node.spool import QUEUE

    return spool / QUEUE


def _counted(number: int) -> str:
    return "1 study" if number == 1 else f"{number} studies"
