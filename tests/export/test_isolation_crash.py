"""A compiler that really crashes: OpenVINO 2026.4.1 dies of SIGSEGV on a DenseNet that ONNX Runtime quantised.

ONNX Runtime's static quantisation (quantize-dequantize, unsigned 8-bit activations, signed 8-bit weights per channel)
of a DenseNet of any size, compiled for a batch of one in float32 or bf16, was enough on x86-64 with AMX. Another
release may well compile it; what must hold either way is that this process lives, and gets an answer.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch

from bedside.bundle import Bundle, Input
from bedside.engines import EngineRequest, open_engine
from bedside.errors import BackendError
from bedside.guard import Guard
from bedside.isolation import IsolatedBackend
from bedside_export.onnx import to_onnx
from tiny_bundle import MODEL, make_bundle, read_manifest, seal

SIDE = 64
QUANTISED = "int8.onnx"


def pictures() -> Iterator[dict[str, npt.NDArray[np.float32]]]:
    for seed in range(2):
        values = np.random.default_rng(seed).uniform(-1024, 1024, (1, 1, SIDE, SIDE))
        yield {"image": values.astype(np.float32)}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A DenseNet of random weights, and what ONNX Runtime's quantisation makes of it."""
    torchvision = pytest.importorskip("torchvision")
    quantization = pytest.importorskip("onnxruntime.quantization")
    pytest.importorskip("openvino")

    class Pictures(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.left = pictures()

        def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
            return next(self.left, None)

    torch.manual_seed(0)
    network = torchvision.models.DenseNet(8, (1, 2, 1, 1), 16, num_classes=2)
    network.features.conv0 = torch.nn.Conv2d(1, 16, 7, 2, 3, bias=False)
    folder = make_bundle(tmp_path_factory.mktemp("densenet") / "b")
    spec = Input("image", (None, 1, SIDE, SIDE), -1024.0, 1024.0, "centre-square")
    (folder / MODEL).write_bytes(to_onnx(network, spec, ("severity",)))
    quantization.quantize_static(
        folder / MODEL,
        folder / QUANTISED,
        Pictures(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    manifest = {key: value for key, value in read_manifest(folder).items() if key != "files"}
    manifest["input"]["shape"] = [None, 1, SIDE, SIDE]
    manifest["outputs"] = manifest["outputs"][:1]
    manifest["models"]["int8"] = QUANTISED
    manifest["tolerances"]["int8"] = {"extent": 0.25, "opacity": 0.25}
    return Bundle.open(seal(folder, manifest))


def open_or_crash(bundle: Bundle) -> IsolatedBackend | BackendError:
    try:
        return IsolatedBackend("openvino", bundle, precision="int8")
    except BackendError as error:
        return error


def test_engine_answers_or_its_crash_is_told(bundle: Bundle) -> None:
    came = open_or_crash(bundle)
    if isinstance(came, IsolatedBackend):
        with came:
            assert came.run(next(pictures()))["severity"].shape == (1, 2)
    else:
        assert came.code == "engine-crashed"
        assert "openvino int8 died of SIG" in came.message
        assert "in opening the model" in came.message


def test_job_goes_on_behind_the_crash(bundle: Bundle) -> None:
    with IsolatedBackend("onnxruntime", bundle) as reference:
        wanted = reference.run(next(pictures()))["severity"]
    guard = Guard(watchdog_s=60, fallback=True)
    engine = open_engine(bundle, EngineRequest("openvino", "int8", guard=guard))
    given = engine.run(next(pictures()))["severity"]
    if engine.info.chosen == "fallback":
        assert (engine.info.backend, engine.info.precision) == ("onnxruntime", "fp32")
        np.testing.assert_array_equal(given, wanted)
    else:
        assert np.isfinite(given).all()
    engine.close()
