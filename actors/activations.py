"""The activation table of a host: which actors are in memory, and what waits for those that are not yet.

A name is activated by its first command, and passivated when it has been idle. A user is made at once; a conversation
has to be loaded, and what comes meanwhile waits in its mailbox. Loads are coalesced: while one read of the database is
under way the names that are wanted gather, and the next read takes all of them.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from actors.commands import LinkCommand, Origin, Typing
from actors.link import Backoff
from actors.presence import Presence
from actors.room import Room
from fastsock.core.limits import (
    MAX_ACTIVATIONS,
    MAX_CONNECTIONS_PER_USER,
    MAX_MAILBOX,
    PASSIVATE_AFTER_MS,
    STORAGE_PATIENCE_MS,
)
from fastsock.schemas import names

MAX_LOAD = 1_000
"""Names of one coalesced read."""
EVICT_SEARCH = 64
"""Activations looked at, from the idlest, to make room for a new one."""


@dataclass(slots=True)
class Mail:
    """A command that waits for its actor."""

    command: LinkCommand
    origin: Origin | None
    since_ms: int


@dataclass(slots=True)
class Activation:
    """An actor in memory, or on its way there (``actor`` is None, and ``mailbox`` holds what waits)."""

    name: str
    actor: Room | Presence | None
    used_ms: int
    mailbox: deque[Mail] = field(default_factory=deque)
    whispered: tuple[Typing, str] | None = None
    """What is ephemeral does not wait, but for the last of it while the actor is loaded, and the gateway it came from.

    Without that, nobody would see the first words of a conversation being typed, or the first for a while.
    """

    @property
    def idle(self) -> bool:
        return self.actor is not None and self.actor.idle


class Activations:
    """The table, in the order of last use."""

    __slots__ = ("_backoff", "_loading", "_sockets_per_user", "_table", "_wanted")

    def __init__(self, sockets_per_user: int = MAX_CONNECTIONS_PER_USER) -> None:
        self._sockets_per_user = sockets_per_user
        self._table: OrderedDict[str, Activation] = OrderedDict()
        self._wanted: dict[str, None] = {}
        self._loading: list[str] = []
        self._backoff = Backoff()

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Activation]:
        return iter(list(self._table.values()))

    def get(self, name: str) -> Activation | None:
        return self._table.get(name)

    def use(self, name: str, now_ms: int) -> Activation | None:
        """The activation of this name, made if need be; None if there are too many and none is idle.

        Raises:
            ValueError: not a name; the text says why.

        """
        activation = self._table.get(name)
        if activation is None:
            kind = names.parse(name).kind
            if len(self._table) >= MAX_ACTIVATIONS and not self._evict(now_ms):
                return None
            actor = Presence(name, self._sockets_per_user) if kind == "user" else None
            activation = self._table[name] = Activation(name, actor, now_ms)
            if actor is None:
                self._wanted[name] = None
        self._keep(name, now_ms)
        return activation

    def use_if_free(self, name: str, now_ms: int) -> Activation | None:
        """As `use`, on behalf of what nobody misses: None if another would have to go, or the database seems away.

        Nothing is activated for it until `STORAGE_PATIENCE_MS` after a read that failed. Since no mail waits for such a
        load, `give_up` forgets it unless it is under way.

        Raises:
            ValueError: as `use`.

        """
        if name not in self._table:
            failed_at_ms = self._backoff.ready_at_ms
            away = failed_at_ms > 0 and now_ms < failed_at_ms + STORAGE_PATIENCE_MS
            if away or len(self._table) >= MAX_ACTIVATIONS:
                return None
        return self.use(name, now_ms)

    def _evict(self, now_ms: int) -> bool:
        """Make room; what is looked at in vain goes to the end, so that the next search looks at others."""
        for name in list(islice(self._table, EVICT_SEARCH)):
            if self._table[name].idle:
                del self._table[name]
                return True
            self._keep(name, now_ms)
        return False

    def _keep(self, name: str, now_ms: int) -> None:
        """Have an activation that is not idle looked at again as late as any other."""
        self._table[name].used_ms = now_ms
        self._table.move_to_end(name)

    @staticmethod
    def post(activation: Activation, mail: Mail) -> bool:
        """Let a command wait for its actor; False at the mailbox's bound."""
        if len(activation.mailbox) >= MAX_MAILBOX:
            return False
        activation.mailbox.append(mail)
        return True

    def reload(self, name: str, mail: list[Mail], now_ms: int) -> None:
        """Throw the actor away and load it anew; ``mail`` is handled by its successor, before what comes later.

        The mail was taken in before, so the mailbox's bound does not refuse it.
        """
        self._table[name] = Activation(name, None, now_ms, deque(mail))
        self._table.move_to_end(name)
        self._wanted[name] = None

    def drop(self, name: str) -> list[Mail]:
        """Forget the activation; returns what waited for it."""
        self._wanted.pop(name, None)
        activation = self._table.pop(name, None)
        return [] if activation is None else list(activation.mailbox)

    def next_load(self, now_ms: int) -> list[str] | None:
        """The names to read from the database now; None while a read is under way, or none is wanted or due."""
        if self._loading or not self._wanted or now_ms < self._backoff.ready_at_ms:
            return None
        self._loading = list(self._wanted)[:MAX_LOAD]
        for name in self._loading:
            del self._wanted[name]
        return self._loading

    def loaded(self) -> list[str]:
        """The read under way has answered; returns what it was about."""
        self._backoff.succeeded()
        loaded, self._loading = self._loading, []
        return loaded

    def load_failed(self, now_ms: int) -> None:
        """The read under way failed: its names are wanted again, and read when the pause is over."""
        self._backoff.failed(now_ms)
        self._wanted = dict.fromkeys(self._loading) | self._wanted
        self._loading = []

    def load_at_ms(self) -> int | None:
        """When `next_load` may have something that it does not have now."""
        return None if self._loading or not self._wanted else self._backoff.ready_at_ms

    def give_up(self, limit_ms: int) -> list[Mail]:
        """Take out the mail that has waited since ``limit_ms`` or before for actors that cannot be loaded.

        An activation for which nothing waits any more is forgotten, unless it is being read.
        """
        given_up: list[Mail] = []
        for name in (*self._wanted, *self._loading):
            activation = self._table[name]
            while activation.mailbox and activation.mailbox[0].since_ms <= limit_ms:
                given_up.append(activation.mailbox.popleft())
            if not activation.mailbox and name in self._wanted:
                self.drop(name)
        return given_up

    def oldest_ms(self) -> int | None:
        """Since when the longest waiting mail waits; None if none does."""
        mailboxes = (self._table[name].mailbox for name in (*self._wanted, *self._loading))
        return min((mailbox[0].since_ms for mailbox in mailboxes if mailbox), default=None)

    def passivate(self, now_ms: int) -> list[str]:
        """Forget the actors that have been idle for `PASSIVATE_AFTER_MS`; returns their names.

        What is not idle but long unused (a user with a quiet socket) goes to the end of the order.
        """
        gone: list[str] = []
        for activation in list(self._table.values()):
            if activation.used_ms > now_ms - PASSIVATE_AFTER_MS:
                break
            if activation.idle:
                del self._table[activation.name]
                gone.append(activation.name)
            else:
                self._keep(activation.name, now_ms)
        return gone

    def passivate_at_ms(self) -> int | None:
        """When `passivate` may next find something."""
        first = next(iter(self._table.values()), None)
        return None if first is None else first.used_ms + PASSIVATE_AFTER_MS
