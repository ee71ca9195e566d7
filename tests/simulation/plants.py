"""Planted bugs: what the simulator must see, one of each kind.

A plant is a name and a context manager inside which the bug is there. `found` says how many seeds it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest.mock import patch

from actors.commands import Command, Committed
from actors.effects import Effect, FanOut, Persist, Reply
from actors.gateway import Gateway
from actors.gateway_outputs import Output
from actors.gateway_tables import Seat
from actors.link import Inbox
from actors.replays import Replays
from actors.room import Room
from fastsock.schemas.log import Append, Entry, Outcome, Standing, Stored
from tests.simulation.memory_log import MemoryLog
from tests.simulation.plan import draw
from tests.simulation.shrink import violation_of

SEARCH = 400
"""Seeds within which a planted bug has to show itself."""


@dataclass(frozen=True)
class Plant:
    """A bug in the place of a method; ``says`` is part of what the violation must say, "" where it may be any.

    One more is one more line in `PLANTS`, and the method as it would be with the bug.
    """

    name: str
    owner: type
    attribute: str
    bug: Callable[..., Any]
    says: str = ""

    def planted(self) -> AbstractContextManager[object]:
        """Inside, the bug is there."""
        return patch.object(self.owner, self.attribute, self.bug)


class Found(NamedTuple):
    """How a planted bug was seen."""

    seeds: int
    violation: str


def found(plant: Plant, seeds: int = SEARCH) -> Found:
    """The number of seeds it takes to see the bug, and what is seen; a seed that fails without it does not count.

    Raises:
        AssertionError: none of so many shows it.

    """
    for seed in range(seeds):
        with plant.planted():
            violation = violation_of(draw(seed))
        if violation is not None and violation_of(draw(seed)) is None:
            return Found(seed + 1, violation)
    raise AssertionError(f"{seeds} histories, and nothing was seen of: {plant.name}")


_handle, _append, _after = Room.handle, MemoryLog._append, MemoryLog.after
_resume = Replays.resume


def _ack_first(self: Room, command: Command, now_ms: int) -> list[Effect]:
    def ack(entry: Entry) -> Reply:
        return Reply(b'{"message_id":0,"seq":%d}' % (self.head + 1) if entry.kind == "message" else b"{}")

    effects = _handle(self, command, now_ms)
    if isinstance(command, Committed):
        return [effect for effect in effects if not isinstance(effect, Reply)]
    return [*effects, *(ack(effect.entry) for effect in effects if isinstance(effect, Persist))]


def _show_first(self: Room, command: Command, now_ms: int) -> list[Effect]:
    effects = _handle(self, command, now_ms)
    for effect in list(effects):
        if isinstance(effect, Persist):
            effect.entry.seq = self.head + 1
            effects.append(FanOut(effect.entry))
    return effects


def _forget_keys(self: MemoryLog, group: Append) -> list[Outcome]:
    self._by_key.clear()
    self._by_id.clear()
    return _append(self, group)


def _no_fence(self: MemoryLog, group: Append) -> list[Outcome]:
    head = len(self.logs.get(group.conversation, []))
    outcomes = _append(self, Append(group.conversation, head, group.entries))
    if head == group.expected_head or not all(isinstance(outcome, Stored) for outcome in outcomes):
        return outcomes
    return [Stored(group.expected_head + place) for place, _ in enumerate(group.entries, 1)]


def _nothing(_self: object, *_about: object) -> list[object]:
    return []


def _after_next(self: MemoryLog, conversation: str, since: int, limit: int) -> list[Entry]:
    return _after(self, conversation, since + 1, limit)


def _accept_all(_self: Inbox, _sender: str, _number: int) -> bool:
    return True


def _resume_off_by_one(
    self: Replays[Any], seat: Seat[Any], wanted: dict[str, int], standing: Standing, context: object
) -> list[Output[Any]]:
    beyond = {name: min(seq + 1, standing.heads.get(name, seq)) for name, seq in wanted.items()}
    return _resume(self, seat, beyond, standing, context)


PLANTS = (
    Plant("ack before commit", Room, "handle", _ack_first, "was acknowledged as"),
    Plant("frame before commit", Room, "handle", _show_first, "before it was committed"),
    Plant("lost dedupe", MemoryLog, "_append", _forget_keys),
    Plant("no fence", MemoryLog, "_append", _no_fence),
    Plant("forgotten re-attachment", Gateway, "reattach", _nothing),
    Plant("catch-up off by one", MemoryLog, "after", _after_next),
    Plant("resume off by one", Replays, "resume", _resume_off_by_one),
    Plant("catch-up never retried", Gateway, "_retry", _nothing),
    Plant("user not loaded again", Gateway, "_try_again", _nothing),
)
