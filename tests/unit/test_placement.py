"""Placement: every name has one host, and a change moves what it must and nothing else."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.placement import Placement, shard_of
from fastsock.core.limits import SHARDS

NAMES = [f"room:{number}" for number in range(1, 2_001)]
host_sets = st.sets(st.sampled_from([f"h{index}" for index in range(5)]), min_size=1, max_size=5)


def over(*hosts: str, **pins: str) -> Placement:
    return Placement(epoch=1, hosts=hosts, pins=pins)


def test_the_shard_of_a_name_is_for_ever() -> None:
    """CRC-32 modulo 1,024, written down: another value would move everybody's rooms with an upgrade."""
    assert [shard_of(name) for name in ("room:42", "dm:3:7", "user:7")] == [640, 873, 951]
    assert all(0 <= shard_of(name) < SHARDS for name in NAMES)


@settings(max_examples=15, deadline=None)
@given(host_sets)
def test_the_owner_is_one_of_the_hosts_in_whatever_order_they_stand(hosts: set[str]) -> None:
    one, other = over(*sorted(hosts)), over(*sorted(hosts, reverse=True))
    for name in NAMES[:50]:
        assert one.owner(name) in hosts
        assert one.owner(name) == other.owner(name)


def test_names_spread_over_the_hosts() -> None:
    placement = over("h0", "h1", "h2", "h3")
    counts = Counter(placement.owner(name) for name in NAMES)
    assert set(counts) == {"h0", "h1", "h2", "h3"}
    assert min(counts.values()) > len(NAMES) / 4 * 0.8


@settings(max_examples=15, deadline=None)
@given(host_sets, st.sampled_from([f"h{index}" for index in range(5)]))
def test_a_host_more_or_less_moves_only_what_it_gets_or_had(hosts: set[str], host: str) -> None:
    with_it, without = over(*sorted({*hosts, host, "h8"})), over(*sorted({*hosts, "h8"} - {host}))
    for name in NAMES[:200]:
        assert with_it.owner(name) in {host, without.owner(name)}


def test_a_pin_comes_first() -> None:
    placement = over("h0", "h1", **{"room:42": "h1", "room:43": "h0"})
    assert (placement.owner("room:42"), placement.owner("room:43")) == ("h1", "h0")


def test_other_hosts_make_the_next_epoch_and_drop_pins_to_those_that_went() -> None:
    before = over("h0", "h1", **{"room:42": "h1", "room:43": "h0"})
    after = before.with_hosts(("h2", "h0"))
    assert after == Placement(epoch=2, hosts=("h0", "h2"), pins={"room:43": "h0"})


def test_what_may_have_moved_is_what_changed_hands_or_anything_if_an_epoch_was_missed() -> None:
    before = Placement(epoch=4, hosts=("h0", "h1"), pins={"room:1": "h0", "room:2": "h0"})
    after = Placement(epoch=5, hosts=("h0", "h1"), pins={"room:1": "h0", "room:2": "h1"})
    much_later = Placement(epoch=6, hosts=("h0", "h1"), pins={"room:1": "h0", "room:2": "h0"})
    assert [after.moved_since(before)(name) for name in ("room:1", "room:2")] == [False, True]
    assert [much_later.moved_since(before)(name) for name in ("room:1", "room:2")] == [True, True]


def test_the_same_hosts_are_the_same_placement() -> None:
    placement = over("h0", "h1")
    assert placement.with_hosts(("h1", "h0")) is placement


def test_a_placement_needs_a_host() -> None:
    with pytest.raises(ValueError, match="host") as caught:
        over("h0").with_hosts(())
    assert str(caught.value) == "a placement needs at least 1 host, got 0"


def test_a_placement_survives_its_encoding() -> None:
    placement = Placement(epoch=7, hosts=("h0", "h1"), pins={"room:42": "h1"})
    assert Placement.decode(placement.encode()) == placement
