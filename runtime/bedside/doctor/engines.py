"""Which engines are here, and in which precisions each runs: imported, opened and run, each in a process of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bedside.backends import BACKENDS, PRECISIONS
from bedside.device import Device
from bedside.doctor.check import Check, private
from bedside.doctor.graphics import driver_too_old
from bedside.doctor.packages import find_distribution, is_installed
from bedside.doctor.trials import Outcome, try_items

__all__ = ["Engine", "check_engines"]

_PROCESSOR: Final = frozenset({"onnxruntime", "openvino"})
"""Backends that run on the processor; the others need an NVIDIA GPU."""
_BUILDERS: Final = frozenset({"onnxruntime-tensorrt", "tensorrt", "tensorrt-rtx"})
"""Backends that build an engine first, which takes minutes: they are imported, and `bedside tune` tries them."""
_X86: Final = frozenset({"tensorrt-rtx"})
"""Backends whose package is for x86-64 alone, as in pyproject.toml."""
_PROVIDERS: Final = {
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
}
"""Backend -> provider that its build of ONNX Runtime must have."""
_CAPABILITY: Final = {"bf16": (8, 0), "int8": (6, 1), "int8-bf16": (8, 0), "int8-fp16": (6, 1)}
"""Least compute capability of a GPU for a precision (TensorRT support matrix, hardware and precision)."""
_DLA_LIBRARY: Final = "libnvdla_compiler"
_DLA_FIX: Final = "sudo apt-get install nvidia-l4t-dla-compiler"
"""On the Jetson itself: TensorRT of JetPack 6 needs this library of it, which the NVIDIA runtime mounts."""
_CUDA: Final = "cuda.bindings"
"""Module of NVIDIA's package ``cuda-bindings``."""
_OLDEST: Final = {"tensorrt": (10, 3)}
"""Backend -> least version of its package; 10.3 is that of JetPack 6.1."""
_TWO_BUILDS: Final = ("onnxruntime", "onnxruntime-gpu")
"""Distributions that install into the same folder, and overwrite each other there."""
_ARITHMETIC: Final = frozenset({"BF16", "FP16", "FP32", "INT8"})
"""Of OpenVINO's OPTIMIZATION_CAPABILITIES, those that are kinds of numbers."""
_REPLACE: Final = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'bedside[{extra}]'"
_ADVICE: Final = re.compile(r"[:;] (?:it has|ask for) ")
"""Begins what an engine's message advises to ask for instead, which the list of precisions says as well."""
_NO_FILE: Final = "bundle-precision"


@dataclass(frozen=True, slots=True)
class Engine:
    """What was found of one backend."""

    backend: str
    """Its name, as in `bedside.backends.BACKENDS`."""
    status: str
    """One of `bedside.doctor.check.STATUSES`."""
    text: str
    """One line for a person."""
    fix: str = ""
    """The command that mends it."""
    version: str | None = None
    """Of its package; None if it could not be imported."""
    device: str | None = None
    """Where it runs; None if it was not tried."""
    precisions: tuple[str, ...] = ()
    """In which it ran here, or of a backend that builds engines, in which it could."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Precision -> why not."""
    offers: tuple[str, ...] = ()
    """Providers in this build of ONNX Runtime; what OpenVINO finds that the processor can; empty for others."""

    @property
    def works(self) -> bool:
        """Whether a network ran on it, or of a backend that builds engines, whether nothing keeps it from it."""
        return bool(self.precisions)

    @property
    def check(self) -> Check:
        """The same as a line."""
        return Check("engines", self.backend, self.status, self.text, self.fix)


def check_engines(device: Device, bundles: tuple[str, ...], *, limit_s: float) -> list[Engine]:
    """Try every backend.

    Args:
        device: What they run on.
        bundles: Names of the built-in bundles that are whole, to run them on.
        limit_s: Most that one process may take, seconds.
    """
    packages = dict.fromkeys(leaf.package for leaf in BACKENDS.values() if is_installed(leaf.package))
    imported = try_items("import", list(packages), {}, limit_s=limit_s)
    return [
        _check(name, device, imported.get(leaf.package), bundles, limit_s) for name, leaf in BACKENDS.items()
    ]


