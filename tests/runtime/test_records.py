"""JSON into dataclasses: what is not expected is refused, and the message says where it stands."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.errors import BundleError
from bedside.records import MAX_STRING, build, parse


@dataclass(frozen=True, slots=True)
class Leaf:
    count: int
    share: float = 0.5


@dataclass(frozen=True, slots=True)
class Tree:
    name: str
    good: bool
    leaves: tuple[Leaf, ...]
    shape: tuple[int | None, ...] = ()
    limits: dict[str, dict[str, float]] = field(default_factory=dict)


GOOD: dict[str, Any] = {
    "name": "oak",
    "good": True,
    "leaves": [{"count": 1}, {"count": 2, "share": 1}],
    "shape": [None, 3],
    "limits": {"a": {"b": 2}},
}


def test_reads_what_is_expected() -> None:
    tree = build(Tree, parse(json.dumps(GOOD).encode()))
    assert tree == Tree("oak", True, (Leaf(1), Leaf(2, 1.0)), (None, 3), {"a": {"b": 2.0}})
    assert type(tree.leaves[1].share) is float


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 5}, "name must be text, not an integer"),
        ({"name": None}, "name must be text, not null"),
        ({"name": ["oak"]}, "name must be text, not a list"),
        ({"name": "two\nlines"}, "name must be one line"),
        ({"name": "\x1b[31mred"}, "name must be one line"),
        ({"name": "\ud800"}, "name must be one line"),
        ({"name": "x" * (MAX_STRING + 1)}, "name must be one line"),
        ({"good": 1}, "good must be a boolean, not an integer"),
        ({"leaves": "abc"}, "leaves must be a list, not text"),
        ({"leaves": {"count": 1}}, "leaves must be a list, not an object"),
        ({"leaves": 5}, "leaves must be a list, not an integer"),
        ({"leaves": None}, "leaves must be a list, not null"),
        ({"leaves": [5]}, r"leaves\[0\] must be an object, not an integer"),
        ({"leaves": [{}]}, r"leaves\[0\].count is missing"),
        ({"leaves": [{"count": 1}, {"count": True}]}, r"leaves\[1\].count must be an integer, not a boolean"),
        ({"leaves": [{"count": 1.0}]}, r"leaves\[0\].count must be an integer, not a number"),
        ({"leaves": [{"count": 1, "share": False}]}, r"leaves\[0\].share must be a number, not a boolean"),
        ({"leaves": [{"count": 1, "share": "1"}]}, r"leaves\[0\].share must be a number, not text"),
        ({"leaves": [{"count": 1, "Share": 1}]}, r"leaves\[0\].'Share' is not a key"),
        ({"shape": [1, False]}, r"shape\[1\] must be an integer, not a boolean"),
        ({"limits": {"a": 5}}, r"limits\['a'\] must be an object, not an integer"),
        ({"limits": {"a": {"b\n": 5}}}, r"limits\['a'\] must be one line"),
        ({"extra": 1}, "'extra' is not a key"),
        ({"\x1b[31m": 1}, r"\\x1b\[31m' is not a key"),
    ],
)
def test_refuses_what_is_not(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build(Tree, parse(json.dumps(GOOD | change).encode()))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("whole", [b"[]", b"5", b"null", b'"text"', b"true"])
def test_refuses_another_whole(whole: bytes) -> None:
    with pytest.raises(ValueError, match="the whole must be an object"):
        build(Tree, parse(whole))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"{} {}",
        b'{"a": 1, "a": 1}',
        b'[{"a": {"b": 1, "b": 2}}]',
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"1e999",
        b"-1e999",
        b"1" + b"0" * 400,
        b"9" * 5000,
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{}",
        b"\x80",
        b"[" * 500_000,
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"{'a': 1}",
        b"[1,]",
        b"// comment\n{}",
    ],
    ids=lambda text: repr(text[:24]),
)
def test_refuses_what_is_not_strict_json(text: bytes) -> None:
    with pytest.raises(ValueError):
        parse(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(["name", "good", "leaves", "shape", "limits", "count"]), json_values))
def test_any_value_is_read_or_refused(table: dict[str, Any]) -> None:
    try:
        tree = build(Tree, table)
    except ValueError as error:
        assert str(error).isprintable()  # noqa: PT017 -- most are refused, and a few are not
    else:
        assert isinstance(tree.name, str)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    try:
        parse(text)
    except ValueError:
        return
    json.loads(text)


@dataclass(frozen=True, slots=True)
class Branch:
    length: float
    leaf: Leaf | None = None

    def __post_init__(self) -> None:
        if self.length <= 0:
            raise ValueError("length must be more than 0")
        if self.leaf is None and self.length > 9:
            raise ValueError("a long one needs a leaf")


@dataclass(frozen=True, slots=True)
class Wood:
    branches: tuple[Branch, ...] = ()
    named: dict[str, Branch] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.branches) > 2:
            raise ValueError("branches are too many")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"branches": [{"length": 1}, {"length": 0}]}, "branches[1].length must be more than 0"),
        ({"branches": [{"length": 10}]}, "branches[0]: a long one needs a leaf"),
        ({"named": {"a": {"length": -1}}}, "named['a'].length must be more than 0"),
        ({"branches": [{"length": 1}] * 3}, "branches are too many"),
    ],
)
def test_what_a_dataclass_refuses_is_told_with_its_place(value: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        build(Wood, value)
    assert str(caught.value) == message


def test_error_of_another_kind_passes_as_it_is() -> None:
    problem = BundleError("bundle-broken", "told in full")

    @dataclass(frozen=True, slots=True)
    class Own:
        share: float

        def __post_init__(self) -> None:
            raise problem

    with pytest.raises(BundleError) as caught:
        build(Own, {"share": 1.0})
    assert caught.value is problem


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 10**400])
def test_number_that_no_computation_takes_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"branches\[0\].length must be a finite number"):
        build(Wood, {"branches": [{"length": value}]})


def test_type_that_toml_has_beside_json_is_named() -> None:
    with pytest.raises(ValueError, match=r"branches\[0\].length must be a number, not a date or time"):
        build(Wood, {"branches": [{"length": date(2026, 1, 1)}]})
