"""``python -m tests.benchmarks.edges``: three ways from a host to a gateway, measured with nothing else around them.

``poll``    the gateway calls, the host answers when it has something; the next call acknowledges. What FastSock does.
``stream``  the gateway calls once, the host yields (``num_returns="streaming"``).
``call``    the host calls the gateway, which has to be an actor that can be looked up; a Serve replica is none.

For each: how long a batch takes from the host having it to the gateway having it, and the CPU of both processes for it,
at a steady rate of batches and back to back.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import time
from collections.abc import AsyncIterator
from typing import Any

import ray
from rich.console import Console
from rich.table import Table

WAYS = ("poll", "stream", "call")
BATCHES = 200


class Sender:
    """The host's side: a batch is a time and some bytes."""

    def __init__(self, size_bytes: int) -> None:
        self._padding = b"x" * size_bytes
        self._ready: asyncio.Queue[int] = asyncio.Queue(1)
        self._cpu_s = 0.0

    async def make(self, batches: int, pause_s: float, to: Any) -> None:
        """Have something that often; ``to`` is called with it, or None where it is fetched."""
        start = time.process_time()
        for _ in range(batches):
            await asyncio.sleep(pause_s)
            if to is None:
                await self._ready.put(time.monotonic_ns())
            else:
                await to.take.remote(time.monotonic_ns(), self._padding)
        await self._ready.join()
        self._cpu_s = time.process_time() - start

    async def poll(self) -> tuple[int, bytes]:
        made_ns = await self._ready.get()
        self._ready.task_done()
        return made_ns, self._padding

    async def stream(self, batches: int) -> AsyncIterator[tuple[int, bytes]]:
        for _ in range(batches):
            yield await self.poll()

    async def cpu_s(self) -> float:
        return self._cpu_s


class Receiver:
    """The gateway's side."""

    def __init__(self, sender: Any) -> None:
        self._sender = sender
        self._took_ms: list[float] = []
        self._start = 0.0

    async def take(self, made_ns: int, _padding: bytes) -> None:
        self._took_ms.append((time.monotonic_ns() - made_ns) / 1e6)

    async def begin(self) -> None:
        self._took_ms.clear()
        self._start = time.process_time()

    async def fetch(self, way: str, batches: int) -> None:
        if way == "poll":
            for _ in range(batches):
                await self.take(*await self._sender.poll.remote())
        elif way == "stream":
            async for item in self._sender.stream.options(num_returns="streaming").remote(batches):
                await self.take(*await item)

    async def end(self) -> tuple[list[float], float]:
        return self._took_ms, time.process_time() - self._start


def _actor(cls: Any, argument: object) -> Any:
    return ray.remote(cls).options(num_cpus=0, enable_task_events=False).remote(argument)


def measure(way: str, size_bytes: int, pause_s: float, batches: int) -> tuple[float, float, float]:
    """``(p50 ms, p99 ms, CPU ms a batch)``."""
    sender = _actor(Sender, size_bytes)
    receiver = _actor(Receiver, sender)
    for count in (20, batches):  # the first is to warm up
        ray.get(receiver.begin.remote())
        fetching = receiver.fetch.remote(way, count)
        ray.get(sender.make.remote(count, pause_s, receiver if way == "call" else None))
        ray.get(fetching)
    took_ms, receiving_s = ray.get(receiver.end.remote())
    cpu_s = receiving_s + ray.get(sender.cpu_s.remote())
    ray.kill(sender)
    ray.kill(receiver)
    return statistics.median(took_ms), statistics.quantiles(took_ms, n=100)[98], 1e3 * cpu_s / batches


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.edges", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="medians are of so many (default 3)")
    options = parser.parse_args()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    table = Table(title=f"host to gateway, medians of {options.rounds}", title_justify="left")
    for name in ("way", "batches", "bytes", "p50 ms", "p99 ms", "CPU ms"):
        table.add_column(name, justify="right")
    for size_bytes in (500, 60_000):
        for rate, pause_s in (("50/s", 0.02), ("back to back", 0.0)):
            for way in WAYS:
                rounds = [measure(way, size_bytes, pause_s, BATCHES) for _ in range(options.rounds)]
                figures = [statistics.median(figure) for figure in zip(*rounds, strict=True)]
                table.add_row(way, rate, f"{size_bytes:,}", *(f"{figure:.2f}" for figure in figures))
    ray.shutdown()
    Console().print(table)


if __name__ == "__main__":
    main()
