"""What a full run consists of: each step's command, at its full length and small, and about how long it takes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Choice", "Inputs", "Step", "list_steps"]

HERE: Final = Path(__file__).parent
CXR: Final = "cxr-severity-lite"
CT: Final = "ct-opacity-lite"
SLICES: Final = "12"
"""Of the comparisons on CT: a slice takes PyTorch over two seconds."""
INVALID: Final = 1
"""Exit code of ``bedside bench`` where it wrote figures that are not to be used: they are kept, and marked."""

Word = str | Path
"""Part of a command; a path is shown by its name alone."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Of a small run."""

    images: Path
    """Folder of X-rays."""
    series: Path
    """Folder of small slices."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a run is made with."""

    densenet: str
    """Weights: a file, or ``random:SEED``."""
    unet: str
    """The same."""
    networks: Path
    """Folder of what is made of them."""
    torch_python: str
    """As of `peers`."""
    small: Inputs | None = None
    """As little as each step allows, on these; None for all."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command."""

    name: str
    """Of its files."""
    words: tuple[Word, ...]
    """After Python's own: a script of this folder, or a module behind ``-m``, and its arguments."""
    minutes: float
    """About what it takes, on two cores of a server."""
    figures: bool = True
    """Whether it writes JSON."""
    makes: Path | None = None
    """What is there when it is done, where it writes no JSON."""
    also: tuple[int, ...] = ()
    """Exit codes beside 0 with which its figures are whole."""

    def command(self, json_path: Path) -> list[str]:
        """To run it."""
        first, *rest = self.words
        begin = [str(first)] if first == "-m" else [str(HERE / first)]
        ending = ["--json", str(json_path)] if self.figures else []
        return [sys.executable, *begin, *map(str, rest), *ending]

    @property
    def shown(self) -> str:
        """For people: nothing in it is of this machine alone."""
        first, *rest = self.words
        begin = ["python", "-m"] if first == "-m" else ["python", f"benchmarks/{first}"]
        words = [
            word.name if isinstance(word, Path) else f'"{word}"' if " " in word else word for word in rest
        ]
        return " ".join([*begin, *words, *(["--json", f"{self.name}.json"] if self.figures else [])])

    def is_done(self, folder: Path) -> bool:
        """Whether what it makes is there."""
        return (folder / f"{self.name}.json" if self.makes is None else self.makes).exists()


def list_steps(choice: Choice) -> list[Step]:
    """All steps in their order: what others need first, then what is most looked at."""
    return [
        *_list_networks(choice),
        *(_list_full(choice) if choice.small is None else _list_small(choice, choice.small)),
    ]


def _list_networks(choice: Choice) -> list[Step]:
    return [
        Step(
            "network-cxr",
            ("cxr.py", *_of_cxr(choice), "--make-only"),
            8,
            figures=False,
            makes=choice.networks / "cxr" / "bundle",
        ),
        Step(
            "network-ct",
            ("ct.py", *_of_ct(choice), "--make-only"),
            12,
            figures=False,
            makes=choice.networks / "ct" / "bundle",
        ),
    ]


def _list_full(choice: Choice) -> list[Step]:
    cxr, ct, torch = _of_cxr(choice), _of_ct(choice), ("--torch-python", Path(choice.torch_python))
    best, reference = ("--backend", "openvino", "--precision", "fp16"), ("--backend", "onnxruntime")
    both = ("--engine", "onnxruntime fp32", "--engine", "openvino fp16")
    return [
        Step("bench-cxr", ("-m", "bedside", "bench", CXR, *reference), 2, also=(INVALID,)),
        Step("bench-cxr-fp16", ("-m", "bedside", "bench", CXR, *best), 2, also=(INVALID,)),
        Step("bench-ct", ("-m", "bedside", "bench", CT, *reference), 3, also=(INVALID,)),
        Step("bench-ct-fp16", ("-m", "bedside", "bench", CT, *best), 2, also=(INVALID,)),
        Step("cxr", ("cxr.py", *cxr, "--rounds", "3", "--starts", "3"), 5),
        Step("ct", ("ct.py", *ct, "--rounds", "3"), 5),
        Step("peers-cxr", ("peers.py", "cxr", *cxr, "--rounds", "3", "--starts", "2"), 7),
        Step("peers-ct", ("peers.py", "ct", *ct, *torch, "--rounds", "2", "--starts", "1"), 11),
        Step("steady", ("steady.py", *both), 8),
        Step("roofline", ("roofline.py",), 4),
        Step("growth-batch", ("growth.py", "batch", "--rounds", "3"), 2),
        Step("growth-threads", ("growth.py", "threads", "--rounds", "3"), 2),
        Step("growth-slices", ("growth.py", "slices", "--engine", "onnxruntime fp32"), 4),
        Step("growth-size", ("growth.py", "size", "--rounds", "3"), 2),
    ]


def _list_small(choice: Choice, inputs: Inputs) -> list[Step]:
    cxr, ct, torch = _of_cxr(choice), _of_ct(choice), ("--torch-python", Path(choice.torch_python))
    reference = ("--engine", "onnxruntime fp32")
    two = ("--rounds", "2", "--starts", "1")
    few, peers = ("--rounds", "1", *reference), (*two, *reference, "--without", "torch.compile")
    quick = ("--quick", "--backend", "onnxruntime")
    return [
        Step("bench-cxr", ("-m", "bedside", "bench", CXR, *quick), 0.5, also=(INVALID,)),
        Step("bench-ct", ("-m", "bedside", "bench", CT, *quick), 1, also=(INVALID,)),
        Step("cxr", ("cxr.py", *cxr, *two), 2),
        Step("ct", ("ct.py", *ct, "--rounds", "1"), 2),
        Step("peers-cxr", ("peers.py", "cxr", *cxr, *peers), 1),
        Step("peers-ct", ("peers.py", "ct", *ct, *torch, *peers), 2),
        Step(
            "steady",
            (
                "steady.py",
                "--images",
                inputs.images,
                "--short",
                "--hot",
                "3",
                "--turns",
                "2",
                "--starts",
                "1",
                *reference,
            ),
            1,
        ),
        Step("roofline", ("roofline.py", "--runs", "1", "--side", "512", "--bundle", CXR, *reference), 1),
        Step("growth-batch", ("growth.py", "batch", "--batch", "1", "--batch", "2", *few), 0.5),
        Step("growth-threads", ("growth.py", "threads", "--threads", "1", "--threads", "2", *few), 1),
        Step("growth-slices", ("growth.py", "slices", "--slices", "20", "--slices", "40", *reference), 1),
        Step("growth-size", ("growth.py", "size", "--megapixels", "0.5", "--megapixels", "1", *few), 0.5),
    ]


def _of_cxr(choice: Choice) -> tuple[Word, ...]:
    pictures: tuple[Word, ...] = ("--images", choice.small.images, "--count", "2") if choice.small else ()
    return ("--weights", _weights(choice.densenet), "--keep", choice.networks / "cxr", *pictures)


def _of_ct(choice: Choice) -> tuple[Word, ...]:
    slices: tuple[Word, ...] = ("--slices", SLICES)
    if choice.small:
        slices = ("--series", choice.small.series, "--slices", "3")
    return ("--weights", _weights(choice.unet), "--keep", choice.networks / "ct", *slices)


def _weights(source: str) -> Word:
    return source if source.startswith("random:") else Path(source)
