"""When a study was: a time on the clock, or a number of days. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isfinite
from typing import Final

from bedside.errors import InputError

__all__ = ["Moment", "moment_of", "parse_moment"]

MOST_DAYS: Final = 36525
"""Days beyond a century are a slip of the keyboard."""
_DAY: Final = re.compile(r"(?:day\s*)?([+-]?\d{1,9}(?:\.\d{1,5})?)", re.IGNORECASE)
_COMPACT: Final = re.compile(r"(\d{4})(\d{2})(\d{2})")
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - the clock on the wall has no zone


@dataclass(frozen=True, slots=True)
class Moment:
    """When a study was."""

    days: float
    """Days since a beginning that all moments of one kind share."""
    text: str
    """For people, e.g. ``2020-03-01 08:30`` or ``day 5``."""
    dated: bool
    """Whether it is a date; else a number of days, as in data without dates."""


def moment_of(taken: datetime, *, timed: bool) -> Moment:
    """A time on the clock; of a date alone, where the time of day is not known."""
    text = f"{taken:%Y-%m-%d %H:%M}" if timed else f"{taken:%Y-%m-%d}"
    return Moment((taken - _EPOCH) / timedelta(days=1), text, dated=True)


def parse_moment(text: str) -> Moment:
    """A date, a date and time of day (``2020-03-01T08:30``), or a number of days (``5``, ``day 5``).

    Raises:
        InputError: ``bad-attribute``.
    """
    stripped = text.strip()
    compact = _COMPACT.fullmatch(stripped)
    if compact is not None:
        stripped = "-".join(compact.groups())
    day = _DAY.fullmatch(stripped)
    if day is not None and isfinite(float(day[1])) and abs(float(day[1])) <= MOST_DAYS:
        number = float(day[1])
        return Moment(number, f"day {number:g}", dated=False)
    try:
        taken = datetime.fromisoformat(stripped)
    except ValueError:
        taken = None
    if day is not None or taken is None or taken.tzinfo is not None:
        raise InputError(
            "bad-attribute",
            "a time is none that is known; give local time such as 2020-03-01 or 2020-03-01T08:30, or a number of days",
        )
    return moment_of(taken, timed=len(stripped) > len("2020-03-01"))
