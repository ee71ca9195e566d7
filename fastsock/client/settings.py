"""What bounds the client, with units and sources. The server's own bounds are in `fastsock.core.limits`."""

from __future__ import annotations

from dataclasses import dataclass

HANDSHAKE_WITHIN_S = 10.0
"""TCP, TLS and the WebSocket's upgrade; what `websockets` waits by itself."""
PING_EVERY_S = 20.0
PONG_WITHIN_S = 20.0
"""A server that is gone without a word is noticed after at most 40 s (the defaults of `websockets`)."""
CLOSE_WITHIN_S = 2.0
"""So long `Client.close` waits for the server's answer to its close frame."""
MAX_SERVER_FRAME_BYTES = 16 * 1024 * 1024
"""The largest frame is a ``session.ready`` or ``session.resumed``: some 60 bytes for each conversation of the user."""
RENEW_AGAIN_S = 5.0
"""The pause after a token could not be had, while the old one is good for another minute."""
HTTP_WITHIN_S = 30.0
"""Above `fastsock.core.limits.REQUEST_TIMEOUT_MS`, after which the server itself gives up."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a client behaves. The defaults suit a server with default limits (`fastsock.ws.session.Limits`)."""

    outbox_limit: int = 1_000
    """Messages that may wait for their ack; at the bound `Client.send` waits."""
    window: int = 50
    """Messages that may be on the wire without an answer; also the burst after a connection."""
    messages_per_s: float = 20.0
    """How fast messages are sent when the burst is used up: what the server allows."""
    events_limit: int = 10_000
    """Events that wait for the iterator; at the bound the socket is not read any more."""
    backoff_base_ms: int = 250
    backoff_cap_ms: int = 10_000
    """Full jitter: the n-th pause is uniform between 0 and min(cap, base * 2^n)."""
    long_pause_ms: int = 30_000
    """After a close with 4029 the pause is uniform between this and its double."""
    token_tries: int = 3
    """Refusals of a token in a row, each with a token that the provider called fresh, before the client stops."""
    greeting_ms: int = 45_000
    """From the open socket to ``session.ready``; the server gives up after 30 s."""
    ack_patience_ms: int = 60_000
    """A message without any answer for so long is sent again; the server answers within 20 s."""
    resume_patience_ms: int = 60_000
    """A resume during which nothing has come for so long is given up, and the socket with it."""
    resume_tries: int = 8
    """Resumes in a row that are refused or bring nothing, before the client tries another socket."""
    resume_names: int = 3_000
    """Conversations of one ``session.resume``: 40 bytes each at most, and a frame may have 131,072 bytes."""
    refresh_spread_ms: int = 10_000
    """A new token is fetched at a random time within this after ``session.expiring``: clients that came together
    after a restart must not log in together an hour later."""
