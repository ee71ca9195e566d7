"""Leased ids: unique, asked for early, and never waited for twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.ids import IdLease
from fastsock.core.limits import ID_BLOCK, RETRY_MIN_MS


def leased(*blocks: range) -> IdLease:
    ids = IdLease()
    for block in blocks:
        ids.leased(block)
    return ids


def test_without_a_lease_there_are_none() -> None:
    ids = IdLease()
    assert not ids
    with pytest.raises(IndexError):
        ids.take()


def test_ids_are_given_out_in_order_over_blocks() -> None:
    ids = leased(range(1, 3), range(101, 103))
    assert [ids.take() for _ in range(4)] == [1, 2, 101, 102]
    assert len(ids) == 0


def test_an_empty_block_is_no_block() -> None:
    ids = leased(range(5, 5))
    assert len(ids) == 0
    ids.leased(range(7, 8))
    assert ids.take() == 7


def test_the_next_block_is_asked_for_when_half_is_used_and_once() -> None:
    ids = leased(range(1, ID_BLOCK + 1))
    for _ in range(ID_BLOCK // 2 - 1):
        ids.take()
    assert (ids.next_lease(0), ids.retry_at_ms()) == (None, None)
    ids.take()
    assert ids.retry_at_ms() == 0
    assert ids.next_lease(0) == ID_BLOCK
    assert (ids.next_lease(0), ids.retry_at_ms()) == (None, None)
    ids.leased(range(20_001, 20_001 + ID_BLOCK))
    assert ids.next_lease(0) is None
    assert len(ids) == ID_BLOCK // 2 + ID_BLOCK


def test_a_lease_that_failed_is_asked_for_again_after_a_pause() -> None:
    ids = IdLease()
    assert ids.next_lease(100) == ID_BLOCK
    ids.failed(100)
    assert ids.retry_at_ms() == 100 + RETRY_MIN_MS
    assert ids.next_lease(100 + RETRY_MIN_MS - 1) is None
    assert ids.next_lease(100 + RETRY_MIN_MS) == ID_BLOCK
    ids.failed(200)
    assert ids.retry_at_ms() == 200 + 2 * RETRY_MIN_MS
    ids.leased(range(1, 2))
    assert ids.retry_at_ms() == 0, "success ends the pause"


@given(st.lists(st.integers(1, 5), max_size=6))
def test_no_id_is_given_out_twice(sizes: list[int]) -> None:
    starts = [1 + 100 * place for place in range(len(sizes))]
    ids = leased(*(range(start, start + size) for start, size in zip(starts, sizes, strict=True)))
    taken = [ids.take() for _ in range(len(ids))]
    assert len(set(taken)) == len(taken) == sum(sizes)
