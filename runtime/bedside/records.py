"""JSON as frozen dataclasses, read strictly: what is not expected is refused, with the place where it stands."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

__all__ = ["build", "parse"]

MAX_STRING: Final = 2000
"""Characters of the longest string."""
_NAMES: Final = {
    dict: "an object",
    list: "a list",
    str: "text",
    int: "an integer",
    float: "a number",
    bool: "a boolean",
}
"""Type that `parse` gives -> its name in a message; None is null. What is left is a date or time, which TOML has."""
_Record = TypeVar("_Record")


def parse(text: bytes) -> object:
    """JSON (UTF-8) without what JSON readers let through: a key twice, NaN, infinity, integers over 64 bits.

    Raises:
        ValueError: Malformed, or nested without bound.
    """
    try:
        return json.loads(
            text.decode(),
            object_pairs_hook=_table,
            parse_constant=_no_number,
            parse_float=_finite,
            parse_int=_integer,
        )
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def build(kind: type[_Record], value: object) -> _Record:
    """A value out of `parse` as the dataclass ``kind``, and so on for what its annotations name.

    They may name dataclasses, ``str`` (one line of printable text), ``int``, ``float``, ``bool``,
    ``X | None``, ``tuple[X, ...]`` and ``dict[str, X]``. No value is converted, but for an integer where a
    float is expected. What else holds values like these, such as ``tomllib``, will do as well.

    Raises:
        ValueError: A key is unknown or missing, a value is of another type, or a dataclass refuses its values with a
            plain ValueError; says where.
    """
    record: _Record = _build(kind, value, "")
    return record


def _build(kind: Any, value: object, where: str) -> Any:
    if isinstance(kind, type) and is_dataclass(kind):
        return _build_record(kind, value, where)
    origin = get_origin(kind)
    if origin is types.UnionType:
        inner = next(member for member in get_args(kind) if member is not types.NoneType)
        return None if value is None else _build(inner, value, where)
    if origin is tuple:
        items = _expect(list, value, where)
        return tuple(_build(get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin is dict:
        table = _expect(dict, value, where)
        return {
            _text(key, where): _build(get_args(kind)[1], table[key], f"{where}[{key!r}]") for key in table
        }
    return _PLAIN[kind](value, where)


def _build_record(kind: type, value: object, where: str) -> object:
    table = _expect(dict, value, where)
    hints, required = _members(kind)
    dot = f"{where}." if where else ""
    for key in table:
        if key not in hints:
            raise ValueError(f"{_short(dot + repr(key))} is not a key that this version knows")
    for key in required:
        if key not in table:
            raise ValueError(f"{dot}{key} is missing")
    members = {key: _build(hints[key], item, dot + key) for key, item in table.items()}
    try:
        return kind(**members)
    except ValueError as error:
        if not where or type(error) is not ValueError:
            raise
        message = str(error)  # where it begins with the name of a member, that is the place
        joint = "." if message.partition(" ")[0] in hints else ": "
        raise ValueError(f"{_short(where)}{joint}{message}") from error


@cache
def _members(kind: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Name -> type of what a dataclass holds, and the names that have no default."""
    required = [m.name for m in fields(kind) if m.default is MISSING and m.default_factory is MISSING]
    return get_type_hints(kind), tuple(required)


def _expect(kind: type, value: object, where: str) -> Any:
    if type(value) is not kind:
        given = _NAMES.get(type(value), "null" if value is None else "a date or time")
        raise ValueError(f"{_short(where) or 'the whole'} must be {_NAMES[kind]}, not {given}")
    return value


def _text(value: object, where: str) -> str:
    text: str = _expect(str, value, where)
    if len(text) > MAX_STRING or not text.isprintable():
        raise ValueError(f"{_short(where)} must be one line of at most {MAX_STRING} characters")
    return text


def _number(value: object, where: str) -> float:
    number = value if type(value) is int else _expect(float, value, where)
    try:
        whole = float(number)
    except OverflowError:
        whole = math.inf
    if not math.isfinite(whole):
        raise ValueError(f"{_short(where)} must be a finite number")
    return whole


_PLAIN: Final[dict[type, Callable[[object, str], Any]]] = {
    str: _text,
    int: lambda value, where: _expect(int, value, where),
    float: _number,
    bool: lambda value, where: _expect(bool, value, where),
}
"""Type of a leaf -> what checks it. ``bool`` is no ``int`` here."""


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _table(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return table


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is beyond what a float holds")
    return number


def _integer(digits: str) -> int:
    if len(digits) > 19:  # 2**63 has 19 digits
        raise ValueError("an integer is over 64 bits")
    return int(digits)
