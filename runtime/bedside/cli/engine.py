"""Options of the commands that run an engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from bedside.cli.quantities import duration

__all__ = [
    "BACKENDS",
    "MAX_THREADS",
    "PRECISIONS",
    "auto_options",
    "backend_option",
    "cache_option",
    "guard_options",
    "precision_option",
    "threads_option",
]

BACKENDS: Final = (
    "onnxruntime",
    "onnxruntime-cuda",
    "onnxruntime-tensorrt",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
)
"""As `bedside.backends.BACKENDS`, which ``--help`` does not import; a test holds them alike."""
PRECISIONS: Final = ("fp32", "bf16", "fp16", "int8", "int8-bf16", "int8-fp16")
"""As `bedside.backends.PRECISIONS`."""
MAX_THREADS: Final = 1024
"""As `bedside.backends.base.MAX_THREADS`."""

Decorator = Callable[[Callable[..., None]], Callable[..., None]]

threads_option: Final = click.option(
    "--threads",
    type=click.IntRange(1, MAX_THREADS),
    metavar="N",
    help="Threads of the engine; by default it chooses.",
)

cache_option: Final = click.option(
    "--cache",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder of plans and built engines.  [default: the user's cache]",
)


def auto_options(command: Callable[..., None]) -> Callable[..., None]:
    """``--backend`` with ``auto``, ``--precision`` and ``--cache``."""
    for option in (
        click.option(
            "--cache",
            type=click.Path(path_type=Path),
            metavar="FOLDER",
            help="Folder of plans and built engines.  [default: the user's cache with auto, else none]",
        ),
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            help="Its arithmetic; auto chooses that too.  [default: fp32]",
        ),
        click.option(
            "--backend",
            type=click.Choice((*BACKENDS, "auto")),
            default="onnxruntime",
            show_default=True,
            help="Engine; auto takes the best of bedside tune, or onnxruntime fp32 without a tuned plan.",
        ),
    ):
        command = option(command)
    return command


def backend_option(default: str | None) -> Decorator:
    """``--backend``."""
    return click.option(
        "--backend", type=click.Choice(BACKENDS), default=default, show_default=True, help="Engine."
    )


def precision_option(default: str | None) -> Decorator:
    """``--precision``."""
    return click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default=default,
        show_default=True,
        help="Its arithmetic.",
    )


def guard_options(command: Callable[..., None]) -> Callable[..., None]:
    """``--watchdog`` and ``--fallback``."""
    for option in (
        click.option(
            "--fallback",
            is_flag=True,
            help="Where the engine crashes, hangs or fails, go on with onnxruntime fp32, which has none behind "
            "it; auto goes through its plan first. The results say so.",
        ),
        click.option(
            "--watchdog",
            callback=duration,
            metavar="TIME",
            help="Run the engine in a process of its own, and stop it if an answer takes longer, e.g. 10s.",
        ),
    ):
        command = option(command)
    return command
