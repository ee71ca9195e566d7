"""Where each conversation stands, and what has to be resumed. Pure.

The rule: an entry is applied if it is the next one; what came before is dropped; what comes after a gap is dropped
too, and the conversation is resumed from the last entry that was applied. The server replays everything from there, so
nothing that was dropped is lost, and nothing is applied twice.

A conversation without a position begins with the first entry that comes. But during a socket's first resume, which
brings every new conversation from the entry that made this user a member, it begins with exactly that one: a live
entry may have overtaken it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from itertools import islice
from typing import NamedTuple

from fastsock.client.wire import SessionResumed

Moves = Mapping[str, int | None]
"""Positions after an event: the last ``seq``, or None where the conversation has none any more."""


class Verdict(Enum):
    """What to do with an entry."""

    APPLY = "apply"
    DROP = "drop"


class Asked(NamedTuple):
    """A resume that is under way."""

    names: Mapping[str, int]
    """From which entry on, each."""
    first: bool
    """The first of this socket: it is about all conversations, named or not."""


class Lost(NamedTuple):
    """A conversation that has to be reloaded, and after which entry it goes on."""

    conversation: str
    oldest: int | None
    seq: int | None


class Streams:
    """The positions of one client; ``positions`` None: it has never been connected, and replays nothing."""

    def __init__(self, positions: Mapping[str, int] | None) -> None:
        self.positions: dict[str, int] = dict(positions or {})
        self.asked: Asked | None = None
        self._new = positions is None
        self._first_due = False
        self._behind: dict[str, None] = {}
        self._heads: dict[str, int] = {}
        self._ended: dict[str, int] = {}
        """Conversations that this user has left on this socket, by which entry."""
        self._returned: dict[str, int] = {}
        """Entries that made this user a member again, and came before what precedes them."""
        self._seen: dict[str, int] = {}
        """The highest entry that has come on this socket, applied or dropped."""

    # --- the connection ------------------------------------------------------------------------------------------

    def greeted(self, heads: Mapping[str, int]) -> bool:
        """A new socket is ready, and conversations stand at ``heads``; whether there is something to resume."""
        self.asked = None
        self._ended.clear()
        self._returned.clear()
        self._seen.clear()
        self._behind.clear()
        self._heads = dict(heads)
        if self._new:
            self._new = False
            self.positions = dict(heads)
            return False
        self._first_due = True
        self._behind = dict.fromkeys(self.positions)
        return True

    def lost(self) -> None:
        """The socket is gone, with whatever was asked."""
        self.asked = None
        self._behind.clear()
        self._first_due = False

    # --- entries -------------------------------------------------------------------------------------------------

    def place(self, name: str, seq: int, *, starts: bool) -> Verdict:
        """Judge an entry, without applying it; ``starts``: it makes this user a member."""
        last = self.positions.get(name)
        seen = self._seen.get(name, 0)
        self._seen[name] = max(seq, seen)
        if last is None:
            early = not starts and (self._first_open or seq <= seen)
            return Verdict.DROP if early or seq <= self._ended.get(name, 0) else Verdict.APPLY
        if seq == last + 1:
            return Verdict.APPLY
        if seq > last + 1:
            if starts:
                self._returned[name] = seq
            if not self._covered(name):
                self._behind[name] = None
        return Verdict.DROP

    def applied(self, name: str, seq: int, *, ends: bool) -> Moves:
        """The entry was applied; ``ends``: it ends this user's membership."""
        if ends:
            self.positions.pop(name, None)
            self._behind.pop(name, None)
            self._ended[name] = seq
            return {name: None}
        self.positions[name] = seq
        self._ended.pop(name, None)
        return {name: seq}

    def replaying(self, name: str) -> bool:
        """Whether the resume under way is about this conversation."""
        return self.asked is not None and (self.asked.first or name in self.asked.names)

    def _covered(self, name: str) -> bool:
        """Whether a resume that is due or under way brings what is missing here."""
        return self._first_due or (self.asked is not None and name in self.asked.names)

    # --- resuming ------------------------------------------------------------------------------------------------

    @property
    def left_over(self) -> bool:
        """Whether some conversations had no place in the resume under way."""
        return self.asked is not None and self.asked.first and bool(self._behind)

    @property
    def wanting(self) -> bool:
        """Whether `ask` has something to ask for, and may."""
        return self.asked is None and (self._first_due or bool(self._behind))

    def ask(self, limit: int) -> dict[str, int]:
        """Begin a resume of at most ``limit`` conversations: its ``conversations``. What is left over comes later."""
        assert self.wanting, "there is something to ask for"
        names = {name: self.positions[name] for name in islice(self._behind, limit)}
        self.asked = Asked(names, self._first_due)
        self._first_due = False
        for name in names:
            del self._behind[name]
        return names

    def postponed(self) -> None:
        """The resume was refused for now: ask again later."""
        if self.asked is not None:
            self._first_due = self.asked.first
            self._behind = {**dict.fromkeys(self.asked.names.keys() & self.positions.keys()), **self._behind}
            self.asked = None

    def refused(self) -> list[Lost]:
        """There will be no resume: reload, and go on with what comes next."""
        first = self._first_open
        names = [*(self.asked.names if self.asked is not None else ()), *self._behind]
        if first:
            names += sorted(self._heads.keys() - self.positions.keys() - self._ended.keys())
        self.asked = None
        self._first_due = False
        self._behind.clear()
        lost = [name for name in dict.fromkeys(names) if not first or self.positions.get(name) != self._heads.get(name)]
        for name in lost:
            self.positions.pop(name, None)
        return [Lost(name, None, None) for name in lost]

    @property
    def _first_open(self) -> bool:
        """Whether the first resume of this socket is due or under way."""
        return self._first_due or (self.asked is not None and self.asked.first)

    def resumed(self, answer: SessionResumed) -> tuple[list[Lost], list[str]]:
        """The resume is over: what has to be reloaded, and which conversations this user has left."""
        asked, self.asked = self.asked, None
        named = {} if asked is None else asked.names
        lost: list[Lost] = []
        for name, oldest in answer.oldest.items():
            if name in self._behind and name not in named:
                continue  # it was left over, so the server took it for a new one; its own turn comes
            seq = answer.conversations.get(name)
            self._stand(name, seq)
            lost.append(Lost(name, oldest, seq))
        for name, seq in answer.conversations.items():
            last = self.positions.get(name)
            if name in answer.oldest or name in self._ended:
                continue
            if last is None:
                self._stand(name, seq)
                if seq:
                    lost.append(Lost(name, None, seq))
            elif last < seq:
                if name in named and self._returned.get(name, 0) > last:  # nothing there is ours up to our return
                    self._stand(name, self._returned[name] - 1)
                    lost.append(Lost(name, None, self._returned[name] - 1))
                self._behind[name] = None
        left = [name for name in answer.left if self.positions.get(name) == named.get(name, -1)]
        for name in left:
            self._leave(name)
        self._returned.clear()
        return lost, left

    def _leave(self, name: str) -> None:
        back = self._returned.get(name)
        if back is None:
            self._ended[name] = self._seen.get(name, 0)
            self._stand(name, None)
        else:
            self._stand(name, back - 1)
            self._behind[name] = None

    def _stand(self, name: str, seq: int | None) -> None:
        self._behind.pop(name, None)
        if seq is None:
            self.positions.pop(name, None)
        else:
            self.positions[name] = seq
