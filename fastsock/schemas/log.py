"""The conversation log: what is appended, what becomes of it, and what is read back.

A conversation is its log. Whatever changes it (message, edit, delete, membership) is one `Entry` with the next ``seq``
of that conversation, starting at 1, without holes. The database's ``UNIQUE (conversation, seq)`` is both the order and
the fence between two activations of one room; ``UNIQUE (sender_id, key)`` makes an append idempotent for ever.

An `Append` says where its entries go by naming the head they follow. The entries that are accepted get
``expected_head + 1, + 2, ...`` in order; one that is a repeat or is refused takes no number, so no hole appears.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["message", "edit", "delete", "created", "joined", "left"]
Role = Literal["owner", "admin", "member"]

CLIENT_KEY = "c:"
SERVER_KEY = "s:"
"""A key is ``c:`` and the client's ``client_msg_id``, or ``s:`` and what the server made up where there is none."""


class Entry(msgspec.Struct, gc=False, kw_only=True, omit_defaults=True):
    """One row of a conversation's log. ``seq`` is 0 until it is committed.

    A message's row also carries the message's present state: ``content`` after edits, ``edited_at_ms``, ``deleted``
    (then ``content`` is empty). The other kinds are complete in themselves, so that a replayed entry needs no join:

    ========== ========================= ====================================================================
    kind       content                   detail
    ========== ========================= ====================================================================
    message    the text                  None
    edit       the new text              `Target` of the message, as builtins
    delete     empty                     `Target` of the message, as builtins
    created    the room's name           ``{"members": {"7": "owner", "9": "member"}}``
    joined     empty                     ``{"members": {"9": "member"}}``
    left       empty                     ``{"user_ids": [9]}``; ``sender_id`` is who did it
    ========== ========================= ====================================================================
    """

    conversation: str
    kind: Kind
    sender_id: int
    key: str
    at_ms: int
    """When the conversation's actor took it, milliseconds since 1970 UTC; never less than the entry before."""
    id: int = 0
    """Unique over all conversations, 1 to 2^53 - 1; a message's is its ``message_id``. 0 until the host assigns it."""
    seq: int = 0
    content: str = ""
    message_type: str = "text"
    reply_to: int | None = None
    target_id: int | None = None
    """For an edit or a delete: the id of the message."""
    detail: dict[str, object] | None = None
    edited_at_ms: int | None = None
    deleted: bool = False

    @property
    def client_msg_id(self) -> str | None:
        """What the client called it, or None where it gave no name."""
        return self.key.removeprefix(CLIENT_KEY) if self.key.startswith(CLIENT_KEY) else None


class Target(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """A message that an edit or a delete is about: what of it never changes, so that it may be read before asking."""

    id: int
    seq: int
    sender_id: int
    at_ms: int
    message_type: str
    reply_to: int | None
    client_msg_id: str | None


class Append(msgspec.Struct, gc=False, frozen=True):
    """Entries for one conversation, to follow ``expected_head`` (0: an empty log)."""

    conversation: str
    expected_head: int
    entries: list[Entry]


class Stored(msgspec.Struct, gc=False, frozen=True, tag="s", array_like=True):
    """Committed under this number, by this append or by an earlier try of the very same entry (the same ``id``)."""

    seq: int


class Duplicate(msgspec.Struct, gc=False, frozen=True, tag="d", array_like=True):
    """The sender has used this key before; nothing was stored. ``original`` is what that first use became."""

    original: Entry


class Refused(msgspec.Struct, gc=False, frozen=True, tag="r", array_like=True):
    """The database does not take this entry; nothing of it was stored, the rest of the batch was."""

    code: str
    message: str


class Fenced(msgspec.Struct, gc=False, frozen=True, tag="f", array_like=True):
    """The conversation's head is not ``expected_head``: somebody else has written. Nothing of the append was stored."""

    head: int


Outcome = Stored | Duplicate | Refused | Fenced
"""What became of one entry. A fenced append gives `Fenced` for each of its entries."""


class ConversationState(msgspec.Struct, kw_only=True):
    """What an activation starts from.

    A room that does not exist has no state (None where states are looked up). A direct conversation exists as soon as
    both users do and are active; its ``head`` is 0 until the first message.
    """

    conversation: str
    head: int
    last_at_ms: int
    """``at_ms`` of the entry at ``head``; 0 for an empty log."""
    members: dict[int, Role]
    name: str = ""


class Marker(msgspec.Struct, gc=False, frozen=True):
    """How far a user has read, and has been sent, a conversation."""

    read_seq: int
    delivered_seq: int


class Standing(msgspec.Struct, gc=False, frozen=True):
    """How one user stands to every conversation that is theirs, as a resume needs it."""

    joined: dict[str, int]
    """The entry that made the user a member; 1 for a founder and for direct conversations."""
    heads: dict[str, int]
    """The number of the last entry; 0 for an empty log."""
    markers: dict[str, dict[int, Marker]]
    """By conversation and user: the user's own, and of the others those who have read furthest."""


class Subscription(msgspec.Struct, gc=False, frozen=True):
    """One conversation of one user, as ``session.ready`` reports it."""

    conversation: str
    head: int
    unread: int
    joined_seq: int
    """The entry that made the user a member; 1 for a founder and for direct conversations."""