def _check(
    name: str, device: Device, imported: Outcome | None, bundles: tuple[str, ...], limit_s: float
) -> Engine:
    obstacle = _judge_package(name, device, imported)
    if obstacle is not None or imported is None:
        return obstacle or Engine(name, "missing", "not installed")
    version = str(imported.facts["version"])
    obstacle = _judge_build(name, device, imported.facts)
    if obstacle is not None:
        return obstacle
    if name in _BUILDERS:
        return _judge_builder(name, device, version)
    if not bundles:
        text = f"{version} can be imported; no built-in bundle is whole to try it on"
        return Engine(name, "ok", text, version=version)
    options = {"backend": name, "bundles": list(bundles)}
    engine = _judge(name, version, try_items("engine", PRECISIONS, options, limit_s=limit_s))
    offers, said = _offers(imported.facts)
    engine = replace(engine, offers=offers, text=f"{engine.text}{said}")
    return _warn_of_two_builds(engine, device) if BACKENDS[name].package in _TWO_BUILDS else engine


def _judge_package(name: str, device: Device, imported: Outcome | None) -> Engine | None:
    """A backend whose package is not there, or can't be imported; None if it can."""
    leaf = BACKENDS[name]
    homeless = _find_no_place(name, device)
    if imported is None and homeless:
        return Engine(name, "absent", f"not installed, and {homeless}")
    if imported is None:
        return Engine(name, "missing", f"{leaf.package} is not installed", _how_to_install(name, device))
    if imported.error is not None and homeless:
        return Engine(name, "absent", private(f"can't be imported, and {homeless}: {imported.error}"))
    if imported.error is not None:
        text = private(f"{leaf.package} is installed and can't be imported: {imported.error}")
        fix = _how_to_repair(leaf.package, leaf.extra)
        return Engine(name, "broken", text, _DLA_FIX if _DLA_LIBRARY in text else fix)
    return None


def _judge_build(name: str, device: Device, facts: Mapping[str, Any]) -> Engine | None:
    """A backend whose package can be imported, and can't run here; None if nothing is known against it."""
    version = str(facts["version"])
    provider = _PROVIDERS.get(name)
    lacking = provider is not None and provider not in facts["providers"]
    without = f"this build of ONNX Runtime {version} has no {provider}"
    if homeless := _find_no_place(name, device):
        text = f"{without if lacking else f'{version} can be imported'}, and {homeless}"
        return Engine(name, "absent", text, version=version)
    if lacking:
        return Engine(name, "missing", without, _how_to_install(name, device), version)
    least = _OLDEST.get(name)
    if least is not None and _parse(version) < least:
        text = f"{version} is too old; {'.'.join(map(str, least))} or newer is needed"
        return Engine(name, "broken", text, _how_to_renew(name, device), version)
    old = None if name in _PROCESSOR else driver_too_old(device, facts.get("cuda"))
    return None if old is None else Engine(name, "broken", old, version=version)


def _warn_of_two_builds(engine: Engine, device: Device) -> Engine:
    """ONNX Runtime, where two of its builds lie over each other: which files are whose is chance."""
    if not all(map(find_distribution, _TWO_BUILDS)):
        return engine
    text = (
        f"onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files; {engine.text}"
    )
    fix = _REPLACE.format(extra="gpu" if device.gpus else "cpu")
    return replace(engine, status="broken", text=text, fix=fix)


def _find_no_place(name: str, device: Device) -> str:
    """Why there is no hardware here for a backend; empty if there is."""
    if name in _PROCESSOR:
        return ""
    if not device.gpus and device.jetson is None:
        return "there is no NVIDIA GPU to run it on"
    if name in _X86 and device.architecture not in {"x86_64", "AMD64"}:
        return "it is for x86-64 alone"
    return ""


