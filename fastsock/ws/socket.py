"""One authenticated socket, as the gateway's shell and all that belongs to it know it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastsock.ws.outbox import Outbox
from fastsock.ws.session import Session


@dataclass(slots=True, eq=False)
class Socket:
    """One authenticated socket."""

    connection: Outbox
    session: Session
    connection_id: str
    user_id: int
    expires_at_ms: int
    """When its token ends, milliseconds since 1970 UTC."""
    opened_ms: int
    on_ready: Callable[[], None] | None
    """Called when ``session.ready`` was written; None once it was."""
    silent: bool = True
    """Whether it has said nothing yet."""

    @property
    def ready(self) -> bool:
        """Whether ``session.ready`` was written."""
        return self.on_ready is None

    def greeted(self) -> None:
        """``session.ready`` was written."""
        if self.on_ready is not None:
            on_ready, self.on_ready = self.on_ready, None
            on_ready()
