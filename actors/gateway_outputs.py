"""What a gateway wants done, in the order in which it says so."""

from __future__ import annotations

from collections.abc import Collection
from typing import Generic, TypeVar

import msgspec

from actors.commands import Envelope
from actors.effects import Failure

S = TypeVar("S")
"""A socket's handle."""


class Submit(msgspec.Struct, frozen=True, gc=False):
    """Send this envelope to whoever owns its name; if it cannot be queued, say so with `Gateway.refused`."""

    envelope: Envelope


class LoadSubscriptions(msgspec.Struct, frozen=True, gc=False):
    """Read this user's memberships, and say so with `Gateway.subscriptions_loaded` (or ``.._failed``)."""

    user_id: int


class Ready(msgspec.Struct, Generic[S], frozen=True, gc=False):
    """Greet the socket with ``session.ready``: ``(conversation, seq, unread)`` of each, by their internal names."""

    socket: S
    conversations: list[tuple[str, int, int]]


class Write(msgspec.Struct, Generic[S], frozen=True, gc=False):
    """Write the text frame to each of the sockets. The collection does not change later.

    What is ``ephemeral`` a socket that is slow does not get.
    """

    sockets: Collection[S]
    payload: bytes
    ephemeral: bool = False


class ReadPage(msgspec.Struct, frozen=True, gc=False):
    """Read what follows ``since`` in the log, up to ``upto``, and say so: `Gateway.page_read` or ``page_failed``."""

    conversation: str
    since: int
    upto: int


class Feed(msgspec.Struct, Generic[S], frozen=True, gc=False):
    """Write the text frames to the socket as fast as it takes them, and say so with `Gateway.fed`."""

    socket: S
    payloads: list[bytes]


class Resumed(msgspec.Struct, Generic[S], frozen=True, gc=False):
    """The socket has been shown all that its resume was about: tell it with ``session.resumed``."""

    socket: S
    context: object
    reached: dict[str, int]
    """Where its streams stand."""
    oldest: dict[str, int]
    """What was not replayed, and the first number that would have been."""
    left: list[str]
    """What is not the user's (any more)."""


class Answered(msgspec.Struct, frozen=True, gc=False):
    """The request with this context was answered: JSON."""

    context: object
    payload: bytes


class Refused(msgspec.Struct, frozen=True, gc=False):
    """The request with this context came to nothing."""

    context: object
    failure: Failure


class Decline(msgspec.Struct, Generic[S], frozen=True, gc=False):
    """What the socket has said with ``event``, and waits for no answer to, was refused: tell it."""

    socket: S
    event: str
    failure: Failure


class Close(msgspec.Struct, Generic[S], frozen=True, gc=False):
    """Close the socket with this code."""

    socket: S
    code: int


Output = (
    Submit
    | LoadSubscriptions
    | Ready[S]
    | Write[S]
    | ReadPage
    | Feed[S]
    | Resumed[S]
    | Answered
    | Refused
    | Decline[S]
    | Close[S]
)