def _judge(name: str, version: str, outcomes: Mapping[str, Outcome]) -> Engine:
    """An engine whose precisions were tried."""
    runs = tuple(precision for precision, outcome in outcomes.items() if outcome.error is None)
    refused = {
        precision: "no built-in bundle holds it, so it was not tried"
        if outcome.code == _NO_FILE
        else private(outcome.error)
        for precision, outcome in outcomes.items()
        if outcome.error is not None
    }
    if not runs:
        return Engine(
            name,
            "broken",
            private(f"{version} can be imported, and runs nothing: {next(iter(refused.values()))}"),
            _how_to_complete(name),
            version,
            refused=refused,
        )
    device = str(outcomes[runs[0]].facts["device"])
    crashed = [p for p, outcome in outcomes.items() if outcome.code in {"crashed", "hung"}]
    text = f"{version}, ran on {device}: {', '.join(runs)}{_tell(refused)}"
    return Engine(name, "broken" if crashed else "ok", text, "", version, device, runs, refused)


def _judge_builder(name: str, device: Device, version: str) -> Engine:
    """An engine that must be built first: what the GPU could run."""
    if name not in _PROVIDERS and not is_installed(_CUDA):
        text = f"{version}; {_CUDA}, with which it reaches the GPU, is not installed"
        return Engine(name, "missing", text, "pip install cuda-bindings", version)
    capability = _capability(device)
    refused = {
        precision: f"needs a GPU of compute capability {least[0]}.{least[1]} or newer"
        for precision, least in _CAPABILITY.items()
        if capability is not None and capability < least
    }
    able = tuple(precision for precision in PRECISIONS if precision not in refused)
    text = (
        f"{version}; it builds its engines first, so it was imported only; could run {', '.join(able)}"
        f"{_tell(refused)}; bedside tune tries it"
    )
    return Engine(name, "ok", text, version=version, precisions=able, refused=refused)


def _tell(refused: Mapping[str, str]) -> str:
    """Why precisions are not there: those together that differ in nothing but their names, and no advice."""
    together: dict[str, tuple[str, list[str]]] = {}
    for precision, reason in refused.items():
        short = _ADVICE.split(reason)[0]
        together.setdefault(short.replace(precision, ""), (short, []))[1].append(precision)
    return "".join(f"; not {', '.join(names)}: {reason}" for reason, names in together.values())


def _capability(device: Device) -> tuple[int, int] | None:
    for gpu in device.gpus:
        if gpu.compute_capability is not None:
            major, minor = gpu.compute_capability.split(".")
            return int(major), int(minor)
    return None


def _offers(facts: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """`Engine.offers`, and the same for a person."""
    if providers := facts.get("providers"):
        short = ", ".join(provider.removesuffix("ExecutionProvider") for provider in providers)
        return tuple(providers), f"; providers in this build: {short}"
    if capabilities := facts.get("capabilities"):
        kinds = ", ".join(each for each in capabilities if each in _ARITHMETIC)
        return tuple(capabilities), f"; OpenVINO finds in the processor: {kinds}"
    return (), ""


def _parse(version: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


def _how_to_renew(name: str, device: Device) -> str:
    """Empty on a Jetson, whose TensorRT comes with its JetPack."""
    return "" if device.jetson is not None else f"pip install --upgrade 'bedside[{BACKENDS[name].extra}]'"


def _how_to_install(name: str, device: Device) -> str:
    leaf = BACKENDS[name]
    if device.jetson is not None and name == "tensorrt":
        return "sudo apt-get install python3-libnvinfer"  # into the system's Python; docs tell of the environment
    if device.jetson is not None and name in _PROVIDERS:
        return ""  # its builds for Jetson are on no index that pip knows
    if leaf.package == "onnxruntime" and name in _PROVIDERS and find_distribution("onnxruntime"):
        return _REPLACE.format(extra=leaf.extra)
    return f"pip install 'bedside[{leaf.extra}]'"


def _how_to_repair(package: str, extra: str) -> str:
    names = [name for name in (*_TWO_BUILDS, package) if name.startswith(package) and find_distribution(name)]
    if len(set(names)) > 1:
        return _REPLACE.format(extra=extra)
    return (
        f"pip install --force-reinstall --no-deps {names[0]}" if names else f"pip install 'bedside[{extra}]'"
    )


def _how_to_complete(name: str) -> str:
    """What brings the libraries that an engine loads only when it is opened."""
    return f"pip install 'bedside[{BACKENDS[name].extra}]'" if name in _PROVIDERS else ""
