"""Sockets that are behind: what each of them is still to be shown before it goes on with everybody.

A socket is *behind* in a conversation (`Topic.behind`) when it has been shown less than the gateway has passed on. It
is shown the rest by itself, in order, from memory (`Recent`) or in pages of the log, while everybody else goes on; when
it has reached what was passed on last, it joins the others in the same moment: there is neither a gap nor a repeat.

There are two ways to get behind:

* *The hold.* A new socket is held for a moment after ``session.ready``, until its first frame: whoever resumes gets the
  live stream after the replay and not before it. A client that says nothing, or something else, is let go on.
* *A resume* names the last entry that the client has. It may name one that has not come by here yet (the client was on
  another gateway): then the socket waits until it has.

**Bounds.** A socket has one page under way at a time, and the next is fetched when it has taken that one; at most
`MAX_REPLAYS` sockets have one, the others wait their turn. Whoever has missed too much is told to reload instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from actors.effects import Frame
from actors.gateway_outputs import Feed, Output, ReadPage, Resumed, Write
from actors.gateway_tables import Outcome, Replay, Seat, Topic
from actors.recent import Recent
from fastsock.core.limits import (
    MAX_NEW_ENTRIES,
    MAX_REPLAYS,
    MAX_RESUME_ENTRIES,
    RESUME_AT_ONCE_BYTES,
    RESUME_PAGE,
    RESUME_PAGE_BYTES,
)
from fastsock.schemas.log import Standing

S = TypeVar("S")

RETRY_MS = 1_000
"""The pause before a page that could not be read is asked for again."""


class Replays(Generic[S]):
    """The sockets of one gateway that are behind. ``topics`` is the gateway's own table."""

    def __init__(self, topics: dict[str, Topic[S]], hold_ms: int) -> None:
        self._topics = topics
        self._hold_ms = hold_ms
        self._recent = Recent()
        self._held: dict[Seat[S], int] = {}
        self._reads: dict[tuple[str, int], list[Seat[S]]] = {}
        """The pages that are being read, and who waits for each."""
        self._busy = 0
        self._queue: dict[Seat[S], None] = {}
        self._retrying: dict[Seat[S], int] = {}
        self._vacated: list[Topic[S]] = []

    # --- the hold ------------------------------------------------------------------------------------------------

    def hold(self, seat: Seat[S], now_ms: int) -> None:
        """Let a socket that gets ready now be behind in whatever it joins, until `release` or for ``hold_ms``."""
        if self._hold_ms:
            seat.replay = Replay(held=True)
            self._held[seat] = now_ms + self._hold_ms

    def release(self, seat: Seat[S]) -> list[Output[S]]:
        """The socket has begun to speak, and not of a resume: let it go on with everybody."""
        if self._held.pop(seat, None) is None or seat.replay is None:
            return []
        seat.replay.held = False
        return self._advance(seat)

    def resuming(self, seat: Seat[S]) -> bool:
        """The socket has asked for a resume, and `resume` or `release` will follow; False if one is under way."""
        if seat.replay is None:
            seat.replay = Replay()
        elif seat.replay.resuming:
            return False
        seat.replay.resuming = True
        if seat in self._held:
            del self._held[seat]
        return True

    def give_up(self, seat: Seat[S]) -> list[Output[S]]:
        """What the resume needs to know could not be read: go on as if nobody had asked."""
        assert seat.replay is not None, "resuming comes before"
        seat.replay.held = seat.replay.resuming = False
        return self._advance(seat)

    # --- a resume ------------------------------------------------------------------------------------------------

    def resume(self, seat: Seat[S], wanted: dict[str, int], standing: Standing, context: object) -> list[Output[S]]:
        """Show the socket what follows the numbers in ``wanted``, then say `Resumed`.

        A socket's first resume is about all conversations: those that it does not name are new to its client, and are
        shown from the entry that has let the user in.
        """
        replay = seat.replay
        assert replay is not None, "resuming comes before"
        new = {} if seat.resumed else {name: at - 1 for name, at in standing.joined.items() if name not in wanted}
        concerned = [*wanted] if seat.resumed else sorted({*wanted, *seat.topics})
        seat.resumed = True
        oldest: dict[str, int] = {}
        for since, bound in ((wanted, MAX_RESUME_ENTRIES), (new, MAX_NEW_ENTRIES)):
            for name in sorted(since.keys() & seat.topics):
                topic, head = self._topics[name], standing.heads.get(name, 0)
                if topic.reached - bound <= since[name] <= max(head, topic.reached):
                    self._fall_behind(seat, replay, topic, since[name])
                else:
                    oldest[name] = max(topic.reached - bound, 0) + 1
        left = [name for name in wanted if name not in seat.topics and name not in standing.joined]
        replay.held = False
        replay.outcome = Outcome(context, concerned, oldest, left)
        return self._advance(seat)

    @staticmethod
    def _fall_behind(seat: Seat[S], replay: Replay, topic: Topic[S], since: int) -> None:
        floor = topic.floors.get(seat.socket, 0)
        topic.discard(seat.socket)
        topic.behind[seat.socket] = since
        if floor:
            topic.floors[seat.socket] = floor
        replay.wanted[topic.name] = None

    # --- what happens in the topics meanwhile --------------------------------------------------------------------

    def passed(self, topic: Topic[S], frame: Frame) -> list[Output[S]]:
        """An entry was passed on to those who are not behind."""
        self._recent.add(frame)
        if not topic.ahead or topic.reached < min(topic.ahead.values()):
            return []
        outputs: list[Output[S]] = []
        for seat, number in list(topic.ahead.items()):
            if number <= topic.reached:
                del topic.ahead[seat]
                outputs += self._advance(seat)
        return outputs

    @staticmethod
    def joined(seat: Seat[S], topic: Topic[S], since: int) -> bool:
        """Let a seat into a conversation by the entry after ``since``, if it is held or behind there; else False."""
        if seat.replay is None:
            return False
        if seat.socket in topic.behind:  # it has left and come again
            seat.replay.ends.pop(topic.name, None)
            return True
        if not seat.replay.held:
            return False
        topic.behind[seat.socket] = since
        if topic.until:
            topic.floors[seat.socket] = since
        topic.linger_until_ms = None
        seat.topics.add(topic.name)
        seat.replay.wanted[topic.name] = None
        return True

    def left(self, seat: Seat[S], topic: Topic[S], seq: int) -> bool:
        """The membership of a seat that is behind ends by entry ``seq``, which it is shown last; False: not behind."""
        if seat.socket not in topic.behind:
            return False
        assert seat.replay is not None, "who is behind has a replay"
        seat.replay.ends[topic.name] = seq
        return True

    def forget_topic(self, name: str) -> None:
        """Nobody is interested in this conversation any more."""
        self._recent.forget(name)

    def forget(self, seat: Seat[S]) -> list[Output[S]]:
        """The socket has ended."""
        self._held.pop(seat, None)
        self._queue.pop(seat, None)
        self._retrying.pop(seat, None)
        replay, seat.replay = seat.replay, None
        if replay is None:
            return []
        for name in replay.wanted:
            topic = self._topics[name]
            del topic.behind[seat.socket]
            topic.ahead.pop(seat, None)
            topic.floors.pop(seat.socket, None)
        return self._free(replay)

    # --- going on ------------------------------------------------------------------------------------------------

    def _advance(self, seat: Seat[S]) -> list[Output[S]]:
        """Show the seat what can be shown at once, and begin to fetch or to feed what cannot."""
        replay = seat.replay
        if replay is None or replay.held or replay.busy or seat in self._queue or seat in self._retrying:
            return []
        outputs: list[Output[S]] = []
        at_once = RESUME_AT_ONCE_BYTES
        while (name := self._next(seat, replay)) is not None:
            topic, seen = self._topics[name], self._topics[name].behind[seat.socket]
            goal = replay.ends.get(name, topic.reached)
            if seen >= goal:
                self._arrive(seat, replay, topic)
                continue
            payloads = page_of(self._recent.after(name, seen, min(goal - seen, RESUME_PAGE)))
            size = sum(map(len, payloads))
            if payloads and seen + len(payloads) == goal and size <= at_once:
                at_once -= size
                topic.behind[seat.socket] = goal
                outputs += [Write((seat.socket,), payload) for payload in payloads]
            elif self._busy >= MAX_REPLAYS:
                self._queue[seat] = None
                return outputs
            elif payloads:
                return [*outputs, *self._feed(seat, replay, topic, payloads)]
            else:
                return [*outputs, *self._read(seat, replay, topic, goal)]
        if not replay.wanted and not (replay.resuming and replay.outcome is None):
            seat.replay = None
            outputs += self._resumed(seat, replay)
        return outputs

    def _next(self, seat: Seat[S], replay: Replay) -> str | None:
        """The next conversation in which something can be done; those that are ahead of their topic wait."""
        for name in replay.wanted:
            topic = self._topics[name]
            if topic.behind[seat.socket] <= topic.reached:
                return name
            topic.ahead[seat] = topic.behind[seat.socket]
        return None

    def _arrive(self, seat: Seat[S], replay: Replay, topic: Topic[S]) -> None:
        """The seat has been shown all that was passed on: let it go on with everybody, or leave."""
        seen = topic.behind.pop(seat.socket)
        topic.ahead.pop(seat, None)
        del replay.wanted[topic.name]
        if replay.ends.pop(topic.name, None) is not None:
            seat.topics.discard(topic.name)
            self._vacated.append(topic)
            return
        topic.add(seat.socket)
        if topic.until:
            topic.floors[seat.socket] = seen

    def _feed(self, seat: Seat[S], replay: Replay, topic: Topic[S], payloads: list[bytes]) -> list[Output[S]]:
        self._busy += 1
        replay.busy = True
        topic.behind[seat.socket] += len(payloads)
        return [Feed(seat.socket, payloads)]

    def _read(self, seat: Seat[S], replay: Replay, topic: Topic[S], goal: int) -> list[Output[S]]:
        self._busy += 1
        replay.busy = True
        since = topic.behind[seat.socket]
        waiting = self._reads.get((topic.name, since))
        if waiting is not None:
            waiting.append(seat)
            return []
        self._reads[topic.name, since] = [seat]
        return [ReadPage(topic.name, since, min(goal, since + RESUME_PAGE))]

    def page_read(self, name: str, since: int, payloads: Sequence[bytes], now_ms: int) -> list[Output[S]]:
        """What follows ``since`` in the log, as much of it as was asked for."""
        page = page_of(payloads)
        if not page:
            return self.page_failed(name, since, now_ms)
        outputs: list[Output[S]] = []
        for seat in self._reads.pop((name, since)):
            replay = seat.replay
            if replay is not None:
                replay.busy = False
                self._busy -= 1
                mine = page[: replay.ends.get(name, since + len(page)) - since]  # others may stay for longer
                if name in replay.wanted and self._topics[name].behind[seat.socket] == since and mine:
                    outputs += self._feed(seat, replay, self._topics[name], mine)
                else:  # a resume has come between
                    outputs += self._advance(seat)
        return outputs

    def page_failed(self, name: str, since: int, now_ms: int) -> list[Output[S]]:
        """The page could not be read; it is asked for again after a pause."""
        outputs: list[Output[S]] = []
        for seat in self._reads.pop((name, since)):
            if seat.replay is not None:
                self._retrying[seat] = now_ms + RETRY_MS
                outputs += self._free(seat.replay)
        return outputs

    def fed(self, seat: Seat[S]) -> list[Output[S]]:
        """The socket has taken what it was fed; whoever waits for a turn comes first."""
        replay = seat.replay
        assert replay is not None, "who is being fed has a replay"
        replay.busy = False
        self._busy -= 1
        outputs = self._turns()
        return [*outputs, *self._advance(seat)]

    def _free(self, replay: Replay) -> list[Output[S]]:
        if not replay.busy:
            return []
        replay.busy = False
        self._busy -= 1
        return self._turns()

    def _turns(self) -> list[Output[S]]:
        outputs: list[Output[S]] = []
        while self._queue and self._busy < MAX_REPLAYS:
            seat = next(iter(self._queue))
            del self._queue[seat]
            outputs += self._advance(seat)
        return outputs

    def _resumed(self, seat: Seat[S], replay: Replay) -> list[Output[S]]:
        if replay.outcome is None:
            return []
        outcome = replay.outcome
        reached = {name: self._topics[name].reached for name in outcome.concerned if name in seat.topics}
        left = [name for name in outcome.left if name not in reached]  # some may have been let in again meanwhile
        return [Resumed(seat.socket, outcome.context, reached, outcome.oldest, left)]

    # --- time ----------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> list[Output[S]]:
        """End the holds that are over, and try again what is due."""
        outputs: list[Output[S]] = []
        for seat, until_ms in list(self._held.items()):
            if until_ms > now_ms:
                break
            outputs += self.release(seat)
        for seat, at_ms in list(self._retrying.items()):
            if at_ms > now_ms:
                break
            del self._retrying[seat]
            outputs += self._advance(seat)
        return outputs

    def deadlines(self) -> Iterable[int]:
        """When `tick` next has something to do: the first hold, the first page to be tried again."""
        firsts = [next(iter(times.values())) for times in (self._held, self._retrying) if times]
        return [*firsts, 0] if self._vacated else firsts

    def take_vacated(self) -> list[Topic[S]]:
        """The conversations that a socket has left since this was last asked."""
        vacated, self._vacated = self._vacated, []
        return vacated

    def __len__(self) -> int:
        """Sockets that have a page under way, or wait for their turn."""
        return self._busy + len(self._queue)


def page_of(payloads: Sequence[bytes]) -> list[bytes]:
    """The first of these, up to `RESUME_PAGE_BYTES`; at least one, if there is one."""
    sizes = accumulate(map(len, payloads))
    return [
        payload
        for place, (payload, size) in enumerate(zip(payloads, sizes, strict=True))
        if not place or size <= RESUME_PAGE_BYTES
    ]
