"""Options of the tests: what is slow, what needs a GPU, and which bedside is under test."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

import bedside

ROOT = Path(__file__).parents[1]

# The same examples each time, and no deadline: a machine may be slow and the CI has to be repeatable.
hypothesis.settings.register_profile("bedside", deadline=None, derandomize=True)
hypothesis.settings.load_profile("bedside")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bedside")
    group.addoption("--slow", action="store_true", help="also run the tests marked slow")
    group.addoption(
        "--installed", action="store_true", help="refuse to test a bedside that is imported from the checkout"
    )
    group.addoption(
        "--bare-python", type=Path, metavar="PYTHON", help="an interpreter with bedside and no extra of it"
    )


def pytest_report_header() -> str:
    return f"bedside: {Path(bedside.__file__).parent}"


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--installed") and Path(bedside.__file__).resolve().is_relative_to(ROOT / "runtime"):
        raise pytest.UsageError("--installed: bedside comes from the checkout, not from an installed wheel")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow = pytest.mark.skip(reason="slow: runs with --slow")
    gpu = pytest.mark.skip(reason="needs an NVIDIA GPU")
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(slow)
        if "gpu" in item.keywords and not Path("/dev/nvidiactl").exists():
            item.add_marker(gpu)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference material beside the checkout, which is no part of it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the reference material in ../shared")
    return folder


@pytest.fixture(scope="session")
def bare_python(pytestconfig: pytest.Config) -> Path:
    """An interpreter whose environment holds bedside's core dependencies and no extra."""
    path = pytestconfig.getoption("--bare-python")
    if path is None:
        pytest.skip("needs --bare-python, which scripts/test gives")
    return ROOT / Path(path)


@pytest.fixture(scope="module")
def collected() -> Iterator[None]:
    """Collect with the tests that leave something open, and not in those of somebody else."""
    yield
    gc.collect()
