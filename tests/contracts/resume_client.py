"""A naive client: what it has of each conversation is made of events alone, and compared with the database.

Its rule: an entry is applied if it is the next of its conversation; what came before is dropped; after a gap it is
dropped too, and the conversation is resumed from the last entry that was applied, unless a resume is under way: then it
is looked at again when that is over. A conversation that is not known begins with the first entry that is seen; until
the socket's first resume is over, with the entry that lets the user in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from msgspec.structs import asdict

from fastsock.schemas import names
from fastsock.schemas.frames import message_of
from tests.contracts.resume_gateways import LiveGateway, Socket
from tests.contracts.resume_world import World

PAGE = 50
CHANGES = ("message_id", "message_seq", "by")
"""What ``message.update`` and ``message.delete`` say beside the message."""


@dataclass
class Conversation:
    """What a client has of one conversation: everything from entry ``start`` on, up to ``last``."""

    start: int
    last: int
    joined: int = 0
    """Fetched afresh: the entry that made the user a member."""
    messages: dict[int, dict[str, Any]] = field(default_factory=dict)
    """By ``message_id``, in the order of the log: the message objects of ``protocol.md``."""
    name: str | None = None
    members: set[int] | None = None
    """Both None for a direct conversation."""
    markers: dict[str, Any] = field(default_factory=dict)


async def fetch(world: World, user: int, public: str) -> Conversation | None:
    """The conversation over HTTP, as it is now; None if the user is no member."""
    private = names.private(public, user)
    room, members = None, None
    if public.startswith("room:"):
        room_id = names.parse(public).ids[0]
        members = {member.user_id for member in await world.conversations.members(room_id)}
        if user not in members:
            return None
        found = await world.conversations.room(room_id)
        assert found is not None
        room = found.name
    messages, after = {}, 0
    while page := await world.log.history(private, after=after, limit=PAGE):
        messages.update({entry.id: json.loads(msgspec.json.encode(message_of(entry))) for entry in page})
        after = page[-1].seq
    last = (await world.log.heads([private]))[private]
    return Conversation(1, last, 0, messages, room, members)


class Afresh:
    """What the database holds now; each conversation is fetched once, whoever asks."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._fetched: dict[str, Conversation | None] = {}

    async def of(self, user: int) -> dict[str, Conversation]:
        """Everything that is the user's, markers included."""
        standing = (await self._world.conversations.standings([user]))[user]
        afresh = {}
        for private, joined in standing.joined.items():
            public = names.public(private, user)
            if private not in self._fetched:
                self._fetched[private] = await fetch(self._world, user, public)
            found = self._fetched[private]
            assert found is not None
            marks = standing.markers.get(private, {})
            afresh[public] = replace(
                found, joined=joined, markers={str(whose): asdict(marks[whose]) for whose in marks}
            )
        return afresh


