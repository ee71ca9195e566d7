"""The activation table: loads are shared, mail waits in order and not for ever, memory is bounded."""

from __future__ import annotations

import pytest

from actors import activations as module
from actors.activations import Activations, Mail
from actors.commands import Connect, Describe
from actors.presence import Presence
from actors.room import Room
from fastsock.core.limits import MAX_MAILBOX, PASSIVATE_AFTER_MS, RETRY_MIN_MS
from fastsock.schemas.log import ConversationState


def room(name: str = "room:1") -> Room:
    return Room(ConversationState(conversation=name, head=0, last_at_ms=0, members={}))


def mail(since_ms: int = 0) -> Mail:
    return Mail(Describe(), None, since_ms)


def use(table: Activations, name: str, now_ms: int = 0) -> module.Activation:
    activation = table.use(name, now_ms)
    assert activation is not None
    return activation


def wanted(table: Activations, name: str, *since_ms: int) -> module.Activation:
    activation = use(table, name)
    for at_ms in since_ms:
        assert table.post(activation, mail(at_ms))
    return activation


def busy(table: Activations, name: str, now_ms: int = 0) -> None:
    actor = use(table, name, now_ms).actor
    assert isinstance(actor, Presence)
    actor.handle(Connect("c1"), now_ms, "g1")


def test_a_user_is_made_at_once_and_a_conversation_has_to_be_loaded() -> None:
    table = Activations()
    user, conversation = use(table, "user:7", 5), use(table, "room:1", 6)
    assert isinstance(user.actor, Presence)
    assert user.idle
    assert conversation.actor is None
    assert not conversation.idle
    assert use(table, "user:7", 9) is user
    assert (user.used_ms, conversation.used_ms) == (9, 6)
    assert [activation.name for activation in table] == ["room:1", "user:7"], "in the order of last use"
    assert (len(table), table.get("room:1"), table.get("room:2")) == (2, conversation, None)
    assert table.next_load(0) == ["room:1"]


def test_what_is_no_name_is_not_activated() -> None:
    table = Activations()
    with pytest.raises(ValueError, match="not an actor's name: 'room:x'"):
        table.use("room:x", 0)
    assert (len(table), table.next_load(0)) == (0, None)


def test_the_names_that_gather_during_one_read_are_the_next() -> None:
    table = Activations()
    wanted(table, "room:1", 0)
    assert table.load_at_ms() == 0
    assert table.next_load(0) == ["room:1"]
    wanted(table, "room:2", 0)
    wanted(table, "dm:1:2", 0)
    assert (table.next_load(0), table.load_at_ms()) == (None, None)
    assert table.loaded() == ["room:1"]
    assert table.next_load(0) == ["room:2", "dm:1:2"]
    assert table.loaded() == ["room:2", "dm:1:2"]
    assert (table.next_load(0), table.load_at_ms()) == (None, None)


def test_a_read_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LOAD", 2)
    table = Activations()
    for number in (1, 2, 3):
        wanted(table, f"room:{number}", 0)
    assert table.next_load(0) == ["room:1", "room:2"]
    table.loaded()
    assert table.next_load(0) == ["room:3"]


def test_a_read_that_failed_is_repeated_after_a_pause_before_what_has_come_since() -> None:
    table = Activations()
    wanted(table, "room:1", 0)
    table.next_load(100)
    wanted(table, "room:2", 0)
    table.load_failed(100)
    assert table.load_at_ms() == 100 + RETRY_MIN_MS
    assert table.next_load(100 + RETRY_MIN_MS - 1) is None
    assert table.next_load(100 + RETRY_MIN_MS) == ["room:1", "room:2"]
    table.loaded()
    wanted(table, "room:3", 0)
    assert table.load_at_ms() == 0, "a success ends the pause"


def test_a_mailbox_is_bounded() -> None:
    table = Activations()
    activation = wanted(table, "room:1", *range(MAX_MAILBOX))
    assert not table.post(activation, mail())
    assert [waiting.since_ms for waiting in activation.mailbox] == list(range(MAX_MAILBOX))


def test_a_reload_keeps_what_was_taken_in_before_and_counts_as_use() -> None:
    table = Activations()
    use(table, "room:1").actor = room()
    table.next_load(0)
    table.loaded()
    use(table, "user:7", 5)
    table.reload("room:1", [mail(since) for since in range(MAX_MAILBOX + 1)], 10)
    activation = table.get("room:1")
    assert activation is not None
    assert (activation.actor, len(activation.mailbox), activation.used_ms) == (None, MAX_MAILBOX + 1, 10)
    assert [each.name for each in table] == ["user:7", "room:1"]
    assert table.next_load(0) == ["room:1"]


