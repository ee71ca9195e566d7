"""Every limit, with its unit and its source. A number that bounds something is here or it does not exist.

What happens at a bound is part of the bound (guarantee 7 of the architecture): a retryable error to the sender, or a
cut for the slow consumer; never silent growth, never silent loss.
"""

from __future__ import annotations

# --- what a client may send -----------------------------------------------------------------------------------------

MAX_CONTENT_CHARS = 16_384
"""Characters of one message; a screen holds about 2,000, Discord allows 4,000 and Slack 40,000."""
MAX_CONTENT_BYTES = 49_152
"""The same in UTF-8, so that 16,384 characters of the Basic Multilingual Plane always fit."""
MAX_CLIENT_MSG_ID_CHARS = 128
"""A UUID has 36."""
MAX_FRAME_BYTES = 131_072
"""One WebSocket frame from a client; the largest legitimate one is an SDP offer of some 20 KB or an escaped message."""
MAX_ROOM_NAME_CHARS = 200
MAX_ROOM_MEMBERS = 5_000
MAX_MEMBERS_PER_REQUEST = 1_000
MAX_FULL_NAME_CHARS = 200
MIN_PASSWORD_CHARS = 8
MAX_PASSWORD_CHARS = 128
"""Argon2 hashes any length in the same time; the bound keeps request bodies small."""
MAX_PAGE = 200
"""Rows of one page of any list; ``limit`` above it is refused."""
DEFAULT_PAGE = 50

# --- queues: name, bound, and what happens there --------------------------------------------------------------------

MAX_UPLINK_ITEMS = 20_000
"""Envelopes waiting at a gateway for one host. At the bound: ``overloaded`` to the sender."""
MAX_BATCH_ITEMS = 2_000
"""Items of one batch on any link: some 10 ms of the receiver's time."""
MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Payload bytes of one batch on any link; an item that alone is larger still travels, by itself."""
MAX_DOWNLINK_BYTES = 64 * 1024 * 1024
"""Bytes waiting at a host for one gateway. At the bound the gateway is detached and attaches anew from the log."""
MAX_DOWNLINK_ITEMS = 100_000
MAX_REQUESTS = 50_000
"""Unanswered requests of one gateway. At the bound: ``overloaded``."""
MAX_MAILBOX = 1_000
"""Commands waiting in one activation while it loads or commits. At the bound: ``overloaded``."""
MAX_PENDING_ENTRIES = 20_000
"""Entries of one host that wait for persistence. At the bound: ``overloaded``."""
MAX_RECALLS = 2_000
"""Refusals of one host that are held back until the log has said that they are no repeats. At the bound: refused."""
MAX_ACTIVATIONS = 100_000
"""Active actors of one host. At the bound the idlest is passivated; if none is idle: ``overloaded``."""
MAX_APPEND_ENTRIES = 5_000
"""Entries of one transaction."""
MAX_HELD_FRAMES = 1_000
"""Frames a gateway holds per topic until a gap is filled. At the bound they are dropped and read again from the log."""
MAX_OUTBOX_BYTES = 1024 * 1024
"""Bytes waiting for one socket beyond what the kernel took. At the bound: close 4008."""
MAX_CONNECTIONS_PER_USER = 20
"""Sockets of one user, unless configured. At the bound the oldest is closed with 4003."""
MAX_LINK_PEERS = 10_000
"""Senders whose last batch number a host remembers."""

# --- times, milliseconds unless the name says otherwise --------------------------------------------------------------

REQUEST_TIMEOUT_MS = 20_000
"""A request without an answer for so long fails with ``actor_unavailable``; hosts restart in about 2 s."""
STORAGE_PATIENCE_MS = 5_000
"""So long an entry waits for a database that is away before its sender gets ``storage_unavailable``."""
PASSIVATE_AFTER_MS = 300_000
"""An activation without a command for so long leaves memory; coming back costs one coalesced read."""
DETACH_LINGER_MS = 30_000
"""A topic whose last socket left stays attached for so long: a page reload must not cost a round trip."""
POLL_HOLD_MS = 10_000
"""A host answers an empty long poll after so long."""
PEER_GONE_MS = 30_000
"""A gateway that has not polled for so long is forgotten by the host, with its topics and devices: 3 `POLL_HOLD_MS`."""
RETRY_MIN_MS = 20
RETRY_MAX_MS = 1_000
"""A link's pause between two tries of one batch doubles from the first to the second."""
RETRY_AFTER_MS = 500
"""What ``overloaded`` and ``storage_unavailable`` tell the client to wait before it sends again."""
AUTHENTICATE_WITHIN_S = 5.0
"""``protocol.md``: a socket without a credential has so long for its first frame."""
HEARTBEAT_S = 20
"""Interval of WebSocket pings from the server (uvicorn's default)."""
CATCH_UP_PAGE = 500
"""Log entries of one catch-up read."""
ID_BLOCK = 10_000
"""Message ids leased at once by a host; the next block is asked for when half is used."""
SHARDS = 1_024
"""Virtual shards of the placement table: enough for 100 hosts at 10 shards each, few enough to print."""
