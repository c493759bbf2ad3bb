"""The GPU that is here."""

from __future__ import annotations

from bedside.backends.tensorrt.cuda import Cuda
from bedside.backends.tensorrt.enginefile import Site
from bedside.device import describe_device

__all__ = ["find_site"]


def find_site(cuda: Cuda) -> Site:
    """The GPU that is here.

    Raises:
        BackendError: ``engine-unsupported`` if there is none.
    """
    name, capability, driver = cuda.describe()
    device = describe_device(gpus=False)
    if device.jetson is not None and device.jetson.l4t:
        driver = f"L4T {device.jetson.l4t}, {driver}"
    elif device.gpus and device.gpus[0].driver:
        driver = f"{device.gpus[0].driver}, {driver}"
    return Site(name, capability, driver)
