"""Thousands of clients in one process, which costs little beside the server that it measures.

picows reads the frames (in Cython). All sockets of a room get the same bytes, so what they mean is looked up by the
bytes: the first socket that gets them parses the JSON, the others find it in a dictionary, check that it is the next
number of its conversation, and count a latency. Measured on the 2-core machine: 1.1 us a delivery.

The parent process talks to `main` over a pipe: a method's name and its arguments, a result.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import resource
import time
from collections.abc import Callable, Coroutine, Sequence
from multiprocessing.connection import Connection
from typing import Any, Self

import msgspec
import picows
import uvloop

from fastsock.bench.tally import BUCKETS, BUCKETS_PER_MS, Counted, Faults, Latencies, lost, order

KNOWN_FRAMES = 50_000
"""Frames whose meaning is remembered; then all is forgotten, and parsed once more."""
CONNECT_TIMEOUT_S = 60.0
BUCKETS_PER_S = BUCKETS_PER_MS * 1000
SETTLE_S = 15.0
"""So long what is still owed after the last send is waited for."""
TICK_S = 0.001
TEXT = picows.WSMsgType.TEXT
PING = picows.WSMsgType.PING

clock = time.monotonic
"""The same in all processes of a machine."""


class _Data(msgspec.Struct, gc=False):
    content: str = ""
    room_id: int | None = None
    receiver_id: int | None = None
    sender_id: int = 0
    seq: int = 0
    client_msg_id: str | None = None
    code: str = ""
    conversations: Any = None


class _Event(msgspec.Struct, gc=False):
    event: str
    data: _Data


_decoder = msgspec.json.Decoder(_Event)


class Step:
    """One stretch of sending."""

    def __init__(self) -> None:
        self.sent = 0
        self.acked = 0
        self.refused: dict[str, int] = {}
        self.delivery = Latencies()
        self.ack = Latencies()
        self.until_s = float("inf")


def topic_of(room_id: int | None, one: int, other: int) -> int:
    """A number for a conversation: the room's, or one below 0 for two people."""
    if room_id is not None:
        return room_id
    return -((min(one, other) << 24) | max(one, other))


class Client(picows.WSListener):
    """One socket."""

    def __init__(self, crowd: Crowd, user_id: int) -> None:
        super().__init__()
        self.crowd = crowd
        self.user_id = user_id
        self.seen: dict[int, int] = {}
        """The last number of each conversation."""
        self.transport: Any = None
        self.waiting: asyncio.Future[None] | None = None
        """Until it is ready, or has resumed."""
        self.leaving = False

    def on_ws_connected(self, transport: Any) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type != TEXT:
            if frame.msg_type == PING:
                transport.send_pong(frame.get_payload_as_bytes())
            return
        payload = frame.get_payload_as_bytes()
        crowd = self.crowd
        known = crowd.known.get(payload)
        if known is None:
            known = crowd.look(self, payload)
            if known is None:
                return
        topic, seq, due_s, buckets = known
        seen = self.seen
        last = seen.get(topic, seq - 1)
        if seq == last + 1 or crowd.numbered:
            seen[topic] = seq if seq == last + 1 else order(last, seq, crowd.faults)
        elif seq > last:
            seen[topic] = seq
        bucket = int((clock() - due_s) * BUCKETS_PER_S)
        buckets[bucket if 0 <= bucket < BUCKETS else BUCKETS] += 1

    def on_ws_disconnected(self, _transport: Any) -> None:
        if not self.leaving:
            self.crowd.faults.closed += 1
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(ConnectionError("the server closed the socket"))


Known = tuple[int, int, float, list[int]]


