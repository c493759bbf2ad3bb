"""``bedside-export ct-opacity`` from its options to a bundle, or to one line of complaint."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from bedside.backends import open_backend
from bedside.bundle import Bundle
from bedside.contract import Tissue
from bedside_export import cli
from bedside_export.ct_models import L3UNet


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["bedside-export", "ct-opacity", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.slow
def test_a_lightning_checkpoint_of_the_published_u_net_becomes_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(5)
    network = L3UNet(1, 5).eval()
    state = {f"model.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": {"lr": 1e-3}}, tmp_path / "unet.ckpt")
    out = tmp_path / "bundle"
    code = _run(
        monkeypatch, "--arch", "l3-unet2d", "--checkpoint", tmp_path / "unet.ckpt", "--tile", "96,64",
        "--licence", "Apache-2.0", "--commercial-use", "--out", out, "--name", "l3", "--version", "1.2",
    )  # fmt: skip
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "onnxruntime fp32: passed  opacity volume off by" in printed.out
    assert "ground glass: Dice loss" in printed.out
    bundle = Bundle.open(out)
    assert (bundle.manifest.name, bundle.manifest.version) == ("l3", "1.2")
    assert bundle.manifest.licence.commercial_use
    image = torch.randn(1, 1, 64, 80)
    engine = open_backend("onnxruntime", bundle)
    answer = engine.run({"slice": image.numpy()})["tissues"]
    engine.close()
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(answer), network(image).softmax(1), atol=1e-5, rtol=0)


def test_ones_own_network_with_its_own_table_becomes_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = [
        {"name": "rest"},
        {"name": "lung", "lung": True},
        {"name": "haze", "lung": True, "opacity": True},
    ]
    (tmp_path / "table.json").write_text(json.dumps(table))
    code = _run(
        monkeypatch, "--arch", "ct_networks:build", "--checkpoint", "random:1", "--tissues", tmp_path / "table.json",
        "--window=-1000,200", "--mean=-400", "--std", "600", "--tile", "64", "--spacing", "1.4", "--fixed",
        "--out", tmp_path / "bundle",
    )  # fmt: skip
    printed = capsys.readouterr()
    assert code == 0, printed.err
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert manifest.tissues == (
        Tissue("rest"),
        Tissue("lung", lung=True),
        Tissue("haze", opacity=True, lung=True),
    )
    assert (manifest.input.low, manifest.input.high, manifest.input.outside) == (-1, 1, -1)
    assert manifest.input.hu_window == (-1000.0, 200.0)
    assert manifest.input.shape == (None, 1, 64, 64)
    assert manifest.input.spacing_mm == (1.4, 1.4)
    assert "random weights: for tests only" in manifest.title


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--checkpoint", "random:0"], "Missing option '--arch'"),
        (
            ["--arch", "l3-unet2d", "--checkpoint", "nothing.ckpt"],
            "no checkpoint: neither a file nor random:SEED",
        ),
        (["--arch", "unet", "--checkpoint", "random:0"], "no architecture 'unet'"),
        (
            ["--arch", "l3-unet2d", "--checkpoint", "random:0", "--window=-1000,0"],
            "--window, --mean and --std go",
        ),
        (
            ["--arch", "x:y", "--checkpoint", "random:0", "--window=0,-1", "--mean", "0", "--std", "1"],
            "lower end first",
        ),
        (["--arch", "x:y", "--checkpoint", "random:0", "--window", "0"], "'0' is not two with a comma"),
        (["--arch", "x:y", "--checkpoint", "random:0", "--tile", "a"], "'a' is not one number, or two"),
        (["--arch", "x:y", "--checkpoint", "random:0", "--tissues", "nothing"], "no tissues: neither one of"),
        (["--arch", "x:y", "--checkpoint", "random:0", "--commercial-use"], "go with --licence"),
        (["--arch", "x:y", "--checkpoint", "random:0", "--input", "mine"], "'mine' is not one of"),
        (["--arch", "x:y", "--checkpoint", "random:0", "--context-mm", "2.5"], "--context-mm goes with"),
        (["--arch", "x:y", "--checkpoint", "random:0", "--context-mm", "60"], "not in the range 0<=x<=50"),
    ],
)
def test_wrong_usage_is_one_complaint_and_nothing_is_written(
    arguments: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run(monkeypatch, *arguments, "--out", "bundle") == 2
    printed = capsys.readouterr()
    assert complaint in printed.err
    assert "Traceback" not in printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "table",
    ["{}", '[{"lung": true}]', '[{"name": "a", "lung": 1}]', '[{"name": "a", "colour": "red"}]', "[1]", "["],
)
def test_a_table_that_is_none_is_told(
    table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "table.json").write_text(table)
    arguments = ("--arch", "x:y", "--checkpoint", "random:0", "--tissues", tmp_path / "table.json")
    assert _run(monkeypatch, *arguments, "--out", tmp_path / "bundle") == 2
    assert "tissue" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_help_needs_no_torch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, "--help") == 0
    told = capsys.readouterr().out
    assert "Not for clinical use" in told
    assert "--skip [constant|body]" in told
