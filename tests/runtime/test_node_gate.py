"""Who may come in, how many, and how fast."""

from __future__ import annotations

import pytest

from bedside.node.gate import Gate
from bedside.node.network import Limits, Peer
from made_node import Clock

HERE = "10.1.2.3"


def make_gate(*peers: Peer, clock: Clock | None = None, **limits: int) -> Gate:
    return Gate("BEDSIDE", peers or (Peer("XRAY1", "10.1.0.0/16"),), Limits(**limits), clock=clock or Clock())


def judge(
    gate: Gate, calling: str = "XRAY1", called: str = "BEDSIDE", address: str = HERE, **known: object
) -> str:
    told = {"associations": 0, "has_space": True, **known}
    rejection = gate.judge(calling, called, address, **told)  # type: ignore[arg-type]
    return "" if rejection is None else rejection.reason


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, ""),
        ({"calling": "XRAY1   "}, ""),
        ({"address": "::ffff:10.1.9.9"}, ""),
        ({"calling": "XRAY2"}, "calling-title"),
        ({"calling": "xray1"}, "calling-title"),
        ({"address": "10.2.0.1"}, "calling-title"),
        ({"called": "OTHER"}, "called-title"),
        ({"has_space": False}, "no-space"),
        ({"associations": 10}, "too-many"),
    ],
)
def test_association_is_judged(given: dict[str, object], told: str) -> None:
    assert judge(make_gate(), **given) == told  # type: ignore[arg-type]


def test_title_counts_only_at_its_own_address() -> None:
    gate = make_gate(Peer("A", "10.0.0.1"), Peer("B", "10.0.0.2"))
    assert [judge(gate, "A", address=f"10.0.0.{n}") for n in (1, 2)] == ["", "calling-title"]


def test_nobody_comes_in_where_nobody_is_allowed() -> None:
    gate = Gate("BEDSIDE", (), Limits())
    assert not gate.enter(HERE)
    assert judge(gate) == "calling-title"


def test_connections_are_counted_by_address_and_in_all() -> None:
    gate = make_gate(connections=3, connections_per_address=2)
    assert [gate.enter(HERE) for _ in range(3)] == [True, True, False]
    assert [gate.enter("10.1.2.4") for _ in range(2)] == [True, False]
    gate.leave(HERE)
    assert gate.enter("10.1.2.4")
    assert gate.connections == 3


def test_strange_address_is_not_counted() -> None:
    gate = make_gate()
    assert not gate.enter("192.168.0.1")
    assert gate.connections == 0


def test_sender_is_kept_to_its_rate_and_may_make_up_for_a_second() -> None:
    clock = Clock()
    gate = make_gate(clock=clock, instances_per_minute=600)
    waits = []
    for _ in range(40):  # as fast as its answers come
        wait = gate.wait_s("XRAY1")
        clock.now += wait
        waits.append(wait)
    assert waits[:11] == pytest.approx([0.0] * 11)
    assert waits[15:] == pytest.approx([0.1] * 25)
    assert gate.wait_s("XRAY2") == 0.0
