"""Appending at random, against the naive model that is also the simulator's database."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastsock.db.engine import Database
from fastsock.db.message_log import MessageLog
from fastsock.schemas.log import Append, Entry, Outcome, Refused
from tests.contracts.entries import NOW_MS, members_of
from tests.simulation.memory_log import MemoryLog

_runs = count(1)
_ids = count(10**9)


class Model(MemoryLog):
    """The simulator's database, which here refuses what no text holds, and what only a constraint finds."""

    def _store(self, entry: Entry, log: list[Entry]) -> Outcome:
        if entry.kind == SHOUT or HALF in entry.content:
            return Refused("refused_by_storage", "a constraint")
        return super()._store(entry, log)


HALF = "\ud83d"
"""Half of a surrogate pair."""
SHOUT = "shout"
"""A kind of entry that the tables' constraints do not know."""


class Wish(NamedTuple):
    """An entry to be: what it does, by whom, under which of a few keys (None: a fresh one), to whom or what."""

    kind: str
    sender: int
    key: int | None
    text: str
    which: int


class Wishes(NamedTuple):
    """A group to be; ``off`` is how far its expected head is from the true one."""

    room: int
    off: int
    entries: list[Wish]


wishes = st.builds(
    Wish,
    kind=st.sampled_from(["message"] * 5 + ["edit", "edit", "delete", "joined", "left", SHOUT]),
    sender=st.integers(1, 3),
    key=st.none() | st.integers(1, 4),
    text=st.sampled_from(["a", "b", "c", "ü\n😀", "", "\0", HALF]),
    which=st.integers(0, 9),
)
groups = st.builds(
    Wishes, room=st.integers(1, 3), off=st.sampled_from([0] * 6 + [-2, -1, 1, 2]), entries=st.lists(wishes, max_size=5)
)
steps = st.lists(st.lists(groups, min_size=1, max_size=3) | st.integers(0, 9), max_size=10)
"""Each step appends groups, or (a number) sends one of the earlier appends again."""


class Player:
    """Makes appends of wishes, as far as they can be made in the state of the model."""

    def __init__(self, model: Model) -> None:
        self.run = next(_runs)
        self._model = model
        self._said: list[Entry] = []
        self._times = count(NOW_MS)

    def conversation(self, room: int) -> str:
        return f"room:{self.run * 10 + room}"

    def append(self, wished: Sequence[Wishes]) -> list[Append]:
        made: list[Append] = []
        for wish in wished:
            conversation = self.conversation(wish.room)
            head = self._model.heads([conversation])[conversation]
            entries = [self._entry(conversation, entry) for entry in wish.entries]
            made.append(Append(conversation, max(head + wish.off, 0), entries))
        return made

    def _entry(self, conversation: str, wish: Wish) -> Entry:
        id_ = next(_ids)
        entry = Entry(
            conversation=conversation,
            kind=wish.kind,  # type: ignore[arg-type]
            sender_id=wish.sender,
            key=f"c:{self.run}-{wish.key or f'fresh-{id_}'}",
            at_ms=next(self._times),
            id=id_,
            content=wish.text,
        )
        if wish.kind in {"edit", "delete"} and self._said:
            entry.target_id = self._said[wish.which % len(self._said)].id
            entry.content = wish.text if wish.kind == "edit" else ""
        elif wish.kind == "joined":
            entry.detail = {"members": {str(wish.which % 9 + 1): "member"}}
        elif wish.kind == "left":
            entry.detail = {"user_ids": [wish.which % 9 + 1]}
        else:
            entry.kind = SHOUT if wish.kind == SHOUT else "message"  # type: ignore[assignment]
            self._said.append(entry)
        return entry


def shown(outcomes: list[list[Outcome]]) -> list[list[object]]:
    """Outcomes to be compared: the words of a refusal are each database's own."""
    return [[outcome.code if isinstance(outcome, Refused) else outcome for outcome in group] for group in outcomes]


def copied(append: Sequence[Append]) -> list[Append]:
    return [
        Append(group.conversation, group.expected_head, [*map(msgspec.structs.replace, group.entries)])
        for group in append
    ]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=steps)
async def test_the_log_is_what_the_model_says(db: Database, steps: list[list[Wishes] | int]) -> None:
    log, model = MessageLog(db), Model()
    player = Player(model)
    sent: list[list[Append]] = []
    for step in steps:
        if isinstance(step, int):
            if not sent:
                continue
            append = sent[step % len(sent)]
        else:
            append = player.append(step)
        sent.append(append)
        assert shown(await log.append(append)) == shown(model.append(copied(append)))
    for room in (1, 2, 3):
        conversation = player.conversation(room)
        assert await log.after(conversation, 0, 1000) == model.after(conversation, 0, 1000)
        assert await members_of(db, conversation) == model.members.get(conversation, {})
    for entry in (entry for append in sent for group in append for entry in group.entries):
        assert entry.seq == 0, "the caller's entries stay as they are"
