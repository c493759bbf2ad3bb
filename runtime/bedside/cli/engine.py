"""Options of the commands that run an engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import click

__all__ = ["BACKENDS", "PRECISIONS", "backend_option", "precision_option", "threads_option"]

BACKENDS: Final = ("onnxruntime", "openvino")
"""As `bedside.backends.BACKENDS`, which ``--help`` does not import; a test holds them alike."""
PRECISIONS: Final = ("fp32", "bf16", "fp16", "int8", "int8-bf16", "int8-fp16")
"""As `bedside.backends.PRECISIONS`."""

Decorator = Callable[[Callable[..., None]], Callable[..., None]]

threads_option: Final = click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads of the engine; by default it chooses.",
)


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
