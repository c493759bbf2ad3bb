"""ONNX Runtime on NVIDIA's GPUs, through its CUDA and its TensorRT provider, and never beside them.

    leaf       the two backends: from arrays to arrays
    providers  what a provider takes, and whether it is there: ONNX Runtime itself goes on without it
    lanes      a session of one shape: memory on the device, one graph of all that it launches
    sealing    the folder of engines that the TensorRT provider built, with hashes that find damage

Only this package and `bedside.backends.onnxruntime` import ONNX Runtime.
"""

from __future__ import annotations

from bedside.backends.onnxruntime_gpu.leaf import OnnxRuntimeCudaBackend, OnnxRuntimeTensorRtBackend

__all__ = ["OnnxRuntimeCudaBackend", "OnnxRuntimeTensorRtBackend"]
