"""A slice of random histories, and the proof that the simulator would see it if a guarantee broke."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from actors import gateway
from actors.commands import Command, Committed
from actors.effects import Effect, FanOut, Persist, Reply
from actors.room import Room
from fastsock.schemas.log import Append, Entry, Outcome, Stored
from tests.simulation.clients import Violation
from tests.simulation.history import run
from tests.simulation.memory_log import MemoryLog

SLICE = 60
SEARCH = 400
"""Seeds within which a planted bug has to show itself."""


@pytest.mark.parametrize("first", range(0, SLICE, 10))
def test_histories_keep_the_guarantees(first: int) -> None:
    for seed in range(first, first + 10):
        happened = run(seed)
        assert happened["acks"] > 0
        assert happened["entries"] >= happened["acks"]


def test_the_same_seed_is_the_same_history() -> None:
    assert run(3) == run(3)


def found_within(seeds: int) -> str:
    """What the first failing seed says."""
    for seed in range(seeds):
        try:
            run(seed)
        except Violation as violation:
            return str(violation)
    raise AssertionError(f"{seeds} histories, and the planted bug was not seen")


def test_an_ack_before_the_commit_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Room.handle

    def hasty(self: Room, command: Command, now_ms: int) -> list[Effect]:
        effects = handle(self, command, now_ms)
        if isinstance(command, Committed):
            return [effect for effect in effects if not isinstance(effect, Reply)]
        return [*effects, *(_ack(self, effect) for effect in effects if isinstance(effect, Persist))]

    def _ack(room: Room, effect: Persist) -> Reply:
        guess = {"message_id": 0, "seq": room.head + 1}
        return Reply(repr(guess).replace("'", '"').encode()) if effect.entry.kind == "message" else Reply(b"{}")

    monkeypatch.setattr(Room, "handle", hasty)
    assert "was acknowledged as" in found_within(SEARCH)


def test_a_frame_before_the_commit_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Room.handle

    def hasty(self: Room, command: Command, now_ms: int) -> list[Effect]:
        effects = handle(self, command, now_ms)
        for effect in list(effects):
            if isinstance(effect, Persist):
                effect.entry.seq = self.head + 1
                effects.append(FanOut(effect.entry))
        return effects

    monkeypatch.setattr(Room, "handle", hasty)
    assert "before it was committed" in found_within(SEARCH)


def test_a_lost_dedupe_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    append = MemoryLog._append

    def forgetful(self: MemoryLog, group: Append) -> list[Outcome]:
        self._by_key.clear()
        self._by_id.clear()
        return append(self, group)

    monkeypatch.setattr(MemoryLog, "_append", forgetful)
    found_within(SEARCH)


def test_a_missing_fence_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    append = MemoryLog._append

    def unfenced(self: MemoryLog, group: Append) -> list[Outcome]:
        head = len(self.logs.get(group.conversation, []))
        outcomes = append(self, Append(group.conversation, head, group.entries))
        wrong = [Stored(group.expected_head + place) for place, _ in enumerate(group.entries, 1)]
        stored = all(isinstance(outcome, Stored) for outcome in outcomes)
        return list(wrong) if head != group.expected_head and stored else outcomes

    monkeypatch.setattr(MemoryLog, "_append", unfenced)
    found_within(SEARCH)


def test_a_forgotten_re_attachment_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(
        self: gateway.Gateway[object], owned: Callable[[str], bool], now_ms: int
    ) -> list[gateway.Output[object]]:
        del self, owned, now_ms
        return []

    monkeypatch.setattr(gateway.Gateway, "reattach", forgetful)
    found_within(SEARCH)


def test_a_catch_up_that_is_off_by_one_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    after = MemoryLog.after

    def off_by_one(self: MemoryLog, conversation: str, since: int, limit: int) -> list[Entry]:
        return after(self, conversation, since + 1, limit)

    monkeypatch.setattr(MemoryLog, "after", off_by_one)
    found_within(SEARCH)
