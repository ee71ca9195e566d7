"""People at a real server: HTTP, a real WebSocket each, and a memory of everything they were shown.

A `Person` behaves as a good client does: what is not acknowledged is sent again with the same ``client_msg_id``, on a
new socket if the old one is gone. Each socket's stream is checked as it comes: in every conversation the numbers go up
by one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
import websockets
from websockets.asyncio.client import ClientConnection, connect

API = "/api/v1"
PASSWORD = "correct horse battery"


@dataclass
class Stream:
    """What one socket has been shown since it was ready."""

    user_id: int
    number: int
    heads: dict[str, int] = field(default_factory=dict)
    """Per conversation (public name): the last number, as of `session.ready`, then as shown."""
    received: dict[int, dict[str, object]] = field(default_factory=dict)
    """``message.receive`` by message id."""
    problems: list[str] = field(default_factory=list)
    others: list[dict[str, object]] = field(default_factory=list)
    """Frames of all other events."""

    def take(self, frame: dict[str, object]) -> None:
        """Note a frame; what is out of order, missing or shown twice becomes a problem."""
        data = frame["data"]
        assert isinstance(data, dict)
        if frame["event"] != "message.receive":
            self.others.append(frame)
        if "seq" not in data or frame["event"] == "message.ack":
            return
        if data.get("room_id") is not None:
            conversation = f"room:{data['room_id']}"
        else:
            other = data["receiver_id"] if data["sender_id"] == self.user_id else data["sender_id"]
            conversation = f"user:{other}"
        last = self.heads.get(conversation, 0)
        if data["seq"] != last + 1:
            self.problems.append(
                f"user {self.user_id} socket {self.number}: {conversation} #{data['seq']} after #{last}"
            )
        self.heads[conversation] = data["seq"]
        if frame["event"] == "message.receive":
            if data["id"] in self.received:
                self.problems.append(f"user {self.user_id} socket {self.number}: message {data['id']} twice")
            self.received[data["id"]] = data


class Device:
    """One socket of a person, reconnecting by itself until closed."""

    def __init__(self, person: Person, number: int) -> None:
        self.person = person
        self.number = number
        self.streams: list[Stream] = []
        self.close_codes: list[int | None] = []
        """What ended each socket that this device did not close itself."""
        self.ready = asyncio.Event()
        self.socket: ClientConnection | None = None
        self._task = asyncio.create_task(self._run())
        self._closed = False

    @property
    def stream(self) -> Stream:
        return self.streams[-1]

    async def _run(self) -> None:
        while not self._closed:
            try:
                async with connect(
                    f"{self.person.ws_url}?token={self.person.token}",
                    open_timeout=10,
                    ping_interval=None,
                    max_size=None,
                ) as socket:
                    try:
                        await self._listen(socket)
                    finally:
                        if not self._closed:
                            self.close_codes.append(socket.close_code)
            except (OSError, TimeoutError, websockets.exceptions.WebSocketException):
                pass  # whatever ended it: come back
            self.ready.clear()
            self.socket = None
            await asyncio.sleep(random.uniform(0.05, 0.5))  # a client's own jitter, not a wait for luck

    async def _listen(self, socket: ClientConnection) -> None:
        async for text in socket:
            frame = json.loads(text)
            if frame["event"] == "session.ready":
                heads = {item["conversation"]: item["seq"] for item in frame["data"]["conversations"]}
                self.streams.append(Stream(self.person.id, self.number, heads))
                self.socket = socket
                self.ready.set()
                await self.person.resend(self)
                continue
            self.stream.take(frame)
            if frame["event"] in {"message.ack", "error"}:
                self.person.answered(frame)

    async def close(self) -> None:
        self._closed = True
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


class Person:
    """Somebody with an account, and any number of devices."""

    def __init__(self, base_url: str, ws_url: str) -> None:
        self.base_url = base_url
        self.ws_url = ws_url
        self.id = 0
        self.token = ""
        self.devices: list[Device] = []
        self.outbox: dict[str, dict[str, object]] = {}
        self.acks: dict[str, dict[str, object]] = {}
        self.contradictions: list[str] = []
        self.errors: list[dict[str, object]] = []
        self._acked = asyncio.Event()

    async def sign_up(self, http: httpx.AsyncClient, name: str) -> Person:
        """Make the account and log in."""
        email = f"{name}@example.com"
        body = {"email": email, "password": PASSWORD, "full_name": name.title()}
        response = await http.post(f"{self.base_url}{API}/auth/signup", json=body)
        assert response.status_code == 200, response.text
        self.id = response.json()["id"]
        form = {"username": email, "password": PASSWORD}
        response = await http.post(f"{self.base_url}{API}/auth/login/access-token", data=form)
        assert response.status_code == 200, response.text
        self.token = response.json()["access_token"]
        return self

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def open(self, devices: int = 1) -> Person:
        """Open sockets and wait until each has seen ``session.ready``."""
        new = [Device(self, len(self.devices) + number) for number in range(devices)]
        self.devices += new
        for device in new:
            await asyncio.wait_for(device.ready.wait(), 30)
        return self

    async def send(self, client_msg_id: str, **where: int) -> None:
        """Say something; it stays in the outbox until it is acknowledged."""
        data: dict[str, object] = {"content": f"text of {client_msg_id}", "client_msg_id": client_msg_id, **where}
        self.outbox[client_msg_id] = data
        await self._write(self.devices[0], data)

    async def _write(self, device: Device, data: dict[str, object]) -> None:
        if device.socket is not None:
            with contextlib.suppress(websockets.exceptions.ConnectionClosed):
                await device.socket.send(json.dumps({"event": "message.send", "data": data}))

    async def resend(self, device: Device) -> None:
        """On a new socket of the first device: everything that has no ack yet, in order."""
        if device is self.devices[0]:
            for data in list(self.outbox.values()):
                await self._write(device, data)

    def answered(self, frame: dict[str, object]) -> None:
        data = frame["data"]
        assert isinstance(data, dict)
        client_msg_id = data["client_msg_id"]
        if frame["event"] == "error":
            self.errors.append(data)
            if data.get("retryable") and client_msg_id in self.outbox:
                asyncio.get_running_loop().call_later(
                    (data.get("retry_after_ms") or 200) / 1000, self._again, client_msg_id
                )
            return
        before = self.acks.setdefault(client_msg_id, data)
        if before != data:
            self.contradictions.append(f"{client_msg_id} was acknowledged as {before}, then as {data}")
        self.outbox.pop(client_msg_id, None)
        self._acked.set()

    def _again(self, client_msg_id: str) -> None:
        if client_msg_id in self.outbox:
            self._task = asyncio.get_running_loop().create_task(
                self._write(self.devices[0], self.outbox[client_msg_id])
            )

    async def close(self) -> None:
        for device in self.devices:
            await device.close()


async def until(true: Callable[[], bool], limit_s: float, what: str) -> None:
    """Wait until something is true.

    Raises:
        AssertionError: it is not after ``limit_s`` seconds.

    """
    deadline = asyncio.get_running_loop().time() + limit_s
    while not true():
        assert asyncio.get_running_loop().time() < deadline, f"not within {limit_s:g} s: {what}"
        await asyncio.sleep(0.05)
