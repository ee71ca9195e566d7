"""What the core wants done; `Client` does it, or a test."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastsock.client import events
from fastsock.client.errors import Refused, Stopped
from fastsock.client.streams import Moves


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a socket, then call `Core.connected`; if it cannot be done, `Core.closed` with 1006.

    ``fresh_token``: the last token was refused, so get another first.
    """

    fresh_token: bool


@dataclass(frozen=True, slots=True)
class Send:
    """Write this text frame, UTF-8, to the socket."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Emit:
    """Hand the event to the program. ``moves`` are the positions that are reached when it has it."""

    event: events.Event
    moves: Moves = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resolve:
    """The message is committed."""

    client_msg_id: str
    ack: events.Ack


@dataclass(frozen=True, slots=True)
class Reject:
    """The message is refused for good."""

    client_msg_id: str
    error: Refused


@dataclass(frozen=True, slots=True)
class RenewToken:
    """Get a fresh token, then call `Core.token_renewed`."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the socket with this code; then, as always, call `Core.closed`."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Do nothing any more; this error is for everybody who waits."""

    error: Stopped


Action = Connect | Send | Emit | Resolve | Reject | RenewToken | Disconnect | Stop
