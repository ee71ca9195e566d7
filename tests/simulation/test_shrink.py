"""Delta debugging, on failures whose smallest cause is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulation.shrink import kind, smallest
from tests.simulation.trace import Line, concerning, subjects


def needs(*items: int) -> Callable[[tuple[int, ...]], bool]:
    return lambda kept: set(items) <= set(kept)


@given(st.integers(1, 60), st.sets(st.integers(0, 59), min_size=1, max_size=5))
def test_what_is_needed_is_all_that_is_left(size: int, needed: set[int]) -> None:
    needed = {item % size for item in needed}
    assert set(smallest(range(size), needs(*needed), max_reruns=10_000)) == needed


def test_the_order_is_kept() -> None:
    assert smallest((9, 4, 7, 1, 8), needs(7, 4, 8)) == (4, 7, 8)


def test_of_two_causes_one_is_left() -> None:
    assert len(smallest(range(20), lambda kept: 3 in kept or 17 in kept)) == 1


def test_it_reruns_no_more_often_than_it_may() -> None:
    asked: list[tuple[int, ...]] = []

    def fails(kept: tuple[int, ...]) -> bool:
        asked.append(kept)
        return needs(3, 50)(kept)

    left = smallest(range(100), fails, max_reruns=5)
    assert len(asked) == 5
    assert {3, 50} <= set(left) < set(range(100))


def test_it_takes_no_longer_than_it_may() -> None:
    assert smallest(range(100), needs(3), max_seconds=0) == tuple(range(100))


def test_nothing_is_tried_with_nothing() -> None:
    assert smallest((5,), needs()) == (5,)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("seed 3, step 10: u1s1: room:1 #5 came after #3", "seed 4, step 99: u6s12: dm:3:4 #9 came after #11"),
        ("user 1: never answered: u1m1, u1m2, u1m3", "seed 9, step 8: user 2: never answered: u2m7"),
        ("u1s1: has seen room:1 up to None, its head is #3", "u2s1: has seen room:2 up to 2, its head is #3"),
    ],
)
def test_violations_of_one_kind(one: str, other: str) -> None:
    assert kind(one) == kind(other)


def test_violations_of_two_kinds() -> None:
    assert kind("u1s1: ready twice") != kind("u1s1: a frame after the end")


def test_what_a_violation_names() -> None:
    def named(text: str) -> list[list[str]]:
        return [sorted(names) for names in subjects(text)]

    assert named("u3s12: has seen room:1 up to 4, its head is #5") == [["room:1"], ["user 3"]]
    assert named("user 2: u2m1 was acknowledged as #3 in dm:2:5") == [["dm:2:5"], ["user 2"]]
    assert named("host-0: not there") == [[], []]


def test_lines_that_concern_a_violation() -> None:
    lines = [
        Line(1, "host-0 dies", ()),
        Line(2, "commits room:1", ("room:1",)),
        Line(3, "commits room:2", ("room:2",)),
        Line(4, "shows u3s1 room:1", ("room:1", "user 3")),
        Line(5, "shows u4s1 room:1", ("room:1", "user 4")),
        Line(6, "greets u3s1", ("user 3",)),
    ]
    assert [line.at_ms for line in concerning(lines, "u3s1: room:1 #5 came after #3")] == [1, 2, 4, 6]
    assert [line.at_ms for line in concerning(lines, "host-0: not there")] == [1, 2, 3, 4, 5, 6]
    assert str(lines[0]) == "       1 ms  host-0 dies"
