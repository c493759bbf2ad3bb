"""``bedside-export finetune`` from its options to weights, a report and a bundle, or to one line of complaint."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from bedside.bundle import Bundle
from bedside_export import cli
from made_masks import Small, write_case

COMMON = (
    "--network",
    "made_masks:build",
    "--window=-1000,200",
    "--mean=-400",
    "--std",
    "600",
    "--tile",
    "64",
)
SHORT = ("--steps", "4", "--every", "2", "--batch", "2", "--rate", "0.01")


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["bedside-export", "finetune", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A checkpoint, a table of tissues, and scans of two scanners."""
    torch.manual_seed(0)
    torch.save(Small(1, 3).state_dict(), tmp_path / "start.pt")
    table = [
        {"name": "rest"},
        {"name": "lung", "lung": True},
        {"name": "haze", "opacity": True, "lung": True},
    ]
    (tmp_path / "table.json").write_text(json.dumps(table))
    for source, hu, first in (("A", -450.0, 0), ("B", -250.0, 5)):
        for seed in (first, first + 1):
            write_case(tmp_path / "scans" / source, f"{source}{seed}", seed, haze_hu=hu)
    return tmp_path


def test_masks_become_weights_a_report_and_a_bundle(
    start: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = start / "tuned"
    code = _run(
        monkeypatch, start / "start.pt", *COMMON, "--tissues", start / "table.json", "--masks", start / "scans",
        *SHORT, "--out", out, "--bundle", start / "bundle", "--name", "tuned", "--licence", "CC0-1.0",
    )  # fmt: skip
    printed = capsys.readouterr()
    assert code == 0, printed.err
    told = json.loads((out / "report.json").read_text())
    assert [(row["source"], row["part"], row["cases"]) for row in told["sources"]] == [
        ("A", "held-out", 1),
        ("B", "held-out", 1),
    ]
    assert told["steps"] == 4
    assert sorted(path.name for path in out.iterdir()) == ["network.pt", "report.json", "tissues.json"]
    assert "A                    held-out      1  " in printed.out
    assert Bundle.open(start / "bundle").manifest.name == "tuned"
    assert [tissue.name for tissue in Bundle.open(start / "bundle").manifest.tissues] == [
        "rest",
        "lung",
        "haze",
    ]
    assert _run(monkeypatch, start / "start.pt", *COMMON, "--masks", start / "scans", "--out", out) == 2
    assert "finished training" in capsys.readouterr().err


def test_command_for_the_bundle_is_told(
    start: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        "--tissues",
        start / "table.json",
        "--masks",
        start / "scans",
        *SHORT,
        "--out",
        start / "tuned",
    )
    assert _run(monkeypatch, start / "start.pt", *COMMON, *arguments) == 0
    (line,) = (each for each in capsys.readouterr().out.splitlines() if each.startswith("a bundle of it: "))
    command = line.removeprefix("a bundle of it: bedside-export ").replace("BUNDLE", str(start / "bundle"))
    monkeypatch.setattr(sys, "argv", ["bedside-export", *command.split()])
    cli.main()
    assert Bundle.open(start / "bundle").manifest.task == "ct-opacity"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--licence-text", "terms.txt"), "go with --licence"),
        (("--input", "l3-unet"), "go together, and without --input"),
        (("--old-table", "old.csv"), "--old-table goes with --old"),
        (("--freeze", "encoder"), "no part 'encoder' to freeze"),
        (("--labels", "opacity"), "go with the tissues 'sides'"),
        (("--table", "nothing.csv"), "table can't be read"),
        (("--old", "nowhere"), "no such folder of masks"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    start: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    complaint: str,
) -> None:
    given = ("--tissues", start / "table.json", "--masks", start / "scans", "--out", start / "tuned")
    assert _run(monkeypatch, start / "start.pt", *COMMON, *given, *arguments) == 2
    told = capsys.readouterr().err
    assert complaint in told
    assert not (start / "tuned" / "network.pt").exists()
    assert "A0" not in told  # no name of a file


def test_empty_folder_and_single_case_are_refused(
    start: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (
        start / "start.pt",
        *COMMON,
        "--tissues",
        start / "table.json",
        "--out",
        start / "tuned",
        "--masks",
    )
    (start / "empty").mkdir()
    assert _run(monkeypatch, *given, start / "empty") == 2
    assert "holds no scan with masks" in capsys.readouterr().err
    write_case(start / "single", "one", 0)
    assert _run(monkeypatch, *given, start / "single") == 2
    assert "no patient to hold out: 1 in all" in capsys.readouterr().err


def test_help_needs_no_torch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, "--help") == 0
    told = capsys.readouterr().out
    assert "Not for clinical use" in told
    assert "--freeze PART" in told
