"""The API as its tests see it: real routes, services and database, and rooms without a host around them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import httpx
import msgspec
from fastapi import FastAPI
from pydantic import SecretStr

from actors.commands import AddMembers, Committed, LinkCommand, Send
from actors.effects import Effect, Fail, Persist, Reply, Tell
from actors.room import Room
from fastsock.api.app import build_api
from fastsock.core.config import Settings
from fastsock.core.errors import FastSockError, error_of
from fastsock.core.security import create_access_token
from fastsock.db import migrate
from fastsock.db.conversations import Conversations
from fastsock.db.engine import Database
from fastsock.db.message_log import MessageLog
from fastsock.db.users import Users
from fastsock.schemas import names
from fastsock.schemas.log import Append, Entry

API = "/api/v1"
SECRET = "a secret of more than thirty-two bytes for the tests"
NOW_MS = 1_800_000_000_000
"""2027-01-15T08:00:00.000Z"""


class LocalActors:
    """The port to the actors, in one process: the real `Room` decides, the real log commits, nothing is in between."""

    def __init__(self, db: Database, world: World) -> None:
        self._conversations = Conversations(db)
        self._log = MessageLog(db)
        self._world = world
        self.told: list[tuple[str, LinkCommand]] = []
        self.away: FastSockError | None = None
        """What every question comes to instead, where the actors cannot be reached."""

    async def ask(self, name: str, command: LinkCommand) -> bytes:
        if self.away is not None:
            raise self.away
        state = (await self._conversations.load([name]))[name]
        if state is None:
            kind, _, number = name.partition(":")
            raise error_of("room_not_found", f"{kind} {number} does not exist or is not active")
        room = Room(state)
        return await self._carry_out(room, room.handle(command, self._world.now_ms))

    def tell(self, name: str, command: LinkCommand) -> None:
        self.told.append((name, command))

    async def lease_id(self) -> int:
        if self.away is not None:
            raise self.away
        return (await self._log.lease_ids(1))[0]

    async def _carry_out(self, room: Room, effects: list[Effect]) -> bytes:
        answer = b""
        for effect in effects:
            if isinstance(effect, Persist):
                entry = effect.entry
                entry.id = await self.lease_id()
                [[outcome]] = await self._log.append([Append(entry.conversation, room.head, [entry])])
                answer = await self._carry_out(room, room.handle(Committed(entry, outcome), self._world.now_ms))
            elif isinstance(effect, Fail):
                raise error_of(*msgspec.structs.astuple(effect.failure))
            elif isinstance(effect, Reply):
                answer = effect.payload
            elif isinstance(effect, Tell):
                self.tell(effect.to, effect.command)
        return answer


class Person(NamedTuple):
    """Somebody with an account and a token."""

    id: int
    email: str
    token: str

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


class World:
    """A server with nobody on it yet."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self.now_ms = NOW_MS
        self.db = db
        self.somebody: Person | None = None
        self.log = MessageLog(db)
        self.conversations = Conversations(db)
        self.actors = LocalActors(db, self)
        self.app: FastAPI = build_api(settings, db, self.actors, now_ms=lambda: self.now_ms)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://server.test")

    async def person(self, name: str) -> Person:
        email = f"{name.lower()}@example.com"
        user = await Users(self.db).create(email, "no hash, so no log in", name)
        return Person(user.id, email, create_access_token(user.id, SECRET, 3600, self.now_ms / 1000))

    async def people(self, *given: str) -> list[Person]:
        return [await self.person(name) for name in given]

    async def room(self, owner: Person, *others: Person, name: str = "Engine room") -> int:
        body = {"name": name, "member_ids": [other.id for other in others]}
        answer = await self.ask(owner, "POST", "/chat/rooms", json=body)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["id"])

    async def say(self, who: Person, where: str, text: str) -> Entry:
        """A message as the gateway would send it; the committed entry."""
        answer = await self.actors.ask(where, Send(who.id, f"c:{text} to {where}", text))
        entry = await self.log.get(msgspec.json.decode(answer)["message_id"])
        assert entry is not None
        return entry

    async def add(self, by: Person, room_id: int, *others: Person) -> None:
        command = AddMembers(by.id, f"s:{others}", [other.id for other in others])
        await self.actors.ask(names.room(room_id), command)

    async def ask(self, who: Person | None, method: str, path: str, **more: Any) -> httpx.Response:
        """One request below `API`, by somebody or (None) by nobody."""
        headers = {**(who.bearer if who else {}), **more.pop("headers", {})}
        return await self.http.request(method, f"{API}{path}", headers=headers, **more)

    async def get(self, who: Person | None, path: str, **query: Any) -> Any:
        """The JSON that a GET is answered with."""
        answer = await self.ask(who, "GET", path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()


def refusal(answer: httpx.Response) -> tuple[int, dict[str, Any]]:
    """The status and the whole body of a refusal."""
    return answer.status_code, answer.json()


def refused(status: int, code: str, detail: str) -> tuple[int, dict[str, Any]]:
    """What `refusal` is for something that is not worth another try."""
    return status, {"detail": detail, "code": code, "retryable": False}


@cache
def _empty_database() -> Path:
    """A migrated SQLite file, made once."""
    file = Path(mkdtemp(prefix="fastsock-api-")) / "empty.db"
    migrate.upgrade(f"sqlite+aiosqlite:///{file}")
    return file


@asynccontextmanager
async def new_world(folder: Path, elsewhere: str | None = None, **settings: Any) -> AsyncIterator[World]:
    """A world whose database is a file in this folder, or ``elsewhere``; ``settings`` by field name."""
    file = folder / "fastsock.db"
    shutil.copy(await asyncio.to_thread(_empty_database), file)
    url = f"sqlite+aiosqlite:///{file}"
    db = Database(elsewhere or url)
    world = World(db, Settings(secret_key=SecretStr(SECRET), database_url=url, data_dir=folder, **settings))
    try:
        async with world.http:
            yield world
    finally:
        world.app.state.services.accounts.close()
        await db.close()
