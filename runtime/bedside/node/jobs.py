"""What a rule comes to: a bundle that was opened and checked. Not for clinical use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bedside.bundle import Bundle
from bedside.errors import BedsideError, InputError
from bedside.node.config import Config

__all__ = ["Job", "open_jobs"]


@dataclass(frozen=True, slots=True)
class Job:
    """How the studies of a rule are run."""

    rule: str
    """Its name."""
    bundle: str
    """The bundle's folder or zip file."""
    digest: str
    """SHA-256 that it had when the node started."""
    task: str
    """What it answers: ``cxr-severity`` or ``ct-opacity``."""
    backend: str
    """Engine, as of ``bedside score``."""
    precision: str | None
    """Precision; the engine's own if None."""
    labelmap: bool
    """Whether a CT's segmentation is a label map."""
    memory_mib: float | None
    """Most memory for a CT, MiB; no bound if None."""
    cache: str | None
    """Folder of plans and built engines; the user's own if None."""
    destinations: tuple[str, ...]
    """Names of those that get the results."""

    @property
    def alone(self) -> bool:
        """Whether each picture is run by itself, at once, and not with its series."""
        return self.task == "cxr-severity"


def open_jobs(config: Config) -> Mapping[str, Job]:
    """Open the bundle of each rule, and check all of it.

    Args:
        config: The node's.

    Returns:
        Name of the rule -> job.

    Raises:
        InputError: ``bad-config``: a bundle can't be opened; says whose.
    """
    jobs = {}
    for rule in config.rules:
        try:
            bundle = Bundle.open(rule.bundle)
        except BedsideError as error:
            raise InputError("bad-config", f"the bundle of rule {rule.name!r}: {error.message}") from error
        jobs[rule.name] = Job(
            rule.name,
            bundle.location,
            bundle.digest,
            bundle.manifest.task,
            rule.backend,
            rule.precision,
            rule.labelmap,
            rule.memory_mib,
            config.cache,
            rule.destinations,
        )
    return jobs
