"""The user: the sockets that are open on any gateway, and whether the user counts as online.

A user is online while a socket is open, and for `GRACE_MS` after the last one closed, so that a page reload does not
flap. A socket is known by its gateway and its connection id: an old one that ends late ends itself and nothing else.
What a gateway held is gone when the gateway is.

The state is what the gateways tell; nothing of it is stored. A host that restarts learns it again from them.
"""

from __future__ import annotations

from functools import singledispatchmethod

import msgspec

from actors.commands import Attend, Command, Connect, Describe, Disconnect, GatewayGone, TimerFired
from actors.effects import Cut, Effect, Fail, Failure, Reply, SetTimer, Summon
from fastsock.core.errors import TABLE
from fastsock.core.limits import MAX_CONNECTIONS_PER_USER
from fastsock.schemas import names

_json = msgspec.json.Encoder()

GRACE_MS = 10_000
"""From the last socket's end to offline: a page reload takes 1 to 3 s, a mobile network's change up to 10."""
OFFLINE = "offline"
TIMERS = (OFFLINE,)
"""The tags of the timers that a user may have set."""


class Presence:
    """One user, active."""

    __slots__ = ("_max_sockets", "_name", "_sockets", "_user_id", "online")

    def __init__(self, name: str, max_sockets: int = MAX_CONNECTIONS_PER_USER) -> None:
        self._name = name
        self._max_sockets = max_sockets
        self._user_id = names.parse(name).ids[0]
        self._sockets: dict[tuple[str, str], int] = {}
        self.online = False

    @property
    def idle(self) -> bool:
        """Whether the activation holds nothing that a new one would not: no socket, and not in the grace period."""
        return not self._sockets and not self.online

    @property
    def sockets(self) -> int:
        return len(self._sockets)

    def handle(self, command: Command, now_ms: int, peer: str) -> list[Effect]:
        """Decide. ``peer`` is the gateway (or host) that sent the command."""
        return self._decide(command, now_ms, peer)

    @singledispatchmethod
    def _decide(self, command: Command, now_ms: int, peer: str) -> list[Effect]:  # noqa: ARG002 - as all decisions
        failure = Failure("unknown_event", f"{self._name} does not take {type(command).__name__}")
        assert failure.code in TABLE
        return [Fail(failure)]

    @_decide.register
    def _connect(self, command: Connect, now_ms: int, peer: str) -> list[Effect]:
        self._sockets.setdefault((peer, command.connection_id), now_ms)
        self.online = True
        effects: list[Effect] = [SetTimer(OFFLINE, None)]
        while len(self._sockets) > self._max_sockets:
            gateway, connection_id = next(iter(self._sockets))
            del self._sockets[gateway, connection_id]
            effects.append(Cut(gateway, connection_id, TABLE["too_many_connections"].close_code or 0))
        return effects

    @_decide.register
    def _disconnect(self, command: Disconnect, now_ms: int, peer: str) -> list[Effect]:
        if self._sockets.pop((peer, command.connection_id), None) is None:
            return []
        return self._perhaps_last(now_ms)

    @_decide.register
    def _gateway_gone(self, command: GatewayGone, now_ms: int, _peer: str) -> list[Effect]:
        lost = [socket for socket in self._sockets if socket[0] == command.gateway]
        for socket in lost:
            del self._sockets[socket]
        return self._perhaps_last(now_ms) if lost else []

    def _perhaps_last(self, now_ms: int) -> list[Effect]:
        return [] if self._sockets else [SetTimer(OFFLINE, now_ms + GRACE_MS)]

    @_decide.register
    def _timer_fired(self, _command: TimerFired, _now_ms: int, _peer: str) -> list[Effect]:
        self.online = bool(self._sockets)
        return []

    @_decide.register
    def _attend(self, command: Attend, _now_ms: int, _peer: str) -> list[Effect]:
        return [Summon(command.conversation, command.since)]

    @_decide.register
    def _describe(self, _command: Describe, now_ms: int, _peer: str) -> list[Effect]:
        sockets = [
            {"gateway": gateway, "connection_id": connection_id, "open_s": (now_ms - since_ms) // 1000}
            for (gateway, connection_id), since_ms in self._sockets.items()
        ]
        status = "online" if self.online else "offline"
        return [Reply(_json.encode({"actor": self._name, "status": status, "sockets": sockets}))]
