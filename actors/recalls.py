"""Refused, or done before? What a host asks the log before it refuses a command that may be a repeat.

Somebody sends a message, is removed from the room, and sends the same message again because the ack was lost with a
socket. The room would refuse it: no member. But the sender is owed the first answer (guarantee 3), and that is in the
log, under the sender's key. So a refusal for a reason that may have arisen since is held back until the log has said
that it does not know the key.

Refusals are rare and nobody else waits for them, so the keys that gather while one question is under way are asked in
the next, and the path of accepted messages does not know that this exists.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors.commands import AddMembers, Delete, Edit, LinkCommand, Origin, RemoveMember, Send
from actors.effects import Failure
from actors.link import Backoff
from fastsock.core.limits import MAX_RECALLS
from fastsock.schemas.log import Kind

CHANGEABLE = frozenset({"not_a_member", "already_a_member", "not_allowed", "room_full"})
"""Refusals that may be the command's own doing, or what became true after it was first accepted."""
MAX_ASKED = 500
"""Keys of one question."""
_KINDS: dict[type, Kind] = {Send: "message", Edit: "edit", Delete: "delete", AddMembers: "joined", RemoveMember: "left"}


@dataclass(frozen=True, slots=True)
class Recall:
    """A refusal that is held back: whose key, what it would have become, and who waits."""

    conversation: str
    kind: Kind
    sender_id: int
    key: str
    origin: Origin
    otherwise: Failure
    since_ms: int

    @property
    def named(self) -> tuple[int, str]:
        return self.sender_id, self.key


class Recalls:
    """The refusals of one host that are held back."""

    __slots__ = ("_asking", "_backoff", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[Recall] = []
        self._asking: list[Recall] = []
        self._backoff = Backoff()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._asking)

    def hold(self, conversation: str, command: LinkCommand, origin: Origin, failure: Failure, now_ms: int) -> bool:
        """Hold this refusal back; False if it need not be, or cannot because `MAX_RECALLS` are held already."""
        kind = _KINDS.get(type(command))
        if kind is None or failure.code not in CHANGEABLE or len(self) >= MAX_RECALLS:
            return False
        assert isinstance(command, Send | Edit | Delete | AddMembers | RemoveMember)
        sender_id = command.sender_id if isinstance(command, Send) else command.by
        self._waiting.append(Recall(conversation, kind, sender_id, command.key, origin, failure, now_ms))
        return True

    def next_recall(self, now_ms: int) -> list[tuple[int, str]] | None:
        """``(sender id, key)`` to ask the log about now; None while a question is under way, or none is due."""
        if self._asking or not self._waiting or now_ms < self._backoff.ready_at_ms:
            return None
        self._asking, self._waiting = self._waiting[:MAX_ASKED], self._waiting[MAX_ASKED:]
        return sorted({recall.named for recall in self._asking})

    def recalled(self) -> list[Recall]:
        """The log has answered; returns what it was asked about."""
        self._backoff.succeeded()
        asked, self._asking = self._asking, []
        return asked

    def failed(self, now_ms: int) -> None:
        """The log did not answer; the same is asked again when it is due."""
        self._backoff.failed(now_ms)
        self._waiting = self._asking + self._waiting
        self._asking = []

    def give_up(self, limit_ms: int) -> list[Recall]:
        """Take out what has waited since ``limit_ms`` or before for a log that does not answer."""
        given_up = [recall for recall in self._waiting if recall.since_ms <= limit_ms]
        self._waiting = [recall for recall in self._waiting if recall.since_ms > limit_ms]
        return given_up

    def retry_at_ms(self) -> int | None:
        """When `next_recall` may have something that it does not have now."""
        return None if self._asking or not self._waiting else self._backoff.ready_at_ms

    def oldest_ms(self) -> int | None:
        """Since when the longest held of those that can be given up is held."""
        return self._waiting[0].since_ms if self._waiting else None
