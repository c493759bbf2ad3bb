"""``node.toml``: everything that a node is told, read strictly. Not for clinical use.

A key or value that is wrong is named with the table that it stands in. Nothing is read from the environment.
"""

# ruff: noqa: PLC0415 - what reads TOML before Python 3.11 is of an extra

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from bedside.errors import InputError, MissingExtraError
from bedside.files import open_input
from bedside.node.network import Destination, Health, Limits, Peer, Receiver, Tls, check_given, check_over
from bedside.node.rules import Rule
from bedside.records import build

__all__ = [
    "Completion",
    "Config",
    "Destination",
    "Health",
    "Limits",
    "Peer",
    "Receiver",
    "Retention",
    "Tls",
    "Watch",
    "read_config",
]

MAX_BYTES: Final = 1 << 20
"""Of the file."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""A destination's, which is a column of tables and a label of metrics."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A folder whose files are taken in."""

    folder: str
    """Where; what was taken in is moved into the spool."""
    settle_s: float = 5.0
    """Seconds that a file must not have changed."""

    def __post_init__(self) -> None:
        """Check what types alone do not say."""
        check_given(self, "folder")
        if not self.settle_s >= 0:
            raise ValueError("settle_s must not be negative")


@dataclass(frozen=True, slots=True)
class Completion:
    """When a series has all its slices."""

    quiet_s: float = 30.0
    """Seconds without another instance of it."""
    association_end: bool = False
    """Whether the orderly end of the association that sent it is enough."""
    expected: bool = True
    """Whether as many instances are enough as NumberOfSeriesRelatedInstances (0020,1209) says, where it is there."""

    def __post_init__(self) -> None:
        """Check what types alone do not say."""
        check_over(self, "quiet_s")


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what is kept."""

    sent_h: float = 24.0
    """Hours that a study stays, with its images and results, after all that was to be sent of it was."""
    failed_h: float = 720.0
    """Hours that a study stays that failed, or that a destination would not take."""
    audit_days: float = 365.0
    """Days that the audit log goes back, at least."""

    def __post_init__(self) -> None:
        """Check what types alone do not say."""
        for name in self.__slots__:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative")


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file."""

    spool: str
    """Folder for all that the node holds."""
    rules: tuple[Rule, ...]
    """What goes to which bundle; the first that holds decides."""
    receiver: Receiver | None = None
    """The Storage SCP; none without."""
    watch: tuple[Watch, ...] = ()
    """Folders whose files are taken in."""
    destinations: dict[str, Destination] = field(default_factory=dict)
    """Name -> who gets results."""
    complete: Completion = field(default_factory=Completion)
    """When a series has all its slices."""
    retention: Retention = field(default_factory=Retention)
    """How long what is kept."""
    health: Health | None = None
    """Metrics and health; none without."""
    cache: str | None = None
    """Folder of plans and built engines, for ``backend = "auto"`` and what is built; the user's own without."""
    free_mib: float = 1024.0
    """MiB of the spool's disk that stay free: below, associations are rejected, and watched folders wait."""
    tries: int = 3
    """Runs of a study until it is set aside."""
    deadline_s: float = 600.0
    """Longest run of a study; a worker that takes longer is stopped."""
    grace_s: float = 30.0
    """Seconds that a running study has to end when the node is stopped; after that it goes back to the queue."""
    unmatched: str = "refuse"
    """What happens to an object that no rule takes: ``refuse``, or ``drop``, which tells its sender success."""
    allow_root: bool = False
    """Whether the node may run as root."""

    def __post_init__(self) -> None:
        """Check what types alone do not say."""
        for check in (_ways, _rules, _folders):
            for problem in check(self):
                raise ValueError(problem)
        check_over(self, "free_mib", "tries", "deadline_s")
        if not self.grace_s >= 0:
            raise ValueError("grace_s must not be negative")
        if self.unmatched not in {"refuse", "drop"}:
            raise ValueError("unmatched must be 'refuse' or 'drop'")


