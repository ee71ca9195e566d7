"""A naive server for one client core, with every fault that a seeded list of steps asks for.

It keeps the contract of ``session.resume`` (per socket and conversation: the replay, then live, without gap or repeat)
but holds no live frames back before a resume, and on request it *breaks* the contract: frames are lost and repeated.
Every event that the core emits is checked against the log as it comes.
"""

from __future__ import annotations

import json
import random
from collections import deque
from typing import Any

from fastsock.client import events
from fastsock.client.actions import Action, Connect, Disconnect, Emit, Reject, RenewToken, Resolve, Send, Stop
from fastsock.client.core import Core, Phase
from fastsock.client.settings import Settings

ME = 3
PEER = 7
ROOMS = ("room:1", "room:2")
DIRECT = f"user:{PEER}"
NAMES = (*ROOMS, DIRECT)
BOUND = 12
"""Entries of a known conversation that a resume replays."""
NEW_BOUND = 6
WHEN = "2026-01-31T10:00:00.123Z"
SETTINGS = Settings(
    window=4,
    outbox_limit=8,
    resume_names=2,
    backoff_base_ms=100,
    backoff_cap_ms=2_000,
    messages_per_s=50.0,
    ack_patience_ms=5_000,
    resume_patience_ms=5_000,
)


def frame(event: str, data: object) -> bytes:
    return json.dumps({"event": event, "data": data}).encode()


