"""What comes in: commands to actors, and the envelope in which they travel.

Commands are imperative and small; they cross processes as msgpack arrays, so fields may be added at the end with a
default and never reordered. ``key`` names one attempt of one sender for ever (see `fastsock.schemas.log`): every
command that is logged may be repeated by any link after any crash, and takes effect once.
"""

from __future__ import annotations

import msgspec

from fastsock.schemas.log import Entry, Outcome, Target


class Send(msgspec.Struct, frozen=True, array_like=True, tag="send", gc=False):
    """A message from ``sender_id`` to the conversation."""

    sender_id: int
    key: str
    content: str
    message_type: str = "text"
    reply_to: int | None = None


class Edit(msgspec.Struct, frozen=True, array_like=True, tag="edit", gc=False):
    """``by`` changes the text of ``target``."""

    by: int
    key: str
    target: Target
    content: str


class Delete(msgspec.Struct, frozen=True, array_like=True, tag="delete", gc=False):
    """``by`` removes the text of ``target``; a tombstone stays."""

    by: int
    key: str
    target: Target


class AddMembers(msgspec.Struct, frozen=True, array_like=True, tag="add", gc=False):
    """``by`` adds users, all of whom exist, as plain members."""

    by: int
    key: str
    user_ids: list[int]


class RemoveMember(msgspec.Struct, frozen=True, array_like=True, tag="remove", gc=False):
    """``by`` removes a member, or leaves where ``user_id`` is ``by``."""

    by: int
    key: str
    user_id: int


class Typing(msgspec.Struct, frozen=True, array_like=True, tag="typing", gc=False):
    """``sender_id`` is typing, or no longer is. Ephemeral: dropped wherever much waits, and never stored.

    Nobody waits for an answer; a refusal goes to the socket that said it, ``connection_id``.
    """

    sender_id: int
    on: bool
    connection_id: str

    @property
    def event(self) -> str:
        """The event that it was, and that others are shown."""
        return "typing.start" if self.on else "typing.stop"


class Connect(msgspec.Struct, frozen=True, array_like=True, tag="connect", gc=False):
    """To ``user:ID``: a socket of this user was accepted by the gateway that sends this."""

    connection_id: str


class Disconnect(msgspec.Struct, frozen=True, array_like=True, tag="disconnect", gc=False):
    """To ``user:ID``: that socket has ended. Late or repeated, it changes nothing else."""

    connection_id: str


class Describe(msgspec.Struct, frozen=True, array_like=True, tag="describe", gc=False):
    """Answer with the actor's state, for people."""


class Attend(msgspec.Struct, frozen=True, array_like=True, tag="attend", gc=False):
    """To ``user:ID``: the gateways that hold this user's sockets shall attach ``conversation`` after ``since``."""

    conversation: str
    since: int


class Attach(msgspec.Struct, frozen=True, array_like=True, tag="attach", gc=False):
    """To the host: publish this topic to the gateway that sends this, for a conversation everything after ``since``."""

    since: int = 0


class Detach(msgspec.Struct, frozen=True, array_like=True, tag="detach", gc=False):
    """To the host: no longer."""


class CatchUp(msgspec.Struct, frozen=True, array_like=True, tag="catch_up", gc=False):
    """To the host: read what follows ``since`` from the log once more; the gateway has seen a gap."""

    since: int


class Committed(msgspec.Struct, frozen=True, array_like=True, tag="committed", gc=False):
    """From the host to the conversation that asked for ``entry`` to be persisted: what became of it.

    Never crosses a link. ``outcome`` is not `Fenced`: a fenced activation is thrown away, and what it had not committed
    is handled anew by the next.
    """

    entry: Entry
    outcome: Outcome


class GatewayGone(msgspec.Struct, frozen=True, array_like=True, tag="gateway_gone", gc=False):
    """From the host to its users: that gateway is no more, and with it the sockets it held."""

    gateway: str


class TimerFired(msgspec.Struct, frozen=True, array_like=True, tag="timer", gc=False):
    """From the host: the time set by `SetTimer` has come."""

    tag: str


LinkCommand = (
    Send
    | Edit
    | Delete
    | AddMembers
    | RemoveMember
    | Typing
    | Connect
    | Disconnect
    | Describe
    | Attend
    | Attach
    | Detach
    | CatchUp
)
"""What may cross a link."""
Command = LinkCommand | Committed | GatewayGone | TimerFired
"""What an actor may be handed."""


class Envelope(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A command on its way. ``request`` numbers the sender's requests from 1; 0 wants no answer."""

    to: str
    request: int
    command: LinkCommand


class Origin(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who waits for the answer: a link's peer (gateway, API replica or host) and the number it gave."""

    peer: str
    request: int
