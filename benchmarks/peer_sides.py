"""Who takes part in the comparison with peers, and how near their answers are to the reference's.

list_cxr(bundle, made, setting)     sides on X-rays; the first is PyTorch eager
list_ct(bundle, made, setting)      sides on CT; the same
judge_cxr(bundle), judge_ct(bundle) differences in clinical units
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from contender import ALONE, Contender
from labels import dice, read_any

from bedside.bundle import Bundle
from bedside.errors import BundleError

__all__ = [
    "EAGER",
    "OURS",
    "SIDES",
    "Judge",
    "Setting",
    "judge_ct",
    "judge_cxr",
    "list_ct",
    "list_cxr",
    "plain_name",
]

SIDES: Final = Path(__file__).parent / "sides"
EAGER: Final = "PyTorch eager"
MODES: Final = {EAGER: "", "torch.compile": "compile", "autocast bf16": "bf16"}
"""Side on PyTorch -> the mode of its file."""
APP: Final = {"benchmark_app fp32": "f32", "benchmark_app bf16": "bf16"}
"""Side -> benchmark_app's name of the precision; left to itself it takes bf16 where the processor has it."""
OURS: Final = (
    "onnxruntime fp32",
    "openvino fp32",
    "openvino bf16",
    "openvino fp16",
    "openvino int8",
    "openvino int8-bf16",
)
CXR_NEEDS: Final = ("torchxrayvision", "scikit-image")
CT_NEEDS: Final = ("torch", "pydicom", "pylibjpeg", "pylibjpeg-libjpeg")

Judge = Callable[[Contender, Contender], dict[str, Any]]
"""A side and the reference -> how far its answers are, in clinical units, and whether that is allowed."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all sides share."""

    python: str
    """Of the sides on PyTorch."""
    threads: str
    """Of each side."""
    environment: Mapping[str, str]
    """That each runs in."""
    engines: tuple[str, ...]
    """Ours: backend and precision."""
    plane: tuple[int, int]
    """Rows and columns of the network's input."""
    work: Path
    """Folder for what they write."""


def list_cxr(bundle: Bundle, made: Path, setting: Setting) -> list[Contender]:
    """The sides of the comparison on X-rays; PyTorch eager is the first."""
    environment, python, threads = setting.environment, setting.python, setting.threads
    weights, plain, limits = str(made / "weights.pt"), str(made / plain_name(setting.plane)), _limits(bundle)
    side = [python, str(SIDES / "torchxrayvision_side.py"), weights, threads]
    found = [
        Contender(name, [*side, mode or "eager"], environment, CXR_NEEDS, mode, limits=limits(mode or "fp32"))
        for name, mode in MODES.items()
    ]
    command = [sys.executable, str(SIDES / "onnxruntime_side.py"), plain, threads]
    needs = ("onnxruntime", "scikit-image")
    found.append(Contender("ONNX Runtime, default", command, environment, needs, limits=limits("fp32")))
    found += _list_app(bundle, made, setting)
    for name in setting.engines:
        backend, _, precision = name.partition(" ")
        command = [sys.executable, str(SIDES / "bedside_side.py"), str(made / "bundle"), backend, precision]
        extra = "bedside[cpu]" if backend == "onnxruntime" else f"bedside[{backend}]"
        found.append(
            Contender(f"bedside {name}", [*command, threads], environment, (extra,), limits=limits(precision))
        )
    return found


