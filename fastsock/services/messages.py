"""Changing a message: its text, or that it is there at all.

What a message was sent with never changes, so it is read here without asking its conversation; whether the change is
allowed, and its place in the order, the conversation's actor decides.
"""

from __future__ import annotations

import msgspec

from actors.commands import Delete, Edit
from fastsock.core.errors import error_of
from fastsock.core.limits import MAX_CONTENT_BYTES, MAX_CONTENT_CHARS
from fastsock.db.message_log import MessageLog
from fastsock.schemas import frames
from fastsock.schemas.log import Entry
from fastsock.services.ports import Actors


class _Changed(frames.Message):
    """The data of ``message.update``: the message, with the change's number as ``seq``."""

    message_seq: int


_changed = msgspec.json.Decoder(_Changed)


class Messages:
    """Messages by their ids."""

    def __init__(self, log: MessageLog, actors: Actors) -> None:
        self._log = log
        self._actors = actors

    async def edit(self, caller: int, message_id: int, content: str, key: str) -> frames.Message:
        """Give a message another text; the message as it is then, with its own ``seq``.

        Raises:
            PolicyError: ``message_not_found``, ``not_a_member``, ``not_the_author``, ``message_deleted``.
            ProtocolError: ``content_too_long``, ``invalid_data`` where it is blank.

        """
        _check_content(content)
        entry = await self._message(message_id)
        answer = await self._actors.ask(entry.conversation, Edit(caller, key, frames.target_of(entry), content))
        return _message_of(_changed.decode(answer))

    async def delete(self, caller: int, message_id: int, key: str) -> None:
        """Take a message's text away; a tombstone stays.

        Raises:
            PolicyError: ``message_not_found``, ``not_a_member``, ``not_the_author``.

        """
        entry = await self._message(message_id)
        await self._actors.ask(entry.conversation, Delete(caller, key, frames.target_of(entry)))

    async def _message(self, message_id: int) -> Entry:
        entry = await self._log.get(message_id)
        if entry is None or entry.kind != "message":
            raise error_of("message_not_found", f"there is no message {message_id}")
        return entry


def _message_of(changed: _Changed) -> frames.Message:
    fields = {name: getattr(changed, name) for name in frames.Message.__struct_fields__}
    return frames.Message(**{**fields, "seq": changed.message_seq})


def _check_content(content: str) -> None:
    if not content or content.isspace():
        raise error_of("invalid_data", "content: must not be blank")
    size = len(content.encode())
    if len(content) > MAX_CONTENT_CHARS or size > MAX_CONTENT_BYTES:
        limit = f"at most {MAX_CONTENT_CHARS:,} characters and {MAX_CONTENT_BYTES:,} bytes"
        raise error_of(
            "content_too_long", f"content: {len(content):,} characters in {size:,} bytes; {limit} are allowed"
        )
