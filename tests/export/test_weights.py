from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from bedside_export.errors import ExportError
from bedside_export.weights import read_weights

WRAPPINGS: dict[str, Callable[[torch.nn.Module], Any]] = {
    "state dict": lambda network: network.state_dict(),
    "training checkpoint": lambda network: {"epoch": 3, "state_dict": network.state_dict()},
    "data parallel": lambda network: {f"module.{key}": value for key, value in network.state_dict().items()},
    "whole module": lambda network: network,
    "wrapped whole module": lambda network: {"model": network},
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older format"])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_every_way_of_saving_gives_the_state_dict(
    wrapping: str, zipped: bool, tmp_path: Path, small_densenet: torch.nn.Module
) -> None:
    path = tmp_path / "weights.pt"
    torch.save(WRAPPINGS[wrapping](small_densenet), path, _use_new_zipfile_serialization=zipped)
    wanted = small_densenet.state_dict()
    found = read_weights(path)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


class _Runs:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def _save_zip(content: Any, path: Path) -> None:
    torch.save(content, path)


def _save_older(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def _save_plain(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("save", [_save_zip, _save_older, _save_plain])
@pytest.mark.parametrize(
    "call",
    [
        lambda witness: _Runs(os.mkdir, str(witness)),
        lambda witness: _Runs(os.system, f"mkdir {witness}"),
        lambda witness: _Runs(eval, f"__import__('os').mkdir({str(witness)!r})"),
        lambda witness: _Runs(Path.mkdir, witness),
        lambda witness: _Runs(getattr, witness, "mkdir"),
    ],
    ids=["os.mkdir", "os.system", "eval", "Path.mkdir", "getattr"],
)
def test_a_hostile_file_is_refused_and_runs_nothing(
    call: Callable[[Path], _Runs], save: Callable[[Any, Path], None], tmp_path: Path
) -> None:
    witness, path = tmp_path / "witness", tmp_path / "weights.pt"
    save({"weight": torch.zeros(2) if save is not _save_plain else 0, "trap": call(witness)}, path)
    with pytest.raises(ExportError, match="refused: it refers to"):
        read_weights(path)
    assert not witness.exists()


def test_a_class_of_torchxrayvision_is_not_even_constructed(
    tmp_path: Path, xrv: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.pt"
    torch.save(_Runs(xrv.models.DenseNet, 32, (6, 12, 24, 16), 64, 4, 0, 18, 1, "all", str(tmp_path)), path)
    monkeypatch.setattr(xrv.models, "get_weights", lambda *_: pytest.fail("a constructor of the file ran"))
    with pytest.raises(ExportError, match="holds no tensors"):
        read_weights(path)


@pytest.mark.parametrize(
    "content", [b"", b"weights", b"PK\x03\x04 and nothing", b"\x80\x02", b"\x80\x02]q\x00."]
)
def test_bytes_that_are_no_checkpoint_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=r"not written by torch\.save|damaged or not a torch checkpoint"):
        read_weights(path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older format"])
def test_a_truncated_checkpoint_is_refused(
    zipped: bool, tmp_path: Path, small_densenet: torch.nn.Module
) -> None:
    path = tmp_path / "weights.pt"
    torch.save(small_densenet.state_dict(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.95):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ExportError):
            read_weights(path)


def test_what_holds_no_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"epoch": 3}, path)
    with pytest.raises(ExportError, match="holds no tensors"):
        read_weights(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="can't be read"):
        read_weights(tmp_path / "weights.pt")
