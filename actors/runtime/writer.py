"""The writer: one transaction at a time, shared by whatever waited for the one before.

The shell around `GroupCommit`. It stands behind one port, `Append`: bytes of an `AppendBatch` in, bytes of its
`Answer` out, so that it can be a Ray actor of its own or an object beside a host.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from actors.effects import Failure
from actors.persistence import Answer, GroupCommit, NotCommitted, Ticket, encode_answer
from actors.runtime.tasks import Tasks
from fastsock.core.errors import FastSockError
from fastsock.core.limits import RETRY_AFTER_MS
from fastsock.schemas.log import Append, Outcome

log = structlog.get_logger("fastsock.writer")


class Log(Protocol):
    """What the writer needs of the database; `fastsock.db.message_log.MessageLog` is it."""

    async def append(self, groups: list[Append]) -> list[list[Outcome]]: ...


class Writer:
    """Group commit on one log."""

    def __init__(self, message_log: Log) -> None:
        self._log = message_log
        self._commits = GroupCommit()
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._tasks = Tasks()
        self.counts = {"commits": 0, "entries": 0, "failed_commits": 0}

    @property
    def waiting(self) -> int:
        """Entries that wait or are being committed."""
        return len(self._commits)

    def figures(self, name: str) -> dict[str, object]:
        """For ``fastsock top``."""
        return {"writer": name, "entries_waiting": self.waiting, **self.counts}

    async def append(self, body: bytes) -> bytes:
        """Commit a host's batch; answered after COMMIT, or when it is known not to have happened."""
        ticket = self._commits.offer(body)
        if ticket.answer is not None:
            return encode_answer(ticket.answer)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[id(ticket)] = answer
        self._next()
        return await answer

    def _next(self) -> None:
        groups = self._commits.take()
        if groups is not None:
            self._tasks.start(self._commit(groups), "commit")

    async def _commit(self, groups: list[Append]) -> None:
        decided: list[Ticket] = []
        try:
            outcomes = await self._log.append(groups)
        except FastSockError as error:
            decided = self._commits.failed(Failure(error.code, error.message, error.retry_after_ms))
            self._count_failure(groups, error)
        except Exception as error:
            # An answer is owed whatever happened: the hosts keep their batches and send them again.
            decided = self._commits.failed(Failure("internal", f"the append failed: {error}", RETRY_AFTER_MS))
            self._count_failure(groups, error)
            raise
        else:
            decided = self._commits.committed(outcomes)
            self.counts["commits"] += 1
            self.counts["entries"] += sum(len(group.entries) for group in groups)
        finally:
            self._answer(decided)
            self._next()

    def _count_failure(self, groups: list[Append], error: Exception) -> None:
        self.counts["failed_commits"] += 1
        log.warning("commit failed", groups=len(groups), error=str(error))

    def _answer(self, decided: list[Ticket]) -> None:
        for ticket in decided:
            answer: Answer = ticket.answer or NotCommitted(Failure("internal", "undecided", RETRY_AFTER_MS))
            waiter = self._answers.pop(id(ticket))
            if not waiter.done():
                waiter.set_result(encode_answer(answer))

    async def stop(self) -> None:
        await self._tasks.stop()
