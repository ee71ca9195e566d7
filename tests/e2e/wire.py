"""A client for exact tests: it sends what it is told, keeps every frame, and retries nothing.

`people.Person` behaves as a good client does; a `Wire` does not behave at all, so that a test sees the protocol itself.
What has not come is shown without waiting for it: a socket's frames are written in the order in which the gateway
decides, so after the answer to something later (`Wire.quiet`: a ping) nothing earlier can still be on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import httpx
import jwt
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.e2e.people import API, PASSWORD

WITHIN_S = 30.0
"""So long an answer may take: milliseconds on a quiet machine, seconds where colleagues use the same two cores."""

Data = dict[str, Any]


def send_frame(**data: object) -> str:
    """A ``message.send``."""
    return json.dumps({"event": "message.send", "data": data})


def error_data(
    code: str, message: str, event: str | None = "message.send", client_msg_id: str | None = None
) -> dict[str, object]:
    """The data of an ``error`` that is final."""
    about = {"code": code, "message": message, "context_event": event, "client_msg_id": client_msg_id}
    return {**about, "retryable": False, "retry_after_ms": None}


@dataclass(frozen=True)
class Account:
    """Somebody with an account."""

    id: int
    email: str
    full_name: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


class Wire:
    """One WebSocket. Frames wait in ``frames`` until a test takes them."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.frames: list[Data] = []
        self.greeting: Data = {}
        self._news = asyncio.Event()
        self._ended = False
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in self.socket:
                assert isinstance(text, str), "the server sends texts"
                self.frames.append(json.loads(text))
                self._news.set()
        self._ended = True
        self._news.set()

    async def greeted(self) -> Self:
        """Take ``session.ready``, which has to be the first frame."""
        frame = await self.frame()
        assert frame["event"] == "session.ready", frame
        assert set(frame) == {"event", "data"}
        self.greeting = frame["data"]
        return self

    # --- out -----------------------------------------------------------------------------------------------------

    async def say(self, event: str, **data: object) -> None:
        await self.raw(json.dumps({"event": event, "data": data}))

    async def raw(self, frame: str | bytes) -> None:
        await self.socket.send(frame)

    async def post(self, content: str, **fields: object) -> Data:
        """Send a message; the ack's data. What else comes stays in ``frames``."""
        await self.say("message.send", content=content, **fields)
        return await self.take("message.ack")

    # --- in ------------------------------------------------------------------------------------------------------

    async def frame(self) -> Data:
        """The next frame, whatever it is."""
        await self._until(lambda: bool(self.frames), "a frame")
        return self.frames.pop(0)

    async def take(self, event: str, **fields: object) -> Data:
        """The data of the first frame of this event with these fields; what came before it stays in ``frames``."""

        def wanted(frame: Data) -> bool:
            return frame["event"] == event and all(frame["data"].get(name) == it for name, it in fields.items())

        await self._until(lambda: any(map(wanted, self.frames)), f"{event} {fields}")
        place = next(place for place, frame in enumerate(self.frames) if wanted(frame))
        frame = self.frames.pop(place)
        assert set(frame) == {"event", "data"}, frame
        data: Data = frame["data"]
        return data

    async def refused(self, frame: str | bytes) -> Data:
        """Send it; the whole ``error`` frame that answers."""
        await self.raw(frame)
        answer = await self.frame()
        assert answer["event"] == "error", answer
        return answer

    async def quiet(self) -> None:
        """Nothing more has come than was taken."""
        token = uuid.uuid4().hex
        await self.say("ping", token=token)
        await self._until(lambda: self._place_of_pong(token) is not None, "the pong")
        place = self._place_of_pong(token)
        assert place is not None
        before, self.frames = self.frames[:place], self.frames[place + 1 :]
        assert before == [], f"user {self.greeting.get('user_id')} was shown {before}"

    def _place_of_pong(self, token: str) -> int | None:
        pong = {"event": "pong", "data": {"token": token}}
        return self.frames.index(pong) if pong in self.frames else None

    async def closed(self, within_s: float = WITHIN_S) -> tuple[int, str]:
        """Wait until the server has closed it; close code and reason."""
        await asyncio.wait_for(self.socket.wait_closed(), within_s)
        await self._reader
        return self.socket.close_code or 0, self.socket.close_reason or ""

    async def _until(self, true: Callable[[], bool], what: str) -> None:
        """Wait for frames until something is true of them."""
        try:
            async with asyncio.timeout(WITHIN_S):
                while not true():
                    assert not self._ended, f"closed with {self.socket.close_code} before {what}; {self.frames}"
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"not within {WITHIN_S:g} s: {what}; there are {self.frames}") from None

    # --- the end -------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        await self.socket.close()
        await self._reader

    async def cut(self) -> None:
        """End it as a lost network does: no close frame, the connection is gone."""
        self.socket.transport.abort()
        await self._reader


