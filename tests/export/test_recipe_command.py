"""The recipes' one command: what is missing is told before hours of training, in a line."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the recipes need the extra recipes")

from click.testing import CliRunner

from bedside_export.recipes import __main__ as recipes
from bedside_export.recipes.cxr import severity
from bedside_export.recipes.cxr.quality import appearance
from bedside_export.recipes.cxr.quality import data as quality_data


def _never(*_: object, **__: object) -> None:
    raise AssertionError("training began")


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty folders ``data`` and ``others``; whatever trains fails the test."""
    for name in ("data", "others"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(severity, "evaluate", _never)
    return tmp_path


def _run(folder: Path, *more: str) -> tuple[int, str]:
    result = CliRunner().invoke(
        recipes.main, ["cxr", "--data", str(folder / "data"), "--out", str(folder / "out"), *more]
    )
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_missing_packages_are_told_before_anything_is_trained(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appearance, "read_chests", lambda *_, **__: None)
    for name in ("read_bodies", "read_single_slices"):
        monkeypatch.setattr(quality_data, name, lambda *_: ())
    code, told = _run(folders, "--others", str(folders / "others"))
    assert code == 1
    assert "pydicom_data-*.whl" in told
    assert "cxr.quality.packages says how to get it" in told


def test_an_empty_data_folder_is_told_in_a_line(folders: Path) -> None:
    code, told = _run(folders, "--others", str(folders / "others"))
    assert code == 1
    assert told.startswith("Error: ")
    assert len(told.splitlines()) == 1
