"""People in the simulated world: they send, resend, lose their sockets and come back; and they notice everything."""

from __future__ import annotations

import json
from dataclasses import dataclass

from actors.commands import AddMembers, RemoveMember, Send
from actors.effects import Failure
from fastsock.schemas import frames, names
from fastsock.schemas.log import Standing
from tests.simulation.gateways import SimGateway, Socket
from tests.simulation.world import World

RELOADS = 0.1
"""Clients that come back and begin anew instead of resuming."""
RESUME_AFTER_MS = (0, 0, 5, 100, 400)
"""How long a client thinks before it resumes; the last is longer than its gateway waits."""


class Violation(AssertionError):  # noqa: N818 - what it is called in the report
    """A guarantee does not hold."""


@dataclass
class Sent:
    """A message that its sender wants to have acknowledged; ``tries`` counts how often it was sent."""

    conversation: str
    client_msg_id: str
    content: str
    tries: int = 0


class ClientSocket(Socket):
    """What one socket has been shown: for each conversation, the number of the last entry."""

    def __init__(self, client: Client, gateway: SimGateway, connection_id: str) -> None:
        super().__init__(gateway, connection_id, client.user)
        self.client = client
        self.heads: dict[str, int] | None = None
        self.last: dict[str, int] = {}
        self.ended: set[str] = set()
        """Conversations whose end, for this user, was the last that was shown."""
        self.resuming: dict[str, int] | None = None
        """What was named in the resume under way."""
        self.has_resumed = False
        self.rewound: set[str] = set()
        """What the resume under way is replaying; what it names besides is let in by an entry still to come."""
        self.dead = False

    def ready(self, heads: dict[str, int]) -> None:
        if self.heads is not None:
            raise Violation(f"{self.connection_id}: ready twice")
        self.heads = dict(heads)
        self.last = dict(heads)
        self.client.greeted(self, heads)
        self.client.resend()

    def frame(self, payload: bytes) -> None:
        """Check a frame against guarantee 1 (order), 2 (nothing uncommitted is shown) and membership."""
        if self.dead:
            raise Violation(f"{self.connection_id}: a frame after the end")
        if self.heads is None:
            raise Violation(f"{self.connection_id}: a frame before session.ready")
        data = json.loads(payload)["data"]
        log = self.client.world.log
        if data.get("room_id") is not None:
            conversation: str = names.room(data["room_id"])
        else:
            conversation = names.dm(data["sender_id"], data["receiver_id"])
        seq = data["seq"]
        entries = log.logs.get(conversation, [])
        if seq > len(entries):
            raise Violation(f"{self.connection_id}: {conversation} #{seq} was shown before it was committed")
        last = self.last.get(conversation)
        lets_in = self.user in frames.joins(entries[seq - 1])
        if last is not None and seq != last + 1 and not (lets_in and conversation in self.ended):
            raise Violation(f"{self.connection_id}: {conversation} #{seq} came after #{last}")
        if last is None and not lets_in:
            raise Violation(f"{self.connection_id}: {conversation} began with #{seq}, which is not where it was let in")
        if not self.client.may_see(conversation, seq):
            raise Violation(
                f"{self.connection_id}: {conversation} #{seq} was shown to user {self.user}, no member then"
            )
        if "content" in data and data["id"] != entries[seq - 1].id and entries[seq - 1].kind == "message":
            raise Violation(f"{self.connection_id}: {conversation} #{seq} is not what is in the log")
        self._shown(conversation, seq, lets_in=lets_in)

    def _shown(self, conversation: str, seq: int, *, lets_in: bool) -> None:
        self.last[conversation] = seq
        if self.user in frames.leaves(self.client.world.log.logs[conversation][seq - 1]):
            self.ended.add(conversation)
        elif lets_in:
            self.ended.discard(conversation)
        self.client.apply(self, conversation, seq)

    def answered(self, context: object, payload: bytes) -> None:
        assert isinstance(context, tuple)
        sent = context[1]
        if isinstance(sent, Sent):
            self.client.acked(sent, json.loads(payload))

    def refused(self, context: object, failure: Failure) -> None:
        assert isinstance(context, tuple)
        sent = context[1]
        if isinstance(sent, Sent):
            self.client.refused(sent, failure)

    def closed(self) -> None:
        self.client.lose()

    # --- resuming ------------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Ask for everything that this client has not got."""
        if not self.dead and self.resuming is None:
            self.resuming = dict(self.client.positions)
            self.gateway.resume(self, self.resuming)

    def resume_taken(self, standing: Standing, reached: dict[str, int]) -> None:
        assert self.resuming is not None, "nobody has asked for a resume"
        since = {} if self.has_resumed else {name: seq - 1 for name, seq in standing.joined.items()}
        self.has_resumed = True
        self.rewound.clear()
        for name, seq in (since | self.resuming).items():
            if name in reached and seq <= max(reached[name], standing.heads.get(name, 0)):
                self.last[name] = seq
                self.rewound.add(name)
                if not self.client.world.log.is_member(name, self.user, seq):
                    self.ended.add(name)

    def resume_failed(self) -> None:
        self.resuming = None
        self.client.world.after(500, self.resume)

    def resumed(self, reached: dict[str, int], oldest: dict[str, int], left: list[str]) -> None:
        """Guarantee 4: everything has come, in order, when the resume is over."""
        self.resuming = None
        for name in oldest:
            if (
                self.user in self.client.world.log.members[name]
            ):  # else it has seen its end, of which none has told here
                raise Violation(f"{self.connection_id}: {name} should be reloaded, and is all in the log")
            self.client.positions.pop(name, None)
        for name, seq in reached.items():
            if name in oldest or name not in self.rewound:
                continue
            has = self.client.positions.get(name)
            if has != seq:
                raise Violation(f"{self.connection_id}: resumed, {name} stands at #{seq}, the client has got #{has}")
        for name in left:
            self.client.positions.pop(name, None)
        self.client.heal_gaps(self)


