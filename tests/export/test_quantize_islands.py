from __future__ import annotations

import math

import pytest

from bedside_export.precision.islands import GROUPS, NEAR, Aim, find_islands

NODES = tuple(f"n{place}" for place in range(40))


class Costs:
    """A network whose difference is the root of the summed squares of what its low-precision nodes add."""

    def __init__(self, costs: dict[str, float]) -> None:
        self.costs = costs
        self.asked: list[frozenset[str]] = []

    def __call__(self, kept: frozenset[str]) -> float:
        self.asked.append(kept)
        return math.sqrt(sum(cost**2 for node, cost in self.costs.items() if node not in kept))


def test_nothing_is_kept_where_the_answer_is_inside_its_tolerance() -> None:
    islands = find_islands(Costs(dict.fromkeys(NODES, 0.01)), NODES)
    assert (islands.nodes, islands.trials, islands.found) == ((), 1, True)
    assert islands.without == islands.difference == pytest.approx(0.01 * math.sqrt(40))


@pytest.mark.parametrize("worst", [("n0",), ("n17",), ("n39",), ("n3", "n4", "n30")])
def test_just_the_nodes_that_cost_the_answer_are_kept(worst: tuple[str, ...]) -> None:
    costs = Costs(dict.fromkeys(NODES, 0.01) | dict.fromkeys(worst, 2.0))
    islands = find_islands(costs, NODES)
    assert islands.nodes == worst
    assert islands.difference < 0.1
    assert islands.without >= 2.0
    assert islands.trials == len(set(costs.asked)) == len(costs.asked)


def test_the_difference_that_is_told_is_that_of_the_nodes_that_are_told() -> None:
    costs = Costs({node: 0.1 * (place % 7) for place, node in enumerate(NODES)})
    islands = find_islands(costs, NODES, aim=Aim(0.8))
    assert islands.difference == costs(frozenset(islands.nodes)) <= 0.8
    assert 0 < len(islands.nodes) < len(NODES)


def test_required_nodes_stay_and_are_not_searched() -> None:
    costs = Costs({"n5": 2.0, "n6": 3.0})
    islands = find_islands(costs, NODES, required=frozenset({"n9"}))
    assert islands.nodes == ("n5", "n6", "n9")
    assert all("n9" in kept for kept in costs.asked)


def test_a_margin_asks_for_more_than_the_tolerance() -> None:
    costs = Costs({"n1": 1.1, "n2": 0.5, "n3": 0.2})
    assert find_islands(costs, NODES).nodes == ("n1",)
    assert find_islands(costs, NODES, aim=Aim(0.3)).nodes == ("n1", "n2")


def test_what_is_inside_its_tolerance_is_not_searched_whatever_the_margin() -> None:
    costs = Costs({"n1": 0.7, "n2": 0.2})
    islands = find_islands(costs, NODES, aim=Aim(0.5))
    assert islands.nodes == ()
    assert islands.trials == 1


def test_what_is_not_far_enough_inside_its_tolerance_is_searched() -> None:
    costs = Costs({"n1": 0.7, "n2": 0.2})
    islands = find_islands(costs, NODES, aim=Aim(0.5, enough=0.5))
    assert islands.nodes == ("n1",)
    assert islands.without == pytest.approx(math.hypot(0.7, 0.2))
    assert islands.difference == 0.2
    assert find_islands(Costs({"n1": 0.4}), NODES, aim=Aim(0.5, enough=0.5)).nodes == ()


def test_what_can_not_be_mended_is_told_as_such() -> None:
    islands = find_islands(lambda kept: 3.0 - len(kept) / len(NODES), NODES)
    assert not islands.found
    assert islands.difference == 2.0


def test_an_answer_that_is_no_number_counts_as_infinitely_far() -> None:
    islands = find_islands(lambda kept: 0.5 if "n8" in kept else math.nan, NODES)
    assert islands.nodes == ("n8",)
    assert islands.without == math.inf


def test_near_its_tolerance_little_is_ever_tried_in_float32() -> None:
    costs = Costs(dict.fromkeys(NODES, 0.02) | {"n3": 1.0, "n33": 1.2})
    islands = find_islands(costs, NODES, aim=Aim(0.6))
    assert 1 < islands.without <= NEAR
    assert islands.nodes == ("n3", "n33")
    assert max(len(kept) for kept in costs.asked) <= 4  # two groups of two
    assert islands.trials <= GROUPS + 8


def test_far_from_its_tolerance_each_group_is_tried_alone_in_the_low_precision() -> None:
    # With the three others left in, no single group kept brings the difference down by much.
    costs = Costs(dict.fromkeys(NODES, 0.05) | dict.fromkeys(("n3", "n12", "n21", "n33"), 40.0))
    islands = find_islands(costs, NODES)
    assert islands.without > NEAR
    assert islands.nodes == ("n3", "n12", "n21", "n33")


def test_what_all_groups_do_not_mend_near_the_tolerance_is_told_as_such() -> None:
    islands = find_islands(lambda kept: 1.5 - 0.001 * len(kept), NODES)
    assert not islands.found
    assert islands.difference == pytest.approx(1.46)


@pytest.mark.parametrize("most", [1, 2, 5, 20, 26, 30])
def test_the_search_ends_when_its_trials_are_used_up(most: int) -> None:
    costs = Costs(dict.fromkeys(NODES, 0.05) | {"n3": 2.0, "n33": 1.5})
    islands = find_islands(costs, NODES, aim=Aim(most=most))
    assert islands.trials <= most
    assert len(costs.asked) <= most
    if most > 1:
        assert islands.found  # what fitted at least once is never lost


def test_the_shortest_beginning_that_does_is_kept() -> None:
    costs = Costs({"n2": 3.0, "n4": 2.0, "n30": 0.5})
    islands = find_islands(costs, NODES, aim=Aim(beginnings=True))
    assert islands.nodes == NODES[:5]
    assert islands.difference == 0.5


def test_where_no_beginning_does_single_nodes_are_kept() -> None:
    costs = Costs({"n2": 3.0, "n35": 2.0})
    assert find_islands(costs, NODES, aim=Aim(beginnings=True)).nodes == ("n2", "n35")


def test_with_one_trial_there_is_no_search() -> None:
    costs = Costs({"n2": 3.0})
    islands = find_islands(costs, NODES, required=frozenset({"n9"}), aim=Aim(most=1))
    assert (islands.nodes, islands.found, len(costs.asked)) == (("n9",), False, 1)
    assert islands.difference == islands.without == 3.0
