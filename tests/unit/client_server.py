"""A small server for the client's shell: one room, one user, real sockets; it keeps the contract and can misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.unit.client_world import WHEN

ME = 3
WITHIN_S = 10.0


async def until(true: Callable[[], object], what: str) -> None:
    """Wait until something is true.

    Raises:
        AssertionError: it is not within `WITHIN_S`.

    """
    give_up_at = asyncio.get_running_loop().time() + WITHIN_S
    while not true():
        assert asyncio.get_running_loop().time() < give_up_at, f"not within {WITHIN_S:g} s: {what}"
        await asyncio.sleep(0.005)


class FakeServer:
    """``room:1`` and the sockets that see it. What a test may set, and look at, is public."""

    def __init__(self) -> None:
        self.log: list[dict[str, Any]] = []
        self.acks: dict[str, dict[str, Any]] = {}
        self.tokens = {"good"}
        self.sockets: list[ServerConnection] = []
        """Those that are greeted, the newest last."""
        self.paths: list[str] = []
        self.said: list[tuple[str, Any]] = []
        self.silent = False
        """Messages are not answered."""
        self.refusal: dict[str, Any] | None = None
        """What the next message is answered with."""
        self.url = ""

    async def socket(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.paths.append(connection.request.path)
        try:
            first = json.loads(await connection.recv())
            self.said.append((first["event"], first["data"]))
            if first["data"]["token"] not in self.tokens:
                await connection.close(1008, "the token is not valid")
                return
            listed = [{"conversation": "room:1", "seq": len(self.log), "unread": 0}]
            about = {"connection_id": f"c{len(self.paths)}", "user_id": ME, "server_time": WHEN, "heartbeat_s": 20}
            await self.say(connection, "session.ready", {**about, "conversations": listed})
            self.sockets.append(connection)
            async for text in connection:
                said = json.loads(text)
                self.said.append((said["event"], said["data"]))
                await self.answer(connection, said["event"], said["data"])
        except ConnectionClosed:
            pass
        finally:
            if connection in self.sockets:
                self.sockets.remove(connection)

    async def answer(self, connection: ServerConnection, event: str, data: dict[str, Any]) -> None:
        match event:
            case "session.resume":
                for entry in self.log[data["conversations"].get("room:1", 0) :]:
                    await self.say(connection, "message.receive", entry)
                heads = {"room:1": len(self.log)}
                answer = {"conversations": heads, "complete": True, "oldest": {}, "left": []}
                await self.say(connection, "session.resumed", {**answer, "markers": {}})
            case "session.refresh":
                await self.say(connection, "session.refreshed", {"expires_at": WHEN, "expires_in": 900})
            case "message.send" if self.refusal is not None:
                refusal, self.refusal = self.refusal, None
                about = {"message": "no", "context_event": event, "client_msg_id": data["client_msg_id"]}
                await self.say(connection, "error", {**about, **refusal})
            case "message.send" if not self.silent:
                await self.take(connection, data)

    async def take(self, connection: ServerConnection, data: dict[str, Any]) -> None:
        name = data["client_msg_id"]
        if name not in self.acks:
            seq = await self.post(data["content"], sender_id=ME, client_msg_id=name)
            self.acks[name] = {"message_id": seq, "seq": seq, "timestamp": WHEN, "client_msg_id": name, "room_id": 1}
        await self.say(connection, "message.ack", self.acks[name])

    async def post(self, content: str, **data: Any) -> int:
        """A message to the room, shown to every socket."""
        seq = len(self.log) + 1
        about = {"id": seq, "content": content, "sender_id": 7, "room_id": 1, "receiver_id": None, "timestamp": WHEN}
        self.log.append({**about, "seq": seq, **data})
        for socket in list(self.sockets):
            await self.say(socket, "message.receive", self.log[-1])
        return seq

    @staticmethod
    async def say(connection: ServerConnection, event: str, data: object) -> None:
        await connection.send(json.dumps({"event": event, "data": data}))

    def heard(self, event: str) -> list[Any]:
        return [data for name, data in self.said if name == event]


@asynccontextmanager
async def running() -> AsyncIterator[FakeServer]:
    """A fake server that listens on a free port."""
    fake = FakeServer()
    server: Server
    async with serve(fake.socket, "127.0.0.1", 0) as server:
        fake.url = f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        yield fake