class Running(Protocol):
    """Where FastSock runs: `tests.server.Server`, or what has the same addresses."""

    @property
    def url(self) -> str: ...

    @property
    def ws_url(self) -> str: ...

    @property
    def data_dir(self) -> Path: ...


class Town:
    """A running server, and whoever a test brings there; sockets end with the test."""

    def __init__(self, server: Running, http: httpx.AsyncClient) -> None:
        self.server = server
        self.http = http
        self._open = AsyncExitStack()

    @property
    def api(self) -> str:
        return self.server.url + API

    @property
    def secret(self) -> str:
        return (self.server.data_dir / "secret.key").read_text().strip()

    async def person(self, name: str) -> Account:
        """Sign somebody up and log in; nobody else has their address."""
        [account] = await self.people(name)
        return account

    async def people(self, *names: str) -> list[Account]:
        """Several, whose ids go up in this order."""
        signed_up = [await self._sign_up(name) for name in names]
        tokens = await asyncio.gather(*(self._log_in(user["email"]) for user in signed_up))
        return [
            Account(user["id"], user["email"], user["full_name"], token)
            for user, token in zip(signed_up, tokens, strict=True)
        ]

    async def _sign_up(self, name: str) -> Data:
        email = f"{name}.{uuid.uuid4().hex[:12]}@example.com"
        body = {"email": email, "password": PASSWORD, "full_name": name.title()}
        answer = await self.http.post(f"{self.api}/auth/signup", json=body)
        assert answer.status_code == 200, answer.text
        user: Data = answer.json()
        return user

    async def _log_in(self, email: str) -> str:
        form = {"username": email, "password": PASSWORD}
        answer = await self.http.post(f"{self.api}/auth/login/access-token", data=form)
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["access_token"]
        return token

    async def ask(self, who: Account, method: str, path: str, **body: object) -> httpx.Response:
        """A request below ``/api/v1``, with a JSON body where fields are given."""
        return await self.http.request(method, f"{self.api}/{path}", json=body or None, headers=who.headers)

    async def room(self, owner: Account, *members: Account, name: str = "Engine room") -> int:
        """Make a room."""
        answer = await self.ask(owner, "POST", "chat/rooms", name=name, member_ids=[member.id for member in members])
        assert answer.status_code == 200, answer.text
        room_id: int = answer.json()["id"]
        return room_id

    async def open(self, who: Account) -> Wire:
        """A socket that has been greeted."""
        return await (await self.connect(f"?token={who.token}")).greeted()

    async def connect(self, query: str = "") -> Wire:
        """A socket that has been accepted; whatever comes first is still to come."""
        socket = await connect(self.server.ws_url + query, open_timeout=WITHIN_S, ping_interval=None, max_size=None)
        wire = Wire(socket)
        self._open.push_async_callback(wire.close)
        return wire

    async def sockets(self) -> int:
        """How many sockets the gateway has now."""
        answer = await self.http.get(f"{self.api}/ws/healthz")
        assert answer.status_code == 200, answer.text
        count: int = answer.json()["sockets"]
        return count

    def token(self, user_id: int, lives_s: float, secret: str | None = None) -> str:
        """A token that ends ``lives_s`` from now, signed with the server's secret or another."""
        claims = {"sub": str(user_id), "exp": time.time() + lives_s}
        return jwt.encode(claims, secret or self.secret, "HS256")

    async def close(self) -> None:
        await self._open.aclose()
