"""The persistence actor: a `GroupCommit` on the world's log."""

from __future__ import annotations

from actors import persistence
from actors.effects import Failure
from fastsock.schemas.log import Append, Outcome
from tests.simulation.calls import Call, Process, Slot
from tests.simulation.world import World


class WriterSlot(Slot["SimWriter"]):
    """The name under which hosts call it."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.start()

    def start(self) -> None:
        self.process = SimWriter(self.world)

    def kill(self, back_after_ms: int) -> None:
        if self.process is not None:
            self.world.count("killed writers")
            self.process.end()
            self.process = None
            self.world.after(back_after_ms, self.start)

    def replace(self, zombie_ms: int) -> None:
        """Start another one while this one, frozen or not, lives on for a while and commits what it has."""
        self.supersede(zombie_ms)
        self.start()


class SimWriter(Process):
    """One life of it. What it has sent to the database is committed there, whether it lives or not."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "writer")
        self._commits = persistence.GroupCommit()
        self._calls: dict[int, Call] = {}
        world.say(f"{self.peer} starts")

    def append(self, body: bytes, call: Call) -> None:
        ticket = self._commits.offer(body)
        if ticket.answer is not None:
            call.answer(persistence.encode_answer(ticket.answer))
            return
        self._calls[id(ticket)] = call
        self._next()

    def _next(self) -> None:
        groups = self._commits.take()
        if groups is not None:
            self.world.after(self.world.latency("commits"), self._commit, groups)

    def _commit(self, groups: list[Append]) -> None:
        world, stream = self.world, self.world.stream("commits")
        if world.now_ms < world.stalled_until_ms:
            world.after(world.stalled_until_ms - world.now_ms + world.latency("commits"), self._commit, groups)
            return
        fate, way_back = stream.random(), stream.random()
        if fate < world.weather.failed_commit:
            world.count("failed commits")
            world.say("a transaction fails")
            self.later(world.pace(way_back), self._told, None)
            return
        outcomes = self.write(groups)
        if fate < world.weather.failed_commit + world.weather.blind_commit:
            world.count("blind commits")
            world.say(f"{self.peer} is told that the transaction failed")
            self.later(world.pace(way_back), self._told, None)
        else:
            self.later(world.pace(way_back), self._told, outcomes)

    def write(self, groups: list[Append]) -> list[list[Outcome]]:
        world = self.world
        outcomes = world.log.append(groups)
        if world.trace is not None:
            for group, results in zip(groups, outcomes, strict=True):
                entries = ", ".join(f"{entry.key} ({entry.kind})" for entry in group.entries)
                became = ", ".join(str(outcome)[:60] for outcome in results)
                text = f"{self.peer} commits {group.conversation} after #{group.expected_head}: {entries}: {became}"
                world.say(text, group.conversation)
        return outcomes

    def _told(self, outcomes: list[list[Outcome]] | None) -> None:
        if outcomes is None:
            decided = self._commits.failed(Failure("storage_unavailable", "the database is away"))
        else:
            decided = self._commits.committed(outcomes)
        for ticket in decided:
            assert ticket.answer is not None, "a ticket that was decided has an answer"
            self._calls.pop(id(ticket)).answer(persistence.encode_answer(ticket.answer))
        self._next()
