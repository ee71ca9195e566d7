from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.effects import Frame
from actors.recent import Recent

ROOM = "room:1"


def frame(seq: int, topic: str = ROOM, size: int = 10, *, amends: bool = False) -> Frame:
    return Frame(topic, seq, f"{topic}#{seq}".encode().ljust(size), amends=amends)


def filled(*frames: Frame, limit_bytes: int = 1_000, limit_frames: int = 100) -> Recent:
    recent = Recent(limit_bytes, limit_frames)
    for one in frames:
        recent.add(one)
    return recent


def seqs(recent: Recent, since: int, limit: int = 100, topic: str = ROOM) -> list[int]:
    return [int(payload.partition(b"#")[2]) for payload in recent.after(topic, since, limit)]


def test_what_follows_a_number_is_given_in_order() -> None:
    recent = filled(*map(frame, range(5, 10)))
    assert seqs(recent, 4) == [5, 6, 7, 8, 9]
    assert seqs(recent, 6) == [7, 8, 9]
    assert seqs(recent, 6, limit=2) == [7, 8]
    assert seqs(recent, 9) == seqs(recent, 12) == []


def test_nothing_is_given_where_memory_does_not_reach_back_so_far() -> None:
    assert seqs(filled(*map(frame, range(5, 10))), 3) == []
    assert seqs(filled(), 0) == []


def test_a_frame_that_comes_again_is_not_kept_twice() -> None:
    recent = filled(frame(1), frame(2), frame(1), frame(2))
    assert seqs(recent, 0) == [1, 2]
    assert (len(recent), recent.size_bytes) == (2, 20)


def test_after_a_hole_and_after_an_edit_a_topic_begins_anew() -> None:
    assert seqs(filled(frame(1), frame(2), frame(4)), 3) == [4]
    recent = filled(frame(1), frame(2), frame(3, amends=True), frame(4))
    assert seqs(recent, 1) == []
    assert seqs(recent, 2) == [3, 4]
    assert (len(recent), recent.size_bytes) == (2, 20)


def test_the_oldest_go_first_whichever_topic_they_are_of() -> None:
    recent = filled(frame(1), frame(1, "room:2"), frame(2), limit_bytes=25)
    assert seqs(recent, 0) == []
    assert seqs(recent, 1) == [2]
    assert seqs(recent, 0, topic="room:2") == [1]
    assert recent.size_bytes == 20
    assert len(filled(*map(frame, range(1, 50)), limit_frames=7)) == 7


def test_a_frame_larger_than_everything_is_not_kept() -> None:
    recent = filled(frame(1), frame(2, size=2_000))
    assert (len(recent), recent.size_bytes) == (0, 0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([ROOM, "room:2"]),
            st.integers(1, 12),
            st.integers(10, 40),
            st.booleans(),
            st.integers(0, 9).map(lambda dice: dice == 0),
        )
    )
)
def test_whatever_happens_it_is_bounded_and_without_holes(
    added: list[tuple[str, int, int, bool, bool]],
) -> None:
    recent = Recent(100, 6)
    for topic, seq, size, amends, forgets in added:
        recent.add(frame(seq, topic, size, amends=amends))
        if forgets:
            recent.forget(topic)
        kept = {topic: recent._frames.get(topic, ()) for topic in (ROOM, "room:2")}
        assert recent.size_bytes == sum(len(payload) for frames in kept.values() for payload in frames) <= 100
        assert len(recent) <= 6
        for name, frames in kept.items():
            numbers = [int(payload.partition(b"#")[2]) for payload in frames]
            assert (
                numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else name not in recent._ends
            )