class Crowd:
    """All clients of the process.

    ``numbered``: whether ``seq`` counts the messages of a conversation. Where it does not (a server that has ids only),
    deliveries are counted, and their order cannot be judged.
    """

    def __init__(self, numbered: bool) -> None:
        self.numbered = numbered
        self.clients: list[Client] = []
        self.known: dict[bytes, Known] = {}
        self.heads: dict[int, int] = {}
        """The highest number that anybody has seen of each conversation."""
        self.faults = Faults()
        self.steps: list[Step] = []

    # --- what comes --------------------------------------------------------------------------------------------------

    def look(self, client: Client, payload: bytes) -> Known | None:
        """What a frame means that nobody has seen yet; None if it was no message."""
        frame = _decoder.decode(payload)
        data = frame.data
        if frame.event == "message.receive":
            topic = topic_of(data.room_id, data.sender_id, data.receiver_id or 0)
            step, due, _ = data.content.split("|", 2)
            if len(self.known) >= KNOWN_FRAMES:
                self.known.clear()
            known = topic, data.seq, float(due), self.steps[int(step)].delivery.buckets
            self.known[payload] = known
            if data.seq > self.heads.get(topic, 0):
                self.heads[topic] = data.seq
            return known
        if frame.event == "message.ack":
            index, due, _ = (data.client_msg_id or "").split("|")
            step_of = self.steps[int(index)]
            step_of.acked += 1
            step_of.ack.add(clock() - float(due))
        elif frame.event == "session.ready":
            for about in data.conversations:
                kind, _, number = about["conversation"].partition(":")
                room = int(number) if kind == "room" else None
                client.seen.setdefault(topic_of(room, client.user_id, int(number)), about["seq"])
            self._came(client)
        elif frame.event == "session.resumed":
            self._came(client)
        elif frame.event == "error":
            refused = self.steps[-1].refused if self.steps else {}
            refused[data.code] = refused.get(data.code, 0) + 1
        return None

    @staticmethod
    def _came(client: Client) -> None:
        if client.waiting is not None and not client.waiting.done():
            client.waiting.set_result(None)

    # --- coming and going --------------------------------------------------------------------------------------------

    async def connect(self, url: str, users: list[tuple[int, str]], at_once: int) -> float:
        """A socket for each ``(user id, token)``; the seconds until all of them were ready."""
        start = clock()
        gate = asyncio.Semaphore(at_once)
        self.clients += await asyncio.gather(
            *(self._connect(Client(self, user), f"{url}?token={token}", gate) for user, token in users)
        )
        return clock() - start

    async def _connect(self, client: Client, url: str, gate: asyncio.Semaphore) -> Client:
        async with gate:
            client.waiting = asyncio.get_running_loop().create_future()
            await picows.ws_connect(lambda: client, url, websocket_handshake_timeout=CONNECT_TIMEOUT_S)
            await asyncio.wait_for(client.waiting, CONNECT_TIMEOUT_S)
            client.waiting = None
        return client

    async def leave(self) -> None:
        """Close every socket."""
        for client in self.clients:
            client.leaving = True
            client.transport.disconnect()
        self.clients.clear()

    async def cut(self, first: int) -> None:
        """Cut the sockets from this one on, without a word."""
        for client in self.clients[first:]:
            client.leaving = True
            client.transport.disconnect(False)  # not gracefully
        await asyncio.sleep(0.5)

    async def come_back(self, url: str, tokens: list[str], first: int, at_once: int) -> dict[str, Any]:
        """Connect those again and resume: how long that took, for all of them and each, and what went wrong."""
        start = clock()
        gate = asyncio.Semaphore(at_once)
        each = Latencies()
        errors: dict[str, int] = {}

        async def back(client: Client, token: str) -> None:
            while clock() - start < 4 * CONNECT_TIMEOUT_S:
                try:
                    client.leaving = True
                    seen = dict(client.seen)
                    await self._connect(client, f"{url}?token={token}", gate)
                    await self._resume(client, seen)
                except (OSError, picows.WSError, TimeoutError) as error:
                    name = type(error).__name__
                    errors[name] = errors.get(name, 0) + 1
                    await asyncio.sleep(0.2)
                else:
                    client.leaving = False
                    each.add(clock() - start)
                    return

        await asyncio.gather(*map(back, self.clients[first:], tokens))
        took_s = clock() - start
        return {"took_s": took_s, "each": msgspec.to_builtins(each.summary()), "errors": errors}

    async def _resume(self, client: Client, seen: dict[int, int]) -> None:
        client.seen = seen
        names = {}
        for topic, seq in seen.items():
            if topic > 0:
                names[f"room:{topic}"] = seq
            else:
                low, high = -topic >> 24, -topic & 0xFFFFFF
                names[f"user:{high if low == client.user_id else low}"] = seq
        client.waiting = asyncio.get_running_loop().create_future()
        client.transport.send(TEXT, msgspec.json.encode({"event": "session.resume", "data": {"conversations": names}}))
        await asyncio.wait_for(client.waiting, CONNECT_TIMEOUT_S)
        client.waiting = None

    # --- sending -----------------------------------------------------------------------------------------------------

    async def send(
        self, plan: list[tuple[int, str, int]], rate: float, seconds: float, size: int, copies: int
    ) -> bytes:
        """Send at a steady rate, whatever comes back, and count until all that is owed has come: a `Counted`.

        ``plan``: who sends where, in turns: the index of a socket, ``room_id`` or ``receiver_id``, and whose.
        ``size``: characters of a message. ``copies``: to how many sockets each is delivered; 0 if
        that is not to be looked at.
        """
        step, index = Step(), len(self.steps)
        self.steps.append(step)
        self.faults = Faults()
        parts = [
            (self.clients[sender], f'{{"event":"message.send","data":{{"{to}":{whom},') for sender, to, whom in plan
        ]
        padding = "x" * max(0, size - 24)
        total, start, cpu = int(rate * seconds), clock(), time.process_time()
        while step.sent < total:
            due_now = min(total, int((clock() - start) * rate) + 1)
            while step.sent < due_now:
                client, head = parts[step.sent % len(parts)]
                due = f"{index}|{start + step.sent / rate:.5f}|"
                text = f'{head}"content":"{due}{padding}","client_msg_id":"{due}{step.sent}"}}}}'
                with contextlib.suppress(Exception):  # a socket that has ended is counted as such
                    client.transport.send(TEXT, text.encode())
                step.sent += 1
            await asyncio.sleep(TICK_S)
        window_s = clock() - start
        cpu = time.process_time() - cpu
        in_time = sum(step.delivery.buckets)
        give_up = clock() + SETTLE_S
        while clock() < give_up:
            answered = step.acked + sum(step.refused.values())
            if answered >= step.sent and self._owed(step, copies) == 0:
                break
            await asyncio.sleep(0.05)
        self.faults.lost = self._owed(step, copies)
        deliveries = sum(step.delivery.buckets)
        counted = Counted(
            step.sent,
            step.acked,
            step.refused,
            deliveries,
            deliveries - in_time,
            step.delivery.summary(),
            step.ack.summary(),
            self.faults,
            window_s,
            cpu,
        )
        step.delivery, step.ack = Latencies(), Latencies()
        self.known.clear()
        return msgspec.msgpack.encode(counted)

    def _owed(self, step: Step, copies: int) -> int:
        """Deliveries that have not come: by the numbers where there are numbers, else by counting."""
        if copies == 0:
            return 0
        if self.numbered:
            return lost(self.heads, (client.seen for client in self.clients))
        return max(0, copies * step.acked - sum(step.delivery.buckets))

    async def lacking(self) -> int:
        """What sockets lack of what others have seen; without numbers, how many conversations they lack some of."""
        owed = (client.seen for client in self.clients)
        if self.numbered:
            return lost(self.heads, owed)
        return sum(last < self.heads.get(topic, 0) for seen in owed for topic, last in seen.items())


