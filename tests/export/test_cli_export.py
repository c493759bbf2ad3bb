from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from bedside.backends import open_backend
from bedside.bundle import Bundle
from bedside_export import cli
from bedside_export.cli import cxr_severity


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["bedside-export", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_densenet_is_exported_and_answers_as_torchxrayvision(
    tmp_path: Path, xrv: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(11)
    network = xrv.models.DenseNet(num_classes=18).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # keeps untrained activations within a few units
            module.state_dict()["running_var"].fill_(4.0)
    network.features.norm0.running_var.fill_(1e6)
    torch.save(network, tmp_path / "mine.pt")
    out = tmp_path / "bundle"
    code = _run(
        monkeypatch, "cxr-severity", "--weights", tmp_path / "mine.pt", "--weights-kind", "densenet121-res224-all",
        "--out", out, "--name", "mine", "--version", "2.1", "--licence", "CC-BY-4.0",
    )  # fmt: skip
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "onnxruntime fp32: passed" in printed.out
    assert f"written: {out}" in printed.out

    bundle = Bundle.open(out)
    assert (bundle.manifest.name, bundle.manifest.version, bundle.manifest.licence.spdx) == (
        "mine",
        "2.1",
        "CC-BY-4.0",
    )
    assert bundle.manifest.input.shape == (None, 1, 224, 224)
    picture = (
        np.random.Generator(np.random.PCG64(0)).uniform(-1024, 1024, (1, 1, 224, 224)).astype(np.float32)
    )
    engine = open_backend("onnxruntime", bundle)
    severity = engine.run({"image": picture})["severity"]
    engine.close()
    with torch.inference_mode():
        logit = float(network(torch.from_numpy(picture))[0, network.targets.index("Lung Opacity")])
    # Cohen et al. 2020, mlmed/covid-severity
    wanted = [0.8705248236656189 * logit + 3.4137437, 0.5484423041343689 * logit + 2.5535977]
    np.testing.assert_allclose(severity[0], wanted, atol=1e-3)
    assert json.loads(bundle.read("parity.json"))["images"] == 12


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--weights", "random:0"], "Missing option '--out'"),
        (["--weights", "random:0", "--out", "OUT", "--head", "v9"], "'v9' is not one of"),
        (
            ["--weights", "random:0", "--out", "OUT", "--head", "fit"],
            "--head fit needs --scores CSV and --images DIR",
        ),
        (["--weights", "random:0", "--out", "OUT", "--scores", "x.csv"], "go with --head fit"),
        (["--weights", "random:0", "--out", "OUT", "--commercial-use"], "go with --licence"),
        (["--weights", "nothing", "--out", "OUT"], "error: no weights: neither a file, nor random:SEED"),
        (["--weights", "random:0", "--out", "OUT/no/bundle"], "does not exist; make it first"),
        (
            ["--weights", "random:0", "--weights-kind", "x", "--out", "OUT"],
            "torchxrayvision has no DenseNet weights",
        ),
        (
            ["--weights", "random:0", "--weights-kind", "densenet121-res224-nih", "--out", "OUT"],
            "take --head fit",
        ),
        (
            ["--weights", "random:0", "--out", "OUT", "--name", "My Bundle"],
            "name must be at most 64 lower-case letters",
        ),
        (
            ["--weights", "random:0", "--out", "OUT", "--licence", "MIT", "--licence-text", "no.txt"],
            "licence text",
        ),
    ],
)
def test_wrong_usage_is_told_on_one_line_and_writes_nothing(
    arguments: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "bundle"
    assert _run(monkeypatch, "cxr-severity", *(word.replace("OUT", str(out)) for word in arguments)) == 2
    printed = capsys.readouterr()
    assert complaint in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_hostile_weights_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "witness"),)

    torch.save(Trap(), tmp_path / "weights.pt")
    kind = "densenet121-res224-all"
    arguments = ("--weights", tmp_path / "weights.pt", "--weights-kind", kind, "--out", tmp_path / "bundle")
    assert _run(monkeypatch, "cxr-severity", *arguments) == 2
    assert "do not use it" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]


def test_an_engine_that_disagrees_ends_with_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bedside_export.errors import ParityError

    def refuse(_: object) -> None:
        raise ParityError("onnxruntime fp32 does not answer as PyTorch does (x); no bundle is written")

    monkeypatch.setattr(cxr_severity, "_export", refuse)
    assert _run(monkeypatch, "cxr-severity", "--weights", "random:0", "--out", tmp_path / "bundle") == 1
    assert capsys.readouterr().err.startswith("error: onnxruntime fp32 does not answer")


def test_help_and_version_need_no_torch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import subprocess

    code = "import sys, bedside_export.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert _run(monkeypatch, "--version") == 0
    assert _run(monkeypatch, "cxr-severity", "--help") == 0
    assert "Not for clinical use" in capsys.readouterr().out
