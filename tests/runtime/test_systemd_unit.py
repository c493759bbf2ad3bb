"""The systemd unit: hardened, ends in order, and goes with the example configuration."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bedside.cli import main
from bedside.node.config import read_config

FOLDER = Path(__file__).parents[2] / "packaging" / "systemd"
UNIT = FOLDER / "bedside-node.service"
EXAMPLE = FOLDER / "node.toml"
MOST_EXPOSED = 2.0
"""Of 10, as ``systemd-analyze security`` counts: what it calls OK ends at 4.9."""


def read_unit() -> dict[str, list[str]]:
    """Key -> values, of all sections: no key stands in two of them."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text("utf-8").splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("Type", ["exec"]),
        ("ExecStart", ["/opt/bedside/bin/bedside serve --config /etc/bedside/node.toml"]),
        ("KillMode", ["mixed"]),
        ("Restart", ["on-failure"]),
        ("OOMPolicy", ["continue"]),
        ("LimitCORE", ["0"]),
        ("MemorySwapMax", ["0"]),
        ("UMask", ["0077"]),
        ("DynamicUser", ["yes"]),
        ("User", ["bedside"]),
        ("StateDirectory", ["bedside"]),
        ("StateDirectoryMode", ["0700"]),
        ("NoNewPrivileges", ["yes"]),
        ("CapabilityBoundingSet", [""]),
        ("AmbientCapabilities", [""]),
        ("ProtectSystem", ["strict"]),
        ("ProtectHome", ["yes"]),
        ("PrivateTmp", ["yes"]),
        ("PrivateDevices", ["yes"]),
        ("MemoryDenyWriteExecute", ["yes"]),
        ("RestrictAddressFamilies", ["AF_INET AF_INET6 AF_UNIX"]),
        ("SystemCallFilter", ["@system-service", "~@privileged"]),
        ("SystemCallArchitectures", ["native"]),
    ],
)
def test_unit_says(key: str, values: list[str]) -> None:
    assert read_unit()[key] == values


def test_command_of_the_unit_is_there() -> None:
    (command,) = read_unit()["ExecStart"]
    name, option = command.split()[1:3]
    assert option in {text for parameter in main.commands[name].params for text in parameter.opts}


def test_no_shell_can_be_reached() -> None:
    (hidden,) = read_unit()["InaccessiblePaths"]
    assert {"-/bin/sh", "-/usr/bin/sh", "-/bin/bash", "-/usr/bin/dash"} <= set(hidden.split())


def test_orderly_end_has_time_for_the_grace_of_the_example() -> None:
    (stop,) = read_unit()["TimeoutStopSec"]
    assert float(stop) >= 2 * read_config(EXAMPLE).grace_s + 10


def test_example_keeps_to_the_folders_that_the_unit_gives() -> None:
    config = read_config(EXAMPLE)
    (state,), (cache,) = read_unit()["StateDirectory"], read_unit()["CacheDirectory"]
    assert config.spool.startswith(f"/var/lib/{state}/")
    assert config.cache is not None
    assert config.cache.startswith(f"/var/cache/{cache}")
    assert not config.allow_root


def test_unit_holds_no_password_and_no_environment() -> None:
    assert {"Environment", "EnvironmentFile", "PassEnvironment"} & set(read_unit()) == set()


@pytest.fixture
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("needs systemd-analyze")
    return found


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a command that is there."""
    path = tmp_path / UNIT.name
    text = UNIT.read_text("utf-8").replace(
        "ExecStart=/opt/bedside/bin/bedside", f"ExecStart={sys.executable}"
    )
    path.write_text(text, "utf-8")
    return path


def test_systemd_finds_nothing_wrong(analyze: str, unit: Path) -> None:
    done = subprocess.run(
        [analyze, "verify", "--recursive-errors=no", str(unit)], capture_output=True, text=True, check=False
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("needs systemd-analyze of systemd 250 or newer")
    assert (done.returncode, done.stderr) == (0, "")


def test_exposure_is_low(analyze: str, unit: Path) -> None:
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("needs systemd-analyze of systemd 250 or newer")
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None
    assert float(found[1]) <= MOST_EXPOSED