class Log:
    """One conversation: its entries as frames' ``(event, data)``, and when this user belongs to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.entries: list[tuple[str, dict[str, Any]]] = []
        self.visible: set[int] = set()
        self.joined: int | None = 1 if name == DIRECT else None

    @property
    def head(self) -> int:
        return len(self.entries)

    def place(self) -> dict[str, Any]:
        return {"room_id": int(self.name[5:])} if self.name in ROOMS else {}

    def add(self, event: str, **data: Any) -> int:
        self.entries.append((event, {**self.place(), "seq": self.head + 1, "timestamp": WHEN, **data}))
        if self.joined is not None:
            self.visible.add(self.head)
        return self.head

    def frame(self, seq: int) -> bytes:
        return frame(*self.entries[seq - 1])


class Socket:
    """One connection: what is under way in both directions, and how far each conversation has been shown."""

    def __init__(self) -> None:
        self.to_client: deque[bytes] = deque()
        self.to_server: deque[bytes] = deque()
        self.shown: dict[str, int] = {}
        self.ready = False
        self.resumed = False


class World:
    """The server, the core, and what the program has seen."""

    def __init__(self, *, positions: dict[str, int] | None = None) -> None:
        self.now_ms = 1_000
        self.random = random.Random(0)
        self.logs = {name: Log(name) for name in NAMES}
        self.acks: dict[str, dict[str, Any]] = {}
        self.socket: Socket | None = None
        self.opening = False
        self.refusals: deque[str] = deque()
        self.sent: dict[str, dict[str, Any]] = {}
        self.resolved: dict[str, events.Ack] = {}
        self.positions: dict[str, int] = dict(positions or {})
        self.counts: dict[str, int] = {}
        self.reloaded: set[str] = set()
        for name in ROOMS:
            self.add_me(name)
        self.core = Core(self.random.random, positions, SETTINGS)
        self.perform(self.core.start())

    # --- the core's side -----------------------------------------------------------------------------------------

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Connect():
                    self.opening = True
                case Send(payload):
                    assert self.socket is not None, "a frame without a socket"
                    self.socket.to_server.append(payload)
                case Emit(event, moves):
                    self.emitted(event, dict(moves))
                case Resolve(name, ack):
                    assert name not in self.resolved, f"{name} is resolved twice"
                    assert ack.seq == self.acks[name]["seq"]
                    self.resolved[name] = ack
                case Disconnect(code, reason):
                    assert reason
                    self.count("disconnect")
                    self.end(code)
                case Reject() | RenewToken() | Stop():
                    raise AssertionError(f"not expected here: {action!r}")
        assert self.positions == self.core.positions

    def emitted(self, event: events.Event, moves: dict[str, int | None]) -> None:
        self.count(type(event).__name__)
        match event:
            case events.Connected() | events.Disconnected() | events.ServerError():
                pass
            case events.Resumed():
                for name, seq in moves.items():
                    assert self.positions.get(name, seq) == seq, "a position moves without a Reload"
            case events.Reload(conversation=name, seq=seq):
                assert moves == {name: seq}
                self.reloaded.add(name)
            case events.Left(conversation=name):
                assert moves.keys() == {name}
                assert any(what == "room.member_left" for what, _ in self.logs[name].entries)
            case _:
                self.entry(event, moves)
        for name, seq in moves.items():
            if seq is None:
                self.positions.pop(name, None)
            else:
                self.positions[name] = seq

    def entry(self, event: events.Entry, moves: dict[str, int | None]) -> None:
        """An entry follows the last one, or begins a membership; nothing else is ever applied."""
        name, seq = event.conversation, event.seq
        assert name is not None
        assert seq is not None
        log = self.logs[name]
        assert seq in log.visible, f"{name} #{seq} was not for us"
        last = self.positions.get(name)
        starts = events.starts_membership(event, ME)
        assert last is None or seq == last + 1, f"{name} #{seq} was applied after #{last}"
        if last is None and not starts:
            assert name in self.reloaded, f"{name} begins with #{seq}"
        assert moves == {name: None if events.ends_membership(event, ME) else seq}
        if isinstance(event, events.MessageReceived):
            assert event.content == log.entries[seq - 1][1]["content"]

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def send(self, name: str) -> None:
        if self.core.outbox.full:
            return
        client_msg_id = f"m{len(self.sent)}"
        place = {"room_id": int(name[5:])} if name in ROOMS else {"receiver_id": PEER}
        self.sent[client_msg_id] = {"content": f"text of {client_msg_id}", **place}
        self.perform(self.core.send(client_msg_id, self.sent[client_msg_id], self.now_ms))

    def restart(self) -> None:
        """The process dies; another goes on with the positions and the messages that have no ack."""
        self.socket = None
        self.opening = False
        self.core = Core(self.random.random, self.positions, SETTINGS)
        self.perform(self.core.start())
        for name, data in self.sent.items():
            if name not in self.resolved:
                self.perform(self.core.send(name, data, self.now_ms))

    # --- the network ---------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Let the client connect, if it wants to."""
        if self.opening:
            self.opening = False
            self.socket = Socket()
            self.perform(self.core.connected(self.now_ms, "token"))

    def end(self, code: int) -> None:
        """The connection is lost, with everything under way."""
        if self.socket is not None:
            self.socket = None
            self.perform(self.core.closed(code, "lost", self.now_ms))

    def deliver(self, count: int) -> None:
        while count and self.socket is not None and self.socket.to_client:
            count -= 1
            self.perform(self.core.frame(self.socket.to_client.popleft(), self.now_ms))

    def pass_time(self, ms: int) -> None:
        self.now_ms += ms
        due_ms = self.core.next_deadline_ms()
        if due_ms is not None and due_ms <= self.now_ms:
            self.perform(self.core.tick(self.now_ms))

    def spoil(self, pick: int, *, repeat: bool) -> None:
        """Lose an entry that is under way, or repeat it at the end."""
        if self.socket is None or not self.socket.to_client:
            return
        at = pick % len(self.socket.to_client)
        payload = self.socket.to_client[at]
        data = json.loads(payload)
        if "seq" not in data["data"] or data["event"] == "message.ack":
            return
        if repeat:
            self.socket.to_client.append(payload)
        elif not self.starts(data):
            del self.socket.to_client[at]

    @staticmethod
    def starts(sent: dict[str, Any]) -> bool:
        """Whether nothing could tell that this entry is missing: the first that is ever shown."""
        if sent["event"] == "room.member_joined":
            return ME in sent["data"]["user_ids"]
        return sent["event"] == "room.created" or ("room_id" not in sent["data"] and sent["data"]["seq"] == 1)

    # --- the server ----------------------------------------------------------------------------------------------

    def post(self, name: str, **data: Any) -> int:
        log = self.logs[name]
        sender = data.get("sender_id", PEER)
        receiver = None if name in ROOMS else ME if sender == PEER else PEER
        number = log.head + 1
        seq = log.add(
            "message.receive",
            **{"id": number, "content": f"#{number}", "sender_id": sender, "receiver_id": receiver, **data},
        )
        self.show(name)
        return seq

    def add_me(self, name: str) -> None:
        log = self.logs[name]
        if log.joined is not None:
            return
        log.joined = log.head + 1
        if log.head:
            log.add("room.member_joined", user_ids=[ME], by=PEER)
        else:
            log.add("room.created", name="r", owner_id=PEER, member_ids=[ME, PEER])
        if self.socket is not None and self.socket.ready:
            self.socket.shown[name] = log.head - 1
            self.show(name)

    def remove_me(self, name: str) -> None:
        log = self.logs[name]
        if log.joined is None:
            return
        log.add("room.member_left", user_ids=[ME], by=PEER)
        log.joined = None
        self.show(name)
        if self.socket is not None:
            self.socket.shown.pop(name, None)

    def show(self, name: str) -> None:
        """Write to the socket what it has not been shown of a conversation."""
        socket, log = self.socket, self.logs[name]
        if socket is None or name not in socket.shown:
            return
        for seq in range(socket.shown[name] + 1, log.head + 1):
            if seq in log.visible:
                socket.to_client.append(log.frame(seq))
        socket.shown[name] = log.head

    def serve(self, count: int) -> None:
        while count and self.socket is not None and self.socket.to_server:
            count -= 1
            said = json.loads(self.socket.to_server.popleft())
            match said["event"]:
                case "session.authenticate":
                    self.greet(self.socket)
                case "session.resume":
                    self.resume(self.socket, said["data"]["conversations"])
                case "message.send":
                    self.take(self.socket, said["data"])

    def greet(self, socket: Socket) -> None:
        socket.ready = True
        socket.shown = {name: log.head for name, log in self.logs.items() if log.joined is not None}
        listed = [{"conversation": name, "seq": seq, "unread": 0} for name, seq in socket.shown.items()]
        about = {"connection_id": "c", "user_id": ME, "server_time": WHEN, "heartbeat_s": 20}
        socket.to_client.append(frame("session.ready", {**about, "conversations": listed}))

    def refusal(self, event: str, client_msg_id: str | None) -> bytes | None:
        if not self.refusals:
            return None
        code = self.refusals.popleft()
        about = {"code": code, "message": code, "context_event": event, "client_msg_id": client_msg_id}
        return frame("error", {**about, "retryable": True, "retry_after_ms": 70})

    def take(self, socket: Socket, data: dict[str, Any]) -> None:
        name = data["client_msg_id"]
        refusal = self.refusal("message.send", name)
        if refusal is not None and name not in self.acks:
            socket.to_client.append(refusal)
            return
        where = f"room:{data['room_id']}" if "room_id" in data else DIRECT
        if name not in self.acks:
            seq = self.post(where, sender_id=ME, content=data["content"], client_msg_id=name)
            self.acks[name] = {"message_id": seq, "seq": seq, "timestamp": WHEN, "client_msg_id": name}
        socket.to_client.append(frame("message.ack", self.acks[name]))

    def resume(self, socket: Socket, wanted: dict[str, int]) -> None:
        refusal = self.refusal("session.resume", None)
        if refusal is not None:
            socket.to_client.append(refusal)
            return
        mine = {name: log for name, log in self.logs.items() if log.joined is not None}
        since = {name: seq for name, seq in wanted.items() if name in mine}
        if not socket.resumed:
            since |= {name: (log.joined or 1) - 1 for name, log in mine.items() if name not in wanted}
        socket.resumed = True
        oldest = {}
        for name, seq in since.items():
            bound = BOUND if name in wanted else NEW_BOUND
            if not mine[name].head - bound <= seq <= mine[name].head:
                oldest[name] = max(0, mine[name].head - bound) + 1
            else:
                socket.shown[name] = seq
                self.show(name)
        answer = {
            "conversations": {name: mine[name].head for name in since},
            "complete": not oldest,
            "oldest": oldest,
            "left": [name for name in wanted if name not in mine],
            "markers": {},
        }
        socket.to_client.append(frame("session.resumed", answer))

    # --- the end -------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """No faults any more: everything under way arrives, and what is due happens."""
        for _ in range(500):
            self.open()
            self.serve(100)
            self.deliver(1_000)
            due_ms = self.core.next_deadline_ms()
            if self.socket is not None and self.socket.to_server:
                continue
            resuming = self.core.streams.asked is not None or "resume" in self.core._at
            if self.core.phase is Phase.LIVE and not resuming and not len(self.core.outbox):
                return
            assert due_ms is not None or self.opening, "nothing will ever happen again"
            if due_ms is not None and not self.opening:
                self.pass_time(max(0, due_ms - self.now_ms))
        raise AssertionError(f"never quiet: {self.core.phase}, {len(self.core.outbox)} in the outbox")
