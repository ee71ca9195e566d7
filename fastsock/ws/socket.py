"""One authenticated socket, as the gateway's shell and all that belongs to it know it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from fastsock.ws.connection import Connection
from fastsock.ws.session import Session


@dataclass(slots=True, eq=False)
class Socket:
    """One authenticated socket."""

    connection: Connection
    session: Session
    connection_id: str
    user_id: int
    expires_at_ms: int
    """When its token ends, milliseconds since 1970 UTC."""
    opened_ms: int
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when ``session.ready`` was written, or when that will not happen any more."""
    silent: bool = True
    """Whether it has said nothing yet."""
