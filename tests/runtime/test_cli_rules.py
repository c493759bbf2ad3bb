"""``bedside rules``: why a study matches a rule or does not, without a word of what the study says."""

from __future__ import annotations

import errno
import json
import os
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from command_line import invoke
from dicom_files import make_dataset, write_dataset

if sys.version_info < (3, 11):
    pytest.importorskip("tomli", reason="needs the extra 'node'")

CANARY = "CANARY"
CONFIG = """
spool = "spool"
[receiver]
[[rules]]
name = "chest"
bundle = "cxr-severity-lite"
modality = ["CR", "DX"]
view = ["PA", "AP", ""]
[[rules]]
name = "ct: lung"
bundle = "ct-opacity-lite"
modality = ["CT"]
series_description = "lung"
calling_ae = ["CT1"]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(CONFIG, "utf-8")
    return path


def write(path: Path, series: str = "1", **header: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {
        "PatientName": CANARY,
        "PatientID": CANARY,
        "StudyDescription": CANARY,
        "SeriesDescription": CANARY,
    }
    uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": f"1.2.3.{series}"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return write_dataset(path, make_dataset(**{**told, **uids, **header}))


def rules(config: Path, *arguments: object) -> Result:
    return invoke("rules", "--config", config, *map(str, arguments))


def records(done: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_rule_is_explained(tmp_path: Path, config: Path) -> None:
    done = rules(config, write(tmp_path / "a.dcm", ViewPosition="PA"))
    assert (done.exit_code, done.stderr) == (0, "")
    told = " ".join(done.stdout.split())
    assert "a.dcm: 1 file chest yes, bundle cxr-severity-lite; modality is 'CR' or 'DX'; view is" in told
    assert (
        "ct: lung no; modality is not 'CT'; calling_ae is not 'CT1'; series_description is not /lung/" in told
    )
    assert CANARY not in done.output


def test_titles_of_the_sender_count(tmp_path: Path, config: Path) -> None:
    path = write(tmp_path / "a.dcm", Modality="CT", SeriesDescription="Lung 1.0")
    assert rules(config, path).exit_code == 1
    done = rules(config, path, "--calling-ae", "CT1", "--called-ae", "NODE")
    assert done.exit_code == 0
    assert "ct: lung" in done.stdout


def test_study_that_no_rule_takes_is_told_by_the_exit_code(tmp_path: Path, config: Path) -> None:
    done = rules(config, write(tmp_path / "a.dcm", Modality="MR"), write(tmp_path / "b.dcm"))
    assert done.exit_code == 1
    assert done.stdout.count("no rule takes it") == 1


def test_folder_gives_one_answer_a_series(tmp_path: Path, config: Path) -> None:
    folder = tmp_path / "study"
    for number in range(3):
        write(
            folder / f"{number}.dcm",
            "1",
            Modality="CT",
            SeriesDescription="lung",
            SOPInstanceUID=f"1.2.{number}",
        )
    write(folder / "x.dcm", "2", ViewPosition="LL")
    (folder / "notes.txt").write_text(f"no DICOM; {CANARY}", "utf-8")
    done = rules(config, folder, "--json", "--calling-ae", "CT1")
    assert done.exit_code == 1
    found = records(done)
    assert [(each["series"], each["files"], each["rule"]) for each in found] == [
        (1, 3, "ct: lung"),
        (2, 1, None),
    ]
    assert found[0]["bundle"] == "ct-opacity-lite"
    assert found[0]["rules"][1] == {
        "name": "ct: lung",
        "matches": True,
        "earlier": None,
        "clauses": [
            {"attribute": "modality", "wanted": "'CT'", "holds": True},
            {"attribute": "calling_ae", "wanted": "'CT1'", "holds": True},
            {"attribute": "series_description", "wanted": "/lung/", "holds": True},
        ],
    }
    assert "series 2: 1 file" in rules(config, folder).stdout
    assert CANARY not in done.output


def test_series_whose_files_rules_see_differently_has_two_answers(tmp_path: Path, config: Path) -> None:
    write(tmp_path / "study" / "1.dcm", ViewPosition="PA")
    write(tmp_path / "study" / "2.dcm", ViewPosition="LL")
    found = records(rules(config, tmp_path / "study", "--json"))
    assert [(each["series"], each["files"], each["rule"]) for each in found] == [
        (1, 1, "chest"),
        (1, 1, None),
    ]


def test_zip_of_a_folder_is_read(tmp_path: Path, config: Path) -> None:
    path = write(tmp_path / "a.dcm")
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as packed:
        packed.write(path, "study/a.dcm")
    assert records(rules(config, tmp_path / "study.zip", "--json"))[0]["rule"] == "chest"


def test_file_that_can_not_be_read_is_told_and_the_rest_goes_on(tmp_path: Path, config: Path) -> None:
    folder = tmp_path / "study"
    content = write(folder / "a.dcm").read_bytes()
    (folder / "b.dcm").write_bytes(content[: len(content) // 2])
    done = rules(config, folder)
    assert done.exit_code == 1
    assert "chest" in done.stdout
    assert "file 2 of 2: " in done.stderr
    assert "[broken-dicom]" in done.stderr
    assert CANARY not in done.output


def test_picture_without_uids_is_told(tmp_path: Path, config: Path) -> None:
    done = rules(config, write(tmp_path / "a.dcm", SeriesInstanceUID=CANARY))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no SeriesInstanceUID" in done.stderr
    assert CANARY not in done.stderr


@pytest.mark.parametrize("content", [b"\x89PNG" + bytes(200), b"x"])
def test_file_that_is_no_dicom_is_told(tmp_path: Path, config: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    done = rules(config, tmp_path / "a.png")
    assert done.exit_code == 1
    assert "[not-an-image]" in done.stderr


def test_folder_without_dicom_is_told(tmp_path: Path, config: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = rules(config, tmp_path / "empty")
    assert done.exit_code == 1
    assert "no DICOM file there" in done.stderr


def test_path_that_is_not_there_is_told_and_the_rest_goes_on(tmp_path: Path, config: Path) -> None:
    done = rules(config, tmp_path / "none.dcm", write(tmp_path / "a.dcm"))
    assert done.exit_code == 1
    assert "[not-found]" in done.stderr
    assert "chest" in done.stdout


@pytest.mark.parametrize("content", [b"", b"x", None], ids=["empty", "no DICOM", "link in a circle"])
def test_file_of_a_folder_is_told_by_its_place(tmp_path: Path, config: Path, content: bytes | None) -> None:
    folder = tmp_path / "study"
    wrong = folder / f"a {CANARY}.dcm"
    write(folder / "b" / "b.dcm")
    if content is None:
        wrong.symlink_to(wrong)
    else:
        wrong.write_bytes(content)
    done = rules(config, folder)
    assert done.exit_code == 1
    assert "chest" in done.stdout
    assert "study: file 1 of 2: " in done.stderr
    assert CANARY not in done.output


def test_folder_that_can_not_be_searched_is_told_and_the_rest_goes_on(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "study" / "a.dcm")
    (tmp_path / "study" / CANARY).mkdir()
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if Path(path).name == CANARY:
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    done = rules(config, tmp_path / "study")
    assert done.exit_code == 1
    assert "chest" in done.stdout
    assert "a folder in it can't be searched (permission denied)" in done.stderr
    assert CANARY not in done.output


def test_wrong_configuration_is_told_with_its_place(tmp_path: Path, config: Path) -> None:
    config.write_text(CONFIG.replace('["CT1"]', "[1]"), "utf-8")
    done = rules(config, write(tmp_path / "a.dcm"))
    assert done.exit_code == 2
    assert "rules[1].calling_ae[0] must be text, not an integer" in done.stderr
