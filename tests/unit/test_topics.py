"""Topics: who is attached, who lacks something, and what is read for whom."""

from __future__ import annotations

import pytest

from actors import topics as module
from actors.topics import Read, Topics
from fastsock.core.limits import RETRY_MIN_MS


def attached(*pairs: tuple[str, str]) -> Topics:
    topics = Topics()
    for topic, gateway in pairs:
        topics.attach(topic, gateway)
    return topics


def empty(topics: Topics) -> bool:
    return not (topics._gateways or topics._checks or topics._checking or topics._reads or topics._reading)


# --- attaching -------------------------------------------------------------------------------------------------------


def test_attaching_twice_is_attaching_once() -> None:
    topics = attached(("room:1", "g1"), ("room:1", "g2"), ("room:1", "g1"))
    assert topics.gateways("room:1") == ("g1", "g2")
    assert topics.attached("room:1", "g1")
    assert not topics.attached("room:2", "g1")
    assert (len(topics), topics.gateways("room:2")) == (1, ())


def test_a_topic_without_gateways_is_no_more() -> None:
    topics = attached(("room:1", "g1"))
    topics.check("room:1", "g1", 0)
    topics.lack("room:1", "g1", 0)
    topics.detach("room:1", "g1")
    topics.detach("room:1", "g1")
    topics.detach("room:9", "g9")
    assert empty(topics)
    assert topics.retry_at_ms() is None


def test_detaching_one_leaves_what_the_other_wants() -> None:
    topics = attached(("room:1", "g1"), ("room:1", "g2"))
    topics.check("room:1", "g1", 3)
    topics.check("room:1", "g2", 3)
    topics.detach("room:1", "g1")
    assert topics.next_check(0) == ["room:1"]
    topics.checked({"room:1": 4})
    assert topics.next_read(0) == Read("room:1", "g2", 3)


def test_a_gateway_that_is_forgotten_is_attached_to_nothing() -> None:
    topics = attached(("room:1", "g1"), ("room:1", "g2"), ("user:7", "g1"))
    topics.lack("room:1", "g1", 0)
    topics.forget("g1")
    assert (topics.gateways("room:1"), topics.gateways("user:7"), len(topics)) == (("g2",), (), 1)
    assert topics.next_read(0) is None


def test_topics_that_live_elsewhere_are_dropped_whole() -> None:
    topics = attached(("room:1", "g1"), ("room:1", "g2"), ("room:2", "g1"))
    topics.check("room:1", "g2", 0)
    topics.drop(lambda topic: topic == "room:1")
    assert (topics.gateways("room:1"), topics.gateways("room:2")) == ((), ("g1",))
    assert topics.next_check(0) is None


# --- asking for heads ------------------------------------------------------------------------------------------------


def test_heads_are_asked_for_all_topics_at_once_and_what_is_lacked_is_read() -> None:
    topics = attached(("room:1", "g1"), ("room:1", "g2"), ("room:2", "g1"))
    topics.check("room:1", "g1", 5)
    topics.check("room:1", "g2", 3)
    topics.check("room:2", "g1", 8)
    assert topics.next_check(0) == ["room:1", "room:2"]
    topics.check("room:2", "g1", 9)
    assert topics.next_check(0) is None, "one question at a time"
    topics.checked({"room:1": 5, "room:2": 9})
    assert topics.next_read(0) == Read("room:1", "g2", 3)
    topics.read()
    assert topics.next_read(0) == Read("room:2", "g1", 8)
    topics.read()
    assert topics.next_read(0) is None
    assert topics.next_check(0) == ["room:2"]
    topics.checked({"room:2": 9})
    assert topics.next_read(0) is None


def test_a_question_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CHECKS", 2)
    topics = Topics()
    for number in (1, 2, 3):
        topics.attach(f"room:{number}", "g1")
        topics.check(f"room:{number}", "g1", 0)
    assert topics.next_check(0) == ["room:1", "room:2"]
    topics.checked({"room:1": 0, "room:2": 0})
    assert topics.next_check(0) == ["room:3"]


def test_a_question_that_failed_is_asked_again_with_what_has_come_since() -> None:
    topics = attached(("room:1", "g1"), ("room:1", "g2"), ("room:1", "g3"))
    topics.check("room:1", "g1", 1)
    topics.check("room:1", "g2", 1)
    topics.next_check(100)
    assert topics.retry_at_ms() is None
    topics.check("room:1", "g2", 4)
    topics.check("room:1", "g3", 4)
    topics.check_failed(100)
    assert topics.retry_at_ms() == 100 + RETRY_MIN_MS
    assert topics.next_check(100 + RETRY_MIN_MS - 1) is None
    assert topics.next_check(100 + RETRY_MIN_MS) == ["room:1"]
    topics.checked({"room:1": 4})
    assert topics.next_read(200) == Read("room:1", "g1", 1)
    topics.read()
    assert topics.next_read(200) is None, "the later word of g2 counts"


