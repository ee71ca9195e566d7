"""The load: people who talk in rooms and in pairs, edit, and come and go, each with one client or two.

Whom they talk to and when follows from the seed; what comes of it does not, because processes and networks do as they
please. Each device keeps what it was shown, each message when it was acknowledged: `tests.benchmarks.chaos.verdict`
looks at both.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple, TypeVar

import httpx

from fastsock.client import (
    Api,
    ApiError,
    Client,
    Connected,
    Disconnected,
    Event,
    Left,
    MemberJoined,
    MemberLeft,
    MessageDeleted,
    MessageReceived,
    MessageUpdated,
    Refused,
    Reload,
    Resumed,
    RoomCreated,
)
from fastsock.schemas import names
from tests.benchmarks.chaos.verdict import Device, Let, Request, Seen, Sent

PASSWORD = "correct horse battery"
AGAIN_S = 0.3
"""Between two tries of an HTTP request that failed for a while."""
SETTLE_S = 0.1
READY_WITHIN_S = 60.0
REMEMBERED = 20
"""Messages of their own that somebody may still edit."""

T = TypeVar("T")


class Size(NamedTuple):
    """How many people, and how busy."""

    people: int = 20
    second_devices: int = 6
    rooms: int = 5
    members: int = 8
    """Of each room, at the start."""
    pairs: int = 10
    messages_per_s: float = 30.0
    edits_per_s: float = 1.5
    changes_per_s: float = 0.3
    """Members who join or leave, and new rooms."""


@dataclass
class Person:
    """Somebody with an account."""

    email: str
    id: int
    friends: list[int] = field(default_factory=list)
    rooms: set[int] = field(default_factory=set)
    """As this person's first device sees it."""
    clients: list[Client] = field(default_factory=list)
    own: deque[Sent] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    """Messages that may be edited."""


