"""Who waits for the answer to which message."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from fastsock.client.errors import Refused
from fastsock.client.events import Ack


@dataclass(slots=True, eq=False)
class _Waiting:
    answer: asyncio.Future[Ack] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    count: int = 0
    """How many wait; 0: they have given up, the message has not."""


class Answers:
    """Messages without an answer, by their ``client_msg_id``; at most ``limit``."""

    def __init__(self, limit: int) -> None:
        self._waiting: dict[str, _Waiting] = {}
        self._space = asyncio.Semaphore(limit)
        self._failed = False

    def __contains__(self, name: str) -> bool:
        return name in self._waiting

    async def reserve(self, name: str) -> bool:
        """Wait until there is space for this message; False if it is there already, or after `fail`."""
        if name not in self._waiting:
            await self._space.acquire()
            if not self._failed and name not in self._waiting:
                self._waiting[name] = _Waiting()
                return True
            self._space.release()
        return False

    async def wait(self, name: str) -> Ack:
        """Wait for its answer; whoever is cancelled here cancels nobody else."""
        waiting = self._waiting[name]
        waiting.count += 1
        try:
            return await asyncio.shield(waiting.answer)
        finally:
            waiting.count -= 1

    def settle(self, name: str, answer: Ack | Refused) -> bool:
        """This is the answer; False if it is a refusal of which nobody waits to hear."""
        waiting = self._waiting.pop(name)
        self._space.release()
        if isinstance(answer, Ack):
            waiting.answer.set_result(answer)
        elif waiting.count:
            waiting.answer.set_exception(answer)
        else:
            return False
        return True

    def fail(self, error: BaseException) -> None:
        """There will be no answers, for this reason."""
        self._failed = True
        for waiting in self._waiting.values():
            if waiting.count:
                waiting.answer.set_exception(error)
        self._space.release()  # the first who waits for space finds out, and wakes the next
