"""Who does not read: cut, at a bounded price, while everybody else goes on; and back with everything by a resume.

What a socket that never reads costs is in the docstring of `fastsock.ws.uvicorn_protocol`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect

from fastsock.core.limits import (
    HAPROXY_RECEIVE_BYTES,
    HAPROXY_SEND_BYTES,
    MAX_OUTBOX_BYTES,
    OUTBOX_PATIENCE_S,
    SOCKET_SEND_BYTES,
)
from tests.e2e.basics import sockets_are
from tests.e2e.people import until
from tests.e2e.wire import WITHIN_S, Account, Town, Wire

pytestmark = pytest.mark.cluster

PACE_S = 1 / 15
"""Between two messages of one socket, which may send 20 a second."""
LONG = "x" * 16_384
LONGER = "€" * 16_384
"""The largest message: 49,152 bytes."""
CUT_WITHIN_S = OUTBOX_PATIENCE_S + 4 * WITHIN_S
ESTABLISHED = "01"
"""Of ``/proc/net/tcp``."""
SEGMENT_BYTES = 64 * 1024
"""What the kernel may put into a buffer in one piece, when there is place for a part of it."""
SLACK_BYTES = 8 * 1024 * 1024
"""By which the memory of a Python process under load changes without any reason."""


async def figures(town: Town) -> dict[str, Any]:
    """What the only gateway says about itself."""
    command = [sys.executable, "-m", "fastsock", "top", "--json", "--data-dir", str(town.server.data_dir)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    [gateway] = json.loads(done.stdout)["gateways"]
    return dict(gateway)


async def open_small(town: Town, who: Account) -> Wire:
    """A socket with the smallest buffers, straight to the gateway.

    While HAProxy knows of no replica yet, right after the start, it connects sockets to Serve's own proxy: that one
    compresses.
    """
    give_up_at = time.monotonic() + WITHIN_S
    while True:
        own = socket.socket()
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        own.setblocking(False)
        port = int(town.server.url.rpartition(":")[2])
        await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", port))
        url = f"{town.server.ws_url}?token={who.token}"
        client: ClientConnection = await connect(url, sock=own, ping_interval=None, max_size=None)
        assert client.response is not None
        if "Sec-WebSocket-Extensions" not in client.response.headers:
            return await Wire(client).greeted()
        await client.close()
        assert time.monotonic() < give_up_at, "HAProxy knows of no replica"
        await asyncio.sleep(0.5)


def kernel_bytes(town: Town, gateway: psutil.Process) -> tuple[int, int, int]:
    """The most that one socket has waiting: of the gateway's to be sent, of HAProxy's to be read, and to be sent."""
    own = {at.laddr.port for at in gateway.net_connections("tcp4") if at.status == psutil.CONN_LISTEN}
    public = int(town.server.url.rpartition(":")[2])
    most = [0, 0, 0]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, queues, *_ = line.split()
        here, there = (int(address.rpartition(":")[2], 16) for address in (local, remote))
        sends, receives = (int(size, 16) for size in queues.split(":"))
        if state != ESTABLISHED:
            continue
        if here in own:
            most[0] = max(most[0], sends)
        elif there in own:
            most[1] = max(most[1], receives)
        elif here == public:
            most[2] = max(most[2], sends)
    return most[0], most[1], most[2]


class Talk:
    """Several people in one room, each of whom says long things as fast as allowed."""

    def __init__(self, wires: list[Wire], room: int, head: int) -> None:
        self.wires = wires
        self.room = room
        self.since = self.head = head
        self.over = False
        self.slowest_s = 0.0
        """The longest that an ack took, or the last messages on their way to everybody."""

    async def go_on(self) -> None:
        """Until it is over; then everybody has been shown everything, in order."""
        await asyncio.gather(*map(self._speak, self.wires))
        begun = time.monotonic()
        for wire in self.wires:
            await until(lambda: self.shown_to(wire)[-1:] == [self.head], WITHIN_S, f"message {self.head}")  # noqa: B023
            assert self.shown_to(wire) == list(range(self.since + 1, self.head + 1))
            wire.frames.clear()
        self.slowest_s = max(self.slowest_s, time.monotonic() - begun)

    async def _speak(self, wire: Wire) -> None:
        while not self.over:
            begun = time.monotonic()
            ack = await wire.post(LONG, room_id=self.room)
            self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
            self.head = max(self.head, ack["seq"])
            await asyncio.sleep(max(0.0, begun + PACE_S - time.monotonic()))

    @staticmethod
    def shown_to(wire: Wire) -> list[int]:
        return [frame["data"]["seq"] for frame in wire.frames if frame["event"] == "message.receive"]


async def test_who_never_reads_is_cut_and_nobody_else_notices(town: Town) -> None:
    """Neither those in the same room nor the gateway's memory."""
    deaf, *talkers = await town.people("deaf", "ada", "bea", "cleo", "dora")
    room = await town.room(talkers[0], deaf, *talkers[1:])
    wires = [await town.open(who) for who in talkers]
    slow = await open_small(town, deaf)
    for wire in wires:
        wire.frames.clear()
    before = await figures(town)
    gateway = psutil.Process(before["pid"])

    warm_up = Talk(wires, room, head=1)
    talking = asyncio.create_task(warm_up.go_on())
    await asyncio.sleep(2 * OUTBOX_PATIENCE_S)  # as long as what follows: memory that the talk itself takes is taken
    warm_up.over = True
    await talking
    await slow.take("message.receive", seq=warm_up.head)  # who reads is shown everything, whatever its buffers
    slow.frames.clear()

    slow.socket.transport.pause_reading()
    rss = gateway.memory_info().rss
    talk = Talk(wires, room, warm_up.head)
    talking = asyncio.create_task(talk.go_on())
    grown, held = 0, (0, 0, 0)
    give_up_at = time.monotonic() + CUT_WITHIN_S
    while await town.sockets() == len(wires) + 1:
        kept = (talk.head - talk.since) * len(LONG)  # in memory for those who come back soon, whoever reads
        grown = max(grown, gateway.memory_info().rss - rss - kept)
        held = max(held, kernel_bytes(town, gateway), key=sum)
        assert time.monotonic() < give_up_at, f"not cut within {CUT_WITHIN_S:g} s, {talk.head - talk.since} messages"
        await asyncio.sleep(0.1)
    talk.over = True
    await talking
    after = await figures(town)
    assert after["slow_consumers"] == before["slow_consumers"] + 1
    assert after["outbox_bytes"] == 0
    assert grown < MAX_OUTBOX_BYTES + SLACK_BYTES
    limits = (2 * SOCKET_SEND_BYTES, 2 * HAPROXY_RECEIVE_BYTES, 2 * HAPROXY_SEND_BYTES)  # Linux doubles them
    assert all(0 < size <= limit + SEGMENT_BYTES for size, limit in zip(held, limits, strict=True)), held
    assert talk.slowest_s < 2 * warm_up.slowest_s + 1
    assert not any(wire.socket.close_code for wire in wires)

    # It wakes up: what had been on its way comes, in order, then the end.
    slow.socket.transport.resume_reading()
    code, _ = await slow.closed()
    assert code in {4008, 1006}  # the close frame waits behind what it did not read
    shown = Talk.shown_to(slow)
    last = talk.since + len(shown)
    assert shown == list(range(talk.since + 1, last + 1))
    assert last < talk.head

    back = await town.open(deaf)
    await back.say("session.resume", conversations={f"room:{room}": last})
    told = await back.take("session.resumed")
    assert (told["conversations"], told["complete"]) == ({f"room:{room}": talk.head}, True)
    assert Talk.shown_to(back) == list(range(last + 1, talk.head + 1))


async def test_a_burst_cuts_nobody_who_reads(town: Town) -> None:
    """Megabytes come in one turn of the gateway's event loop: nobody can have read them before the next comes."""
    people = await town.people("ada", "bea", "cleo", "dora")
    room = await town.room(*people)
    wires = [await town.open(who) for who in people]
    before = await figures(town)
    frame = {"event": "message.send", "data": {"room_id": room, "content": LONGER}}
    text = json.dumps(frame, ensure_ascii=False)
    each = 40

    async def burst(wire: Wire) -> None:
        for _ in range(each):
            await wire.raw(text)

    await asyncio.gather(*map(burst, wires))
    for wire in wires:
        await wire.take("message.receive", seq=1 + each * len(wires))
        assert Talk.shown_to(wire) == list(range(2, 1 + each * len(wires)))
    assert (await figures(town))["slow_consumers"] == before["slow_consumers"]
    await sockets_are(town, len(wires))
