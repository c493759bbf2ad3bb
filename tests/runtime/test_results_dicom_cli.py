"""``--dicom``, as people use it: what is written, what is refused, and that nothing is replaced or left half."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bedside.bundle import Bundle
from bedside.contract import Tissue
from bedside.errors import OutputError
from bedside.nifti.writing import NiftiWriter
from bedside.results.dicom import codes
from bedside.results.dicom.folder import FILES, ResultFolder
from bedside.sample_ct import datasets
from bedside.scan import Grid
from command_line import draw, invoke
from hindered_writing import file_size_limit
from made_dicom import read, texts, write_xray, written
from tiny_bundle import make_bundle
from tiny_ct_bundle import make_ct_bundle

pytest.importorskip("highdicom", reason="needs the dicom extra")

DOCUMENT = Path(__file__).parents[2] / "docs" / "dicom.md"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def ct_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ct_bundle(tmp_path_factory.mktemp("bundle") / "tiny-ct")


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ct") / "series"
    folder.mkdir()
    pixel, side = 6.0, 64
    edge = -pixel * (side - 1) / 2
    grid = Grid(
        (16, side, side),
        np.array([[0, 0, pixel, edge], [0, pixel, 0, edge], [16, 0, 0, -140.0], [0, 0, 0, 1]]),
    )
    for number, dataset in enumerate(datasets(grid=grid)):
        dataset.save_as(folder / f"image-{number:03d}.dcm")
    return folder


def test_several_studies_are_scored_and_each_keeps_its_own(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in (1, 2):
        write_xray(
            tmp_path / "in" / f"{number}.dcm",
            StudyInstanceUID=f"1.2.{number}",
            SOPInstanceUID=f"1.2.{number}.9",
            PatientName=f"CANARY{number}",
        )
    write_xray(tmp_path / "in" / "3.dcm", StudyInstanceUID="1.2.3", ViewPosition="LL")
    done = invoke("score", "--bundle", bundle, tmp_path / "in", "--dicom", tmp_path / "out")
    assert done.exit_code == 1
    assert "7 DICOM objects" in done.stderr
    assert "CANARY" not in done.stderr + done.stdout
    found: dict[str, list[str]] = {}
    for path in sorted((tmp_path / "out").iterdir()):
        found.setdefault(str(read(path).StudyInstanceUID), []).append(path.stem.rpartition("-")[2])
    assert found == {
        "1.2.1": ["heatmap", "map", "report"],
        "1.2.2": ["heatmap", "map", "report"],
        "1.2.3": ["report"],
    }


def test_a_picture_that_is_no_dicom_is_refused(bundle: Path, tmp_path: Path) -> None:
    done = invoke(
        "score", "--bundle", bundle, draw(tmp_path / "CANARY.png"), "--dicom", tmp_path / "out", "--json"
    )
    assert done.exit_code == 1
    record = json.loads(done.stdout)
    assert (record["status"], record["error"]["code"]) == ("refused", "no-reference")
    assert "leave --dicom out" in record["error"]["message"]
    assert record["extent"] is None
    assert written(tmp_path / "out") == {}


def test_nothing_is_replaced_unasked(bundle: Path, tmp_path: Path) -> None:
    path = write_xray(tmp_path / "in.dcm")
    command = ("score", "--bundle", bundle, path, "--dicom", tmp_path / "out")
    assert invoke(*command).exit_code == 0
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}

    refused = invoke(*command)

    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
    write_xray(path, ViewPosition="LL")
    assert invoke(*command, "--overwrite").exit_code == 1
    assert set(written(tmp_path / "out")) == {
        "report"
    }  # nothing of the first answer stays beside the refusal


@pytest.mark.parametrize("arguments", [["--overwrite"], ["--labelmap"]])
def test_options_without_a_folder_are_told(arguments: list[str], tmp_path: Path) -> None:
    command = "segment" if "--labelmap" in arguments else "score"
    done = invoke(command, tmp_path / "x", *arguments)
    assert done.exit_code == 2
    assert "needs --dicom" in done.stderr


def test_a_full_disk_leaves_nothing_half(bundle: Path, tmp_path: Path) -> None:
    path = write_xray(tmp_path / "in.dcm")
    with file_size_limit(100_000):  # the map fits, the heatmap does not
        done = invoke("score", "--bundle", bundle, path, "--dicom", tmp_path / "out")
    assert done.exit_code == 2
    assert "[disk-full]" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_failure_half_way_takes_back_what_was_written(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path / "out")

    def broken() -> Iterator[bytes]:
        yield b"begun"
        raise OSError(28, "full")

    with pytest.raises(OutputError):
        folder.write("scan", {"segmentation": [b"whole"], "report": broken()})
    assert list((tmp_path / "out").iterdir()) == []
    assert list(FILES)[-1] == "report"


@pytest.mark.parametrize("command", ["score", "segment"])
def test_without_highdicom_the_extra_is_named(
    command: str, bundle: Path, ct_bundle: Path, series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    monkeypatch.setitem(sys.modules, "highdicom.sr", None)
    chosen, path = (bundle, write_xray(tmp_path / "in.dcm")) if command == "score" else (ct_bundle, series)
    done = invoke(command, "--bundle", chosen, path, "--dicom", tmp_path / "out")
    assert done.exit_code == 2
    assert "bedside[dicom]" in done.stderr


def test_a_scan_is_segmented_with_and_without_a_label_map(
    ct_bundle: Path, series: Path, tmp_path: Path
) -> None:
    command = ("segment", "--bundle", ct_bundle, series, "--dicom", tmp_path / "dicom")
    done = invoke(*command, "--json", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    files = written(tmp_path / "dicom")
    assert set(files) == {"seg", "montage", "report"}
    volumes = json.loads(done.stdout)["volumes"]
    assert f"Volume: {volumes['lung_ml']:g} mL" in [
        round_volume(line) for line in texts(read(files["report"]))
    ]
    assert read(files["report"]).StudyInstanceUID == read(series / "image-000.dcm").StudyInstanceUID

    again = invoke(*command, "--labelmap", "--overwrite")

    assert again.exit_code == 0, again.stderr
    assert "3 DICOM objects" in again.stderr
    assert set(written(tmp_path / "dicom")) == {"labelmap", "montage", "report"}


def round_volume(line: str) -> str:
    name, _, value = line.partition(": ")
    if name != "Volume":
        return line
    number, unit = value.split()
    return f"{name}: {round(float(number), 3):g} {unit}"


def test_a_scan_that_is_no_dicom_is_refused(ct_bundle: Path, series: Path, tmp_path: Path) -> None:
    from bedside.dicom import read_series

    path = tmp_path / "scan.nii.gz"
    with (
        read_series(series) as scan,
        NiftiWriter(path, scan.grid, kind="labels", name="", layout=None) as writer,
    ):
        for index, hu in enumerate(scan.read(range(scan.grid.shape[0]))):
            writer.write(index, ((hu + 1000) / 8).clip(0, 255).astype(np.uint8))
    done = invoke("segment", "--bundle", ct_bundle, path, "--dicom", tmp_path / "out", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["status"] in {"refused", "failed"}
    assert written(tmp_path / "out") == {}


def test_a_refused_scan_gets_a_report(ct_bundle: Path, series: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn"
    torn.mkdir()
    for number, path in enumerate(sorted(series.iterdir())):
        if number % 5 < 3:
            (torn / path.name).write_bytes(path.read_bytes())
    done = invoke("segment", "--bundle", ct_bundle, torn, "--dicom", tmp_path / "out", "--json")
    assert done.exit_code == 1
    error = json.loads(done.stdout)["error"]
    files = written(tmp_path / "out")
    assert set(files) == {"report"}
    lines = texts(read(files["report"]))
    assert f"Why there is no result: {error['code']} 99BEDSIDE" in lines
    assert f"Comment: {error['message']}" in lines


def test_every_private_code_stands_in_the_document() -> None:
    rows = [line.split("|")[1:3] for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    told = {code.strip().strip("`"): meaning.strip() for code, meaning in rows}
    assert {code: told.get(code) for code in codes.PRIVATE} == dict(codes.PRIVATE)


def test_codes_fit_their_attributes() -> None:
    assert all(len(meaning) <= codes.MAX_MEANING for meaning in codes.PRIVATE.values())
    long = codes.code_item(codes.pathology_code("Enlarged Cardiomediastinum" * 4))
    assert "CodeValue" not in long
    assert len(long.CodeMeaning) <= codes.MAX_MEANING
    assert codes.pathology_code("Pleural_Thickening").value == "finding-pleural-thickening"
    assert codes.pattern_code("Ground glass", opacity=True).value == "112120"


def test_every_tissue_of_the_built_in_bundle_has_a_segment() -> None:
    from bedside.results.dicom.segments import plan_labels, plan_segments

    tissues = Bundle.open("ct-opacity-lite").manifest.tissues
    names = [plan.name for plan in plan_segments(tissues)]
    assert names[:2] == ["right lung", "left lung"]
    assert [plan.labels for plan in plan_labels(tissues)] == [(label,) for label in range(1, len(tissues))]
    mixed = (
        Tissue("background"),
        Tissue("left lung", lung=True, side="left"),
        Tissue("x", lung=True, opacity=True),
    )
    assert [plan.name for plan in plan_segments(mixed)] == ["both lungs", "tissue 1", "tissue 2"]
