"""The small port through which services and sockets reach the actors; `actors.runtime` implements it."""

from __future__ import annotations

from typing import Protocol

from actors.commands import LinkCommand


class Actors(Protocol):
    """The actors, by name."""

    async def ask(self, name: str, command: LinkCommand) -> bytes:
        """Hand over the command and wait for its answer, JSON.

        Raises:
            FastSockError: what the actor answered instead; ``overloaded``, ``storage_unavailable`` or
                ``actor_unavailable`` (after `REQUEST_TIMEOUT_MS`) where it could not.

        """
        ...

    def tell(self, name: str, command: LinkCommand) -> None:
        """Hand over the command, at least once; nobody waits for what becomes of it."""
        ...

    async def lease_id(self) -> int:
        """A fresh id for a log entry, unique for ever."""
        ...