# --- the process -----------------------------------------------------------------------------------------------------


def main(pipe: Connection, numbered: bool) -> None:
    """Do what the parent asks for, until it closes the pipe."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(_serve(pipe, numbered))


async def _serve(pipe: Connection, numbered: bool) -> None:
    crowd, loop = Crowd(numbered), asyncio.get_running_loop()
    while True:
        try:
            method, args = await loop.run_in_executor(None, pipe.recv)
        except EOFError:
            return
        call: Callable[..., Coroutine[Any, Any, object]] = getattr(crowd, method)
        try:
            pipe.send((True, await call(*args)))
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent has to know
            pipe.send((False, f"{type(error).__name__}: {error}"))


class CrowdError(Exception):
    """The clients' process could not do what was asked for."""


class CrowdProcess:
    """A `Crowd` in a process of its own; as a context manager, ended on leaving."""

    def __init__(self, numbered: bool = True) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=main, args=(theirs, numbered), daemon=True)
        self._process.start()
        theirs.close()

    def call(self, method: str, *args: object) -> Any:
        """Call a method of the crowd and wait for what it says. Raises: CrowdError."""
        self._pipe.send((method, args))
        while not self._pipe.poll(1):
            if not self._process.is_alive():
                raise CrowdError(f"the clients' process ended with {self._process.exitcode}")
        fine, result = self._pipe.recv()
        if not fine:
            raise CrowdError(result)
        return result

    def send(
        self, plan: Sequence[tuple[int, str, int]], rate: float, seconds: float, size: int, copies: int
    ) -> Counted:
        """See `Crowd.send`."""
        return msgspec.msgpack.decode(self.call("send", list(plan), rate, seconds, size, copies), type=Counted)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
