"""People in the simulated world: they send, resend, lose their sockets and come back; and they notice everything."""

from __future__ import annotations

import json
from dataclasses import dataclass

from actors.commands import AddMembers, RemoveMember, Send
from actors.effects import Failure
from fastsock.schemas import frames, names
from tests.simulation.world import SimGateway, Socket, World


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
        self.dead = False

    def ready(self, heads: dict[str, int]) -> None:
        if self.heads is not None:
            raise Violation(f"{self.connection_id}: ready twice")
        self.heads = dict(heads)
        self.last = dict(heads)
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
        if last is not None and seq != last + 1:
            raise Violation(f"{self.connection_id}: {conversation} #{seq} came after #{last}")
        if last is None and self.client.user not in frames.joins(entries[seq - 1]):
            raise Violation(f"{self.connection_id}: {conversation} began with #{seq}, which is not where it was let in")
        if not self.client.was_member(conversation, seq):
            raise Violation(
                f"{self.connection_id}: {conversation} #{seq} was shown to user {self.user}, no member then"
            )
        if "content" in data and data["id"] != entries[seq - 1].id and entries[seq - 1].kind == "message":
            raise Violation(f"{self.connection_id}: {conversation} #{seq} is not what is in the log")
        self.last[conversation] = seq
        if self.user in frames.leaves(entries[seq - 1]):
            del self.last[conversation]

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
        self.sockets = 0

    # --- the socket ----------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Open a socket on any gateway that is alive."""
        if self.socket is not None or not self.world.gateways:
            return
        gateway = self.world.rng.choice(self.world.gateways)
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
        self.world.after(self.world.rng.randint(10, 2_000), self.connect)

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

    def was_member(self, conversation: str, seq: int) -> bool:
        """Whether the log says that this user was to see entry ``seq``: a member by then, or leaving by it."""
        member = False
        for entry in self.world.log.logs[conversation][:seq]:
            if self.user in frames.joins(entry):
                member = True
            if self.user in frames.leaves(entry):
                if entry.seq == seq:
                    return True
                member = False
        return member


def check_end(world: World, clients: list[Client]) -> None:
    """What must hold when every fault is over and all is quiet.

    Guarantee 3: nothing is stored twice. 4: every connected member has been shown everything up to the head. And every
    message was acknowledged or finally refused.
    """
    for client in clients:
        if client.outbox:
            waiting = ", ".join(client.outbox)
            raise Violation(f"user {client.user}: never answered: {waiting}")
        socket = client.socket
        if socket is None or socket.heads is None:
            raise Violation(f"user {client.user}: never ready")
        for conversation, members in world.log.members.items():
            head = len(world.log.logs[conversation])
            if client.user in members and socket.last.get(conversation) != head:
                seen = socket.last.get(conversation)
                raise Violation(f"{socket.connection_id}: has seen {conversation} up to {seen}, its head is #{head}")
    seen_keys: set[tuple[int, str]] = set()
    for conversation, log in world.log.logs.items():
        for place, entry in enumerate(log, 1):
            if entry.seq != place:
                raise Violation(f"{conversation}: entry {place} has the number {entry.seq}")
            if (entry.sender_id, entry.key) in seen_keys:
                raise Violation(f"{conversation}: {entry.key} of user {entry.sender_id} is stored twice")
            seen_keys.add((entry.sender_id, entry.key))


def summary(world: World, clients: list[Client]) -> dict[str, int]:
    """How much happened."""
    return {
        "steps": world.steps,
        "entries": sum(map(len, world.log.logs.values())),
        "acks": sum(len(client.acks) for client in clients),
        "sockets": sum(client.sockets for client in clients),
    }
