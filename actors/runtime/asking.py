"""Asking actors from a process without sockets: the `Actors` port of the API replicas.

It is a gateway that nobody connects to: the same requests, the same repeats after a host's death, the same limits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from actors import gateway as gw
from actors.commands import Envelope, LinkCommand
from actors.effects import Delivery
from actors.ids import IdLease
from actors.placement import Placement
from actors.runtime.clock import now_ms
from actors.runtime.links import HostLinks
from actors.runtime.tasks import Tasks
from fastsock.core.errors import FastSockError, error_of
from fastsock.db.message_log import MessageLog

TICK_S = 0.25


class Asking:
    """Implements `fastsock.services.ports.Actors`, and reads the deliveries of its links."""

    def __init__(self, peer: str, placement: Placement, message_log: MessageLog) -> None:
        self._gateway: gw.Gateway[None] = gw.Gateway()
        self._log = message_log
        self._ids = IdLease()
        self._leasing = asyncio.Lock()
        self._tasks = Tasks()
        self.links = HostLinks(peer, placement, self)

    def start(self) -> None:
        self.links.start()
        self._tasks.start(self._tick(), "asking-tick")

    async def stop(self) -> None:
        await self._tasks.stop()
        await self.links.stop()

    async def ask(self, name: str, command: LinkCommand) -> bytes:
        """See `fastsock.services.ports.Actors.ask`."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._perform(self._gateway.request(name, command, answer, now_ms()))
        return await answer

    def tell(self, name: str, command: LinkCommand) -> None:
        """See `fastsock.services.ports.Actors.tell`.

        Raises:
            FastSockError: ``overloaded``: too much waits for that host.

        """
        failure = self.links.submit(Envelope(name, 0, command))
        if failure is not None:
            raise error_of(failure.code, failure.message, failure.retry_after_ms)

    async def lease_id(self) -> int:
        """See `fastsock.services.ports.Actors.lease_id`."""
        async with self._leasing:
            if not self._ids:
                count = self._ids.next_lease(now_ms()) or 0
                try:
                    self._ids.leased(await self._log.lease_ids(count))
                except FastSockError:
                    self._ids = IdLease()  # the next request asks again at once; this one fails
                    raise
            return self._ids.take()

    # --- what the links read into ---------------------------------------------------------------------------------

    def deliveries(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            self._perform(self._gateway.delivered(delivery, now_ms()))

    def reattach(self, owned: Callable[[str], bool]) -> None:
        self._perform(self._gateway.reattach(owned, now_ms()))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._perform(self._gateway.tick(now_ms()))

    def _perform(self, outputs: list[gw.Output[None]]) -> None:
        for output in outputs:
            if isinstance(output, gw.Submit):
                full = self.links.submit(output.envelope)
                if full is not None:
                    self._perform(self._gateway.refused(output.envelope, full, now_ms()))
            elif isinstance(output, gw.Answered):
                future = _waiting(output.context)
                if future is not None:
                    future.set_result(output.payload)
            elif isinstance(output, gw.Refused):
                failure, future = output.failure, _waiting(output.context)
                if future is not None:
                    future.set_exception(error_of(failure.code, failure.message, failure.retry_after_ms))


def _waiting(context: object) -> asyncio.Future[bytes] | None:
    """The future that waits for an answer; None if whoever waited has gone away."""
    assert isinstance(context, asyncio.Future)
    return None if context.done() else context
