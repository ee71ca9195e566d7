"""The server that is usually built: FastAPI, Redis Pub/Sub, PostgreSQL. What FastSock is measured by.

Written as well as such a server is written by people who know how: uvloop and httptools, no deflate, msgspec for JSON,
redis-py with hiredis, asyncpg with prepared statements, memberships kept in memory, one JSON text for all recipients.

* A message is committed, then published, then acknowledged: nobody is shown what is not stored. That is one INSERT, one
  commit, one PUBLISH and one frame written per recipient and worker.
* Every socket has a bounded queue and a task that writes what is in it, so that nobody waits for a reader who is slow,
  and who does not read is cut off.
* ``room:42`` is a channel to which a worker subscribes while it has members of that room, ``user:7`` likewise.
* A socket that comes back names the last id it has of each conversation, and is sent what follows.

What it leaves out costs it nothing here: order between workers, numbers without holes, a message that is sent twice,
rate limits, resuming without a gap between what is replayed and what is live. Clients of FastSock can talk to it:
events and fields are the same, ``seq`` is the message's id.

    REDIS_BASELINE_DATABASE=postgresql://... REDIS_BASELINE_REDIS=redis://... REDIS_BASELINE_SECRET=... \\
        uvicorn tests.benchmarks.redis_baseline:app --workers 2 --ws-per-message-deflate false
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import asyncpg
import jwt
import msgspec
import redis.asyncio
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

DATABASE_VARIABLE, REDIS_VARIABLE, SECRET_VARIABLE = (
    f"REDIS_BASELINE_{name}" for name in ("DATABASE", "REDIS", "SECRET")
)
CONNECTIONS = 10
"""Of one worker to PostgreSQL."""
MAX_REPLAY = 1_000
MAX_WAITING = 1_000
"""Frames that wait for one socket."""

TABLES = """
CREATE TABLE users (id bigserial PRIMARY KEY, email text NOT NULL UNIQUE);
CREATE TABLE rooms (id bigserial PRIMARY KEY, name text NOT NULL);
CREATE TABLE members (
    room_id bigint NOT NULL REFERENCES rooms, user_id bigint NOT NULL REFERENCES users, PRIMARY KEY (room_id, user_id)
);
CREATE INDEX ON members (user_id);
CREATE TABLE messages (
    id bigserial PRIMARY KEY,
    conversation text NOT NULL,
    sender_id bigint NOT NULL,
    receiver_id bigint,
    room_id bigint,
    content text NOT NULL,
    message_type text NOT NULL,
    client_msg_id text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON messages (conversation, id);
"""
INSERT = """
INSERT INTO messages (conversation, sender_id, receiver_id, room_id, content, message_type, client_msg_id)
VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id, created_at
"""
ROOMS = """
SELECT room_id, (SELECT coalesce(max(id), 0) FROM messages WHERE conversation = 'room:' || room_id) AS last
FROM members WHERE user_id = $1
"""
AFTER = """
SELECT id, sender_id, receiver_id, room_id, content, message_type, client_msg_id, created_at
FROM messages WHERE conversation = $1 AND id > $2 ORDER BY id LIMIT $3
"""

_encoder = msgspec.json.Encoder()


class _Send(msgspec.Struct):
    content: str
    room_id: int | None = None
    receiver_id: int | None = None
    message_type: str = "text"
    client_msg_id: str | None = None


class _Frame(msgspec.Struct):
    event: str
    data: msgspec.Raw = msgspec.Raw(b"{}")


class _Resume(msgspec.Struct):
    conversations: dict[str, int]


_frames = msgspec.json.Decoder(_Frame)
_sends = msgspec.json.Decoder(_Send)
_resumes = msgspec.json.Decoder(_Resume)


def _event(name: str, data: Mapping[str, object]) -> str:
    return _encoder.encode({"event": name, "data": data}).decode()


def _between(one: int, other: int) -> str:
    return f"dm:{min(one, other)}:{max(one, other)}"


class Socket:
    """One client: what waits for it, and who writes it."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._waiting: asyncio.Queue[str] = asyncio.Queue(MAX_WAITING)
        self._writer = asyncio.create_task(self._write())

    def put(self, text: str) -> None:
        """Have it written after all that was put before; a slow consumer is cut off."""
        try:
            self._waiting.put_nowait(text)
        except asyncio.QueueFull:
            self._writer.cancel()

    async def _write(self) -> None:
        try:
            while True:
                await self._socket.send_text(await self._waiting.get())
        except (WebSocketDisconnect, RuntimeError):
            pass  # it has gone; its reader cleans up
        except asyncio.CancelledError:
            with suppress(RuntimeError):
                await self._socket.close(1013)

    def end(self) -> None:
        self._writer.cancel()


class Worker:
    """One process: its sockets by channel, and its connections."""

    def __init__(self, pool: asyncpg.Pool, connection: redis.asyncio.Redis) -> None:
        self._pool = pool
        self._redis = connection
        self._pubsub = connection.pubsub(ignore_subscribe_messages=True)
        self._channels: dict[str, set[Socket]] = {}
        self._secret = os.environ[SECRET_VARIABLE]

    async def listen(self) -> None:
        """Write what is published to whoever is here."""
        await self._pubsub.subscribe("nobody")  # it reads nothing before it has subscribed to something
        async for message in self._pubsub.listen():
            text = message["data"].decode()
            for socket in self._channels.get(message["channel"].decode(), ()):
                socket.put(text)

    async def serve(self, client: WebSocket) -> None:
        """One socket, from its handshake to its end."""
        await client.accept()
        try:
            token = client.query_params.get("token", "")
            user_id = int(jwt.decode(token, self._secret, ["HS256"])["sub"])
        except (jwt.InvalidTokenError, ValueError):
            await client.close(1008)
            return
        rows = await self._pool.fetch(ROOMS, user_id)
        channels = [f"user:{user_id}", *(f"room:{row['room_id']}" for row in rows)]
        socket = Socket(client)
        await self._join(socket, channels)
        try:
            conversations = [
                {"conversation": f"room:{row['room_id']}", "seq": row["last"], "unread": 0} for row in rows
            ]
            socket.put(_event("session.ready", {"user_id": user_id, "conversations": conversations}))
            rooms = {row["room_id"] for row in rows}
            while True:
                await self._frame(socket, user_id, rooms, await client.receive_text())
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            socket.end()
            await self._leave(socket, channels)

    async def _frame(self, socket: Socket, user_id: int, rooms: set[int], text: str) -> None:
        try:
            frame = _frames.decode(text)
            if frame.event == "message.send":
                await self._send(socket, user_id, rooms, _sends.decode(frame.data))
            elif frame.event == "session.resume":
                await self._resume(socket, user_id, rooms, _resumes.decode(frame.data).conversations)
        except (msgspec.MsgspecError, ValueError) as error:
            socket.put(_event("error", {"code": "bad_frame", "message": str(error)}))

    async def _send(self, socket: Socket, user_id: int, rooms: set[int], message: _Send) -> None:
        if message.room_id is not None:
            if message.room_id not in rooms:
                socket.put(_event("error", {"code": "not_a_member", "message": "not a member"}))
                return
            conversation = f"room:{message.room_id}"
            channels = [conversation]
        else:
            receiver = message.receiver_id or 0
            conversation = _between(user_id, receiver)
            channels = [f"user:{user_id}", f"user:{receiver}"]
        about = msgspec.structs.asdict(message) | {"sender_id": user_id}
        row = await self._pool.fetchrow(
            INSERT,
            conversation,
            user_id,
            message.receiver_id,
            message.room_id,
            message.content,
            message.message_type,
            message.client_msg_id,
        )
        shown = _event("message.receive", _shown({**about, **dict(row)}))
        if len(channels) == 1:
            await self._redis.publish(channels[0], shown)
        else:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for channel in channels:
                    pipeline.publish(channel, shown)
                await pipeline.execute()
        ack = {
            "message_id": row["id"],
            "status": "sent",
            "timestamp": row["created_at"],
            "client_msg_id": message.client_msg_id,
            "room_id": message.room_id,
            "receiver_id": message.receiver_id,
        }
        socket.put(_event("message.ack", ack))

    async def _resume(self, socket: Socket, user_id: int, rooms: set[int], since: Mapping[str, int]) -> None:
        for name, last in since.items():
            kind, _, number = name.partition(":")
            if kind == "room" and int(number) not in rooms:
                continue
            conversation = name if kind == "room" else _between(user_id, int(number))
            for row in await self._pool.fetch(AFTER, conversation, last, MAX_REPLAY):
                socket.put(_event("message.receive", _shown(dict(row))))
        socket.put(_event("session.resumed", {"complete": True}))

    async def _join(self, socket: Socket, channels: Sequence[str]) -> None:
        new = [channel for channel in channels if channel not in self._channels]
        for channel in channels:
            self._channels.setdefault(channel, set()).add(socket)
        if new:
            await self._pubsub.subscribe(*new)

    async def _leave(self, socket: Socket, channels: Sequence[str]) -> None:
        empty = []
        for channel in channels:
            sockets = self._channels[channel]
            sockets.discard(socket)
            if not sockets:
                del self._channels[channel]
                empty.append(channel)
        if empty:
            await self._pubsub.unsubscribe(*empty)


def _shown(row: dict[str, Any]) -> dict[str, object]:
    at: datetime = row.pop("created_at")
    extra = {"seq": row["id"], "timestamp": at.astimezone(UTC), "status": "sent", "is_read": False, "reactions": {}}
    return {**row, **extra}


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    connection = redis.asyncio.Redis.from_url(os.environ[REDIS_VARIABLE], socket_timeout=None)  # or silence ends it
    async with asyncpg.create_pool(os.environ[DATABASE_VARIABLE], min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        app.state.worker = worker = Worker(pool, connection)
        listening = asyncio.create_task(worker.listen())
        yield
        listening.cancel()
        await asyncio.wait([listening])
        await connection.aclose()


app = FastAPI(lifespan=_lifespan)


@app.get("/readyz")
async def ready() -> dict[str, str]:
    return {"status": "ok"}


@app.websocket("/api/v1/ws/chat")
async def chat(socket: WebSocket) -> None:
    worker: Worker = app.state.worker
    await worker.serve(socket)
