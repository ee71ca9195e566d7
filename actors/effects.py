"""What must happen: effects of actors, and the deliveries that hosts send down to gateways.

An actor returns effects in the order in which they shall happen; it never waits and never sees them happen. What a
`Persist` leads to comes back as `Committed`, and only then does the actor ask for the `FanOut` and the `Reply`:
nothing is shown before it is committed.
"""

from __future__ import annotations

import msgspec

from actors.commands import LinkCommand
from fastsock.schemas.log import Entry


class Failure(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An error on its way to a client; `fastsock.core.errors.error_of` makes the exception of it."""

    code: str
    message: str
    retry_after_ms: int | None = None


# --- effects -----------------------------------------------------------------------------------------------------


class Persist(msgspec.Struct, frozen=True, gc=False):
    """Append the entry to this conversation's log; the host gives it an id, the log a number."""

    entry: Entry


class FanOut(msgspec.Struct, frozen=True, gc=False):
    """Show a committed entry to every gateway that is attached to this conversation."""

    entry: Entry


class Whisper(msgspec.Struct, frozen=True, gc=False):
    """Show this text frame to the conversation's gateways for everybody but ``sender_id``, where nothing else waits."""

    payload: bytes
    sender_id: int


class Tell(msgspec.Struct, frozen=True, gc=False):
    """Hand a command to another actor, wherever it lives; at least once, in order, unless its host stays away."""

    to: str
    command: LinkCommand


class Summon(msgspec.Struct, frozen=True, gc=False):
    """Invite the gateways that hold this user's sockets to attach ``conversation`` after ``since``."""

    conversation: str
    since: int


class Reply(msgspec.Struct, frozen=True, gc=False):
    """Answer the request: ``payload`` is JSON."""

    payload: bytes


class Fail(msgspec.Struct, frozen=True, gc=False):
    """Answer the request with an error."""

    failure: Failure


class SetTimer(msgspec.Struct, frozen=True, gc=False):
    """Hand this actor a `TimerFired` with ``tag`` at ``at_ms``; setting a tag again moves it, None cancels it."""

    tag: str
    at_ms: int | None


class Cut(msgspec.Struct, frozen=True, gc=False):
    """Close one socket, on whichever gateway it is."""

    gateway: str
    connection_id: str
    close_code: int


Effect = Persist | FanOut | Whisper | Tell | Summon | Reply | Fail | SetTimer | Cut

# --- deliveries: host to gateway ---------------------------------------------------------------------------------


class Frame(msgspec.Struct, frozen=True, array_like=True, tag="f", gc=False):
    """A committed entry as the text frame that each subscribed socket gets.

    ``subscribe`` and ``unsubscribe`` are user ids: their sockets join the topic before this frame, or leave it after,
    so that who is shown what follows the log itself.
    """

    topic: str
    seq: int
    payload: bytes
    subscribe: tuple[int, ...] = ()
    unsubscribe: tuple[int, ...] = ()
    amends: bool = False
    """Whether it changes what was shown before: an edit or a delete."""


class Ephemeral(msgspec.Struct, frozen=True, array_like=True, tag="e", gc=False):
    """A text frame that is no entry of the log: for the topic's sockets, but those of its sender. Nobody misses it."""

    topic: str
    payload: bytes
    sender_id: int


class CaughtUp(msgspec.Struct, frozen=True, array_like=True, tag="c", gc=False):
    """The catch-up of ``topic`` has sent a page. The log reaches ``head``; after a full page it may, so ask again."""

    topic: str
    head: int


class Invite(msgspec.Struct, frozen=True, array_like=True, tag="i", gc=False):
    """`Attend`, at the gateway: user ``user_id`` belongs to ``conversation`` since the entry after ``since``."""

    user_id: int
    conversation: str
    since: int


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="a", gc=False):
    """The answer to a request: JSON."""

    request: int
    payload: bytes


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="x", gc=False):
    """The answer to a request that came to nothing."""

    request: int
    failure: Failure


class Declined(msgspec.Struct, frozen=True, array_like=True, tag="d", gc=False):
    """What this socket has said with ``event``, and waits for no answer to, was refused."""

    connection_id: str
    event: str
    failure: Failure


class CutSocket(msgspec.Struct, frozen=True, array_like=True, tag="k", gc=False):
    """Close that socket."""

    connection_id: str
    close_code: int


Delivery = Frame | Ephemeral | CaughtUp | Invite | Answer | Failed | Declined | CutSocket
