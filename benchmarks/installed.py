"""Size of what has to be installed.

    installed_mib(["bedside[cpu]"])
    python installed.py "torchxrayvision"       of another Python's packages: prints MiB

Needs packaging.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["installed_mib", "installed_mib_of"]


def installed_mib(requirements: Sequence[str]) -> float:
    """Size of some distributions' files and those of all that they need, in MiB, byte code not counted.

    Args:
        requirements: Names, with extras in brackets. One that is installed as editable counts with its packages, as a
            wheel of it would.

    Raises:
        importlib.metadata.PackageNotFoundError: One is not installed.
    """
    from packaging.requirements import Requirement

    wanted, seen = [Requirement(line) for line in requirements], set[tuple[str, frozenset[str]]]()
    files: set[Path] = set()
    while wanted:
        need = wanted.pop()
        active = frozenset(need.extras)
        if (need.name, active) in seen:
            continue
        seen.add((need.name, active))
        found = importlib.metadata.distribution(need.name)
        files.update(_list_files(found))
        for line in found.requires or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *active)):
                wanted.append(requirement)
    return sum(file.stat().st_size for file in files if file.is_file()) / 2**20


def installed_mib_of(python: str, requirements: Sequence[str]) -> float | None:
    """The same of another Python; None where it does not have them all."""
    command = [python, str(Path(__file__)), *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else None


def _list_files(found: importlib.metadata.Distribution) -> Iterator[Path]:
    for file in found.files or ():
        if file.suffix != ".pyc":
            yield Path(str(file.locate())).resolve()
    origin = json.loads(found.read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        return
    for file in found.files or ():
        if file.suffix == ".pth":
            for line in Path(str(file.locate())).read_text().splitlines():
                for package in Path(line).glob("*/__init__.py"):
                    yield from (path for path in package.parent.glob("**/*") if path.suffix != ".pyc")


if __name__ == "__main__":
    print(installed_mib(sys.argv[1:]))
