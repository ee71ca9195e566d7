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
MAX_READ_FRAME_BYTES = 2 * MAX_FRAME_BYTES
"""So much is read to say what is wrong with it; a frame that announces more is refused before it has come."""
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
LINK_PACE_MS = 12
LINK_PACE_ITEM_MS = 1
LINK_PACE_MAX_MS = 40
LINK_BURST_BATCHES = 4
"""See `actors.link.Pace`."""
FLUSH_PACE_US = 80
FLUSH_MIN_MS = 1
FLUSH_MAX_MS = 32
"""See `fastsock.ws.broadcast`."""
MAX_BATCH_ITEMS = 2_000
"""Items of one batch on any link: some 10 ms of the receiver's time."""
MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Payload bytes of one batch on any link; an item that alone is larger still travels, by itself."""
MAX_DOWNLINK_BYTES = 64 * 1024 * 1024
"""Bytes waiting at a host for one gateway. At the bound the gateway is detached and attaches anew from the log."""
MAX_DOWNLINK_ITEMS = 100_000
LINK_EPHEMERAL_SHARE = 1 / 16
"""Of `MAX_UPLINK_ITEMS`, `MAX_DOWNLINK_ITEMS` and `MAX_DOWNLINK_BYTES`, of which it is `MAX_BATCH_BYTES`: where more
waits than about one batch, what is ephemeral (typing) is dropped and counted."""
MAX_REQUESTS = 50_000
"""Unanswered requests of one gateway. At the bound: ``overloaded``."""
MAX_MAILBOX = 1_000
"""Commands waiting in one activation while it loads or commits. At the bound: ``overloaded``."""
MAX_PENDING_ENTRIES = 20_000
"""Entries of one host that wait for persistence. At the bound: ``overloaded``."""
MAX_RECALLS = 2_000
"""Refusals of one host that are held back until the log has said that they are no repeats. At the bound: refused."""
MAX_TYPISTS = 20
"""People of one conversation who are shown typing at a time; nobody reads more names, and each costs a frame for every
member. At the bound nobody hears of the next."""
MAX_ACTIVATIONS = 100_000
"""Active actors of one host. At the bound the idlest is passivated; if none is idle: ``overloaded``."""
MAX_APPEND_ENTRIES = 5_000
"""Entries of one transaction."""
MAX_HELD_FRAMES = 1_000
"""Frames a gateway holds per topic until a gap is filled. At the bound they are dropped and read again from the log."""
MAX_OUTBOX_BYTES = 8 * 1024 * 1024
"""Bytes waiting for one socket beyond what its server took: two full batches, which come within milliseconds and cut
nobody who reads. At the bound ephemeral frames go first, then it is closed with 4008."""
MAX_OUTBOX_FRAMES = 32_768
"""The same in frames. A frame that is nobody else's costs 41 bytes of its own (CPython: 33 of the object, 8 of the
queue), so an outbox of the shortest frames costs 1.3 MB more than their bytes; usual ones have 250 and fill both."""
OUTBOX_SLOW_SHARE = 1 / 8
"""Of both, 1 MiB: an outbox that stays above it for `OUTBOX_PATIENCE_S` is a slow consumer's, as if it were full."""
OUTBOX_EPHEMERAL_SHARE = 1 / 32
"""Of both, 256 KiB: an ephemeral frame (typing, presence) that would lift the outbox above it is dropped."""
OUTBOX_TURN_FRAMES = 64
"""Frames of one outbox that are sent in one turn of the event loop: about 1 ms, so that no socket delays the others."""
SOCKET_SEND_BYTES = 128 * 1024
"""Of a gateway's socket in the kernel (``SO_SNDBUF``; Linux doubles it), which would grow to 4 MB for whoever does not
read. What is further than HAProxy on the same machine gets 0.6 MB/s at a round trip of 200 ms."""
SOCKET_BUFFER_BYTES = 64 * 1024
"""Of the server beside that: above it frames wait in the outbox. A frame that was begun may go beyond it."""
HAPROXY_RECEIVE_BYTES = 128 * 1024
"""Of HAProxy's socket to a replica, which would grow to 33 MB (``tcp_rmem``)."""
HAPROXY_SEND_BYTES = 256 * 1024
"""Of HAProxy's socket to a client, which would grow to 4 MB: 1.3 MB/s at a round trip of 200 ms, for downloads too."""
MAX_MESSAGE_FRAGMENTS = 256
"""Frames that one message comes in; even empty ones take place. At the bound: close 1009."""
RESUME_PAGE = 200
"""Log entries of one page of a resume: some 60 KB, encoded in 2 ms."""
RESUME_PAGE_BYTES = 256 * 1024
"""Frames of one page of a resume; an entry that alone is larger still travels, by itself."""
RESUME_AT_ONCE_BYTES = 64 * 1024
"""So much of what a socket has missed is written to it at once, beside its outbox: more is fed as it is taken."""
MAX_REPLAYS = 256
"""Sockets of one gateway that have a page of a resume under way; more wait for their turn. 64 MiB at the worst."""
MAX_RESUME_ENTRIES = 20_000
"""Entries of one conversation that a resume replays; whoever has missed more reloads."""
MAX_NEW_ENTRIES = 1_000
"""The same for a conversation that the client does not know."""
MAX_RESUME_CONVERSATIONS = 5_000
"""Conversations that one ``session.resume`` may name; a frame of `MAX_FRAME_BYTES` has place for about as many."""
MAX_MARKERS_SHOWN = 50
"""Markers of others that a resume shows for each conversation: those who have read furthest."""
MAX_RECENT_BYTES = 32 * 1024 * 1024
MAX_RECENT_FRAMES = 100_000
"""Frames that a gateway keeps in memory for those who come back soon; the oldest go first."""
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
COMPARE_HEADS_MS = 30_000
"""How often a host compares what it has shown with the log. Only after a split of the network does it find anything,
and then only where nobody speaks: whatever is said next tells at once."""
RELOAD_MEMBERSHIPS_MS = 300_000
"""How often a gateway reads the memberships of each of its users again: 10,000 users are 33 a second, in one query."""
DETACH_LINGER_MS = 30_000
"""A topic whose last socket left stays attached for so long: a page reload must not cost a round trip."""
POLL_HOLD_MS = 10_000
"""A host answers an empty long poll after so long."""
PEER_GONE_MS = 30_000
"""A gateway that has not polled for so long is forgotten by the host, with its topics and devices: 3 `POLL_HOLD_MS`."""
RETRY_MIN_MS = 20
RETRY_MAX_MS = 250
"""A link's pause between two tries of one batch doubles from the first to the second. A process that died is back after
1.2 s, and this is the most that anybody sleeps longer than that."""
RETRY_AFTER_MS = 500
"""What ``overloaded`` and ``storage_unavailable`` tell the client to wait before it sends again."""
RESUME_WITHIN_MS = 250
"""So long after ``session.ready`` a silent socket is held, so that a resume comes before what happens meanwhile; more
than most round trips, less than anybody notices."""
TYPING_EXPIRES_MS = 6_000
"""``protocol.md``: so long after the last ``typing.start`` somebody counts as typing; clients repeat it every 3 s."""
TYPING_REPEAT_MS = 2_000
"""The same said again within this time is not forwarded; less than the clients' 3 s, so that theirs always are."""
AUTHENTICATE_WITHIN_S = 5.0
"""``protocol.md``: a socket without a credential has so long for its first frame."""
HEARTBEAT_SPOKES = 20
"""Turns in which the sockets of a gateway are pinged, spread over that interval."""
HEARTBEAT_S = 20
"""Interval of WebSocket pings from the server (uvicorn's default)."""
HAPROXY_SILENCE_S = 120
"""HAProxy drops a client that neither sends nor takes anything for so long (Ray: an hour); one that is there answers a
ping every `HEARTBEAT_S`."""
GOODBYE_S = 1.0
"""Where the gateway closes its sockets itself as its server ends, what is left is closed after so long. Serve waits for
some 4 s (`fastsock.main.gateway_app`), then it cuts."""
LINGER_S = 10.0
"""A socket that was served to its end and still is there is aborted: so long a close frame's answer may take."""
OUTBOX_PATIENCE_S = 5.0
"""See `OUTBOX_SLOW_SHARE`; a phone at 20 Mbit/s reads `MAX_OUTBOX_BYTES` in 3.4 s."""
FEED_PATIENCE_S = 20.0
"""A socket that takes no frame of a replay for so long is closed with 4008; as long as its pings are waited for."""
CATCH_UP_PAGE = 500
"""Log entries of one catch-up read."""
ID_BLOCK = 10_000
"""Message ids leased at once by a host; the next block is asked for when half is used."""
SHARDS = 1_024
"""Virtual shards of the placement table: enough for 100 hosts at 10 shards each, few enough to print."""