def list_ct(bundle: Bundle, made: Path, setting: Setting) -> list[Contender]:
    """The sides of the comparison on CT; PyTorch eager is the first."""
    environment, python, threads = setting.environment, setting.python, setting.threads
    weights, limits = str(made / "weights.pt"), _limits(bundle)
    found: list[Contender] = []

    def add(name: str, command: list[str], needs: tuple[str, ...], precision: str, mode: str = "") -> None:
        labels = setting.work / f"{len(found)}{'.nii.gz' if name.startswith('bedside') else '.npz'}"
        command = [*command, str(labels), *([mode] if mode else [])]
        found.append(
            Contender(name, command, environment, needs, mode, limits=limits(precision), labels=labels)
        )

    side = [python, str(SIDES / "ct_reference_side.py"), weights, threads]
    for name, mode in MODES.items():
        add(name, side, CT_NEEDS, mode if mode == "bf16" else "fp32", mode)
    add(
        "MONAI",
        [python, str(SIDES / "ct_monai_side.py"), weights, threads],
        ("monai", *CT_NEEDS),
        "fp32",
    )
    plain = str(made / plain_name(setting.plane))
    add(
        "ONNX Runtime, default",
        [sys.executable, str(SIDES / "ct_onnxruntime_side.py"), plain, threads],
        ("onnxruntime", *CT_NEEDS[1:]),
        "fp32",
    )
    found += _list_app(bundle, made, setting)
    for name in setting.engines:
        backend, _, precision = name.partition(" ")
        command = [
            sys.executable,
            str(SIDES / "ct_bedside_side.py"),
            str(made / "bundle"),
            backend,
            precision,
        ]
        extra = "cpu" if backend == "onnxruntime" else backend
        add(f"bedside {name}", [*command, threads], (f"bedside[{extra},codecs]",), precision)
    return found


def _list_app(bundle: Bundle, made: Path, setting: Setting) -> list[Contender]:
    model = str(made / "bundle" / bundle.manifest.models["fp32"])
    sides = ",".join(map(str, (1, 1, *setting.plane)))
    script = str(SIDES / "benchmark_app_side.py")
    return [
        Contender(
            name,
            [sys.executable, script, model, setting.threads, precision, sides],
            setting.environment,
            ("openvino",),
            scope=ALONE,
        )
        for name, precision in APP.items()
    ]


def _limits(bundle: Bundle) -> Callable[[str], dict[str, float]]:
    """What a bundle allows at a precision; nothing where it states nothing."""

    def find(precision: str) -> dict[str, float]:
        try:
            return bundle.manifest.tolerance("fp32" if precision == "compile" else precision)
        except BundleError:
            return {}

    return find


def plain_name(plane: tuple[int, int]) -> str:
    """Of the ONNX file as most people export it."""
    return f"plain-{plane[0]}x{plane[1]}.onnx"


def judge_cxr(bundle: Bundle) -> Judge:
    """Differences of the scores."""
    names = [score.name for score in bundle.manifest.scores]

    def judge(side: Contender, reference: Contender) -> dict[str, Any]:
        gaps = {
            name: max(
                abs(one["scores"][place] - other["scores"][place])
                for one, other in zip(side.answers, reference.answers, strict=True)
            )
            for place, name in enumerate(names)
        }
        return {
            "score_difference": gaps,
            "inside_tolerance": all(gaps[name] <= side.limits.get(name, 0.0) for name in names),
            "short": f"{max(gaps.values()):.5f} of a score",
        }

    return judge


def judge_ct(bundle: Bundle) -> Judge:
    """Dice of the labels, and the opacified volume."""
    tissues = bundle.manifest.tissues

    def judge(side: Contender, reference: Contender) -> dict[str, Any]:
        if side.labels is None or reference.labels is None:
            raise ValueError("a side of the CT comparison has no labels")
        overlap = dice(read_any(reference.labels), read_any(side.labels), len(tissues))
        volumes = [
            sum(
                ml
                for ml, tissue in zip(each.answers[-1]["volumes_ml"], tissues, strict=True)
                if tissue.opacity
            )
            for each in (side, reference)
        ]
        percent = 100 * abs(volumes[0] - volumes[1]) / volumes[1] if volumes[1] else 0.0
        least = min(each for each in overlap if each is not None)
        return {
            "dice": {tissue.name: each for tissue, each in zip(tissues, overlap, strict=True)},
            "opacity_volume_percent": percent,
            "inside_tolerance": 1 - least <= side.limits.get("dice_loss", 0.0)
            and percent <= side.limits.get("volume_percent", 0.0),
            "short": f"Dice {least:.5f}, volume {percent:.2f} %",
        }

    return judge