class Client:
    """One device of one user."""

    def __init__(self, world: World, user: int) -> None:
        self.world = world
        self.user = user
        self.state: dict[str, Conversation] = {}
        self.socket: Socket | None = None
        self.ready = False
        self.resuming = False
        self._anew = False
        self._behind: set[str] = set()
        """Where entries were dropped after a gap."""
        self._back: set[str] = set()
        """Where one of them lets the user in again."""
        self.silent = True
        self.first = True
        """Whether no resume of this socket is over."""
        self.leaps: list[str] = []
        """Entries that were not the next ones, while no resume was under way."""

    # --- the socket ----------------------------------------------------------------------------------------------

    def connect(self, gateway: LiveGateway, *, anew: bool = False) -> None:
        """Open a socket; ``anew``: forget everything and load it over HTTP, instead of resuming."""
        self.socket = gateway.connect(self.user)
        self.ready = self.resuming = False
        self.silent = self.first = True
        self._anew = anew
        self._behind.clear()
        self._back.clear()

    def lose(self) -> Socket | None:
        """Lose the socket, and whatever was on its way; its gateway does not know yet."""
        socket, self.socket = self.socket, None
        self.ready = self.resuming = False
        return socket

    def speak(self) -> LiveGateway | None:
        """Say something that is no resume; the gateway that hears it, None if none can."""
        if self.socket is None or not self.ready or not self.socket.gateway.alive():
            return None
        if self.silent:
            self.silent = False
            self.socket.gateway.spoke(self.socket)
        return self.socket.gateway

    def resume(self, *public: str) -> None:
        """Ask for what follows the last entry of these conversations."""
        assert self.socket is not None
        if self.socket.gateway.alive() and not self.resuming:
            wanted = {name: self.state[name].last for name in public}
            self.resuming, self.silent = True, False
            self._behind.difference_update(public)
            data = {"event": "session.resume", "data": {"conversations": wanted}}
            self.socket.gateway.resume(self.socket, json.dumps(data).encode())

    # --- events --------------------------------------------------------------------------------------------------

    async def read(self, frames: int | None = None) -> bool:
        """Take so many frames from the socket (None: all there are); whether there was one."""
        if self.socket is not None and (self.socket.closed or not self.socket.gateway.alive()):
            self.lose()
        busy = False
        while self.socket is not None and self.socket.inbox and frames != 0:
            busy = True
            frames = None if frames is None else frames - 1
            frame = json.loads(self.socket.inbox.popleft())
            self.world.trace.append(f"      {self.socket.connection_id} of {self.user} gets {_shown(frame)}")
            await self._event(frame["event"], frame["data"])
        return busy

    async def _event(self, event: str, data: dict[str, Any]) -> None:
        match event:
            case "session.ready":
                await self._greeted(data)
            case "session.resumed":
                await self._resumed(data)
            case "error":
                self.resuming = False
                self.resume(*self.state)
            case "room.created" | "room.member_joined" | "room.member_left":
                room_id = data["id"] if event == "room.created" else data["room_id"]
                await self._entry(event, names.room(room_id), data)
            case _:
                room_id, receiver, sender = data["room_id"], data["receiver_id"], data["sender_id"]
                other = receiver if sender == self.user else sender
                await self._entry(event, names.room(room_id) if room_id else f"user:{other}", data)

    async def _greeted(self, data: dict[str, Any]) -> None:
        assert not self.ready, "ready twice"
        self.ready = True
        if not self._anew:
            self.resume(*self.state)
            return
        self.state = {}
        for listed in data["conversations"]:
            await self._load(listed["conversation"], listed["seq"])

    async def _load(self, name: str, last: int) -> None:
        """Fetch a conversation, of which this socket is shown what follows ``last``."""
        found = await fetch(self.world, self.user, name)
        if found is None:  # a member no more: its stream goes on until it says so
            await self._begin(name, last + 1)
        else:
            self.state[name] = replace(found, last=last)

    async def _resumed(self, data: dict[str, Any]) -> None:
        self.resuming = self.first = False
        reached = data["conversations"]
        assert data["complete"] is not bool(data["oldest"])
        for name in data["left"]:
            self.state.pop(name, None)
        for name in data["oldest"]:
            if name in reached:
                await self._load(name, reached[name])
            else:
                self.state.pop(name, None)
        for name, seq in reached.items():
            if name not in self.state:  # as above
                await self._begin(name, seq + 1)
            last = self.state[name].last
            assert last == seq or name in self._back, f"{name}: resumed up to {seq}, has {last}"
            if last == seq:
                self._behind.discard(name)
            self.state[name].markers = data["markers"].get(name, {})
        self._back.clear()
        self._heal()

    def _heal(self) -> None:
        behind = self._behind & self.state.keys()
        if behind and not self.resuming:
            self.resume(*sorted(behind))

    async def _begin(self, name: str, start: int) -> Conversation:
        """Know a conversation from this entry on, and who belongs to it; what was said before is not looked at."""
        conversation = self.state[name] = Conversation(start, start - 1)
        if name.startswith("room:"):
            found = await fetch(self.world, self.user, name)
            conversation.name, conversation.members = (None, set()) if found is None else (found.name, found.members)
        return conversation

    async def _entry(self, event: str, name: str, data: dict[str, Any]) -> None:
        seq = data["seq"]
        conversation = self.state.get(name)
        if conversation is None:
            if not self._lets_in(event, data):
                assert self.resuming, f"{name} begins with {event} #{seq}, which lets nobody in"
                if self.first:
                    return  # a live one that has overtaken the replay
            conversation = await self._begin(name, seq)
        if seq != conversation.last + 1 and not self.resuming:
            self.leaps.append(f"{name}: {event} #{seq} after #{conversation.last}")
        if seq <= conversation.last:
            return
        if seq > conversation.last + 1:
            self._behind.add(name)
            if self._lets_in(event, data):
                self._back.add(name)
            self._heal()
            return
        conversation.last = seq
        self._apply(event, name, conversation, data)

    def _lets_in(self, event: str, data: dict[str, Any]) -> bool:
        if event == "room.created":
            return self.user in data["member_ids"]
        if event == "room.member_joined":
            return self.user in data["user_ids"]
        return event == "message.receive" and data["seq"] == 1

    def _apply(self, event: str, name: str, conversation: Conversation, data: dict[str, Any]) -> None:
        match event:
            case "message.receive":
                conversation.messages[data["id"]] = data
            case "message.update" | "message.delete":
                if data["message_seq"] >= conversation.start:
                    message = {key: value for key, value in data.items() if key not in CHANGES}
                    conversation.messages[data["id"]] = {**message, "seq": data["message_seq"]}
            case "room.created":
                conversation.name, conversation.members = data["name"], set(data["member_ids"])
            case "room.member_joined":
                assert conversation.members is not None
                conversation.members |= set(data["user_ids"])
            case "room.member_left":
                assert conversation.members is not None
                conversation.members -= set(data["user_ids"])
                if self.user in data["user_ids"]:
                    del self.state[name]
            case other:
                raise AssertionError(f"what is {other}?")

    # --- the property --------------------------------------------------------------------------------------------

    async def check(self, source: Afresh, *, markers: bool) -> None:
        """State before + events == state fetched afresh."""
        afresh = await source.of(self.user)
        who = f"user {self.user}"
        assert self.state.keys() == afresh.keys(), f"{who} has {sorted(self.state)}, there are {sorted(afresh)}"
        for name, fresh in afresh.items():
            mine = self.state[name]
            assert mine.last == fresh.last, f"{who}: {name} ends with {mine.last}, its log with {fresh.last}"
            assert mine.start <= fresh.joined, f"{who}: {name} is known from {mine.start} on, not from {fresh.joined}"
            known = {id_: message for id_, message in fresh.messages.items() if message["seq"] >= mine.start}
            assert list(mine.messages) == list(known), f"{who}: {name} has other messages than the log"
            for id_, message in known.items():
                assert mine.messages[id_] == message, f"{who}: {name}: {mine.messages[id_]} instead of {message}"
            assert mine.name == fresh.name, f"{who}: {name} is called {mine.name!r} instead of {fresh.name!r}"
            assert mine.members == fresh.members, f"{who}: {name} has members {mine.members}, not {fresh.members}"
            if markers:
                assert mine.markers == fresh.markers, f"{who}: {name}: {mine.markers} instead of {fresh.markers}"


def _shown(frame: dict[str, Any]) -> str:
    data = frame["data"]
    picked = {key: data[key] for key in ("room_id", "id", "seq", "message_seq", "content", "user_ids") if key in data}
    return f"{frame['event']} {picked or data}"