class Client:
    """One person with one device. Whatever is not acknowledged is sent again, with the same ``client_msg_id``."""

    def __init__(self, world: World, user: int) -> None:
        self.world = world
        self.user = user
        self.socket: ClientSocket | None = None
        self.outbox: dict[str, Sent] = {}
        self.acks: dict[str, tuple[str, int, int]] = {}
        self.final_refusals = 0
        self._count = 0
        self._rng = world.stream(f"user {user}")
        self.sockets = 0
        self.positions: dict[str, int] = {}
        """The last entry that this person has got of each conversation, whichever socket it came on."""
        self._gaps: set[str] = set()
        self._known = False

    # --- what it has got -----------------------------------------------------------------------------------------

    def greeted(self, socket: ClientSocket, heads: dict[str, int]) -> None:
        """A new socket: most clients resume, soon or late; some begin anew from what the greeting says."""
        if not self._known or self._rng.random() < RELOADS:
            self._known = True
            self.positions = dict(heads)
            return
        delay_ms = self._rng.choice(RESUME_AFTER_MS)
        if delay_ms:
            self.world.after(delay_ms, socket.resume)
        else:
            socket.resume()

    def apply(self, socket: ClientSocket, conversation: str, seq: int) -> None:
        """The rule of ``session.resume``: apply the next entry, ignore an older one, resume after a gap."""
        last = self.positions.get(conversation)
        entry = self.world.log.logs[conversation][seq - 1]
        if last is not None and seq > last + 1:
            self._gaps.add(conversation)
            if socket.resuming is None:
                self.heal_gaps(socket)
        elif last is None or seq == last + 1:
            self.positions[conversation] = seq
            if self.user in frames.leaves(entry):
                del self.positions[conversation]

    def heal_gaps(self, socket: ClientSocket) -> None:
        """Ask for what lies before the entries that came too early, unless it has come meanwhile."""
        gaps, self._gaps = self._gaps, set()
        if gaps:
            self.world.after(1, socket.resume)

    # --- the socket ----------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Open a socket on any gateway that is alive."""
        if self.socket is not None or not self.world.gateways:
            return
        gateway = self._rng.choice(self.world.gateways)
        self.sockets += 1
        self.socket = ClientSocket(self, gateway, f"u{self.user}s{self.sockets}")
        gateway.connect(self.socket)

    def lose(self, *, notice: bool = True) -> None:
        """Lose the socket; ``notice`` says whether its gateway is alive to notice."""
        socket, self.socket = self.socket, None
        if socket is None:
            return
        socket.dead = True
        if notice and socket.gateway.alive:
            socket.gateway.disconnect(socket)
        self.world.after(self._rng.randint(10, 2_000), self.connect)

    # --- sending -------------------------------------------------------------------------------------------------

    def send(self, conversation: str) -> None:
        self._count += 1
        client_msg_id = f"u{self.user}m{self._count}"
        self.outbox[client_msg_id] = Sent(conversation, client_msg_id, f"{client_msg_id} in {conversation}")
        self._try(self.outbox[client_msg_id])

    def resend(self) -> None:
        """Send again what is not acknowledged, in order."""
        for sent in list(self.outbox.values()):
            self._try(sent)

    def _try(self, sent: Sent) -> None:
        socket = self.socket
        if socket is None or socket.heads is None:
            return
        sent.tries += 1
        command = Send(self.user, f"c:{sent.client_msg_id}", sent.content)
        socket.gateway.request(sent.conversation, command, (socket, sent))

    def manage(self, room: str, *, add: int | None = None, remove: int | None = None) -> None:
        """Add or remove a member; whether it succeeds is seen in the log."""
        socket = self.socket
        if socket is None or socket.heads is None:
            return
        self._count += 1
        key = f"s:u{self.user}a{self._count}"
        command = AddMembers(self.user, key, [add]) if add is not None else RemoveMember(self.user, key, remove or 0)
        socket.gateway.request(room, command, (socket, None))

    def acked(self, sent: Sent, ack: dict[str, object]) -> None:
        """Guarantee 2: what is acknowledged is in the log, where the ack says; 3: every ack says the same."""
        entries = self.world.log.logs.get(sent.conversation, [])
        seq, message_id = ack["seq"], ack["message_id"]
        assert isinstance(seq, int)
        assert isinstance(message_id, int)
        found = entries[seq - 1] if seq <= len(entries) else None
        if found is None or found.id != message_id or found.content != sent.content:
            raise Violation(f"user {self.user}: {sent.client_msg_id} was acknowledged as #{seq}, which is {found}")
        before = self.acks.setdefault(sent.client_msg_id, (sent.conversation, seq, message_id))
        if before != (sent.conversation, seq, message_id):
            raise Violation(f"user {self.user}: {sent.client_msg_id} was acknowledged as {before}, then as #{seq}")
        self.outbox.pop(sent.client_msg_id, None)

    def refused(self, sent: Sent, failure: Failure) -> None:
        """What may be tried again is tried again; a final refusal ends it."""
        if sent.client_msg_id not in self.outbox:
            return
        if failure.retry_after_ms is not None:
            self.world.after(failure.retry_after_ms, lambda: self._again(sent))
        else:
            self.final_refusals += 1
            del self.outbox[sent.client_msg_id]

    def _again(self, sent: Sent) -> None:
        if sent.client_msg_id in self.outbox:
            self._try(sent)

    # --- what is true --------------------------------------------------------------------------------------------

    def may_see(self, conversation: str, seq: int) -> bool:
        """Whether the log says that this user may be shown entry ``seq``.

        A member by then, or leaving by it; and who has come back since may read what happened in between.
        """
        log = self.world.log
        return log.was_member(conversation, self.user, seq) or log.comes_after(conversation, self.user, seq)


