"""OpenVINO on processors that lack what a precision needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bedside.backends import open_backend
from bedside.bundle import Bundle
from bedside.errors import BackendError
from tiny_bundle import make_bundle, read_manifest, seal

pytest.importorskip("openvino")

from bedside.backends.openvino import building

OLD = ("FP32", "INT8", "BIN")
"""What OpenVINO finds in a processor without half precision."""


class Core:
    """Of a processor that is able to nothing but this."""

    def __init__(self, *able: str) -> None:
        self._able = list(able)

    def get_property(self, _device: str, name: str) -> Any:
        assert name == "OPTIMIZATION_CAPABILITIES"
        return self._able


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """With files for fp32 and int8."""
    folder = make_bundle(tmp_path / "b")
    (folder / "int8.onnx").write_bytes((folder / "model.onnx").read_bytes())
    manifest = {key: value for key, value in read_manifest(folder).items() if key != "files"}
    manifest["models"]["int8"] = "int8.onnx"
    manifest["tolerances"]["int8"] = manifest["tolerances"]["bf16"]
    return Bundle.open(seal(folder, manifest))


@pytest.mark.parametrize(
    ("able", "precision", "told"),
    [
        (OLD, "bf16", "no bfloat16 arithmetic; ask for fp32 or int8"),
        (OLD, "fp16", "no float16 arithmetic; ask for fp32 or int8"),
        (OLD, "int8-bf16", "no bfloat16 arithmetic; ask for fp32 or int8"),
        (("FP32",), "int8", "no int8 arithmetic; ask for fp32"),
        ((*OLD, "BF16"), "int8-fp16", "no float16 arithmetic; ask for fp32 or bf16 or int8 or int8-bf16"),
    ],
)
def test_what_the_processor_lacks_is_told_with_what_it_runs(
    able: tuple[str, ...], precision: str, told: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "open_core", lambda: Core(*able))
    with pytest.raises(BackendError, match=f"this processor has {told}$") as caught:
        open_backend("openvino", bundle, precision=precision)
    assert caught.value.code == "engine-unsupported"


def test_a_precision_that_the_bundle_lacks_is_not_advised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "open_core", lambda: Core(*OLD))
    with pytest.raises(BackendError, match=r"ask for fp32$"):
        open_backend("openvino", Bundle.open(make_bundle(tmp_path / "b")), precision="bf16")
