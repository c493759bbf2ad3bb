"""Rules: the first whose clauses all hold takes a study; the reasons never repeat what the study says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.node.rules import Rule, Traits, choose, explain

CHEST = Rule("chest", "x", modality=("CR", "DX"), body_part=("CHEST", ""), view=("PA", "AP"))
LUNG = Rule("lung", "y", modality=("CT",), series_description="lung|thorax", calling_ae=("CT1",))
REST = Rule("rest", "z")
CANARY = "CANARY"


@pytest.mark.parametrize(
    ("traits", "name"),
    [
        (Traits(modality="DX", body_part="CHEST", view="PA"), "chest"),
        (Traits(modality="dx ", body_part="", view=" pa"), "chest"),
        (Traits(modality="DX", body_part="\0", view="AP"), "chest"),
        (Traits(modality="DX", body_part="HAND", view="PA"), "rest"),
        (Traits(modality="DX", view=""), "rest"),
        (Traits(modality="CT", series_description="THORAX 1.0 I70", calling_ae="CT1"), "lung"),
        (Traits(modality="CT", series_description="Bone", calling_ae="CT1"), "rest"),
        (Traits(modality="CT", series_description="Lung", calling_ae="CT2"), "rest"),
        (Traits(), "rest"),
    ],
)
def test_first_rule_that_holds_takes_a_study(traits: Traits, name: str) -> None:
    taken = choose((CHEST, LUNG, REST), traits)
    assert taken is not None
    assert taken.name == name


def test_no_rule_may_hold() -> None:
    assert choose((CHEST, LUNG), Traits(modality="MR")) is None
    assert choose((), Traits()) is None


def test_order_decides() -> None:
    traits = Traits(modality="CT", series_description="lung", calling_ae="CT1")
    assert choose((REST, LUNG), traits) is REST


def test_every_rule_is_explained() -> None:
    decisions = explain(
        (CHEST, LUNG, REST), Traits(modality="CT", series_description="Lung", calling_ae="CT1")
    )
    assert [decision.text for decision in decisions] == [
        "chest: no; modality is not 'CR' or 'DX'; view is not 'PA' or 'AP'",
        "lung: yes, bundle y; modality is 'CT'; calling_ae is 'CT1'; series_description is /lung|thorax/",
        "rest: would match, but lung comes first",
    ]
    assert [(decision.holds, decision.earlier) for decision in decisions] == [
        (False, None),
        (True, None),
        (True, "lung"),
    ]


def test_rule_that_asks_for_nothing_says_so() -> None:
    (decision,) = explain((REST,), Traits())
    assert decision.text == "rest: yes, bundle z; it asks for nothing"


@given(st.text(max_size=20), st.text(max_size=20))
def test_explanation_holds_no_value_of_the_study(one: str, other: str) -> None:
    """Whatever the study says, the words are those of the rules alone."""
    hidden = Traits(
        modality=f"{CANARY}{one}",
        body_part=f"{one}{CANARY}",
        view=CANARY,
        series_description=f"{CANARY}{other}",
        study_description=CANARY,
        calling_ae=CANARY,
        called_ae=CANARY,
    )
    asked = Rule(
        "ct", "y", modality=("CT",), series_description="lung", called_ae=("NODE",), study_description="x|y"
    )
    for decision in explain((CHEST, LUNG, asked, REST), hidden):
        assert CANARY not in decision.text
        assert not any(CANARY in clause.wanted for clause in decision.clauses)


@given(
    st.builds(Traits, modality=st.sampled_from(["CT", "DX", "MR"]), view=st.sampled_from(["PA", "LL", ""])),
    st.permutations([CHEST, LUNG, REST]),
)
def test_choice_and_explanation_agree(traits: Traits, rules: list[Rule]) -> None:
    taken = choose(rules, traits)
    decisions = explain(rules, traits)
    yes = [decision.rule for decision in decisions if decision.holds and decision.earlier is None]
    assert yes == ([] if taken is None else [taken])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": " "}, "name must have"),
        ({"name": "x" * 65}, "name must have"),
        ({"bundle": ""}, "bundle is empty"),
        ({"backend": "fake"}, "backend must be one of"),
        ({"precision": "fp8"}, "precision must be one of"),
        ({"series_description": "["}, "series_description is no regular expression"),
        ({"destinations": ("a", "a")}, "destinations names one twice"),
        ({"memory_mib": 0.0}, "memory_mib must be more than 0"),
    ],
)
def test_rule_that_is_none_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rule(**{"name": "a", "bundle": "b", **wrong})
