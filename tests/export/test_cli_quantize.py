from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from PIL import Image

from bedside.bundle import Bundle
from bedside.sample import write_sample
from bedside_export import cli, writer
from bedside_export.heads import published_head
from bedside_export.models import Classifier, SeverityDenseNet
from bedside_export.precision import makers, process, variants
from bedside_export.precision.report import EngineTrial
from bedside_export.precision.workbench import Contents
from bedside_export.severity import Naming, draft_severity
from bedside_export.writer import write_bundle
from tiny_bundle import MODEL, make_bundle, seal


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["bedside-export", "quantize", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 smooth pictures and one that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(70):
        random = np.random.Generator(np.random.PCG64(seed))
        coarse = Image.fromarray(random.integers(0, 256, (6, 5)).astype(np.uint8))
        coarse.resize((80, 96), Image.Resampling.BICUBIC).save(folder / f"Doe-John-{seed}.png")
    (folder / "Doe-John-x.png").write_bytes(b"not a picture")
    return folder


@pytest.fixture(scope="module")
def bundle(
    classify: Callable[..., Classifier],
    pictures: npt.NDArray[np.float32],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    out = tmp_path_factory.mktemp("written") / "mine"
    draft = draft_severity(classify(), published_head(), Naming())
    write_bundle(draft, SeverityDenseNet(classify(), published_head()), pictures, out=out)
    return out


@pytest.fixture(scope="module")
def given(bundle: Path, folder: Path) -> tuple[Path, Path]:
    """The bundle, and the pictures."""
    return bundle, folder


def test_a_bundle_gets_a_precision_in_one_command(
    bundle: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code = _run(monkeypatch, bundle, "--precision", "fp16", "--calibration", folder)
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "onnxruntime fp16: passed" in printed.out
    assert "written: mine-quantised" in printed.out
    assert "skipped file 71" in printed.err
    assert "Doe" not in printed.err + printed.out
    made = Bundle.open(tmp_path / "mine-quantised")
    assert set(made.manifest.models) == {"fp32", "fp16"}
    assert b"Doe" not in made.read("parity.json")

    code = _run(
        monkeypatch, "mine-quantised", "--precision", "fp16", "--calibration", folder, "--out", "again.zip"
    )
    assert code == 2
    assert "the bundle has fp16 already; add --force" in capsys.readouterr().err
    assert _run(monkeypatch, bundle, "--precision", "fp16", "--calibration", folder) == 2
    assert "there is something at the output already" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine-quantised"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--precision", "fp16"], "Missing option '--calibration'"),
        (["--precision", "int4", "--calibration", "PICTURES"], "'int4' is not one of bf16, fp16, int8"),
        (["--precision", "fp16,,int8", "--calibration", "PICTURES"], "'' is not one of"),
        (["--precision", "fp16", "--calibration", "ABSENT"], "no such folder of pictures"),
        (["--precision", "fp16", "--calibration", "EMPTY"], "the folder of pictures is empty"),
        (
            ["--precision", "int8", "--calibration", "ONE"],
            "there are 1 different inputs, and at least 64 are needed",
        ),
        (
            ["--precision", "fp16", "--calibration", "PICTURES", "--validation", "ONE"],
            "at least 32 are needed to",
        ),
        (
            ["--precision", "fp16", "--calibration", "PICTURES", "--out", "no/such/folder"],
            "does not exist; make it",
        ),
    ],
)
def test_what_can_not_be_done_is_told_on_one_line_and_writes_nothing(
    arguments: list[str],
    complaint: str,
    given: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle, folder = given
    (tmp_path / "in" / "empty").mkdir(parents=True)
    (tmp_path / "in" / "one").mkdir()
    write_sample(tmp_path / "in" / "one" / "sample.dcm")
    places = {
        "PICTURES": folder,
        "ABSENT": tmp_path / "absent",
        "EMPTY": tmp_path / "in" / "empty",
        "ONE": tmp_path / "in" / "one",
    }
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert _run(monkeypatch, bundle, *(places.get(word, word) for word in arguments)) == 2
    printed = capsys.readouterr()
    assert complaint in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert list((tmp_path / "work").iterdir()) == []


def test_an_operator_that_no_engine_shares_is_named_with_its_node(
    bundle: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = onnx.load(bundle / "model.onnx")
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type, relu.domain = "FancyRelu", "com.example"
    monkeypatch.setattr(makers, "parse", lambda _: model)
    arguments = ("--precision", "int8", "--calibration", folder, "--out", tmp_path / "out")
    assert _run(monkeypatch, bundle, *arguments) == 2
    assert f"'FancyRelu' of node {relu.name!r} is not in the ONNX standard" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_nodes_without_names_are_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = make_bundle(tmp_path / "tiny")
    arguments = ("--precision", "fp16", "--calibration", folder, "--out", tmp_path / "out")
    assert _run(monkeypatch, tiny, *arguments) == 2
    assert "nodes without a name of their own" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_altered_bundle_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = make_bundle(tmp_path / "tiny")
    (tiny / MODEL).write_bytes(b"another")
    arguments = ("--precision", "fp16", "--calibration", folder, "--out", tmp_path / "out")
    assert _run(monkeypatch, tiny, *arguments) == 2
    assert "is not what bundle.json says" in capsys.readouterr().err
    seal(tiny)
    assert _run(monkeypatch, tiny, *arguments) == 2
    assert "not ONNX" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing(
    bundle: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fill(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    quick = variants.Quantised(Contents.of(Bundle.open(bundle)), (EngineTrial("onnxruntime", "fp32"),))
    arguments = ("--precision", "fp16", "--calibration", folder, "--out", tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr(variants, "stage", fill)
        assert _run(patched, bundle, *arguments) == 2
    assert "the bundle can't be written (no space left on device)" in capsys.readouterr().err
    monkeypatch.setattr(process, "add_precisions", lambda *_, **__: quick)
    monkeypatch.setattr(writer, "_write", fill)
    assert _run(monkeypatch, bundle, *arguments) == 2
    assert "the bundle can't be written (no space left on device)" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_help_needs_neither_torch_nor_nncf() -> None:
    import subprocess

    code = (
        "import sys, bedside_export.cli; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'nncf', 'onnx', 'onnxruntime')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
