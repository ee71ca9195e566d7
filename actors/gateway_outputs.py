"""What a gateway wants done, in the order in which it says so."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

from actors.commands import Envelope
from actors.effects import Failure

S = TypeVar("S")
"""A socket's handle."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Send this envelope to whoever owns its name; if it cannot be queued, say so with `Gateway.refused`."""

    envelope: Envelope


@dataclass(frozen=True, slots=True)
class LoadSubscriptions:
    """Read this user's memberships, and say so with `Gateway.subscriptions_loaded` (or ``.._failed``)."""

    user_id: int


@dataclass(frozen=True, slots=True)
class Ready(Generic[S]):
    """Greet the socket with ``session.ready``: ``(conversation, seq, unread)`` of each, by their internal names."""

    socket: S
    conversations: list[tuple[str, int, int]]


@dataclass(frozen=True, slots=True)
class Write(Generic[S]):
    """Write the text frame to each of the sockets. The collection does not change later."""

    sockets: Collection[S]
    payload: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """The request with this context was answered: JSON."""

    context: object
    payload: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """The request with this context came to nothing."""

    context: object
    failure: Failure


@dataclass(frozen=True, slots=True)
class Close(Generic[S]):
    """Close the socket with this code."""

    socket: S
    code: int


Output = Submit | LoadSubscriptions | Ready[S] | Write[S] | Answered | Refused | Close[S]
