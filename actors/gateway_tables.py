"""What a gateway knows: its sockets' seats, their users, the conversations that are attached, the open questions.

Data, and the small rules that belong to one row; `actors.gateway` is the machine that works on them, and its docstring
says what the fields of `Seat` and `Topic` are for.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from actors.commands import Envelope
from actors.effects import Frame

S = TypeVar("S")
"""A socket's handle."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a resume has decided: who asked, about which conversations, and what is not replayed."""

    context: object
    concerned: list[str]
    oldest: dict[str, int]
    left: list[str]


@dataclass(slots=True, eq=False)
class Replay:
    """What a socket that is behind is still to be shown; `actors.replays` works on it."""

    held: bool = False
    """Whether it is not shown anything yet, and is behind in whatever it joins."""
    wanted: dict[str, None] = field(default_factory=dict)
    """The conversations in which it is behind, in the order in which they are replayed."""
    ends: dict[str, int] = field(default_factory=dict)
    """The last entry to be shown, where the membership is over."""
    busy: bool = False
    """Whether a page for it is being read, or fed to it."""
    resuming: bool = False
    """Whether a resume was asked for."""
    outcome: Outcome | None = None
    """What the resume has decided; None while what it needs to know is being read."""


@dataclass(slots=True, eq=False)
class Seat(Generic[S]):
    """A socket's place. Until it is ready it is shown nothing, and what concerns it is noted here."""

    socket: S
    connection_id: str
    user_id: int
    ready: bool = False
    topics: set[str] = field(default_factory=set)
    joined: dict[str, int] = field(default_factory=dict)
    """While loading: conversations that the user was let into, and the number before that entry."""
    left: dict[str, int] = field(default_factory=dict)
    """Up to which entry a conversation is over for this socket: the user's leaving was seen, or is known from the load.

    Whoever was let in before that, by an invitation or by an entry that comes late, has gone since.
    """

    replay: Replay | None = None
    """None for a socket that goes on with everybody."""
    resumed: bool = False
    """Whether the socket has resumed before."""

    def is_over(self, name: str, seq: int) -> bool:
        """Whether entry ``seq`` belongs to a membership that has ended."""
        return seq <= self.left.get(name, 0)


@dataclass(slots=True, eq=False)
class User(Generic[S]):
    """A user with sockets here, or who had some a moment ago."""

    user_id: int
    seats: dict[S, Seat[S]] = field(default_factory=dict)
    attached: bool = False
    attaching: int = 0
    """The request by which the user's topic is being attached; 0 for none."""
    loading: list[Seat[S]] | None = None
    """The seats for which a load is under way."""
    reload: bool = False
    """Whether to load once more when that is over: a seat came later, or the topic was attached anew."""
    retry_at_ms: int | None = None
    linger_until_ms: int | None = None


@dataclass(slots=True, eq=False)
class Topic(Generic[S]):
    """A conversation that is attached here. ``sockets`` is replaced, not changed, once a `Write` has handed it out."""

    name: str
    start: int
    """The number after which this gateway has seen the log."""
    last_seq: int
    """The number of the last entry passed on."""
    sockets: dict[S, None] = field(default_factory=dict)
    shared: bool = False
    held: dict[int, Frame] = field(default_factory=dict)
    behind: dict[S, int] = field(default_factory=dict)
    """Sockets that are shown the log by themselves, and the last number that each was shown."""
    ahead: dict[Seat[S], int] = field(default_factory=dict)
    """Those of them that have seen more, elsewhere, than was passed on here."""
    floors: dict[S, int] = field(default_factory=dict)
    """While rewound: what each socket has seen already; one that is behind, up to where its membership is known."""
    until: int = 0
    """While rewound: the highest of the floors; 0 otherwise."""
    rewound_for: set[int] = field(default_factory=set)
    """While rewound: the users whose memberships are followed."""
    awaits: dict[int, int] = field(default_factory=dict)
    """Users whom an entry still to come lets in, and the number before it: the topic must not go before that."""
    asked_ms: int | None = None
    """Since when a catch-up is awaited; None if none is."""
    asked_seq: int = -1
    claimed: int = 0
    """The highest number that a page of the log said there is, or may be; 0 once that was looked at."""
    retry_at_ms: int | None = None
    linger_until_ms: int | None = None

    def add(self, socket: S) -> None:
        self._own()
        self.sockets[socket] = None
        self.linger_until_ms = None

    def discard(self, socket: S) -> None:
        if socket in self.sockets:
            self._own()
            del self.sockets[socket]
            self.floors.pop(socket, None)

    @property
    def reached(self) -> int:
        """The number of the newest entry ever passed on."""
        return max(self.last_seq, self.until)

    def has_passed(self, seq: int) -> bool:
        """Whether entry ``seq`` was passed on here, so that whomever it let in has joined, or has left since."""
        return self.start < seq <= self.reached

    def rewind(self, user_id: int, since: int) -> None:
        """Pass on again what follows ``since``, to the sockets that this user gets by it."""
        self.rewound_for.add(user_id)
        if since < self.last_seq:
            for socket in (*self.sockets, *self.behind):
                self.floors[socket] = max(self.floors.get(socket, 0), self.last_seq)
            self.until = max(self.until, self.last_seq)
            self.last_seq = since
            self.asked_ms = None  # what waits to be tried again attaches first, and still does

    def follows(self, seat: Seat[S], seq: int) -> bool:
        """Whether what entry ``seq`` says of this seat's user is to be done now: always, but for a rewound topic."""
        if seq > self.until:
            return True
        return seat.user_id in self.rewound_for and self.floors.get(seat.socket, 0) < seq

    def audience(self, seq: int) -> Collection[S]:
        """The sockets that have not seen entry ``seq``."""
        if seq <= self.until:
            return [socket for socket in self.sockets if self.floors.get(socket, 0) < seq]
        self.shared = True
        return self.sockets.keys()

    def passed(self, seq: int) -> None:
        """Entry ``seq`` has been passed on."""
        self.last_seq = seq
        self.held.pop(seq, None)
        if self.awaits:
            self.awaits = {user: since for user, since in self.awaits.items() if since >= seq}
        if seq >= self.until:
            self.until = 0
            self.floors.clear()
            self.rewound_for.clear()

    def _own(self) -> None:
        if self.shared:
            self.sockets = dict(self.sockets)
            self.shared = False


@dataclass(frozen=True, slots=True)
class Pending:
    """A request without an answer. ``context`` is the caller's, or the `User` whose topic it attaches."""

    envelope: Envelope
    context: object
    deadline_ms: int
