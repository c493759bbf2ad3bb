"""A whole object on its way in: to its rule, to its place on the disk, and into the queue. Not for clinical use."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bedside.errors import InputError, RefusedError
from bedside.files import open_input
from bedside.node.chronicle import Chronicle
from bedside.node.completion import Completion
from bedside.node.desk import Desk
from bedside.node.entries import Arrival, Counted, Held
from bedside.node.jobs import Job
from bedside.node.rules import Rule, choose
from bedside.node.spool import Spool, remove
from bedside.node.traits import read_labels
from bedside.node.wholeness import Pixels, judge_pixels

__all__ = ["FOLDER", "Intake", "Sender"]


@dataclass(frozen=True, slots=True)
class Sender:
    """Where an object comes from."""

    kind: str
    """``association`` or ``folder``."""
    calling_ae: str = ""
    """AE title of who sends it."""
    called_ae: str = ""
    """AE title that was called."""


FOLDER: Final = Sender("folder")
"""A watched folder, which has no titles."""


class Intake:
    """Takes objects in, from any thread.

    Args:
        spool: Where to.
        desk: Of the queue.
        rules: Which study goes to which bundle.
        jobs: Name of the rule -> how it is run.
        completion: Told of each instance.
        chronicle: Told as well.
    """

    def __init__(
        self,
        spool: Spool,
        desk: Desk,
        rules: Sequence[Rule],
        jobs: Mapping[str, Job],
        completion: Completion,
        chronicle: Chronicle,
    ) -> None:
        self._spool = spool
        self._desk = desk
        self._rules = rules
        self._jobs = jobs
        self._completion = completion
        self._chronicle = chronicle

    def take(self, part: Path, sender: Sender) -> Counted:
        """Take in a file that lies in the spool's ``incoming``; when this returns, nothing can lose it.

        Args:
            part: The file, gone from there afterwards, whatever comes of it but for an OutputError.
            sender: Where it comes from.

        Returns:
            What came of it: ``new``, ``known`` or ``replaced``.

        Raises:
            InputError: ``broken-dicom``; ``other-pixels``: its UID is there with another content, which stays, since it
                can be read or this one can't.
            RefusedError: ``no-rule``: no rule takes it.
            OutputError: ``disk-full``; ``output-not-writable``.
        """
        try:
            counted = self._take(part, sender)
        except (InputError, RefusedError) as error:
            self._chronicle.refused(error.code, sender)
            part.unlink(missing_ok=True)
            raise
        return counted

    def _take(self, part: Path, sender: Sender) -> Counted:
        labels = read_labels(part, calling_ae=sender.calling_ae, called_ae=sender.called_ae)
        rule = choose(self._rules, labels.traits)
        if rule is None:
            raise RefusedError(
                "no-rule", "no rule takes the object; see `bedside rules` and the configuration"
            )
        alone = self._jobs[rule.name].alone
        unit = labels.sop if alone else labels.series
        arrival = self._spool.weigh(part, unit, labels)
        counted, gone = self._count(part, arrival, rule.name, None if alone else labels.expected)
        try:
            remove(self._spool.root, gone)
        finally:
            self._completion.arrived(counted, alone=alone)
        if counted.outcome == "other-pixels":
            raise InputError(
                "other-pixels",
                "an object of this UID is there with another content, which stays; send it under a UID of its own",
            )
        self._chronicle.received(arrival, counted, sender)
        return counted

    def _count(
        self, part: Path, arrival: Arrival, rule: str, expected: int | None
    ) -> tuple[Counted, Sequence[str]]:
        """Move a file to its place and into the queue, or remove it; returns what is to be removed beside, too."""
        held = self._desk.ask(lambda queue: queue.find(arrival, rule))
        if held is not None and not self._is_better(part, held):
            part.unlink()
            return held.counted, []
        # Not earlier: a scan that runs is read from its folder, whatever lies in that.
        self._spool.place(part, arrival)
        instead_of = None if held is None else held.sha256
        counted = self._desk.ask(
            lambda queue: queue.add(arrival, rule, time.time(), expected=expected, instead_of=instead_of)
        )
        if counted.outcome == "new":
            return counted, []
        return counted, [held.path if held is not None and counted.outcome == "replaced" else arrival.path]

    def _is_better(self, part: Path, held: Held) -> bool:
        """Whether an object reads whole where the one that is there under its UID never did.

        Both are looked at as they lie on the disk, so that a cut of the node forgets nothing.
        """
        if held.counted.outcome == "known":
            return False
        return _judge(self._spool.root / held.path) != "whole" and _judge(part) == "whole"


def _judge(path: Path) -> Pixels:
    """Judge a file's pixel data; one that is gone or empty has none.

    Raises:
        InputError: ``not-readable``, which says nothing of what is in it.
    """
    try:
        with open_input(path) as stream:
            return judge_pixels(stream)
    except InputError as error:
        if error.code == "not-readable":
            raise
        return "broken"