def test_what_is_dropped_is_neither_there_nor_wanted() -> None:
    table = Activations()
    wanted(table, "room:1", 3, 4)
    assert [waiting.since_ms for waiting in table.drop("room:1")] == [3, 4]
    assert table.drop("room:1") == []
    assert (len(table), table.next_load(0)) == (0, None)


# --- patience --------------------------------------------------------------------------------------------------------


def test_mail_that_has_waited_too_long_is_given_up_and_its_activation_with_it() -> None:
    table = Activations()
    wanted(table, "room:1", 10, 20)
    wanted(table, "room:2", 20, 30)
    assert table.oldest_ms() == 10
    assert table.give_up(9) == []
    assert [waiting.since_ms for waiting in table.give_up(20)] == [10, 20, 20]
    assert [activation.name for activation in table] == ["room:2"]
    assert table.oldest_ms() == 30
    assert table.next_load(0) == ["room:2"]


def test_mail_does_not_wait_longer_for_a_read_that_hangs_but_its_activation_stays() -> None:
    table = Activations()
    wanted(table, "room:1", 10)
    table.next_load(0)
    assert table.oldest_ms() == 10
    assert [waiting.since_ms for waiting in table.give_up(10)] == [10]
    assert table.oldest_ms() is None
    assert len(table) == 1
    table.load_failed(50)
    assert table.give_up(50) == []
    assert (len(table), table.load_at_ms()) == (0, None), "nobody wants it any more"


def test_what_is_loaded_is_not_given_up() -> None:
    table = Activations()
    activation = wanted(table, "room:1", 10)
    table.next_load(0)
    table.loaded()
    activation.actor = room()
    assert (table.oldest_ms(), table.give_up(99)) == (None, [])
    assert len(table) == 1


# --- leaving memory --------------------------------------------------------------------------------------------------


def test_what_is_idle_and_unused_is_passivated() -> None:
    table = Activations()
    assert table.passivate_at_ms() is None
    use(table, "user:1", 0)
    busy(table, "user:2", 10)
    use(table, "user:3", 20)
    use(table, "user:4", 21)
    assert table.passivate_at_ms() == PASSIVATE_AFTER_MS
    assert table.passivate(PASSIVATE_AFTER_MS - 1) == []
    now_ms = PASSIVATE_AFTER_MS + 20
    assert table.passivate(now_ms) == ["user:1", "user:3"]
    assert [activation.name for activation in table] == ["user:4", "user:2"], "who is not idle goes to the end"
    assert table.passivate_at_ms() == PASSIVATE_AFTER_MS + 21
    assert table.passivate(now_ms + PASSIVATE_AFTER_MS) == ["user:4"]
    assert table.passivate_at_ms() == now_ms + 2 * PASSIVATE_AFTER_MS


def test_what_is_being_loaded_is_not_passivated() -> None:
    table = Activations()
    wanted(table, "room:1", 0)
    assert table.passivate(10 * PASSIVATE_AFTER_MS) == []
    assert table.next_load(0) == ["room:1"]


def test_at_the_bound_the_idlest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ACTIVATIONS", 3)
    table = Activations()
    busy(table, "user:1")
    use(table, "user:2", 1)
    use(table, "user:3", 2)
    use(table, "user:4", 3)
    assert sorted(activation.name for activation in table) == ["user:1", "user:3", "user:4"]


def test_at_the_bound_with_nobody_idle_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ACTIVATIONS", 2)
    table = Activations()
    busy(table, "user:1")
    wanted(table, "room:1", 0)
    assert table.use("user:2", 1) is None
    assert table.use("user:1", 1) is not None
    assert len(table) == 2


def test_many_quiet_sockets_do_not_hide_who_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ACTIVATIONS", 5)
    monkeypatch.setattr(module, "EVICT_SEARCH", 2)
    table = Activations()
    for number in range(1, 5):
        busy(table, f"user:{number}", number)
    use(table, "user:5", 5)
    found = [table.use("user:6", 10 + attempt) is not None for attempt in range(3)]
    assert found == [False, False, True], "each search looks at others"
    assert table.get("user:5") is None