def test_who_has_left_meanwhile_lacks_nothing() -> None:
    topics = attached(("room:1", "g1"))
    topics.check("room:1", "g1", 0)
    topics.next_check(0)
    topics.forget("g1")
    topics.checked({"room:1": 9})
    assert empty(topics)


# --- reading ---------------------------------------------------------------------------------------------------------


def test_one_page_is_read_at_a_time() -> None:
    topics = attached(("room:1", "g1"), ("room:2", "g1"))
    topics.lack("room:1", "g1", 4)
    topics.lack("room:2", "g1", 0)
    assert topics.retry_at_ms() == 0
    assert topics.next_read(0) == Read("room:1", "g1", 4)
    assert topics.next_read(0) is None
    assert topics.retry_at_ms() is None
    assert topics.read() == Read("room:1", "g1", 4)
    assert topics.next_read(0) == Read("room:2", "g1", 0)


def test_of_two_pages_that_are_wanted_the_earlier_one_is_read() -> None:
    topics = attached(("room:1", "g1"))
    topics.lack("room:1", "g1", 4)
    topics.lack("room:1", "g1", 2)
    topics.lack("room:1", "g1", 7)
    assert topics.next_read(0) == Read("room:1", "g1", 2)
    topics.read()
    assert topics.next_read(0) is None


def test_nothing_is_read_for_who_is_not_attached() -> None:
    topics = attached(("room:1", "g1"))
    topics.lack("room:1", "g2", 0)
    topics.lack("room:2", "g1", 0)
    assert topics.next_read(0) is None


def test_a_page_that_could_not_be_read_is_read_later() -> None:
    topics = attached(("room:1", "g1"))
    topics.lack("room:1", "g1", 4)
    topics.next_read(100)
    topics.read_failed(100)
    assert topics.retry_at_ms() == 100 + RETRY_MIN_MS
    assert topics.next_read(100 + RETRY_MIN_MS - 1) is None
    assert topics.next_read(100 + RETRY_MIN_MS) == Read("room:1", "g1", 4)
    topics.lack("room:1", "g1", 6)
    topics.read_failed(200)
    assert topics.next_read(1_000) == Read("room:1", "g1", 4), "the earlier one"


def test_a_page_that_could_not_be_read_is_not_read_for_who_has_left() -> None:
    topics = attached(("room:1", "g1"))
    topics.lack("room:1", "g1", 4)
    topics.next_read(0)
    topics.detach("room:1", "g1")
    topics.read_failed(0)
    assert empty(topics)


def test_a_success_ends_the_pause() -> None:
    topics = attached(("room:1", "g1"))
    topics.check("room:1", "g1", 0)
    topics.next_check(0)
    topics.check_failed(0)
    topics.next_check(20)
    topics.lack("room:1", "g1", 0)
    assert topics.next_read(20) is not None
    topics.checked({"room:1": 0})
    topics.read()
    assert topics.retry_at_ms() is None
    topics.lack("room:1", "g1", 0)
    assert topics.retry_at_ms() == 0


@pytest.mark.parametrize("what", ["read", "read_failed"])
def test_an_answer_needs_a_question(what: str) -> None:
    with pytest.raises(AssertionError, match="an answer without a question"):
        Topics().read() if what == "read" else Topics().read_failed(0)


def test_a_comparison_of_heads_does_not_forget_who_has_attached_with_less() -> None:
    topics = attached(("room:1", "ahead"), ("room:1", "behind"))
    topics.begins("room:1", 7)
    topics.check("room:1", "behind", 5)
    topics.check_all()
    assert topics.next_check(0) == ["room:1"]
    topics.checked({"room:1": 7})
    assert topics.next_read(0) == Read("room:1", "behind", 5)
    topics.read()
    assert topics.next_read(0) is None


def test_a_comparison_of_heads_brings_everybody_what_somebody_else_has_written() -> None:
    topics = attached(("room:1", "g1"), ("room:1", "g2"))
    topics.begins("room:1", 7)
    topics.check_all()
    assert topics.next_check(0) == ["room:1"]
    topics.checked({"room:1": 9})
    for gateway in ("g1", "g2"):
        assert topics.next_read(0) == Read("room:1", gateway, 7)
        topics.read()
