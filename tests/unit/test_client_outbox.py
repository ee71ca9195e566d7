"""The outbox: what is sent when. Times in milliseconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsock.client.outbox import Outbox
from fastsock.client.settings import Settings

SETTINGS = Settings(outbox_limit=100, window=3, messages_per_s=10.0, ack_patience_ms=60_000)


def outbox(count: int = 0, settings: Settings = SETTINGS) -> Outbox:
    made = Outbox(settings, lambda: 0.0)
    for number in range(1, count + 1):
        made.add(f"m{number}", f"{number}".encode())
    return made


def test_no_more_than_the_window_is_on_the_wire() -> None:
    box = outbox(5)
    box.connected(0)
    assert box.due(0) == [b"1", b"2", b"3"]
    assert box.due(10_000) == []
    assert box.next_at_ms() == 60_000  # only an answer, or the lack of one, brings more
    assert box.acked("m2")
    assert box.due(10_000) == [b"4"]


def test_after_the_burst_messages_go_at_the_rate_of_the_server() -> None:
    box = outbox(6)
    box.connected(0)
    assert len(box.due(0)) == 3
    for number in (1, 2, 3):
        assert box.acked(f"m{number}")
    assert box.due(0) == []
    assert box.next_at_ms() == 100
    assert box.due(99) == []
    assert box.due(100) == [b"4"]
    assert box.due(350) == [b"5", b"6"]


def test_a_new_connection_sends_everything_again_in_order() -> None:
    box = outbox(3)
    box.connected(0)
    box.due(0)
    box.acked("m1")
    box.add("m4", b"4")
    box.connected(5_000)
    assert box.due(5_000) == [b"2", b"3", b"4"]


def test_a_refusal_pauses_all_for_what_the_server_says_and_keeps_the_order() -> None:
    box = outbox(4)
    box.connected(0)
    box.due(0)
    for number in (3, 1, 2):  # all that is on the wire
        assert box.postponed(f"m{number}", 200, 10)
    assert box.next_at_ms() == 210
    assert box.due(209) == []
    assert box.due(210) == [b"1"]  # one, to see whether the server takes it
    assert box.due(310) == [b"2"]


def test_pauses_grow_with_refusals_in_a_row_and_an_ack_ends_that() -> None:
    box = Outbox(SETTINGS, lambda: 0.5)
    box.add("m1", b"1")
    box.connected(0)
    now_ms, pauses = 0, []
    for _ in range(4):
        box.due(now_ms)
        box.postponed("m1", None, now_ms)
        due_ms = box.next_at_ms()
        assert due_ms is not None
        pauses.append(due_ms - now_ms)
        now_ms = due_ms
    assert pauses == [500 + 125, 500 + 250, 500 + 500, 500 + 1_000]
    box.due(now_ms)
    box.acked("m1")
    box.add("m2", b"2")
    box.due(now_ms + 1_000)
    box.postponed("m2", 0, now_ms + 1_000)
    assert box.next_at_ms() == now_ms + 1_000 + 125


def test_what_has_no_answer_is_sent_again() -> None:
    box = outbox(1)
    box.connected(0)
    assert box.due(0) == [b"1"]
    assert box.due(59_999) == []
    assert box.due(60_000) == [b"1"]
    assert len(box) == 1


def test_the_bound_and_names_that_come_again() -> None:
    box = outbox(100)
    assert box.full
    with pytest.raises(AssertionError):
        box.add("m101", b"101")
    box.connected(0)
    box.due(0)
    assert box.refused("m1")
    assert len(box) == 99
    box.add("m1", b"again")
    with pytest.raises(AssertionError):
        box.add("m1", b"twice")
    assert not box.acked("m999")
    assert not box.postponed("m999", 1, 0)
    assert box.frame("m1") == b"again"
    assert box.frame("m999") is None


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(("add", "due", "ack", "refuse", "later", "connect", "time")), st.integers(0, 400)),
        max_size=150,
    )
)
def test_nothing_is_lost_or_sent_twice_on_one_connection(steps: list[tuple[str, int]]) -> None:
    """Against a naive model: what waits is what was added and not answered; at most the window is unanswered."""
    box, now_ms, count = outbox(), 0, 0
    box.connected(0)
    kept: dict[str, bytes] = {}
    flying: list[str] = []
    for what, pick in steps:
        match what:
            case "add" if len(kept) < SETTINGS.outbox_limit:
                count += 1
                kept[f"m{count}"] = f"m{count}".encode()
                box.add(f"m{count}", kept[f"m{count}"])
            case "due":
                sent = [frame.decode() for frame in box.due(now_ms)]
                assert sent == sorted(sent, key=lambda name: int(name[1:]))
                assert not {*sent} & {*flying}
                assert {*sent} <= kept.keys()
                flying += sent
                assert len(flying) <= SETTINGS.window
            case "ack" | "refuse" if flying:
                name = flying.pop(pick % len(flying))
                del kept[name]
                assert box.acked(name) if what == "ack" else box.refused(name)
            case "later" if flying:
                assert box.postponed(flying.pop(pick % len(flying)), pick, now_ms)
            case "connect":
                flying.clear()
                box.connected(now_ms)
            case "time":
                now_ms += pick
    assert len(box) == len(kept)
    box.connected(now_ms)
    rest: list[str] = []
    while kept:
        for frame in box.due(now_ms):
            rest.append(frame.decode())
            box.acked(frame.decode())
            del kept[frame.decode()]
        now_ms = box.next_at_ms() or now_ms
    assert rest == sorted(rest, key=lambda name: int(name[1:]))
