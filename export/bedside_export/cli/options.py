"""Options that commands share: what a bundle is called and may be used for, and how a CT network takes HU."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bedside_export.cli.console import PATH, read_text

if TYPE_CHECKING:
    from bedside_export.ct_rules import Window
    from bedside_export.severity import Naming

__all__ = [
    "check_terms",
    "check_window",
    "make_naming",
    "make_window",
    "naming_options",
    "parse_pair",
    "window_options",
]

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def parse_pair(kind: Callable[[str], float], *, alone: bool) -> Callable[..., tuple[float, float] | None]:
    """What makes two numbers with a comma, or one for both if ``alone``, of an option."""

    def parse(_ctx: click.Context, _option: click.Parameter, value: str | None) -> tuple[float, float] | None:
        if value is None:
            return None
        try:
            numbers = [kind(part) for part in value.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) == 1 and alone:
            numbers *= 2
        if len(numbers) != 2 or not all(math.isfinite(number) for number in numbers):
            one = "one number, or " if alone else ""
            raise click.BadParameter(f"{value!r} is not {one}two with a comma")
        return numbers[0], numbers[1]

    return parse


def naming_options(*, name: str, terms: str) -> Decorator:
    """``--name``, ``--version``, ``--licence``, ``--licence-text`` and ``--commercial-use``.

    Args:
        name: What the bundle is called after, for the help.
        terms: What the terms are of, and which they are if none are given, for the help.
    """
    options = (
        click.option("--name", help=f"Name of the bundle. [default: after the {name}]"),
        click.option("--version", default="1.0.0", show_default=True, help="Version of the bundle."),
        click.option("--licence", metavar="SPDX", help=terms),
        click.option("--licence-text", type=PATH, metavar="FILE", help="The terms in full; needs --licence."),
        click.option(
            "--commercial-use", is_flag=True, help="The terms allow commercial use; needs --licence."
        ),
    )
    return _together(options)


def check_terms(options: Mapping[str, Any]) -> None:
    """Refuse terms without a licence.

    Raises:
        click.UsageError: ``--licence-text`` or ``--commercial-use`` without ``--licence``.
    """
    if options["licence"] is None and (options["licence_text"] is not None or options["commercial_use"]):
        raise click.UsageError("--licence-text and --commercial-use go with --licence SPDX; add it")


def make_naming(options: Mapping[str, Any]) -> Naming:
    """What `naming_options` say.

    Raises:
        ExportError: The text of the licence can't be read.
    """
    from bedside_export.severity import Naming  # noqa: PLC0415 - PyTorch takes seconds; --help does not

    text: Path | None = options["licence_text"]
    return Naming(
        options["name"],
        options["version"],
        options["licence"],
        None if text is None else read_text(text),
        options["commercial_use"],
    )


def window_options(*, default: str) -> Decorator:
    """``--input``, ``--window``, ``--mean`` and ``--std``.

    Args:
        default: Which rule it is if none is given, for the help.
    """
    options = (
        click.option(
            "--input",
            "rule",
            type=click.Choice(["l3-unet", "lung-window"]),
            help=f"Input rule of a published network. [default: {default}]",
        ),
        click.option(
            "--window",
            callback=parse_pair(float, alone=False),
            metavar="LOW,HIGH",
            help="HU are clipped to this.",
        ),
        click.option("--mean", type=float, metavar="HU", help="With --window: subtracted after clipping."),
        click.option("--std", type=float, metavar="HU", help="With --window: divided by."),
    )
    return _together(options)


def check_window(options: Mapping[str, Any]) -> None:
    """Refuse half a window, or two rules.

    Raises:
        click.UsageError: Some of ``--window``, ``--mean`` and ``--std`` without the others, or with ``--input``.
    """
    own = (options["window"], options["mean"], options["std"])
    if own != (None, None, None) and (None in own or options["rule"] is not None):
        raise click.UsageError("--window, --mean and --std go together, and without --input")


def make_window(options: Mapping[str, Any]) -> Window | None:
    """What `window_options` say; None where nothing was given."""
    from bedside_export.ct_rules import RULES, Window  # noqa: PLC0415 - as above

    if options["window"] is not None:
        low, high = options["window"]
        return Window(low, high, options["mean"], options["std"])
    return None if options["rule"] is None else RULES[options["rule"]]


def _together(options: tuple[Decorator, ...]) -> Decorator:
    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
