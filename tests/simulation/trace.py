"""What a history tells of itself: lines, and those of them that concern one violation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_CONVERSATION = re.compile(r"\b(?:room:\d+|dm:\d+:\d+)")
_WHO = re.compile(r"\bu(\d+)(?:s\d+|m\d+|a\d+)\b|\buser (\d+)\b|\buser:(\d+)\b")


class Line(NamedTuple):
    """What happened, milliseconds since the start, and which conversations and users (``user 3``) it is about."""

    at_ms: int
    text: str
    about: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.at_ms:>8} ms  {self.text}"


def subjects(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """The conversations and the users that a text names."""
    users = {f"user {one or other or third}" for one, other, third in _WHO.findall(text)}
    return frozenset(_CONVERSATION.findall(text)), frozenset(users)


def concerning(lines: Sequence[Line], violation: str) -> list[Line]:
    """The lines about what the violation names, and those about everybody.

    Where it names a conversation, a line about another one is left out; where it names users, one about others is.
    """
    conversations, users = subjects(violation)
    kept = []
    for line in lines:
        said = set(line.about)
        about_conversations = {name for name in said if not name.startswith("user ")}
        about_users = said - about_conversations
        if conversations and about_conversations and conversations.isdisjoint(about_conversations):
            continue
        if users and about_users and users.isdisjoint(about_users):
            continue
        kept.append(line)
    return kept