def read_config(path: Path) -> Config:
    """Read ``node.toml``.

    Relative paths in it begin at its folder; those of the result are absolute, but for bundles, which may be names.

    Raises:
        InputError: ``bad-config``: malformed, or a key or a value is wrong; says which. ``not-found``;
            ``not-readable``.
        MissingExtraError: Python is older than 3.11, and tomli is not installed.
    """
    with open_input(path) as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InputError("bad-config", f"the configuration is over {MAX_BYTES >> 20} MiB; give a node.toml")
    try:
        return _rooted(build(Config, _parse(content.decode("utf-8-sig"))), path.resolve().parent)
    except RecursionError as error:
        raise InputError("bad-config", "the configuration is nested too deep; give a node.toml") from error
    except ValueError as error:  # those of tomllib and of Unicode are ValueErrors too
        raise InputError(
            "bad-config", f"the configuration can't be used: {error}; mend it and start again"
        ) from error


def _parse(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:  # JetPack 6
        try:
            import tomli as tomllib
        except ImportError as error:
            raise MissingExtraError.of("tomli", "node", "reading node.toml with this Python") from error
    return tomllib.loads(text)


def _rooted(config: Config, folder: Path) -> Config:
    """The same with absolute paths."""
    receiver = config.receiver
    return replace(
        config,
        spool=str(folder / config.spool),
        cache=None if config.cache is None else str(folder / config.cache),
        watch=tuple(replace(watch, folder=str(folder / watch.folder)) for watch in config.watch),
        receiver=None if receiver is None else replace(receiver, tls=_rooted_tls(receiver.tls, folder)),
        destinations={
            name: replace(
                each,
                tls=_rooted_tls(each.tls, folder),
                token_file=None if each.token_file is None else str(folder / each.token_file),
            )
            for name, each in config.destinations.items()
        },
        rules=tuple(replace(rule, bundle=_find_bundle(rule.bundle, folder)) for rule in config.rules),
    )


def _rooted_tls(tls: Tls | None, folder: Path) -> Tls | None:
    if tls is None:
        return None
    return Tls(str(folder / tls.certificate), str(folder / tls.key), str(folder / tls.authority))


def _find_bundle(bundle: str, folder: Path) -> str:
    """A path that is one, or is there; else it is a built-in bundle's name."""
    path = folder / bundle
    return str(path) if "/" in bundle or path.exists() else bundle


def _ways(config: Config) -> Iterator[str]:
    """What is wrong with how things come in and go out."""
    if config.receiver is None and not config.watch:
        yield "neither receiver nor watch is there: nothing would ever come in"
    for name in config.destinations:
        if not _NAME.fullmatch(name):
            yield f"destinations: {name[:40]!r} must have 1 to 64 letters, digits, '.', '_' and '-'"


def _rules(config: Config) -> Iterator[str]:
    """What is wrong with the rules as a whole."""
    if not config.rules:
        yield "rules is empty: nothing would ever be run"
    names: set[str] = set()
    for number, rule in enumerate(config.rules):
        if rule.name in names:
            yield f"rules[{number}].name {rule.name!r} is that of another rule"
        names.add(rule.name)
        for name in rule.destinations:
            if name not in config.destinations:
                yield f"rules[{number}].destinations names {name[:40]!r}, which is not among destinations"


def _folders(config: Config) -> Iterator[str]:
    """What is wrong with the folders: what is moved from one into the other must not come back."""
    if not config.spool.strip():
        yield "spool is empty; give a folder"
    spool = Path(config.spool)
    seen: list[Path] = []
    for number, watch in enumerate(config.watch):
        folder = Path(watch.folder)
        if folder.is_relative_to(spool) or spool.is_relative_to(folder):
            yield f"watch[{number}].folder and spool lie in each other"
        if any(folder.is_relative_to(other) or other.is_relative_to(folder) for other in seen):
            yield f"watch[{number}].folder lies in another one that is watched, or around it"
        seen.append(folder)
