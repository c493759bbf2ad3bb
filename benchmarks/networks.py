"""The network that is compared: whose weights it has, and what lower precision cost it when its bundle was made."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, Final

import click

from bedside.bundle import Bundle

__all__ = ["RANDOM", "claim", "describe_weights", "read_parity", "show_parity", "summarise_weights"]

RANDOM: Final = "random:"
"""What stands before a seed."""
_CLAIM: Final = "weights.json"
"""File in a kept folder that says whose network lies there."""


def describe_weights(source: str) -> dict[str, Any]:
    """Whether weights were trained, and which they are.

    Args:
        source: ``random:SEED``, or a file; `benchmarks/train.py` leaves a JSON file beside its own.

    Raises:
        click.UsageError: There is no such file.
    """
    if source.startswith(RANDOM):
        return {"trained": False, "source": source}
    path = Path(source)
    if not path.is_file():
        raise click.UsageError(f"no weights at {source!r}; give a file of train.py, or {RANDOM}SEED")
    told: dict[str, Any] = {"trained": True, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    beside = path.with_suffix(".json")
    return {**told, "training": json.loads(beside.read_text())} if beside.is_file() else told


def summarise_weights(told: dict[str, Any]) -> str:
    """One line for people."""
    if told["trained"]:
        return f"weights: trained, sha256 {told['sha256'][:12]}"
    return f"weights: {told['source']}; what lower precision costs them says nothing of trained ones"


def claim(folder: Path, told: dict[str, Any]) -> None:
    """Note in a folder whose network it holds.

    Raises:
        click.UsageError: It holds another's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note, identity = folder / _CLAIM, {key: told[key] for key in ("source", "sha256") if key in told}
    known = json.loads(note.read_text()) if note.is_file() else identity
    if known != identity or (not note.is_file() and any(folder.iterdir())):
        raise click.UsageError(
            "--keep names a folder with something else than the network of these weights; give another"
        )
    note.write_text(json.dumps(identity) + "\n")


def read_parity(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """What export measured of each engine on pictures that int8 was not calibrated on.

    Returns:
        Backend and precision -> its status, and its greatest difference in parts of what is allowed: None where it
        did not run or is not finite.
    """
    engines = json.loads(bundle.read(bundle.manifest.parity))["engines"]
    return {
        f"{each['backend']} {each['precision']}": {"status": each["status"], "share": _share(each)}
        for each in engines
    }


def show_parity(parity: dict[str, dict[str, Any]]) -> None:
    """Print it, a line an engine."""
    for name, found in parity.items():
        share = "" if found["share"] is None else f", {found['share']:.2f} of its tolerance"
        click.echo(f"{name}: {found['status']} at export{share}")


def _share(engine: dict[str, Any]) -> float | None:
    gaps = [
        (gap.get("p99", gap.get("all", gap.get("difference"))), gap["limit"])
        for part in ("golden", "real")
        for gap in engine.get(part, {}).values()
    ]
    if not gaps or any(gap is None for gap, _ in gaps):
        return None
    share = max(gap / limit for gap, limit in gaps)
    return round(share, 3) if math.isfinite(share) else None