def check_end(world: World, clients: list[Client]) -> None:
    """What must hold when every fault is over and all is quiet.

    Guarantee 3: nothing is stored twice. 4: every connected member has been shown everything up to the head. And every
    message was acknowledged or finally refused.
    """
    for client in clients:
        _check_client(world, client)
    seen_keys: set[tuple[int, str]] = set()
    for conversation, log in world.log.logs.items():
        for place, entry in enumerate(log, 1):
            if entry.seq != place:
                raise Violation(f"{conversation}: entry {place} has the number {entry.seq}")
            if (entry.sender_id, entry.key) in seen_keys:
                raise Violation(f"{conversation}: {entry.key} of user {entry.sender_id} is stored twice")
            seen_keys.add((entry.sender_id, entry.key))


def _check_client(world: World, client: Client) -> None:
    if client.outbox:
        waiting = ", ".join(client.outbox)
        raise Violation(f"user {client.user}: never answered: {waiting}")
    socket = client.socket
    if socket is None or socket.heads is None:
        raise Violation(f"user {client.user}: never ready")
    if socket.resuming is not None:
        raise Violation(f"{socket.connection_id}: its resume never ends")
    for conversation, members in world.log.members.items():
        head = len(world.log.logs[conversation])
        seen, got = socket.last.get(conversation), client.positions.get(conversation)
        if client.user in members and seen != head:
            raise Violation(f"{socket.connection_id}: has seen {conversation} up to {seen}, its head is #{head}")
        if client.user in members and got != head:
            raise Violation(f"user {client.user}: has got {conversation} up to {got}, its head is #{head}")


def summary(world: World, clients: list[Client]) -> dict[str, int]:
    """How much happened."""
    return {
        "steps": world.steps,
        "entries": sum(map(len, world.log.logs.values())),
        "acks": sum(len(client.acks) for client in clients),
        "sockets": sum(client.sockets for client in clients),
    }