class People:
    """All of them. `gather`, then `talk` for as long as there is to be load, then `settle`."""

    def __init__(self, url: str, seed: int, size: Size) -> None:
        self.sent: list[Sent] = []
        self.requests: list[Request] = []
        self.devices: list[Device] = []
        self.failure: BaseException | None = None
        """What has ended a device that should never end."""
        self.retried = 0
        """HTTP requests that were tried again."""
        self._url = url
        self._size = size
        self._random = random.Random(f"people {seed}")
        self._people: list[Person] = []
        self._owners: dict[int, Person] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[asyncio.Task[None]] = []
        self._numbers = count(1)

    @property
    def outstanding(self) -> int:
        """Messages and other changes that are on their way."""
        return len(self._tasks)

    @property
    def acked(self) -> Iterator[Sent]:
        return (one for one in self.sent if one.acked_at is not None)

    @property
    def conversations(self) -> set[str]:
        """In which somebody has spoken."""
        return {one.conversation for one in self.sent}

    # --- before --------------------------------------------------------------------------------------------------

    async def gather(self) -> None:
        """Make accounts, rooms and clients; all are connected when this returns."""
        size, rng = self._size, self._random
        api = Api(self._url)
        try:
            for number in range(size.people):
                email = f"chaos-{number}@example.com"
                user = await self._patiently(lambda email=email: api.signup(email, PASSWORD, "Somebody"))  # type: ignore[misc]
                self._people.append(Person(email, user.id))
        finally:
            await api.aclose()
        for person in self._people:
            await self._open(person)
        for _ in range(size.rooms):
            await self._new_room(rng.choice(self._people), size.members)
        for _ in range(size.pairs):
            one, other = rng.sample(self._people, 2)
            one.friends.append(other.id)
            other.friends.append(one.id)
        for person in rng.sample(self._people, size.second_devices):
            await self._open(person)

    async def _open(self, person: Person) -> None:
        client = Client.login(self._url, person.email, PASSWORD)
        await client.__aenter__()
        device = Device(f"user {person.id} device {len(person.clients) + 1}", person.id)
        person.clients.append(client)
        self.devices.append(device)
        self._listeners.append(asyncio.create_task(self._listen(person, client, device)))
        await client.wait_connected(READY_WITHIN_S)

    # --- listening -----------------------------------------------------------------------------------------------

    async def _listen(self, person: Person, client: Client, device: Device) -> None:
        first = client is person.clients[0]
        try:
            async for event in client:
                if isinstance(event, Connected) and not event.resuming:
                    device.heads = {names.private(name, person.id): seq for name, seq in client.positions.items()}
                self._note(device, event)
                if first:
                    _follow(person, event)
        except Exception as error:  # noqa: BLE001 - a client that stops is a finding, which the program reports
            self.failure = error

    def _note(self, device: Device, event: Event) -> None:
        now = asyncio.get_running_loop().time()
        match event:
            case Connected(resuming=False) | Resumed():
                device.ups.append(now)
            case Disconnected():
                device.downs.append(now)
            case Left(conversation=name) | Reload(conversation=name):
                conversation = names.private(name, device.user_id)
                last = max((seen.seq for seen in device.seen if seen.conversation == conversation), default=0)
                device.let.append(Let(conversation, max(last, device.heads.get(conversation, 0))))
            case MessageReceived() | MessageUpdated() | MessageDeleted():
                device.seen.append(_seen(device, event, event.id))
            case RoomCreated() | MemberJoined() | MemberLeft():
                device.seen.append(_seen(device, event, None))

    # --- talking -------------------------------------------------------------------------------------------------

    async def talk(self, until: float) -> None:
        """Talk until this time of the loop's clock; what was said last may be on its way still."""
        size = self._size
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again_and_again(size.messages_per_s, until, self._say))
            group.create_task(self._again_and_again(size.edits_per_s, until, self._edit))
            group.create_task(self._again_and_again(size.changes_per_s, until, self._change))

    async def _again_and_again(self, per_s: float, until: float, act: Callable[[], Awaitable[None]]) -> None:
        """Begin something so often, at random times, however long it takes: people do not wait for servers."""
        loop = asyncio.get_running_loop()
        at = loop.time()
        while per_s > 0 and (at := at + self._random.expovariate(per_s)) < until and self.failure is None:
            await asyncio.sleep(max(0.0, at - loop.time()))
            task = asyncio.ensure_future(act())
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = error

    async def _say(self) -> None:
        person = self._random.choice(self._people)
        client = self._random.choice(person.clients)
        name = f"m{next(self._numbers)}"
        now = asyncio.get_running_loop().time
        room_id = to = None
        if person.rooms and (not person.friends or self._random.random() < 0.6):
            room_id = self._random.choice(sorted(person.rooms))
            one = Sent(name, person.id, names.room(room_id), now())
        else:
            to = self._random.choice(person.friends or [person.id])
            one = Sent(name, person.id, names.dm(person.id, to), now())
        self.sent.append(one)
        try:
            ack = await client.send(f"this is {name}", room_id=room_id, to=to, client_msg_id=name)
        except Refused as refusal:
            one.refused = refusal.code
        else:
            one.acked_at, one.message_id, one.seq = now(), ack.message_id, ack.seq
            person.own.append(one)

    async def _edit(self) -> None:
        person = self._random.choice(self._people)
        if not person.own:
            return
        message, name = self._random.choice(list(person.own)), f"e{next(self._numbers)}"
        assert message.message_id is not None
        id_, now = message.message_id, asyncio.get_running_loop().time
        one = Sent(name, person.id, message.conversation, now(), edit=True, message_id=id_)
        self.sent.append(one)
        api = person.clients[0].api
        try:
            await self._patiently(lambda: api.edit(id_, f"this is {name}", key=name))
        except ApiError as error:
            one.refused = error.code
        else:
            one.acked_at = now()

    # --- members -------------------------------------------------------------------------------------------------

    async def _change(self) -> None:
        """Somebody joins a room, leaves one, or makes one."""
        room_id = self._random.choice(sorted(self._owners))
        owner, other = self._owners[room_id], self._random.choice(self._people)
        api, key = owner.clients[0].api, f"k{next(self._numbers)}"
        dice = self._random.random()
        try:
            if dice < 0.1:
                await self._new_room(other, 3)
            elif other is owner:
                return
            elif room_id in other.rooms:
                await self._patiently(lambda: api.remove_member(room_id, other.id, key=key))
            else:
                await self._patiently(lambda: api.add_members(room_id, [other.id], key=key))
        except ApiError as error:
            if error.code not in {"not_a_member", "already_a_member"}:  # two changed the same at once
                raise

    async def _new_room(self, owner: Person, members: int) -> None:
        chosen = [person.id for person in self._random.sample(self._people, members)]
        # Making a room has no key: where the answer is lost there will be two of them, which is nobody's harm here.
        room = await self._patiently(lambda: owner.clients[0].api.create_room("A room", chosen))
        self._owners[room.id] = owner

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Try an HTTP request until it is answered for good."""
        now = asyncio.get_running_loop().time
        while True:
            began = now()
            try:
                answer = await ask()
            except httpx.TransportError:
                pass  # whoever was to answer has died
            except ApiError as error:
                if not error.retryable and error.code != "internal":
                    raise
            else:
                self.requests.append(Request(began, now()))
                return answer
            self.retried += 1
            await asyncio.sleep(AGAIN_S)

    # --- after ---------------------------------------------------------------------------------------------------

    async def settle(self, heads: Callable[[], Awaitable[dict[int, dict[str, int]]]], within_s: float) -> bool:
        """Wait until everything is answered and every device stands where the log ends; whether that came to be.

        ``heads`` asks the database where each user's conversations stand.
        """
        try:
            async with asyncio.timeout(within_s):
                while self._tasks:
                    await asyncio.wait(self._tasks)
                while not self._caught_up(await heads()):  # noqa: ASYNC110 - the database calls nobody
                    await asyncio.sleep(SETTLE_S)
        except TimeoutError:
            return False
        return True

    def _caught_up(self, heads: dict[int, dict[str, int]]) -> bool:
        return all(
            {names.private(name, person.id): seq for name, seq in client.positions.items() if seq}
            == heads.get(person.id, {})
            for person in self._people
            for client in person.clients
        )

    async def leave(self) -> None:
        """Close every client; whatever is on its way still is given up."""
        for task in (*self._tasks, *self._listeners):
            task.cancel()
        clients = [client for person in self._people for client in person.clients]
        await asyncio.gather(*(client.close(0.0) for client in clients), return_exceptions=True)
        await asyncio.gather(*self._tasks, *self._listeners, return_exceptions=True)


def _follow(person: Person, event: Event) -> None:
    """Know which rooms there are to talk in."""
    match event:
        case RoomCreated(room_id=room_id):
            person.rooms.add(room_id)
        case MemberJoined(room_id=room_id, user_ids=users) if person.id in users:
            person.rooms.add(room_id)
        case MemberLeft(room_id=room_id, user_ids=users) if person.id in users:
            person.rooms.discard(room_id)
        case Left(conversation=name) if name.startswith("room:"):
            person.rooms.discard(names.parse(name).ids[0])


_Entry = MessageReceived | MessageUpdated | MessageDeleted | RoomCreated | MemberJoined | MemberLeft

_KINDS: dict[type, str] = {
    MessageReceived: "message",
    MessageUpdated: "edit",
    MessageDeleted: "delete",
    RoomCreated: "created",
    MemberJoined: "joined",
    MemberLeft: "left",
}


def _seen(device: Device, event: _Entry, id_: int | None) -> Seen:
    return Seen(names.private(event.conversation, device.user_id), event.seq, _KINDS[type(event)], id_)
